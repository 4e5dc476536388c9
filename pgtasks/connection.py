"""Connections to Postgres: how they are opened, when they are given up, what an error means."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from ipaddress import ip_address
from ssl import CERT_NONE, SSLCertVerificationError
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import asyncpg
import attrs
from asyncpg.exceptions import ClientConfigurationError

from pgtasks.config import DatabaseConfig
from pgtasks.database_url import is_local, masked_url
from pgtasks.errors import DatabaseError, DatabaseUnreachable
from pgtasks.pulse import Pulse

if TYPE_CHECKING:  # generic for the type checker only
    Connection = asyncpg.Connection[asyncpg.Record]
    Pool = asyncpg.Pool[asyncpg.Record]
else:
    Connection = asyncpg.Connection
    Pool = asyncpg.Pool
T = TypeVar("T")

CALL_SECONDS = 5.0
"""The longest any of our own statements may take before its connection is given up."""

SLOWEST_BYTES = 1_000_000
"""Bytes a second, and"""
SLOWEST_MESSAGES = 2_000
"""messages a second: a server that stores fewer than that of a large call is given up."""

ROLLBACK_SECONDS = 1.0
"""How long whatever failed waits for its ROLLBACK: the server does that by itself, too."""

WORKER_SETTINGS: Mapping[str, str] = {
    # A lost claim or completion only means that the message runs again after a crash of the
    # server, which at-least-once allows; not waiting for the disk makes small batches 3x faster.
    "synchronous_commit": "off",
    # A plan made while the queue was empty must not be kept when 300,000 messages arrive: with
    # the planner's defaults such a claim took 110 to 250 ms, pinned to the index below 1 ms.
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "jit": "off",
}

SET_LOCAL = """
SELECT pg_catalog.set_config(name, value, true)
FROM unnest($1::text[], $2::text[]) AS setting (name, value)
"""
"""Apply settings ($1 names, $2 values) until the transaction ends."""

OWN_LIMITS: Mapping[str, str] = {
    # Instead of what the role or the database says, which is made for other programs. The server
    # ends a statement before we give up on it: else, while somebody locks a table, each try would
    # leave one behind that waits there for ever, and one day claims what nobody is left to run.
    "statement_timeout": "4500ms",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "5s",
    "idle_session_timeout": "0",
}
"""Of our own connections; shorter than `CALL_SECONDS`."""

FAILURES = (
    DatabaseError,
    OSError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    # What asyncpg raises when a statement meets the server's last words on a connection.
    asyncpg.InternalClientError,
)
"""All that a call of the database may raise."""

# By SQLSTATE class or code, never by text: the text is translated on some servers.
_TRANSIENT_CLASSES = ("08", "53", "57", "58")
_TRANSIENT_CODES = frozenset({"25006", "40001", "40P01", "55P03"})


def is_transient(error: BaseException) -> bool:
    """Tell whether the same call may succeed later: connection, resources, shutdown, locks."""
    if isinstance(error, asyncpg.PostgresError):
        code = error.sqlstate or ""
        return code[:2] in _TRANSIENT_CLASSES or code in _TRANSIENT_CODES
    if isinstance(error, SSLCertVerificationError | ClientConfigurationError):
        return False
    return isinstance(
        error, OSError | TimeoutError | asyncpg.InterfaceError | asyncpg.InternalClientError
    )


def is_refusal(error: BaseException) -> bool:
    """Tell whether the server itself refused what it may do later: then nothing of it happened."""
    if not isinstance(error, asyncpg.PostgresError) or not is_transient(error):
        return False
    code = error.sqlstate or ""
    return code[:2] not in {"08", "57", "58"} or code == "57014"


async def open_connection(
    database: DatabaseConfig,
    purpose: str,
    settings: Mapping[str, str] | None = None,
    *,
    call_seconds: float = CALL_SECONDS,
    keeps_statements: bool = True,
) -> Connection:
    """Open one connection, named after its purpose in `pg_stat_activity`.

    Args:
        database: where to.
        purpose: what it is for.
        settings: of the server, for this connection.
        call_seconds: how long any of its calls may take.
        keeps_statements: whether prepared statements are kept, which few poolers allow.

    Raises:
        DatabaseUnreachable: it could not be opened in time; the text says why and what to check.
    """
    try:
        with anyio.fail_after(database.connect_timeout.total_seconds()):
            return await asyncpg.connect(
                database.url,
                timeout=database.connect_timeout.total_seconds(),
                command_timeout=call_seconds,
                statement_cache_size=1000 if keeps_statements and not database.pgbouncer else 0,
                # One that asks about many queues is long, and takes 5 ms to be planned.
                max_cacheable_statement_size=0,
                server_settings=_server_settings(database, purpose, settings or {}),
                **_secured(database),
            )
    except (*FAILURES, ValueError) as error:
        raise unreachable(database, error) from (error if isinstance(error, FAILURES) else None)


async def open_pool(database: DatabaseConfig, purpose: str, *, least: int) -> Pool:
    """Open the pool that users' own calls share, with at least so many connections.

    Raises:
        DatabaseUnreachable: no connection could be opened in time.
    """
    pool = asyncpg.create_pool(
        database.url,
        min_size=least,
        max_size=database.max_connections,
        timeout=database.connect_timeout.total_seconds(),
        max_inactive_connection_lifetime=database.idle_timeout.total_seconds(),
        init=None if database.pgbouncer else _notice_our_end,
        # Nothing of ours is left on a connection, so asyncpg's reset after every use, a round
        # trip of about 100 µs, would reset nothing.
        reset=_nothing_to_reset,
        statement_cache_size=0 if database.pgbouncer else 1000,
        server_settings=_server_settings(database, purpose, {}),
        **_secured(database),
    )
    try:
        with anyio.fail_after(database.connect_timeout.total_seconds()):
            return await pool
    except (*FAILURES, ValueError) as error:
        pool.terminate()
        raise unreachable(database, error) from (error if isinstance(error, FAILURES) else None)


async def bounded(
    connection: Connection,
    use: Callable[[Connection], Awaitable[T]],
    *,
    seconds: float | None = CALL_SECONDS,
) -> T:
    """Return what `use` returns for a connection, within `seconds`; None: it bounds itself.

    A call that fails for a reason other than SQL ends the connection at once: over a network that
    swallows packets, asyncpg's own way to cancel a call, or to give the connection back to its
    pool, was seen to wait for a minute.

    Raises:
        TimeoutError: the call took too long.
        asyncpg.PostgresError: the server refused.
    """
    loop, is_late = asyncio.get_running_loop(), False

    def give_up() -> None:
        nonlocal is_late
        is_late = True
        connection.terminate()

    # A cancel scope around each statement costs as much as half of the statement itself.
    timer = None if seconds is None else loop.call_later(seconds, give_up)
    try:
        return await use(connection)
    except BaseException as error:
        if not isinstance(error, asyncpg.PostgresError):
            connection.terminate()
        if is_late and isinstance(error, FAILURES):
            raise TimeoutError from error
        raise
    finally:
        if timer is not None:
            timer.cancel()


def is_closed(connection: Connection) -> bool:
    """Tell whether a connection is closed, also when its pool has taken it back for that."""
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:
        return True


def storing_seconds(messages: int, size: int) -> float:
    """Return how long storing messages may take: what is large may take longer."""
    return CALL_SECONDS + size / SLOWEST_BYTES + messages / SLOWEST_MESSAGES


@asynccontextmanager
async def transaction(connection: Connection) -> AsyncIterator[None]:
    """Open a transaction that is committed or rolled back even when its block is cancelled.

    asyncpg's own is left open then: its ROLLBACK is cancelled too.
    """
    opened = connection.transaction()
    await bounded(connection, lambda _: opened.start())
    try:
        yield
    except BaseException:
        if not is_closed(connection):
            with anyio.move_on_after(ROLLBACK_SECONDS, shield=True) as bound:
                await opened.rollback()
            if bound.cancelled_caught:  # the server rolls back once it has noticed
                connection.terminate()
        raise
    # A COMMIT that is cancelled may have happened: it is waited for.
    with anyio.CancelScope(shield=True):
        await bounded(connection, lambda _: opened.commit())


def unreachable(database: DatabaseConfig, error: BaseException) -> DatabaseUnreachable:
    """Return the error that says why no connection could be opened, without the password."""
    url = masked_url(database.url or "")
    if isinstance(error, TimeoutError):
        why = f"no answer within {database.connect_timeout.total_seconds():g} s"
    elif not isinstance(error, FAILURES):
        # The driver could not read the address, and its error may quote any part of it.
        why = "the driver cannot read this address, or what PGHOST and PGPORT say"
    else:
        why = str(error).strip() or type(error).__name__
    return DatabaseUnreachable(
        f"cannot connect to {url}: {why}\n"
        "Check database.url (or PGTASKS_DATABASE_URL, DATABASE_URL), that the server runs and "
        "accepts this role; `pgtasks config show` says where the address comes from."
    )


def unsure(database: DatabaseConfig, error: BaseException) -> DatabaseError:
    """Return the error of what failed while messages were being stored; says if they may be."""
    if isinstance(error, DatabaseUnreachable):
        return error
    made = (
        DatabaseError(
            f"the database takes no messages now: {error}\n"
            "Nothing was stored; defer again when that is mended."
        )
        if is_refusal(error)
        else DatabaseUnreachable(
            f"{unreachable(database, error)}\n"
            "The connection failed while messages were being stored: unless it failed before they "
            "were sent, they may be there. Deferring again may store them twice."
        )
    )
    made.__cause__ = error
    return made


@attrs.define
class Line:
    """A connection of its own for one purpose, opened when it is needed and again when it broke.

    Every call is bounded. A call that fails for a reason other than SQL ends the connection at
    once: over a network that swallows packets a graceful close would wait for ever.
    """

    database: DatabaseConfig
    purpose: str
    settings: Mapping[str, str] = attrs.field(factory=dict)
    _pulse: Pulse = attrs.field(factory=Pulse)
    """Of the part that it belongs to: each call says that it goes on, and how the database does."""
    _connection: Connection | None = attrs.field(default=None, init=False)

    async def call(
        self, use: Callable[[Connection], Awaitable[T]], *, seconds: float = CALL_SECONDS
    ) -> T:
        """Return what `use` returns for an open connection, within `seconds`.

        Raises:
            DatabaseUnreachable: no connection could be opened.
            TimeoutError: the call took too long; its connection is gone.
            asyncpg.PostgresError: the server refused.
        """
        self._pulse.promise(self.database.connect_timeout.total_seconds() + seconds)
        try:
            answer = await self._call(use, seconds)
        except FAILURES:
            self._pulse.failed()
            raise
        self._pulse.answered()
        return answer

    async def _call(self, use: Callable[[Connection], Awaitable[T]], seconds: float) -> T:
        connection = await self._opened()
        if self.database.pgbouncer:
            return await bounded(connection, lambda on: self._set_for(on, use), seconds=seconds)
        return await bounded(connection, use, seconds=seconds)

    async def _set_for(
        self, connection: Connection, use: Callable[[Connection], Awaitable[T]]
    ) -> T:
        """Call with the settings in force for this call alone: a pooler gives them to anybody.

        Without them a claim of 100 from a queue of 20,000 was planned to read and sort them all.
        """
        opened = connection.transaction()
        await opened.start()
        try:
            settings = {**OWN_LIMITS, **self.settings}
            await connection.fetch(SET_LOCAL, list(settings), list(settings.values()))
            answer = await use(connection)
        except asyncpg.PostgresError:
            await opened.rollback()
            raise
        await opened.commit()
        return answer

    async def _opened(self) -> Connection:
        if self._connection is None or self._connection.is_closed():
            settings = {**OWN_LIMITS, **self.settings}
            self._connection = await open_connection(self.database, self.purpose, settings)
        return self._connection

    def drop(self) -> None:
        """End the connection at once; the next call opens another."""
        connection, self._connection = self._connection, None
        if connection is not None and not connection.is_closed():
            connection.terminate()

    async def close(self) -> None:
        """End the connection, gracefully where the server answers within a second."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        with anyio.CancelScope(shield=True):
            try:
                await connection.close(timeout=1)
            except FAILURES:
                connection.terminate()


