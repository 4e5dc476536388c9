"""Progress: one line that changes on a terminal, a line a second anywhere else."""

import os
import shutil
import sys
from time import monotonic
from typing import TextIO

import attrs

PIPED_SECONDS = 1.0
LIVE_SECONDS = 0.05
BAR = 24
LEAST_FOR_BAR = 60


@attrs.define
class Progress:
    """What the demo says of itself while it runs."""

    stream: TextIO = attrs.field(factory=lambda: sys.stdout)
    is_live: bool = attrs.field()
    _said_at: float = attrs.field(default=-PIPED_SECONDS, init=False)
    _shown: int = attrs.field(default=0, init=False)

    @is_live.default
    def _is_terminal(self) -> bool:
        return self.stream.isatty() and os.environ.get("TERM") != "dumb"

    def say(self, text: str) -> None:
        """Print a line that stays."""
        self.clear()
        print(text, file=self.stream, flush=True)

    def show(self, text: str, drawn: str = "") -> None:
        """Show how far it is; what is drawn stands before it where there is room.

        On a terminal it takes the place of the last time; elsewhere it is said once a second.
        """
        pause = LIVE_SECONDS if self.is_live else PIPED_SECONDS
        if monotonic() - self._said_at < pause:
            return
        self._said_at = monotonic()
        if not self.is_live:
            print(text, file=self.stream, flush=True)
            return
        columns = width(self.stream)
        line = f"{drawn} {text}" if drawn and columns >= LEAST_FOR_BAR else text
        # The last column stays free: a terminal would go on to the next line after it.
        line = line[: columns - 1]
        print(f"\r{line:{min(self._shown, columns - 1)}}", end="", file=self.stream, flush=True)
        self._shown = len(line)

    def clear(self) -> None:
        """Take away the line that changes."""
        if self._shown:
            blank = " " * min(self._shown, width(self.stream) - 1)
            print(f"\r{blank}\r", end="", file=self.stream, flush=True)
            self._shown = 0


def width(stream: TextIO) -> int:
    """Return how many columns there are; for what is no terminal, a hundred."""
    if not stream.isatty():
        return 100
    return max(20, shutil.get_terminal_size().columns)


def describe(ended: int, given_up: int, total: int) -> str:
    """Say how far it is.

    Example:
        >>> describe(900, 2, 1800)
        '900 of 1,800 messages, 2 given up'
    """
    return f"{ended:,} of {total:,} messages" + (f", {given_up:,} given up" if given_up else "")


def bar(ended: int, total: int) -> str:
    """Draw how far it is.

    Example:
        >>> bar(1, 2)
        '[############............]'
    """
    full = BAR * ended // total if total else BAR
    return f"[{'#' * full}{'.' * (BAR - full)}]"
