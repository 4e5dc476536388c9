"""What `pgtasks explain task` says: each effective setting, who said it, and when retries come."""

import inspect
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Self

import attrs

from pgtasks.config import TaskConfig
from pgtasks.duration import format_duration, parse_duration
from pgtasks.layers import Loaded, Origin
from pgtasks.policy import Policy, TaskSettings
from pgtasks.retry import CallableRetry, Retry
from pgtasks.schedule import Schedule
from pgtasks.setting import kebab
from pgtasks.setting_kind import Kind
from pgtasks.task import Task

MOST_LINES: Final = 50
"""A longer table of attempts is folded."""
FIRST_LINES: Final = 20
SAMPLES: Final = 10
"""How often a function is asked about retries, at most."""


@attrs.frozen
class Place:
    """Where a function is defined."""

    name: str
    file: str | None
    line: int | None

    @classmethod
    def of(cls, function: Callable[..., Any]) -> Self:
        """Find a function, or whatever else can be called."""
        inner = inspect.unwrap(function)
        name = getattr(inner, "__qualname__", type(inner).__name__)
        module = getattr(inner, "__module__", "?")
        code = getattr(inner, "__code__", None)
        if code is None:
            return cls(f"{module}.{name}", None, None)
        file = Path(code.co_filename)
        shown = file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file
        return cls(f"{module}.{name}", str(shown), code.co_firstlineno)

    def __str__(self) -> str:
        return self.name if self.file is None else f"{self.name} ({self.file}:{self.line})"


@attrs.frozen
class Effective:
    """One setting of a task."""

    name: str
    value: str
    origin: str
    """ "decorator", "default", the variable, or file, line and key."""


@attrs.frozen
class Attempts:
    """An attempt and the pause before it; or several, in one line."""

    first: int
    last: int
    pause: tuple[timedelta, timedelta]
    """At least and at most: jitter lies between."""
    waited: tuple[float, float]
    """Seconds since the first failure, at least and at most; runs take their time on top."""


@attrs.frozen
class Answer:
    """What a function of the user's said after so many failures."""

    failures: int
    pause: timedelta | None
    """None: it gives up."""
    error: str | None = None
    """What it raised, or what else was wrong with it."""


@attrs.frozen
class Explanation:
    """Everything that decides how a task's messages are run."""

    task: Task[Any, Any]
    policy: Policy
    settings: tuple[Effective, ...]

    @classmethod
    def of(cls, task: Task[Any, Any], loaded: Loaded) -> Self:
        """Explain a task under these settings."""
        config = loaded.config
        policy = Policy.of(task.settings, config.task, durable=config.worker.durable)
        return cls(task, policy, tuple(_settings(task.settings, policy, loaded)))

    @property
    def place(self) -> Place:
        """Where its function is."""
        return Place.of(self.task.fn)

    @property
    def signature(self) -> str:
        """Its function's first line."""
        fn = self.task.fn
        return f"{'async ' * self.task.is_async}def {fn.__name__}{inspect.signature(fn)}"

    @property
    def schedules(self) -> list[Schedule]:
        """When it is sent by itself."""
        return [declaration.schedule for declaration in self.task.schedules]

    @property
    def decider(self) -> Place | None:
        """The function that decides about retries, where one does."""
        retry = self.policy.retry
        return Place.of(retry.function) if isinstance(retry, CallableRetry) else None

    @property
    def retry(self) -> Retry:
        """The retry policy; where a function decides, what applies when it fails."""
        return _in_numbers(self.policy)

    def answers(self) -> list[Answer]:
        """Ask the function that decides, if one does, until it gives up or fails."""
        retry = self.policy.retry
        return list(_asked(retry)) if isinstance(retry, CallableRetry) else []

    def attempts(self) -> list[Attempts]:
        """All attempts after the first; of very many those in the middle in one line."""
        retry, count = self.retry, self.retry.max_retries
        if count <= MOST_LINES:
            return [_attempt(retry, failures) for failures in range(1, count + 1)]
        folded = _attempt(retry, FIRST_LINES + 1, count - 1)
        shown = [_attempt(retry, failures) for failures in range(1, FIRST_LINES + 1)]
        return [*shown, folded, _attempt(retry, count)]


def _in_numbers(policy: Policy) -> Retry:
    retry = policy.retry.defaults if isinstance(policy.retry, CallableRetry) else policy.retry
    assert isinstance(retry, Retry)  # noqa: S101 - there is no third kind
    return retry


def _settings(said: TaskSettings, policy: Policy, loaded: Loaded) -> Iterator[Effective]:
    for name, value in _values(policy).items():
        key = f"worker.{name}" if name == "durable" else f"task.{name}"
        origin = "decorator" if name in said.said else _origin(loaded.origins.get(key), key)
        yield Effective(name, value, origin)


def _origin(origin: Origin | None, key: str) -> str:
    if origin is None:  # only code can say it
        return "default"
    return str(origin) if origin.file is None else f"{origin} {key}"


def _values(policy: Policy) -> dict[str, str]:
    """Every setting as people read it, in the order of `[task]`."""
    retry = _in_numbers(policy)
    own = {
        "queue": policy.queue,
        "timeout": policy.timeout,
        "lease": policy.lease,
        "retries": retry.max_retries,
        "delay": retry.delay,
        "jitter": retry.jitter,
        "max_delay": retry.max_delay,
        "backoff": retry.backoff,
        "retry_on": retry.retry_on,
        "give_up_on": retry.give_up_on,
        "on_success": policy.on_success,
        "on_failure": policy.on_failure,
        "durable": policy.durable,
    }
    kinds = {field.name: field.metadata["kind"] for field in attrs.fields(TaskConfig)}
    shown = {name: _shown(value, kinds.get(name)) for name, value in own.items()}
    if isinstance(policy.retry, CallableRetry):
        shown["retries"] = f"as {Place.of(policy.retry.function)} says"
    return {kebab(name): text for name, text in shown.items()}


def _shown(value: Any, kind: Kind | None) -> str:
    if kind is not None:
        return kind.show(value)
    if isinstance(value, tuple):
        names = ", ".join(error.__qualname__ for error in value)
        return "every error" if value == (BaseException,) else names or "none"
    return str(value).lower()


def _attempt(retry: Retry, failures: int, last: int | None = None) -> Attempts:
    last = failures if last is None else last
    pause = retry.bounds(failures)[0], retry.bounds(last)[1]
    return Attempts(failures + 1, last + 1, pause, retry.waited(last))


def _asked(retry: CallableRetry) -> Iterator[Answer]:
    for failures in range(1, SAMPLES + 1):
        try:
            pause = retry.function(failures, RuntimeError("asked by pgtasks explain"))
            length = None if pause is None else parse_duration(pause)
        except Exception as error:  # noqa: BLE001 - user code
            yield Answer(failures, None, f"{type(error).__name__}: {error}")
            return
        yield Answer(failures, length)
        if length is None:
            return


def described(schedule: Schedule) -> str:
    """Say when a schedule fires."""
    if schedule.every is not None:
        return f"{schedule.name}: every {format_duration(schedule.every)}"
    zone = "" if schedule.timezone == "UTC" else f" ({schedule.timezone})"
    return f"{schedule.name}: {schedule.cron}{zone}"
