"""Durations: what is read, what is refused, what is written."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgtasks.duration import LONGEST, format_duration, parse_duration, shown
from pgtasks.errors import ConfigError

SOME = st.timedeltas(min_value=timedelta(0), max_value=LONGEST)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (0, 0),
        (30, 30),
        (0.25, 0.25),
        (0.1, 0.1),
        ("30", 30),
        ("1.5", 1.5),
        ("250ms", 0.25),
        ("7us", 7e-6),
        ("30s", 30),
        ("5m", 300),
        ("1h", 3600),
        ("1d", 86400),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("1d2h3m4s5ms6us", 93784.005006),
        (" 2s ", 2),
        (timedelta(minutes=1), 60),
    ],
)
def test_reads(text: object, seconds: float) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("30 sec", '"30 sec" is not a duration; write "30s"'),
        ("5 Minutes", '"5 Minutes" is not a duration; write "5m"'),
        ("1,5s", '"1,5s" is not a duration; write "1.5s"'),
        ("2 hours and 5 min", '"2 hours and 5 min" is not a duration; write "125m"'),
        ("1H", '"1H" is not a duration; write "1h"'),
        ("30m1h", '"30m1h" is not a duration; write seconds as a number, or e.g. "250ms"'),
        ("soon", '"soon" is not a duration; write seconds as a number, or e.g. "250ms"'),
        ("", '"" is not a duration; write seconds'),
        ("1e3", '"1e3" is not a duration'),
        ("٣s", "is not a duration"),
        ("nan", '"nan" is not a duration'),
        ("inf", '"inf" is not a duration'),
        ("9" * 500, "is not a duration"),
        ("-5s", '"-5s" is negative; write "5s"'),
        (-5, '-5 is negative; write "5s"'),
        (float("nan"), "nan is not a duration"),
        (float("inf"), "inf is not a duration"),
        (True, "true is not a duration"),
        (None, "null is not a duration"),
        ([1], "a list is not a duration"),
        ({}, "a table is not a duration"),
        (36_501 * 86400, 'is too long; write at most "36500d"'),
        (1e300, 'is too long; write at most "36500d"'),
        pytest.param(10**5000, 'this number is too long; write at most "36500d"', id="huge"),
        pytest.param(-(10**5000), "this number is negative; write seconds", id="-huge"),
        ("36500d1s", "is too long"),
        (timedelta.max, "is too long"),
        (1e-9, "is shorter than a microsecond"),
    ],
)
def test_refuses_and_says_the_nearest_valid_form(wrong: object, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_duration(wrong)
    assert says in str(caught.value)


@pytest.mark.parametrize("value", ["-5s", -5, "-1h30m", timedelta(seconds=-5)])
def test_refuses_negative_ones(value: object) -> None:
    with pytest.raises(ConfigError, match=r"is negative; write \"(5s|90m)\""):
        parse_duration(value)


@pytest.mark.parametrize(
    ("length", "text"),
    [
        (timedelta(0), "0s"),
        (timedelta(milliseconds=250), "250ms"),
        (timedelta(seconds=1.5), "1.5s"),
        (timedelta(seconds=30), "30s"),
        (timedelta(seconds=60), "1m"),
        (timedelta(seconds=90), "90s"),
        (timedelta(hours=24), "1d"),
        (timedelta(days=1, seconds=1), "1d1s"),
        (timedelta(microseconds=1), "1us"),
        (-timedelta(seconds=30), "-30s"),
        (LONGEST, "36500d"),
    ],
)
def test_writes_the_shortest_form(length: timedelta, text: str) -> None:
    assert format_duration(length) == text


@given(SOME)
def test_what_is_written_is_read_back_exactly(length: timedelta) -> None:
    assert parse_duration(format_duration(length)) == length


@given(st.text(max_size=80) | st.integers() | st.floats() | st.booleans())
def test_anything_else_is_refused_with_a_config_error(value: object) -> None:
    """Whatever the value, there is a duration in bounds or a ConfigError, nothing else."""
    try:
        length = parse_duration(value)
    except ConfigError as error:
        assert "\n" not in str(error)  # noqa: PT017 - both ways out are fine here
    else:
        assert timedelta(0) <= length <= LONGEST


def test_wrong_values_are_shown_short_and_on_one_line() -> None:
    assert shown("a\nb") == '"a\\nb"'
    assert len(shown("x" * 1000)) < 80
    assert shown(timedelta(seconds=5)) == '"5s"'
