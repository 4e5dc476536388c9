"""Runner: runs one leased message. Find its task, call it, settle what became of it."""

import asyncio
import inspect
import logging
from collections.abc import Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from time import monotonic
from typing import Any

import anyio
import anyio.to_thread
import attrs
from anyio.abc import TaskGroup

from pgtasks import settlement as settle
from pgtasks.client import Client
from pgtasks.context import Context, running
from pgtasks.duration import format_duration
from pgtasks.errors import DecodeError, LeaseLost, TaskTimeout
from pgtasks.lease import Lease
from pgtasks.message import Message, read_envelope
from pgtasks.outcome import Discard, RetryLater, Signal, Snooze
from pgtasks.policy import Policy
from pgtasks.registry import Registry
from pgtasks.settlement import Run, Settlement, describe_error
from pgtasks.settler import Settler
from pgtasks.store import Store
from pgtasks.task import Task

log = logging.getLogger("pgtasks.runner")


@attrs.define(eq=False)
class _Ready:
    """A message that has become a call."""

    task: Task[Any, Any]
    policy: Policy
    context: Context
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    scope: anyio.CancelScope = attrs.field(factory=anyio.CancelScope)
    reason: str = "timeout"
    """Why the scope was cancelled; a scope's own deadline says nothing."""
    thread_ended: asyncio.Event | None = None
    """Set when a sync function's thread is done with it; None for async ones."""

    def cancel(self, reason: str) -> None:
        self.reason = reason
        self.context.cancelled = True
        self.context.lost = reason == "lost"
        self.scope.cancel()


