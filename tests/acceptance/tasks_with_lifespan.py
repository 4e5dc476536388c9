"""A task that uses what the application's lifespan opened, for as long as a worker lives."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from acceptance.history import record

from pgtasks import current_message, lifespan, task


@lifespan
@asynccontextmanager
async def resources() -> AsyncIterator[list[str]]:
    record("entered", "lifespan")
    opened = ["open"]
    yield opened
    opened.clear()
    record("left", "lifespan")


@task
async def uses_resources(key: str) -> None:
    record("start", key)
    [state] = current_message().resources
    record("end", key, state)
