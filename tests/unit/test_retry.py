"""When a failed message is tried again, for how long it waits, and what a policy refuses."""

import asyncio
import inspect
import logging
import math
import pickle
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pgtasks.errors import TaskDefinitionError
from pgtasks.retry import CallableRetry, Retry

unhurried = settings(deadline=None)
ZERO = timedelta(0)
FOR_EVER = 2**63
delays = st.timedeltas(ZERO, timedelta(days=36_500))
caps = st.timedeltas(timedelta(microseconds=1), timedelta(days=36_500))
retries = st.builds(
    Retry,
    max_retries=st.just(FOR_EVER),
    delay=delays,
    jitter=delays,
    max_delay=caps,
    backoff=st.sampled_from(["exponential", "linear", "constant"]),
)
failures = st.integers(0, 10**6) | st.integers(0, 2**62)
shares = st.floats(0, 1, exclude_max=True)


def seconds(*values: float) -> list[timedelta]:
    return [timedelta(seconds=value) for value in values]


def pauses(retry: Retry, count: int) -> list[timedelta | None]:
    return [retry.delay_after(n, None, random=lambda: 0.0) for n in range(1, count + 1)]


@unhurried
@given(retries, failures, shares)
@example(Retry(FOR_EVER), 10**6, 0.5)
@example(Retry(FOR_EVER, delay=timedelta(days=36_500), jitter=timedelta(days=36_500)), 2**62, 0.9)
def test_every_pause_is_within_its_bounds(retry: Retry, count: int, share: float) -> None:
    shortest, longest = retry.bounds(count)
    pause = retry.delay_after(count, None, random=lambda: share)
    assert pause is not None
    assert ZERO <= shortest <= pause <= longest <= retry.max_delay


@unhurried
@given(retries, failures, failures)
def test_no_pause_shrinks(retry: Retry, first: int, second: int) -> None:
    earlier, later = (retry.bounds(count) for count in sorted((first, second)))
    assert earlier[0] <= later[0]
    assert earlier[1] <= later[1]


@unhurried
@given(retries)
def test_a_million_attempts_end_at_the_cap_or_below(retry: Retry) -> None:
    """Every one of them, not only those that happen to be drawn; nothing is too large for it."""
    last = retry.bounds(0)
    for count in [*range(200), *range(200, 10**6, 9973), 10**6]:
        bounds = retry.bounds(count)
        assert ZERO <= bounds[0] <= bounds[1] <= retry.max_delay
        assert last <= bounds
        last = bounds


@unhurried
@given(retries, failures)
def test_jitter_is_added_and_never_multiplied(retry: Retry, count: int) -> None:
    shortest, longest = retry.bounds(count)
    assert longest - shortest <= retry.jitter
    if longest < retry.max_delay:
        assert longest - shortest == retry.jitter


@unhurried
@given(st.integers(1, 10**6), st.integers(0, 30))
def test_milliseconds_survive(milliseconds: int, doublings: int) -> None:
    retry = Retry(FOR_EVER, delay=milliseconds / 1000, jitter=0, max_delay=timedelta(days=36_000))
    expected = min(timedelta(milliseconds=milliseconds * 2**doublings), retry.max_delay)
    assert retry.bounds(doublings + 1) == (expected, expected)


@unhurried
@given(retries, st.integers(0, 150))
def test_pauses_together_are_their_sum(retry: Retry, count: int) -> None:
    pairs = [retry.bounds(one) for one in range(1, count + 1)]
    for one, total in enumerate(retry.waited(count)):
        expected = sum((pair[one] for pair in pairs), ZERO)
        # As a whole number of microseconds: a float is not that exact over thousands of years.
        assert abs(total - expected / timedelta(seconds=1)) <= 1e-6 * max(1.0, total)


@unhurried
@given(retries, st.integers(0, 10**6), st.integers(0, 10**6))
@example(Retry(delay=timedelta(days=36_500), max_delay=timedelta(days=36_500)), 10**6, 0)
def test_pauses_together_grow_and_are_finite(retry: Retry, first: int, second: int) -> None:
    earlier, later = (retry.waited(count) for count in sorted((first, second)))
    for one in (0, 1):
        assert 0 <= earlier[one] <= later[one] <= 10**6 * retry.max_delay.total_seconds() + 1
    assert later[0] <= later[1]
    assert math.isfinite(later[1])


def test_exponential() -> None:
    retry = Retry(delay=1, jitter=0, max_delay=10)
    assert pauses(retry, 6) == seconds(1, 2, 4, 8, 10, 10)


