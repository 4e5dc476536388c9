"""`make chaos`: real workers, harmed for minutes in ways drawn by lot, and then checked.

Each fault has its turn alone, so that its figures are its own; in the time that is left they are
drawn from all. Whatever is drawn comes from one seed, which is printed first.
"""

import argparse
import asyncio
import logging
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from random import Random
from secrets import randbelow
from time import monotonic

from acceptance.own_server import OwnServer
from chaos.arena import Arena
from chaos.case import Row, run_case
from chaos.catalogue import FAULTS
from chaos.fault import Fault
from chaos.report import put_between_markers, to_markdown
from chaos.throughput import throughput_rows

from benchmarks import machine

SHORTEST_SECONDS = 4.0
OVERHEAD_SECONDS = 12.0
"""What starting, draining and checking take of a case's time."""
MIXED_SECONDS = 25.0


def main(argv: Sequence[str]) -> int:
    """Run, print, write; 1 when a promise was broken."""
    asked = _parser().parse_args(argv)
    logging.getLogger("asyncpg").setLevel(logging.CRITICAL)  # it is meant to fail
    seed = randbelow(10**6) if asked.seed is None else asked.seed
    print(f"seed {seed}", flush=True)
    load = machine.load()
    with OwnServer() as server:
        rows = asyncio.run(_run_all(server, asked.faults or list(FAULTS), seed, asked.seconds))
        if asked.messages:
            rows += asyncio.run(throughput_rows(server, asked.messages))
        facts = asyncio.run(machine.facts(server.url)) if asked.write else {}
        facts["load"] = f"{load} before, {machine.load()} after (of the last minute)"
    text = to_markdown({**facts, "seed": str(seed)}, rows)
    print(text)
    broken = [(row.name, text) for row in rows for text in row.verdict.violations]
    for name, sentence in broken:
        print(f"BROKEN  {name}: {sentence}")
    if asked.write is not None:
        put_between_markers(asked.write, text)
    return 1 if broken else 0


async def _run_all(server: OwnServer, names: Sequence[str], seed: int, seconds: float) -> list[Row]:
    began_at, rows = monotonic(), []
    each = max(SHORTEST_SECONDS, 0.75 * seconds / len(names) - OVERHEAD_SECONDS)
    for name in names:
        fault = FAULTS[name]
        rows.append(await _run_one(server, fault.name, [fault], f"{seed} {name}", each))
    number = 0
    every = [FAULTS[name] for name in names]
    while len(every) > 1 and monotonic() - began_at + OVERHEAD_SECONDS < seconds:
        number += 1
        label = f"all of these, drawn by lot ({number})"
        rows.append(await _run_one(server, label, every, f"{seed} {number}", MIXED_SECONDS))
    return rows


async def _run_one(
    server: OwnServer, label: str, faults: Sequence[Fault], seed: str, seconds: float
) -> Row:
    folder = Path(tempfile.mkdtemp(prefix="pgtasks-chaos-"))
    async with Arena.open(server, folder, Random(seed)) as arena:
        row = await run_case(label, faults, arena, seconds)
    print(f"{label}: {row.strikes} times; {row.verdict.figures}", flush=True)
    if row.verdict.violations:
        print("\n".join(row.verdict.violations[:10]), f"\n  see {folder}", flush=True)
    else:
        shutil.rmtree(folder)
    return row


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    add = parser.add_argument
    add("faults", nargs="*", choices=(*FAULTS, []), metavar="FAULT", help=", ".join(FAULTS))
    add("--seconds", type=float, default=600.0, help="for how long (600)")
    add("--seed", type=int, help="to repeat a run")
    add("--messages", type=int, default=0, metavar="N", help="measure the throughput left, too")
    add("--write", type=Path, metavar="FILE", help="put the table between the markers of a file")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
