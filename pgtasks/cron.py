"""Cron: when a cron expression fires, in a time zone and across its clock changes."""

from collections.abc import Iterator
from datetime import UTC, datetime, tzinfo
from typing import Final, Self

import attrs
from cronsim import CronSim, CronSimError

from pgtasks.cron_field import FIELDS, SECOND
from pgtasks.duration import shown
from pgtasks.errors import ScheduleError
from pgtasks.nearest import nearest
from pgtasks.wall_clock import (
    ONE_SECOND,
    first_change,
    first_instant,
    last_change,
    latest_begun,
    offset_at,
)

LONGEST: Final = 200
"""How many characters an expression may have."""
ALIASES: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}

# What can ever match does so within 50 years of this date: 29 February falls on each day of the
# week in them, and no leap year is left out.
_SOME_DATE: Final = datetime(2000, 1, 1)  # noqa: DTZ001 - a wall time


@attrs.frozen
class Cron:
    """A cron expression of five fields, or of six with the second in front.

    It is about what the clocks on the walls of a time zone show, and does as Debian's cron where
    they are changed. An expression whose minute and hour do not begin with `*` is at a *fixed
    time*: it fires once where the clocks are put back, and at the end of a gap where they are put
    forward over that time. Any other fires whenever the clocks show a matching time.
    """

    fields: str
    """Six fields in capitals; two expressions for the same moments may still differ in them."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read an expression such as "*/5 * * * *", "30 0 2 * * MON-FRI" or "@daily".

        Raises:
            ScheduleError: it is none, or it never fires; the text says which field is wrong, what
                may stand there, and what to write instead.

        Example:
            >>> Cron.parse("0 8 * * MON").next_after(datetime(2027, 1, 1, tzinfo=UTC))
            datetime.datetime(2027, 1, 4, 8, 0, tzinfo=datetime.timezone.utc)
        """
        try:
            cron = cls(" ".join(_checked_fields(_expanded(text))))
            cron._check_fires()
        except ScheduleError as error:
            raise ScheduleError(f"cron {shown(text)}: {error}") from None
        return cron

    @property
    def is_fixed_time(self) -> bool:
        """Whether it means certain times of a day, which no clock change takes or doubles."""
        _, minute, hour, *_ = self.fields.split()
        return not minute.startswith("*") and not hour.startswith("*")

    def next_after(self, moment: datetime, zone: tzinfo = UTC) -> datetime | None:
        """Return the first tick strictly after a moment, in UTC; None when there is none.

        Args:
            moment: a datetime with a zone, whichever.
            zone: the zone whose clocks the expression is about.
        """
        return next(self.after(moment, zone), None)

    def after(self, moment: datetime, zone: tzinfo = UTC) -> Iterator[datetime]:
        """The ticks strictly after a moment in UTC, earliest first."""
        walk = self._fixed_after if self.is_fixed_time else self._wild_after
        try:
            yield from walk(_whole_second(moment), zone)
        except OverflowError:  # the calendar ends
            return

    def until(self, moment: datetime, zone: tzinfo = UTC) -> Iterator[datetime]:
        """The ticks at or before a moment in UTC, latest first."""
        walk = self._fixed_until if self.is_fixed_time else self._wild_until
        try:
            yield from walk(_whole_second(moment), zone)
        except OverflowError:
            return

    def _fixed_after(self, moment: datetime, zone: tzinfo) -> Iterator[datetime]:
        """Each matching wall time once; those of one gap together, at its end."""
        walls = self._walls_after(latest_begun(moment, zone))
        while (wall := next(walls, None)) is not None:
            tick = first_instant(wall, zone)
            yield tick
            begun = latest_begun(tick, zone)
            if begun != wall:
                walls = self._walls_after(begun)  # the rest of the gap is behind us too

    def _fixed_until(self, moment: datetime, zone: tzinfo) -> Iterator[datetime]:
        walls = self._walls_until(latest_begun(moment, zone))
        later = None
        while (wall := next(walls, None)) is not None:
            tick = first_instant(wall, zone)
            if tick != later:  # the end of a gap may be a matching time itself
                yield tick
            later = tick
            if latest_begun(tick, zone) != wall:
                walls = self._walls_until(latest_begun(tick - ONE_SECOND, zone))

    def _wild_after(self, moment: datetime, zone: tzinfo) -> Iterator[datetime]:
        """Follow the wall clock as it goes, and begin anew where it is put forward or back."""
        offset = offset_at(moment, zone)
        walls = self._walls_after(moment.replace(tzinfo=None) + offset)
        while (wall := next(walls, None)) is not None:
            tick = wall.replace(tzinfo=UTC) - offset
            if (change := first_change(moment, tick, zone)) is None:
                yield tick
                moment = tick
            else:
                moment, offset = change, offset_at(change, zone)
                walls = self._walls_after(moment.replace(tzinfo=None) + offset - ONE_SECOND)

    def _wild_until(self, moment: datetime, zone: tzinfo) -> Iterator[datetime]:
        offset = offset_at(moment, zone)
        walls = self._walls_until(moment.replace(tzinfo=None) + offset)
        while (wall := next(walls, None)) is not None:
            tick = wall.replace(tzinfo=UTC) - offset
            if (change := last_change(tick, moment, zone)) is None:
                yield tick
                moment = tick
            else:
                moment = change - ONE_SECOND
                offset = offset_at(moment, zone)
                walls = self._walls_until(moment.replace(tzinfo=None) + offset)

    def _walls_after(self, wall: datetime) -> Iterator[datetime]:
        """The matching wall times after one; without a zone, CronSim makes no clock changes."""
        return CronSim(self.fields, wall)

    def _walls_until(self, wall: datetime) -> Iterator[datetime]:
        return CronSim(self.fields, wall + ONE_SECOND, reverse=True)

    def _check_fires(self) -> None:
        try:
            if next(self._walls_after(_SOME_DATE), None) is not None:
                return
        except CronSimError:  # it knows at once that no month has such a day
            pass
        raise ScheduleError(
            "it never fires: there is no such day in any year; "
            "for the last day of each month write L as the day of the month"
        )


