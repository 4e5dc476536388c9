"""Pulse: by when each part of a worker process says again that it goes on, for others to read.

A part that waits promises when it will be heard of at the latest: so how rarely an empty queue is
looked at, or how long a database may take, makes no part look stuck. Writing a promise costs a
quarter of a microsecond, and whoever reads it needs no cooperation of a process that hangs.

The clock is `time.monotonic`, which all processes of a machine share.
"""

import math
import mmap
import struct
from time import monotonic
from typing import Final, Literal, get_args

import attrs

Part = Literal["loop", "claiming", "settling", "extending", "firing"]
"""The event loop, a scheduler, the settler, the keeper, the ticker."""

# In the machine's own order and aligned: a float is written whole, never half.
_ROW: Final = struct.Struct("@qdd")  # part, promised_at, failing_since
_FLOAT: Final = struct.Struct("@d")
_PARTS: Final = ("", *get_args(Part))
_PROMISED, _FAILING = 8, 16
MOST_PARTS: Final = 1024
BYTES: Final = MOST_PARTS * _ROW.size


@attrs.frozen
class Reading:
    """What is known of one part.

    Attributes:
        part: which one.
        late_seconds: for how long its promise has been broken; 0 or less when it has not.
        failing_seconds: for how long its calls of the database have failed; None: they have not.
        is_over: whether it ended as it should.
    """

    part: Part
    late_seconds: float = 0.0
    failing_seconds: float | None = None
    is_over: bool = False


@attrs.define(eq=False)
class Pulse:
    """The pulse of one part; made by itself, nobody reads it."""

    _memory: mmap.mmap | bytearray = attrs.field(factory=lambda: bytearray(_ROW.size))
    _at: int = 0

    def promise(self, seconds: float) -> None:
        """Say that the part goes on, and that it will say so again within so many seconds."""
        _FLOAT.pack_into(self._memory, self._at + _PROMISED, monotonic() + seconds)

    def rest(self) -> None:
        """Say that the part waits for something that may never come."""
        _FLOAT.pack_into(self._memory, self._at + _PROMISED, math.inf)

    def failed(self) -> None:
        """Say that the database failed the part."""
        if not _FLOAT.unpack_from(self._memory, self._at + _FAILING)[0]:
            _FLOAT.pack_into(self._memory, self._at + _FAILING, monotonic())

    def answered(self) -> None:
        """Say that the database did what the part asked of it."""
        _FLOAT.pack_into(self._memory, self._at + _FAILING, 0.0)

    def end(self) -> None:
        """Say that the part has ended as it should."""
        number = _ROW.unpack_from(self._memory, self._at)[0]
        _ROW.pack_into(self._memory, self._at, -abs(number), math.inf, 0.0)


@attrs.define(eq=False)
class Pulses:
    """The pulses of one process, in memory that another one may read too.

    Args:
        memory: where they are written; by default nobody but this process can read them.
        at: from which byte on.
    """

    _memory: mmap.mmap | bytearray = attrs.field(factory=lambda: bytearray(BYTES))
    _at: int = 0
    _taken: int = attrs.field(default=0, init=False)

    def of(self, part: Part) -> Pulse:
        """Begin the pulse of a part; beyond `MOST_PARTS` nobody reads it."""
        if self._taken == MOST_PARTS:
            return Pulse()
        at = self._at + self._taken * _ROW.size
        self._taken += 1
        _ROW.pack_into(self._memory, at, _PARTS.index(part), monotonic(), 0.0)
        return Pulse(self._memory, at)

    def read(self) -> list[Reading]:
        """Return what is known of each part now."""
        now = monotonic()
        rows = _ROW.iter_unpack(self._memory[self._at : self._at + BYTES])
        return [
            Reading(
                _PARTS[abs(number)],
                now - promised_at,
                now - failing_since if failing_since else None,
                is_over=number < 0,
            )
            for number, promised_at, failing_since in rows
            if number
        ]
