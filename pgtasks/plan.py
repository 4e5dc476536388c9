"""Plan: what a worker is going to serve, and how. Pure: made from the registry and the settings."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Any, Final, Self

import attrs

from pgtasks.config import Config, QueueConfig, WorkerConfig
from pgtasks.errors import ConfigError, UnknownQueueError
from pgtasks.nearest import nearest
from pgtasks.policy import Policy
from pgtasks.pool import Pool
from pgtasks.queue_name import check_queue_name
from pgtasks.registry import Registry
from pgtasks.task import Task


@attrs.frozen
class Place:
    """Which of a worker's processes this is: they share out what is counted over all of them."""

    number: int = 0
    processes: int = 1

    def share(self, total: int, before: int) -> int:
        """Return how many of `total` slots are this process's.

        They are dealt out like cards, one queue's after another's, so that the odd ones of all
        queues do not meet in one process.

        Args:
            total: how many there are.
            before: how many of other queues were dealt out before.
        """
        each, odd = divmod(total, self.processes)
        return each + ((self.number - before) % self.processes < odd)


ALONE: Final = Place()


@attrs.frozen
class Plan:
    """The pools of a worker process, the leases of its queues, and the policies of its tasks."""

    pools: tuple[Pool, ...]
    """Those of this process; none when other processes have all the slots."""
    leases: Mapping[str, timedelta]
    """By queue, for all that the worker's processes serve. A claim does not know yet whose message
    it gets, so the shortest of the queue's tasks."""
    known: frozenset[str]
    """The queues that tasks use."""
    remarks: tuple[str, ...]
    """What is allowed, but probably not meant; a sentence each."""
    _config: Config
    _policies: dict[str, Policy] = attrs.field(factory=dict, init=False)

    @classmethod
    def of(
        cls,
        registry: Registry,
        config: Config,
        queues: Iterable[str] | None,
        place: Place = ALONE,
    ) -> Self:
        """Plan for the queues named here, and for no others.

        When none are named: for the configured ones, else those of the tasks, and for all that
        have slots of their own.

        Raises:
            ConfigError: there is no queue to serve, or no task that could be run.
            QueueNameError: what is named cannot be a queue.
        """
        _check_roles(config)
        known = _known(registry, config)
        named = None if queues is None else _checked(queues)
        served = _served(config.worker, known, named)
        _check_work(registry, served, config)
        return cls(
            pools=tuple(_pools(config.worker, served, place)),
            leases={queue: known.get(queue, config.task.lease) for queue in served},
            known=frozenset(known),
            remarks=tuple(_remarks(config.worker, served, place, is_narrowed=named is not None)),
            config=config,
        )

    def policy(self, task: Task[Any, Any]) -> Policy:
        """Return how a task's messages are run; also of one that was registered late."""
        if task.name not in self._policies:
            self._policies[task.name] = _policy(task, self._config)
        return self._policies[task.name]

    @property
    def queues(self) -> list[str]:
        """The queues that this process serves."""
        return [queue for pool in self.pools for queue in pool.queues]

    @property
    def slots(self) -> int:
        """How many messages may run at once in this process."""
        return sum(pool.slots for pool in self.pools)

    def check_queues(self, existing: Collection[str]) -> None:
        """Make sure that each queue exists or is used by a task, those that have settings too.

        Raises:
            UnknownQueueError: one is neither; probably its name is misspelt.
        """
        worker, known = self._config.worker, {*existing, *self.known}
        named = {*known, *(worker.queues or ())}
        for queue in worker.queue_config:
            if queue not in named:
                raise _unknown(queue, known, f"worker.queue-config.{queue}: ")
        for queue in self.leases:
            if queue not in known:
                raise _unknown(queue, known, "")


def _unknown(queue: str, known: Collection[str], where: str) -> UnknownQueueError:
    near = nearest(queue, sorted(known))
    hint = f"; did you mean {near!r}?" if near else "."
    return UnknownQueueError(
        f"{where}there is no queue {queue!r}, and no task uses it{hint} Known: "
        f"{', '.join(sorted(known)) or 'none'}. Name one of these, or create it: "
        f"pgtasks queue create {queue}"
    )


def _checked(queues: Iterable[str]) -> tuple[str, ...]:
    if isinstance(queues, str):
        raise ConfigError(f"queues={queues!r} is one name, not a list: write queues=[{queues!r}]")
    return tuple(map(check_queue_name, queues))


