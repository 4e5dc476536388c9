"""Everything that commands print: tables, pairs, JSON; nothing of a message as it is."""

import io
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from shutil import get_terminal_size
from typing import Any, Final, TextIO

from pgtasks.safe_text import one_line

_PIPED_WIDTH: Final = 100
_CELL_WIDTH: Final = 48
_LEAST_WIDTH: Final = 80
_GAP: Final = "  "
_NEVER: Final = 9999  # the year that stands for infinity, as Python has none after it
_COLOURS: Final = {"ok": "\x1b[32m", "warn": "\x1b[33m", "fail": "\x1b[31m"}


def make_safe(*streams: TextIO) -> None:
    """Let streams write what their encoding cannot hold as escapes, instead of failing."""
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def say(text: str) -> None:
    """Print text of ours that may have lines; anything in it that could harm is spelt out."""
    print(safe(text))


def warn(text: str) -> None:
    """Print a warning, apart from what was asked for."""
    print(f"pgtasks: warning: {safe(text)}", file=sys.stderr)


def safe(text: str) -> str:
    r"""Text that keeps its lines; other controls, escapes and the like are spelt out as `\x1b`."""
    return "\n".join(one_line(line) for line in text.split("\n"))


def print_json(value: Any) -> None:
    """Print a value as JSON in ASCII; moments in ISO 8601, whatever else has none as text."""
    print(json.dumps(value, indent=2, default=_plain))


def print_table(
    heads: Sequence[str], rows: Iterable[Sequence[object]], *, cut: bool = False
) -> None:
    """Print rows below their heads, in columns.

    Args:
        heads: one for each column.
        rows: None is printed as "-"; numbers stand to the right.
        cut: whether cells may be cut, and the last one to what is left of the line.
    """
    cells = [[_cell(value) for value in row] for row in rows]
    if cut:
        cells = [[*(_fitted(cell, _CELL_WIDTH) for cell in row), last] for *row, last in cells]
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    numeric = [all(_is_number(cell) for cell in column) for column in zip(*cells, strict=True)]
    width = _line_width() if cut else None
    for row in ([*heads], *cells):
        padded = [
            cell.rjust(wide) if right else cell.ljust(wide)
            for cell, wide, right in zip(row, widths, numeric or [False] * len(row), strict=True)
        ]
        print(_fitted(_GAP.join(padded).rstrip(), width))


def print_pairs(pairs: Mapping[str, object]) -> None:
    """Print names and values below each other; None and empty ones are left out."""
    shown = {name: value for name, value in pairs.items() if value not in (None, "")}
    column = max(map(len, shown), default=0)
    for name, value in shown.items():
        print(f"{name:{column}}{_GAP}{_cell(value)}")


def painted(word: str) -> str:
    """A word of `doctor`, coloured on a terminal unless NO_COLOR asks for none."""
    plain = (
        not sys.stdout.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    )
    return word if plain or word not in _COLOURS else f"{_COLOURS[word]}{word}\x1b[0m"


def span(seconds: float) -> str:
    """A length of time for people, in its two largest units.

    Example:
        >>> span(7384)
        '2h 3m'
    """
    if seconds < 10:
        return f"{max(0.0, seconds):.1f}s"
    parts: list[str] = []
    rest = int(seconds)
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)):
        count, rest = divmod(rest, length)
        if count or parts:
            parts.append(f"{count}{unit}" if count else "")
    return " ".join(part for part in parts[:2] if part)


def when(at: datetime, clock: datetime) -> str:
    """How long ago a moment was, or how long until it is, by the server's clock.

    Example:
        >>> when(clock + timedelta(minutes=5), clock)
        'in 5m'
    """
    if at.year == _NEVER:
        return "never"
    seconds = (at - clock).total_seconds()
    return f"in {span(seconds)}" if seconds > 0 else f"{span(-seconds)} ago"


def moment(at: datetime) -> str:
    """A moment in the zone of this machine, to the second."""
    return at.astimezone().isoformat(" ", "seconds")


def _cell(value: object) -> str:
    return "-" if value is None else one_line(str(value))


def _is_number(cell: str) -> bool:
    return cell == "-" or cell.isdecimal()


def _line_width() -> int:
    width = get_terminal_size((_PIPED_WIDTH, 0)).columns if sys.stdout.isatty() else _PIPED_WIDTH
    return max(_LEAST_WIDTH, width)


def _fitted(line: str, width: int | None) -> str:
    return line if width is None or len(line) <= width else f"{line[: width - 3]}..."


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
