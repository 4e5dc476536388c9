"""The list of settings: defaults, ranges, what is refused, what is never shown."""

import pickle
from datetime import timedelta
from typing import Any

import attrs
import pytest

from pgtasks.config import (
    Config,
    DatabaseConfig,
    LogConfig,
    QueueConfig,
    QueueFetchConfig,
    TaskConfig,
    WorkerConfig,
)
from pgtasks.config_reference import fields
from pgtasks.errors import ConfigError


def test_defaults() -> None:
    """What others rely on; a change here is a change for every user."""
    config = Config()
    assert config.database == DatabaseConfig(
        url=None,
        min_connections=1,
        max_connections=10,
        connect_timeout=timedelta(seconds=5),
        acquire_timeout=timedelta(seconds=5),
        pgbouncer=None,
    )
    assert (config.worker.tasks, config.worker.concurrency, config.worker.processes) == ((), 20, 1)
    assert (config.worker.queues, config.worker.balance_strategy) == (None, "round-robin")
    assert (config.worker.grace, config.worker.durable) == (timedelta(seconds=30), False)
    assert config.worker.queue_config == {}
    assert config.worker.queue_fetch == QueueFetchConfig(
        empty_delay=timedelta(seconds=2), error_delay=timedelta(seconds=10), notify=True
    )
    assert config.worker.install.enable is True
    assert config.task == TaskConfig(
        queue="default",
        timeout=timedelta(seconds=60),
        lease=timedelta(seconds=30),
        retries=25,
        delay=timedelta(seconds=1),
        jitter=timedelta(seconds=1),
        max_delay=timedelta(hours=24),
        backoff="exponential",
        on_success="delete",
        on_failure="archive",
    )
    assert config.log == LogConfig(level="info", format="auto")
    assert QueueConfig() == QueueConfig(concurrency=None, weight=1)


def test_every_default_is_a_valid_value_of_its_kind() -> None:
    for field in fields():
        assert field.kind.read(field.default) == field.default, field.key
        assert field.kind.read(field.kind.plain(field.default)) == field.default, field.key


def test_every_key_is_declared_once_with_a_sentence() -> None:
    assert all(field.doc.endswith(".") for field in fields())
    keys = [field.key for field in fields()]
    assert len(keys) == len(set(keys)) >= 31


