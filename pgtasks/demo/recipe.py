"""Demo: find files, send a message for each, let a worker run them, say what came of it."""

import asyncio
import signal
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar

import anyio
import anyio.to_thread
import asyncpg
import attrs

from pgtasks import exit_codes
from pgtasks.client import Client
from pgtasks.connection import FAILURES, Connection, Line, is_transient
from pgtasks.database import Database, open_database
from pgtasks.database_url import masked_url
from pgtasks.demo import estate
from pgtasks.demo.files import Found, find_files, to_name
from pgtasks.demo.progress import Progress, bar, describe, width
from pgtasks.demo.statement import statement
from pgtasks.demo.summary import Summary
from pgtasks.demo.tasks import QUEUE, measure
from pgtasks.demo.worker import WorkerProcess, worker_process
from pgtasks.errors import DatabaseError
from pgtasks.layers import Loaded

STUMBLES = 5
"""How many messages fail at their first attempt."""
SINGLES = 20
"""How many files are sent one by one, at the end, to see how long a message takes."""
POLL_SECONDS = 0.1
SINGLE_POLL_SECONDS = 0.005
PAUSE_SECONDS = 0.5
PATIENCE_SECONDS = 30.0
"""How long a database that does not answer in the middle of the demo is waited for."""
STALLED_SECONDS = 60.0
"""Longer than any run may take, and than a worker waits after any failure."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_BROKEN = "This file is a sentence, not Python: its message fails and is given up.\n"
T = TypeVar("T")


@attrs.define(eq=False)
class Demo:
    """One demo, from beginning to end."""

    _folder: Path | None
    _processes: int
    _keep: bool
    _loaded: Loaded
    _progress: Progress = attrs.field(factory=Progress, init=False)
    _began_at: float = attrs.field(factory=monotonic, init=False)
    _signal: int | None = attrs.field(default=None, init=False)
    _line: Line = attrs.field(init=False)

    async def run(self) -> int:
        """Run it, and return the exit code."""
        with anyio.CancelScope() as scope:
            self._listen_for_signals(scope)
            try:
                return await self._run()
            finally:
                self._progress.clear()
        return 128 + (self._signal or 0)

    def _listen_for_signals(self, scope: anyio.CancelScope) -> None:
        def interrupt(number: int) -> None:
            if self._signal is None:
                self._signal = number
                clearing = "" if self._keep else " and clearing up"
                self._progress.say(f"interrupted: stopping the worker{clearing}")
                scope.cancel()

        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, interrupt, number)

    async def _run(self) -> int:
        found = await anyio.to_thread.run_sync(find_files, self._folder)
        with tempfile.TemporaryDirectory(prefix="pgtasks-demo-") as folder:
            broken = Path(folder, "not_python.py")
            await anyio.Path(broken).write_text(_BROKEN)
            async with self._database() as database:
                self._introduce(found)
                async with worker_process(self._loaded, self._processes) as worker:
                    sent, last_of_bulk = await self._work(database, worker, found.paths, broken)
                summary = await self._call(lambda on: Summary.read(on, last_of_bulk))
                self._conclude(summary, sent, (*found.folders, Path(folder)))
        self._progress.say(f"\nThat took {monotonic() - self._began_at:.1f} s in all.")
        return exit_codes.OK if summary.is_complete(sent) else exit_codes.FAILED

    # The stage

    @asynccontextmanager
    async def _database(self) -> AsyncIterator[Database]:
        """Open the database, make in it what the demo needs, and clear up afterwards."""
        if self._loaded.config.database.url is None:
            self._progress.show("starting the embedded PostgreSQL")
        database = await open_database(self._loaded)
        try:
            database, facts = await estate.prepare(database, self._loaded)
            async with estate.only_demo(database):
                self._line = Line(database.config, "demo")
                await estate.create(database)
                try:
                    self._progress.say(f"database  {_server(database, facts)}")
                    yield database
                finally:
                    await self._line.close()
                    await self._clear_up(database, facts)
        finally:
            database.close()

    async def _clear_up(self, database: Database, facts: asyncpg.Record) -> None:
        if self._keep:
            self._progress.say(_KEPT)
            return
        try:
            await estate.drop(database)
        except DatabaseError as error:
            self._progress.say(f"warning: not cleared up, the next demo will do it: {error}")
        else:
            also = (
                "" if facts["is_installed"] else "; the schema of pgtasks itself is there to stay"
            )
            self._progress.say(f"\nThe demo's tables and its queue are gone again{also}.")

    def _introduce(self, found: Found) -> None:
        say, many = self._progress.say, self._processes > 1
        say(f"files     {len(found.paths):,} in {', '.join(map(str, found.folders))}")
        if passed := _passed_over(found):
            say(f"          passed over: {passed}")
        say(f"worker    `pgtasks worker pgtasks.demo.tasks`, {self._processes} "
            f"process{'es' if many else ''}")  # fmt: skip

    # The play

    async def _work(
        self, database: Database, worker: WorkerProcess, paths: Sequence[Path], broken: Path
    ) -> tuple[int, int]:
        """Send all messages and see them end; how many, and the number of the last in bulk."""
        count = len(paths) - min(SINGLES, len(paths) // 2)
        bulk, singles = paths[:count], paths[count:]
        async with Client(self._loaded, database, owns_database=False):
            since = monotonic()
            handles = await measure.defer_many([{"path": to_name(broken)}, *_calls(bulk)])
            self._progress.say(
                f"messages  {len(handles):,} sent in {monotonic() - since:.2f} s: one a file, and "
                f"one for a file that is no Python; {len(singles)} follow, one by one\n"
            )
            total = len(handles) + len(singles)
            await self._watch(worker, len(handles), total, POLL_SECONDS)
            for place, path in enumerate(singles, len(handles) + 1):
                await measure.defer(to_name(path))
                await self._watch(worker, place, total, SINGLE_POLL_SECONDS)
        return total, handles[-1].message_id

    async def _watch(
        self, worker: WorkerProcess, wanted: int, total: int, poll_seconds: float
    ) -> None:
        """Show how far the worker is, until so many messages have ended."""
        before, moved_at = -1, monotonic()
        while True:
            worker.check()
            now = await self._call(_progress)
            text = describe(now["ended"], now["given_up"], total)
            self._progress.show(text, bar(now["ended"], total))
            if now["waiting"] == 0 and now["ended"] >= wanted:
                return
            if now["ended"] != before:
                before, moved_at = now["ended"], monotonic()
            elif monotonic() - moved_at > STALLED_SECONDS:
                raise worker.failed(f"no message has ended for {STALLED_SECONDS:g} s")
            await anyio.sleep(poll_seconds)

    async def _call(self, use: Callable[[Connection], Awaitable[T]]) -> T:
        """Ask the database, and wait for one that is away for a while, as the worker does."""
        give_up_at = monotonic() + PATIENCE_SECONDS
        while True:
            try:
                return await self._line.call(use)
            except FAILURES as error:
                if not is_transient(error) or monotonic() > give_up_at:
                    raise estate.explained(self._line.database, error) from error
            self._progress.show("waiting for the database")
            await anyio.sleep(PAUSE_SECONDS)

    # The end

    def _conclude(self, summary: Summary, sent: int, folders: Sequence[Path]) -> None:
        self._progress.clear()
        for line in summary.lines(sent, folders, width(self._progress.stream)):
            self._progress.say(line)


_KEPT = f"""
Everything is kept until the next demo. To look at it:
  pgtasks message list {QUEUE} --archived --limit 5
  pgtasks message list {QUEUE} --archived --outcome failed
  pgtasks message show {QUEUE} 1
and in SQL: the tables pgtasks_demo.file and pgmq.a_{QUEUE}."""


def _server(database: Database, facts: asyncpg.Record) -> str:
    version = str(facts["version"]).split()[0]
    if database.server is not None:
        return f"PostgreSQL {version}, embedded: {database.server.data_folder}"
    return f"PostgreSQL {version}, {masked_url(database.config.url or '')}"


def _passed_over(found: Found) -> str:
    counts = {"binary files": found.binary, "unreadable folders": found.unreadable_folders}
    return ", ".join(f"{what}: {count:,}" for what, count in counts.items() if count)


def _calls(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """The calls for these files; a few of them, evenly spread, are to stumble."""
    step = max(1, len(paths) // STUMBLES)
    stumbling = range(0, len(paths), step)[:STUMBLES]
    return [
        {"path": to_name(path), "stumble": place in stumbling} for place, path in enumerate(paths)
    ]


async def _progress(on: Connection) -> asyncpg.Record:
    [row] = await on.fetch(statement("progress"))
    return row
