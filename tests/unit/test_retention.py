"""What is kept of archives, by which setting, and at what pace the rest goes."""

from datetime import timedelta
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from pgtasks.assignment import Assignment, read_assignment, to_line
from pgtasks.cli.archive import _OUTCOME, Sought
from pgtasks.config import Config, QueueConfig, RetentionConfig, WorkerConfig
from pgtasks.config_reference import fields
from pgtasks.errors import ArgumentError, ConfigError
from pgtasks.filter import Filter
from pgtasks.retention import (
    BATCH_SECONDS,
    LARGEST_BATCH,
    RESTS,
    SMALLEST_BATCH,
    Limits,
    Pace,
    Retention,
)
from pgtasks.setting_kind import Inherited, Whole
from pgtasks.settlement import Outcome

DAY = timedelta(days=1)
AGES = st.none() | st.timedeltas(timedelta(0), 1000 * DAY)
COUNTS = st.none() | st.integers(0, 10**9)
LIMITS = {"done_for": AGES, "done_count": COUNTS, "failed_for": AGES, "failed_count": COUNTS}


# Settings


def test_pruning_is_on_and_generous() -> None:
    """What others rely on; a change here deletes users' rows sooner."""
    retention = WorkerConfig().retention
    assert (retention.enable, retention.every) == (True, timedelta(minutes=5))
    assert Retention.of(WorkerConfig(), "any") == Retention(
        done=Limits(7 * DAY, 1_000_000), failed=Limits(90 * DAY, 1_000_000)
    )


@given(
    general=st.fixed_dictionaries(LIMITS),
    own=st.fixed_dictionaries({}, optional=LIMITS),
)
def test_what_a_queue_says_wins_and_none_is_something_said(
    general: dict[str, Any], own: dict[str, Any]
) -> None:
    config = WorkerConfig(
        retention=RetentionConfig(**general), queue_config={"emails": QueueConfig(**own)}
    )
    of_all, of_emails = Retention.of(config, "other"), Retention.of(config, "emails")
    for half in ("done", "failed"):
        for key, attribute in ((f"{half}_for", "age"), (f"{half}_count", "count")):
            assert getattr(getattr(of_all, half), attribute) == general[key]
            assert getattr(getattr(of_emails, half), attribute) == (general | own)[key]


def test_a_queue_with_another_setting_inherits_its_limits() -> None:
    config = WorkerConfig(queue_config={"emails": QueueConfig(weight=2)})
    assert Retention.of(config, "emails") == Retention.of(config, "other")


def test_none_and_inherit_are_two_things_in_files() -> None:
    queue = QueueConfig(done_for="none", failed_for="inherit", done_count=0)  # type: ignore[arg-type]
    assert (queue.done_for, queue.failed_for, queue.done_count) == (None, UNSET, 0)
    by_key = {field.path[-1]: field for field in fields() if "<name>" in field.path}
    kind = by_key["done-for"].kind
    assert [kind.plain(value) for value in (None, UNSET, DAY)] == ["none", "inherit", "1d"]
    assert [kind.show(value) for value in (None, UNSET, DAY)] == ["none", "inherit", "1d"]
    assert [kind.parse(text) for text in ("none", " inherit ", "1d")] == [None, UNSET, DAY]
    assert (kind.unit, by_key["done-count"].kind.unit) == ("seconds", "messages")


def test_what_is_inherited_may_be_without_none() -> None:
    kind = Inherited(Whole(1, 5))
    assert kind.description == 'whole number, 1 to 5 or "inherit"'
    assert kind.read("inherit") is UNSET
    for wrong in (None, "none", 9):
        with pytest.raises(ConfigError):
            kind.read(wrong)


@pytest.mark.parametrize(
    ("cls", "values", "says"),
    [
        (RetentionConfig, {"done_for": "-1d"}, 'done-for: "-1d" is negative'),
        (RetentionConfig, {"done_for": "inherit"}, 'done-for: "inherit" is not a duration'),
        (RetentionConfig, {"failed_count": -1}, "failed-count: -1 is too small; write at least 0"),
        (RetentionConfig, {"every": "none"}, 'every: "none" is not a duration'),
        (RetentionConfig, {"every": 0}, 'every: 0 is too short; write at least "1s"'),
        (QueueConfig, {"done_count": "inherited"}, 'done-count: "inherited" is not a whole number'),
        (QueueConfig, {"failed_for": "200y"}, 'failed-for: "200y" is not a duration'),
    ],
)
def test_refuses(cls: type[Any], values: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        cls(**values)
    assert says in str(caught.value)


def test_limits_travel_to_a_workers_processes() -> None:
    own = QueueConfig(done_for=None, failed_for=DAY)
    config = Config(worker=WorkerConfig(queue_config={"emails": own}))
    sent = Assignment((), config, None, None)
    assert read_assignment(to_line(sent)) == sent


# Pace


@given(st.lists(st.floats(0, 1000), max_size=50))
def test_batches_stay_within_bounds_and_rests_are_in_proportion(lengths: list[float]) -> None:
    pace = Pace()
    for seconds in lengths:
        assert pace.after(seconds) == RESTS * seconds >= seconds
        assert SMALLEST_BATCH <= pace.size <= LARGEST_BATCH


@given(st.floats(1e-7, 10))
def test_batches_come_to_take_as_long_as_they_should(seconds_a_row: float) -> None:
    """Or they are as small, or as large, as they may be."""
    pace = Pace()
    for _ in range(30):
        pace.after(pace.size * seconds_a_row)
    taken = pace.size * seconds_a_row
    assert taken <= BATCH_SECONDS * 1.1 or pace.size == SMALLEST_BATCH
    assert taken >= BATCH_SECONDS / 2 or pace.size == LARGEST_BATCH


# Filters


@pytest.mark.parametrize(
    ("meant", "is_all"),
    [
        (Filter(), True),
        (Filter(outcome="done"), True),
        (Filter(outcome="failed"), False),
        (Filter(outcome="done", task="t"), False),
        (Filter(numbers=(1,)), False),
        (Filter(before=DAY), False),
    ],
)
def test_a_filter_knows_when_it_means_everything(meant: Filter, is_all: bool) -> None:
    assert meant.means_all == is_all
    assert meant.means_done == (meant.outcome == "done")


def test_the_outcomes_that_can_be_asked_for_are_those_there_are() -> None:
    assert set(_OUTCOME.words) == {*get_args(Outcome), "none"}


@pytest.mark.parametrize(
    ("sought", "says"),
    [
        (Sought(outcome="faild"), '--outcome: "faild" is not one of'),
        (Sought(since="1 fortnight"), "--since:"),
        (Sought(before="0"), '--before: "0" is too short'),
        (Sought(error=" "), "--error: an empty text"),
    ],
)
def test_a_wrong_filter_names_its_flag(sought: Sought, says: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        sought.filter()
    assert says in str(caught.value)


def test_named_messages_are_numbers_or_ids() -> None:
    own_id = "01890a5d-ac96-774b-bcce-b302099a8057"
    meant = Sought(outcome="FAILED", since="2h").filter(["42", own_id.upper()])
    assert (meant.numbers, meant.ids) == ((42,), (own_id,))
    assert (meant.outcome, meant.since) == ("failed", timedelta(hours=2))