def test_linear() -> None:
    retry = Retry(delay="250ms", jitter=0, max_delay=1, backoff="linear")
    assert pauses(retry, 6) == seconds(0.25, 0.5, 0.75, 1, 1, 1)


def test_constant() -> None:
    assert pauses(Retry(delay=3, jitter=9, backoff="constant"), 3) == seconds(3, 3, 3)


def test_jitter_is_drawn_each_time() -> None:
    retry = Retry(delay=1, jitter=1)
    drawn = {retry.delay_after(1, None) for _ in range(50)}
    assert len(drawn) > 40


def test_defaults() -> None:
    retry = Retry()
    assert (retry.max_retries, retry.backoff) == (25, "exponential")
    assert [retry.delay, retry.jitter, retry.max_delay] == seconds(1, 1, 86_400)


def test_the_last_retry() -> None:
    retry = Retry(max_retries=2)
    assert retry.delay_after(2, None) is not None
    assert retry.delay_after(3, None) is None
    assert Retry(max_retries=0).delay_after(1, ValueError()) is None


@pytest.mark.parametrize(
    ("options", "error", "again"),
    [
        ({}, ValueError(), True),
        ({}, SystemExit(), True),
        ({}, asyncio.CancelledError(), True),
        ({}, None, True),
        ({"retry_on": OSError}, ConnectionError(), True),
        ({"retry_on": OSError}, ValueError(), False),
        ({"retry_on": (OSError, ValueError)}, ValueError(), True),
        ({"retry_on": OSError}, None, True),
        ({"give_up_on": ValueError}, ValueError(), False),
        ({"give_up_on": ValueError}, OSError(), True),
        ({"retry_on": OSError, "give_up_on": ConnectionError}, ConnectionError(), False),
        ({"retry_on": OSError}, ExceptionGroup("", [ValueError(), OSError()]), True),
        ({"retry_on": OSError}, ExceptionGroup("", [ValueError()]), False),
        ({"give_up_on": ValueError},
         ExceptionGroup("", [OSError(), ExceptionGroup("", [ValueError()])]), False),
        ({"retry_on": ExceptionGroup}, ExceptionGroup("", [OSError()]), True),
    ],
)  # fmt: skip
def test_which_errors_are_tried_again(
    options: dict[str, Any], error: BaseException | None, *, again: bool
) -> None:
    assert (Retry(**options).delay_after(1, error) is not None) is again


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_retries": -1}, "Retry(max_retries=...) is a whole number from 0, not -1"),
        ({"max_retries": True}, "not True"),
        ({"max_retries": 1.0}, "not 1.0"),
        ({"delay": -1}, "Retry(delay=...): -1 is negative"),
        ({"delay": math.nan}, "Retry(delay=...): nan is not a duration"),
        ({"jitter": math.inf}, "Retry(jitter=...): inf is not a duration"),
        ({"jitter": "soon"}, "Retry(jitter=...):"),
        ({"max_delay": 0}, "Retry(max_delay=...) is 0"),
        ({"max_delay": 10**12}, "Retry(max_delay=...): 1000000000000 is too long"),
        ({"delay": True}, "Retry(delay=...)"),
        ({"backoff": "cubic"}, 'Retry(backoff=...) is "exponential", "linear" or "constant"'),
        ({"retry_on": ValueError()}, "Retry(retry_on=...) takes exception classes"),
        ({"retry_on": (OSError, int)}, "not <class 'int'>"),
        ({"give_up_on": "OSError"}, "Retry(give_up_on=...) takes exception classes"),
    ],
)
def test_what_is_no_policy(options: dict[str, Any], said: str) -> None:
    with pytest.raises(TaskDefinitionError) as caught:
        Retry(**options)
    assert said in str(caught.value)


def test_of_a_number_a_policy_or_nothing() -> None:
    defaults = Retry(max_retries=7, delay=3)
    assert Retry.of(None, defaults) is defaults
    assert Retry.of(2, defaults) == Retry(max_retries=2, delay=3)
    own = Retry(max_retries=1)
    assert Retry.of(own, defaults) == Retry(max_retries=1, delay=3)
    nonsense: list[Any] = ["5", True, 2.5, -1]
    for value in nonsense:
        with pytest.raises(TaskDefinitionError):
            Retry.of(value, defaults)


