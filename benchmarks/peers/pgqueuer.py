"""PgQueuer, over asyncpg: the driver that its benchmark page finds the faster one."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import asyncpg
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver, AsyncpgPoolDriver
from pgqueuer.models import Job
from pgqueuer.queries import Queries

from benchmarks.peers.side import Producer, note, ready

BATCH = 200


async def prepare(url: str) -> None:
    """Install its tables."""
    connection = await asyncpg.connect(url)
    await Queries(AsyncpgDriver(connection)).install()
    await connection.close()


@asynccontextmanager
async def produce(url: str) -> AsyncIterator[Producer]:
    """Enqueue through a pool; many as one call with lists."""
    async with asyncpg.create_pool(url, min_size=10, max_size=10) as pool:
        queries = Queries(AsyncpgPoolDriver(pool))

        async def many(numbers: Sequence[int]) -> None:
            payloads = [str(number).encode() for number in numbers]
            await queries.enqueue(["note"] * len(numbers), payloads, [0] * len(numbers))

        yield Producer(many, lambda number: queries.enqueue("note", str(number).encode()))


async def work(url: str) -> None:
    """Run its queue manager with larger batches than its default of 10."""
    connection = await asyncpg.connect(url)
    manager = PgQueuer(AsyncpgDriver(connection))

    @manager.entrypoint("note")
    async def noted(job: Job) -> None:
        assert job.payload is not None
        note(int(job.payload))

    ready()
    await manager.run(batch_size=BATCH)
