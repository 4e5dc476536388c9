"""Drain: work off what is in the queues, here and now, for tests."""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final

import anyio
import attrs

from pgtasks import layers
from pgtasks.client import current_client
from pgtasks.config import (
    Config,
    InstallConfig,
    PeriodicConfig,
    QueueFetchConfig,
    RetentionConfig,
    VacuumConfig,
    WorkerConfig,
)
from pgtasks.database import Database, given, open_database
from pgtasks.duration import format_duration, parse_duration
from pgtasks.errors import NotConnectedError, PgtasksError, UnknownTaskError
from pgtasks.outcome import Delay, RetryLater, Signal
from pgtasks.queue_name import check_queue_name, is_queue_name
from pgtasks.registry import Registry, default_registry
from pgtasks.settlement import Ended
from pgtasks.store import Store
from pgtasks.worker import Worker

POLL_SECONDS: Final = 0.005
LOOK_AGAIN: Final = timedelta(milliseconds=10)
MOST_TASKS: Final = 5


@attrs.frozen
class Drained:
    """What became of the messages that `drain` ran."""

    runs: tuple[Ended, ...]
    """Each run, in the order in which they ended."""

    @property
    def counts(self) -> Counter[str]:
        """How many messages were last "done", "retried", "given up", "snoozed" or "put back"."""
        return Counter(run.kind for run in self._last())

    @property
    def errors(self) -> list[Exception]:
        """The errors of the messages that have not ended well, or not yet."""
        return [_told(run) for run in self._last() if _is_bad(run)]

    def _last(self) -> Iterable[Ended]:
        return {(run.message.queue, run.message.message_id): run for run in self.runs}.values()


async def drain(
    *,
    queues: Iterable[str] | None = None,
    delayed: bool = False,
    raise_errors: bool = True,
    within: Delay = 30,
    concurrency: int = 1,
    registry: Registry = default_registry,
    config: Config | None = None,
) -> Drained:
    """Run what is due, and what that defers in turn, until the queues have nothing more to run.

    A real worker does it, in this event loop: what your tests set up in memory, tasks see. One
    message runs at a time unless `concurrency` says otherwise. Schedules do not fire.

    Args:
        queues: only these; default: all there are in the database.
        delayed: run what is due later, too, as if its time had come: delayed messages, and those
            that wait to be tried again, until they are done or given up.
        raise_errors: raise what tasks have raised, unless the message was done in the end. One
            error is raised as it is, several as an ExceptionGroup. What tasks raise to steer
            (`Snooze`, `RetryLater`, `Discard`) is no error.
        within: how long it may take.
        concurrency: how many messages run at the same time.
        registry: the tasks to run; default: all that `@task` registered.
        config: a whole configuration; default: that of the open client, else files and
            environment.

    Raises:
        TimeoutError: it was not done in time; the text says what is left.
        UnknownTaskError: a message names a task that is not registered; its module is not
            imported, perhaps.
        DecodeError: a message does not fit its task.

    Example:
        ```python
        await send_welcome.defer(42)
        await drain()
        assert outbox == ["welcome, 42"]
        ```
    """
    database, settings = await _opened(config)
    limit = parse_duration(within)
    only = None if queues is None else [check_queue_name(queue) for queue in queues]
    drainer = _Drainer(settings, database, registry, only, concurrency, delayed, limit)
    try:
        with anyio.move_on_after(limit.total_seconds()) as bound:
            await drainer.run()
        if bound.cancelled_caught:
            raise TimeoutError(await drainer.what_is_left())
    finally:
        database.close()
    drained = Drained(tuple(drainer.runs))
    if raise_errors:
        _raise(drained.errors)
    return drained


