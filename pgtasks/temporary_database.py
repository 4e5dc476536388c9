"""TemporaryDatabase: a database for the length of a test, with the schema of pgtasks in it.

It is a copy of a template, which is made once for each version of the schema and stays on the
server: that saves connecting to the new database and installing the schema in it. Names say whose
a database is, so that what killed runs left behind can be told from what is in use.
"""

import asyncio
import os
import re
import secrets
import socket
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import anyio
import anyio.to_thread
import asyncpg
import attrs

from pgtasks import embedded, layers, migrate
from pgtasks.config import Config, DatabaseConfig
from pgtasks.connection import FAILURES, Connection, open_connection
from pgtasks.database import given
from pgtasks.database_url import with_database
from pgtasks.embedded.reaper import is_running
from pgtasks.errors import DatabaseError, PgtasksError
from pgtasks.events import Events
from pgtasks.layers import Loaded
from pgtasks.settlement import describe_error
from pgtasks.store import Record, Store

log = Events("pgtasks.testing")

LONGEST_SECONDS: Final = 120.0
"""How long making a database may take, the wait for others that make the template included."""
LEFTOVER_SECONDS: Final = 24 * 3600
"""A database so old that nobody is connected to was left behind, on whichever machine."""
TEMPLATE_SECONDS: Final = 7 * 24 * 3600
"""So old a template is dropped when another is made: for the schema of another version, mostly."""
TRIES: Final = 3

_NAME: Final = re.compile(r"pgtasks_test_(?P<made_at>\d+)_(?P<here>[0-9a-f]{8})_(?P<pid>\d+)_.*")
_servers: dict[Path, embedded.Server] = {}
"""The embedded servers of this process: to start one takes longer than most tests."""


@attrs.define(eq=False, repr=False)
class TemporaryDatabase:
    """A database that exists for the length of an `async with`, or of a plain `with`."""

    _loaded: Loaded
    _install: bool
    _server: DatabaseConfig = attrs.field(factory=DatabaseConfig, init=False)
    _name: str | None = attrs.field(default=None, init=False)

    def __repr__(self) -> str:
        # A test that fails shows its fixtures: no address, which may hold a password.
        return f"TemporaryDatabase({self._name!r})"

    @property
    def name(self) -> str:
        """Its name on its server.

        Raises:
            RuntimeError: it does not exist now.
        """
        if self._name is None:
            raise RuntimeError(
                "there is no database outside the block: write "
                "`with temporary_database() as database:`"
            )
        return self._name

    @property
    def url(self) -> str:
        """Its address, for `connect(database.url)`."""
        return with_database(self._server.url or "", self.name)

    @property
    def config(self) -> Config:
        """The project's settings with this database, for `Worker(config=database.config)`."""
        return attrs.evolve(self._loaded.config, database=attrs.evolve(self._server, url=self.url))

    async def create(self) -> None:
        """Create it, and drop what killed runs have left behind.

        Raises:
            DatabaseUnreachable: no connection in time.
            DatabaseError: the server refused; the text says what to do.
            EmbeddedError: no server is configured, and the embedded one cannot be started.
        """
        self._server = await _server(self._loaded)
        with _explained():
            try:
                with anyio.fail_after(LONGEST_SECONDS):
                    async with _store(self._server) as store:
                        await _drop_leftovers(store, await store.temporary_databases())
                        self._name = await self._new(store)
            except BaseException:
                await self._clear_away()
                raise

    async def drop(self) -> None:
        """Drop it, even while somebody is connected to it.

        Raises:
            DatabaseError: the server refused; a later run tries again.
        """
        name, self._name = self._name, None
        if name is None:
            return
        with _explained(), anyio.fail_after(LONGEST_SECONDS, shield=True):
            async with _store(self._server) as store:
                await store.drop_database(name, in_use=True)

    async def _new(self, store: Store) -> str:
        if not self._install:
            self._name = _new_name(await store.temporary_databases())
            await _create(store, self._name, "template1")
            return self._name
        for _ in range(TRIES):
            found = await store.temporary_databases()
            template = _template(found) or await _made_template(self._server, store)
            self._name = _new_name(found)
            # Somebody may have dropped it as old since we looked.
            with suppress(asyncpg.InvalidCatalogNameError):
                await _create(store, self._name, template)
                return self._name
        raise DatabaseError("the template of temporary databases was dropped each time; try again")

    async def _clear_away(self) -> None:
        """Drop what may be there of one that was not finished: a later run would, too."""
        with suppress(PgtasksError, *FAILURES):
            await self.drop()

    async def _leave(self, error: BaseException | None) -> None:
        try:
            await self.drop()
        except PgtasksError as failure:
            if error is None:
                raise
            # What the block was left by is what matters.
            log.warning("a temporary database was not dropped", error=str(failure))

    async def __aenter__(self) -> Self:
        await self.create()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._leave(error)

    def __enter__(self) -> Self:
        try:
            _run_to_the_end(self.create)
        except KeyboardInterrupt:
            _run_to_the_end(self._clear_away)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _run_to_the_end(partial(self._leave, error))


