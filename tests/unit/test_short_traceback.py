"""Tracebacks: the user's lines, bounded, and storable anywhere."""

import asyncio
import re
from collections.abc import Callable
from typing import TypeVar

import anyio
import anyio.to_thread
import pytest

from pgtasks.short_traceback import short_traceback


class UnprintableError(Exception):
    """An exception whose text cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError("no")


E = TypeVar("E", bound=BaseException)


def _caught(error: E) -> E:
    try:
        raise error
    except type(error) as caught:
        return caught


def _of(fail: Callable[[], object]) -> Exception:
    try:
        fail()
    except Exception as error:  # noqa: BLE001 - any
        return error
    return pytest.fail("nothing was raised")


def _users_function(password: str) -> None:
    raise ValueError(f"{len(password)} is too long")


def test_frames_of_the_machinery_are_left_out() -> None:
    password = "hunter2"

    async def run() -> None:
        await anyio.to_thread.run_sync(_users_function, password)

    with pytest.raises(ValueError, match="too long") as caught:
        asyncio.run(run())
    text = short_traceback(caught.value)
    assert "in _users_function\n    raise ValueError(" in text
    assert text.endswith("\nValueError: 7 is too long")
    assert not re.search(r'File ".*(anyio|asyncio|concurrent)\W', text)
    assert password not in text


def test_an_error_of_the_machinery_alone_keeps_its_frames() -> None:
    error = _of(lambda: asyncio.run(None))  # type: ignore[arg-type]
    trace = error.__traceback__
    while trace is not None and __file__ in trace.tb_frame.f_code.co_filename:
        trace = trace.tb_next
    text = short_traceback(error.with_traceback(trace))
    assert re.match(r'Traceback \(most recent call last\):\n  File ".*asyncio', text)


def test_causes_come_first() -> None:
    def fail() -> None:
        try:
            {"a": 1}["inner"]
        except KeyError as error:
            raise ValueError("outer") from error

    text = short_traceback(_of(fail))
    assert text.index("KeyError: 'inner'") < text.index("direct cause") < text.index("outer")


def test_a_context_is_shown_unless_suppressed() -> None:
    def fail() -> None:
        try:
            {"a": 1}["inner"]
        except KeyError:
            raise ValueError("outer")  # noqa: B904 - the point

    def hide() -> None:
        try:
            {"a": 1}["inner"]
        except KeyError:
            raise ValueError("outer") from None

    assert "During handling" in short_traceback(_of(fail))
    assert "inner" not in short_traceback(_of(hide))


def test_notes_and_groups_are_shown() -> None:
    inner = _caught(KeyError("k"))
    group = ExceptionGroup("several", [inner, ValueError("v")])
    group.add_note("think of x")
    text = short_traceback(group)
    assert "several (2 sub-exceptions)\nthink of x\n" in text
    assert "  [1 of 2]\n  Traceback" in text
    assert text.endswith("  [2 of 2]\n  ValueError: v")


def test_a_recursion_is_short() -> None:
    def down(number: int) -> int:
        return down(number + 1)

    text = short_traceback(_of(lambda: down(0)))
    assert text.count("File ") == 20
    assert re.search(r"\n  \[\d+ frames left out\]\n", text)
    assert "RecursionError" in text


def test_the_limit_of_frames_is_exact() -> None:
    def down(number: int) -> None:
        if number:
            down(number - 1)
        else:
            raise ValueError("x")

    for frames in range(10, 30):
        text = short_traceback(_of(lambda: down(frames - 3)))  # noqa: B023 - called at once
        assert text.count("File ") == min(frames, 20)
        assert (f"[{frames - 20} frames left out]" in text) is (frames > 20)
        assert text.splitlines()[-3].endswith("in test_the_limit_of_frames_is_exact.<locals>.down")


def test_a_long_chain_is_short() -> None:
    error: BaseException = ValueError("first")
    for number in range(5000):
        following = ValueError(f"number {number}")
        following.__cause__ = error
        error = following
    text = short_traceback(error)
    assert text.startswith("[earlier causes left out]\n\nThe above exception was the direct cause")
    assert text.count("ValueError") == 5
    assert text.endswith("number 4999")


def test_a_chain_that_bites_its_tail() -> None:
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one
    assert short_traceback(one).count("ValueError") == 2


def test_deep_groups_are_bounded() -> None:
    error: Exception = ValueError("x")
    for _ in range(500):
        error = ExceptionGroup("g", [error])
    assert "inner exceptions left out" in short_traceback(error)


@pytest.mark.parametrize("limit", [10, 100, 500])
def test_the_longest_text_is_kept_to(limit: int) -> None:
    error = _caught(ValueError("x" * 100_000))
    assert len(short_traceback(error, max_chars=limit)) == limit


def test_an_exception_that_cannot_be_printed() -> None:
    assert short_traceback(UnprintableError()).endswith(
        "UnprintableError: <str() of this UnprintableError raised RuntimeError>"
    )


def test_a_traceback_can_be_stored_anywhere() -> None:
    """Postgres keeps no NUL in jsonb, and UTF-8 no surrogate."""
    text = short_traceback(_caught(ValueError("a\x00\ud800\x1b[0m\nb")))
    assert text.endswith("ValueError: a\\x00\\ud800\\x1b[0m\nb")
