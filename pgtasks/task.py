"""Task: a function that can be deferred."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import chain, islice
from typing import Any, Generic, ParamSpec, TypeVar

import attrs

from pgtasks.bulk import SLICE
from pgtasks.call import Call
from pgtasks.client import current_client
from pgtasks.codec import encode_plain
from pgtasks.config import Ending
from pgtasks.context import current_message
from pgtasks.declaration import Declaration
from pgtasks.errors import ArgumentError, TaskDefinitionError
from pgtasks.message import Handle
from pgtasks.options import Options
from pgtasks.outcome import Delay
from pgtasks.policy import UNSET, TaskSettings, _Unset
from pgtasks.schedule import Schedule
from pgtasks.signature import Signature
from pgtasks.store import Executor
from pgtasks.stored_schedule import StoredSchedule

P = ParamSpec("P")
R = TypeVar("R")


def check_task_name(name: object) -> str:
    """Return `name` if it can be the name of a task.

    Raises:
        TaskDefinitionError: it cannot.
    """
    if not isinstance(name, str) or not 0 < len(name) <= 200 or not name.isprintable():
        raise TaskDefinitionError(
            f"the name of a task is 1 to 200 printable characters, not {name!r:.80}"
        )
    return name


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
    package: str = ""
    """The package whose code it is: the owner of its schedules."""
    schedules: tuple[Declaration, ...] = ()
    """When it is sent by itself, as its code says."""
    _options: Options = attrs.field(factory=Options)

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function itself; nothing is stored."""
        if self.signature.context_parameter is None:
            return self.fn(*args, **kwargs)
        placed, named = self.signature.with_context(current_message(), args, kwargs)
        return self.fn(*placed, **named)

    async def defer(self, /, *args: P.args, **kwargs: P.kwargs) -> Handle:
        """Store a message to run this task with these arguments.

        When this returns, Postgres has it.

        Raises:
            ArgumentError: the arguments do not fit the function, or cannot travel as JSON.
            NotConnectedError: no client is open.
            DatabaseUnreachable: the database was not reached, or did not answer in time.

        Example:
            `handle = await send_welcome.defer(42, locale="de")`
        """
        encoded = self.signature.encode(args, kwargs)
        [handle] = await current_client().send(self._call(), [encoded])
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
        slices = self._encoded_slices(calls)
        if (first := next(slices, None)) is None:
            return []
        return await current_client().send_many(self._call(), chain([first], slices))

    def defer_sync(self, /, *args: P.args, **kwargs: P.kwargs) -> Handle:
        """Do what `defer` does, from code without an event loop.

        Raises:
            RuntimeError: called on the event loop of the client; use `await ….defer()` there.
        """
        encoded = self.signature.encode(args, kwargs)
        [handle] = current_client().send_sync(self._call(), [encoded])
        return handle

    def defer_many_sync(self, calls: Iterable[Sequence[Any] | Mapping[str, Any]]) -> list[Handle]:
        """Do what `defer_many` does, from code without an event loop."""
        slices = list(self._encoded_slices(calls))
        return current_client().send_many_sync(self._call(), iter(slices)) if slices else []

    def options(
        self,
        *,
        queue: str | None = None,
        delay: Delay | None = None,
        at: datetime | None = None,
        connection: Executor | None = None,
        retries: int | None = None,
        timeout: Delay | _Unset | None = UNSET,
        on_success: Ending | None = None,
        on_failure: Ending | None = None,
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
        return attrs.evolve(
            self,
            options=self._options.changed(
                queue=queue,
                delay=delay,
                at=at,
                connection=connection,
                retries=retries,
                timeout=timeout,
                on_success=on_success,
                on_failure=on_failure,
            ),
        )

    async def schedule(
        self, schedule: Schedule, /, *args: P.args, **kwargs: P.kwargs
    ) -> StoredSchedule:
        """Make a schedule at run time that sends this task, or change the one of its name.

        It is kept in the database, and fired by any worker that knows the task.

        Raises:
            ArgumentError: the arguments do not fit the function, or cannot travel as JSON.
            DuplicateScheduleError: the code of a program declares a schedule of this name.
            NotConnectedError: no client is open.
            DatabaseUnreachable: the database was not reached, or did not answer in time.

        Example:
            ```python
            weekly = Schedule("report-42", cron="0 9 * * MON", timezone="Europe/Berlin")
            await send_report.schedule(weekly, customer=42)
            ```
        """
        client = current_client()
        declared = declared_call(self.name, self.signature, schedule, args, kwargs)
        queue = schedule.queue or self._options.queue or self.settings.queue
        return await client.schedules.set(declared, queue or client.config.task.queue)

    def _encoded_slices(
        self, calls: Iterable[Sequence[Any] | Mapping[str, Any]]
    ) -> Iterator[list[bytes]]:
        rest, place = iter(calls), 0
        while part := list(islice(rest, SLICE)):
            alike = self.signature.encode_alike(part)
            yield self._encoded_each(part, place) if alike is None else alike
            place += len(part)

    def _encoded_each(
        self, calls: Sequence[Sequence[Any] | Mapping[str, Any]], first_place: int
    ) -> list[bytes]:
        encoded = []
        for place, call in enumerate(calls, first_place):
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

    def _call(self) -> Call:
        return self._options.call(self.name, self.settings.queue)


def declared_call(
    task: str,
    signature: Signature,
    schedule: Schedule,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
) -> Declaration:
    """Return a schedule with the call that it makes.

    Raises:
        ArgumentError: the arguments do not fit the function, or are given in two places.
    """
    if (args or kwargs) and (schedule.args or schedule.kwargs):
        raise ArgumentError(f"schedule {schedule.name!r} has arguments already; give them once")
    encoded = signature.encode((*schedule.args, *args), {**schedule.kwargs, **(kwargs or {})})
    return Declaration(schedule, task, encoded.decode())


@attrs.frozen
class NamedTask:
    """A task of another program, known only by its name; its arguments are plain JSON.

    Example:
        `await NamedTask("billing.charge", queue="billing").defer(order_id=7)`
    """

    name: str = attrs.field(converter=check_task_name)
    queue: str | None = None
    _options: Options = attrs.field(factory=Options)

    async def defer(self, /, *args: Any, **kwargs: Any) -> Handle:
        """Store a message; positional arguments become an array, named ones an object."""
        encoded = encode_plain(args, kwargs)
        [handle] = await current_client().send(self._call(), [encoded])
        return handle

    def defer_sync(self, /, *args: Any, **kwargs: Any) -> Handle:
        """Do what `defer` does, from code without an event loop."""
        [handle] = current_client().send_sync(self._call(), [encode_plain(args, kwargs)])
        return handle

    async def schedule(self, schedule: Schedule, /, *args: Any, **kwargs: Any) -> StoredSchedule:
        """Make a schedule at run time, or change the one of its name, as `Task.schedule` does."""
        client = current_client()
        declared = Declaration(schedule, self.name, encode_plain(args, kwargs).decode())
        queue = schedule.queue or self._options.queue or self.queue
        return await client.schedules.set(declared, queue or client.config.task.queue)

    def options(
        self,
        *,
        queue: str | None = None,
        delay: Delay | None = None,
        at: datetime | None = None,
        connection: Executor | None = None,
    ) -> "NamedTask":
        """Return this task with other options, as `Task.options` does."""
        changed = self._options.changed(queue=queue, delay=delay, at=at, connection=connection)
        return attrs.evolve(self, options=changed)

    def _call(self) -> Call:
        return self._options.call(self.name, self.queue)
