"""Config: every setting of pgtasks, listed once with its default, what it takes and its meaning.

Reading, checking, `config show`, the file that `pgtasks init` writes and the reference in the
documentation (`pgtasks.config_reference`) are all made from this list.
"""
# ruff: noqa: RUF009 - each of these calls declares a field, as attrs.field does

from collections.abc import Mapping
from datetime import timedelta
from typing import Final, Literal, get_args

import attrs
from msgspec import UNSET, UnsetType

from pgtasks.setting import section, setting, tables
from pgtasks.setting_kind import (
    Choice,
    Duration,
    Inherited,
    Listen,
    ModuleName,
    Name,
    QueueName,
    Several,
    Switch,
    Url,
    Whole,
)

Backoff = Literal["exponential", "linear", "constant"]
BalanceStrategy = Literal["round-robin", "priority", "weighted"]
Ending = Literal["delete", "archive"]
LogFormat = Literal["auto", "text", "json"]
StaleCleanup = Literal["auto-clean-stale", "auto-clean-all", "manual"]

_MOMENT: Final = Duration("1ms")
_PAUSE: Final = Duration("10ms", "1h")
_SLOTS: Final = Whole(1, 100_000, "messages", "without slots nothing would ever run")
_ENDING: Final = Choice(get_args(Ending))
_AGE: Final = Duration("0s", "36500d", optional=True)
_MANY: Final = Whole(0, 1_000_000_000, "messages", optional=True)
_OWN_LIMIT: Final = "For this queue, instead of {} in [worker.retention]."


@attrs.frozen
class DatabaseConfig:
    """Where Postgres is and how many connections a process may hold."""

    url: str | None = setting(
        None,
        Url(optional=True),
        "The database to use; with none, an embedded Postgres is started in .pgtasks.",
    )
    min_connections: int = setting(
        1, Whole(0, 10_000, "connections"), "Connections that each process keeps open when idle."
    )
    max_connections: int = setting(
        10,
        Whole(1, 10_000, "connections"),
        "The most connections that each process opens in its pool.",
        at_least="min_connections",
    )
    connect_timeout: timedelta = setting("5s", _MOMENT, "How long opening one connection may take.")
    acquire_timeout: timedelta = setting(
        "5s", _MOMENT, "How long to wait for a free connection of the pool."
    )
    idle_timeout: timedelta = setting(
        "5m", _MOMENT, "How long a connection of the pool may be idle until it is closed."
    )
    pgbouncer: bool | None = setting(
        None,
        Switch(optional=True),
        "Whether the URL leads to a pooler in transaction mode; with none, that is found out.",
    )
    require_tls: bool = setting(
        False,
        Switch(),
        "Whether connections over a network have to be encrypted, to a server whose certificate is "
        "verified, whatever the URL says.",
    )


@attrs.frozen
class RetentionConfig:
    """What is kept of the messages that were archived."""

    enable: bool = setting(
        True, Switch(), "Whether workers delete what is beyond the limits below from archives."
    )
    every: timedelta = setting(
        "5m",
        Duration("1s", "7d"),
        "How often an archive is looked at, by whichever worker comes to it first.",
    )
    done_for: timedelta | None = setting(
        "7d", _AGE, 'How long done messages stay in the archive; "none" is for ever.'
    )
    done_count: int | None = setting(
        1_000_000,
        _MANY,
        'How many done messages stay in the archive of a queue, the latest; "none" is all.',
    )
    failed_for: timedelta | None = setting(
        "90d",
        _AGE,
        "How long all others stay: given up, undecodable, archived by another program; "
        '"none" is for ever.',
    )
    failed_count: int | None = setting(
        1_000_000,
        _MANY,
        'How many of all others stay in the archive of a queue, the latest; "none" is all.',
    )


@attrs.frozen
class VacuumConfig:
    """How workers keep the tables of their queues small."""

    enable: bool = setting(
        True, Switch(), "Whether workers vacuum the tables of their queues, where they may."
    )
    dead_rows: int = setting(
        20_000,
        Whole(1_000, 1_000_000_000, "rows"),
        "With how many dead rows, and more than live ones, a table is vacuumed.",
    )


@attrs.frozen
class QueueConfig:
    """How workers treat one queue."""

    concurrency: int | None = setting(
        None,
        attrs.evolve(_SLOTS, optional=True),
        "Slots of each process for this queue alone; with none it shares the common slots.",
    )
    total_concurrency: int | None = setting(
        None,
        attrs.evolve(_SLOTS, optional=True),
        "Slots for this queue alone, counted over all processes of a worker; not with concurrency.",
        instead_of="concurrency",
    )
    weight: int = setting(
        1,
        Whole(1, 1_000),
        "This queue's share of the common slots when balance-strategy is weighted.",
    )
    done_for: timedelta | UnsetType | None = setting(
        UNSET, Inherited(_AGE), _OWN_LIMIT.format("done-for")
    )
    done_count: int | UnsetType | None = setting(
        UNSET, Inherited(_MANY), _OWN_LIMIT.format("done-count")
    )
    failed_for: timedelta | UnsetType | None = setting(
        UNSET, Inherited(_AGE), _OWN_LIMIT.format("failed-for")
    )
    failed_count: int | UnsetType | None = setting(
        UNSET, Inherited(_MANY), _OWN_LIMIT.format("failed-count")
    )

    @property
    def is_dedicated(self) -> bool:
        """Whether the queue has slots of its own."""
        return self.concurrency is not None or self.total_concurrency is not None


