"""Crew: the parts that work inside one worker, how they start, and in which order they end."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from time import monotonic
from typing import Any

import anyio
import anyio.abc
import anyio.to_thread
import attrs

from pgtasks import settlement
from pgtasks.alone import Alone
from pgtasks.board import Board, Entry
from pgtasks.cleaner import Cleaner
from pgtasks.client import Client
from pgtasks.config import DatabaseConfig
from pgtasks.errors import WorkerFault
from pgtasks.events import Events
from pgtasks.keeper import Keeper
from pgtasks.lease import Lease
from pgtasks.listener import Listener
from pgtasks.message import Message
from pgtasks.plan import Plan
from pgtasks.pruner import Pruner
from pgtasks.pulse import Pulses
from pgtasks.registry import Registry
from pgtasks.runner import Runner
from pgtasks.scheduler import Scheduler
from pgtasks.schedules import CHANGED
from pgtasks.settlement import Ended, Run, Settlement, describe_error
from pgtasks.settler import Settler
from pgtasks.ticker import Ticker
from pgtasks.ties import WorkerTies

log = Events("pgtasks.worker")

SUSPECT_DELIVERIES = 2
"""So many deliveries that never ended make a message a suspect. One is no sign: a machine that
was switched off leaves it on every message it held."""
HOPELESS_DELIVERIES = 10
"""So many, where nobody can run it alone to prove anything. The first time they may have been to
another program; when there are as many again it is given up."""
LAST_DELIVERY = 2**31 - 1
"""The type's end, where they are counted no further: no fence would hold."""
SETTLE_SECONDS = 2.0
"""How long the last settlements may take, once nothing runs any more."""
REPORT_SECONDS = 10.0
BEAT_SECONDS = 1.0
"""How often the event loop says that it goes on."""


@attrs.define(eq=False)
class Orders:
    """What a crew is told from outside, at any time."""

    stop: anyio.Event = attrs.field(factory=anyio.Event)
    cancel: anyio.Event = attrs.field(factory=anyio.Event)
    lent: Counter[str] = attrs.field(factory=Counter)
    """By queue: how many of its slots are left to messages that run alone elsewhere."""
    on_take_back: Callable[[str], None] = lambda _: None
    fault: WorkerFault | None = None
    """The mistake of ours that ended the crew."""
    on_fault: Callable[[], None] = lambda: None
    """Called with the first one: who holds a process has to see to it that it ends."""

    def take_back(self, queue: str) -> None:
        """Fill a slot of a queue again that was left to a message elsewhere."""
        self.lent[queue] -= 1
        self.on_take_back(queue)