def temporary_database(
    url: str | None = None, config: Config | None = None, *, install: bool = True
) -> TemporaryDatabase:
    """Return a database for the length of a test, to be used with `async with` or `with`.

    It is made on the given server with the schema of pgtasks in it, and dropped at the end of the
    block, however that ends and whoever is connected to it. The default client is not touched.

    Args:
        url: a database on the server to use, with a role that may create databases; it is only
            connected to. Default: what the configuration says, and with nothing configured the
            embedded server, not durable, apart from the project's own data.
        config: a whole configuration; default: files and environment.
        install: False leaves the schema out.

    Raises:
        ConfigError: the configuration is wrong; the text says where.

    Example:
        ```python
        async with temporary_database() as database, connect(database.url):
            await send_welcome.defer(42)
            await drain()
        ```
    """
    if config is None:
        loaded = layers.load({"database.url": layers.Flag("temporary_database(url=…)", url)})
    elif url is None:
        loaded = given(config)
    else:
        loaded = given(attrs.evolve(config, database=attrs.evolve(config.database, url=url)))
    return TemporaryDatabase(loaded, install)


def _run_to_the_end(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run from code without an event loop, or inside one that this blocks.

    Ctrl-C is raised when it has ended: only what is there can be dropped. The second is at once.
    """
    ended: Future[None] = Future()

    def run() -> None:
        try:
            ended.set_result(asyncio.run(work()))
        except BaseException as error:  # noqa: BLE001 - for who waits
            ended.set_exception(error)

    threading.Thread(target=run, name="pgtasks-testing", daemon=True).start()
    try:
        ended.result()
    except KeyboardInterrupt:
        ended.result()
        raise


async def _create(store: Store, name: str, template: str) -> None:
    # The server goes on with it when the call is cancelled: only what is there can be dropped.
    with anyio.fail_after(LONGEST_SECONDS, shield=True):
        await store.create_database(name, template)


async def _server(loaded: Loaded) -> DatabaseConfig:
    config = loaded.config.database
    if config.url is not None:
        return config
    server = await anyio.to_thread.run_sync(_embedded_server, loaded.project_folder)
    return attrs.evolve(config, url=server.url)


def _embedded_server(folder: Path) -> embedded.Server:
    """The project's scratch server; this process holds on to it until it ends."""
    # Each time: it may have been stopped from outside.
    server = embedded.start(folder, durable=False)
    before = _servers.get(folder)
    _servers[folder] = server
    if before is not None:
        before.close()
    return server


@asynccontextmanager
async def _store(server: DatabaseConfig) -> AsyncIterator[Store]:
    async with _connection(server) as connection:
        yield Store(connection)


@asynccontextmanager
async def _connection(server: DatabaseConfig) -> AsyncIterator[Connection]:
    connection = await open_connection(server, "testing", call_seconds=LONGEST_SECONDS)
    try:
        yield connection
    finally:
        connection.terminate()


# The template


def _schema_key(role: str) -> str:
    """What tells templates apart: the statements in them, and who may copy them."""
    return sha256(f"{role}\n{migrate.script()}".encode()).hexdigest()[:12]


def _template(found: Sequence[Record]) -> str | None:
    """The template of this schema, if there is one."""
    prefix = f"pgtasks_template_{_schema_key(found[0]['role'])}_"
    names = [row["name"] for row in found if row["name"] and row["name"].startswith(prefix)]
    return names[0] if names else None


async def _made_template(server: DatabaseConfig, store: Store) -> str:
    """Make the template, unless another process has made it meanwhile."""
    async with _connection(server) as holder, holder.transaction(isolation="read_committed"):
        await Store(holder).lock_templates()
        found = await store.temporary_databases()
        if (template := _template(found)) is not None:
            return template
        await _drop_old_templates(store, found)
        # Others wait for it, so it is made although this test may be over.
        with anyio.fail_after(LONGEST_SECONDS, shield=True):
            return await _make_template(server, store, found)


async def _make_template(server: DatabaseConfig, store: Store, found: Sequence[Record]) -> str:
    # Under the name of a temporary database until it is whole: what is left of one that was not
    # finished is dropped like those, and nobody takes it for a template.
    unfinished = _new_name(found)
    template = f"pgtasks_template_{_schema_key(found[0]['role'])}_{found[0]['clock']}"
    try:
        await store.create_database(unfinished, "template1")
        inside = attrs.evolve(server, url=with_database(server.url or "", unfinished))
        async with _connection(inside) as connection:
            await migrate.upgrade(connection)
            await connection.close(timeout=5)
        await store.close_database(unfinished)
        await store.rename_database(unfinished, template)
    except BaseException:
        await store.drop_database(unfinished, in_use=True)
        raise
    return template


async def _drop_old_templates(store: Store, found: Sequence[Record]) -> None:
    for row in found:
        made_at = re.fullmatch(r"pgtasks_template_[0-9a-f]+_(\d+)", row["name"] or "")
        if made_at is not None and row["clock"] - int(made_at[1]) > TEMPLATE_SECONDS:
            await _drop_unused(store, row["name"])


# Names, and what was left behind


def _new_name(found: Sequence[Record]) -> str:
    return f"pgtasks_test_{found[0]['clock']}_{_here()}_{os.getpid()}_{secrets.token_hex(4)}"


def _here() -> str:
    """What tells apart where process numbers mean the same: machine, start of it, container."""
    marks = [socket.gethostname()]
    with suppress(OSError):
        marks.append(Path("/proc/sys/kernel/random/boot_id").read_text())
        marks.append(str(Path("/proc/self/ns/pid").readlink()))
    return sha256("\n".join(marks).encode()).hexdigest()[:8]


async def _drop_leftovers(store: Store, found: Sequence[Record]) -> None:
    here = _here()
    for row in found:
        if not row["is_in_use"] and _is_leftover(row["name"] or "", row["clock"], here):
            await _drop_unused(store, row["name"])


def _is_leftover(name: str, clock: int, here: str) -> bool:
    match = _NAME.fullmatch(name)
    if match is None:
        return False
    if match["here"] == here and not is_running(int(match["pid"])):
        return True
    return clock - int(match["made_at"]) > LEFTOVER_SECONDS


async def _drop_unused(store: Store, name: str) -> None:
    # Another run may be dropping it too, or somebody has just connected to it.
    try:
        await store.drop_database(name, in_use=False)
    except asyncpg.PostgresError as error:
        log.debug("left alone", database=name, error=str(error))


@contextmanager
def _explained() -> Iterator[None]:
    """Say what the server refused, and what to do about it."""
    try:
        yield
    except asyncpg.InsufficientPrivilegeError as error:
        raise DatabaseError(
            f"this role may not make temporary databases: {error}\n"
            "As a superuser: ALTER ROLE … CREATEDB. Or name another server, or leave database.url "
            "out: then the embedded Postgres is used."
        ) from error
    except PgtasksError:  # some of them are OSErrors, too
        raise
    except FAILURES as error:
        said = describe_error(error)
        raise DatabaseError(f"a temporary database cannot be made or dropped: {said}") from error
