"""Scheduler: fetches due messages for one pool of slots and dispatches them to its runners.

Long-lived runner coroutines are fed from a queue in memory: starting a coroutine a message in a
task group costs 27 µs, handing it to one that waits a tenth of that.
"""

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from time import monotonic

import anyio
import attrs

from pgtasks import settlement as settle
from pgtasks.allowance import Allowance
from pgtasks.backoff import Backoff
from pgtasks.board import Board
from pgtasks.config import DatabaseConfig, QueueFetchConfig
from pgtasks.connection import FAILURES, WORKER_SETTINGS, Line
from pgtasks.events import Events
from pgtasks.keeper import Keeper
from pgtasks.lease import Lease, leased
from pgtasks.outage import Outage
from pgtasks.pool import Pool, Turns
from pgtasks.pulse import Pulse
from pgtasks.settler import Settler
from pgtasks.store import BEGINNING, Record, Store
from pgtasks.watermark import Watermark

log = Events("pgtasks.scheduler")

LARGEST_CLAIM = 1000
LOOK_AHEAD_SECONDS = 0.1
"""Messages are claimed ahead of their slots for so long as the slots will take to reach them."""
STALE_SECONDS = 1.0
"""What was claimed ahead and not reached for so long is given back."""
LONGEST_MISS_SECONDS = 0.5
"""The longest pause before looking again at messages that somebody else has locked."""
SHORTEST_POLL_SECONDS = 0.02
"""The first pause before an empty queue is looked at again, where nobody says that it is not."""
MESSAGES_A_TURN = 16
"""How many messages that never wait a runner runs before others get the loop."""
CALLS_IN_A_ROW = 10
CALL_PAUSE_SECONDS = 0.1
"""How often a queue is looked at because somebody says so, where nothing is found: anybody who can
connect can send a NOTIFY, as many as he likes."""


@attrs.define(eq=False)
class _Look:
    """When to look at one queue again, and how far back."""

    at: float = 0.0
    called: bool = False
    """Somebody said that there is something, since the last claim was sent."""
    misses: int = 0
    """How often in a row something was due and could not be claimed."""
    empties: int = 0
    """How often in a row nothing was due."""
    watermark: Watermark = attrs.field(factory=Watermark)
    calls: Allowance = attrs.field(factory=lambda: Allowance(CALLS_IN_A_ROW, CALL_PAUSE_SECONDS))


def _raise(fault: Exception) -> None:
    raise fault


def _loans(number: int) -> deque[asyncio.Event]:
    return deque(asyncio.Event() for _ in range(number))


