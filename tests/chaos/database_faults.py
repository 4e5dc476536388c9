"""Faults of the database: killed, restarted, its rows locked."""

import asyncio

import asyncpg
from chaos.arena import Arena
from chaos.connection_faults import BACK_SECONDS
from chaos.fault import Fault


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