@attrs.define(eq=False)
class Crew:
    """The schedulers, the runner, the settler, the keeper and the listener of one worker."""

    name: str
    plan: Plan
    registry: Registry
    client: Client
    database: DatabaseConfig
    orders: Orders
    board: Board | None = None
    on_suspect: Callable[[Lease], None] | None = None
    """Takes a message that may crash its process; None: there is nobody to run it alone."""
    alone: Sequence[Entry] = ()
    """Messages to run apart from all others, instead of fetching any."""
    is_together: bool = False
    """Not one by one, but as many at a time as there are slots."""
    on_end: Callable[[Ended], None] | None = None
    """Called with each run that has ended."""
    pulses: Pulses = attrs.field(factory=Pulses)
    _schedulers: list[Scheduler | Alone] = attrs.field(factory=list, init=False)
    _keeper: Keeper = attrs.field(init=False)
    _settler: Settler = attrs.field(init=False)
    _ticker: Ticker | None = attrs.field(init=False)
    _listener: Listener | None = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        beat = self.pulses.of
        self._keeper = Keeper(self.database, self._lose_soon(), beat("extending"))
        self._settler = Settler(
            self.database, self._keeper, self.board, self._wake, beat("settling")
        )
        self._ticker = self._ticking()
        self._listener = self._listening()

    async def work(self, on_ready: Callable[[], None]) -> int:
        """Work until ordered to stop; return how many leases could not be ended.

        Raises:
            WorkerFault: a part failed by a mistake of ours.
        """
        try:
            unsettled = await self._work(on_ready)
        except BaseExceptionGroup:
            if self.orders.fault is None:
                raise
        if self.orders.fault is not None:
            raise self.orders.fault
        return unsettled

    async def _work(self, on_ready: Callable[[], None]) -> int:
        if self.board is not None:
            # All of them: what runs alone may be of a queue that others have the slots of.
            self.board.name_queues(list(self.plan.leases))
        async with (
            self._lifespan() as resources,
            self._kept(),
            anyio.create_task_group() as background,
        ):
            runner = self._runner(background, resources)
            self._schedulers = self._scheduled(runner)
            self.orders.on_take_back = self._take_back
            for part, run in self._background().items():
                background.start_soon(self._watch, part, run)
            log.info(
                "worker ready",
                worker=self.name,
                queues=",".join(self.plan.queues),
                slots=self.plan.slots,
                **({"alone": len(self.alone)} if self.alone else {}),
            )
            on_ready()
            await self._run_to_the_end(runner)
            background.cancel_scope.cancel()
        unsettled = len(self._keeper.held())
        log.info("worker stopped", worker=self.name, **self._settler.counts, unsettled=unsettled)
        return unsettled

    # Ending

    async def _run_to_the_end(self, runner: Runner) -> None:
        patience = anyio.CancelScope()
        async with anyio.create_task_group() as watching:
            watching.start_soon(self._obey, patience)
            async with anyio.create_task_group() as running:
                for scheduler in self._schedulers:
                    running.start_soon(scheduler.run)
                if not self._schedulers:
                    await self.orders.stop.wait()
            with patience:
                await runner.threads_ended()
            watching.cancel_scope.cancel()
        self._settler.close()
        with anyio.move_on_after(SETTLE_SECONDS):
            await self._settler.ended.wait()

    async def _obey(self, patience: anyio.CancelScope) -> None:
        """Stop fetching when ordered; end what still runs when the grace is over."""
        await self.orders.stop.wait()
        if self._ticker is not None:
            self._ticker.stop()
        for scheduler in self._schedulers:
            scheduler.stop()
        grace_seconds = self.client.config.worker.grace.total_seconds()
        running = sum(scheduler.running for scheduler in self._schedulers)
        log.info("stopping", worker=self.name, running=running, grace=f"{grace_seconds:g}s")
        with anyio.move_on_after(grace_seconds):
            await self.orders.cancel.wait()
        for scheduler in self._schedulers:
            scheduler.cancel_running()
        patience.cancel()

    # Faults of ours

    async def _watch(self, part: str, run: Callable[[], Awaitable[None]]) -> None:
        """Run a part; when it fails, end the worker: without it, it would live and be idle."""
        try:
            await run()
        except Exception as error:
            self._end_by(part, error)
            if part == "settler":  # nothing can be given back: no time is to be lost with it
                raise

    def _end_by(self, part: str, error: BaseException) -> None:
        log.error("a part of the worker failed, ending it", raised=error, part=part)
        if self.orders.fault is None:
            self.orders.fault = WorkerFault(
                f"the worker has ended, because its {part} failed: {describe_error(error)}\n"
                "This is a mistake in pgtasks; please report it with the traceback in the log."
            )
            self.orders.fault.__cause__ = error
            self.orders.on_fault()
        self.orders.stop.set()
        self.orders.cancel.set()

    async def _beat(self) -> None:
        """Say every second that the event loop goes on, and look after the keeper's thread."""
        pulse = self.pulses.of("loop")
        try:
            while True:
                pulse.promise(BEAT_SECONDS)
                self._keeper.check()
                await anyio.sleep(BEAT_SECONDS)
        finally:
            pulse.end()

    # The parts

    @asynccontextmanager
    async def _lifespan(self) -> AsyncIterator[Any]:
        if (lifespan := self.registry.resources) is None:
            yield None
            return
        async with lifespan() as resources:
            yield resources

    @asynccontextmanager
    async def _kept(self) -> AsyncIterator[None]:
        self._keeper.start()
        try:
            yield
        finally:
            self._keeper.stop()
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(self._keeper.join)

    def _background(self) -> Mapping[str, Callable[[], Awaitable[None]]]:
        """Return what runs beside the schedulers."""
        parts = {"settler": self._settler.run, "keeper": self._beat, "report": self._report}
        if self._ticker is not None:
            parts["ticker"] = self._ticker.run
        if self._listener is not None:
            parts["listener"] = self._listener.run
        if self.client.config.worker.retention.enable and not self.alone:
            parts["pruner"] = self._pruner().run
        if self.client.config.worker.vacuum.enable and not self.alone and self.plan.pools:
            parts["cleaner"] = self._cleaner().run
        return parts

    def _runner(self, background: anyio.abc.TaskGroup, resources: Any) -> Runner:
        return Runner(
            registry=self.registry,
            plan=self.plan,
            settler=self._settler,
            ties=WorkerTies(self.client, self._settler, self.name, resources),
            worker=self.name,
            threads=anyio.CapacityLimiter(max(1, self.plan.slots)),
            background=background,
            on_end=self.on_end,
        )

    def _pruner(self) -> Pruner:
        # One that runs no messages prunes where its tasks' messages are run.
        queues = sorted(self.plan.leases or self.plan.known)
        return Pruner(queues, self.client.config.worker, self.database)

    def _cleaner(self) -> Cleaner:
        vacuum = self.client.config.worker.vacuum
        counts = self._settler.counts
        return Cleaner(sorted(self.plan.leases), vacuum, self.database, counts.total)

    def _scheduled(self, runner: Runner) -> list[Scheduler | Alone]:
        shared: dict[str, Any] = {
            "leases": self.plan.leases,
            "run_message": runner.run,
            "database": self.database,
            "settler": self._settler,
            "keeper": self._keeper,
            "board": self.board,
        }
        if self.alone:
            slots = self.plan.slots if self.is_together else 1
            on_end = self.orders.stop.set
            return [Alone(entries=self.alone, slots=max(1, slots), on_end=on_end, **shared)]
        fetching = self.client.config.worker.queue_fetch
        if self.client.config.worker.periodic.only:
            return []
        return [
            Scheduler(
                pool=pool,
                divert=self._divert,
                fetching=fetching,
                hears=self._hears,
                is_counted=pool.is_shared_out and self.on_suspect is not None,
                lent=sum(self.orders.lent[queue] for queue in pool.queues),
                pulse=self.pulses.of("claiming"),
                on_fault=partial(self._end_by, "scheduler"),
                **shared,
            )
            for pool in self.plan.pools
        ]

    def _ticking(self) -> Ticker | None:
        worker = self.client.config.worker
        if not worker.periodic.enable or self.alone:
            return None
        return Ticker(
            self.registry,
            self.plan,
            worker.periodic,
            self.database,
            worker.queue_fetch,
            self.pulses.of("firing"),
        )

    def _listening(self) -> Listener | None:
        fetching = self.client.config.worker.queue_fetch
        if not fetching.notify or self.alone or self.database.pgbouncer:
            return None
        pause = fetching.error_delay.total_seconds()
        return Listener(self.database, self._wake, pause, tuple(self.plan.leases))

    def _hears(self) -> bool:
        return self._listener is not None and self._listener.is_listening.is_set()

    async def _report(self) -> None:
        """Say every ten seconds what was done, when something was."""
        while True:
            before, since = self._settler.counts.copy(), monotonic()
            await anyio.sleep(REPORT_SECONDS)
            if done := self._settler.counts - before:
                rate = done.total() / (monotonic() - since)
                log.info("worked", **done, per_second=round(rate, 1))

    # What the parts ask of each other

    def _wake(self, queue: str | None) -> None:
        if self._ticker is not None and queue in (None, CHANGED):
            self._ticker.wake()
        for scheduler in self._schedulers:
            scheduler.wake(queue)

    def _take_back(self, queue: str) -> None:
        for scheduler in self._schedulers:
            if isinstance(scheduler, Scheduler) and queue in scheduler.pool.queues:
                scheduler.take_back()

    def _divert(self, lease: Lease) -> bool:
        """Take what may have crashed a process before out of the scheduler's hands."""
        unexplained = lease.message.unexplained
        if self.on_suspect is not None and unexplained >= SUSPECT_DELIVERIES:
            self._settler.forget(lease)
            self.on_suspect(lease)
            return True
        if unexplained >= HOPELESS_DELIVERIES:
            self._settler.put(lease, self._ending_of_hopeless(lease.message))
            return True
        return False

    def _ending_of_hopeless(self, message: Message) -> Settlement:
        # Roadster tries a message 26 times: one of its that we drain has a chance all the same.
        if not message.state.elsewhere and message.delivery < LAST_DELIVERY:
            return settlement.read_elsewhere(message)
        reason = f"{message.unexplained} deliveries of it never ended"
        return settlement.crashed(message, reason, Run(0.0, self.name))

    def _lose_soon(self) -> Callable[[Lease], None]:
        """Return what the keeper's thread calls when a lease is lost."""
        loop = asyncio.get_running_loop()

        # Not a call that waits for its result: the loop may be held up by a task of the user's,
        # and the thread has other leases to extend meanwhile.
        def lose(lease: Lease) -> None:
            loop.call_soon_threadsafe(_cancel_lost, lease)

        return lose


def _cancel_lost(lease: Lease) -> None:
    message = lease.message
    log.warning("lease lost, run cancelled", queue=message.queue, message=message.message_id)
    if lease.cancel is not None:
        lease.cancel("lost")
