"""The lines on which the keys of a TOML text stand, so that a mistake can be shown its place."""

import re
import tomllib
from typing import Any, Final

_PART: Final = r"""(?:[A-Za-z0-9_-]+|'[^'\n]*'|"(?:\\.|[^"\\\n])*")"""
_KEY: Final = rf"{_PART}(?:[ \t]*\.[ \t]*{_PART})*"
_LONG: Final = r"""#[^\n]*|'''.*?'''(?:'{0,2})|\"{3}(?:\\.|[^\\])*?\"{3}(?:\"{0,2})"""
# Only a key is followed by an equals sign; whatever else looks like a part of one is a value.
_TOKEN: Final = rf"{_LONG}|(?P<key>{_KEY})[ \t]*=|{_PART}|(?P<open>[\[{{])|(?P<close>[\]}}])"
_HEADER: Final = rf"^[ \t]*\[\[?[ \t]*(?P<table>{_KEY})[ \t]*\]\]?"
_INSIDE: Final = re.compile(_TOKEN, re.DOTALL)
_OUTSIDE: Final = re.compile(f"{_HEADER}|{_TOKEN}", re.DOTALL | re.MULTILINE)


def key_lines(text: str) -> dict[tuple[str, ...], int]:
    """The line on which each key and table of a TOML text first stands, from 1.

    A scanner of our own, for tomllib keeps no lines, and tomlkit takes 80 ms to import.

    Args:
        text: TOML that `tomllib` has read; on anything else the answer has no meaning.

    Returns:
        lines by path; the items of an array have the path of the array.

    Example:
        >>> key_lines("task = { lease = 5 }")
        {('task',): 1, ('task', 'lease'): 1}
    """
    lines: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    path: tuple[str, ...] = ()
    around: list[tuple[tuple[str, ...], tuple[str, ...]]] = []  # of the brackets that are open
    at = 0
    while token := (_INSIDE if around else _OUTSIDE).search(text, at):
        at = token.end()
        match token.lastgroup:
            case "open":
                around.append((table, path))
                table = path
            case "close":
                table, path = around.pop()
            case "table":
                table = path = _parts(token["table"])
            case "key":
                path = (*table, *_parts(token["key"]))
        if token.lastgroup in {"table", "key"}:
            line = text.count("\n", 0, token.start(token.lastgroup)) + 1
            for length in range(1, len(path) + 1):
                lines.setdefault(path[:length], line)
    return lines


def _parts(key: str) -> tuple[str, ...]:
    """The parts of a dotted key, without their quotes."""
    value: Any = tomllib.loads(f"{key} = 0")
    parts: list[str] = []
    while isinstance(value, dict):
        ((part, value),) = value.items()
        parts.append(part)
    return tuple(parts)
