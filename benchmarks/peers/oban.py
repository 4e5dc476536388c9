"""Oban for Python."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from oban import Oban, job
from oban.schema import install

from benchmarks.peers.side import Producer, note, ready

LIMIT = 100


@job(queue="bench")
async def noted(number: int) -> None:
    """Do nothing, or stamp."""
    note(number)


async def prepare(url: str) -> None:
    """Install its schema."""
    pool = await Oban.create_pool(url)
    await install(pool)
    await pool.close()


@asynccontextmanager
async def produce(url: str) -> AsyncIterator[Producer]:
    """Enqueue through a client without queues; many in one statement."""
    pool = await Oban.create_pool(url, min_size=10, max_size=10)
    async with Oban(pool=pool) as oban:

        async def many(numbers: Sequence[int]) -> None:
            await oban.enqueue_many(noted.new(number) for number in numbers)

        yield Producer(many, lambda number: oban.enqueue(noted.new(number)))
    await pool.close()


async def work(url: str) -> None:
    """Run one queue with a high limit."""
    pool = await Oban.create_pool(url, min_size=10, max_size=10)
    async with Oban(pool=pool, queues={"bench": LIMIT}):
        ready()
        await asyncio.Event().wait()