@attrs.frozen
class QueueFetchConfig:
    """How workers look for messages."""

    empty_delay: timedelta = setting(
        "2s", _PAUSE, "The longest pause before an empty queue is looked at again."
    )
    error_delay: timedelta = setting(
        "10s", _PAUSE, "The longest pause after an error of the database."
    )
    notify: bool = setting(
        True, Switch(), "Whether new messages wake workers at once instead of at the next look."
    )


@attrs.frozen
class PeriodicConfig:
    """How workers fire schedules."""

    enable: bool = setting(True, Switch(), "Whether workers fire schedules.")
    only: bool = setting(
        False, Switch(), "Whether workers fire schedules and run no messages at all."
    )
    owner: str | None = setting(
        None,
        Name(optional=True),
        "Whose the schedules of the code are; with none, each belongs to its task's package.",
    )
    stale_cleanup: StaleCleanup = setting(
        "auto-clean-stale",
        Choice(get_args(StaleCleanup)),
        "Which schedules of the same owner are deleted that this worker's code does not declare: "
        "what no worker has declared for stale-after, all at once, or none.",
    )
    stale_after: timedelta = setting(
        "10m",
        Duration("1s", "365d"),
        "How long no worker has to have declared a schedule until it is stale.",
    )


@attrs.frozen
class HealthConfig:
    """How workers tell whether they work."""

    listen: str | None = setting(
        None,
        Listen(optional=True),
        "Where /livez and /readyz are answered; a port alone is one of 127.0.0.1.",
    )
    stale_after: timedelta = setting(
        "1m",
        Duration("5s", "1d"),
        "For how long a part of a worker may be stuck until the worker is no longer live.",
    )
    start_within: timedelta = setting(
        "5m",
        Duration("5s", "1d"),
        "In which time a worker process has to be ready, or the worker is no longer live.",
    )


@attrs.frozen
class InstallConfig:
    """What workers install."""

    enable: bool = setting(
        True, Switch(), "Whether workers create or upgrade the schema of pgtasks when they start."
    )


@attrs.frozen
class WorkerConfig:
    """What `pgtasks worker` runs."""

    tasks: tuple[str, ...] = setting(
        (), Several(ModuleName()), "The modules to import, so that their tasks are known."
    )
    concurrency: int = setting(20, _SLOTS, "How many messages each process runs at the same time.")
    processes: int = setting(1, Whole(1, 1_024, "processes"), "How many processes to run.")
    queues: tuple[str, ...] | None = setting(
        None,
        Several(QueueName(), optional=True),
        "The queues to serve; with none, those of all known tasks.",
    )
    balance_strategy: BalanceStrategy = setting(
        "round-robin",
        Choice(get_args(BalanceStrategy)),
        "Who gets a free slot: each queue in turn, the first named, or by weight.",
    )
    grace: timedelta = setting(
        "30s", Duration("0s", "7d"), "How long running tasks may go on after a stop was asked for."
    )
    durable: bool = setting(
        False,
        Switch(),
        "Whether each message is settled as soon as its task has returned, not in batches.",
    )
    retention: RetentionConfig = section(RetentionConfig)
    vacuum: VacuumConfig = section(VacuumConfig)
    queue_config: Mapping[str, QueueConfig] = tables(QueueConfig)
    queue_fetch: QueueFetchConfig = section(QueueFetchConfig)
    periodic: PeriodicConfig = section(PeriodicConfig)
    health: HealthConfig = section(HealthConfig)
    install: InstallConfig = section(InstallConfig)


@attrs.frozen
class TaskConfig:
    """What tasks use that do not say otherwise."""

    queue: str = setting("default", QueueName(), "The queue that messages are sent to.")
    timeout: timedelta | None = setting(
        "60s",
        Duration("1ms", optional=True),
        'How long one run may take; "none" lets it take for ever.',
    )
    lease: timedelta = setting(
        "30s",
        Duration("500ms", "7d"),
        "How long after a worker's death its messages wait for another; extended while tasks run.",
    )
    retries: int = setting(
        25, Whole(0, 1_000_000, "retries"), "How often a failed message is tried again; 0 is never."
    )
    delay: timedelta = setting("1s", Duration(), "The pause before the first retry.")
    jitter: timedelta = setting("1s", Duration(), "The most that chance adds to each pause.")
    max_delay: timedelta = setting(
        "1d", _MOMENT, "The longest pause between retries.", at_least="delay"
    )
    backoff: Backoff = setting(
        "exponential", Choice(get_args(Backoff)), "How the pause grows from retry to retry."
    )
    on_success: Ending = setting("delete", _ENDING, "What becomes of a message that is done.")
    on_failure: Ending = setting(
        "archive", _ENDING, "What becomes of a message that has failed for good."
    )


@attrs.frozen
class LogConfig:
    """What is logged, and how it looks."""

    level: str = setting(
        "info",
        Choice(("debug", "info", "warning", "error", "critical")),
        "The least important events to log.",
    )
    format: LogFormat = setting(
        "auto",
        Choice(get_args(LogFormat)),
        "One line for people, or one JSON object; auto is text, with colours on a terminal.",
    )


@attrs.frozen
class Config:
    """All settings of pgtasks; `pgtasks.layers.load` fills them in from files and environment.

    Built by hand it checks the same ranges, and takes what files take: `TaskConfig(lease="5s")`
    works, although its type asks for a timedelta.
    """

    database: DatabaseConfig = section(DatabaseConfig)
    worker: WorkerConfig = section(WorkerConfig)
    task: TaskConfig = section(TaskConfig)
    log: LogConfig = section(LogConfig)
