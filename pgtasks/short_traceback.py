"""Tracebacks in which the user's own lines stand out."""

import linecache
from collections.abc import Iterator
from itertools import islice
from traceback import walk_tb
from types import FrameType
from typing import Any, Final

from pgtasks.safe_text import bounded, spelt_out, text_of

_INSIDE: Final = frozenset({"pgtasks", "anyio", "asyncio", "concurrent"})
_USERS_OF_PGTASKS: Final = ("pgtasks.demo",)  # tasks that ship with pgtasks are like the user's
_MAX_FRAMES: Final = 20
_MAX_CHAIN: Final = 5
_MAX_GROUP: Final = 5
_MAX_DEPTH: Final = 2
_BECAUSE: Final = "The above exception was the direct cause of the following exception:"
_WHILE: Final = "During handling of the above exception, another exception occurred:"


def short_traceback(error: BaseException, *, max_chars: int = 8_000) -> str:
    """A traceback as Python prints it, oldest cause first, bounded and storable anywhere.

    Frames inside pgtasks, anyio, asyncio and concurrent are left out (unless there are no others),
    so are those in the middle of a long stack, and causes far from the exception. There are no
    local variables in it, no passwords of URLs, and no control characters but line breaks.

    Args:
        error: the exception, with its causes.
        max_chars: the longest text to return.
    """
    lines = (spelt_out(line) for text in _chain(error) for line in text.split("\n"))
    return bounded("\n".join(lines), max_chars)


def type_name(error: BaseException) -> str:
    """The name of an exception's class, with its module unless everybody knows it."""
    cls = type(error)
    plain = cls.__module__ in {"builtins", "__main__"}
    return cls.__qualname__ if plain else f"{cls.__module__}.{cls.__qualname__}"


def _chain(error: BaseException, depth: int = 0) -> list[str]:
    """The exception after its causes."""
    newest_first = list(islice(_causes(error), _MAX_CHAIN + 1))
    lines = ["[earlier causes left out]"] if len(newest_first) > _MAX_CHAIN else []
    for one, reason in reversed(newest_first[:_MAX_CHAIN]):
        lines += ["", reason, ""] if lines else []
        lines += _one(one, depth)
    return lines


def _causes(error: BaseException) -> Iterator[tuple[BaseException, str]]:
    """The exception, what led to it, and so on; each with the words that join it to the next."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current, _WHILE if current.__cause__ is None else _BECAUSE
        context = None if current.__suppress_context__ else current.__context__
        current = current.__cause__ or context


def _one(error: BaseException, depth: int) -> list[str]:
    """One exception: its frames, its text, its notes, and what it holds if it is a group."""
    lines = [*_stack(error), _headline(error)]
    lines += [bounded(text_of(note), 2_000) for note in _notes(error)]
    return lines + (_group(error, depth) if isinstance(error, BaseExceptionGroup) else [])


def _stack(error: BaseException) -> list[str]:
    """The user's frames, or all of them when the error is ours alone: the first and the last."""
    every = list(walk_tb(error.__traceback__))
    frames = [frame for frame in every if not _is_inside(frame[0])] or every
    if not frames:
        return []
    left_out = len(frames) - _MAX_FRAMES
    first = _MAX_FRAMES // 3 if left_out > 0 else len(frames)
    lines = ["Traceback (most recent call last):"]
    lines += [line for frame in frames[:first] for line in _frame(*frame)]
    if left_out > 0:
        lines.append(f"  [{left_out} frames left out]")
        lines += [line for frame in frames[first + left_out :] for line in _frame(*frame)]
    return lines


def _is_inside(frame: FrameType) -> bool:
    module = str(frame.f_globals.get("__name__", ""))
    return module.partition(".")[0] in _INSIDE and not module.startswith(_USERS_OF_PGTASKS)


def _frame(frame: FrameType, line_number: int) -> Iterator[str]:
    code = frame.f_code
    yield f'  File "{code.co_filename}", line {line_number}, in {code.co_qualname}'
    line = linecache.getline(code.co_filename, line_number, frame.f_globals).strip()
    if line:
        yield f"    {bounded(line, 200)}"


def _headline(error: BaseException) -> str:
    text = bounded(text_of(error), 4_000)
    return f"{type_name(error)}: {text}" if text else type_name(error)


def _notes(error: BaseException) -> list[object]:
    notes = getattr(error, "__notes__", None)
    return notes[:_MAX_GROUP] if isinstance(notes, list) else []


def _group(group: "BaseExceptionGroup[Any]", depth: int) -> list[str]:
    if depth >= _MAX_DEPTH:
        return ["  [inner exceptions left out]"]
    lines: list[str] = []
    for number, error in enumerate(group.exceptions[:_MAX_GROUP], start=1):
        inner = [line for text in _chain(error, depth + 1) for line in text.split("\n")]
        lines += [f"  [{number} of {len(group.exceptions)}]", *(f"  {line}" for line in inner)]
    return lines
