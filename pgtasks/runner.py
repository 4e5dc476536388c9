"""Runner: runs one leased message. Find its task, call it, settle what became of it."""

import asyncio
import contextvars
import inspect
import math
from collections.abc import Awaitable, Callable, Coroutine
from datetime import timedelta
from functools import partial
from time import monotonic
from typing import Any

import anyio
import attrs
from anyio.abc import TaskGroup

from pgtasks import settlement as settle
from pgtasks.context import Context, Ties, running
from pgtasks.duration import format_duration
from pgtasks.errors import DecodeError, LeaseLost, TaskTimeout
from pgtasks.events import Events
from pgtasks.isolated import isolated
from pgtasks.lease import Lease
from pgtasks.message import Message, read_envelope
from pgtasks.outcome import Discard, RetryLater, Signal, Snooze
from pgtasks.plan import Plan
from pgtasks.registry import Registry
from pgtasks.settlement import Ended, Run, Settlement, describe_error
from pgtasks.settler import Settler
from pgtasks.slot import Slot
from pgtasks.task import Task
from pgtasks.thread_call import ThreadCall

log = Events("pgtasks.runner")

_NO_SUCH_TASK = "no such task here, put back for a worker that has it"
_NEWER = "made by a newer pgtasks, put back for a worker that knows it"


@attrs.define(eq=False)
class _Ready:
    """A message that has become a call."""

    task: Task[Any, Any]
    context: Context
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    slot: Slot
    error: BaseException | None = None
    """What the run failed with."""
    variables: contextvars.Context = attrs.field(factory=contextvars.copy_context)
    """The context variables of this run alone."""
    reason: str = ""
    """Why it was cancelled."""
    thread: ThreadCall | None = None
    """A sync function's call; None for async ones."""

    def cancel(self, reason: str) -> None:
        self.reason = reason
        self.context.cancelled = True
        self.context.lost = reason == "lost"
        self.slot.cancel()

    def time_is_up(self) -> None:
        self.cancel("timeout")

    def watch_the_time(self) -> None:
        """End it when its time is up; until it first waits, nothing could."""
        seconds = self.context.policy.timeout_seconds
        if seconds is not None:
            self.slot.alarm.set(self.context.started_at + seconds, self.time_is_up)

    def first_step(self) -> tuple[Coroutine[Any, Any, Any] | None, Any]:
        """Call an async function, and return it if it waits, with what it waits for.

        None if it has ended, with what it returned. Runs within its own context variables.
        """
        running.set(self.context)
        coroutine = self.task.fn(*self.args, **self.kwargs)
        try:
            return coroutine, coroutine.send(None)
        except StopIteration as ended:
            return None, ended.value


