"""What a worker is going to serve."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgtasks import Registry, Retry, Schedule, task
from pgtasks.config import Config, PeriodicConfig, QueueConfig, TaskConfig, WorkerConfig
from pgtasks.errors import ConfigError, UnknownQueueError
from pgtasks.plan import Place, Plan
from pgtasks.pool import Pool


def tasks_in(*queues: str) -> Registry:
    """A registry with one task in each of these queues."""
    made = Registry()
    for queue in queues:
        task(name=f"in_{queue}", queue=queue, registry=made)(lambda: None)
    return made


def plan(
    worker: WorkerConfig,
    queues: list[str] | None = None,
    registry: Registry | None = None,
    place: Place | None = None,
) -> Plan:
    config = Config(worker=worker, task=TaskConfig(lease=timedelta(seconds=20)))
    known = tasks_in("a", "b", "c") if registry is None else registry
    return Plan.of(known, config, queues, Place() if place is None else place)


@pytest.fixture
def registry() -> Registry:
    """Two tasks in the queue `mail`, of which one has a short lease, and one in `default`."""
    made = Registry()

    @task(name="slow", queue="mail", registry=made)
    def slow() -> None: ...

    @task(name="quick", queue="mail", lease=5, registry=made)
    def quick() -> None: ...

    @task(name="plain", registry=made)
    def plain() -> None: ...

    return made


# Pools


def test_queues_share_the_workers_slots():
    made = plan(WorkerConfig(concurrency=7, balance_strategy="priority"), ["b", "a"]).pools
    assert made == (Pool(7, ("b", "a"), "priority", {}),)


def test_a_queue_with_slots_of_its_own_leaves_the_shared_pool():
    config = WorkerConfig(
        concurrency=7,
        queue_config={"a": QueueConfig(concurrency=2), "b": QueueConfig(weight=5)},
    )
    dedicated, shared = plan(config, ["a", "b", "c"]).pools
    assert (dedicated.slots, dedicated.queues) == (2, ("a",))
    assert (shared.slots, shared.queues, shared.weights) == (7, ("b", "c"), {"b": 5})


def test_no_shared_pool_when_every_queue_has_its_own():
    config = WorkerConfig(queue_config={"a": QueueConfig(concurrency=1)})
    assert [pool.queues for pool in plan(config, ["a"]).pools] == [("a",)]


def test_settings_without_slots_leave_a_queue_in_the_shared_pool():
    """An empty table must not take it out and serve it nowhere."""
    config = WorkerConfig(queue_config={"a": QueueConfig()})
    assert [pool.queues for pool in plan(config).pools] == [("a", "b", "c")]


# Which queues


def test_the_queues_are_those_of_the_tasks_unless_some_are_named(registry: Registry):
    assert plan(WorkerConfig(), None, registry).queues == ["default", "mail"]
    assert plan(WorkerConfig(queues=("mail",)), None, registry).queues == ["mail"]
    assert plan(WorkerConfig(queues=("mail",)), ["default"], registry).queues == ["default"]


def test_a_queue_is_served_once_however_often_it_is_named():
    config = WorkerConfig(queue_config={"a": QueueConfig(concurrency=2)}, queues=("b", "a"))
    assert sorted(plan(config).queues) == ["a", "b"]
    assert plan(config, ["a", "b", "a", "b"]).queues == ["a", "b"]


@pytest.mark.parametrize("own", [QueueConfig(concurrency=2), QueueConfig(total_concurrency=2)])
@pytest.mark.parametrize("queues", [None, ("b",)])
def test_a_queue_with_slots_of_its_own_need_not_be_listed(own: QueueConfig, queues: Any):
    config = WorkerConfig(queues=queues, queue_config={"elsewhere": own})
    dedicated = plan(config, registry=tasks_in("b")).pools[-2:]
    assert {pool.queues: pool.slots for pool in dedicated} == {("b",): 20, ("elsewhere",): 2}


def test_who_names_queues_gets_those_and_no_others():
    config = WorkerConfig(
        queues=("a", "c"),
        queue_config={"b": QueueConfig(concurrency=2), "c": QueueConfig(total_concurrency=2)},
    )
    assert plan(config, ["a"]).queues == ["a"]
    assert plan(config, ["b"]).pools == (Pool(2, ("b",)),)


def test_a_queue_is_leased_for_the_shortest_time_of_its_tasks(registry: Registry):
    leases = plan(WorkerConfig(), ["mail", "default", "elsewhere"], registry).leases
    assert leases == {
        "mail": timedelta(seconds=5),
        "default": timedelta(seconds=20),
        "elsewhere": timedelta(seconds=20),
    }


def test_a_queue_that_a_schedule_sends_to_is_one_of_the_tasks(registry: Registry):
    """Else nobody would run what it sends."""

    @task(
        name="swept",
        lease=7,
        schedules=[Schedule("s", every="1h", queue="nightly"), Schedule("t", every="1h")],
        registry=registry,
    )
    def swept() -> None: ...

    made = plan(WorkerConfig(), None, registry)
    assert made.queues == ["default", "mail", "nightly"]
    assert [made.leases[queue].seconds for queue in made.queues] == [7, 5, 7]


# Nothing to serve, or nobody to serve it


def test_nothing_to_serve_is_refused_with_the_next_step():
    with pytest.raises(ConfigError, match="no task is registered.*pgtasks worker myapp.tasks"):
        plan(WorkerConfig(), None, Registry())


@pytest.mark.parametrize("named", [["mail"], None])
def test_a_queue_that_nobody_could_serve_is_refused(named: list[str] | None):
    config = WorkerConfig(queue_config={"mail": QueueConfig(concurrency=2)})
    with pytest.raises(ConfigError, match="nobody could run what is in mail"):
        plan(config, named, Registry())


def test_an_empty_list_of_queues_is_refused():
    with pytest.raises(ConfigError, match="the list of queues is empty; name one, or leave"):
        plan(WorkerConfig(), [])


def test_one_name_is_no_list():
    """Each of its letters would be a queue."""
    with pytest.raises(ConfigError, match=r"queues='mail' is one name.*write queues=\['mail'\]"):
        Plan.of(tasks_in("mail"), Config(), "mail")


def test_who_only_fires_schedules_needs_no_task():
    config = WorkerConfig(periodic=PeriodicConfig(only=True))
    assert plan(config, None, Registry()).pools == ()


def test_a_queue_that_neither_exists_nor_is_used_is_refused(registry: Registry):
    plan(WorkerConfig(), ["mail", "there"], registry).check_queues(["there"])
    with pytest.raises(UnknownQueueError) as caught:
        plan(WorkerConfig(), ["mial"], registry).check_queues(["there"])
    assert str(caught.value) == (
        "there is no queue 'mial', and no task uses it; did you mean 'mail'? "
        "Known: default, mail, there. Name one of these, or create it: pgtasks queue create mial"
    )


@pytest.mark.parametrize(
    "own", [QueueConfig(concurrency=2), QueueConfig(total_concurrency=2), QueueConfig(weight=2)]
)
@pytest.mark.parametrize("named", [None, ["mail"]])
def test_settings_of_a_queue_that_does_not_exist_are_refused(
    registry: Registry, own: QueueConfig, named: list[str] | None
):
    """Misspelt, they would leave the queue that was meant without its slots."""
    made = plan(WorkerConfig(queue_config={"mial": own}), named, registry)
    with pytest.raises(UnknownQueueError, match="no queue 'mial'.*did you mean 'mail'"):
        made.check_queues(["there"])
    made.check_queues(["mial"])


def test_settings_of_a_queue_may_be_those_of_another_worker(registry: Registry):
    """It is named in the file that they share, and created by whoever has its tasks."""
    own = {"later": QueueConfig(concurrency=2)}
    config = WorkerConfig(queues=("mail", "later"), queue_config=own)
    plan(config, ["mail"], registry).check_queues([])
    with pytest.raises(UnknownQueueError, match="no queue 'later'"):
        plan(config, None, registry).check_queues([])


def test_a_task_whose_queue_is_served_elsewhere_is_no_mistake(registry: Registry):
    made = plan(WorkerConfig(), ["mail"], registry)
    made.check_queues([])
    assert (made.queues, made.remarks) == (["mail"], ())


# What is counted over all processes


@given(
    totals=st.lists(st.integers(1, 50), min_size=1, max_size=8),
    processes=st.integers(1, 12),
)
def test_slots_are_dealt_out_to_the_last_one(totals: list[int], processes: int):
    queues = [f"q{number}" for number in range(len(totals))]
    own = {q: QueueConfig(total_concurrency=n) for q, n in zip(queues, totals, strict=True)}
    config = WorkerConfig(queue_config=own, processes=processes)
    registry = tasks_in(*queues)
    plans = [plan(config, None, registry, Place(n, processes)) for n in range(processes)]
    shares = [{pool.queues[0]: pool.slots for pool in made.pools} for made in plans]
    for queue, total in zip(queues, totals, strict=True):
        dealt = [share.get(queue, 0) for share in shares]
        assert sum(dealt) == total
        assert max(dealt) - min(dealt) <= 1
    together = [sum(share.values()) for share in shares]
    assert max(together) - min(together) <= 1


def test_four_slots_over_three_processes():
    config = WorkerConfig(queue_config={"a": QueueConfig(total_concurrency=4)})
    made = [plan(config, ["a", "b"], place=Place(number, 3)).pools for number in range(3)]
    assert [pools[0] for pools in made] == [
        Pool(slots, ("a",), is_shared_out=True) for slots in (2, 1, 1)
    ]
    assert {pools[1].queues for pools in made} == {("b",)}


def test_a_process_without_a_slot_does_not_serve_the_queue_and_can_run_its_suspects():
    config = WorkerConfig(queue_config={"a": QueueConfig(total_concurrency=1)})
    second = plan(config, ["a", "b"], place=Place(1, 2))
    assert second.queues == ["b"]
    assert set(second.leases) == {"a", "b"}
    assert second.remarks == ()


def test_a_process_without_any_slot_is_told_of():
    config = WorkerConfig(queue_config={"a": QueueConfig(total_concurrency=2)})
    made = plan(config, ["a"], place=Place(2, 3))
    assert (made.pools, made.slots) == ((), 0)
    [remark] = made.remarks
    assert remark.startswith("only 2 of 3 processes have a slot")


# What has no effect


@pytest.mark.parametrize(
    ("worker", "says"),
    [
        (
            {"queues": ("a",), "queue_config": {"b": QueueConfig(weight=2)}},
            "worker.queue-config.b has no effect: this worker does not serve it",
        ),
        (
            {"queue_config": {"b": QueueConfig(weight=2, concurrency=1)},
             "balance_strategy": "weighted"},
            "worker.queue-config.b.weight has no effect: the queue has slots of its own",
        ),
        (
            {"queue_config": {"b": QueueConfig(weight=2)}},
            "worker.queue-config.b.weight has no effect: balance-strategy is round-robin",
        ),
        (
            {"balance_strategy": "priority"},
            "balance-strategy is priority, but no order is listed, so it is by name: a, b, c",
        ),
    ],
)  # fmt: skip
def test_what_has_no_effect_is_told_of(worker: dict[str, Any], says: str):
    [remark] = plan(WorkerConfig(**worker)).remarks
    assert remark.startswith(says)


@pytest.mark.parametrize(
    ("worker", "named"),
    [
        ({"queue_config": {"b": QueueConfig(weight=2)}}, ["a"]),
        ({"queue_config": {"b": QueueConfig(weight=2)}, "balance_strategy": "weighted"}, None),
        ({"queue_config": {"b": QueueConfig()}}, None),
        ({"queues": ("b", "a"), "balance_strategy": "priority"}, None),
        ({"balance_strategy": "priority"}, ["b", "a"]),
        ({"balance_strategy": "priority", "queue_config": {
            "a": QueueConfig(concurrency=1), "b": QueueConfig(total_concurrency=1)}}, None),
    ],
)  # fmt: skip
def test_what_has_an_effect_is_not_told_of(worker: dict[str, Any], named: list[str] | None):
    assert plan(WorkerConfig(**worker), named).remarks == ()


# Policies


def test_a_task_that_is_registered_late_has_a_policy(registry: Registry):
    made = plan(WorkerConfig(), None, registry)

    @task(name="late", retries=7, registry=registry)
    def late() -> None: ...

    assert made.policy(registry.resolve("late")).retry == Retry(max_retries=7)
    assert made.policy(registry.resolve("quick")).lease == timedelta(seconds=5)
