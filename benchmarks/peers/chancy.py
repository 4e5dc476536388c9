"""Chancy, with its asyncio executor."""

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from chancy import Chancy, Job, Queue, Worker
from chancy.job import job as job_of

from benchmarks.peers.side import Producer, ready
from benchmarks.peers.side import note as take_note

CONCURRENCY = 100


@job_of(queue="bench")
async def note(*, number: int) -> None:
    """Do nothing, or stamp."""
    take_note(number)


async def prepare(url: str) -> None:
    """Apply its schema, and declare a queue that looks again as soon as a job is done."""
    async with _app(url) as chancy:
        await chancy.migrate()
        await chancy.declare(
            Queue(
                "bench",
                concurrency=CONCURRENCY,
                executor="chancy.executors.asyncex.AsyncExecutor",
                eager_polling=True,
            )
        )


@asynccontextmanager
async def produce(url: str) -> AsyncIterator[Producer]:
    """Push through its pool; many in its batches of 1,000."""
    async with _app(url) as chancy:

        def job(number: int) -> Job:
            return note.job.with_kwargs(number=number)

        async def many(numbers: Sequence[int]) -> None:
            async for _ in chancy.push_many([job(number) for number in numbers]):
                pass

        yield Producer(many, lambda number: chancy.push(job(number)))


async def work(url: str) -> None:
    """Run a worker for all queues."""
    async with (
        _app(url) as chancy,
        Worker(chancy, register_signal_handlers=False) as worker,
    ):
        ready()
        await worker.wait_for_shutdown()


def _app(url: str) -> Chancy:
    # It logs a line for every job, unless it is given a logger that does not.
    log = logging.getLogger("chancy.bench")
    log.setLevel(logging.WARNING)
    return Chancy(url, min_connection_pool_size=10, log=log)
