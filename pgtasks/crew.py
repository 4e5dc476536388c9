"""Crew: the parts that work inside one worker, how they start, and in which order they end."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

import anyio
import anyio.abc
import anyio.to_thread
import attrs

from pgtasks import settlement
from pgtasks.alone import Alone
from pgtasks.board import Board, Entry
from pgtasks.client import Client
from pgtasks.config import DatabaseConfig
from pgtasks.events import Events
from pgtasks.keeper import Keeper
from pgtasks.lease import Lease
from pgtasks.listener import Listener
from pgtasks.plan import Plan
from pgtasks.registry import Registry
from pgtasks.runner import Runner
from pgtasks.scheduler import Scheduler
from pgtasks.settlement import Run
from pgtasks.settler import Settler
from pgtasks.ties import WorkerTies

log = Events("pgtasks.worker")

SUSPECT_DELIVERIES = 2
"""So many deliveries that never ended make a message a suspect. One is no sign: a machine that
was switched off leaves it on every message it held."""
HOPELESS_DELIVERIES = 10
"""So many, where nobody can run it alone to prove anything, and it is given up."""
SETTLE_SECONDS = 2.0
"""How long the last settlements may take, once nothing runs any more."""
REPORT_SECONDS = 10.0


@attrs.define(eq=False)
class Orders:
    """What a crew is told from outside, at any time."""

    stop: anyio.Event = attrs.field(factory=anyio.Event)
    cancel: anyio.Event = attrs.field(factory=anyio.Event)


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
    """Messages to run one by one instead of fetching any."""
    _schedulers: list[Scheduler | Alone] = attrs.field(factory=list, init=False)
    _keeper: Keeper = attrs.field(init=False)
    _settler: Settler = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._keeper = Keeper(self.database, self._lose_soon())
        self._settler = Settler(self.database, self._keeper, self.board, self._wake)

    async def work(self, on_ready: Callable[[], None]) -> int:
        """Work until ordered to stop; return how many leases could not be ended."""
        if self.board is not None:
            self.board.name_queues(self.plan.queues)
        async with (
            self._lifespan() as resources,
            self._kept(),
            anyio.create_task_group() as background,
        ):
            runner = self._runner(background, resources)
            self._schedulers = self._scheduled(runner)
            background.start_soon(self._settler.run)
            background.start_soon(self._report)
            if self._may_listen():
                pause = self.client.config.worker.queue_fetch.error_delay.total_seconds()
                background.start_soon(Listener(self.database, self._wake, pause).run)
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
            with patience:
                await runner.threads_ended()
            watching.cancel_scope.cancel()
        self._settler.close()
        with anyio.move_on_after(SETTLE_SECONDS):
            await self._settler.ended.wait()

    async def _obey(self, patience: anyio.CancelScope) -> None:
        """Stop fetching when ordered; end what still runs when the grace is over."""
        await self.orders.stop.wait()
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

    def _runner(self, background: anyio.abc.TaskGroup, resources: Any) -> Runner:
        return Runner(
            registry=self.registry,
            plan=self.plan,
            settler=self._settler,
            ties=WorkerTies(self.client, self._settler, self.name, resources),
            worker=self.name,
            threads=anyio.CapacityLimiter(self.plan.slots),
            background=background,
        )

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
            return [Alone(entries=self.alone, on_end=self.orders.stop.set, **shared)]
        fetching = self.client.config.worker.queue_fetch
        return [
            Scheduler(pool=pool, divert=self._divert, fetching=fetching, **shared)
            for pool in self.plan.pools
        ]

    def _may_listen(self) -> bool:
        if not self.client.config.worker.queue_fetch.notify or self.alone:
            return False
        if self.database.pgbouncer:
            log.warning("LISTEN does not pass PgBouncer in transaction mode: polling only")
            return False
        return True

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
        for scheduler in self._schedulers:
            scheduler.wake(queue)

    def _divert(self, lease: Lease) -> bool:
        """Take what may have crashed a process before out of the scheduler's hands."""
        unexplained = lease.message.unexplained
        if self.on_suspect is not None and unexplained >= SUSPECT_DELIVERIES:
            self._settler.forget(lease)
            self.on_suspect(lease)
            return True
        if unexplained >= HOPELESS_DELIVERIES:
            reason = f"{unexplained} deliveries of it never ended"
            run = Run(0.0, self.name)
            self._settler.put(lease, settlement.crashed(lease.message, reason, run))
            return True
        return False

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
