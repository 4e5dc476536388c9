"""A disk of a few megabytes, in memory, that can be filled; where this process may mount one."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import pytest

MEGABYTES = 48
CHUNK = 65_536


@attrs.frozen
class SmallDisk:
    """A folder with a disk of its own."""

    folder: Path

    @property
    def _filler(self) -> Path:
        return self.folder / "filler"

    def fill(self) -> None:
        """Leave not a byte free."""
        with self._filler.open("ab", buffering=0) as filler:
            for size in (CHUNK, 1):
                try:
                    while filler.write(b"x" * size):
                        pass
                except OSError:
                    continue

    def empty(self) -> None:
        """Free what was filled."""
        self._filler.unlink(missing_ok=True)


@contextmanager
def small_disk(folder: Path, account: tuple[int, int]) -> Iterator[SmallDisk]:
    """Mount a disk for the length of a block, with a folder in it that belongs to an account."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    folder.mkdir()
    mount = ("mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m", "tmpfs", str(folder))
    if subprocess.run(mount, capture_output=True, check=False, timeout=20).returncode:
        pytest.skip("no disk can be mounted here, as in most containers")
    try:
        (folder / "space").mkdir(mode=0o700)
        os.chown(folder / "space", *account)
        yield SmallDisk(folder)
    finally:
        subprocess.run(("umount", "-l", str(folder)), check=True, timeout=20)