def _whole_second(moment: datetime) -> datetime:
    """The instant without its microseconds, and without a fold, which UTC has none of."""
    return moment.astimezone(UTC).replace(microsecond=0, fold=0)


def _expanded(text: str) -> str:
    """The expression in capitals, without an alias."""
    if not isinstance(text, str):
        raise ScheduleError('an expression is a text such as "*/5 * * * *"')
    if len(text) > LONGEST:
        raise ScheduleError(f"it is longer than {LONGEST} characters")
    if not text.isascii():  # some letters of other alphabets have A-Z as their capitals
        raise ScheduleError("only digits, A-Z and , - * / # @ can stand in it")
    word = text.strip().lower()
    if not word.startswith("@"):
        return text.upper()
    if word == "@reboot":
        raise ScheduleError(
            "a schedule knows of no program's start; send the message where the program starts, "
            "with defer()"
        )
    if word not in ALIASES:
        near = nearest(word, [*ALIASES])
        hint = f"did you mean {near}?" if near else f"there are {', '.join(ALIASES)}"
        raise ScheduleError(f"there is no such alias; {hint}")
    return ALIASES[word]


def _checked_fields(expression: str) -> list[str]:
    texts = expression.split()
    if len(texts) == len(FIELDS):
        texts.insert(0, "0")
    if len(texts) == len(FIELDS) + 2:
        raise ScheduleError(
            "a year cannot be given: leave the seventh field out; "
            "a message for one moment is sent with options(at=...)"
        )
    if len(texts) != len(FIELDS) + 1:
        raise ScheduleError(
            f"it has {len(texts)} fields; write five (minute, hour, day of the month, month, "
            'day of the week), or six with the second in front: "*/5 * * * *"'
        )
    for field, text in zip((SECOND, *FIELDS), texts, strict=True):
        field.check(text)
    return texts
