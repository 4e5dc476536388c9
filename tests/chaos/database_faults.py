"""Faults of the database: killed, restarted, its rows locked."""

import asyncio

import asyncpg
from chaos.arena import Arena
from chaos.connection_faults import BACK_SECONDS
from chaos.fault import Fault

_END_OTHERS = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


class KilledPostgres(Fault):
    """As when its machine loses power: it recovers from its log; every third time twice."""

    name = "Postgres is killed, and recovers"
    measured = "resumed"
    target_seconds = BACK_SECONDS

    async def strike(self, arena: Arena) -> None:
        with arena.history.lasting_fault("postgres-killed"):
            for _ in range(2 if arena.random.random() < 0.3 else 1):
                await asyncio.to_thread(arena.server.stop, "immediate")
                await asyncio.to_thread(arena.server.start)


class AbsentPostgres(Fault):
    """As while it is upgraded: connections are refused."""

    name = "Postgres is away for up to 15 s"
    measured = "resumed"
    target_seconds = BACK_SECONDS

    async def strike(self, arena: Arena) -> None:
        with arena.history.lasting_fault("postgres-away"):
            await asyncio.to_thread(arena.server.stop, "fast")
            await asyncio.sleep(arena.random.uniform(3.0, 15.0))
            await asyncio.to_thread(arena.server.start)


class ReadOnlyPostgres(Fault):
    """As while another server takes over."""

    name = "the database can only be read for up to 10 s"
    measured = "resumed"
    target_seconds = BACK_SECONDS

    async def strike(self, arena: Arena) -> None:
        with arena.history.lasting_fault("read-only"):
            await self._set(arena, "on")
            await asyncio.sleep(arena.random.uniform(2.0, 10.0))
            await self._set(arena, "off")

    async def _set(self, arena: Arena, state: str) -> None:
        connection = await asyncpg.connect(
            arena.server.url, timeout=10, server_settings={"default_transaction_read_only": "off"}
        )
        try:
            name = await connection.fetchval("SELECT quote_ident(current_database())")
            await connection.execute(
                f"ALTER DATABASE {name} SET default_transaction_read_only = {state}"
            )
            # Whoever is connected keeps what it has read.
            await connection.execute(_END_OTHERS)
        finally:
            await connection.close()


class LockedTable(Fault):
    """A session of somebody else's holds the whole table, as a migration of theirs would."""

    name = "the table is locked by somebody else for up to 8 s"
    measured = "resumed"
    target_seconds = BACK_SECONDS

    async def strike(self, arena: Arena) -> None:
        connection = await asyncpg.connect(arena.server.url, timeout=10)
        try:
            with arena.history.lasting_fault("locked-table"):
                async with connection.transaction():
                    statement = "LOCK TABLE pgmq.q_default IN ACCESS EXCLUSIVE MODE"
                    await connection.execute(statement, timeout=30)
                    await asyncio.sleep(arena.random.uniform(1.0, 8.0))
        finally:
            await connection.close()


class LockedRows(Fault):
    """A session of somebody else's holds every row of the queue."""

    name = "all rows are locked by somebody else for up to 6 s"
    measured = "resumed"
    target_seconds = BACK_SECONDS

    async def strike(self, arena: Arena) -> None:
        connection = await asyncpg.connect(arena.server.url, timeout=10)
        try:
            with arena.history.lasting_fault("locked-rows"):
                async with connection.transaction():
                    await connection.execute("SELECT FROM pgmq.q_default FOR UPDATE", timeout=30)
                    await asyncio.sleep(arena.random.uniform(1.0, 6.0))
        finally:
            await connection.close()
