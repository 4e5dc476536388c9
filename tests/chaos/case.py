"""Case: some faults, done again and again to working workers, and then the checker."""

import asyncio
from collections.abc import Sequence
from random import Random
from time import monotonic

import attrs
from acceptance.judgement import Figures, Verdict
from chaos.arena import LEASE_SECONDS, Arena
from chaos.fault import Fault
from chaos.load import Load

from pgtasks import Config, connect, exit_codes
from pgtasks.config import DatabaseConfig

STRIKE_SECONDS = 90.0
"""The longest that a strike may take: then it hangs."""
DRAIN_SECONDS = 90.0


@attrs.frozen
class Row:
    """What became of one case."""

    name: str
    strikes: int
    verdict: Verdict
    measured: float | None = None
    """The seconds that the fault is measured by."""
    target_seconds: float | None = None


async def run_case(name: str, faults: Sequence[Fault], arena: Arena, seconds: float) -> Row:
    """Let workers work while faults are drawn by lot; then have everything checked."""
    config = Config(database=DatabaseConfig(url=arena.server.url))
    async with connect(config=config):
        load = Load(arena.history, Random(arena.random.random()))
        deferring = asyncio.create_task(load.run())
        try:
            strikes = await _torment(faults, arena, seconds)
        finally:
            load.stop()
            await deferring
    verdict = await arena.checker().examine(
        codes=(exit_codes.OK, exit_codes.UNSETTLED),
        may_overlap=any(fault.may_overlap for fault in faults),
        lease_seconds=LEASE_SECONDS,
        within_seconds=DRAIN_SECONDS,
    )
    if len(faults) > 1:
        return Row(name, strikes, verdict)
    [fault] = faults
    return Row(name, strikes, verdict, _measured(fault, verdict.figures), fault.target_seconds)


async def _torment(faults: Sequence[Fault], arena: Arena, seconds: float) -> int:
    strikes, until = 0, monotonic() + seconds
    await asyncio.sleep(1.0)
    while not strikes or monotonic() < until:
        async with asyncio.timeout(STRIKE_SECONDS):
            await arena.random.choice(faults).strike(arena)
        strikes += 1
        await asyncio.sleep(arena.random.uniform(0.5, 2.0))
    return strikes


def _measured(fault: Fault, figures: Figures) -> float | None:
    match fault.measured:
        case "again":
            return max(figures.recovered_in.values(), default=None)
        case "resumed":
            return max(figures.resumed_in.values(), default=None)
        case "exit":
            return figures.exited_in
    return None
