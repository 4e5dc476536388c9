"""Fetcher: knows when to look at which queue of a pool, and claims what is due there."""

import asyncio
import math
import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from time import monotonic

import anyio
import attrs

from pgtasks.allowance import Allowance
from pgtasks.config import DatabaseConfig, QueueFetchConfig
from pgtasks.connection import WORKER_SETTINGS, Line
from pgtasks.pool import Pool, Turns
from pgtasks.pulse import Pulse
from pgtasks.store import BEGINNING, NEVER, Record, Store
from pgtasks.watermark import Watermark

LARGEST_CLAIM = 1000
PROBED_AT_ONCE = 64
"""Queues that one statement asks about. It takes 4 to 10 µs for each where a claim takes 165; but
it locks the table of each, and a server has room for 6,400 locks."""
FEW = 8
"""Queues that cost no more to ask about than whether anything was written since they were."""
LONGEST_MISS_SECONDS = 0.5
"""The longest pause before looking again at messages that somebody else has locked."""
SHORTEST_POLL_SECONDS = 0.02
"""The first pause before an empty queue is looked at again, where nobody says that it is not."""
CALLS_IN_A_ROW = 10
CALL_PAUSE_SECONDS = 0.1
"""How often a queue is looked at because somebody says so, where nothing is found: anybody who can
connect can send a NOTIFY, as many as he likes."""

_DUE_AT = itemgetter("due_at")


@attrs.define(eq=False)
class _Look:
    """When to look at one queue again, and how far back."""

    at: float = 0.0
    is_expected: bool = False
    """Something will be due then, for all we know: it is claimed without asking first."""
    called: bool = False
    """Somebody said that there is something, since the last look was sent."""
    bare_at: str | None = None
    """The server's snapshot before a look that found nothing at all in the whole queue."""
    misses: int = 0
    """How often in a row something was due and could not be claimed."""
    empties: int = 0
    """How often in a row nothing was due."""
    watermark: Watermark = attrs.field(factory=Watermark)
    calls: Allowance = attrs.field(factory=lambda: Allowance(CALLS_IN_A_ROW, CALL_PAUSE_SECONDS))

    def call_off(self) -> bool:
        """Tell whether somebody called, and wait for the next one who does."""
        was_called, self.called = self.called, False
        return was_called