@attrs.define(eq=False)
class _Drainer:
    """One call of `drain`."""

    _config: Config
    _database: Database
    _registry: Registry
    _only: Sequence[str] | None
    _concurrency: int
    _delayed: bool
    _limit: timedelta
    runs: list[Ended] = attrs.field(factory=list, init=False)
    _queues: Sequence[str] = attrs.field(default=(), init=False)

    async def run(self) -> None:
        """Work until nothing is left to run."""
        async with self._database.connection("drain") as connection:
            store = Store(connection)
            began_at = await store.now()
            while await self._has_more(store, began_at):
                async with self._worker():
                    served = self._queues
                    # A task may defer into a queue that was not there: for that, another worker.
                    while await self._has_more(store, began_at) and self._queues == served:  # noqa: ASYNC110
                        await anyio.sleep(POLL_SECONDS)

    async def what_is_left(self) -> str:
        """Say what keeps it from being done."""
        text = f"drain() was not done after {format_duration(self._limit)}"
        async with self._database.connection("drain") as connection:
            rows = [
                f"{row['messages']} of {row['task']} in {queue}"
                for queue in self._queues
                for row in await Store(connection).task_names(queue, MOST_TASKS)
            ]
        left = ", ".join(rows) or "nothing"
        return f"{text}; in the queues: {left}. Does a task wait for ever, or defer itself again?"

    async def _has_more(self, store: Store, began_at: datetime) -> bool:
        existing = [queue for queue in await store.list_queues() if is_queue_name(queue)]
        self._queues = [q for q in existing if self._only is None or q in self._only]
        if not self._queues:
            return False
        return bool(await store.unfinished(self._queues, began_at)) or await self._hasten(store)

    async def _hasten(self, store: Store) -> bool:
        if not self._delayed:
            return False
        # Of a task that is not registered here, nothing would come of it, for ever.
        unknown = {run.message.message_id for run in self.runs if run.kind == "put back"}
        return any([await store.hasten(queue, sorted(unknown)) for queue in self._queues])

    def _note(self, run: Ended) -> None:
        if run.kind == "put back":
            try:
                self._registry.resolve(run.task or "")
            except UnknownTaskError as error:
                run = attrs.evolve(run, error=error)
        self.runs.append(run)

    def _worker(self) -> Worker:
        return Worker(
            registry=self._registry,
            config=attrs.evolve(
                self._config,
                database=self._database.config,
                worker=WorkerConfig(
                    concurrency=self._concurrency,
                    grace=self._limit,
                    # What comes while it works, no NOTIFY has to say.
                    queue_fetch=QueueFetchConfig(empty_delay=LOOK_AGAIN, notify=False),
                    periodic=PeriodicConfig(enable=False),
                    retention=RetentionConfig(enable=False),
                    vacuum=VacuumConfig(enable=False),
                    install=InstallConfig(enable=False),
                ),
            ),
            queues=self._queues,
            database=self._database,
            on_end=self._note,
        )


async def _opened(config: Config | None) -> tuple[Database, Config]:
    """The database to work on, and the settings to work with."""
    if config is None:
        try:
            client = current_client()
        except NotConnectedError:
            loaded = layers.load()
        else:
            return Database(client.address, server=None), client.config
    else:
        loaded = given(config)
    database = await open_database(loaded)
    try:
        return await database.prepare(install=database.server is not None), loaded.config
    except BaseException:
        database.close()
        raise


# What it ended with


def _is_bad(run: Ended) -> bool:
    if isinstance(run.error, Signal):
        return isinstance(run.error, RetryLater) and run.kind == "given up"
    return run.error is not None


def _told(run: Ended) -> Exception:
    """The error of a run, with a note on which run it was."""
    message, error = run.message, run.error
    # KeyboardInterrupt and SystemExit: as they are they would end the whole test run.
    outer = PgtasksError(f"a task raised {type(error).__name__}")
    told = error if isinstance(error, Exception) else outer
    if told is outer:
        told.__cause__ = error
    note = f"task {run.task}, queue {message.queue}, message {message.message_id}"
    if note not in getattr(told, "__notes__", ()):
        told.add_note(note)
    return told


def _raise(errors: Sequence[Exception]) -> None:
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise ExceptionGroup(f"{len(errors)} messages have not ended well", errors)
