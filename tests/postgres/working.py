"""A worker in the test's own process, and never for longer than a test may take."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from pgtasks import Config, Registry, Worker


@asynccontextmanager
async def working(
    config: Config,
    registry: Registry,
    *,
    queues: list[str] | None = None,
    within_seconds: float = 20,
) -> AsyncIterator[Worker]:
    """Run a worker for the length of a block, which fails when it takes too long."""
    with anyio.fail_after(within_seconds):
        async with Worker(config=config, registry=registry, queues=queues) as worker:
            yield worker