@attrs.define(eq=False)
class Fetcher:
    """What is known of the queues of one pool, and the connection on which they are looked at.

    A queue that something is expected in is claimed from. Those in which nothing was when they
    were last looked at are asked about together, many in a statement: a worker may serve hundreds
    of queues that are mostly empty. And not even that while no transaction ended on the server:
    one small statement tells, where 200 tables that its caches have forgotten cost 4 ms.
    """

    pool: Pool
    leases: Mapping[str, timedelta]
    """How long a claim leases the messages of each queue."""
    _database: DatabaseConfig
    _fetching: QueueFetchConfig
    _on_claimed: Callable[[str, list[Record], float], None]
    """Called with what was claimed from a queue, and the moment before."""
    _hears: Callable[[], bool] = lambda: True
    """Whether we are told when messages are sent; else they are looked for more often."""
    _pulse: Pulse = attrs.field(factory=Pulse)
    _turns: Turns = attrs.field(init=False)
    _line: Line = attrs.field(init=False)
    _looks: dict[str, _Look] = attrs.field(init=False)
    _parts: list[tuple[str, ...]] = attrs.field(init=False)
    """The queues, as they are asked about together."""
    _stopping: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self._turns = self.pool.turns()
        self._line = Line(self._database, "scheduler", WORKER_SETTINGS, self._pulse)
        self._looks = {queue: _Look() for queue in self.pool.queues}
        starts = range(0, len(self.pool.queues), PROBED_AT_ONCE)
        self._parts = [self.pool.queues[start : start + PROBED_AT_ONCE] for start in starts]

    def pause(self) -> float:
        """Return in how many seconds a queue is to be looked at; none or less: now."""
        return min(look.at for look in self._looks.values()) - monotonic()

    def wake(self, queue: str | None = None) -> bool:
        """Look at a queue, or at all of them, before the next poll; tell whether that is now."""
        if queue is None:  # a connection stands again
            for each in self._looks.values():
                each.at, each.called, each.is_expected = 0.0, True, False
            return True
        if (look := self._looks.get(queue)) is None:
            return False
        look.called = True
        if (at := look.calls.next_at()) >= look.at:
            return False
        look.at, look.is_expected = at, True
        return True

    def look_fully(self) -> None:
        """Let the next look at each queue begin where its index does, as soon as it may."""
        for look in self._looks.values():
            look.watermark.hurry()

    def stop(self) -> None:
        """Claim no more."""
        self._stopping = True

    async def close(self) -> None:
        """End the connection."""
        await self._line.close()

    async def take_turns(self, room: int) -> None:
        """Share the room among the queues that are to be looked at."""
        await self._probe()
        waiting = deque(self._turns.order(self._expected()))
        while waiting and room > 0 and not self._stopping:
            queue = waiting.popleft()
            taken = await self._fetch(queue, self._turns.share(queue, waiting, room))
            self._turns.took(queue, taken)
            room -= taken

    def _expected(self) -> list[str]:
        now = monotonic()
        return [q for q, look in self._looks.items() if look.is_expected and look.at <= now]

    # One queue

    async def _fetch(self, queue: str, room: int) -> int:
        """Claim due messages of a queue; return how many."""
        look, limit = self._looks[queue], min(room, LARGEST_CLAIM)
        since, claimed_at = look.watermark.since(), monotonic()
        was_called = look.call_off()
        with _timed([look.watermark] if since == BEGINNING else []):
            rows = await self._claim(queue, limit, since)
        look.is_expected = True
        if rows:
            look.calls.restore()
            look.misses = look.empties = 0
            look.watermark.passed(datetime.fromtimestamp(max(map(_DUE_AT, rows)), UTC))
            self._on_claimed(queue, rows, claimed_at)
            # What was claimed begins first: to ask what is due next takes a tenth of a millisecond.
            await asyncio.sleep(0)
        elif was_called:
            look.calls.spend()
        if len(rows) < limit and not self._stopping:
            await self._plan(queue, look, late=was_called and since != BEGINNING)
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

    async def _plan(self, queue: str, look: _Look, *, late: bool) -> None:
        """A claim came back short: decide when to look again.

        Whoever called may have committed late: what it sent stands behind the mark then.
        """
        full_look_at = look.watermark.hurry() if late else math.inf
        if full_look_at <= monotonic():
            look.at = full_look_at
            return
        seconds = await self._line.call(
            lambda on: Store(on).next_due_seconds(queue, look.watermark.mark)
        )
        if seconds is None or seconds > 0:
            self._rest(look, seconds, monotonic(), _spread())
        else:  # it came this instant, or somebody else has it locked
            look.misses = min(look.misses + 1, 16)
            pause = min(0.001 * 2.0**look.misses, LONGEST_MISS_SECONDS, self._longest_pause(look))
            look.at = monotonic() + pause
        if full_look_at < look.at:
            look.at, look.is_expected = full_look_at, True
        self._heed(look)

    # Many queues

    async def _probe(self) -> None:
        """Ask about the queues that are to be looked at and in which nothing is expected."""
        now = monotonic()
        due = {queue for queue, look in self._looks.items() if look.at <= now}
        asked = {queue for queue in due if not self._looks[queue].is_expected}
        is_busy, spread = len(asked) < len(due), _spread()
        snapshot = None
        if len(asked) > FEW and not is_busy:
            snapshot = await self._line.call(lambda on: Store(on).snapshot())
            asked -= self._rest_bare(asked, snapshot, now, spread)
        for part in self._parts:
            if asked.isdisjoint(part) or self._stopping:
                continue
            # What is due somewhere does not wait until thousands of queues were asked about.
            if await self._ask(part, snapshot, now, spread) or is_busy:
                return

    def _rest_bare(self, asked: set[str], snapshot: str, since: float, spread: float) -> set[str]:
        """Leave alone the queues in which there was nothing when the server was as it is now."""
        looks = [(queue, self._looks[queue]) for queue in asked]
        bare = {q: look for q, look in looks if look.bare_at == snapshot and not look.called}
        for look in bare.values():
            self._rest(look, None, since, spread)
        return set(bare)

    async def _ask(
        self, part: Sequence[str], snapshot: str | None, since: float, spread: float
    ) -> bool:
        """Ask about all queues of a part in which nothing is expected; is something due in any?

        All of them and not those alone of which it is time, and with one moment (`since`) for all
        to count their pauses from, so that they stay together.
        """
        looks = {queue: self._looks[queue] for queue in part}
        asked = {queue: look for queue, look in looks.items() if not look.is_expected}
        for look in asked.values():
            if look.call_off():
                look.watermark.hurry()
        marks = [asked[q].watermark.since() if q in asked else NEVER for q in part]
        full = zip(looks.values(), marks, strict=True)
        with _timed([look.watermark for look, mark in full if mark == BEGINNING]):
            dues = await self._line.call(lambda on: Store(on).next_dues(part, marks))
        for queue, mark in zip(part, marks, strict=True):
            if mark != BEGINNING:
                continue
            # Where a message waits, the server's clock can make it due with no transaction.
            looks[queue].bare_at = None if queue in dues else snapshot
            if dues.get(queue, math.inf) <= 0:
                looks[queue].watermark.look_again()
        for queue, look in asked.items():
            self._rest(look, dues.get(queue), since, spread)
            self._heed(look)
        return any(seconds <= 0 for seconds in dues.values())

    # When to look again

    def _rest(self, look: _Look, seconds: float | None, since: float, spread: float) -> None:
        """Leave a queue alone until its next message is due in so many seconds, or for long."""
        poll_at = since + self._longest_pause(look) * spread
        due_at = math.inf if seconds is None else monotonic() + seconds
        look.at, look.is_expected = min(due_at, poll_at), due_at <= poll_at
        look.misses = 0
        look.empties += seconds is None or seconds > 0

    def _longest_pause(self, look: _Look) -> float:
        """How long a queue may be left alone in which nothing is due, for all we know."""
        longest = self._fetching.empty_delay.total_seconds()
        if not self._hears():
            longest = min(longest, SHORTEST_POLL_SECONDS * 2.0 ** min(look.empties, 32))
        return longest

    def _heed(self, look: _Look) -> None:
        """Look again at once when somebody called while the answer was on its way."""
        if look.called:
            look.at, look.is_expected = look.calls.next_at(), True


@contextmanager
def _timed(watermarks: Iterable[Watermark]) -> Iterator[None]:
    """Tell those of which this is a full look how long it took, or that it takes too long."""
    began_at = monotonic()
    try:
        yield
    except TimeoutError:
        _note_full_look(watermarks, began_at)
        raise
    _note_full_look(watermarks, began_at)


def _note_full_look(watermarks: Iterable[Watermark], began_at: float) -> None:
    for watermark in watermarks:
        watermark.looked_fully(monotonic() - began_at)


def _spread() -> float:
    # Not all the workers of a fleet in one moment.
    return random.uniform(0.9, 1.0)
