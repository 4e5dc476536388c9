"""Logging: one line an event for people, one JSON object an event for machines.

Everything logs through the standard library under the logger `pgtasks`. An event is a constant
text, and what belongs to it goes under one key: `log.info("task done", extra={"fields": {...}})`.
Nothing that a message or an exception says can break a line, colour a terminal or show a password.
"""

import json
import logging
import math
import os
import re
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final, Literal, TextIO

from pgtasks.errors import ConfigError
from pgtasks.safe_text import MASK, bounded, one_line, text_of
from pgtasks.short_traceback import short_traceback, type_name

_LOGGER: Final = "pgtasks"
_LEVELS: Final = ("debug", "info", "warning", "error", "critical")
_MAX_DEPTH: Final = 6
_MAX_ITEMS: Final = 100
_SECRET: Final = re.compile(r"passw(or)?d|token|secret|authorization|api[-_]?key", re.IGNORECASE)
_PLAIN_VALUE: Final = re.compile(r"[^\s\"=]+")
_COLOURS: Final = {
    logging.DEBUG: "\x1b[2m",
    logging.INFO: "\x1b[32m",
    logging.WARNING: "\x1b[33m",
    logging.ERROR: "\x1b[31m",
    logging.CRITICAL: "\x1b[1;31m",
}
_DIM: Final = "\x1b[2m"
_RESET: Final = "\x1b[0m"


def configure(
    level: str,
    format: Literal["auto", "text", "json"] = "auto",  # noqa: A002 - the setting's name
    stream: TextIO | None = None,
    *,
    everything: bool = False,
) -> None:
    """Send what is logged under `pgtasks` to a stream; called again, it replaces what it did.

    Args:
        level: the least important level to show: debug, info, warning, error or critical.
        format: `text`, `json`, or `auto`: text.
        stream: stderr by default; colours only when it is a terminal and NO_COLOR is not set.
        everything: what is logged elsewhere too, as in a worker process, where nobody else
            configures logging.

    Raises:
        ConfigError: an unknown level or format.
    """
    if level.lower() not in _LEVELS:
        raise ConfigError(f'"{level}" is not a log level; write one of {", ".join(_LEVELS)}')
    if format not in {"auto", "text", "json"}:
        raise ConfigError(f'"{format}" is not a log format; write auto, text or json')
    handler = _Handler(sys.stderr if stream is None else stream)
    on_terminal = handler.stream.isatty()
    text = TextFormatter(dated=not on_terminal, colour=on_terminal and _colour_welcome())
    handler.setFormatter(JsonFormatter() if format == "json" else text)
    logger = logging.getLogger(None if everything else _LOGGER)
    logger.handlers = [one for one in logger.handlers if not isinstance(one, _Handler)]
    logger.addHandler(handler)
    logger.setLevel(level.upper())
    logging.getLogger(_LOGGER).propagate = everything


class TextFormatter(logging.Formatter):
    """`12:00:00.123 INFO    worker  task done  task=hello ms=12`, tracebacks indented below."""

    def __init__(self, *, dated: bool = True, colour: bool = False) -> None:
        """Choose whether lines start with the date, and whether they are coloured."""
        super().__init__()
        self._dated = dated
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        """One line, and indented ones for an exception."""
        moment = datetime.fromtimestamp(record.created).astimezone().replace(tzinfo=None)
        stamp = moment.isoformat(" ", "milliseconds")[0 if self._dated else len("2000-01-01 ") :]
        level = self._painted(f"{record.levelname:<8}", _COLOURS.get(record.levelno, ""))
        name = one_line(record.name.removeprefix(f"{_LOGGER}."))
        head = f"{self._painted(stamp, _DIM)} {level} {name:<10} {one_line(record.getMessage())}"
        pairs = "".join(f" {self._pair(*item)}" for item in _fields(record).items())
        below = "".join(f"\n    {line}".rstrip(" ") for line in self._below(record))
        return f"{head}{' ' if pairs else ''}{pairs}{below}"

    def _pair(self, key: str, value: Any) -> str:
        compact = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        text = value if isinstance(value, str) else compact
        if not _PLAIN_VALUE.fullmatch(text):
            text = json.dumps(text, ensure_ascii=False)
        return f"{self._painted(f'{one_line(key)}=', _DIM)}{one_line(text)}"

    def _below(self, record: logging.LogRecord) -> Iterator[str]:
        if error := _error(record):
            yield from short_traceback(error).splitlines()
        if record.stack_info:
            yield from (one_line(line) for line in record.stack_info.splitlines())

    def _painted(self, text: str, colour: str) -> str:
        return f"{colour}{text}{_RESET}" if self._colour and colour else text


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ts, level, logger, event, the fields, and error if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """One JSON object in ASCII."""
        moment = datetime.fromtimestamp(record.created, UTC).replace(tzinfo=None)
        line: dict[str, Any] = {
            "ts": f"{moment.isoformat(timespec='milliseconds')}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": bounded(record.getMessage()),
        }
        if error := _error(record):
            line["error"] = {
                "type": type_name(error),
                "message": bounded(text_of(error)),
                "traceback": short_traceback(error),
            }
        if record.stack_info:
            line["stack"] = bounded(record.stack_info)
        for key, value in _fields(record).items():
            line[f"{key}_" if key in line else key] = value
        return json.dumps(line)


class _Handler(logging.StreamHandler[TextIO]):
    """Writes what the stream's encoding cannot hold as escapes, instead of losing the event."""

    def format(self, record: logging.LogRecord) -> str:
        encoding = getattr(self.stream, "encoding", None) or "utf-8"
        return super().format(record).encode(encoding, "backslashreplace").decode(encoding)


def _colour_welcome() -> bool:
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _error(record: logging.LogRecord) -> BaseException | None:
    return record.exc_info[1] if record.exc_info else None


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    fields = getattr(record, "fields", {})
    if not isinstance(fields, Mapping):
        fields = {"fields": fields}
    named = ((text_of(name), value) for name, value in fields.items())
    return {name: _masked(name, value, 0) for name, value in named}


def _masked(key: str, value: Any, depth: int) -> Any:
    """A value as JSON holds it, without secrets, bounded in depth, width and length."""
    if _SECRET.search(key):
        return MASK
    match value:
        case Mapping() | list() | tuple() | set() | frozenset() if depth >= _MAX_DEPTH:
            return "..."
        case Mapping():
            items = ((text_of(name), one) for name, one in islice(value.items(), _MAX_ITEMS))
            return {name: _masked(name, one, depth + 1) for name, one in items}
        case list() | tuple() | set() | frozenset():
            return [_masked("", one, depth + 1) for one in islice(value, _MAX_ITEMS)]
        case _:
            return _scalar(value)


def _scalar(value: Any) -> Any:
    match value:
        case None | bool():
            return value
        case int():
            return int(value) if value.bit_length() <= 128 else "a very large number"
        case float() if math.isfinite(value):
            return float(value)
        case _:
            return bounded(text_of(value))
