"""Logging: one line an event for people, one JSON object an event for machines.

Everything logs through the standard library under the logger `pgtasks`. An event is a constant
text, and what belongs to it goes under one key: `log.info("task done", extra={"fields": {...}})`.
Nothing that a message or an exception says can break a line, colour a terminal or show a password.
"""

import json
import linecache
import logging
import math
import os
import re
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from itertools import islice
from types import FrameType, TracebackType
from typing import Any, Final, Literal, TextIO

from pgtasks.errors import ConfigError

Format = Literal["auto", "text", "json"]

_LOGGER: Final = "pgtasks"
_LEVELS: Final = ("debug", "info", "warning", "error", "critical")
_MASK: Final = "***"
_MAX_TEXT: Final = 8_000
_MAX_DEPTH: Final = 6
_MAX_ITEMS: Final = 100
_SECRET: Final = re.compile(r"passw(or)?d|token|secret|authorization|api[-_]?key", re.IGNORECASE)
_USERINFO: Final = re.compile(r"(://[^\s:/@\"']*):[^\s\"']*@")
# Controls, surrogates, and what reorders or breaks lines without being a control.
_UNSAFE: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
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
    format: Format = "auto",  # noqa: A002 - the setting's name
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
    stream = sys.stderr if stream is None else stream
    handler = _Handler(stream)
    on_terminal = stream.isatty()
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
        self._moment = "%Y-%m-%d %H:%M:%S" if dated else "%H:%M:%S"
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        """One line, and indented ones for an exception."""
        moment = datetime.fromtimestamp(record.created).astimezone()
        stamp = f"{moment.strftime(self._moment)}.{moment.microsecond // 1000:03}"
        level = self._painted(f"{record.levelname:<8}", _COLOURS.get(record.levelno, ""))
        name = record.name.removeprefix(f"{_LOGGER}.")
        event = one_line(record.getMessage())
        pairs = "".join(f" {self._pair(*item)}" for item in _fields(record).items())
        head = f"{self._painted(stamp, _DIM)} {level} {one_line(name):<10} {event}"
        below = "".join(f"\n    {line}".rstrip(" ") for line in self._below(record))
        return f"{head}{' ' if pairs else ''}{pairs}{below}"

    def _pair(self, key: str, value: Any) -> str:
        text = value if isinstance(value, str) else _compact(value)
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
        moment = datetime.fromtimestamp(record.created, UTC)
        line: dict[str, Any] = {
            "ts": f"{moment.strftime('%Y-%m-%dT%H:%M:%S')}.{moment.microsecond // 1000:03}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": _bounded(record.getMessage()),
        }
        if error := _error(record):
            line["error"] = {
                "type": _type_name(error),
                "message": _bounded(_text_of(error)),
                "traceback": short_traceback(error),
            }
        if record.stack_info:
            line["stack"] = _bounded(record.stack_info)
        for key, value in _fields(record).items():
            line[f"{key}_" if key in line else key] = value
        return json.dumps(line)


def one_line(text: str) -> str:
    r"""Text that stays on its line: controls, escapes and line breaks are spelt out, as in `\n`."""
    return _UNSAFE.sub(_spelt, _bounded(text))


class _Handler(logging.StreamHandler[TextIO]):
    """Writes what the stream's encoding cannot hold as escapes, instead of losing the event."""

    def format(self, record: logging.LogRecord) -> str:
        encoding = getattr(self.stream, "encoding", None) or "utf-8"
        return super().format(record).encode(encoding, "backslashreplace").decode(encoding)


def _colour_welcome() -> bool:
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


# Fields


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    fields = getattr(record, "fields", None)
    if fields is None:
        return {}
    if not isinstance(fields, Mapping):
        fields = {"fields": fields}
    return {
        key: _masked(key, value, 0) for name, value in fields.items() if (key := _text_of(name))
    }


def _masked(key: str, value: Any, depth: int) -> Any:
    """A value as JSON holds it, without secrets, bounded in depth, width and length."""
    if _SECRET.search(key):
        return _MASK
    match value:
        case Mapping() | list() | tuple() | set() | frozenset() if depth >= _MAX_DEPTH:
            return "..."
        case Mapping():
            items = ((_text_of(name), one) for name, one in islice(value.items(), _MAX_ITEMS))
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
            return _bounded(_text_of(value))


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _bounded(text: str, limit: int = _MAX_TEXT) -> str:
    """Without passwords of URLs, and at most `limit` long: the middle gives way."""
    if "://" in text:  # before cutting, which could part a password from its "@"
        text = _USERINFO.sub(rf"\1:{_MASK}@", text)
    if len(text) <= limit:
        return text
    gap = f" ... {len(text) - limit} characters left out ... "
    head = max(0, limit - len(gap)) // 2
    tail = max(0, limit - len(gap) - head)
    return f"{text[:head]}{gap}{text[len(text) - tail :]}"[:limit]


