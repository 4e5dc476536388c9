"""What decides how a task's messages are run: decorator, configuration, one message's options."""

from datetime import timedelta
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgtasks.config import TaskConfig
from pgtasks.errors import ConfigError, QueueNameError, TaskDefinitionError
from pgtasks.policy import SHORTEST_LEASE, UNSET, Policy, TaskSettings
from pgtasks.retry import CallableRetry, Retry

DEFAULTS = TaskConfig()


def policy(**settings: Any) -> Policy:
    return Policy.of(TaskSettings(**settings), DEFAULTS, durable=False)


def test_what_the_decorator_leaves_open_is_the_configurations():
    defaults = TaskConfig(
        queue="mine", timeout=timedelta(seconds=7), lease=timedelta(seconds=9), retries=3,
        delay=timedelta(seconds=2), jitter=timedelta(seconds=3), max_delay=timedelta(hours=1),
        backoff="linear", on_success="archive", on_failure="delete",
    )  # fmt: skip
    made = Policy.of(TaskSettings(), defaults, durable=True)
    assert made == Policy(
        queue="mine",
        retry=Retry(3, "2s", "3s", "1h", "linear"),
        timeout=timedelta(seconds=7),
        lease=timedelta(seconds=9),
        on_success="archive",
        on_failure="delete",
        durable=True,
    )


def test_what_the_decorator_says_wins():
    made = policy(
        queue="other", retries=1, timeout="2s", lease=5, on_success="archive",
        on_failure="delete", durable=True,
    )  # fmt: skip
    assert (made.queue, made.on_success, made.on_failure) == ("other", "archive", "delete")
    assert (made.timeout_seconds, made.lease, made.durable) == (2.0, timedelta(seconds=5), True)
    assert isinstance(made.retry, Retry)
    assert (made.retry.max_retries, made.retry.delay) == (1, DEFAULTS.delay)


@pytest.mark.parametrize(
    ("own", "name", "value"),
    [
        (Retry(max_retries=3), "max_retries", 3),
        (Retry(delay="5s"), "delay", timedelta(seconds=5)),
        (Retry(jitter=0), "jitter", timedelta(0)),
        (Retry(max_delay="3h"), "max_delay", timedelta(hours=3)),
        (Retry(backoff="constant"), "backoff", "constant"),
        (Retry(retry_on=OSError), "retry_on", (OSError,)),
        (Retry(give_up_on=OSError), "give_up_on", (OSError,)),
    ],
)
def test_each_field_of_a_retry_that_is_left_open_is_the_configurations(
    own: Retry, name: str, value: Any
):
    defaults = TaskConfig(
        retries=7, delay=timedelta(seconds=2), jitter=timedelta(seconds=3),
        max_delay=timedelta(hours=1), backoff="linear",
    )  # fmt: skip
    made = Policy.of(TaskSettings(retries=own), defaults, durable=False).retry
    expected = attrs.evolve(Retry(7, "2s", "3s", "1h", "linear"), **{name: value})
    assert made == expected


def test_a_function_that_fails_leaves_it_to_the_configuration():
    defaults = TaskConfig(retries=1, delay=timedelta(seconds=7), jitter=timedelta(0))
    made = Policy.of(TaskSettings(retries=lambda *_: "soon"), defaults, durable=False).retry
    assert made.delay_after(1, ValueError()) == timedelta(seconds=7)
    assert made.delay_after(2, ValueError()) is None


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, set()),
        ({"queue": "q", "lease": 5, "durable": False}, {"queue", "lease", "durable"}),
        ({"timeout": None}, {"timeout"}),
        ({"on_success": "delete", "on_failure": "delete"}, {"on-success", "on-failure"}),
        ({"retries": 0}, {"retries"}),
        ({"retries": lambda *_: None}, {"retries"}),
        ({"retries": Retry()}, set()),
        ({"retries": Retry(3, max_delay=5)}, {"retries", "max-delay"}),
        ({"retries": Retry(retry_on=OSError, give_up_on=())}, {"retry-on", "give-up-on"}),
    ],
)
def test_what_was_said_is_known_by_the_names_of_the_configuration(
    settings: dict[str, Any], said: set[str]
):
    assert TaskSettings(**settings).said == said


def test_a_decorator_may_switch_durable_off():
    assert not Policy.of(TaskSettings(durable=False), DEFAULTS, durable=True).durable


def test_no_timeout_differs_from_none_said():
    assert policy(timeout=None).timeout is None
    assert policy(timeout=None).timeout_seconds is None
    assert policy(timeout=UNSET).timeout == DEFAULTS.timeout
    assert repr(UNSET) == "UNSET"


def test_a_function_decides_about_retries():
    made = policy(retries=lambda failures, error: None)
    assert isinstance(made.retry, CallableRetry)
    assert made.retry.delay_after(1, ValueError()) is None


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"timeout": 0}, TaskDefinitionError),
        ({"timeout": -1}, ConfigError),
        ({"timeout": "soon"}, ConfigError),
        ({"lease": "499ms"}, TaskDefinitionError),
        ({"lease": 0}, TaskDefinitionError),
        ({"on_success": "keep"}, TaskDefinitionError),
        ({"on_failure": True}, TaskDefinitionError),
        ({"queue": "Not A Queue"}, QueueNameError),
    ],
)
def test_a_wrong_setting_is_refused(settings: dict[str, Any], error: type[Exception]):
    with pytest.raises(error):
        TaskSettings(**settings)


def test_the_shortest_lease_is_accepted():
    assert TaskSettings(lease="500ms").lease == SHORTEST_LEASE


# What one message's options said


def test_a_messages_options_win():
    said = {"retries": 0, "timeout": 1.5, "on_success": "archive", "on_failure": "delete"}
    made = policy(retries=9).overridden(said)
    assert isinstance(made.retry, Retry)
    assert made.retry.max_retries == 0
    assert (made.timeout, made.on_success, made.on_failure) == (
        timedelta(seconds=1.5),
        "archive",
        "delete",
    )


def test_a_message_may_switch_the_timeout_off():
    assert policy(timeout=5).overridden({"timeout": None}).timeout is None


def test_a_function_still_decides_whatever_number_a_message_carries():
    before = policy(retries=lambda failures, error: 1)
    assert before.overridden({"retries": 0}) == before


@pytest.mark.parametrize(
    "said",
    [
        {"retries": "3"}, {"retries": True}, {"retries": 1.5}, {"retries": None}, {"retries": []},
        {"timeout": "5s"}, {"timeout": 0}, {"timeout": -1}, {"timeout": 1e300}, {"timeout": {}},
        {"timeout": float("nan")}, {"timeout": float("inf")}, {"timeout": True and "x"},
        {"on_success": "keep"}, {"on_failure": 1}, {"queue": "elsewhere"}, {"lease": 1}, {},
    ],
    ids=repr,
)  # fmt: skip
def test_nonsense_in_a_message_is_ignored(said: dict[str, Any]):
    before = policy(retries=2, timeout=3)
    assert before.overridden(said) == before


@given(
    st.dictionaries(
        st.sampled_from(["retries", "timeout", "on_success", "on_failure", "durable"]),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just([]),
    )
)
def test_whatever_a_message_says_gives_a_policy(said: dict[str, Any]):
    made = policy().overridden(said)
    assert made.timeout is None or made.timeout > timedelta(0)
    assert {made.on_success, made.on_failure} <= {"delete", "archive"}
    made.retry.delay_after(1, ValueError())