@attrs.define(eq=False)
class Runner:
    """Runs messages of the registered tasks, on the event loop or in threads."""

    registry: Registry
    plan: Plan
    settler: Settler
    ties: Ties
    worker: str
    threads: anyio.CapacityLimiter
    background: TaskGroup
    """Where the runs go whose thread outlives its time."""
    on_end: Callable[[Ended], None] | None = None
    """Called with each run that has ended, before that is written."""
    outliving: set[Lease] = attrs.field(factory=set, init=False)
    """Leases of runs that are over, but whose threads go on."""
    _thread_ended: asyncio.Event = attrs.field(factory=asyncio.Event, init=False)

    async def run(self, lease: Lease, slot: Slot) -> None:
        """Run one message in a slot and settle it, however it ends."""
        ready = self._prepare(lease, slot)
        if isinstance(ready, Settlement):
            self.settler.put(lease, ready)
            return
        lease.cancel = ready.cancel
        ended = await self._perform(ready)
        lease.cancel = None
        if isinstance(ended, _Cancelled) and ready.thread is not None and ready.thread.abandon():
            self.outliving.add(lease)
            self.background.start_soon(self._outlive, lease, ready, ready.thread)
        elif (written := self._settle(lease, ready, ended)) is not None:
            await written

    async def threads_ended(self) -> None:
        """Wait until no thread goes on whose run is over."""
        while self.outliving:
            self._thread_ended.clear()
            await self._thread_ended.wait()

    def _prepare(self, lease: Lease, slot: Slot) -> _Ready | Settlement:
        message, name = lease.message, None
        state = message.state
        if not state.is_readable:
            return self._put_back(message, _NEWER, version=state.version)
        try:
            envelope = read_envelope(message.body)
            name = envelope.metadata.worker_name
            task = self.registry.get(name)
            if task is None:
                return self._put_back(message, _NO_SUCH_TASK, task=name)
            args, kwargs = task.signature.decode(envelope.args)
        except DecodeError as error:
            log.error("message cannot be decoded, archived", **_fields(message), error=str(error))
            settlement = settle.undecodable(message, str(error), Run(0.0, self.worker))
            self._tell(Ended(message, name, settlement.kind, error))
            return settlement
        policy = self.plan.policy(task)
        if state.options:
            policy = policy.overridden(state.options)
        context = Context(lease, task.name, envelope.metadata.id, policy, self.ties)
        return _Ready(task, context, *task.signature.with_context(context, args, kwargs), slot)

    def _put_back(self, message: Message, event: str, **fields: Any) -> Settlement:
        settlement = settle.not_for_us(message)
        log.warning(
            event,
            **_fields(message),
            **fields,
            again_in=format_duration(_to_milliseconds(settlement.delay)),
        )
        self._tell(Ended(message, fields.get("task"), settlement.kind))
        return settlement

    def _tell(self, ended: Ended) -> None:
        if self.on_end is not None:
            self.on_end(ended)

    async def _perform(self, ready: _Ready) -> object:
        """Call the task and return what it returned, or the exception that it ended with."""
        with ready.slot:
            return await self._call(ready)
        return _Cancelled()

    async def _call(self, ready: _Ready) -> object:
        try:
            if not ready.task.is_async:
                ready.watch_the_time()
                return await self._in_thread(ready)
            rest, value = ready.variables.run(ready.first_step)
            if rest is None:
                return value
            ready.watch_the_time()
            return await isolated(rest, ready.variables, value)
        except asyncio.CancelledError as error:
            ready.slot.tidy_up()
            # Ours, or the worker's; otherwise the task cancelled itself, or let the cancellation
            # of something that it waited for escape.
            if anyio.current_effective_deadline() == -math.inf:
                raise
            _take_back_cancellation()
            return error
        except BaseException as error:  # noqa: BLE001 - user code may also raise SystemExit
            return error

    async def _in_thread(self, ready: _Ready) -> object:
        ready.variables.run(running.set, ready.context)
        call = partial(ready.task.fn, *ready.args, **ready.kwargs)
        ready.thread = ThreadCall(partial(ready.variables.run, call))
        ended = await ready.thread.run(self.threads)
        return await ended if inspect.isawaitable(ended) else ended

    async def _outlive(self, lease: Lease, ready: _Ready, thread: ThreadCall) -> None:
        """Keep the lease of a thread that cannot be ended, so that no second run starts."""
        log.warning(
            "its thread cannot be ended; keeping the lease until it returns",
            task=ready.task.name,
            **_fields(lease.message),
        )
        try:
            await thread.wait()
        finally:
            self.outliving.discard(lease)
            self._thread_ended.set()
        if (written := self._settle(lease, ready, _Cancelled())) is not None:
            await written

    def _settle(self, lease: Lease, ready: _Ready, ended: object) -> Awaitable[None] | None:
        """Have the end of a run written; return what to wait for, if its task wants to."""
        if ready.context.settled:
            self._note_after_transaction(ready, ended)
            self._tell(Ended(lease.message, ready.context.task, "done"))
            self.settler.counts["done"] += 1
            self.settler.forget(lease)
            return None
        settlement = self._decide(ready, ended)
        if self.on_end is not None:
            error = ended if isinstance(ended, BaseException) else ready.error
            self.on_end(Ended(lease.message, ready.context.task, settlement.kind, error))
        if settlement.durable:
            return self.settler.put_and_wait(lease, settlement)
        self.settler.put(lease, settlement)
        return None

    def _decide(self, ready: _Ready, ended: object) -> Settlement:  # noqa: PLR0911 - a table
        message, policy = ready.context.message, ready.context.policy
        run = Run(monotonic() - ready.context.started_at, self.worker)
        if not isinstance(ended, _BAD_ENDS):
            if log.wants_debug():
                log.debug("done", **_task_fields(ready), seconds=run.seconds)
            return settle.succeeded(message, policy, run)
        if ready.reason in ("stopping", "lost"):
            return settle.released(message)
        match ended:
            case _Cancelled():
                error = TaskTimeout(f"still running after {policy.timeout_seconds:g} s")
                return self._failed(ready, error, run)
            case Snooze():
                return settle.snoozed(message, ended)
            case Discard():
                return settle.discarded(message, policy, ended, run)
            case RetryLater():
                return settle.asked_for_later(message, policy, ended, run)
            case LeaseLost():
                # What it was told by its own transaction or extension; there is nothing to end.
                return settle.released(message)
        return self._failed(ready, ended, run)

    def _failed(self, ready: _Ready, error: BaseException, run: Run) -> Settlement:
        ready.error = error
        settlement = settle.failed(ready.context.message, ready.context.policy, error, run)
        fields = {**_task_fields(ready), "error": describe_error(error)}
        if settlement.action == "retry":
            again_in = format_duration(_to_milliseconds(settlement.delay))
            log.warning("failed, trying again", raised=error, **fields, again_in=again_in)
        else:
            log.error("failed, given up", raised=error, **fields)
        return settlement

    def _note_after_transaction(self, ready: _Ready, ended: object) -> None:
        if isinstance(ended, BaseException | _Cancelled) and not isinstance(ended, Signal):
            error = ended if isinstance(ended, BaseException) else None
            log.warning(
                "ended badly after its transaction had completed the message",
                raised=error,
                **_task_fields(ready),
            )


class _Cancelled:
    """A run that was cancelled and did end."""


_BAD_ENDS = (BaseException, _Cancelled)
"""All but a value that a task returned; a signal may be returned too."""


def _take_back_cancellation() -> None:
    current = asyncio.current_task()
    while current is not None and current.cancelling():
        current.uncancel()


def _to_milliseconds(delay: timedelta) -> timedelta:
    return timedelta(milliseconds=round(delay / timedelta(milliseconds=1)))


def _fields(message: Message) -> dict[str, Any]:
    return {"queue": message.queue, "message": message.message_id}


def _task_fields(ready: _Ready) -> dict[str, Any]:
    context = ready.context
    return {"task": context.task, "queue": context.queue, "id": context.id,
            "attempt": context.attempt}  # fmt: skip
