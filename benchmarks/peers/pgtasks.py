"""pgtasks itself, deferred to in the way the others are. Its worker is the real command."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from benchmarks.bench import create_queues
from benchmarks.peers.side import Producer
from benchmarks.workload import note
from pgtasks import Config, connect
from pgtasks.config import DatabaseConfig
from pgtasks.connection import open_connection

QUEUE = "bench_peers"


async def prepare(url: str) -> None:
    """Create the queue; the schema is there."""
    connection = await open_connection(DatabaseConfig(url=url), "benchmark")
    await create_queues(connection, QUEUE)
    await connection.close()


@asynccontextmanager
async def produce(url: str) -> AsyncIterator[Producer]:
    """Defer through a client."""
    task = note.options(queue=QUEUE)

    async def many(numbers: Sequence[int]) -> None:
        await task.defer_many((number,) for number in numbers)

    async with connect(config=Config(database=DatabaseConfig(url=url))):
        yield Producer(many, task.defer)


async def work(url: str) -> None:
    """Never asked for."""
    raise NotImplementedError(f"`pgtasks worker` works on {url}")
