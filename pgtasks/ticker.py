"""Ticker: sends the messages of schedules, each tick once however many workers there are."""

import asyncio
import random
from collections.abc import Sequence
from datetime import datetime
from time import monotonic

import asyncpg
import attrs

from pgtasks.allowance import Allowance
from pgtasks.backoff import Backoff
from pgtasks.config import DatabaseConfig, PeriodicConfig, QueueFetchConfig
from pgtasks.connection import FAILURES, Line
from pgtasks.declarer import Declarer
from pgtasks.errors import PgtasksError
from pgtasks.events import Events
from pgtasks.message import new_id
from pgtasks.outage import Outage
from pgtasks.plan import Plan
from pgtasks.pulse import Pulse
from pgtasks.registry import Registry
from pgtasks.schedules import Schedules
from pgtasks.store import Record, Store
from pgtasks.stored_schedule import StoredSchedule

log = Events("pgtasks.ticker")

LONGEST_PAUSE_SECONDS = 5.0
"""How late a schedule is noticed that somebody made without telling."""
SCHEDULES_A_LOOK = 50
CALLS_IN_A_ROW = 10
CALL_PAUSE_SECONDS = 0.1
"""How often is looked because somebody says that a schedule was changed."""
MISS_SECONDS = 0.1
"""The pause before looking again at what is due and somebody else has locked."""


@attrs.define(eq=False)
class Ticker:
    """Fires the schedules that are due: those this program declares, and those made at run time.

    It keeps no time of its own: which ticks are due, and which come next, is reckoned from the
    last tick and the database's clock. Two that want to fire one tick meet in `sql/fire.sql`.
    """

    _registry: Registry
    _plan: Plan
    _config: PeriodicConfig
    _database: DatabaseConfig
    _fetching: QueueFetchConfig
    _pulse: Pulse = attrs.field(factory=Pulse)
    _line: Line = attrs.field(init=False)
    _declarer: Declarer = attrs.field(init=False)
    _set_aside: set[str] = attrs.field(factory=set, init=False)
    """Schedules that cannot be understood; they must not keep the others from firing."""
    _stopping: bool = attrs.field(default=False, init=False)
    _woken: asyncio.Event = attrs.field(factory=asyncio.Event, init=False)
    _calls: Allowance = attrs.field(
        factory=lambda: Allowance(CALLS_IN_A_ROW, CALL_PAUSE_SECONDS), init=False
    )
    _outage: Outage = attrs.field(
        factory=lambda: Outage(log, "schedules wait, trying again"), init=False
    )

    def __attrs_post_init__(self) -> None:
        self._line = Line(self._database, "ticker", pulse=self._pulse)
        self._declarer = Declarer(self._registry, self._plan, self._config, self._line)

    async def run(self) -> None:
        """Fire what is due until stopped."""
        backoff = Backoff(longest_seconds=self._fetching.error_delay.total_seconds())
        try:
            while not self._stopping:
                try:
                    pause = await self._look()
                except FAILURES as error:
                    self._outage.report(error)
                    pause = backoff.next_seconds()
                else:
                    backoff.reset()
                    self._outage.over()
                self._pulse.promise(pause)
                await self._rest(pause)
        finally:
            self._pulse.end()
            await self._line.close()

    def wake(self) -> None:
        """Look now: a schedule was made or changed."""
        self._set_aside.clear()
        self._woken.set()

    def stop(self) -> None:
        """Fire no more."""
        self._stopping = True
        self._woken.set()

    async def _look(self) -> float:
        """Declare when it is time to, fire what is due; return in how many seconds more will be."""
        await self._declarer.declare_in_time()
        coming = await self._coming()
        due = [known for known in coming if _is_due(known)]
        fired = [await self._fire(known) for known in due]
        if due:
            return 0.0 if any(fired) else MISS_SECONDS
        return self._pause(coming)

    def _pause(self, coming: Sequence[StoredSchedule]) -> float:
        longest = min(LONGEST_PAUSE_SECONDS, self._declarer.seconds_left)
        if not coming:
            return longest
        return min(longest, (_moment(coming[0]) - coming[0].read_at).total_seconds())

    async def _rest(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            return
        if not self._stopping:
            self._calls.spend()
            await asyncio.sleep(max(0.0, self._calls.next_at() - monotonic()))
            self._woken.clear()

    # Firing

    async def _coming(self) -> list[StoredSchedule]:
        declared, without = self._declarer.ours, list(self._set_aside)
        tasks = [name for task in self._registry for name in (task.name, *task.aliases)]
        rows = await self._line.call(
            lambda on: Store(on).coming_schedules(declared, tasks, without, SCHEDULES_A_LOOK)
        )
        return [known for row in rows if (known := self._read(row)) is not None]

    def _read(self, row: Record) -> StoredSchedule | None:
        try:
            return StoredSchedule.of(row)
        except PgtasksError as error:
            self._put_aside(row["name"], error)
            return None

    def _put_aside(self, name: str, error: Exception) -> None:
        self._set_aside.add(name)
        log.error("a schedule does not fire: its rule cannot be followed; set it again, or remove "
                  "it", raised=error, schedule=name)  # fmt: skip

    async def _fire(self, known: StoredSchedule) -> bool:
        """Fire what is due of a schedule; tell whether anything came of it."""
        try:
            due = known.schedule.due(_moment(known), known.read_at)
        except Exception as error:  # noqa: BLE001 - one rule must not end the firing of all others
            self._put_aside(known.name, error)
            return False
        if not due.ticks:
            await self._line.call(lambda on: Store(on).pass_ticks(known, due.next_fire_at))
            return True
        for tick, following in zip(due.ticks, (*due.ticks[1:], due.next_fire_at), strict=True):
            fired = await self._fire_tick(known, tick, following)
            if fired is None:
                return tick != due.ticks[0]
            known = fired
        if due.missed:
            log.warning("ticks missed for good", schedule=known.name, missed=due.missed)
        return True

    async def _fire_tick(
        self, known: StoredSchedule, tick: datetime, following: datetime | None
    ) -> StoredSchedule | None:
        """Fire one tick; return the schedule as it is then, None when it was not ours to fire."""
        message, jitter = await self._message(known, tick), random.random() * known.schedule.jitter
        notify = self._fetching.notify
        try:
            row = await self._line.call(
                lambda on: Store(on).fire(known, tick, following, message, jitter, notify=notify)
            )
        except asyncpg.UniqueViolationError:
            log.info("tick was fired before", schedule=known.name, at=tick.isoformat())
            await self._line.call(lambda on: Store(on).pass_ticks(known, following))
            return None
        except asyncpg.UndefinedTableError:
            await self._line.call(lambda on: Store(on).create_queue(known.queue))
            return None
        if row is None:
            return None
        event = "fired" if message else "not fired: its last message is still queued or running"
        log.debug(event, schedule=known.name, at=tick.isoformat())
        number, queue = row["last_message_id"], row["last_queue"]
        return attrs.evolve(known, next_fire_at=following, last_message_id=number, last_queue=queue)

    async def _message(self, known: StoredSchedule, tick: datetime) -> tuple[str, str] | None:
        """Return the body and headers to send; None when the last message must end first."""
        if known.schedule.overlap == "skip" and await self._line.call(
            lambda on: Schedules(on).is_busy(known)
        ):
            return None
        made = known.declaration
        return made.body(new_id()), made.headers(tick.isoformat())


def _is_due(known: StoredSchedule) -> bool:
    return _moment(known) <= known.read_at


def _moment(known: StoredSchedule) -> datetime:
    assert known.next_fire_at is not None  # noqa: S101 - one without is not read
    return known.next_fire_at
