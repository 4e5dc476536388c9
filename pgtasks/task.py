"""Task: a function that can be deferred, and the decorator that makes one."""

import inspect
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload

import attrs

from pgtasks.client import Call, current_client
from pgtasks.codec import encode_plain
from pgtasks.context import Context, current_message
from pgtasks.duration import parse_duration
from pgtasks.errors import ArgumentError, TaskDefinitionError
from pgtasks.message import Handle, write_state
from pgtasks.outcome import Delay
from pgtasks.policy import UNSET, Action, Retries, TaskSettings, _Unset
from pgtasks.registry import Registry, default_registry
from pgtasks.signature import Signature
from pgtasks.store import Executor

P = ParamSpec("P")
R = TypeVar("R")


@attrs.frozen
class When:
    """When a message becomes due, and on whose connection it is stored."""

    delay: timedelta = timedelta(0)
    at: datetime | None = None
    connection: Executor | None = None


@attrs.frozen(eq=False)
class Task(Generic[P, R]):
    """A function that can be deferred. Calling it calls the function, here and now.

    Made by `@task`; never changed afterwards: `options()` returns another one.
    """

    fn: Callable[..., R]
    name: str
    aliases: tuple[str, ...]
    settings: TaskSettings
    signature: Signature
    is_async: bool
    _when: When = When()
    _overrides: Mapping[str, Any] = attrs.field(factory=dict)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function itself; nothing is stored."""
        if self.signature.context_parameter is None:
            return self.fn(*args, **kwargs)
        placed, named = self.signature.with_context(current_message(), args, kwargs)
        return self.fn(*placed, **named)

    async def defer(self, *args: P.args, **kwargs: P.kwargs) -> Handle:
        """Store a message to run this task with these arguments.

        When this returns, Postgres has it.

        Raises:
            ArgumentError: the arguments do not fit the function, or cannot travel as JSON.
            NotConnectedError: no client is open.
            DatabaseUnreachable: the database was not reached, or did not answer in time.

        Example:
            `handle = await send_welcome.defer(42, locale="de")`
        """
        [handle] = await current_client().send(self._call([self._encoded(args, kwargs)]))
        return handle

    async def defer_many(self, calls: Iterable[Sequence[Any] | Mapping[str, Any]]) -> list[Handle]:
        """Store a message for each call, all or none, many in a statement.

        Args:
            calls: each a sequence of positional arguments or a mapping of named ones.

        Raises:
            ArgumentError: one of them does not fit; the text says which; nothing is stored.

        Example:
            `await send_welcome.defer_many([(1,), (2,), {"user_id": 3, "locale": "de"}])`
        """
        encoded = self._encoded_many(calls)
        return await current_client().send(self._call(encoded)) if encoded else []

    def defer_sync(self, *args: P.args, **kwargs: P.kwargs) -> Handle:
        """Do what `defer` does, from code without an event loop.

        Raises:
            RuntimeError: called on the event loop of the client; use `await ….defer()` there.
        """
        [handle] = current_client().send_sync(self._call([self._encoded(args, kwargs)]))
        return handle

    def defer_many_sync(self, calls: Iterable[Sequence[Any] | Mapping[str, Any]]) -> list[Handle]:
        """Do what `defer_many` does, from code without an event loop."""
        encoded = self._encoded_many(calls)
        return current_client().send_sync(self._call(encoded)) if encoded else []

    def options(
        self,
        *,
        queue: str | None = None,
        delay: Delay | None = None,
        at: datetime | None = None,
        connection: Executor | None = None,
        retries: int | None = None,
        timeout: Delay | _Unset | None = UNSET,
        on_success: Action | None = None,
        on_failure: Action | None = None,
    ) -> "Task[P, R]":
        """Return this task with other options for the messages deferred through it.

        Args:
            queue: the queue to store them in.
            delay: how long until they are due: seconds, a text such as "250ms", or a timedelta.
            at: the moment they are due, a datetime with a zone; instead of `delay`.
            connection: an asyncpg connection; inside its transaction the messages are stored,
                and rolled back, with it.
            retries: how often they are tried again.
            timeout: how long a run may take; None: as long as it likes.
            on_success: "delete" or "archive".
            on_failure: "delete" or "archive", when given up.

        Example:
            `await send_welcome.options(delay=60).defer(42)`
        """
        changed = TaskSettings(
            queue=queue, retries=_whole(retries), timeout=timeout, on_success=on_success,
            on_failure=on_failure,
        )  # fmt: skip
        return attrs.evolve(
            self,
            settings=self.settings if queue is None else attrs.evolve(self.settings, queue=queue),
            when=_when(self._when, delay, at, connection),
            overrides={**self._overrides, **_said(changed)},
        )

    def _encoded(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes:
        return self.signature.encode(tuple(args), dict(kwargs))

    def _encoded_many(self, calls: Iterable[Sequence[Any] | Mapping[str, Any]]) -> list[bytes]:
        encoded = []
        for place, call in enumerate(calls):
            try:
                encoded.append(self._encoded_call(call))
            except ArgumentError as error:
                raise ArgumentError(f"call {place} of defer_many: {error}") from None
        return encoded

    def _encoded_call(self, call: Sequence[Any] | Mapping[str, Any]) -> bytes:
        if isinstance(call, Mapping):
            return self.signature.encode((), dict(call))
        if isinstance(call, Sequence) and not isinstance(call, str | bytes):
            return self.signature.encode(tuple(call), {})
        raise ArgumentError(
            f"a call is a sequence of positional arguments or a mapping of named ones, "
            f"not {type(call).__name__}: write ({call!r:.40},)"
        )

    def _call(self, encoded: Sequence[bytes]) -> Call:
        return _call(self.name, self.settings.queue, encoded, self._when, self._overrides)


@attrs.frozen
class NamedTask:
    """A task of another program, known only by its name; its arguments are plain JSON.

    Example:
        `await NamedTask("billing.charge", queue="billing").defer(order_id=7)`
    """

    name: str
    queue: str | None = None
    _when: When = When()

    async def defer(self, *args: Any, **kwargs: Any) -> Handle:
        """Store a message; positional arguments become an array, named ones an object."""
        encoded = encode_plain(args, kwargs)
        [handle] = await current_client().send(self._call(encoded))
        return handle

    def defer_sync(self, *args: Any, **kwargs: Any) -> Handle:
        """Do what `defer` does, from code without an event loop."""
        [handle] = current_client().send_sync(self._call(encode_plain(args, kwargs)))
        return handle

    def options(
        self,
        *,
        queue: str | None = None,
        delay: Delay | None = None,
        at: datetime | None = None,
        connection: Executor | None = None,
    ) -> "NamedTask":
        """Return this task with other options, as `Task.options` does."""
        when = _when(self._when, delay, at, connection)
        return attrs.evolve(self, queue=queue or self.queue, when=when)

    def _call(self, encoded: bytes) -> Call:
        return _call(self.name, self.queue, [encoded], self._when, {})


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
    on_success: Action | None = None,
    on_failure: Action | None = None,
    durable: bool | None = None,
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
    on_success: Action | None = None
    on_failure: Action | None = None
    durable: bool | None = None
    registry: Registry | None = None

    @overload
    def __call__(self, fn: Callable[Concatenate[Context, P], R], /) -> Task[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, R], /) -> Task[P, R]: ...
    def __call__(self, fn: Callable[..., Any], /) -> Task[Any, Any]:
        """Register the function."""
        _check_function(fn)
        made: Task[Any, Any] = Task(
            fn=fn,
            name=_checked_name(self.name or _default_name(fn)),
            aliases=tuple(_checked_name(alias) for alias in self.aliases),
            settings=TaskSettings(
                queue=self.queue,
                retries=self.retries,
                timeout=self.timeout,
                lease=self.lease,
                on_success=self.on_success,
                on_failure=self.on_failure,
                durable=self.durable,
            ),
            signature=Signature.of(fn, context_type=Context),
            is_async=inspect.iscoroutinefunction(fn),
        )
        (self.registry or default_registry).add(made)
        return made


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


def _checked_name(name: object) -> str:
    if not isinstance(name, str) or not 0 < len(name) <= 200 or not name.isprintable():
        raise TaskDefinitionError(
            f"the name of a task is 1 to 200 printable characters, not {name!r:.80}"
        )
    return name


def _whole(retries: int | None) -> int | None:
    if retries is not None and type(retries) is not int:
        raise ArgumentError(
            "options(retries=...) is a whole number: it travels with the message; "
            "a Retry or a function belongs in the decorator"
        )
    return retries


def _when(
    before: When, delay: Delay | None, at: datetime | None, connection: Executor | None
) -> When:
    if delay is not None and at is not None:
        raise ArgumentError("options() takes a delay or a moment (at), not both")
    if at is not None and (not isinstance(at, datetime) or at.utcoffset() is None):
        raise ArgumentError(
            f"options(at=...) is a datetime with a zone, not {at!r}: "
            "for example datetime(2027, 1, 1, tzinfo=ZoneInfo('Europe/Berlin'))"
        )
    if connection is not None and not hasattr(connection, "fetchval"):
        raise ArgumentError(
            f"options(connection=...) is an asyncpg connection, not {type(connection).__name__}"
        )
    return When(
        delay=before.delay if delay is None else parse_duration(delay),
        at=(before.at if delay is None else None) if at is None else at.astimezone(UTC),
        connection=connection or before.connection,
    )


def _said(settings: TaskSettings) -> dict[str, Any]:
    said = {
        "retries": settings.retries,
        "on_success": settings.on_success,
        "on_failure": settings.on_failure,
    }
    kept: dict[str, Any] = {name: value for name, value in said.items() if value is not None}
    if not isinstance(settings.timeout, _Unset):
        timeout = settings.timeout
        kept["timeout"] = None if timeout is None else timeout.total_seconds()
    return kept


def _call(
    name: str,
    queue: str | None,
    encoded: Sequence[bytes],
    when: When,
    overrides: Mapping[str, Any],
) -> Call:
    headers = write_state({"options": dict(overrides)}) if overrides else None
    return Call(
        task=name,
        queue=queue or current_client().config.task.queue,
        args=encoded,
        headers=None if headers is None else f'{{"pgtasks":{headers}}}',
        delay=when.delay,
        at=when.at,
        connection=when.connection,
    )