@pytest.mark.parametrize(
    ("cls", "values", "says"),
    [
        (
            WorkerConfig,
            {"concurrency": 0},
            "concurrency: 0 is too small: without slots nothing would ever run; write at least 1",
        ),
        (WorkerConfig, {"processes": 0}, "processes: 0 is too small"),
        (WorkerConfig, {"processes": 10**9}, "processes: 1000000000 is too large"),
        (WorkerConfig, {"concurrency": True}, "concurrency: true is not a whole number"),
        (WorkerConfig, {"concurrency": "8"}, "write 8 without quotes"),
        (WorkerConfig, {"concurrency": 2.5}, "2.5 is not a whole number; write 2"),
        (WorkerConfig, {"durable": 1}, "durable: 1 is neither true nor false"),
        (WorkerConfig, {"queues": ("periodic",)}, "queues: 'periodic' cannot be"),
        (WorkerConfig, {"queues": ("My-Queue",)}, "for example 'my_queue'"),
        (WorkerConfig, {"queues": ("a" * 48,)}, "cannot be the name of a queue"),
        (WorkerConfig, {"queues": ()}, "queues: an empty list is not allowed"),
        (WorkerConfig, {"queues": "emails"}, 'queues: "emails" is not a list; write ["emails"]'),
        (WorkerConfig, {"queues": "a, b"}, 'queues: "a, b" is not a list; write ["a", "b"]'),
        (WorkerConfig, {"tasks": ("app/tasks.py",)}, 'did you mean "app.tasks"?'),
        (WorkerConfig, {"tasks": ("app.class",)}, '"app.class" is not the name of a module'),
        (WorkerConfig, {"tasks": ("app..tasks",)}, "is not the name of a module"),
        (WorkerConfig, {"tasks": (3,)}, "tasks: 3 is not a module name"),
        (WorkerConfig, {"queue_config": {"9": QueueConfig()}}, "queue-config: '9' cannot be"),
        (WorkerConfig, {"queue_config": {"a": 5}}, "queue-config: 5 is not a QueueConfig"),
        (WorkerConfig, {"balance_strategy": "wieghted"}, 'did you mean "weighted"?'),
        (QueueConfig, {"weight": 0}, "weight: 0 is too small"),
        (QueueConfig, {"concurrency": 0}, "concurrency: 0 is too small"),
        (QueueConfig, {"total_concurrency": 0}, "total-concurrency: 0 is too small: without"),
        (
            QueueConfig,
            {"total_concurrency": 2, "concurrency": 2},
            'total-concurrency: not together with concurrency; remove one of the two, or write "no',
        ),
        (TaskConfig, {"lease": 0.1}, 'lease: 0.1 is too short; write at least "0.5s"'),
        (TaskConfig, {"timeout": 0}, "timeout: 0 is too short"),
        (TaskConfig, {"lease": None}, "lease: null is not a duration"),
        (TaskConfig, {"retries": -1}, "retries: -1 is too small"),
        (TaskConfig, {"queue": None}, "queue: null is not a queue name"),
        (TaskConfig, {"delay": "1h", "max_delay": "1m"}, "max-delay: 1m is less than delay (1h)"),
        (
            TaskConfig,
            {"delay": 0, "max_delay": 0},
            'max-delay: 0 is too short; write at least "1ms"',
        ),
        (QueueFetchConfig, {"empty_delay": 0}, "empty-delay: 0 is too short"),
        (DatabaseConfig, {"connect_timeout": 0}, "connect-timeout: 0 is too short"),
        (DatabaseConfig, {"max_connections": 0}, "max-connections: 0 is too small"),
        (DatabaseConfig, {"min_connections": 11}, "10 is less than min-connections (11)"),
        (DatabaseConfig, {"url": ""}, "url: this is not the URL of a database"),
        (DatabaseConfig, {"url": "mysql://h/d"}, '"mysql://" is not a Postgres URL'),
        (DatabaseConfig, {"url": "postgresql+asyncpg://h/d"}, "write postgresql://..."),
        (DatabaseConfig, {"url": "postgresql://u:p[@h/d"}, "this URL cannot be read"),
        (LogConfig, {"level": "verbose"}, 'level: "verbose" is not one of "debug", "info"'),
        (LogConfig, {"format": "jsno"}, 'did you mean "json"?'),
    ],
)
def test_refuses(cls: type[Any], values: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        cls(**values)
    assert says in str(caught.value)


def test_takes_what_files_take() -> None:
    task = TaskConfig(lease="5s", timeout="none", backoff="LINEAR")  # type: ignore[arg-type]
    assert (task.lease, task.timeout, task.backoff) == (timedelta(seconds=5), None, "linear")
    worker = WorkerConfig(queues=["a", "b", "a"])  # type: ignore[arg-type]
    assert worker.queues == ("a", "b")


def test_travels_between_processes() -> None:
    config = Config(worker=WorkerConfig(queue_config={"emails": QueueConfig(concurrency=4)}))
    assert pickle.loads(pickle.dumps(config)) == config
    assert hash(config) == hash(pickle.loads(pickle.dumps(config)))


def test_cannot_be_changed() -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        Config().worker.concurrency = 3  # type: ignore[misc]


def test_repr_shows_no_password() -> None:
    config = Config(database=DatabaseConfig(url="postgresql://me:s3cret@db/app"))
    assert "url='postgresql://me:***@db/app'" in repr(config)
    assert "url=None" in repr(Config())


@pytest.mark.parametrize("url", ["S3CRET://h:x", "user:S3CRET@h", "host=h password=S3CRET"])
def test_no_error_shows_a_password(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        DatabaseConfig(url=f"postgres:{url}")
    assert "S3CRET" not in str(caught.value)