def test_of_a_function() -> None:
    seen: list[tuple[int, BaseException]] = []

    def decide(count: int, error: BaseException) -> float | None:
        seen.append((count, error))
        return 0.25 if count < 3 else None

    policy = Retry.of(decide, Retry())
    error = ValueError()
    assert policy.delay_after(1, error) == timedelta(milliseconds=250)
    assert policy.delay_after(3, error) is None
    assert seen == [(1, error), (3, error)]
    assert Retry.of(lambda *_: "5m", Retry()).delay_after(1, error) == timedelta(minutes=5)
    assert Retry.of(lambda *_: ZERO, Retry()).delay_after(1, error) == ZERO


def raising(_: int, __: BaseException) -> float:
    raise KeyError("nobody told me")


def returning(value: Any) -> Callable[[int, BaseException], Any]:
    return lambda *_: value


@pytest.mark.parametrize(
    "function",
    [raising, lambda: 1, *map(returning, (-1, math.nan, math.inf, "x", True, [], 1e30))],
)
def test_a_function_that_gives_no_pause_loses_no_message(
    function: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    policy = Retry.of(function, Retry(max_retries=2, delay=7, jitter=0))
    with caplog.at_level(logging.DEBUG, "pgtasks.retry"):
        assert policy.delay_after(1, None) == timedelta(seconds=7)
        assert policy.delay_after(2, ValueError()) == timedelta(seconds=14)
        assert policy.delay_after(3, ValueError()) is None
    [record] = caplog.records
    assert record.exc_info is not None
    assert "gave no pause; the defaults decide, the first one is 7s" in record.getMessage()


def test_policies_can_be_compared_and_kept() -> None:
    assert Retry(delay=1) == Retry(delay=timedelta(seconds=1))
    assert len({Retry(), Retry(), Retry(jitter=0)}) == 2
    assert CallableRetry(raising, Retry()) == CallableRetry(raising, Retry())


# What is left open


GIVEN: dict[str, Any] = {
    "max_retries": 3, "delay": "2s", "jitter": "3s", "max_delay": "1h", "backoff": "linear",
    "retry_on": OSError, "give_up_on": (KeyError, ValueError),
}  # fmt: skip
DEFAULTS = Retry(9, "9s", "8s", "7h", "constant", (TypeError, OSError), TypeError)


@given(st.sets(st.sampled_from(sorted(GIVEN))))
def test_each_field_that_is_left_open_is_the_defaults(names: set[str]) -> None:
    own = Retry(**{name: GIVEN[name] for name in names})
    whole = Retry(**GIVEN)
    assert own.given == names
    filled = Retry.of(own, DEFAULTS)
    assert isinstance(filled, Retry)
    for name in GIVEN:
        expected = whole if name in names else DEFAULTS
        assert getattr(filled, name) == getattr(expected, name), name
    assert filled.filled(Retry()) == filled


def test_what_is_given_is_given_even_when_it_is_the_default() -> None:
    assert Retry(25, delay=1).filled(DEFAULTS) == Retry(
        25, 1, "8s", "7h", "constant", (TypeError, OSError), TypeError
    )
    assert Retry(give_up_on=()).filled(DEFAULTS).give_up_on == ()


def test_alone_it_stands_on_its_own_defaults() -> None:
    assert pauses(Retry(delay="250ms"), 3) == seconds(0.25, 0.5, 1)
    assert Retry().bounds(1) == (timedelta(seconds=1), timedelta(seconds=2))
    assert Retry() == Retry(25, 1, 1, "1d", "exponential", BaseException, ())


def test_it_shows_what_was_given() -> None:
    assert repr(Retry()) == "Retry()"
    assert repr(Retry(5, delay="250ms", give_up_on=ValueError)) == (
        'Retry(max_retries=5, delay="250ms", give_up_on=ValueError)'
    )
    assert repr(Retry(retry_on=(OSError, KeyError))) == "Retry(retry_on=(OSError, KeyError))"
    assert "max_retries: int = 25" in str(inspect.signature(Retry))


def test_it_travels_between_processes() -> None:
    own = pickle.loads(pickle.dumps(Retry(5, backoff="linear")))
    assert own == Retry(5, backoff="linear")
    assert own.given == {"max_retries", "backoff"}


def test_a_function_falls_back_to_the_defaults_in_all() -> None:
    policy = Retry.of(raising, DEFAULTS)
    assert policy.delay_after(1, OSError(), random=lambda: 0.0) == timedelta(seconds=9)
    assert policy.delay_after(1, TypeError()) is None
