"""Worker: runs messages in this process, from the first connection to the last settlement."""

import os
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import Self
from uuid import uuid4

import anyio
import attrs
from anyio.abc import TaskStatus

from pgtasks import layers
from pgtasks.board import Board, Entry
from pgtasks.client import Client
from pgtasks.config import Config
from pgtasks.crew import Crew, Orders
from pgtasks.database import Database, given, open_database
from pgtasks.layers import Loaded
from pgtasks.lease import Lease
from pgtasks.plan import Plan
from pgtasks.registry import Registry, default_registry
from pgtasks.store import Store


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
    _orders: Orders = attrs.field(factory=Orders, init=False)
    _block: AsyncExitStack = attrs.field(factory=AsyncExitStack, init=False)
    ended: anyio.Event = attrs.field(factory=anyio.Event, init=False)
    """Set when everything has ended."""
    unsettled: int = attrs.field(default=0, init=False)
    """Leases that were left to run out when the worker had stopped."""

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Run until stopped; return when everything has ended.

        Raises:
            ConfigError: no queue to serve, or a wrong setting.
            UnknownQueueError: a queue was named that does not exist and that no task uses.
            DatabaseUnreachable: no connection at the start; later losses are waited out.
            SchemaError: the database lacks the schema, or has another version of it.
        """
        loaded = layers.load() if self.config is None else given(self.config)
        try:
            plan = Plan.of(self.registry, loaded.config, self.queues)
            async with self._opened(loaded) as database:
                await _prepare_queues(database, plan)
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
                    )
                    self.unsettled = await crew.work(on_ready=task_status.started)
        finally:
            self.ended.set()

    @property
    def is_stopping(self) -> bool:
        """Whether it was told to stop."""
        return self._orders.stop.is_set()

    def stop(self) -> None:
        """Claim no more, give back what was not started, let what runs end within the grace."""
        self._orders.stop.set()

    def cancel(self) -> None:
        """Stop, and end what runs now; it is given back."""
        self._orders.stop.set()
        self._orders.cancel.set()

    async def __aenter__(self) -> Self:
        try:
            async with AsyncExitStack() as block:
                group = await block.enter_async_context(anyio.create_task_group())
                await group.start(self.run)
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

        A block that was left by an error does not wait for the grace.
        """
        if kind is None:
            self.stop()
        else:
            self.cancel()
        with anyio.CancelScope(shield=kind is not None):
            await self.ended.wait()

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


async def _prepare_queues(database: Database, plan: Plan) -> None:
    async with database.connection("set-up") as connection:
        store = Store(connection)
        existing = await store.list_queues()
        plan.check_queues(existing)
        for queue in plan.queues:
            if queue not in existing:
                await store.create_queue(queue)
