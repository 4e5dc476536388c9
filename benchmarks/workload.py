"""Workload: the tasks that are measured. They do nothing, so that what is left is pgtasks."""

import asyncio
import os
from functools import cache

from benchmarks.stamps import write_stamp
from pgtasks import task

WAIT_SECONDS = 0.01


@task
async def nothing(number: int) -> None:
    """Do nothing, on the event loop."""


@task
def nothing_sync(number: int) -> None:
    """Do nothing, in a thread."""


@task
async def wait(number: int) -> None:  # noqa: ARG001 - as many as the others
    """Wait for 10 ms, as for an answer from elsewhere."""
    await asyncio.sleep(WAIT_SECONDS)


@task
async def example(foo: str, bar: int) -> None:
    """Do nothing, with the two arguments of Roadster's benchmark."""


@task
async def stamp(number: int) -> None:
    """Write down when it was started."""
    write_stamp(_stamps(), number)


@task
async def note(number: int) -> None:
    """Do nothing, or for a number that is not 0 write down when it was started."""
    if number:
        write_stamp(_stamps(), number)


@cache
def _stamps() -> int:
    return os.open(os.environ["BENCH_STAMPS"], os.O_WRONLY | os.O_APPEND)
