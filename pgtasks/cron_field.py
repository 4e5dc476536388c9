"""CronField: what may stand in one field of a cron expression, and what to write instead."""

import re
from typing import Final

import attrs

from pgtasks.errors import ScheduleError

_DIGITS: Final = re.compile(r"[0-9]+")
_MONTHS: Final = (
    "JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC",
)  # fmt: skip
_DAYS: Final = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")


@attrs.frozen
class CronField:
    """One field: its name, its numbers, and the words that may stand for them."""

    name: str
    low: int
    high: int
    step: int
    """The longest step that says something: a longer one would be as good as none."""
    words: tuple[str, ...] = ()
    """What may be written for the numbers from `low` on."""

    def check(self, text: str) -> None:
        """Accept a field in capitals.

        Raises:
            ScheduleError: something in it is wrong; the text names the field and its range.
        """
        for term in text.split(","):
            self._check_term(term)

    def _check_term(self, term: str) -> None:
        base, slash, step = term.partition("/")
        if slash:
            self._check_step(term, step)
        if base == "*":
            return
        first, dash, last = base.partition("-")
        begin = self._number(first, term)
        end = self._number(last, term) if dash else self.high
        if end < begin:
            raise self._wrong(term, f"a range goes upwards: write {self._upwards(first, last)}")
        if dash and slash and begin == end:  # CronSim would read 5-5/2 as 5/2, which is 5-59/2
            raise self._wrong(term, f"a range of one has no steps: write {first}")

    def _check_step(self, term: str, step: str) -> None:
        if not _DIGITS.fullmatch(step) or not 1 <= int(step) <= self.step:
            raise self._wrong(term, f"a step is a number from 1 to {self.step}")

    def _number(self, text: str, term: str) -> int:
        """The number that this text is or stands for."""
        if text in self.words:
            return self.low + self.words.index(text)
        if _DIGITS.fullmatch(text) and self.low <= int(text) <= self.high:
            return int(text)
        raise self._wrong(term, self._advice(term))

    def _upwards(self, first: str, last: str) -> str:
        """What somebody means who writes a range that goes over the end."""
        return f"{first}-{self.high},{self.low}-{last}"

    def _advice(self, term: str) -> str:
        if "?" in term:
            return "write * for any"
        if not term:
            return "something is missing beside a comma"
        return f"write a number, a range such as {self.low}-{self.low + 2}, or a step such as */2"

    @property
    def range(self) -> str:
        """The numbers and words that may stand here, for people."""
        words = f" or {self.words[0]}-{self.words[-1]}" if self.words else ""
        return f"{self.low}-{self.high}{words}"

    def _wrong(self, term: str, advice: str) -> ScheduleError:
        return ScheduleError(f'"{term:.40}" is wrong for the {self.name} ({self.range}): {advice}')


@attrs.frozen
class DayOfMonth(CronField):
    """The day of the month, which may be its last day (L) or its last working day (LW)."""

    def _check_term(self, term: str) -> None:
        if term not in {"L", "LW"}:
            super()._check_term(term)

    def _advice(self, term: str) -> str:
        if "L" in term or "W" in term:
            return "write L for the last day of the month, LW for the last from Monday to Friday"
        return super()._advice(term)


@attrs.frozen
class DayOfWeek(CronField):
    """The day of the week, which may be the last (5L) or the n-th (FRI#2) of its month."""

    def _check_term(self, term: str) -> None:
        day, mark, count = term.partition("#")
        if mark:
            self._number(day, term)
            if count not in {"1", "2", "3", "4", "5"}:
                raise self._wrong(term, "after # stands which one of the month, 1 to 5: FRI#2")
        elif term.endswith("L") and _DIGITS.fullmatch(term[:-1]):
            self._number(term[:-1], term)
        else:
            super()._check_term(term)

    def _upwards(self, first: str, last: str) -> str:
        return f"{first}-7" if self._number(last, last) == 0 else f"{first}-7,1-{last}"

    def _advice(self, term: str) -> str:
        if term.endswith("L"):
            return "write the last Friday of the month as 5L"
        return super()._advice(term)


SECOND: Final = CronField("second", 0, 59, step=60)
FIELDS: Final = (
    CronField("minute", 0, 59, step=60),
    CronField("hour", 0, 23, step=24),
    DayOfMonth("day of the month", 1, 31, step=31),
    CronField("month", 1, 12, step=12, words=_MONTHS),
    DayOfWeek("day of the week", 0, 7, step=7, words=_DAYS),
)
