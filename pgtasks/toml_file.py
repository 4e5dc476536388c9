"""A TOML file: read with the place of what is wrong in it, and edited with all else kept."""

import json
import os
import re
import stat
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pgtasks.errors import ConfigError


def read(file: Path) -> str:
    """The text of a file; raises ConfigError when it cannot be read or is not UTF-8."""
    try:
        return file.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{file.name}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{file.name}:{line}: this is not UTF-8; save it as UTF-8") from None


def parse(text: str, name: str) -> dict[str, Any]:
    """The values of a TOML text; raises ConfigError with file, line and column."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message, _, place = str(error).rpartition(" (at ")
        last_line = text.rstrip("\n").count("\n") + 1
        at = ":".join(re.findall(r"\d+", place) or [str(last_line)])  # or "(at end of document)"
        raise ConfigError(f"{name}:{at}: this is not TOML: {message}") from None
    except RecursionError:
        raise ConfigError(f"{name}: values are nested too deep; write fewer brackets") from None
    except ValueError:  # more digits than Python reads; it does not say where
        digits = re.search(r"[0-9_]{1000,}", text)
        line = text.count("\n", 0, digits.start()) + 1 if digits else 1
        raise ConfigError(f"{name}:{line}: this number is too long; write a smaller one") from None


def edit(file: Path, path: tuple[str, ...], value: Any, *, secret: bool) -> None:
    """Write one value into a file; everything else in it, comments too, stays.

    Args:
        file: made when it does not exist.
        path: the key, below the tables it stands in; they are made too.
        value: as TOML holds it.
        secret: whether nobody else may read the file from now on.

    Raises:
        ConfigError: the file is not TOML, cannot be written, or has a value where a table is meant.
    """
    old = read(file) if file.exists() else ""
    parse(old, file.name)
    new = _edited(old, path, value)
    if find(parse(new, file.name), path) != value:
        key = dotted(path)
        raise ConfigError(f"{file.name}: {key} cannot be changed from here; change it by hand")
    _replace(file, new, secret=secret)


def find(values: Any, path: tuple[str, ...]) -> Any:
    """The value at a path of nested tables, or None."""
    for part in path:
        values = values.get(part) if isinstance(values, dict) else None
    return values


def dotted(path: tuple[str, ...]) -> str:
    """A path as TOML writes it, quoted where it must be."""
    return ".".join(
        part if re.fullmatch(r"[A-Za-z0-9_-]+", part) else json.dumps(part, ensure_ascii=False)
        for part in path
    )


def _edited(text: str, path: tuple[str, ...], value: Any) -> str:
    import tomlkit  # noqa: PLC0415 - 80 ms that only writing has to wait for

    document = tomlkit.parse(text)
    table: Any = document
    for part in path[:-1]:
        table = table.setdefault(part, tomlkit.table())
        if not isinstance(table, Mapping):
            raise ConfigError(f"{dotted(path)}: the file has one value for {part}; write a table")
    table[path[-1]] = value
    return tomlkit.dumps(document)


def _replace(file: Path, text: str, *, secret: bool) -> None:
    """Put the new text in the file's place at once, so that no crash leaves half of it."""
    file = file.resolve()
    mode = stat.S_IMODE(file.stat().st_mode) if file.exists() else 0o644
    if secret:
        mode &= 0o700
    new = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        new.touch(mode=0o600)
        new.write_text(text, "utf-8", newline="\n")
        new.chmod(mode)
        new.replace(file)
    except OSError as error:
        raise ConfigError(f"{file.name}: cannot be written: {error.strerror}") from error
    finally:
        new.unlink(missing_ok=True)
