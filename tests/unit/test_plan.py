"""What a worker is going to serve."""

from datetime import timedelta

import pytest

from pgtasks import Registry, Retry, task
from pgtasks.config import Config, QueueConfig, TaskConfig, WorkerConfig
from pgtasks.errors import ConfigError, UnknownQueueError
from pgtasks.plan import Plan
from pgtasks.pool import Pool


def plan(worker: WorkerConfig, queues: list[str] | None, registry: Registry | None = None) -> Plan:
    config = Config(worker=worker, task=TaskConfig(lease=timedelta(seconds=20)))
    return Plan.of(Registry() if registry is None else registry, config, queues)


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
    assert (shared.slots, shared.queues, shared.weights["b"]) == (7, ("b", "c"), 5)


def test_settings_of_a_queue_that_is_not_served_make_no_pool():
    config = WorkerConfig(queue_config={"elsewhere": QueueConfig(concurrency=2)})
    assert [pool.queues for pool in plan(config, ["a"]).pools] == [("a",)]


def test_no_shared_pool_when_every_queue_has_its_own():
    config = WorkerConfig(queue_config={"a": QueueConfig(concurrency=1)})
    assert [pool.queues for pool in plan(config, ["a"]).pools] == [("a",)]


def test_nothing_to_serve_is_refused_with_the_next_step():
    with pytest.raises(ConfigError, match="pgtasks worker myapp.tasks"):
        plan(WorkerConfig(), None)


def test_the_queues_are_those_of_the_tasks_unless_some_are_named(registry: Registry):
    assert plan(WorkerConfig(), None, registry).queues == ["default", "mail"]
    assert plan(WorkerConfig(queues=("mail",)), None, registry).queues == ["mail"]
    assert plan(WorkerConfig(queues=("mail",)), ["default"], registry).queues == ["default"]


def test_a_queue_is_leased_for_the_shortest_time_of_its_tasks(registry: Registry):
    leases = plan(WorkerConfig(), ["mail", "default", "elsewhere"], registry).leases
    assert leases == {
        "mail": timedelta(seconds=5),
        "default": timedelta(seconds=20),
        "elsewhere": timedelta(seconds=20),
    }


def test_a_queue_that_neither_exists_nor_is_used_is_refused(registry: Registry):
    plan(WorkerConfig(), ["mail", "there"], registry).check_queues(["there"])
    with pytest.raises(UnknownQueueError, match="'typo'.*known: default, mail, there"):
        plan(WorkerConfig(), ["typo"], registry).check_queues(["there"])


def test_a_task_that_is_registered_late_has_a_policy(registry: Registry):
    made = plan(WorkerConfig(), None, registry)

    @task(name="late", retries=7, registry=registry)
    def late() -> None: ...

    assert made.policy(registry.resolve("late")).retry == Retry(max_retries=7)
    assert made.policy(registry.resolve("quick")).lease == timedelta(seconds=5)