@attrs.define(eq=False)
class Runner:
    """Runs messages of the registered tasks, on the event loop or in threads."""

    registry: Registry
    policies: dict[str, Policy]
    settler: Settler
    client: Client
    worker: str
    threads: anyio.CapacityLimiter
    background: TaskGroup
    """Where the runs go whose thread outlives its time."""
    resources: Any = None
    outliving: set[Lease] = attrs.field(factory=set, init=False)
    """Leases of runs that are over, but whose threads go on."""

    async def run(self, lease: Lease) -> None:
        """Run one message and settle it, however it ends."""
        ready = self._prepare(lease)
        if isinstance(ready, Settlement):
            self.settler.put(lease, ready)
            return
        lease.cancel = ready.cancel
        ended = await self._perform(ready)
        lease.cancel = None
        if ready.thread_ended is not None and not ready.thread_ended.is_set():
            self.background.start_soon(self._outlive, lease, ready, ended)
        else:
            await self._settle(lease, ready, ended)

    def _prepare(self, lease: Lease) -> _Ready | Settlement:
        message = lease.message
        try:
            envelope = read_envelope(message.body)
            name = envelope.metadata.worker_name
            task = self.registry.get(name)
            if task is None:
                return self._unknown(message, name)
            args, kwargs = task.signature.decode(envelope.args)
        except DecodeError as error:
            log.error("message cannot be decoded, archived",
                      extra={"fields": {**_fields(message), "error": str(error)}})  # fmt: skip
            return settle.undecodable(message, str(error), Run(0.0, self.worker))
        policy = self.policies[task.name]
        if message.headers is not None and (said := message.state.options):
            policy = policy.overridden(said)
        context = Context(
            message, task.name, str(envelope.metadata.id), policy.timeout_seconds, self
        )
        return _Ready(task, policy, context, args, kwargs)

    def _unknown(self, message: Message, name: str) -> Settlement:
        settlement = settle.unknown_task(message)
        log.warning("no such task here, put back for a worker that has it", extra={"fields": {
            **_fields(message), "task": name,
            "again_in": format_duration(_to_milliseconds(settlement.delay))}})  # fmt: skip
        return settlement

    async def _perform(self, ready: _Ready) -> object:
        """Call the task and return what it returned, or the exception that it ended with."""
        token = running.set(ready.context)
        if ready.context.timeout_seconds is not None:
            ready.scope.deadline = anyio.current_time() + ready.context.timeout_seconds
        try:
            with ready.scope:
                return await self._call(ready)
            ready.context.cancelled = True
            return _Cancelled()
        finally:
            running.reset(token)

    async def _call(self, ready: _Ready) -> object:
        task = ready.task
        if task.signature.context_parameter is not None:
            ready.args, ready.kwargs = task.signature.with_context(
                ready.context, ready.args, ready.kwargs
            )
        try:
            if task.is_async:
                return await task.fn(*ready.args, **ready.kwargs)
            return await self._in_thread(ready)
        except asyncio.CancelledError as error:
            # Ours, or the worker's; otherwise the task let somebody else's escape.
            if ready.scope.cancel_called or _is_being_cancelled():
                raise
            return error
        except BaseException as error:  # noqa: BLE001 - user code may also raise SystemExit
            return error

    async def _in_thread(self, ready: _Ready) -> object:
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        call = partial(ready.task.fn, *ready.args, **ready.kwargs)
        ready.thread_ended = ended
        result = await anyio.to_thread.run_sync(
            _telling, call, partial(loop.call_soon_threadsafe, ended.set),
            limiter=self.threads, abandon_on_cancel=True,
        )  # fmt: skip
        ended.set()
        # What it raised comes back as a value: a StopIteration would otherwise break the bridge
        # between the threads, which hands exceptions over by a future.
        return await result if inspect.isawaitable(result) else result

    async def _outlive(self, lease: Lease, ready: _Ready, ended: object) -> None:
        """Keep the lease of a thread that cannot be ended, so that no second run starts."""
        assert ready.thread_ended is not None  # noqa: S101
        log.warning("its thread cannot be ended; keeping the lease until it returns", extra={
            "fields": {"task": ready.task.name, **_fields(lease.message)}})  # fmt: skip
        self.outliving.add(lease)
        try:
            await ready.thread_ended.wait()
        finally:
            self.outliving.discard(lease)
        await self._settle(lease, ready, ended)

    async def _settle(self, lease: Lease, ready: _Ready, ended: object) -> None:
        if ready.context.settled:
            self._note_after_transaction(ready, ended)
            self.settler.counts["done"] += 1
            self.settler.forget(lease)
            return
        settlement = self._decide(ready, ended)
        if settlement.durable:
            await self.settler.put_and_wait(lease, settlement)
        else:
            self.settler.put(lease, settlement)

    def _decide(self, ready: _Ready, ended: object) -> Settlement:
        message, policy = ready.context.message, ready.policy
        run = Run(monotonic() - ready.context.started_at, self.worker)
        match ended:
            case _Cancelled() | BaseException() if ready.reason == "stopping":
                return settle.released(message)
            case _Cancelled():
                error = TaskTimeout(f"still running after {ready.context.timeout_seconds:g} s")
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
            case BaseException():
                return self._failed(ready, ended, run)
        if log.isEnabledFor(logging.DEBUG):
            log.debug("done", extra={"fields": {**_task_fields(ready), "seconds": run.seconds}})
        return settle.succeeded(message, policy, run)

    def _failed(self, ready: _Ready, error: BaseException, run: Run) -> Settlement:
        settlement = settle.failed(ready.context.message, ready.policy, error, run)
        fields = {**_task_fields(ready), "error": describe_error(error)}
        if settlement.action == "retry":
            again_in = format_duration(_to_milliseconds(settlement.delay))
            log.warning("failed, trying again", exc_info=error,
                        extra={"fields": {**fields, "again_in": again_in}})  # fmt: skip
        else:
            log.error("failed, given up", exc_info=error, extra={"fields": fields})
        return settlement

    def _note_after_transaction(self, ready: _Ready, ended: object) -> None:
        if isinstance(ended, BaseException | _Cancelled) and not isinstance(ended, Signal):
            error = ended if isinstance(ended, BaseException) else None
            log.warning("ended badly after its transaction had completed the message",
                        exc_info=error, extra={"fields": _task_fields(ready)})  # fmt: skip

    # What a running task asks of its worker, through its context

    @asynccontextmanager
    async def transaction(self, context: Context) -> Any:
        """Open a transaction that ends with the fenced completion of the context's message."""
        acquire = self.client.config.database.acquire_timeout.total_seconds()
        policy = self.policies[context.task]
        async with (
            self.client.pool.acquire(timeout=acquire) as connection,
            connection.transaction(),
        ):
            yield connection
            await self._complete_within(Store(connection), context, policy)

    async def _complete_within(self, store: Store, context: Context, policy: Policy) -> None:
        message = context.message
        ending = settle.succeeded(
            message, policy, Run(monotonic() - context.started_at, self.worker)
        )
        ids, deliveries = [message.message_id], [message.delivery]
        if ending.action == "complete":
            ended = await store.complete(message.queue, ids, deliveries)
        else:
            ended = await store.archive(message.queue, ids, deliveries, [ending.state])
        if not ended:
            raise LeaseLost(_lost_text(message))

    async def extend(self, context: Context, length: timedelta) -> None:
        """Extend the lease of the context's message now."""
        message = context.message
        acquire = self.client.config.database.acquire_timeout.total_seconds()
        async with self.client.pool.acquire(timeout=acquire) as connection:
            [row] = await Store(connection).extend(
                message.queue, [message.message_id], [message.delivery], [length]
            )
        if not row["held"]:
            raise LeaseLost(_lost_text(message))


class _Cancelled:
    """A run that was cancelled and did end."""


def _telling(call: Callable[[], object], tell: Callable[[], object]) -> object:
    try:
        return call()
    except BaseException as error:  # noqa: BLE001 - user code
        return error
    finally:
        tell()


def _is_being_cancelled() -> bool:
    current = asyncio.current_task()
    return current is not None and current.cancelling() > 0


def _to_milliseconds(delay: timedelta) -> timedelta:
    return timedelta(milliseconds=round(delay / timedelta(milliseconds=1)))


def _lost_text(message: Message) -> str:
    return (
        f"message {message.message_id} of {message.queue!r} belongs to somebody else now: the "
        "lease ran out before it could be extended"
    )


def _fields(message: Message) -> dict[str, object]:
    return {"queue": message.queue, "message": message.message_id}


def _task_fields(ready: _Ready) -> dict[str, object]:
    context = ready.context
    return {"task": context.task, "queue": context.queue, "id": context.id,
            "attempt": context.attempt}  # fmt: skip
