"""Files: which ones the demo measures, and how their names travel in messages."""

import os
import stat
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote_to_bytes

import attrs

from pgtasks.errors import ConfigError

ENOUGH = 1_000
"""A standard library with fewer files, as some systems ship it, is joined by what is installed."""

_OTHERS = frozenset({"__pycache__", "node_modules", "site-packages", "dist-packages"})
_SNIFFED_BYTES = 8_192
_URI = "file://"


@attrs.frozen
class Found:
    """The files to measure, in order, and what was passed over."""

    folders: tuple[Path, ...]
    paths: tuple[Path, ...]
    binary: int = 0
    unreadable_folders: int = 0

    def __add__(self, other: "Found") -> "Found":
        return Found(
            self.folders + other.folders,
            self.paths + other.paths,
            self.binary + other.binary,
            self.unreadable_folders + other.unreadable_folders,
        )


def find_files(folder: Path | None) -> Found:
    """Return the text files below a folder; without one, those of the standard library.

    Hidden and generated folders, links and binary files are passed over. A file that cannot be
    read is not: its message will say so.

    Raises:
        ConfigError: there is no such folder, or no text in it.
    """
    if folder is None:
        return _installed_python()
    try:
        os.scandir(folder).close()
    except OSError as error:
        raise ConfigError(f"--folder {folder}: {error.strerror}; name a folder of files") from None
    found = _look_through(folder.absolute())
    if not found.paths:
        passed = f"; {found.binary:,} binary files were passed over" if found.binary else ""
        raise ConfigError(f"--folder {folder}: there is no text file in it{passed}")
    return found


def to_name(path: Path) -> str:
    r"""Return how a path is written in a message: as it is, or as a URI when it is no text.

    Example:
        >>> to_name(Path(os.fsdecode(b"/tmp/caf\xe9.py")))
        'file:///tmp/caf%E9.py'
    """
    try:
        return path.as_posix().encode().decode()
    except UnicodeEncodeError:  # a file's name is bytes; PostgreSQL takes text only
        return path.as_uri()


def to_path(name: str) -> Path:
    """Return the path that `to_name` wrote."""
    if name.startswith(_URI):
        return Path(os.fsdecode(unquote_to_bytes(name.removeprefix(_URI))))
    return Path(name)


def _installed_python() -> Found:
    found = _look_through(Path(sysconfig.get_path("stdlib")), ".py")
    if len(found.paths) < ENOUGH:
        found += _look_through(Path(sysconfig.get_path("purelib")), ".py")
    return found


def _look_through(folder: Path, suffix: str = "") -> Found:
    paths: list[Path] = []
    unreadable: list[OSError] = []
    binary = 0
    for path in _regular_files(folder, unreadable):
        if suffix and path.suffix != suffix:
            continue
        if not suffix and _is_binary(path):
            binary += 1
        else:
            paths.append(path)
    return Found((folder,), tuple(paths), binary, len(unreadable))


def _regular_files(folder: Path, unreadable: list[OSError]) -> Iterator[Path]:
    for place, folders, names in os.walk(folder, onerror=unreadable.append):
        folders[:] = sorted(name for name in folders if name[0] != "." and name not in _OTHERS)
        for name in sorted(names):
            path = Path(place, name)
            if name[0] != "." and _is_regular(path):
                yield path


def _is_regular(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:  # gone already
        return False


def _is_binary(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return b"\0" in file.read(_SNIFFED_BYTES)
    except OSError:
        return False
