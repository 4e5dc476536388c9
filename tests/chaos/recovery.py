"""`python -m chaos.recovery`: how soon as many messages end as are deferred, after a fault.

Messages are deferred one after another, whatever happens; a worker that has recovered ends as many
in a second as are deferred, and what was left waiting besides.
"""

import asyncio
import logging
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from time import monotonic

import attrs
from acceptance.own_server import OwnServer
from chaos.arena import Arena
from chaos.connection_faults import end_connections
from chaos.load import Load

from pgtasks import Config, connect
from pgtasks.config import DatabaseConfig

BEFORE_SECONDS = 3.0
AFTER_SECONDS = 5
RECOVERED = 0.95
AWAY_SECONDS = 60.0
HAMMER_SECONDS = 10.0
HAMMERED = ("scheduler", "settler", "keeper", "listener", "client")
RESTARTS = 4

Strike = Callable[[Arena], Awaitable[None]]


@attrs.frozen
class Recovery:
    """Messages that were deferred and that ended, in each of the seconds after a fault."""

    deferred: Sequence[int]
    ended: Sequence[int]

    @property
    def share(self) -> float:
        """How many ended in these seconds, of as many as were deferred."""
        return sum(self.ended) / max(1, sum(self.deferred))

    @property
    def recovered_in(self) -> int | None:
        """The first of these seconds in which as many ended as were deferred."""
        pairs = zip(self.deferred, self.ended, strict=True)
        back = (n for n, (new, ended) in enumerate(pairs, 1) if new and ended >= RECOVERED * new)
        return next(back, None)


async def measure(strike: Strike, arena: Arena) -> Recovery:
    """Strike, and count."""
    await asyncio.sleep(BEFORE_SECONDS)
    # The harshest of them: one after which a server may have forgotten its last words.
    with arena.history.lasting_fault("postgres-killed"):
        await strike(arena)
    over_at = monotonic()
    await asyncio.sleep(AFTER_SECONDS)
    deferred = [note.at for note in arena.history.notes() if note.what == "accepted"]
    ended = [event.at for event in arena.history.events("end")]
    return Recovery(_by_second(deferred, over_at), _by_second(ended, over_at))


def _by_second(moments: Sequence[float], since: float) -> list[int]:
    return [sum(since + n <= at < since + n + 1 for at in moments) for n in range(AFTER_SECONDS)]


def _hammer(kind: str) -> Strike:
    async def hammer(arena: Arena) -> None:
        until = monotonic() + HAMMER_SECONDS
        while monotonic() < until:
            await end_connections(arena, kind)
            await asyncio.sleep(0.1)

    return hammer


async def _restart(arena: Arena) -> None:
    await asyncio.to_thread(arena.server.stop, "immediate")
    await asyncio.to_thread(arena.server.start)


async def _restart_in_recovery(arena: Arena) -> None:
    await _restart(arena)
    await _restart(arena)


async def _go_away(arena: Arena) -> None:
    await asyncio.to_thread(arena.server.stop, "fast")
    await asyncio.sleep(AWAY_SECONDS)
    await asyncio.to_thread(arena.server.start)


STRIKES: Mapping[str, Strike] = {
    **{f"the {kind}'s connections ended every 0.1 s for 10 s": _hammer(kind) for kind in HAMMERED},
    **{f"Postgres killed, {n} of {RESTARTS}": _restart for n in range(1, RESTARTS)},
    f"Postgres killed, {RESTARTS} of {RESTARTS}, and again while it recovers": _restart_in_recovery,
    f"Postgres away for {AWAY_SECONDS:g} s": _go_away,
}


async def _measure_all(server: OwnServer) -> None:
    print("| what was done | deferred in each second after | ended | in all | 95 % in second |")
    print("|---|---|---|--:|--:|", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="pgtasks-throughput-"))
    async with Arena.open(server, folder, Random(1)) as arena:
        async with connect(config=Config(database=DatabaseConfig(url=server.url))):
            load = Load(arena.history, Random(2))
            deferring = asyncio.create_task(load.run())
            for name, strike in STRIKES.items():
                found = await measure(strike, arena)
                seconds = [" ".join(map(str, each)) for each in (found.deferred, found.ended)]
                shares = f"{found.share:.0%} | {found.recovered_in or 'later'}"
                print(f"| {name} | {' | '.join(seconds)} | {shares} |", flush=True)
            load.stop()
            await deferring
        print(f"\n{await arena.checker().check(codes=(0, 3), within_seconds=90)}")


def main() -> None:
    """Run, and print."""
    logging.getLogger("asyncpg").setLevel(logging.CRITICAL)  # it is meant to fail
    with OwnServer() as server:
        asyncio.run(_measure_all(server))


if __name__ == "__main__":
    main()
