"""Durations as people write them: 30, "250ms", "30s", "5m", "1h30m", "1d"."""

import json
import re
from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal
from typing import Final

from pgtasks.errors import ConfigError

LONGEST: Final = timedelta(days=36_500)  # a hundred years: no sum with a date can overflow

_MICROSECONDS: Final = {
    "d": 86_400_000_000,
    "h": 3_600_000_000,
    "m": 60_000_000,
    "s": 1_000_000,
    "ms": 1_000,
    "us": 1,
}
_WORDS: Final = {
    "d": ("day", "days"),
    "h": ("hr", "hrs", "hour", "hours"),
    "m": ("min", "mins", "minute", "minutes"),
    "s": ("sec", "secs", "second", "seconds"),
    "ms": ("msec", "msecs", "millis", "millisecond", "milliseconds"),
    "us": ("\u00b5s", "\u03bcs", "usec", "usecs", "micros", "microsecond", "microseconds"),
}
_NUMBER: Final = r"[0-9]+(?:\.[0-9]+)?"
_SECONDS: Final = re.compile(rf"(-?)({_NUMBER})")
_PARTS: Final = re.compile(
    r"(-?)(?=[0-9])" + "".join(rf"(?:({_NUMBER}){unit})?" for unit in _MICROSECONDS)
)
_MICROSECOND: Final = timedelta(microseconds=1)
_LIMIT: Final = LONGEST // _MICROSECOND
_EXAMPLES: Final = ("250ms", "30s", "5m", "1h", "1d")


def parse_duration(
    value: object, shortest: timedelta = timedelta(0), longest: timedelta = LONGEST
) -> timedelta:
    """Read a duration: seconds as a number, a text such as "1h30m", or a timedelta.

    Whole microseconds are kept; a finer part is rounded.

    Args:
        value: an int, float, str or timedelta; never a bool.
        shortest: what it may not be below.
        longest: what it may not be above; at most `LONGEST`.

    Raises:
        ConfigError: when it is none of these, not finite, negative, too short or too long; the
            text says the nearest right form.

    Example:
        >>> parse_duration("1h30m")
        datetime.timedelta(seconds=5400)
    """
    length = _microseconds(value)
    if length is None:
        raise ConfigError(f"{shown(value)} is not a duration; {_advice(value, shortest, longest)}")
    if length < 0:
        raise ConfigError(f"{shown(value)} is negative; {_advice(value, shortest, longest)}")
    if length > longest // _MICROSECOND:
        most = format_duration(longest)
        raise ConfigError(f'{shown(value)} is too long; write at most "{most}"')
    whole = int(length.to_integral_value())
    if whole < shortest // _MICROSECOND:
        least = format_duration(shortest)
        raise ConfigError(f'{shown(value)} is too short; write at least "{least}"')
    if whole == 0 and length != 0:
        raise ConfigError(f'{shown(value)} is shorter than a microsecond; write 0 or e.g. "1us"')
    return timedelta(microseconds=whole)


def format_duration(value: timedelta) -> str:
    """Write a duration in the shortest form that `parse_duration` reads back exactly.

    Example:
        >>> format_duration(timedelta(minutes=5))
        '5m'
    """
    total = value // timedelta(microseconds=1)
    if total == 0:
        return "0s"
    size = abs(total)
    forms = [form for unit in _MICROSECONDS if (form := _in_one_unit(size, unit)) is not None]
    shortest = min((*forms, _in_all_units(size)), key=lambda form: (len(form), "." in form))
    return f"-{shortest}" if total < 0 else shortest


def _in_one_unit(size: int, unit: str) -> str | None:
    """The size as one count of `unit`, or None when that needs more than three decimals."""
    thousandths, rest = divmod(size * 1000, _MICROSECONDS[unit])
    if rest:
        return None
    whole, fraction = divmod(thousandths, 1000)
    decimals = f".{fraction:03}".rstrip("0.") if fraction else ""
    return f"{whole}{decimals}{unit}"


def _in_all_units(size: int) -> str:
    text = ""
    for unit, length in _MICROSECONDS.items():
        count, size = divmod(size, length)
        text += f"{count}{unit}" if count else ""
    return text


def _microseconds(value: object) -> Decimal | None:
    """The exact length in microseconds, or None when the value is not a duration at all."""
    match value:
        case bool():
            return None
        case timedelta():
            return Decimal(value // timedelta(microseconds=1))
        case int() | float():
            seconds = Decimal(value if isinstance(value, int) else repr(value))
            return seconds * 1_000_000 if seconds.is_finite() else None
        case str() if len(value) <= 64:
            return _from_text(value.strip())
        case _:
            return None


def _from_text(text: str) -> Decimal | None:
    if match := _SECONDS.fullmatch(text):
        size = Decimal(match[2]) * _MICROSECONDS["s"]
    elif match := _PARTS.fullmatch(text):
        counts = zip(match.groups()[1:], _MICROSECONDS.values(), strict=True)
        size = sum((Decimal(count) * unit for count, unit in counts if count), Decimal(0))
    else:
        return None
    return -size if match[1] else size


def _advice(value: object, shortest: timedelta, longest: timedelta) -> str:
    """The nearest valid form of what was probably meant, or all the forms."""
    length = _microseconds(_tidied(value) if isinstance(value, str) else value)
    if length is None or abs(length) > _LIMIT or length != length.to_integral_value():
        fit = [one for one in _EXAMPLES if shortest <= parse_duration(one) <= longest]
        examples = ", ".join(f'"{one}"' for one in fit or [format_duration(longest)])
        return f"write seconds as a number, or e.g. {examples}"
    near = timedelta(microseconds=abs(int(length)))
    return f'write "{format_duration(min(max(near, shortest), longest))}"'


def _tidied(text: str) -> str:
    """What people write, as `parse_duration` reads it: `1,5 Hours` becomes `1.5h`."""
    text = re.sub(r"\s+|\band\b", "", text.lower()).replace(",", ".")
    for unit, words in _WORDS.items():
        longest_first = sorted(words, key=len, reverse=True)
        text = re.sub(rf"(?<=[0-9])(?:{'|'.join(longest_first)})(?![a-z])", unit, text)
    return text


def shown(value: object) -> str:
    """A wrong value as a message shows it: short, on one line, and never raising."""
    match value:
        case str() | bool() | None:
            text = json.dumps(value, ensure_ascii=False)
        case int() if value.bit_length() > 128:
            text = "this number"
        case int() | float():
            text = str(value)
        case timedelta():
            text = f'"{format_duration(value)}"'
        case Mapping():
            text = "a table"
        case list() | tuple():
            text = "a list"
        case _:
            text = f"a {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:56]}..."