def protection(connection: Connection) -> str:
    """Return how a connection is protected on its way: as `sslmode` says it, "local" or "none".

    "verify-full" and "verify-ca" are to a server that proved who it is, "local" never leaves this
    machine, "require" is encrypted to whoever answered, and "none" can be read and changed by
    anybody on the way.
    """
    opened: Any = connection
    transport = opened._transport  # noqa: SLF001 - asyncpg tells nobody
    secured = transport.get_extra_info("ssl_object")
    if secured is not None and secured.context.verify_mode != CERT_NONE:
        return "verify-full" if secured.context.check_hostname else "verify-ca"
    peer = transport.get_extra_info("peername")
    if not isinstance(peer, tuple) or ip_address(peer[0].partition("%")[0]).is_loopback:
        return "local"
    return "none" if secured is None else "require"


def _secured(database: DatabaseConfig) -> dict[str, Any]:
    # Instead of the URL's sslmode; asyncpg would use TLS where the server offers it, check no
    # certificate, and silently do without if the offer was taken out on the way.
    is_asked_for = database.require_tls and not is_local(database.url or "")
    return {"ssl": "verify-full"} if is_asked_for else {}


def _server_settings(
    database: DatabaseConfig, purpose: str, settings: Mapping[str, str]
) -> dict[str, str]:
    # A pooler in transaction mode refuses settings it does not know, and would leak the others.
    if database.pgbouncer:
        return {}
    return {"application_name": f"pgtasks {purpose}"} | dict(settings)


async def _notice_our_end(connection: Connection) -> None:
    # A call that was given up ends its connection; the server would notice only when it has the
    # answer. Not among the settings of the start: not every server's system can do it.
    with suppress(asyncpg.PostgresError):
        await connection.execute("SET client_connection_check_interval = '1s'")


async def _nothing_to_reset(_connection: object) -> None:
    return None
