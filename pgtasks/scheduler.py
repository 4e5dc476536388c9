"""Scheduler: has as many messages fetched as a pool has room for, and its runners run them.

Long-lived runner coroutines are fed from a queue in memory: starting a coroutine a message in a
task group costs 27 µs, handing it to one that waits a tenth of that.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import closing
from datetime import timedelta
from operator import itemgetter
from time import monotonic

import anyio
import attrs

from pgtasks import settlement as settle
from pgtasks.backoff import Backoff
from pgtasks.board import Board
from pgtasks.config import DatabaseConfig, QueueFetchConfig
from pgtasks.connection import FAILURES
from pgtasks.events import Events
from pgtasks.fetcher import LARGEST_CLAIM, Fetcher
from pgtasks.keeper import Keeper
from pgtasks.lease import Lease, leased
from pgtasks.outage import Outage
from pgtasks.pool import Pool
from pgtasks.pulse import Pulse
from pgtasks.settler import Settler
from pgtasks.slot import Slot
from pgtasks.store import Record

log = Events("pgtasks.scheduler")

LOOK_AHEAD_SECONDS = 0.1
"""Messages are claimed ahead of their slots for so long as the slots will take to reach them."""
STALE_SECONDS = 1.0
"""What was claimed ahead and not reached for so long is given back."""
MESSAGES_A_TURN = 8
"""How many messages that never wait a runner runs before others get the loop."""

_MESSAGE_ID = itemgetter("msg_id")


def _raise(fault: Exception) -> None:
    raise fault


@attrs.define(eq=False)
class Scheduler:
    """One pool of slots: what it fetches, what it holds ready, what it runs."""

    pool: Pool
    leases: Mapping[str, timedelta]
    """How long a claim leases the messages of each queue."""
    run_message: Callable[[Lease, Slot], Awaitable[None]]
    divert: Callable[[Lease], bool]
    """Whether a message that may have crashed a process was taken out of our hands."""
    _database: DatabaseConfig
    _fetching: QueueFetchConfig
    _settler: Settler
    _keeper: Keeper
    _board: Board | None = None
    _hears: Callable[[], bool] = lambda: True
    """Whether we are told when messages are sent; else they are looked for more often."""
    _is_counted: bool = False
    """Whether what is diverted runs elsewhere in one of these slots, until `take_back`."""
    _lent: int = 0
    """So many of its slots are left to messages elsewhere when it begins."""
    _pulse: Pulse = attrs.field(factory=Pulse)
    _on_fault: Callable[[Exception], None] = _raise
    """Called with what ended the fetching; it has to end what runs."""
    _loans: deque[asyncio.Event] = attrs.field(init=False)
    """The slots that are empty for what was diverted."""
    _fetcher: Fetcher = attrs.field(init=False)
    _ready: deque[Lease] = attrs.field(factory=deque, init=False)
    _running: set[Lease] = attrs.field(factory=set, init=False)
    _idle: list["asyncio.Future[None]"] = attrs.field(factory=list, init=False)
    _stopping: bool = attrs.field(default=False, init=False)
    _wake: asyncio.Event = attrs.field(factory=asyncio.Event, init=False)
    _resume: asyncio.Event = attrs.field(factory=asyncio.Event, init=False)
    _room: asyncio.Event = attrs.field(factory=asyncio.Event, init=False)
    _room_at: int = attrs.field(default=-1, init=False)
    """How few messages have to be held for a claim that waits for room."""
    _outage: Outage = attrs.field(
        factory=lambda: Outage(log, "fetching failed, trying again"), init=False
    )
    _average_seconds: float = attrs.field(default=60.0, init=False)

    def __attrs_post_init__(self) -> None:
        self._loans = deque(asyncio.Event() for _ in range(self._lent))
        self._fetcher = Fetcher(
            self.pool,
            self.leases,
            self._database,
            self._fetching,
            self._dispatch,
            self._hears,
            self._pulse,
        )

    async def run(self) -> None:
        """Fetch and run messages until stopped, and until what was running has ended."""
        async with anyio.create_task_group() as runners:
            for loan in [*self._loans, *[None] * self._slots]:
                runners.start_soon(self._serve, loan)
            try:
                await self._fetch_all()
            except Exception as fault:  # noqa: BLE001 - told of, not swallowed
                self._on_fault(fault)
                self.stop()
            finally:
                self._pulse.end()
                self._give_back()
                self._rouse(len(self._idle))
                await self._fetcher.close()

    def wake(self, queue: str | None = None) -> None:
        """Look at a queue, or at all of them, before the next poll is due."""
        if self._fetcher.wake(queue):
            self._wake.set()
        if queue is None:
            self._resume.set()

    def take_back(self) -> None:
        """Fill a slot again that was left to a message elsewhere."""
        if self._loans:
            self._loans.popleft().set()
        self._room.set()

    def stop(self) -> None:
        """Claim no more, start no more; what is running goes on."""
        self._stopping = True
        self._fetcher.stop()
        self._give_back()
        while self._loans:
            self._loans.popleft().set()
        self._wake.set()
        self._resume.set()
        self._room.set()

    def cancel_running(self) -> None:
        """End what is running now; it is given back."""
        for lease in list(self._running):
            if lease.cancel is not None:
                lease.cancel("stopping")

    @property
    def running(self) -> int:
        """How many messages run now."""
        return len(self._running)

    # Fetching

    async def _fetch_all(self) -> None:
        backoff = Backoff(longest_seconds=self._fetching.error_delay.total_seconds())
        while not self._stopping:
            try:
                self._give_back_stale()
                await self._fetcher.take_turns(await self._wait_for_room())
            except FAILURES as error:
                self._outage.report(error, queues=",".join(self.pool.queues))
                await self._pause(backoff)
            else:
                backoff.reset()
                self._outage.over()
                await self._rest()

    async def _rest(self) -> None:
        """Wait until a queue is to be looked at, or somebody calls."""
        pause = self._fetcher.pause()
        if self._ready:
            pause = min(pause, STALE_SECONDS)
        if pause <= 0:
            self._wake.clear()
            return
        self._pulse.promise(pause)
        try:
            async with asyncio.timeout(pause):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()

    async def _pause(self, backoff: Backoff) -> None:
        """Wait after a failure, whatever is sent meanwhile; then look at everything anew."""
        pause = backoff.next_seconds()
        self._resume.clear()
        if self._stopping:
            return
        self._pulse.promise(pause)
        try:
            async with asyncio.timeout(pause):
                await self._resume.wait()
        except TimeoutError:
            pass
        self._fetcher.look_fully()
        self.wake()

    # Room

    @property
    def _slots(self) -> int:
        return self.pool.slots - len(self._loans)

    def _ahead(self) -> int:
        return min(LARGEST_CLAIM, int(self._slots * LOOK_AHEAD_SECONDS / self._average_seconds))

    def _free(self) -> int:
        return self._slots + self._ahead() - len(self._running) - len(self._ready)

    def _enough(self) -> int:
        # Claims of one message cost ten times what a batch costs each; with messages held ready
        # there is time to wait for a batch's worth of room. Not for half of it: until the claim
        # is sent the slots run hundreds more, and while it is on its way they must not run dry.
        return max(1, self._ahead() // 4)

    def _note_room(self) -> None:
        if len(self._running) + len(self._ready) <= self._room_at:
            self._room.set()

    async def _wait_for_room(self) -> int:
        while not self._stopping and self._free() < self._enough():
            self._room.clear()
            self._room_at = self._slots + self._ahead() - self._enough()
            self._pulse.promise(STALE_SECONDS)
            try:
                async with asyncio.timeout(STALE_SECONDS):
                    await self._room.wait()
            except TimeoutError:
                self._give_back_stale()
            finally:
                self._room_at = -1
        return max(0, self._free())

    def _give_back_stale(self) -> None:
        waited = monotonic() - STALE_SECONDS
        if self._ready and self._ready[0].message.claimed_at < waited:
            # The slots are slower than they were: claim nothing ahead until they are not.
            self._average_seconds = max(self._average_seconds, float(self.pool.slots))
            self._give_back()

    def _give_back(self) -> None:
        while self._ready:
            lease = self._ready.popleft()
            self._settler.put(lease, settle.released(lease.message))

    # Dispatching and running

    def _held(self, queue: str, rows: list[Record], claimed_at: float) -> list[Lease]:
        length = self.leases[queue]
        leases = [leased(queue, row, claimed_at, length) for row in sorted(rows, key=_MESSAGE_ID)]
        self._keeper.hold(*leases)
        if self._board is not None:
            self._board.add(*leases)
        return leases

    def _dispatch(self, queue: str, rows: list[Record], claimed_at: float) -> None:
        leases = self._held(queue, rows, claimed_at)
        # An answer may come so late that other workers may have the messages by now.
        is_late = bool(leases) and leases[0].is_over()
        for lease in leases:
            # Where slots are counted it waits for one, as it will be run in it.
            if self._is_counted or is_late or not self._diverts(lease):
                self._ready.append(lease)
        if self._stopping or is_late:
            self._give_back()
        self._rouse(len(self._ready))

    def _rouse(self, count: int) -> None:
        while count and self._idle:
            waiter = self._idle.pop()
            if not waiter.done():
                waiter.set_result(None)
                count -= 1

    def _diverts(self, lease: Lease) -> bool:
        return lease.message.delivery > 1 and self.divert(lease)

    async def _serve(self, loan: asyncio.Event | None) -> None:
        """Be one slot: run what is ready, one message after another."""
        if loan is not None:
            await loan.wait()
        turn = 0
        with closing(Slot()) as slot:
            while lease := await self._next():
                await self._run(lease, slot)
                turn += 1
                if turn % MESSAGES_A_TURN == 0:
                    await asyncio.sleep(0)

    async def _next(self) -> Lease | None:
        """Return the next lease to be run; None when there will be none."""
        while not self._ready:
            if self._stopping:
                return None
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._idle.append(waiter)
            await waiter
        return self._ready.popleft()

    async def _run(self, lease: Lease, slot: Slot) -> None:
        if not lease.may_begin():
            self._settler.forget(lease)
            self._note_room()
            return
        if self._is_counted and self._diverts(lease):
            self._loans.append(loan := asyncio.Event())
            await loan.wait()
            return
        started_at = monotonic()
        self._running.add(lease)
        if self._board is not None:
            self._board.mark_running(lease)
        try:
            await self.run_message(lease, slot)
        except Exception as broken:  # noqa: BLE001 - a fault of ours costs this run, not the worker
            log.error(
                "running a message failed; it is tried again when its lease runs out",
                raised=broken,
                queue=lease.message.queue,
                message=lease.message.message_id,
            )
            self._settler.forget(lease)
        finally:
            self._running.discard(lease)
            self._average_seconds += (monotonic() - started_at - self._average_seconds) * 0.05
            self._note_room()
