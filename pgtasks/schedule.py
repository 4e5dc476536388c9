"""Schedule: a rule that says when a task's messages are sent."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Final, Literal, cast, get_args

import attrs

from pgtasks.cron import Cron
from pgtasks.duration import format_duration, parse_duration, shown
from pgtasks.errors import ConfigError, ScheduleError
from pgtasks.interval import Interval
from pgtasks.nearest import nearest
from pgtasks.outcome import Delay
from pgtasks.queue_name import check_queue_name
from pgtasks.time_zone import zone_named

Misfire = Literal["coalesce", "skip", "catch_up"]
Overlap = Literal["allow", "skip"]

LONGEST_NAME: Final = 200
SHORTEST_INTERVAL: Final = timedelta(seconds=1)
LONGEST_INTERVAL: Final = timedelta(days=365)
LONGEST_JITTER: Final = timedelta(days=1)
MOST_CAUGHT_UP: Final = 1_000
ON_TIME_SECONDS: Final = 5
"""How late a tick may be and still be on time for `misfire="skip"`."""
MOST_COUNTED: Final = 1_000
"""How many missed ticks are counted: after years there can be more than anybody waits for."""

_MICROSECOND: Final = timedelta(microseconds=1)


@attrs.frozen
class Due:
    """What a schedule is to fire now, and when it is due next."""

    ticks: tuple[datetime, ...]
    """The ticks to fire now, earliest first, in UTC."""
    next_fire_at: datetime | None
    """The first tick after now; None when none is left before the calendar ends."""
    missed: int
    """How many due ticks are not fired; `MOST_COUNTED` stands for so many or more."""


def _wrong(schedule: "Schedule", field: str, reason: object) -> ScheduleError:
    return ScheduleError(f"schedule {shown(schedule.name)}: {field}: {reason}")


def _duration(value: Delay, name: str) -> timedelta:
    try:
        return parse_duration(value)
    except ConfigError as error:
        raise ScheduleError(f"Schedule({name}=...): {error}") from None


def _to_interval(value: Delay | None) -> timedelta | None:
    return None if value is None else _duration(value, "every")


def _to_jitter(value: Delay) -> timedelta:
    return _duration(value, "jitter")


def _check_name(_: object, __: object, name: str) -> None:
    if not (isinstance(name, str) and name.isprintable() and 1 <= len(name) <= LONGEST_NAME):
        raise ScheduleError(
            f"{shown(name)} cannot be the name of a schedule: "
            f"write a text of 1 to {LONGEST_NAME} printable characters on one line"
        )


def _check_interval(schedule: "Schedule", _: object, every: timedelta | None) -> None:
    if every is not None and not SHORTEST_INTERVAL <= every <= LONGEST_INTERVAL:
        raise _wrong(
            schedule,
            "every",
            f"{shown(every)} is not from {format_duration(SHORTEST_INTERVAL)} "
            f"to {format_duration(LONGEST_INTERVAL)}",
        )


def _check_jitter(schedule: "Schedule", _: object, jitter: timedelta) -> None:
    if jitter > LONGEST_JITTER:
        raise _wrong(
            schedule, "jitter", f"{shown(jitter)} is longer than {format_duration(LONGEST_JITTER)}"
        )


def _check_word(schedule: "Schedule", field: "attrs.Attribute[Any]", word: object) -> None:
    words = get_args({"misfire": Misfire, "overlap": Overlap}[field.name])
    if word in words:
        return
    near = nearest(word, words) if isinstance(word, str) else None
    advice = f'did you mean "{near}"?' if near else "write " + " or ".join(map(shown, words))
    raise _wrong(schedule, field.name, f"{shown(word)} is not known; {advice}")


def _check_limit(schedule: "Schedule", _: object, limit: object) -> None:
    if type(limit) is not int or not 1 <= limit <= MOST_CAUGHT_UP:
        raise _wrong(
            schedule,
            "catch_up_limit",
            f"{shown(limit)} is not a whole number from 1 to {MOST_CAUGHT_UP}",
        )


def _check_queue(_: object, __: object, queue: str | None) -> None:
    if queue is not None:
        check_queue_name(queue)


def _check_args(schedule: "Schedule", _: object, args: object) -> None:
    if not isinstance(args, Sequence) or isinstance(args, str | bytes | bytearray):
        raise _wrong(schedule, "args", f"{shown(args)} is not a list of arguments: write [...]")


def _check_kwargs(schedule: "Schedule", _: object, kwargs: object) -> None:
    if not isinstance(kwargs, Mapping) or not all(isinstance(name, str) for name in kwargs):
        raise _wrong(
            schedule, "kwargs", f"{shown(kwargs)} is not a dict of arguments by their names"
        )


@attrs.frozen
class Schedule:
    """When messages of a task are sent: by a cron expression or at an interval, as a name.

    A moment at which it fires is a *tick*. Ticks depend on nothing but the rule: not on when a
    worker or the schedule was started, so that all workers agree on them.

    Args:
        name: what it is known by in this database: 1 to 200 printable characters.
        cron: five fields (minute, hour, day of the month, month, day of the week), six with the
            second in front, or an alias such as "@daily".
        every: the interval instead, from one second to a year; ticks are its whole multiples since
            1970 in UTC. Seconds, a text such as "15m", or a timedelta.
        timezone: the zone whose wall clocks `cron` is about, by its name in the tz database; an
            interval is real time and takes none.
        jitter: up to so much later, at random, the message of a tick becomes due; at most a day.
        misfire: what becomes of ticks that no worker was there for: "coalesce" fires the latest,
            "skip" none but one that is at most 5 seconds late, "catch_up" each of them.
        catch_up_limit: how many "catch_up" fires at once, from 1 to 1000: the latest ones.
        overlap: "skip" leaves a tick out while the message of an earlier one is not done.
        queue: where the messages are sent; by default the task's queue.
        args: the positional arguments of the call.
        kwargs: the arguments by their names.

    Raises:
        ScheduleError: one of these is not what it should be.
        QueueNameError: `queue` cannot be the name of a queue.

    Example:
        `Schedule("report.eu", cron="0 7 * * MON-FRI", timezone="Europe/Berlin", args=["eu"])`
    """

    name: str = attrs.field(validator=_check_name)
    cron: str | None = attrs.field(default=None, kw_only=True)
    every: timedelta | None = attrs.field(
        default=None,
        kw_only=True,
        converter=_to_interval,
        validator=_check_interval,
    )
    timezone: str = attrs.field(default="UTC", kw_only=True)
    jitter: timedelta = attrs.field(
        default=timedelta(0),
        kw_only=True,
        converter=_to_jitter,
        validator=_check_jitter,
    )
    misfire: Misfire = attrs.field(default="coalesce", kw_only=True, validator=_check_word)
    catch_up_limit: int = attrs.field(default=100, kw_only=True, validator=_check_limit)
    overlap: Overlap = attrs.field(default="allow", kw_only=True, validator=_check_word)
    queue: str | None = attrs.field(default=None, kw_only=True, validator=_check_queue)
    args: Sequence[Any] = attrs.field(default=(), kw_only=True, hash=False, validator=_check_args)
    kwargs: Mapping[str, Any] = attrs.field(
        factory=dict, kw_only=True, hash=False, validator=_check_kwargs
    )
    zone: tzinfo = attrs.field(init=False, eq=False, repr=False)
    """The zone of that name."""
    rule: Cron | Interval = attrs.field(init=False, eq=False, repr=False)
    """What `cron` or `every` says."""

    @zone.default
    def _to_zone(self) -> tzinfo:
        try:
            return zone_named(self.timezone)
        except ScheduleError as error:
            raise _wrong(self, "timezone", error) from None

    @rule.default
    def _to_rule(self) -> Cron | Interval:
        if (self.cron is None) == (self.every is None):
            has = "neither cron=... nor" if self.cron is None else "both cron=... and"
            raise ScheduleError(
                f'schedule {shown(self.name)} has {has} every=...: give one, such as every="15m"'
            )
        if self.cron is None:
            return self._interval()
        try:
            return Cron.parse(self.cron)
        except ScheduleError as error:
            raise ScheduleError(f"schedule {shown(self.name)}: {error}") from None

    def _interval(self) -> Interval:
        if self.timezone != "UTC":
            raise _wrong(
                self,
                "timezone",
                "an interval is real time in every zone; leave it out, or say with cron=... what "
                "the wall clock shows",
            )
        return Interval(cast("timedelta", self.every))

    def next_after(self, moment: datetime) -> datetime | None:
        """Return the first tick strictly after a moment, in UTC; None when none is left.

        Args:
            moment: a datetime with a zone, whichever.

        Raises:
            ScheduleError: the moment has no zone.

        Example:
            >>> Schedule("sweep", every="15m").next_after(datetime(2027, 1, 1, 8, 20, tzinfo=UTC))
            datetime.datetime(2027, 1, 1, 8, 30, tzinfo=datetime.timezone.utc)
        """
        return next(self._after(moment), None)

    def upcoming(self, moment: datetime, count: int) -> list[datetime]:
        """Return the first `count` ticks strictly after a moment, in UTC; see `next_after`."""
        return list(itertools.islice(self._after(moment), count))

    def due(self, next_fire_at: datetime, now: datetime) -> Due:
        """Return what to fire now of the ticks from `next_fire_at` on, and what comes next.

        It takes no longer for a schedule that has rested for years than for one that has for an
        hour: it looks back from now, as far as anything is fired or counted.

        Args:
            next_fire_at: where the schedule stands: ticks before are not its business any more.
            now: the database's time.

        Raises:
            ScheduleError: a moment has no zone.
        """
        next_fire_at, now = _in_utc(next_fire_at), _in_utc(now)
        since = itertools.takewhile(lambda tick: tick >= next_fire_at, self._until(now))
        most = self.catch_up_limit if self.misfire == "catch_up" else 1
        late = list(itertools.islice(since, most + MOST_COUNTED))
        fired = late[:most]
        if self.misfire == "skip":
            fired = [tick for tick in fired if now - tick <= timedelta(seconds=ON_TIME_SECONDS)]
        return Due(
            tuple(reversed(fired)),
            self.next_after(max(next_fire_at - _MICROSECOND, now)),
            min(len(late) - len(fired), MOST_COUNTED),
        )

    def _after(self, moment: datetime) -> Iterator[datetime]:
        moment = _in_utc(moment)
        if isinstance(self.rule, Interval):
            return self.rule.after(moment)
        return self.rule.after(moment, self.zone)

    def _until(self, moment: datetime) -> Iterator[datetime]:
        moment = _in_utc(moment)
        if isinstance(self.rule, Interval):
            return self.rule.until(moment)
        return self.rule.until(moment, self.zone)


def _in_utc(moment: datetime) -> datetime:
    if moment.utcoffset() is None:
        raise ScheduleError(f"{moment} has no zone: write e.g. datetime.now(UTC)")
    return moment.astimezone(UTC)
