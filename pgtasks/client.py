"""Client: a process's way to the database, and the calls that store messages there."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import ExitStack
from datetime import datetime, timedelta
from typing import Any, Self, TypeVar, cast

import anyio
import anyio.from_thread
import asyncpg
import attrs

from pgtasks import layers
from pgtasks.config import Config, DatabaseConfig
from pgtasks.connection import (
    CALL_SECONDS,
    Connection,
    Pool,
    bounded,
    is_transient,
    open_connection,
    open_pool,
    transaction,
    unreachable,
)
from pgtasks.database import Database, given, open_database
from pgtasks.errors import DatabaseUnreachable, NotConnectedError
from pgtasks.layers import Loaded
from pgtasks.message import Handle, new_id, write_envelope
from pgtasks.schedules import Schedules
from pgtasks.store import Executor, Store

T = TypeVar("T")

CHUNK = 1000
"""Messages a statement of `defer_many`: beyond it the rate no longer rises."""

SLOWEST_BYTES = 1_000_000
"""Bytes a second, and"""
SLOWEST_MESSAGES = 2_000
"""messages a second: a server that stores fewer than that of a large call is given up."""

_NO_DELAY = timedelta(0)


@attrs.frozen
class Call:
    """What is to be stored: the arguments of one or more calls of one task, and when to run."""

    task: str
    queue: str
    args: Sequence[bytes]
    headers: str | None = None
    delay: timedelta = _NO_DELAY
    at: datetime | None = None
    connection: Executor | None = None


@attrs.define(eq=False)
class Client:
    """A pool of connections, and the default for deferring while it is open.

    Open it with `async with`, or with a plain `with` where there is no event loop: it then keeps
    a thread with a loop of its own. It may be used from any thread and loop while it is open.
    """

    _loaded: Loaded
    _database: Database | None = None
    _owns_database: bool = True
    _pool: Pool | None = attrs.field(default=None, init=False)
    _loop: asyncio.AbstractEventLoop | None = attrs.field(default=None, init=False)
    _portal: ExitStack = attrs.field(factory=ExitStack, init=False)
    _known_queues: set[str] = attrs.field(factory=set, init=False)

    @property
    def config(self) -> Config:
        """The configuration this client works with."""
        return self._loaded.config

    @property
    def address(self) -> DatabaseConfig:
        """The database it speaks to; while it is open, that of the embedded server too."""
        return self.config.database if self._database is None else self._database.config

    @property
    def pool(self) -> Pool:
        """The asyncpg pool, for your own queries.

        Raises:
            NotConnectedError: the client is not open.
        """
        if self._pool is None:
            raise NotConnectedError("this client is not open; use it in `async with connect():`")
        return self._pool

    @property
    def schedules(self) -> Schedules:
        """The schedules in the database."""
        periodic, fetching = self.config.worker.periodic, self.config.worker.queue_fetch
        return Schedules(_AtHome(self), fetching.notify, periodic.stale_after)

    async def open(self) -> None:
        """Connect, and become this process's default client.

        Raises:
            DatabaseUnreachable: no connection in time.
            SchemaError: the database lacks the schema, or has another version of it.
        """
        if self._database is None:
            self._database = await open_database(self._loaded)
        try:
            if self._owns_database:
                install = self._database.server is not None
                self._database = await self._database.prepare(install=install)
            # A worker's tasks may never ask for a connection.
            least = self.config.database.min_connections if self._owns_database else 0
            self._pool = await open_pool(self._database.config, "client", least=least)
        except BaseException:
            self._let_go()
            raise
        self._loop = asyncio.get_running_loop()
        _open.append(self)

    async def close(self) -> None:
        """Disconnect; the client that was the default before is it again."""
        if self in _open:
            _open.remove(self)
        pool, self._pool = self._pool, None
        if pool is not None:
            with anyio.CancelScope(shield=True):
                with anyio.move_on_after(2) as bound:
                    await pool.close()
                if bound.cancelled_caught:
                    pool.terminate()
        self._let_go()

    def _let_go(self) -> None:
        if self._owns_database and self._database is not None:
            self._database.close()
            self._database = None

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            portal = stack.enter_context(anyio.from_thread.start_blocking_portal("asyncio"))
            portal.call(self.open)
            stack.callback(portal.call, self.close)
            self._portal = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._portal.close()

    # Sending

    async def send(self, call: Call) -> list[Handle]:
        """Store the messages of a call, all or none, and return their handles in order.

        Raises:
            DatabaseUnreachable: the database was not reached, or did not say whether it stored
                them: then they may be there or not.
        """
        if call.connection is not None:
            await self._ensure_queue(call.queue, call.connection)
            return await self._store(call, call.connection)
        return await self.at_home(lambda: self._on_pool(lambda on: self._store(call, on), call))

    def send_sync(self, call: Call) -> list[Handle]:
        """Store the messages of a call from code without an event loop.

        Raises:
            RuntimeError: called on the client's own event loop, which it would block for ever.
        """
        if call.connection is not None:
            raise TypeError("options(connection=...) is for `await ….defer(…)`: the connection "
                            "belongs to an event loop")  # fmt: skip
        loop = self._home()
        if _running_loop() is loop:
            raise RuntimeError("this is the client's event loop: use `await ….defer(…)` here")
        return asyncio.run_coroutine_threadsafe(self.send(call), loop).result()

    async def at_home(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run `work` on the event loop the client was opened on, from whichever loop this is."""
        loop = self._home()
        if loop is asyncio.get_running_loop():
            return await work()
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work(), loop))

    async def query(self, use: Callable[[Executor], Awaitable[T]]) -> T:
        """Run one statement on a connection of the pool, on the client's own loop.

        Raises:
            DatabaseUnreachable: no connection, or no answer in time.
        """
        seconds = self.config.database.acquire_timeout.total_seconds()
        try:
            async with self.pool.acquire(timeout=seconds) as on:
                return await bounded(cast("Connection", on), use)
        except Exception as error:
            if not is_transient(error):
                raise
            raise unreachable(self.address, error) from error

    def _home(self) -> asyncio.AbstractEventLoop:
        if self._loop is None or self._loop.is_closed() or self._pool is None:
            raise NotConnectedError("this client is not open; use it in `async with connect():`")
        return self._loop

    async def _on_pool(self, use: Callable[[Executor], Awaitable[T]], call: Call) -> T:
        config = self.config.database
        try:
            async with self.pool.acquire(timeout=config.acquire_timeout.total_seconds()) as on:
                connection, seconds = cast("Connection", on), _patience_seconds(call)
                try:
                    return await bounded(connection, use, seconds=seconds)
                except asyncpg.UndefinedTableError:
                    await bounded(connection, lambda on: self._create_queue(call.queue, on))
                    return await bounded(connection, use, seconds=seconds)
        except Exception as error:
            if not is_transient(error):
                raise
            raise self._unsure(error) from error

    def _unsure(self, error: Exception) -> DatabaseUnreachable:
        if isinstance(error, DatabaseUnreachable):
            return error
        return DatabaseUnreachable(
            f"{unreachable(self.address, error)}\n"
            "The connection failed while messages were being stored: unless it failed before they "
            "were sent, they may be there. Deferring again may store them twice."
        )

    async def _store(self, call: Call, on: Executor) -> list[Handle]:
        ids = [new_id() for _ in call.args]
        bodies = [
            write_envelope(id_, call.task, args) for id_, args in zip(ids, call.args, strict=True)
        ]
        store = Store(on)
        notify = self.config.worker.queue_fetch.notify
        if len(bodies) == 1:
            stored = [
                await store.send(
                    call.queue, bodies[0], call.headers, call.delay, call.at, notify=notify
                )
            ]
        else:
            stored = await _store_many(store, call, bodies, notify=notify)
        return [Handle(id_, call.queue, row) for id_, row in zip(ids, stored, strict=True)]

    # A statement that fails would end the caller's transaction, so that a queue has to be there
    # before it is used on the caller's connection. It is created on a connection of its own: all
    # of the pool's may be in transactions that wait for this.
    async def _ensure_queue(self, queue: str, on: Executor) -> None:
        if queue in self._known_queues or await Store(on).queue_exists(queue):
            self._known_queues.add(queue)
            return
        connection = await open_connection(self.address, "set-up")
        try:
            await self._create_queue(queue, connection)
        finally:
            connection.terminate()

    async def _create_queue(self, queue: str, on: Executor) -> None:
        await Store(on).create_queue(queue)
        self._known_queues.add(queue)


