"""Side: the programs that are run for one system, in an environment that has only that system.

    python -m benchmarks.peers.side NAME prepare URL     set up an empty database
    python -m benchmarks.peers.side NAME produce URL     defer as told, line by line
    python -m benchmarks.peers.side NAME work URL        be one worker process

The standard library alone is imported here, and modules that need no more.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any, Protocol

from benchmarks.stamps import now, write_stamp

END_SECONDS = 5.0
_stamps: list[int] = []


@dataclass(frozen=True)
class Producer:
    """How a system is deferred to."""

    many: Callable[[Sequence[int]], Awaitable[object]]
    one: Callable[[int], Awaitable[object]]


class Side(Protocol):
    """What each system's file offers."""

    async def prepare(self, url: str, /) -> None:
        """Set up an empty database."""

    def produce(self, url: str, /) -> AbstractAsyncContextManager[Producer]:
        """Connect, to defer."""

    async def work(self, url: str, /) -> None:
        """Work until cancelled; say `ready()` when it does."""


def ready() -> None:
    """Tell that a worker works, or soon will."""
    print("ready", flush=True)


def note(number: int) -> None:
    """The body of every task: nothing, or for a number that is not 0 a stamp."""
    if number:
        if not _stamps:
            _stamps.append(os.open(os.environ["BENCH_STAMPS"], os.O_WRONLY | os.O_APPEND))
        write_stamp(_stamps[0], number)


def _run(program: Coroutine[Any, Any, None]) -> None:
    try:
        import uvloop  # noqa: PLC0415 - there or not
    except ImportError:
        asyncio.run(program)
    else:
        uvloop.run(program)


async def _work(side: Side, url: str) -> None:
    working = asyncio.ensure_future(side.work(url))

    def stop() -> None:
        working.cancel()
        # Whoever does not end is ended; nothing is running when it is told to.
        asyncio.get_running_loop().call_later(END_SECONDS, os._exit, 0)

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop)
    with suppress(asyncio.CancelledError):
        await working
    os._exit(0)


async def _produce(side: Side, url: str) -> None:
    verbs: dict[str, Callable[..., Awaitable[object]]] = {
        "many": defer_many,
        "single": defer_singly,
        "paced": defer_paced,
    }
    async with side.produce(url) as producer:
        ready()
        while line := await asyncio.to_thread(sys.stdin.readline):
            verb, *arguments = json.loads(line)
            print(json.dumps(await verbs[verb](producer, *arguments)), flush=True)


async def defer_many(producer: Producer, count: int) -> float:
    """Defer so many at once, of which the first and the last are stamped; return the seconds."""
    numbers = [1, *[0] * (count - 2), 2]
    began = now()
    await producer.many(numbers)
    return now() - began


async def defer_singly(producer: Producer, at_once: int, seconds: float) -> float:
    """Let coroutines defer one after another for a while; return messages a second."""
    stored, began = 0, now()

    async def go_on() -> None:
        nonlocal stored
        while now() - began < seconds:
            await producer.one(0)
            stored += 1

    await asyncio.gather(*(go_on() for _ in range(at_once)))
    return stored / (now() - began)


async def defer_paced(producer: Producer, count: int, spacing: float) -> list[float]:
    """Defer the numbers from 1, some time apart; return when each was stored."""
    answered = []
    for number in range(1, count + 1):
        await producer.one(number)
        answered.append(now())
        await asyncio.sleep(spacing)
    return answered


def main(name: str, verb: str, url: str) -> None:
    """Do what the command line says."""
    side: Side = import_module(f"benchmarks.peers.{name}")
    programs: dict[str, Callable[[str], Coroutine[Any, Any, None]]] = {
        "prepare": side.prepare,
        "produce": partial(_produce, side),
        "work": partial(_work, side),
    }
    _run(programs[verb](url))


if __name__ == "__main__":
    # As the module that the systems' files import, not as a second one.
    import_module("benchmarks.peers.side").main(*sys.argv[1:])
