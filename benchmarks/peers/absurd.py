"""Absurd, by its asynchronous client."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import cycle
from pathlib import Path
from sys import executable
from typing import Any

from absurd_sdk import AsyncAbsurd

from benchmarks.peers.side import Producer, note, ready

QUEUE = "bench"
CONCURRENCY = 100
CLIENTS = 10


async def prepare(url: str) -> None:
    """Set up its schema by its own command, and a queue."""
    command = Path(executable).with_name("absurdctl")
    process = await asyncio.create_subprocess_exec(command, "init", "-d", url)
    assert await process.wait() == 0
    async with _app(url) as app:
        await app.create_queue()


@asynccontextmanager
async def produce(url: str) -> AsyncIterator[Producer]:
    """Spawn over ten clients, since one has one connection; it has no call for many."""
    async with AsyncExitStack() as stack:
        apps = [await stack.enter_async_context(_app(url)) for _ in range(CLIENTS)]
        turn = cycle(apps)

        def one(number: int) -> Any:
            return next(turn).spawn("note", {"number": number}, queue=QUEUE)

        async def many(numbers: Sequence[int]) -> None:
            parts = [numbers[start::CLIENTS] for start in range(CLIENTS)]
            await asyncio.gather(*(part_of(*both) for both in zip(apps, parts, strict=True)))

        async def part_of(app: AsyncAbsurd, part: Sequence[int]) -> None:
            for number in part:
                await app.spawn("note", {"number": number}, queue=QUEUE)

        # Their connections are opened by what is called first.
        await asyncio.gather(*(app.list_queues() for app in apps))
        yield Producer(many, one)


async def work(url: str) -> None:
    """Run a worker with many tasks at once."""
    async with _app(url) as app:

        @app.register_task("note")
        async def noted(params: Any, _context: Any) -> None:
            note(params["number"])

        ready()
        await app.start_worker(concurrency=CONCURRENCY)


@asynccontextmanager
async def _app(url: str) -> AsyncIterator[AsyncAbsurd]:
    app = AsyncAbsurd(url, queue_name=QUEUE)
    try:
        yield app
    finally:
        await app.close()
