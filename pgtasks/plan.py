"""Plan: what a worker is going to serve, and how. Pure: made from the registry and the settings."""

from collections.abc import Collection, Iterable, Mapping
from datetime import timedelta
from typing import Any, Self

import attrs

from pgtasks.config import Config
from pgtasks.errors import ConfigError, UnknownQueueError
from pgtasks.policy import Policy
from pgtasks.pool import Pool
from pgtasks.registry import Registry
from pgtasks.task import Task


@attrs.frozen
class Plan:
    """The pools of a worker, the leases of its queues, and the policies of its tasks."""

    pools: tuple[Pool, ...]
    leases: Mapping[str, timedelta]
    """By queue: a claim does not know yet whose message it gets, so the shortest of its tasks."""
    known: frozenset[str]
    """The queues that tasks use."""
    _config: Config
    _policies: dict[str, Policy] = attrs.field(factory=dict, init=False)

    @classmethod
    def of(cls, registry: Registry, config: Config, queues: Iterable[str] | None) -> Self:
        """Plan for the queues named here, else the configured ones, else those of the tasks.

        Raises:
            ConfigError: there is no queue to serve.
        """
        policies = [_policy(task, config) for task in registry]
        known = frozenset(policy.queue for policy in policies)
        named = config.worker.queues if queues is None else queues
        served = tuple(dict.fromkeys(sorted(known) if named is None else named))
        if not served:
            raise ConfigError(
                "there is no queue to serve: no task is registered and none is named; "
                "name the modules of your tasks, as in `pgtasks worker myapp.tasks`"
            )
        leases = {queue: _shortest(queue, policies, config.task.lease) for queue in served}
        return cls(_pools(config, served), leases, known, config)

    def policy(self, task: Task[Any, Any]) -> Policy:
        """Return how a task's messages are run; also of one that was registered late."""
        if task.name not in self._policies:
            self._policies[task.name] = _policy(task, self._config)
        return self._policies[task.name]

    @property
    def queues(self) -> list[str]:
        """All queues that are served."""
        return [queue for pool in self.pools for queue in pool.queues]

    @property
    def slots(self) -> int:
        """How many messages may run at once."""
        return sum(pool.slots for pool in self.pools)

    def check_queues(self, existing: Collection[str]) -> None:
        """Make sure that each queue exists or is used by a task.

        Raises:
            UnknownQueueError: one is neither; probably its name is misspelt.
        """
        known = {*existing, *self.known}
        for queue in self.queues:
            if queue not in known:
                raise UnknownQueueError(
                    f"there is no queue {queue!r}, and no task uses it; known: "
                    f"{', '.join(sorted(known)) or 'none'}. Name one of these, or create it: "
                    f"pgtasks queue create {queue}"
                )


def _pools(config: Config, queues: tuple[str, ...]) -> tuple[Pool, ...]:
    """A dedicated pool for each queue that has slots of its own, and one for the others."""
    worker = config.worker
    dedicated = {
        name: settings.concurrency
        for name, settings in worker.queue_config.items()
        if settings.concurrency is not None and name in queues
    }
    pools = [Pool(slots, (queue,)) for queue, slots in dedicated.items()]
    if shared := tuple(queue for queue in queues if queue not in dedicated):
        weights = {name: settings.weight for name, settings in worker.queue_config.items()}
        pools.append(Pool(worker.concurrency, shared, worker.balance_strategy, weights))
    return tuple(pools)


def _policy(task: Task[Any, Any], config: Config) -> Policy:
    return Policy.of(task.settings, config.task, durable=config.worker.durable)


def _shortest(queue: str, policies: Iterable[Policy], default: timedelta) -> timedelta:
    leases = [policy.lease for policy in policies if policy.queue == queue]
    return min(leases, default=default)