@attrs.frozen
class _AtHome(Executor):
    """The client's pool, for single statements, from whichever loop they are asked for."""

    client: Client

    async def fetch(self, query: str, /, *args: Any) -> list[Any]:
        return await self._run(lambda on: on.fetch(query, *args))

    async def fetchrow(self, query: str, /, *args: Any) -> Any:
        return await self._run(lambda on: on.fetchrow(query, *args))

    async def fetchval(self, query: str, /, *args: Any) -> Any:
        return await self._run(lambda on: on.fetchval(query, *args))

    async def _run(self, use: Callable[[Executor], Awaitable[T]]) -> T:
        return await self.client.at_home(lambda: self.client.query(use))


async def _store_many(
    store: Store, call: Call, bodies: Sequence[str], *, notify: bool
) -> list[int]:
    stored: list[int] = []
    async with transaction(cast("Connection", store.on)):
        for start in range(0, len(bodies), CHUNK):
            chunk = bodies[start : start + CHUNK]
            stored += await store.send_many(call.queue, chunk, call.headers, call.delay, call.at)
        if notify and bodies:
            await store.notify(call.queue)
    return stored


def _patience_seconds(call: Call) -> float:
    """How long storing a call's messages may take: what is large may take longer."""
    size = sum(map(len, call.args))
    return CALL_SECONDS + size / SLOWEST_BYTES + len(call.args) / SLOWEST_MESSAGES


def connect(url: str | None = None, config: Config | None = None) -> Client:
    """Return a client of the database, to be opened with `async with` or `with`.

    While it is open it is the default client of the process: every `defer` goes through it.

    Args:
        url: a Postgres URL; default: what the configuration says, and with nothing configured
            the embedded server in the project's `.pgtasks/`.
        config: a whole configuration; default: files and environment, see docs/configuration.md.

    Raises:
        ConfigError: the configuration is wrong; the text says where.

    Example:
        ```python
        async with connect():
            await send_welcome.defer(42)
        ```
    """
    if config is None:
        return Client(layers.load({"database.url": layers.Flag("connect(url=…)", url)}))
    if url is not None:
        config = attrs.evolve(config, database=attrs.evolve(config.database, url=url))
    return Client(given(config))


def current_client() -> Client:
    """Return the client that deferring uses now.

    Raises:
        NotConnectedError: none is open in this process; the text says how to open one.
    """
    if not _open:
        raise NotConnectedError(
            "no client is open in this process. Open one around your program:\n"
            "    async with pgtasks.connect():    # or, without an event loop: with connect():\n"
            "        await my_task.defer(...)"
        )
    return _open[-1]


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


_open: list[Client] = []

# A forked child must not speak on its parent's connections.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_open.clear)