def _known(registry: Registry, config: Config) -> dict[str, timedelta]:
    """The queues that tasks and their schedules send to, with the shortest lease in each."""
    leases: dict[str, timedelta] = {}
    for task in registry:
        policy = _policy(task, config)
        scheduled = (declared.schedule.queue for declared in task.schedules)
        for queue in filter(None, (policy.queue, *scheduled)):
            leases[queue] = min(policy.lease, leases.get(queue, policy.lease))
    return leases


def _check_roles(config: Config) -> None:
    periodic = config.worker.periodic
    if periodic.only and not periodic.enable:
        raise ConfigError(
            "this worker would neither run messages nor fire schedules: --scheduler-only "
            "(worker.periodic.only) and --no-scheduler (worker.periodic.enable = false) exclude "
            "each other"
        )


def _check_work(registry: Registry, served: Collection[str], config: Config) -> None:
    """Make sure that there is something to serve, and a task that could be run."""
    if config.worker.periodic.only:
        return
    if not len(registry):
        lonely = f"nobody could run what is in {', '.join(served)}" if served else "none is known"
        raise ConfigError(
            f"there is no queue to serve: no task is registered, so {lonely}; name the modules of "
            "your tasks, as in `pgtasks worker myapp.tasks`"
        )
    if not served:
        raise ConfigError(
            "there is no queue to serve: the list of queues is empty; name one, or leave the list "
            "out to serve those of the tasks"
        )


def _served(
    worker: WorkerConfig, known: Collection[str], named: tuple[str, ...] | None
) -> tuple[str, ...]:
    """The queues to serve, each once, in the order they are listed."""
    if named is not None:
        return tuple(dict.fromkeys(named))
    listed = sorted(known) if worker.queues is None else worker.queues
    dedicated = [queue for queue, own in worker.queue_config.items() if own.is_dedicated]
    return tuple(dict.fromkeys([*listed, *dedicated]))


def _pools(worker: WorkerConfig, served: Iterable[str], place: Place) -> Iterator[Pool]:
    """A dedicated pool for each queue that has slots of its own, and one for the others."""
    shared: list[str] = []
    dealt_out = 0
    for queue in served:
        own = worker.queue_config.get(queue, QueueConfig())
        if own.concurrency is not None:
            yield Pool(own.concurrency, (queue,))
        elif own.total_concurrency is None:
            shared.append(queue)
        else:
            if slots := place.share(own.total_concurrency, dealt_out):
                yield Pool(slots, (queue,), is_shared_out=True)
            dealt_out += own.total_concurrency
    if shared:
        configured = worker.queue_config.items()
        weights = {queue: own.weight for queue, own in configured if queue in shared}
        yield Pool(worker.concurrency, tuple(shared), worker.balance_strategy, weights)


def _remarks(
    worker: WorkerConfig, served: Collection[str], place: Place, *, is_narrowed: bool
) -> Iterator[str]:
    """Say which settings have no effect here."""
    for queue, own in worker.queue_config.items():
        if queue in served:
            yield from _remarks_on_weight(worker, queue, own)
        elif not is_narrowed:
            yield (
                f"worker.queue-config.{queue} has no effect: this worker does not serve it; "
                "list it in worker.queues"
            )
    if not is_narrowed and worker.queues is None:
        yield from _remarks_on_order(worker, served)
    yield from _remarks_on_processes(worker, served, place)


def _remarks_on_weight(worker: WorkerConfig, queue: str, own: QueueConfig) -> Iterator[str]:
    if own.weight != 1 and (own.is_dedicated or worker.balance_strategy != "weighted"):
        why = f"balance-strategy is {worker.balance_strategy}"
        why = "the queue has slots of its own" if own.is_dedicated else why
        yield f"worker.queue-config.{queue}.weight has no effect: {why}"


def _remarks_on_order(worker: WorkerConfig, served: Iterable[str]) -> Iterator[str]:
    own = worker.queue_config
    shared = [queue for queue in served if queue not in own or not own[queue].is_dedicated]
    if worker.balance_strategy == "priority" and len(shared) > 1:
        yield (
            "balance-strategy is priority, but no order is listed, so it is by name: "
            f"{', '.join(shared)}; list them in worker.queues, the most important first"
        )


def _remarks_on_processes(
    worker: WorkerConfig, served: Iterable[str], place: Place
) -> Iterator[str]:
    totals = [worker.queue_config.get(queue, QueueConfig()).total_concurrency for queue in served]
    counted = [total for total in totals if total is not None]
    if counted and len(counted) == len(totals) and sum(counted) < place.processes:
        yield (
            f"only {sum(counted)} of {place.processes} processes have a slot, as total-concurrency "
            "says; the others run no messages"
        )


def _policy(task: Task[Any, Any], config: Config) -> Policy:
    return Policy.of(task.settings, config.task, durable=config.worker.durable)
