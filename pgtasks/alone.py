"""Alone: runs given messages one by one, each the only one in its process.

Messages that were running when a process died may have brought it down, and their neighbours have
not: whatever the process dies of now is proven. At first they are run together once more, because
most processes die of something else, and then nobody has to wait for the others.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import closing
from datetime import timedelta
from time import monotonic

import anyio
import attrs

from pgtasks.board import Board, Entry
from pgtasks.config import DatabaseConfig
from pgtasks.connection import WORKER_SETTINGS, Line
from pgtasks.keeper import Keeper
from pgtasks.lease import Lease, leased
from pgtasks.settlement import released
from pgtasks.settler import Settler
from pgtasks.slot import Slot
from pgtasks.store import Extension, Store


@attrs.define(eq=False)
class Alone:
    """A scheduler whose messages are given to it, with leases that were claimed before."""

    leases: Mapping[str, timedelta]
    run_message: Callable[[Lease, Slot], Awaitable[None]]
    _database: DatabaseConfig
    _settler: Settler
    _keeper: Keeper
    _board: Board | None
    _entries: Sequence[Entry]
    _slots: int
    """How many of them at a time."""
    _on_end: Callable[[], None]
    """Called when the last one has ended."""
    _running: set[Lease] = attrs.field(factory=set, init=False)
    _line: Line = attrs.field(init=False)
    _stopping: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self._line = Line(self._database, "alone", WORKER_SETTINGS)

    async def run(self) -> None:
        """Take the leases over and run their messages, until stopped."""
        try:
            waiting = deque(await self._take_all())
            async with anyio.create_task_group() as slots:
                for _ in range(self._slots):
                    slots.start_soon(self._serve, waiting)
            for lease in waiting:
                self._settler.put(lease, released(lease.message))
        finally:
            await self._line.close()
            self._on_end()

    async def _take_all(self) -> list[Lease]:
        taken = [await self._take(entry) for entry in self._entries]
        return [lease for lease in taken if lease is not None]

    async def _take(self, entry: Entry) -> Lease | None:
        """Take over a lease; one that no longer stands is left to whoever has it."""
        asked_at, length = monotonic(), self.leases[entry.queue]
        extension = Extension(entry.held, entry.delivery, length)
        [answer] = await self._line.call(lambda on: Store(on).extend(entry.queue, [extension]))
        row = await self._line.call(
            lambda on: Store(on).take(entry.queue, entry.held, entry.delivery)
        )
        if row is None or not answer["held"]:
            return None
        lease = leased(entry.queue, row, asked_at, length)
        self._keeper.hold(lease)
        if self._board is not None:
            self._board.add(lease)
        return lease

    async def _serve(self, waiting: deque[Lease]) -> None:
        """Be one slot: run one message after another."""
        with closing(Slot()) as slot:
            while waiting and not self._stopping:
                await self._run(waiting.popleft(), slot)

    async def _run(self, lease: Lease, slot: Slot) -> None:
        if not lease.may_begin():
            self._settler.forget(lease)
            return
        self._running.add(lease)
        if self._board is not None:
            self._board.mark_running(lease)
        try:
            await self.run_message(lease, slot)
            # Until its end is written, it is not over: what the process dies of is still its.
            while lease in self._keeper.held():  # noqa: ASYNC110 - a poll in no hot path
                await anyio.sleep(0.01)
        finally:
            self._running.discard(lease)

    def wake(self, queue: str | None = None) -> None:
        """Do nothing: there is nothing to fetch."""

    def stop(self) -> None:
        """Run nothing more after what runs now."""
        self._stopping = True

    def cancel_running(self) -> None:
        """End what runs now; it is given back."""
        for lease in self._running:
            if lease.cancel is not None:
                lease.cancel("stopping")

    @property
    def running(self) -> int:
        """How many messages run now."""
        return len(self._running)