def _spelt(match: re.Match[str]) -> str:
    code = ord(match[0])
    short = {9: r"\t", 10: r"\n", 13: r"\r"}.get(code)
    return short or (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")


def _text_of(value: object) -> str:
    """`str(value)`, whatever it does."""
    try:
        return str(value)
    except Exception as error:  # noqa: BLE001 - __str__ is user code
        return f"<str() of this {type(value).__name__} raised {type(error).__name__}>"


# Tracebacks


_INSIDE: Final = frozenset({"pgtasks", "anyio", "asyncio", "concurrent"})
_USERS_OF_PGTASKS: Final = ("pgtasks.demo",)  # tasks that ship with pgtasks are like the user's
_MAX_CHAIN: Final = 5
_MAX_GROUP: Final = 5
_BECAUSE: Final = "The above exception was the direct cause of the following exception:"
_WHILE: Final = "During handling of the above exception, another exception occurred:"


def short_traceback(error: BaseException, *, limit_frames: int = 20, max_chars: int = 8_000) -> str:
    """A traceback in which the user's own lines stand out.

    Frames inside pgtasks, anyio, asyncio and concurrent are left out (unless there are no others),
    so are those in the middle of a long stack, and causes far from the exception. There are no
    local variables in it, no passwords of URLs, and no control characters but line breaks.

    Args:
        error: the exception, with its causes.
        limit_frames: how many frames of each exception to keep: the first third, the last rest.
        max_chars: the longest text to return.

    Returns:
        the traceback, oldest cause first, as Python prints it.
    """
    lines = _chain(error, max(1, limit_frames), depth=0)
    safe = (_UNSAFE.sub(_spelt, line) for text in lines for line in text.split("\n"))
    return _bounded("\n".join(safe), max_chars)


def _chain(error: BaseException, limit: int, depth: int) -> list[str]:
    """The exception after its causes."""
    links: list[tuple[BaseException, str]] = []
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen and len(links) < _MAX_CHAIN:
        seen.add(id(current))
        because = _BECAUSE if current.__cause__ is not None else _WHILE
        links.append((current, because))
        hidden = current.__suppress_context__
        current = current.__cause__ or (None if hidden else current.__context__)
    lines = [] if current is None else ["[earlier causes left out]", "", links[-1][1], ""]
    for number, (one, _) in enumerate(reversed(links)):
        lines += _one(one, limit, depth)
        if number < len(links) - 1:
            lines += ["", links[-2 - number][1], ""]
    return lines


def _one(error: BaseException, limit: int, depth: int) -> list[str]:
    frames = _kept(list(_frames(error.__traceback__)))
    lines = ["Traceback (most recent call last):"] if frames else []
    first = limit // 3
    for number, frame in enumerate(frames):
        if first <= number < len(frames) - (limit - first):
            if number == first:
                lines.append(f"  [{len(frames) - limit} frames left out]")
            continue
        lines += _frame(*frame)
    lines.append(_headline(error))
    lines += [_bounded(_text_of(note), 2_000) for note in _notes(error)]
    return lines + (_group(error, limit, depth) if isinstance(error, BaseExceptionGroup) else [])


def _group(group: "BaseExceptionGroup[Any]", limit: int, depth: int) -> list[str]:
    if depth >= 2:
        return ["  [inner exceptions left out]"]
    lines: list[str] = []
    for number, error in enumerate(group.exceptions[:_MAX_GROUP], start=1):
        lines.append(f"  [{number} of {len(group.exceptions)}]")
        lines += [
            f"  {line}" for text in _chain(error, limit, depth + 1) for line in text.split("\n")
        ]
    return lines


def _frames(trace: TracebackType | None) -> Iterator[tuple[FrameType, int]]:
    while trace is not None:
        yield trace.tb_frame, trace.tb_lineno
        trace = trace.tb_next


def _kept(frames: list[tuple[FrameType, int]]) -> list[tuple[FrameType, int]]:
    """The user's frames; all of them when the error is ours alone."""
    return [frame for frame in frames if not _is_inside(frame[0])] or frames


def _is_inside(frame: FrameType) -> bool:
    module = str(frame.f_globals.get("__name__", ""))
    return module.partition(".")[0] in _INSIDE and not module.startswith(_USERS_OF_PGTASKS)


def _frame(frame: FrameType, line_number: int) -> Iterator[str]:
    code = frame.f_code
    yield f'  File "{code.co_filename}", line {line_number}, in {code.co_qualname}'
    line = linecache.getline(code.co_filename, line_number, frame.f_globals).strip()
    if line:
        yield f"    {_bounded(line, 200)}"


def _headline(error: BaseException) -> str:
    text = _bounded(_text_of(error), 4_000)
    return f"{_type_name(error)}: {text}" if text else _type_name(error)


def _type_name(error: BaseException) -> str:
    cls = type(error)
    plain = cls.__module__ in {"builtins", "__main__"}
    return cls.__qualname__ if plain else f"{cls.__module__}.{cls.__qualname__}"


def _notes(error: BaseException) -> list[object]:
    notes = getattr(error, "__notes__", None)
    return notes[:_MAX_GROUP] if isinstance(notes, list) else []


def _error(record: logging.LogRecord) -> BaseException | None:
    return record.exc_info[1] if record.exc_info else None
