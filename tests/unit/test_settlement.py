"""How a lease ends, decided from how the run went."""

import json
from datetime import datetime, timedelta
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgtasks import settlement as settle
from pgtasks.config import TaskConfig
from pgtasks.message import MAX_ERRORS, Message
from pgtasks.outcome import Discard, RetryLater, Snooze
from pgtasks.policy import Policy, TaskSettings
from pgtasks.settlement import MAX_ERROR_CHARS, MAX_TRACEBACK_CHARS, Run, Settlement

RUN = Run(0.1234567, "host:1")
NOW = timedelta(0)


class BrokenError(Exception):
    """Its text cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


def message(delivery: int = 1, **state: Any) -> Message:
    headers = json.dumps({"pgtasks": state}) if state else None
    return Message("q", 7, delivery, 1e9, "{}", headers, 0.0)


def policy(**settings: Any) -> Policy:
    defaults = TaskConfig(delay=timedelta(seconds=2), jitter=NOW, retries=2)
    return Policy.of(TaskSettings(**settings), defaults, durable=False)


def state(settlement: Settlement) -> dict[str, Any]:
    assert settlement.state is not None
    stored: dict[str, Any] = json.loads(settlement.state)
    return stored


def raised(error: BaseException) -> BaseException:
    """The error with a traceback, as a run gives it."""

    try:
        raise error  # noqa: TRY301
    except BaseException as caught:  # noqa: BLE001
        return caught


# It returned


def test_success_deletes():
    made = settle.succeeded(message(), policy(), RUN)
    assert (made.action, made.kind, made.state, made.durable) == ("complete", "done", None, False)


def test_success_archives_with_what_is_worth_knowing():
    made = settle.succeeded(
        message(failures=2, errors=[{"a": 1}]), policy(on_success="archive"), RUN
    )
    assert (made.action, made.kind) == ("archive", "done")
    assert state(made) == {
        "failures": 2,
        "errors": [{"a": 1}],
        "outcome": "done",
        "attempts": 3,
        "seconds": 0.123457,
        "worker": "host:1",
    }


@pytest.mark.parametrize("action", ["delete", "archive"])
def test_a_durable_task_is_settled_durably(action: Any):
    durable = attrs.evolve(policy(on_success=action, on_failure=action, retries=0), durable=True)
    assert settle.succeeded(message(), durable, RUN).durable
    assert settle.failed(message(), durable, ValueError(), RUN).durable
    assert settle.failed(
        message(), attrs.evolve(durable, retry=policy().retry), ValueError(), RUN
    ).durable
    assert settle.asked_for_later(message(), durable, RetryLater(1), RUN).durable
    assert settle.discarded(message(), durable, Discard(), RUN).durable


# It failed


def test_a_failure_is_tried_again_by_its_policy():
    made = settle.failed(message(), policy(), raised(ValueError("no")), RUN)
    assert (made.action, made.kind, made.delay) == ("retry", "retried", timedelta(seconds=2))
    stored = state(made)
    assert stored["failures"] == 1
    [error] = stored["errors"]
    assert (error["attempt"], error["error"], error["worker"]) == (1, "ValueError: no", "host:1")
    assert "ValueError: no" in error["traceback"]
    assert datetime.fromisoformat(error["at"]).tzinfo is not None
    assert "outcome" not in stored


def test_pauses_grow_with_failures_and_not_with_deliveries():
    made = settle.failed(message(delivery=90, failures=1, snoozes=50), policy(), ValueError(), RUN)
    assert made.delay == timedelta(seconds=4)


def test_a_message_is_given_up_when_its_retries_are_used():
    made = settle.failed(message(failures=2), policy(), raised(ValueError("no")), RUN)
    assert (made.action, made.kind) == ("archive", "given up")
    stored = state(made)
    assert (stored["outcome"], stored["attempts"], stored["failures"]) == ("failed", 3, 3)
    assert stored["errors"][-1]["attempt"] == 3


def test_a_message_that_is_given_up_may_be_deleted():
    made = settle.failed(message(failures=2), policy(on_failure="delete"), ValueError(), RUN)
    assert (made.action, made.kind, made.state) == ("complete", "given up", None)


def test_only_the_last_errors_are_kept():
    before = message(failures=9, errors=[{"n": n} for n in range(MAX_ERRORS)])
    stored = state(settle.failed(before, policy(retries=50), ValueError(), RUN))
    assert len(stored["errors"]) == MAX_ERRORS
    assert [stored["errors"][0]["n"], stored["errors"][-1]["attempt"]] == [1, 10]


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x" * 5_000_000),
        ValueError("a\0b\ud800c\x1b[31m"),
        BrokenError(),
        BaseExceptionGroup("many", [ValueError(str(n)) for n in range(500)]),
        SystemExit(3),
        KeyboardInterrupt(),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_was_raised_can_be_stored(error: BaseException):
    stored = settle.failed(message(), policy(), raised(error), RUN).state
    assert stored is not None
    assert "\\u0000" not in stored
    stored.encode()
    assert len(stored) < 3 * (MAX_ERROR_CHARS + MAX_TRACEBACK_CHARS)
    [record] = json.loads(stored)["errors"]
    assert len(record["error"]) <= MAX_ERROR_CHARS
    assert len(record["traceback"]) <= MAX_TRACEBACK_CHARS
    assert type(error).__name__ in record["error"]


def test_a_chain_without_end_is_bounded():
    error = ValueError("first")
    for number in range(2000):
        before, error = error, ValueError(str(number) * 50)
        error.__cause__ = before
    error.__cause__.__cause__ = error  # type: ignore[union-attr]
    stored = settle.failed(message(), policy(), error, RUN).state
    assert stored is not None
    assert len(stored) < 3 * (MAX_ERROR_CHARS + MAX_TRACEBACK_CHARS)


def test_a_traceback_tells_no_value_of_a_variable():
    def fail() -> None:
        password = "hunter2" * 2  # noqa: F841
        raise ValueError("no")

    try:
        fail()
    except ValueError as error:
        stored = settle.failed(message(), policy(), error, RUN).state
    assert stored is not None
    assert "hunter2hunter2" not in stored


# It asked


def test_retry_later_counts_as_a_failure_with_its_own_delay():
    made = settle.asked_for_later(message(failures=1), policy(), RetryLater("90s", "busy"), RUN)
    assert (made.action, made.kind, made.delay) == ("retry", "retried", timedelta(seconds=90))
    assert state(made)["failures"] == 2
    assert state(made)["errors"][0]["error"] == "RetryLater: busy"


def test_retry_later_cannot_go_on_for_ever():
    made = settle.asked_for_later(message(failures=2), policy(), RetryLater(1), RUN)
    assert (made.action, state(made)["outcome"]) == ("archive", "failed")


def test_retry_later_is_heard_by_a_policy_that_only_retries_certain_errors():
    from pgtasks.retry import Retry

    picky = policy(retries=Retry(max_retries=2, retry_on=OSError))
    assert settle.asked_for_later(message(), picky, RetryLater(1), RUN).kind == "retried"
    assert settle.failed(message(), picky, ValueError(), RUN).kind == "given up"


def test_retry_later_asks_a_function_whether_to_go_on():
    giving_up = policy(retries=lambda failures, error: None)
    assert settle.asked_for_later(message(), giving_up, RetryLater(1), RUN).kind == "given up"


def test_a_snooze_costs_no_attempt():
    made = settle.snoozed(message(failures=1, snoozes=4), Snooze(60))
    assert (made.action, made.kind, made.delay) == ("retry", "snoozed", timedelta(seconds=60))
    assert state(made) == {"failures": 1, "snoozes": 5}


def test_a_discard_is_final():
    made = settle.discarded(message(), policy(), Discard("closed"), RUN)
    assert (made.action, made.kind) == ("archive", "given up")
    assert (state(made)["outcome"], state(made)["attempts"]) == ("discarded", 1)
    assert state(made)["errors"][0]["error"] == "Discard: closed"
    assert (
        settle.discarded(message(), policy(on_failure="delete"), Discard(), RUN).action
        == "complete"
    )


# It was not run, or not to its end


def test_a_release_costs_no_attempt_and_is_due_at_once():
    made = settle.released(message(failures=1, releases=1))
    assert (made.action, made.kind, made.delay) == ("retry", "released", NOW)
    assert state(made) == {"failures": 1, "releases": 2}


def test_an_unknown_task_is_put_back_for_longer_each_time():
    bounds = []
    for times in range(14):
        made = settle.not_for_us(message(unknown=times))
        assert (made.action, made.kind) == ("retry", "put back")
        assert state(made) == {"unknown": times + 1}
        bounds.append(made.delay.total_seconds())
        assert min(300, 2**times) / 2 <= bounds[-1] <= min(300, 2**times)
    assert bounds[-1] > bounds[0]


def test_what_cannot_be_decoded_is_archived_with_the_reason():
    made = settle.undecodable(message(failures=1), "no\0 json \ud800" + "x" * 9000, RUN)
    assert (made.action, made.kind) == ("archive", "given up")
    assert (state(made)["outcome"], state(made)["failures"]) == ("undecodable", 1)
    assert len(state(made)["reason"]) <= MAX_ERROR_CHARS
    assert "\0" not in state(made)["reason"]


def test_a_proven_crash_is_archived():
    made = settle.crashed(message(crashes=3), "signal 9", RUN)
    assert made.action == "archive"
    assert (state(made)["outcome"], state(made)["reason"]) == ("crashed", "signal 9")
    assert state(made)["crashes"] == 3


# Always


@given(
    st.dictionaries(
        st.sampled_from(["failures", "snoozes", "releases", "unknown", "crashes"]),
        st.integers(0, 2**31 - 2),
    )
)
def test_no_way_out_forgets_what_was_counted(before: dict[str, int]):
    kept = {name: number for name, number in before.items() if number}
    archiving = policy(on_success="archive", retries=2**31 - 1)
    ways = {
        "": settle.succeeded(message(**before), archiving, RUN),
        "failures": settle.failed(message(**before), archiving, ValueError(), RUN),
        "snoozes": settle.snoozed(message(**before), Snooze(1)),
        "releases": settle.released(message(**before)),
        "unknown": settle.not_for_us(message(**before)),
    }
    for counted, made in ways.items():
        expected = dict(kept)
        if counted:
            expected[counted] = expected.get(counted, 0) + 1
        found = {name: number for name, number in state(made).items() if name in expected}
        assert found == expected


def test_an_error_is_described_in_one_line():
    assert settle.describe_error(ValueError("no")) == "ValueError: no"
    assert settle.describe_error(ValueError()) == "ValueError"
    assert settle.describe_error(BrokenError()) == (
        "BrokenError: <str() of this BrokenError raised RuntimeError>"
    )
