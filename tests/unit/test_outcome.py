"""What a task may raise or return to steer its message."""

from datetime import timedelta

import pytest

from pgtasks.errors import ConfigError, PgtasksError
from pgtasks.outcome import Discard, RetryLater, Signal, Snooze


@pytest.mark.parametrize("signal", [RetryLater, Snooze])
@pytest.mark.parametrize(
    ("delay", "expected"),
    [
        (30, 30.0),
        (0.25, 0.25),
        ("250ms", 0.25),
        ("5m", 300.0),
        (timedelta(hours=1), 3600.0),
        (0, 0),
    ],
)
def test_a_delay_is_written_as_everywhere_else(
    signal: type[RetryLater] | type[Snooze], delay: float | str | timedelta, expected: float
):
    made = signal(delay, "busy")
    assert made.delay == timedelta(seconds=expected)
    assert (made.reason, str(made)) == ("busy", "busy")


@pytest.mark.parametrize("signal", [RetryLater, Snooze])
@pytest.mark.parametrize("delay", [-1, "soon", float("nan"), float("inf"), True, None])
def test_a_delay_that_is_none_is_refused(signal: type[RetryLater], delay: object):
    with pytest.raises(ConfigError):
        signal(delay)  # type: ignore[arg-type]


def test_a_reason_may_be_left_out():
    assert [str(one) for one in (RetryLater(1), Snooze(1), Discard())] == ["", "", ""]
    assert Discard("closed").reason == "closed"


def test_signals_are_exceptions_and_no_errors_of_ours():
    for kind in (RetryLater, Snooze, Discard):
        assert issubclass(kind, Signal)
        assert not issubclass(kind, PgtasksError)
