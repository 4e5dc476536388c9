"""Worker: runs messages in this process, from the first connection to the last settlement."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from time import monotonic
from types import TracebackType
from typing import Self
from uuid import uuid4

import anyio
import attrs
from anyio.abc import TaskStatus

from pgtasks import layers
from pgtasks.board import Board, Entry
from pgtasks.client import Client
from pgtasks.config import Config, HealthConfig
from pgtasks.crew import Crew, Orders
from pgtasks.database import Database, given, open_database
from pgtasks.database_url import masked_url
from pgtasks.events import Events
from pgtasks.health import Health, Kind, Problem, Process, judge
from pgtasks.layers import Loaded
from pgtasks.layout import check_layout
from pgtasks.lease import Lease
from pgtasks.plan import ALONE, Place, Plan
from pgtasks.pulse import Pulses
from pgtasks.registry import Registry, default_registry
from pgtasks.settlement import Ended
from pgtasks.store import Store

log = Events("pgtasks.worker")


def _worker_name() -> str:
    # Not the process id alone: a container's worker is always process 1.
    return f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}"


@attrs.define(eq=False, kw_only=True)
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

    registry: Registry = default_registry
    config: Config | None = None
    queues: Iterable[str] | None = None
    name: str = attrs.field(factory=_worker_name)
    # What only a supervisor's child has: see child.py
    _database: Database | None = None
    _board: Board | None = None
    _on_suspect: Callable[[Lease], None] | None = None
    _alone: Sequence[Entry] = ()
    _is_together: bool = False
    _place: Place = ALONE
    # What only `drain` has.
    _on_end: Callable[[Ended], None] | None = None
    _orders: Orders = attrs.field(factory=Orders)
    _pulses: Pulses = attrs.field(init=False)
    _limits: HealthConfig = attrs.field(factory=HealthConfig, init=False)
    _loop: asyncio.AbstractEventLoop | None = attrs.field(default=None, init=False)
    _made_at: float = attrs.field(factory=monotonic, init=False)
    _is_ready: bool = attrs.field(default=False, init=False)
    _block: AsyncExitStack = attrs.field(factory=AsyncExitStack, init=False)
    ended: anyio.Event = attrs.field(factory=anyio.Event, init=False)
    """Set when everything has ended."""
    unsettled: int = attrs.field(default=0, init=False)
    """Leases that were left to run out when the worker had stopped."""

    def __attrs_post_init__(self) -> None:
        self._pulses = Pulses() if self._board is None else self._board.pulses

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Run until stopped; return when everything has ended.

        Raises:
            ConfigError: no queue to serve, or a wrong setting.
            UnknownQueueError: a queue was named that does not exist and that no task uses.
            DatabaseUnreachable: no connection at the start; later losses are waited out.
            SchemaError: the database lacks the schema, or has another version of it.
            DatabaseError: the server refused what has to be done at the start.
            WorkerFault: a part of it failed by a mistake in pgtasks.
        """
        self._loop = asyncio.get_running_loop()
        loaded = layers.load() if self.config is None else given(self.config)
        self._limits = loaded.config.worker.health

        def on_ready() -> None:
            self._is_ready = True
            task_status.started()

        try:
            plan = Plan.of(self.registry, loaded.config, self.queues, self._place)
            async with self._opened(loaded) as database:
                await _prepare_queues(database, plan)
                self._say([*plan.remarks, *_remarks(database)])
                async with Client(loaded, database, owns_database=False) as client:
                    crew = Crew(
                        name=self.name,
                        plan=plan,
                        registry=self.registry,
                        client=client,
                        database=database.config,
                        orders=self._orders,
                        board=self._board,
                        on_suspect=self._on_suspect,
                        alone=self._alone,
                        is_together=self._is_together,
                        on_end=self._on_end,
                        pulses=self._pulses,
                    )
                    self.unsettled = await crew.work(on_ready)
        finally:
            self.ended.set()

    @property
    def is_stopping(self) -> bool:
        """Whether it was told to stop."""
        return self._orders.stop.is_set()

    @property
    def has_started(self) -> bool:
        """Whether it was ready, be it for a moment."""
        return self._is_ready

    def stop(self) -> None:
        """Claim no more, give back what was not started, let what runs end within the grace."""
        self._orders.stop.set()

    def health(self) -> Health:
        """Whether it works; it asks nobody, so it may be called as often as you like.

        For an application that a worker is embedded in: `is_live` for a liveness probe, `is_ready`
        for a readiness probe, `reasons(ready=True)` for what to answer.

        Example:
            ```python
            def readyz() -> Response:
                return Response(status_code=200 if worker.health().is_ready else 503)
            ```
        """
        if self.ended.is_set() or self.is_stopping:
            kind: Kind = "ended" if self.ended.is_set() else "stopping"
            return Health((Problem(kind, 0.0, os.getpid()),))
        readings = self._pulses.read()
        if self._loop is not None and self._loop is _running_loop():
            # Who asks on its own event loop has the answer already.
            readings = [reading for reading in readings if reading.part != "loop"]
        return judge(
            [Process(os.getpid(), self._is_ready, monotonic() - self._made_at, readings)],
            stale_after=self._limits.stale_after.total_seconds(),
            start_within=self._limits.start_within.total_seconds(),
        )

    def take_back(self, queue: str) -> None:
        """Fill a slot again that was left to a message which a supervisor had run alone."""
        self._orders.take_back(queue)

    def cancel(self) -> None:
        """Stop, and end what runs now; it is given back."""
        self._orders.stop.set()
        self._orders.cancel.set()

    async def __aenter__(self) -> Self:
        try:
            async with AsyncExitStack() as block:
                group = await block.enter_async_context(anyio.create_task_group())
                await group.start(self._run_on)
                block.push_async_exit(self._wind_down)
                self._block = block.pop_all()
        except BaseExceptionGroup as errors:
            # What kept it from starting, as `run` raised it, not what the task group made of it.
            [error] = errors.exceptions
            raise error from None
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        try:
            return await self._block.__aexit__(kind, error, traceback)
        except BaseExceptionGroup as errors:
            if errors.exceptions != (error,):
                raise
            return False  # the block's own error, as it was

    async def _wind_down(self, kind: type[BaseException] | None, *_: object) -> None:
        """Stop before the task group would cancel everything, and with it what is to be settled.

        A block that was left by an error, or is cancelled, does not wait for the grace.
        """
        try:
            if kind is None:
                self.stop()
                await self.ended.wait()
        finally:
            self.cancel()
            with anyio.CancelScope(shield=True):
                await self.ended.wait()

    async def _run_on(self, *, task_status: TaskStatus[None]) -> None:
        # What cancels the block around it would cancel this too, and leave all leases to run out.
        with anyio.CancelScope(shield=True):
            await self.run(task_status=task_status)

    def _say(self, remarks: Iterable[str]) -> None:
        if self._place.number == 0 and not self._alone:
            for remark in remarks:
                log.warning(remark)

    @asynccontextmanager
    async def _opened(self, loaded: Loaded) -> AsyncIterator[Database]:
        if self._database is not None:
            yield self._database
            return
        database = await open_database(loaded)
        try:
            ready = await database.prepare(install=loaded.config.worker.install.enable)
            log.info("database ready", database=masked_url(ready.config.url or ""), tls=ready.tls)
            yield ready
        finally:
            database.close()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _remarks(database: Database) -> Iterable[str]:
    if database.config.pgbouncer:
        yield "LISTEN does not pass a pooler in transaction mode: polling only"


async def _prepare_queues(database: Database, plan: Plan) -> None:
    async with database.set_up() as connection:
        store = Store(connection)
        existing = set(await store.list_queues())
        plan.check_queues(existing)
        for queue in plan.leases:
            if queue not in existing:
                await store.create_queue(queue)
        # A child is given a database that its supervisor has prepared.
        await store.note_layouts()
        for queue in plan.leases:
            check_layout(queue)
