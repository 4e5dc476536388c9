"""Pruner: deletes from archives what is beyond their limits, a little at a time."""

import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import timedelta
from time import monotonic
from typing import Any, Final

import anyio
import asyncpg
import attrs

from pgtasks.backoff import Backoff
from pgtasks.config import DatabaseConfig, WorkerConfig
from pgtasks.connection import FAILURES, WORKER_SETTINGS, Line, is_transient
from pgtasks.events import Events
from pgtasks.outage import Outage
from pgtasks.retention import RESTS, Limits, Pace, Retention
from pgtasks.store import NEWEST, OLDEST, Executor, Mark, Store

log = Events("pgtasks.pruner")

PRUNER_SETTINGS: Mapping[str, str] = {
    **WORKER_SETTINGS,
    # Less than a call's own bound: what the server ends by itself leaves the connection whole.
    "statement_timeout": "4s",
    "lock_timeout": "1s",
}
STRIDE = 20_000
"""How far back one statement walks to find how far the newest reach: some 10 ms, since meanwhile
nothing that is deleted anywhere in the database can be cleaned up."""
TURN = 0.8
"""How much of the time until the next turn a pass may take: then whoever is next goes on, and
never are there two at once."""
LEDGER = "ledger"
LEDGER_KEPT = timedelta(days=30)

_HALVES: Final = {"done": True, "failed": False}


@attrs.define(eq=False)
class Pruning:
    """One pass over the archive of a queue."""

    queue: str
    _store: Store
    _end_at: float = math.inf
    """When to stop, by the local monotonic clock, however much is left."""
    deleted: Counter[str] = attrs.field(factory=Counter, init=False)
    """How many were deleted so far, under "done" and "failed"."""
    is_ours: bool = attrs.field(default=True, init=False)
    """False when somebody else turned out to prune this archive now: then it is left to them."""
    _pace: Pace = attrs.field(factory=Pace, init=False)

    async def run(self, retention: Retention) -> None:
        """Delete what is beyond the limits.

        Raises:
            asyncpg.UndefinedTableError: there is no such queue.
            asyncpg.PostgresError: the server refused.
        """
        for half in _HALVES:
            after = OLDEST
            for until in await self._marks(half, getattr(retention, half)):
                after = await self._delete(half, after, until)

    async def count(self, retention: Retention) -> Counter[str]:
        """Count what is beyond the limits, and delete nothing."""
        counts = Counter[str]()
        for half, done in _HALVES.items():
            for until in await self._marks(half, getattr(retention, half)):
                number = await self._store.count_old(self.queue, until, done=done)
                counts[half] = max(counts[half], number)
        return counts

    async def _delete(self, half: str, after: Mark, until: Mark) -> Mark:
        """Delete what is between two marks, batch by batch; return the mark of the last."""
        while self.is_ours and monotonic() < self._end_at:
            row = await self._store.prune_archive(
                self.queue, self._pace.size, after, until, done=_HALVES[half]
            )
            self.is_ours = row["is_ours"]
            if not row["deleted"]:
                break
            self.deleted[half] += row["deleted"]
            after = (row["archived_at"], row["msg_id"])
            await anyio.sleep(self._pace.after(row["seconds"]))
        return after

    async def _marks(self, half: str, limits: Limits) -> list[Mark]:
        """Return up to where messages are beyond a limit."""
        marks: list[Mark] = []
        if limits.age is not None:
            marks.append((await self._store.moment_ago(limits.age), NEWEST[1]))
        if limits.count is not None:
            mark = await self._behind(half, limits.count)
            marks += [] if mark is None else [mark]
        return marks

    async def _behind(self, half: str, count: int) -> Mark | None:
        """Return the mark of the latest message that has so many later ones, if there is one."""
        mark: Mark | None = NEWEST
        while mark is not None and count >= STRIDE:
            if monotonic() >= self._end_at:
                return None
            mark = await self._walk(half, mark, STRIDE - 1)
            count -= STRIDE
        return None if mark is None else await self._walk(half, mark, count)

    async def _walk(self, half: str, mark: Mark, skipped: int) -> Mark | None:
        began_at = monotonic()
        found = await self._store.archive_mark(self.queue, mark, skipped, done=_HALVES[half])
        await anyio.sleep(RESTS * (monotonic() - began_at))
        return found


