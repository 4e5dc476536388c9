"""awa, whose core is in Rust, by its Python package."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from awa import AsyncClient

from benchmarks.peers.side import Producer, note, ready

WORKERS = 100


@dataclass
class Note:
    """Does nothing, or stamps."""

    number: int


async def prepare(url: str) -> None:
    """Apply its schema."""
    async with _client(url) as client:
        await client.migrate()
        await client.install_queue_storage()


@asynccontextmanager
async def produce(url: str) -> AsyncIterator[Producer]:
    """Insert through its pool; many by COPY into its queue storage."""
    async with _client(url) as client:

        async def many(numbers: Sequence[int]) -> None:
            await client.enqueue_many_copy([Note(number) for number in numbers], queue="bench")

        yield Producer(many, lambda number: client.insert(Note(number), queue="bench"))


async def work(url: str) -> None:
    """Run one queue with many workers."""
    async with _client(url) as client:

        @client.task(Note, queue="bench")
        async def noted(job: object) -> None:
            note(job.args.number)  # type: ignore[attr-defined]

        await client.start([("bench", WORKERS)])
        ready()
        try:
            await asyncio.Event().wait()
        finally:
            await client.shutdown()


def _client(url: str) -> AsyncClient:
    # An address of a Unix socket names a host all the same.
    return AsyncClient(url.replace("@/", "@localhost/"), max_connections=10)
