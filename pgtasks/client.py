"""Client: a process's way to the database, and the calls that store messages there."""

import asyncio
import concurrent.futures
import os
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import ExitStack
from itertools import chain
from typing import Any, Self, TypeVar, cast

import anyio
import anyio.from_thread
import attrs

from pgtasks import layers
from pgtasks.backlog import MAX_CHARACTERS
from pgtasks.bulk import Bulk
from pgtasks.call import Call
from pgtasks.config import Config, DatabaseConfig
from pgtasks.connection import (
    CALL_SECONDS,
    Connection,
    Pool,
    bounded,
    is_refusal,
    is_transient,
    open_connection,
    open_pool,
    unreachable,
    unsure,
)
from pgtasks.database import Database, given, open_database
from pgtasks.errors import DatabaseError, DatabaseUnreachable, NotConnectedError
from pgtasks.layers import Loaded
from pgtasks.message import Handle, write_envelopes
from pgtasks.notifier import Notifier
from pgtasks.parcel import Parcel
from pgtasks.queue_name import check_queue_name
from pgtasks.schedules import Schedules
from pgtasks.sender import Sender
from pgtasks.store import Executor, Store

T = TypeVar("T")

HEARD_SECONDS = 60.0
"""The longest that another thread waits for the client's event loop to answer."""


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
    _sender: Sender = attrs.field(init=False)
    """There while it is open."""
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
    def _notifies(self) -> bool:
        return self.config.worker.queue_fetch.notify

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
        self._sender = Sender(self._pool, self.address, Notifier(self._notifies))
        _open.append(self)

    async def close(self) -> None:
        """Disconnect; the client that was the default before is it again."""
        if self in _open:
            _open.remove(self)
        pool, self._pool = self._pool, None
        if pool is not None:
            with anyio.CancelScope(shield=True):
                with anyio.move_on_after(2) as bound:
                    await self._sender.close()
                    await pool.close()
                if bound.cancelled_caught:
                    pool.terminate()
                    self._sender.abandon()
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

    async def send(self, call: Call, many_args: Sequence[bytes]) -> list[Handle]:
        """Store the messages of a call, all or none, and return their handles in order.

        Raises:
            DatabaseUnreachable: the database was not reached, or did not say whether it stored
                them: then they may be there or not.
            DatabaseError: it refused them, for want of space or connections, or because it is
                read-only; nothing was stored.
        """
        if call.connection is not None:
            await self._ensure_queue(call.queue, call.connection)
            return await self._store(call, many_args, call.connection)
        check_queue_name(call.queue)
        home = self._home()
        if home is not asyncio.get_running_loop():
            return await asyncio.wrap_future(self._put_from_elsewhere(call, many_args))
        return await self._sender.send(Parcel.of(call, many_args))

    async def send_many(self, call: Call, slices: Iterator[Sequence[bytes]]) -> list[Handle]:
        """Do what `send` does for any number of calls, at least one, encoded as it goes."""
        first, second = next(slices), next(slices, None)
        if second is None and sum(map(len, first)) <= MAX_CHARACTERS:
            return await self.send(call, first)
        slices = chain([first] if second is None else [first, second], slices)
        if call.connection is not None:
            await self._ensure_queue(call.queue, call.connection)
            return await Bulk(call, slices, self._notifies).store(call.connection)
        if self._home() is not asyncio.get_running_loop():
            slices = iter(list(slices))  # what the caller iterates over belongs to its thread
        return await self.at_home(lambda: self._on_pool(lambda on: self._bulk(call, slices, on)))

    def send_sync(self, call: Call, many_args: Sequence[bytes]) -> list[Handle]:
        """Do what `send` does, from code without an event loop.

        Raises:
            RuntimeError: called on the client's own event loop, which it would block for ever.
        """
        self._check_elsewhere(call)
        check_queue_name(call.queue)
        answer = self._put_from_elsewhere(call, many_args)
        try:
            return answer.result(HEARD_SECONDS)
        except TimeoutError:
            answer.cancel()
            raise DatabaseUnreachable(
                f"the client's event loop did not answer within {HEARD_SECONDS:g} s: something "
                "blocks it, or it has ended. The message may be stored or not."
            ) from None

    def send_many_sync(self, call: Call, slices: Iterator[Sequence[bytes]]) -> list[Handle]:
        """Do what `send_many` does, from code without an event loop; all is encoded already."""
        home = self._check_elsewhere(call)
        return asyncio.run_coroutine_threadsafe(self.send_many(call, slices), home).result()

    def _put_from_elsewhere(
        self, call: Call, many_args: Sequence[bytes]
    ) -> concurrent.futures.Future[list[Handle]]:
        answer = concurrent.futures.Future[list[Handle]]()
        parcel = Parcel.of(call, many_args, answer)
        self._home().call_soon_threadsafe(self._sender.put, parcel)
        return answer

    def _check_elsewhere(self, call: Call) -> asyncio.AbstractEventLoop:
        if call.connection is not None:
            raise TypeError("options(connection=...) is for `await ….defer(…)`: the connection "
                            "belongs to an event loop")  # fmt: skip
        home = self._home()
        if _running_loop() is home:
            raise RuntimeError("this is the client's event loop: use `await ….defer(…)` here")
        return home

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
            if is_refusal(error):
                raise DatabaseError(f"the database refuses for now: {error}") from error
            raise unreachable(self.address, error) from error

    def _home(self) -> asyncio.AbstractEventLoop:
        if self._loop is None or self._loop.is_closed() or self._pool is None:
            raise NotConnectedError("this client is not open; use it in `async with connect():`")
        return self._loop

    async def _on_pool(self, use: Callable[[Connection], Awaitable[T]]) -> T:
        seconds = self.config.database.acquire_timeout.total_seconds()
        try:
            async with self.pool.acquire(timeout=seconds) as on:
                return await bounded(cast("Connection", on), use, seconds=None)
        except Exception as error:
            if not is_transient(error):
                raise
            raise unsure(self.address, error) from error

    async def _bulk(
        self, call: Call, slices: Iterator[Sequence[bytes]], on: Connection
    ) -> list[Handle]:
        with anyio.fail_after(CALL_SECONDS) as patience:
            if not await Store(on).queue_exists(call.queue):
                await self._create_queue(call.queue, on)
            return await Bulk(call, slices, self._notifies, patience).store(on)

    async def _store(self, call: Call, many_args: Sequence[bytes], on: Executor) -> list[Handle]:
        """Store the messages of a call in one statement on the caller's connection."""
        ids, bodies = write_envelopes(call.task, many_args)
        numbers = await call.store(Store(on), bodies, notify=self._notifies)
        return [Handle(id_, call.queue, row) for id_, row in zip(ids, numbers, strict=True)]

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
