"""What a message costs the worker in Python, by step, in µs of CPU; no database is needed.

Each step is timed for a batch of no-op async messages, again and again, and the least is told: it
is the same on a busy machine. Beside these steps a message costs its share of the statements, and
what asyncpg and the event loop take:

    python -m benchmarks.message_cost
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from time import monotonic, process_time
from typing import Any, cast

import anyio

from benchmarks.machine import has_uvloop
from benchmarks.workload import nothing
from pgtasks import Config
from pgtasks.board import Board
from pgtasks.config import DatabaseConfig
from pgtasks.keeper import Keeper
from pgtasks.lease import Lease, leased
from pgtasks.message import new_id, write_envelope
from pgtasks.plan import Plan
from pgtasks.registry import default_registry
from pgtasks.runner import Runner
from pgtasks.settler import Settler
from pgtasks.slot import Slot

BATCH, ROUNDS, QUEUE = 500, 300, "default"
LEASE = timedelta(seconds=30)
Row = tuple[int, int, float, float, str, None]


class Steps:
    """The parts of a worker that a message passes through, without their connections."""

    def __init__(self, background: Any) -> None:
        database = DatabaseConfig(url="postgresql://nowhere/none")
        self.board = Board.create()
        self.board.name_queues([QUEUE])
        self.keeper = Keeper(database, lambda _: None)
        self.took = defaultdict[str, list[float]](list)
        self.runner = Runner(
            registry=default_registry,
            plan=Plan.of(default_registry, Config(database=database), [QUEUE]),
            settler=Settler(database, self.keeper, self.board, lambda _: None),
            ties=cast("Any", None),
            worker="benchmark",
            threads=anyio.CapacityLimiter(1),
            background=background,
        )

    async def work(self, rows: list[Row]) -> None:
        """Take a batch through all steps."""
        with self._timed("a row of a claim becomes a lease, held and on the board"):
            leases = [leased(QUEUE, row, monotonic(), LEASE) for row in rows]
            self.keeper.hold(*leases)
            self.board.add(*leases)
        with self._timed("it becomes a call, is run, and its end is put down"):
            await self._run(leases)
        with self._timed("it is forgotten when its end is written"):
            self.runner.settler.forget(*leases)

    async def _run(self, leases: list[Lease]) -> None:
        with closing(Slot()) as slot:
            for lease in leases:
                self.board.mark_running(lease)
                await self.runner.run(lease, slot)

    @contextmanager
    def _timed(self, step: str) -> Iterator[None]:
        began = process_time()
        yield
        self.took[step].append(process_time() - began)


async def main() -> None:
    """Measure and print."""
    rows = [_row(number) for number in range(BATCH)]
    async with anyio.create_task_group() as background:
        steps = Steps(background)
        for _ in range(ROUNDS):
            await steps.work(rows)
            # What was put down, no settler writes here.
            steps.runner.settler._pending.clear()  # noqa: SLF001
            await asyncio.sleep(0)
    for step, took in steps.took.items():
        print(f"{min(took) / BATCH * 1e6:6.2f} µs  {step}")


def _row(number: int) -> Row:
    body = write_envelope(new_id(), nothing.name, b'{"number":%d}' % number)
    return number, 1, 1.8e9, 1.8e9, body, None


if __name__ == "__main__":
    anyio.run(main, backend_options={"use_uvloop": has_uvloop()})
