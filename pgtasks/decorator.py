"""The decorator that makes a task of a function, and registers it."""

import inspect
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar, overload

import attrs

from pgtasks.config import Ending
from pgtasks.context import Context
from pgtasks.declaration import Declaration
from pgtasks.errors import ArgumentError, TaskDefinitionError
from pgtasks.outcome import Delay
from pgtasks.policy import UNSET, Retries, TaskSettings, _Unset
from pgtasks.registry import Registry, default_registry
from pgtasks.schedule import Misfire, Overlap, Schedule
from pgtasks.signature import Signature
from pgtasks.task import Task, check_task_name, declared_call

P = ParamSpec("P")
R = TypeVar("R")


@overload
def task(fn: Callable[Concatenate[Context, P], R], /) -> Task[P, R]: ...
@overload
def task(fn: Callable[P, R], /) -> Task[P, R]: ...
@overload
def task(
    *,
    name: str | None = None,
    aliases: Iterable[str] = (),
    queue: str | None = None,
    retries: Retries | None = None,
    timeout: Delay | _Unset | None = UNSET,
    lease: Delay | None = None,
    on_success: Ending | None = None,
    on_failure: Ending | None = None,
    durable: bool | None = None,
    cron: str | None = None,
    every: Delay | None = None,
    timezone: str | None = None,
    jitter: Delay | None = None,
    misfire: Misfire | None = None,
    overlap: Overlap | None = None,
    schedules: Iterable[Schedule] = (),
    registry: Registry | None = None,
) -> "TaskDecorator": ...
def task(fn: Callable[..., Any] | None = None, /, **settings: Any) -> Any:  # noqa: D417 - below
    """Register a function, async or not, as a task; with or without settings.

    Decorating has no other effect, and a setting left out is the configuration's (`[task]`).

    Args:
        fn: the function; positional only.
        name: how messages name it; default `module.function`. Give one to move code freely.
        aliases: former names, still accepted.
        queue: where its messages go.
        retries: how often a failed run is tried again, or a `Retry`, or a function of
            (failures, error) that returns a delay or None to give up.
        timeout: how long a run may take (seconds, "5m", a timedelta); None: for ever.
        lease: how long a message stays with a worker that no longer extends it.
        on_success: "delete" the message, or "archive" it.
        on_failure: the same, when it is given up.
        durable: settle each message on its own and wait for the disk.
        cron: send it by itself at these times, without arguments; see `Schedule`, which says what
            `timezone`, `jitter`, `misfire` and `overlap` mean. Its name is the task's.
        every: or at this interval: seconds, "90s", a timedelta.
        schedules: more schedules, each with its name and arguments.
        registry: where to register it; default: the registry that `pgtasks worker` uses.

    Raises:
        TaskDefinitionError: the function cannot be a task as it is written.
        DuplicateTaskError: another function has this name.

    Example:
        ```python
        @task(queue="emails", retries=5, timeout=30)
        async def send_welcome(user_id: int, *, locale: str = "en") -> None: ...
        ```
    """
    decorate = TaskDecorator(**settings)
    return decorate if fn is None else decorate(fn)


@attrs.frozen(kw_only=True)
class TaskDecorator:
    """What `@task(...)` with settings returns: call it with the function."""

    name: str | None = None
    aliases: Iterable[str] = ()
    queue: str | None = None
    retries: Retries | None = None
    timeout: Delay | _Unset | None = UNSET
    lease: Delay | None = None
    on_success: Ending | None = None
    on_failure: Ending | None = None
    durable: bool | None = None
    cron: str | None = None
    every: Delay | None = None
    timezone: str | None = None
    jitter: Delay | None = None
    misfire: Misfire | None = None
    overlap: Overlap | None = None
    schedules: Iterable[Schedule] = ()
    registry: Registry | None = None

    @overload
    def __call__(self, fn: Callable[Concatenate[Context, P], R], /) -> Task[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, R], /) -> Task[P, R]: ...
    def __call__(self, fn: Callable[..., Any], /) -> Task[Any, Any]:
        """Register the function."""
        _check_function(fn)
        name = check_task_name(self.name or _default_name(fn))
        signature = Signature.of(fn, context_type=Context)
        made: Task[Any, Any] = Task(
            fn=fn,
            name=name,
            aliases=tuple(check_task_name(alias) for alias in self.aliases),
            settings=TaskSettings(
                queue=self.queue,
                retries=self.retries,
                timeout=self.timeout,
                lease=self.lease,
                on_success=self.on_success,
                on_failure=self.on_failure,
                durable=self.durable,
            ),
            signature=signature,
            is_async=inspect.iscoroutinefunction(fn),
            package=_module_name(fn.__module__).partition(".")[0],
            schedules=tuple(
                _declared(name, signature, schedule) for schedule in self._all_schedules(name)
            ),
        )
        registry = default_registry if self.registry is None else self.registry
        registry.add(made)
        return made

    def _all_schedules(self, name: str) -> Iterable[Schedule]:
        said = {
            "cron": self.cron,
            "every": self.every,
            "timezone": self.timezone,
            "jitter": self.jitter,
            "misfire": self.misfire,
            "overlap": self.overlap,
        }
        given: dict[str, Any] = {key: value for key, value in said.items() if value is not None}
        if "cron" in given or "every" in given:
            yield Schedule(name, **given)
        elif given:
            raise TaskDefinitionError(
                f"{name} says {' and '.join(given)}, but not when: add cron=... or every=..."
            )
        yield from self.schedules


def _declared(name: str, signature: Signature, schedule: object) -> Declaration:
    if not isinstance(schedule, Schedule):
        raise TaskDefinitionError(
            f"{name}: schedules=[...] holds Schedule objects, not {schedule!r:.80}"
        )
    try:
        return declared_call(name, signature, schedule)
    except ArgumentError as error:
        raise TaskDefinitionError(
            f"the schedule {schedule.name!r} of {name} cannot send it: {error}; give the arguments "
            "as Schedule(..., args=(...), kwargs={...})"
        ) from None


def _check_function(fn: object) -> None:
    if not inspect.isroutine(fn) or inspect.isbuiltin(fn):
        raise TaskDefinitionError(f"@task takes a function, not {fn!r:.80}")
    if inspect.isasyncgenfunction(fn) or inspect.isgeneratorfunction(fn):
        raise TaskDefinitionError(
            f"{fn.__qualname__} is a generator: nobody would iterate over it in a worker; "
            "write a function that returns"
        )


def _default_name(fn: Callable[..., Any]) -> str:
    name: str = fn.__qualname__
    if "<" in name:
        raise TaskDefinitionError(
            f"{name} is defined inside a function, where a worker cannot find it by its name; "
            'move it to the top of a module, or give it one: @task(name="...")'
        )
    return f"{_module_name(fn.__module__)}.{name}"


def _module_name(module: str) -> str:
    # A program run as `python tasks.py` is called __main__, and `tasks` by the worker that
    # imports it: both have to agree on the task's name.
    if module != "__main__":
        return module
    main = sys.modules["__main__"]
    if (spec := getattr(main, "__spec__", None)) is not None:
        return str(spec.name).removesuffix(".__main__")
    file = getattr(main, "__file__", None)
    return Path(file).stem if file else module