@attrs.define(eq=False)
class Scheduler:
    """One pool of slots: what it fetches, what it holds ready, what it runs."""

    pool: Pool
    leases: Mapping[str, timedelta]
    """How long a claim leases the messages of each queue."""
    run_message: Callable[[Lease], Awaitable[None]]
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
    _lent: deque[asyncio.Event] = attrs.field(default=0, converter=_loans)
    """The slots that are empty for it; given as their number."""
    _pulse: Pulse = attrs.field(factory=Pulse)
    _on_fault: Callable[[Exception], None] = _raise
    """Called with what ended the fetching; it has to end what runs."""
    _turns: Turns = attrs.field(init=False)
    _line: Line = attrs.field(init=False)
    _looks: dict[str, _Look] = attrs.field(init=False)
    _ready: deque[Lease] = attrs.field(factory=deque, init=False)
    _running: set[Lease] = attrs.field(factory=set, init=False)
    _idle: list["asyncio.Future[None]"] = attrs.field(factory=list, init=False)
    _stopping: bool = attrs.field(default=False, init=False)
    _wake: asyncio.Event = attrs.field(factory=asyncio.Event, init=False)
    _resume: asyncio.Event = attrs.field(factory=asyncio.Event, init=False)
    _room: asyncio.Event = attrs.field(factory=asyncio.Event, init=False)
    _waits_for_room: bool = attrs.field(default=False, init=False)
    _outage: Outage = attrs.field(
        factory=lambda: Outage(log, "fetching failed, trying again"), init=False
    )
    _average_seconds: float = attrs.field(default=60.0, init=False)

    def __attrs_post_init__(self) -> None:
        self._turns = self.pool.turns()
        self._line = Line(self._database, "scheduler", WORKER_SETTINGS, self._pulse)
        self._looks = {queue: _Look() for queue in self.pool.queues}

    async def run(self) -> None:
        """Fetch and run messages until stopped, and until what was running has ended."""
        async with anyio.create_task_group() as runners:
            for loan in [*self._lent, *[None] * self._slots]:
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
                await self._line.close()

    def wake(self, queue: str | None = None) -> None:
        """Look at a queue, or at all of them, before the next poll is due."""
        if queue is None:  # a connection stands again
            for each in self._looks.values():
                each.at, each.called = 0.0, True
            self._wake.set()
            self._resume.set()
        elif (look := self._looks.get(queue)) is not None:
            look.called = True
            if (at := look.calls.next_at()) < look.at:
                look.at = at
                self._wake.set()

    def take_back(self) -> None:
        """Fill a slot again that was left to a message elsewhere."""
        if self._lent:
            self._lent.popleft().set()
        self._note_room()

    def stop(self) -> None:
        """Claim no more, start no more; what is running goes on."""
        self._stopping = True
        self._give_back()
        while self._lent:
            self._lent.popleft().set()
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
                await self._take_turns(await self._wait_for_room())
            except FAILURES as error:
                self._outage.report(error, queues=",".join(self.pool.queues))
                await self._pause(backoff)
            else:
                backoff.reset()
                self._outage.over()
                await self._rest()

    async def _take_turns(self, room: int) -> None:
        """Share the room among the queues that are to be looked at."""
        now = monotonic()
        waiting = deque(self._turns.order(q for q, look in self._looks.items() if look.at <= now))
        while waiting and room > 0 and not self._stopping:
            queue = waiting.popleft()
            taken = await self._fetch(queue, self._turns.share(queue, waiting, room))
            self._turns.took(queue, taken)
            room -= taken

    async def _fetch(self, queue: str, room: int) -> int:
        """Claim and dispatch due messages of a queue; return how many."""
        look, limit = self._looks[queue], min(room, LARGEST_CLAIM)
        since, claimed_at = look.watermark.since(), monotonic()
        was_called, look.called = look.called, False
        rows = await self._claim(queue, limit, since)
        if since == BEGINNING:
            look.watermark.looked_fully(monotonic() - claimed_at)
        if rows:
            look.calls.restore()
            look.misses = look.empties = 0
            look.watermark.passed(max(row["due_at"] for row in rows))
            self._dispatch([self._leased(queue, row, claimed_at) for row in rows])
        elif was_called:
            look.calls.spend()
        if len(rows) < limit and not self._stopping:
            if was_called and since != BEGINNING:
                # Who called may have committed late: what it sent stands behind the mark.
                look.at = look.watermark.hurry()
            else:
                next_look_at = await self._next_look_at(queue, look)
                look.at = look.calls.next_at() if look.called else next_look_at
        return len(rows)

    async def _claim(self, queue: str, limit: int, since: datetime) -> list[Record]:
        # A cancelled claim has usually happened: its messages would be nobody's until their
        # leases run out. So it is always waited for; it is bounded.
        rows: list[Record] = []
        with anyio.CancelScope(shield=True):
            rows = await self._line.call(
                lambda on: Store(on).claim(queue, limit, self.leases[queue], since)
            )
        return rows  # noqa: RET504 - a scope might swallow what passes it, for all mypy knows

    async def _next_look_at(self, queue: str, look: _Look) -> float:
        """A claim that came back short: when is something there again?"""
        seconds = await self._line.call(
            lambda on: Store(on).next_due_seconds(queue, look.watermark.mark)
        )
        longest = self._longest_pause(look)
        if seconds is None or seconds > 0:
            look.misses = 0
            look.empties += 1
            return monotonic() + (longest if seconds is None else min(seconds, longest))
        # Due and still not claimed: it came this instant, or somebody else has it locked.
        look.misses = min(look.misses + 1, 16)
        return monotonic() + min(0.001 * 2.0**look.misses, LONGEST_MISS_SECONDS, longest)

    def _longest_pause(self, look: _Look) -> float:
        """How long a queue may be left alone in which nothing is due, for all we know."""
        longest = self._fetching.empty_delay.total_seconds()
        if not self._hears():
            longest = min(longest, SHORTEST_POLL_SECONDS * 2.0 ** min(look.empties, 32))
        # Not all the workers of a fleet in one moment.
        return longest * random.uniform(0.9, 1.0)

    async def _rest(self) -> None:
        """Wait until a queue is to be looked at, or somebody calls."""
        pause = min(look.at for look in self._looks.values()) - monotonic()
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
        for look in self._looks.values():
            look.watermark.look_fully()
        self.wake()

    # Room

    @property
    def _slots(self) -> int:
        return self.pool.slots - len(self._lent)

    def _ahead(self) -> int:
        return min(LARGEST_CLAIM, int(self._slots * LOOK_AHEAD_SECONDS / self._average_seconds))

    def _free(self) -> int:
        return self._slots + self._ahead() - len(self._running) - len(self._ready)

    def _enough(self) -> int:
        # Claims of one message cost ten times what a batch costs each; with messages held ready
        # there is time to wait for a batch's worth of room.
        return max(1, self._ahead() // 2)

    def _note_room(self) -> None:
        if self._waits_for_room and self._free() >= self._enough():
            self._room.set()

    async def _wait_for_room(self) -> int:
        while not self._stopping and self._free() < self._enough():
            self._room.clear()
            self._waits_for_room = True
            self._pulse.promise(STALE_SECONDS)
            try:
                async with asyncio.timeout(STALE_SECONDS):
                    await self._room.wait()
            except TimeoutError:
                self._give_back_stale()
            finally:
                self._waits_for_room = False
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

    def _leased(self, queue: str, row: Record, claimed_at: float) -> Lease:
        lease = leased(queue, row, claimed_at, self.leases[queue])
        self._keeper.hold(lease)
        if self._board is not None:
            self._board.add(lease)
        return lease

    def _dispatch(self, leases: list[Lease]) -> None:
        leases.sort(key=lambda lease: lease.message.message_id)
        for lease in leases:
            # Where slots are counted it waits for one, as it will be run in it.
            if self._is_counted or not self._diverts(lease):
                self._ready.append(lease)
        if self._stopping:
            self._give_back()
        self._rouse(len(self._ready))

    def _rouse(self, count: int) -> None:
        for _ in range(min(count, len(self._idle))):
            waiter = self._idle.pop()
            if not waiter.done():
                waiter.set_result(None)

    def _diverts(self, lease: Lease) -> bool:
        return lease.message.delivery > 1 and self.divert(lease)

    async def _serve(self, loan: asyncio.Event | None) -> None:
        """Be one slot: run what is ready, one message after another."""
        if loan is not None:
            await loan.wait()
        turn = 0
        while True:
            if self._ready:
                await self._run(self._ready.popleft())
                turn += 1
                if turn % MESSAGES_A_TURN == 0:
                    await asyncio.sleep(0)
            elif self._stopping:
                return
            else:
                waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._idle.append(waiter)
                await waiter

    async def _run(self, lease: Lease) -> None:
        if lease.lost:
            self._settler.forget(lease)
            self._note_room()
            return
        if self._is_counted and self._diverts(lease):
            self._lent.append(loan := asyncio.Event())
            await loan.wait()
            return
        started_at = monotonic()
        self._running.add(lease)
        if self._board is not None:
            self._board.mark_running(lease)
        try:
            await self.run_message(lease)
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
