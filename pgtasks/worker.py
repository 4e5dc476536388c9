"""Worker: one process's schedulers, runners, settler, keeper and listener, and how they end."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from functools import partial
from time import monotonic
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

import anyio
import anyio.to_thread
import attrs
from anyio.abc import TaskStatus

from pgtasks import layers, settlement
from pgtasks.alone import Alone
from pgtasks.board import Board, Entry
from pgtasks.client import Client
from pgtasks.config import Config, DatabaseConfig
from pgtasks.connection import open_connection
from pgtasks.database import Database, given, open_database
from pgtasks.errors import UnknownQueueError
from pgtasks.events import Events
from pgtasks.keeper import Keeper
from pgtasks.layers import Loaded
from pgtasks.lease import Lease
from pgtasks.listener import Listener
from pgtasks.policy import Policy
from pgtasks.pool import Pool, pools
from pgtasks.registry import Registry, default_registry
from pgtasks.runner import Runner
from pgtasks.scheduler import Scheduler
from pgtasks.settlement import Run
from pgtasks.settler import Settler
from pgtasks.store import Store

log = Events("pgtasks.worker")

SUSPECT_DELIVERIES = 2
"""So many deliveries that never ended make a message a suspect. One is no sign: a machine that
was switched off leaves it on every message it held."""
HOPELESS_DELIVERIES = 10
"""So many, where nobody can run it alone to prove anything, and it is given up."""
SETTLE_SECONDS = 2.0
"""How long the last settlements may take, once nothing runs any more."""


def _worker_name() -> str:
    # Not the process id alone: a container's worker is always process 1.
    return f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}"


@attrs.define(eq=False)
class Worker:
    """Runs the messages of the registered tasks, in this process and on this event loop.

    `pgtasks worker` runs one in each of its child processes. Embed one in an application with
    `async with Worker():`; leaving the block stops it as SIGTERM stops a worker process.

    Args:
        registry: the tasks to run; default: all that `@task` registered.
        config: a whole configuration; default: files and environment.
        queues: the queues to serve; default: the configured ones, else those of the tasks.

    Example:
        ```python
        async with connect(), Worker():
            await serve_http()
        ```
    """

    registry: Registry = attrs.field(default=default_registry, kw_only=True)
    config: Config | None = attrs.field(default=None, kw_only=True)
    queues: Iterable[str] | None = attrs.field(default=None, kw_only=True)
    name: str = attrs.field(factory=_worker_name, kw_only=True)
    _database: Database | None = attrs.field(default=None, kw_only=True)
    _board: Board | None = attrs.field(default=None, kw_only=True)
    _on_suspect: Callable[[Lease], None] | None = attrs.field(default=None, kw_only=True)
    _alone: Sequence[Entry] = attrs.field(default=(), kw_only=True)
    """Messages to run one by one instead of fetching any; see alone.py."""
    _schedulers: list[Scheduler | Alone] = attrs.field(factory=list, init=False)
    _stop: anyio.Event = attrs.field(factory=anyio.Event, init=False)
    _cancel: anyio.Event = attrs.field(factory=anyio.Event, init=False)
    _block: AsyncExitStack = attrs.field(factory=AsyncExitStack, init=False)
    ended: anyio.Event = attrs.field(factory=anyio.Event, init=False)
    """Set when everything has ended."""
    unsettled: int = attrs.field(default=0, init=False)
    """Leases that were left to run out when the worker had stopped."""

    @property
    def is_stopping(self) -> bool:
        """Whether it was told to stop."""
        return self._stop.is_set()

    def stop(self) -> None:
        """Claim no more, give back what was not started, let what runs end within the grace."""
        self._stop.set()

    def cancel(self) -> None:
        """Stop, and end what runs now; it is given back."""
        self._stop.set()
        self._cancel.set()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as block:
            group = await block.enter_async_context(anyio.create_task_group())
            await group.start(self.run)
            block.push_async_exit(self._wind_down)
            self._block = block.pop_all()
        return self

    async def _wind_down(self, kind: type[BaseException] | None, *_: object) -> None:
        """Stop before the task group would cancel everything, and with it what is to be settled.

        A block that was left by an error does not wait for the grace.
        """
        if kind is None:
            self.stop()
        else:
            self.cancel()
        with anyio.CancelScope(shield=kind is not None):
            await self.ended.wait()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        return await self._block.__aexit__(kind, error, traceback)

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Run until stopped; return when everything has ended.

        Raises:
            ConfigError: no queue to serve, or a wrong setting.
            DatabaseUnreachable: no connection at the start; later losses are waited out.
            SchemaError: the database lacks the schema, or has another version of it.
        """
        loaded = layers.load() if self.config is None else given(self.config)
        try:
            async with self._opened(loaded) as database:
                queues = self._served(loaded.config)
                plan = pools(loaded.config.worker, queues)
                await self._create(database, queues, loaded.config)
                async with Client(loaded, database, owns_database=False) as client:
                    await self._run_pools(client, database, plan, task_status)
        finally:
            self.ended.set()

    async def _run_pools(
        self, client: Client, database: Database, plan: list[Pool], task_status: TaskStatus[None]
    ) -> None:
        config = client.config
        policies = self._policies(config)
        wake = self._wake_all
        keeper = Keeper(database.config, self._lose_soon())
        settler = Settler(database.config, keeper, self._board, wake)
        if self._board is not None:
            self._board.name_queues([queue for pool in plan for queue in pool.queues])
        async with (
            self._resources() as resources,
            _running(keeper),
            anyio.create_task_group() as background,
        ):
            slots = sum(pool.slots for pool in plan)
            runner = Runner(
                registry=self.registry,
                policies=policies,
                settler=settler,
                client=client,
                worker=self.name,
                threads=anyio.CapacityLimiter(slots),
                background=background,
                resources=resources,
            )
            self._schedulers = self._scheduled(runner, plan, database.config, keeper)
            background.start_soon(settler.run)
            self._listen(background, database, config)
            background.start_soon(self._report, settler)
            log.info(
                "worker ready",
                worker=self.name,
                queues=",".join(q for pool in plan for q in pool.queues),
                slots=slots,
                tasks=len(self.registry),
                **{"alone": len(self._alone)} if self._alone else {},
            )
            task_status.started()
            await self._run_to_the_end(runner, config.worker.grace.total_seconds())
            background.cancel_scope.cancel()
        self.unsettled = len(keeper.held())
        log.info("worker stopped", worker=self.name, **settler.counts, unsettled=self.unsettled)

    def _scheduled(
        self, runner: Runner, plan: list[Pool], database: DatabaseConfig, keeper: Keeper
    ) -> list[Scheduler | Alone]:
        config = runner.client.config
        shared: dict[str, Any] = {
            "run_message": runner.run,
            "database": database,
            "settler": runner.settler,
            "keeper": keeper,
            "board": self._board,
        }
        leases = [_leases(pool, runner.policies, config.task.lease) for pool in plan]
        if self._alone:
            every = {queue: lease for each in leases for queue, lease in each.items()}
            return [Alone(leases=every, entries=self._alone, on_end=self.stop, **shared)]
        return [
            Scheduler(
                pool=pool,
                leases=each,
                divert=partial(self._divert, runner.settler),
                fetching=config.worker.queue_fetch,
                **shared,
            )
            for pool, each in zip(plan, leases, strict=True)
        ]

    async def _run_to_the_end(self, runner: Runner, grace_seconds: float) -> None:
        patience = anyio.CancelScope()
        async with anyio.create_task_group() as watching:
            watching.start_soon(self._end_running, grace_seconds, patience)
            async with anyio.create_task_group() as running:
                for scheduler in self._schedulers:
                    running.start_soon(scheduler.run)
            with patience:
                await runner.threads_ended()
            watching.cancel_scope.cancel()
        runner.settler.close()
        with anyio.move_on_after(SETTLE_SECONDS):
            await runner.settler.ended.wait()

    async def _end_running(self, grace_seconds: float, patience: anyio.CancelScope) -> None:
        """Stop the schedulers when asked; end what still runs when the grace is over."""
        await self._stop.wait()
        for scheduler in self._schedulers:
            scheduler.stop()
        running = sum(scheduler.running for scheduler in self._schedulers)
        log.info("stopping", running=running, grace=f"{grace_seconds:g}s")
        with anyio.move_on_after(grace_seconds):
            await self._cancel.wait()
        for scheduler in self._schedulers:
            scheduler.cancel_running()
        patience.cancel()

    # The parts

    @asynccontextmanager
    async def _opened(self, loaded: Loaded) -> AsyncIterator[Database]:
        if self._database is not None:
            yield self._database
            return
        database = await open_database(loaded)
        try:
            await database.prepare(install=loaded.config.worker.install.enable)
            yield database
        finally:
            database.close()

    async def _create(self, database: Database, queues: Sequence[str], config: Config) -> None:
        connection = await open_connection(database.config, "set-up")
        try:
            existing = set(await Store(connection).list_queues())
            self._check_known(existing, queues, config)
            for queue in queues:
                if queue not in existing:
                    await Store(connection).create_queue(queue)
        finally:
            connection.terminate()

    def _check_known(self, existing: set[str], queues: Sequence[str], config: Config) -> None:
        used = {policy.queue for policy in self._policies(config).values()}
        for queue in queues:
            if queue not in existing | used:
                known = ", ".join(sorted(existing | used)) or "none"
                raise UnknownQueueError(
                    f"there is no queue {queue!r}, and no task uses it; known: {known}. Name one "
                    f"of these, or create it: pgtasks queue create {queue}"
                )

    def _served(self, config: Config) -> list[str]:
        """The queues named here, else the configured ones, else those of the tasks."""
        named = self.queues if self.queues is not None else config.worker.queues
        if named is None:
            named = sorted({policy.queue for policy in self._policies(config).values()})
        return list(dict.fromkeys(named))

    def _policies(self, config: Config) -> dict[str, Policy]:
        durable = config.worker.durable
        return {
            task.name: Policy.of(task.settings, config.task, durable=durable)
            for task in self.registry
        }

    @asynccontextmanager
    async def _resources(self) -> AsyncIterator[Any]:
        if (lifespan := self.registry.resources) is None:
            yield None
            return
        async with lifespan() as resources:
            yield resources

    def _divert(self, settler: Settler, lease: Lease) -> bool:
        """Take what may have crashed a process before out of the scheduler's hands."""
        unexplained = lease.message.unexplained
        if self._on_suspect is not None and unexplained >= SUSPECT_DELIVERIES:
            settler.forget(lease)
            self._on_suspect(lease)
            return True
        if unexplained >= HOPELESS_DELIVERIES:
            reason = f"{unexplained} deliveries of it never ended"
            settler.put(lease, settlement.crashed(lease.message, reason, Run(0.0, self.name)))
            return True
        return False

    def _listen(self, background: Any, database: Database, config: Config) -> None:
        fetching = config.worker.queue_fetch
        if not fetching.notify:
            return
        if database.config.pgbouncer:
            log.warning("LISTEN does not pass PgBouncer in transaction mode: polling only")
            return
        pause = fetching.error_delay.total_seconds()
        background.start_soon(Listener(database.config, self._wake_all, pause).run)

    def _wake_all(self, queue: str | None) -> None:
        for scheduler in self._schedulers:
            scheduler.wake(queue)

    def _lose_soon(self) -> Callable[[Lease], None]:
        """Return what the keeper's thread calls when a lease is lost."""
        loop = asyncio.get_running_loop()

        # Not a call that waits for its result: the loop may be held up by a task of the user's,
        # and the thread has other leases to extend meanwhile.
        def lose(lease: Lease) -> None:
            loop.call_soon_threadsafe(_cancel_lost, lease)

        return lose

    async def _report(self, settler: Settler) -> None:
        """Say every ten seconds what was done, when something was."""
        before: dict[str, int] = {}
        since = monotonic()
        while True:
            await anyio.sleep(10)
            done = {
                k: n - before.get(k, 0) for k, n in settler.counts.items() if n != before.get(k, 0)
            }
            if done:
                rate = sum(done.values()) / (monotonic() - since)
                log.info("worked", **done, per_second=round(rate, 1))
            before, since = dict(settler.counts), monotonic()


@asynccontextmanager
async def _running(keeper: Keeper) -> AsyncIterator[None]:
    keeper.start()
    try:
        yield
    finally:
        keeper.stop()
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(keeper.join)


def _cancel_lost(lease: Lease) -> None:
    log.warning(
        "lease lost, run cancelled", queue=lease.message.queue, message=lease.message.message_id
    )
    if lease.cancel is not None:
        lease.cancel("lost")


def _leases(pool: Pool, policies: dict[str, Policy], default: timedelta) -> dict[str, timedelta]:
    """A claim does not know yet whose message it gets: the shortest lease of the queue's tasks."""
    shortest = {}
    for queue in pool.queues:
        ours = [policy.lease for policy in policies.values() if policy.queue == queue]
        shortest[queue] = min(ours, default=default)
    return shortest
