"""Stamps: when something happened in another process, by the clock that all processes share."""

import os
import struct
import time
from pathlib import Path

_STAMP = struct.Struct("<qd")


def now() -> float:
    """Return the machine's monotonic clock, in seconds."""
    return time.clock_gettime(time.CLOCK_MONOTONIC)


def write_stamp(file: int, number: int) -> None:
    """Append a number and the moment to an open file; one write, so that none is torn."""
    os.write(file, _STAMP.pack(number, now()))


def read_stamps(file: Path) -> dict[int, float]:
    """Return the moments by their numbers, and empty the file."""
    stamps = dict(_STAMP.iter_unpack(file.read_bytes()))
    os.truncate(file, 0)
    return stamps
