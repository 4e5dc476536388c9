"""Wait for an assertion to hold, instead of sleeping and hoping."""

import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

POLL_SECONDS = 0.02
T = TypeVar("T")


def eventually(assertion: Callable[[], T], *, within_seconds: float = 10) -> T:
    """Call `assertion` until it stops raising AssertionError; gives what it returned."""
    deadline = time.monotonic() + within_seconds
    while True:
        try:
            return assertion()
        except AssertionError:
            if time.monotonic() > deadline:
                raise
        time.sleep(POLL_SECONDS)


async def eventually_async(
    assertion: Callable[[], Awaitable[T]], *, within_seconds: float = 10
) -> T:
    """Await `assertion` until it stops raising AssertionError; gives what it returned."""
    deadline = time.monotonic() + within_seconds
    while True:
        try:
            return await assertion()
        except AssertionError:
            if time.monotonic() > deadline:
                raise
        await anyio.sleep(POLL_SECONDS)