@attrs.frozen
class _OnLine(Executor):
    """The statements of a store, each a call of a line."""

    line: Line

    async def fetch(self, query: str, /, *args: Any) -> list[Any]:
        return await self.line.call(lambda on: on.fetch(query, *args))

    async def fetchrow(self, query: str, /, *args: Any) -> Any:
        return await self.line.call(lambda on: on.fetchrow(query, *args))

    async def fetchval(self, query: str, /, *args: Any) -> Any:
        return await self.line.call(lambda on: on.fetchval(query, *args))


@attrs.define(eq=False)
class Pruner:
    """Prunes the archives of a worker's queues, and the ledger of the schedules.

    Of all workers, in however many processes, the one that comes to an archive first takes its
    turn; the next turn begins `worker.retention.every` later, by the database's clock. A worker
    knows the limits of its own queues only, so it never touches the archive of another's.
    """

    _queues: Sequence[str]
    _config: WorkerConfig
    _database: DatabaseConfig
    _line: Line = attrs.field(init=False)
    _store: Store = attrs.field(init=False)
    _refused: set[str] = attrs.field(factory=set, init=False)
    """Queues of which it was said that their archives cannot be pruned."""
    _outage: Outage = attrs.field(
        factory=lambda: Outage(log, "archives are not pruned, trying again"), init=False
    )

    def __attrs_post_init__(self) -> None:
        self._line = Line(self._database, "pruner", PRUNER_SETTINGS)
        self._store = Store(_OnLine(self._line))

    async def run(self) -> None:
        """Prune what is due until cancelled."""
        every = self._config.retention.every.total_seconds()
        backoff = Backoff(longest_seconds=every, first_seconds=1.0)
        pause = _part_of(every)
        while True:
            await anyio.sleep(pause)
            try:
                await self.look()
            except FAILURES as error:
                self._outage.report(error)
                pause = backoff.next_seconds()
            else:
                self._outage.over()
                backoff.reset()
                pause = _part_of(every)

    async def look(self) -> None:
        """Prune that of which it is nobody else's turn, on a connection for as long as it takes."""
        try:
            await self._look()
        finally:
            await self._line.close()

    async def _look(self) -> None:
        archives = {f"archive {queue}": queue for queue in self._queues}
        every = self._config.retention.every
        due = await self._store.due_turns([*archives, LEDGER], every)
        random.shuffle(due)
        for turn in due:
            if not await self._store.take_turn(turn, every):
                continue
            if turn == LEDGER:
                await self._prune_ledger()
            else:
                await self._prune(archives[turn])

    async def _prune(self, queue: str) -> None:
        began_at = monotonic()
        longest = TURN * self._config.retention.every.total_seconds()
        pruning = Pruning(queue, self._store, began_at + longest)
        try:
            await pruning.run(Retention.of(self._config, queue))
        except asyncpg.UndefinedTableError:
            return  # not created yet, or dropped
        except asyncpg.PostgresError as error:
            if is_transient(error):
                raise
            self._say_refused(queue, error)
        finally:
            if pruning.deleted:
                seconds = round(monotonic() - began_at, 1)
                log.info("archive pruned", queue=queue, **pruning.deleted, seconds=seconds)

    def _say_refused(self, queue: str, error: asyncpg.PostgresError) -> None:
        if queue not in self._refused:
            self._refused.add(queue)
            log.error(
                "the archive cannot be pruned: mend what the error says, or set "
                "worker.retention.enable = false",
                queue=queue,
                error=str(error),
            )

    async def _prune_ledger(self) -> None:
        pace, number = Pace(), 1
        while number:
            began_at = monotonic()
            number = await self._store.prune_fires(pace.size, LEDGER_KEPT)
            await anyio.sleep(pace.after(monotonic() - began_at))


def _part_of(every: float) -> float:
    """A part of the time between two turns, so that none is late by much; never the same."""
    return every * random.uniform(0.25, 0.75)
