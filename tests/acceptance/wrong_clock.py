"""A wrong clock for one process and all it starts, by libfaketime, where the machine has it.

The monotonic clock stays right, as it does on a machine whose time of day is wrong.
"""

from collections.abc import Mapping
from pathlib import Path

import pytest

_FOUND = sorted(Path("/usr/lib").glob("**/faketime/libfaketimeMT.so.1"))

needs_faketime = pytest.mark.skipif(
    not _FOUND, reason="libfaketime is not installed (apt-get install faketime)"
)


def wrong_by(offset: str) -> Mapping[str, str]:
    """The environment of a process whose clock is wrong by so much, such as "-3600s"."""
    return {**_faked(), "FAKETIME": offset}


def stepping(file: Path) -> Mapping[str, str]:
    """The environment of a process whose clock is wrong by what stands in a file, looked at anew.

    Write the file with `step`.
    """
    return {
        **_faked(),
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_CACHE_DURATION": "1",
    }


def step(file: Path, offset: str) -> None:
    """Set the clocks that follow a file; whole, so that no process reads half of it."""
    written = file.with_suffix(".new")
    written.write_text(f"{offset}\n")
    written.replace(file)


def _faked() -> Mapping[str, str]:
    return {"LD_PRELOAD": str(_FOUND[0]), "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
