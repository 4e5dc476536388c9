"""Faults of connections: ended by the server, cut, delayed or swallowed by the network."""

import asyncio
from contextlib import suppress
from time import monotonic

from acceptance.trap import STATEMENTS, Trap
from chaos.arena import LEASE_SECONDS, WORKERS, Arena
from chaos.fault import Fault

KINDS = ("scheduler", "settler", "keeper", "listener", "client", "supervisor", "ticker")
BACK_SECONDS = 5.0
"""How long it may take until all goes on after a network or a server is there again."""
_END = """
    SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = $1
"""


async def end_connections(arena: Arena, kind: str) -> None:
    """Have the server end all connections of one kind."""
    await arena.execute(_END, f"pgtasks {kind}")


class EndedConnections(Fault):
    """All of one kind at once; the client's are also those with which we defer."""

    name = "all connections of one kind are ended by the server"
    measured = "resumed"
    target_seconds = BACK_SECONDS

    async def strike(self, arena: Arena) -> None:
        kind = arena.random.choice(KINDS)
        with arena.history.lasting_fault("ended-connections"):
            await arena.execute(_END, f"pgtasks {kind}")


class HammeredConnections(Fault):
    """One kind after another, ten times a second, for as long as it takes to hit each often."""

    name = "connections are ended ten times a second for up to 10 s"
    measured = "resumed"
    target_seconds = BACK_SECONDS

    async def strike(self, arena: Arena) -> None:
        until = monotonic() + arena.random.uniform(3.0, 10.0)
        with arena.history.lasting_fault("hammered-connections"):
            while monotonic() < until:
                await end_connections(arena, arena.random.choice(KINDS))
                await asyncio.sleep(0.1)


class SilentNetwork(Fault):
    """Nothing passes and nobody is told, for a moment or for longer than a lease."""

    name = "the network swallows everything for up to 2 leases"
    measured = "resumed"
    target_seconds = BACK_SECONDS

    async def strike(self, arena: Arena) -> None:
        with arena.history.lasting_fault("silent-network"):
            arena.proxy.faults.stalled.set()
            await asyncio.sleep(arena.random.uniform(0.5, 2 * LEASE_SECONDS))
            arena.proxy.faults.stalled.clear()


class BadNetwork(Fault):
    """0.2 s there and back, and one piece of twenty ends its connection."""

    name = "a slow network that resets connections"
    measured = "resumed"
    target_seconds = BACK_SECONDS

    async def strike(self, arena: Arena) -> None:
        faults = arena.proxy.faults
        with arena.history.lasting_fault("bad-network"):
            faults.delay_seconds, faults.reset_share = 0.1, 0.05
            await asyncio.sleep(arena.random.uniform(2.0, 5.0))
            faults.delay_seconds, faults.reset_share = 0.0, 0.0


class KilledMidStatement(Fault):
    """Both workers are killed while a statement of one of them is on its way, or its answer is."""

    name = "all workers are killed in the middle of a statement, and started again"
    measured = "again"

    async def strike(self, arena: Arena) -> None:
        statement = arena.random.choice(tuple(STATEMENTS.values()))
        trap = Trap(statement, is_done=arena.random.random() < 0.5)
        trap.set(arena.proxy.links)
        arena.proxy.faults.holds = trap.holds
        with suppress(TimeoutError):  # such a statement may not come
            async with asyncio.timeout(3):
                await trap.caught.wait()
        for worker in arena.living():
            await asyncio.to_thread(worker.end)
        arena.proxy.faults.holds = lambda _link, _is_answer: False
        await asyncio.gather(*(arena.start_worker() for _ in range(WORKERS)))


class CutNetwork(Fault):
    """Each connection ends after some bytes of the server's answers, in the middle of a row."""

    name = "connections are cut after any number of bytes"
    measured = "resumed"
    target_seconds = BACK_SECONDS

    async def strike(self, arena: Arena) -> None:
        left: dict[object, int] = {}

        def passes(link: object, piece: bytes) -> bool:
            left.setdefault(link, arena.random.randrange(100, 20_000))
            left[link] -= len(piece)
            return left[link] > 0

        with arena.history.lasting_fault("cut-network"):
            arena.proxy.faults.on_answer = passes
            await asyncio.sleep(arena.random.uniform(1.0, 3.0))
            arena.proxy.faults.on_answer = lambda _link, _piece: True
