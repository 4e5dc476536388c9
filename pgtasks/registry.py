"""Registry: the tasks a program knows, by name."""

from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

import attrs

from pgtasks.errors import (
    DuplicateScheduleError,
    DuplicateTaskError,
    TaskDefinitionError,
    UnknownTaskError,
)
from pgtasks.nearest import nearest
from pgtasks.task import Task

Lifespan = Callable[[], AbstractAsyncContextManager[Any]]
L = TypeVar("L", bound=Lifespan)


@attrs.define(eq=False)
class Registry:
    """The tasks a worker can run, by name and alias, and what they share while it lives.

    The default one is filled by `@task`. Give `@task(registry=...)` and `Worker(registry=...)`
    one of your own to keep two sets of tasks apart in one process.
    """

    _tasks: dict[str, Task[Any, Any]] = attrs.field(factory=dict, init=False)
    _lifespan: Lifespan | None = attrs.field(default=None, init=False)

    def add(self, task: Task[Any, Any]) -> None:
        """Register a task under its name and aliases.

        Raises:
            DuplicateTaskError: another function has one of these names.
            DuplicateScheduleError: two schedules have one name.
        """
        for name in (task.name, *task.aliases):
            known = self._tasks.get(name)
            # The same function once more is a module that was imported again.
            if known is not None and _place(known) != _place(task):
                raise DuplicateTaskError(
                    f"two tasks are named {name!r}: {_place(known)} and {_place(task)}; "
                    'give one of them another: @task(name="...")'
                )
        self._check_schedules(task)
        for name in (task.name, *task.aliases):
            self._tasks[name] = task

    def _check_schedules(self, task: Task[Any, Any]) -> None:
        known = {one.name: other for other in self if other.name != task.name
                 for one in other.schedules}  # fmt: skip
        for declaration in task.schedules:
            other = known.get(declaration.name)
            if other is not None:
                raise DuplicateScheduleError(
                    f"two schedules are named {declaration.name!r}: of {_place(other)} and of "
                    f"{_place(task)}; give one of them another name"
                )
            known[declaration.name] = task

    def get(self, name: str) -> Task[Any, Any] | None:
        """Return the task of this name or alias, or None."""
        return self._tasks.get(name)

    def resolve(self, name: str) -> Task[Any, Any]:
        """Return the task of this name or alias.

        Raises:
            UnknownTaskError: there is none; the text names the nearest.
        """
        known = self._tasks.get(name)
        if known is not None:
            return known
        near = nearest(name, list(self._tasks))
        hint = f"; did you mean {near!r}?" if near else ""
        raise UnknownTaskError(f"no task is named {name!r}{hint}")

    def __iter__(self) -> Iterator[Task[Any, Any]]:
        return iter({task.name: task for task in self._tasks.values()}.values())

    def __len__(self) -> int:
        return len({task.name for task in self._tasks.values()})

    def lifespan(self, function: L) -> L:
        """Register the application's async context manager: what it yields, tasks can reach.

        It is entered before the first message of a worker process is run, and left after the
        last has ended.

        Example:
            ```python
            @lifespan
            @asynccontextmanager
            async def resources() -> AsyncIterator[Resources]:
                async with httpx.AsyncClient() as http:
                    yield Resources(http)
            ```
        """
        if self._lifespan is not None and self._lifespan is not function:
            raise TaskDefinitionError("there is a lifespan already; one per registry")
        self._lifespan = function
        return function

    @property
    def resources(self) -> Lifespan | None:
        """The registered lifespan, or None."""
        return self._lifespan


def _place(task: Task[Any, Any]) -> str:
    code = getattr(task.fn, "__code__", None)
    where = f" ({code.co_filename}:{code.co_firstlineno})" if code is not None else ""
    return f"{task.fn.__module__}.{task.fn.__qualname__}{where}"


default_registry = Registry()
lifespan = default_registry.lifespan
