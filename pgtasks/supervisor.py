"""Supervisor: the process behind `pgtasks worker`. It keeps children running, and ends them.

It runs none of the user's code, so that nothing of it can bring it down.
Every second it says how the worker is.
"""

import asyncio
import math
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing, suppress
from time import monotonic

import anyio
import attrs
from anyio.abc import Process, TaskGroup

from pgtasks import exit_codes
from pgtasks.assignment import Assignment, read_line, to_line
from pgtasks.backoff import Backoff
from pgtasks.board import Board, Entry
from pgtasks.child import BOARD_VARIABLE, SOCKET_VARIABLE, STOP_SIGNALS, WATCHDOG_SECONDS
from pgtasks.config import Config
from pgtasks.connection import is_transient
from pgtasks.database import Database, open_database
from pgtasks.database_url import masked_url
from pgtasks.errors import ConfigError, DatabaseError, PgtasksError
from pgtasks.events import Events
from pgtasks.health import Health, Problem, judge
from pgtasks.health import Process as ProcessHealth
from pgtasks.health_teller import HealthTeller
from pgtasks.layers import Loaded
from pgtasks.message import Held
from pgtasks.plan import ALONE, Place
from pgtasks.recovery import Recovery, cause_of_death
from pgtasks.trial import Trial

log = Events("pgtasks.supervisor")

START_SECONDS = 30.0
"""How long a database that cannot be reached is waited for at the start."""
KILL_SECONDS = WATCHDOG_SECONDS + 0.5
"""How long after its grace a child that still lives is killed."""
LAST_SECONDS = 0.4
"""How long it may take, once told to stop, to free what a dead child held: leases run out too."""
SAME_SIGNAL_SECONDS = 0.2
"""Signals that follow so closely are one."""
QUARANTINES = 2
STARTS = 3
"""How often a child for suspects is started that dies before it is ready."""
HOLD_SECONDS = 0.5
"""How often the leases of suspects that wait for a child are extended."""
LONG_ENOUGH_SECONDS = 1.0
"""A child that worked so long was not failing from the start: the next one need not wait. What
kills every few seconds would else have all of them wait for longer and longer."""


@attrs.define(eq=False)
class _Child:
    process: Process
    board: Board
    link: socket.socket
    trial: Trial | None = None
    """The suspects that it runs, instead of fetching any messages."""
    ready_at: float = math.inf
    error: str | None = None
    is_usage: bool = False
    """Its error is one of the settings."""
    is_database: bool = False
    """Its error is one of the database."""
    heard_out: anyio.Event = attrs.field(factory=anyio.Event)
    is_ending: bool = False
    """It said that it ends on purpose."""

    @property
    def is_ready(self) -> bool:
        return self.ready_at < math.inf

    def tell(self, what: str, **more: str) -> None:
        with suppress(OSError):
            self.link.sendall(to_line({"do": what, **more}))

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            self.process.kill()


@attrs.define(eq=False)
class _Seat:
    """One of the configured processes, whichever child it is at the time."""

    number: int
    child: _Child | None = None
    lent: Counter[str] = attrs.field(factory=Counter)
    """By queue: how many of its slots are left to messages that run alone."""
    vacant_since: float = attrs.field(factory=monotonic)
    """Since when no child has been ready in it, when none is."""

    def leave(self, child: _Child) -> None:
        """Note that its child has ended."""
        self.child = None
        # One that the database kept from starting has done what it could.
        if child.is_ready or child.is_database:
            self.vacant_since = monotonic()

    def health(self) -> ProcessHealth:
        """What is known of its child."""
        vacant_seconds = monotonic() - self.vacant_since
        if self.child is None:
            return ProcessHealth(None, False, vacant_seconds)
        child, readings = self.child, self.child.board.pulses.read()
        return ProcessHealth(child.process.pid, child.is_ready, vacant_seconds, readings)


@attrs.define(eq=False)
class Supervisor:
    """Keeps the configured number of worker processes running until it is told to stop."""

    _loaded: Loaded
    _queues: tuple[str, ...] | None = None
    _began_at: float = attrs.field(factory=monotonic, init=False)
    _seats: list[_Seat] = attrs.field(factory=list, init=False)
    _children: set[_Child] = attrs.field(factory=set, init=False)
    _database: Database = attrs.field(init=False)
    _recovery: Recovery = attrs.field(init=False)
    _signalled_at: float = attrs.field(default=-SAME_SIGNAL_SECONDS, init=False)
    _signals: int = attrs.field(default=0, init=False)
    _stopping: anyio.Event = attrs.field(factory=anyio.Event, init=False)
    _hurried: anyio.Event = attrs.field(factory=anyio.Event, init=False)
    _failure: PgtasksError | None = attrs.field(default=None, init=False)
    """Why no child could be started."""
    _code: int = attrs.field(default=exit_codes.OK, init=False)
    _quarantines: anyio.Semaphore = attrs.field(
        factory=lambda: anyio.Semaphore(QUARANTINES), init=False
    )
    _suspects: set[Entry] = attrs.field(factory=set, init=False)
    """What waits to be run in a child of its own; its leases are ours meanwhile."""
    _handed_over: list[Entry] | None = attrs.field(default=None, init=False)
    """Those of them that children handed over, until the next child is free for them."""
    _spawning: anyio.Lock = attrs.field(factory=anyio.Lock, init=False)
    _group: TaskGroup = attrs.field(init=False)

    @property
    def _config(self) -> Config:
        return self._loaded.config

    async def run(self) -> int:
        """Run until stopped; return the exit code.

        Raises:
            PgtasksError: nothing could be started; the text says why.
        """
        loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, self._on_signal, number)
        teller = HealthTeller(self._loaded, self.health)
        await teller.start()
        try:
            return await self._supervise()
        finally:
            teller.close()
            # All is done, and the loop takes its handlers along: one signal more, between them and
            # the end of the process, would make a clean end look like a violent one.
            signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)

    def health(self) -> Health:
        """How the worker is."""
        seconds = monotonic() - self._began_at
        if self._stopping.is_set():
            return Health((Problem("stopping", 0.0),))
        if not self._seats:  # the database is waited for, or its schema upgraded
            return Health((Problem("starting", seconds),))
        limits = self._config.worker.health
        return judge(
            [seat.health() for seat in self._seats],
            stale_after=limits.stale_after.total_seconds(),
            start_within=limits.start_within.total_seconds(),
        )

    async def _supervise(self) -> int:
        database = await self._open()
        if database is None:
            return self._code
        self._database = database
        self._recovery = Recovery(database.config)
        try:
            async with anyio.create_task_group() as beside:
                beside.start_soon(self._end_in_time)
                beside.start_soon(self._hold_suspects)
                async with anyio.create_task_group() as self._group:
                    self._seats = [_Seat(n) for n in range(self._config.worker.processes)]
                    for seat in self._seats:
                        self._group.start_soon(self._keep_one, seat)
                beside.cancel_scope.cancel()
        finally:
            await self._recovery.close()
            database.close()
        if self._failure is not None:
            raise self._failure
        log.info("stopped", code=self._code)
        return self._code

    # Starting

    async def _open(self) -> Database | None:
        """Open and prepare the database, waiting a while for one that does not answer yet."""
        backoff, give_up_at = Backoff(longest_seconds=5.0), monotonic() + START_SECONDS
        while not self._stopping.is_set():
            database = await open_database(self._loaded)
            try:
                ready = await database.prepare(install=self._config.worker.install.enable)
            except DatabaseError as error:
                database.close()
                cause = error.__cause__
                if cause is None or not is_transient(cause) or monotonic() > give_up_at:
                    raise
                await self._wait_a_little(error, backoff.next_seconds())
            else:
                url = masked_url(ready.config.url or "")
                log.info("database ready", database=url, tls=ready.tls)
                return ready
        return None

    async def _wait_a_little(self, error: Exception, seconds: float) -> None:
        text = str(error).splitlines()[0]
        log.warning("waiting for the database", error=text)
        with anyio.move_on_after(seconds):
            await self._stopping.wait()

    # Keeping children

    async def _keep_one(self, seat: _Seat) -> None:
        """Keep one seat filled: run a child, and another when it died."""
        backoff = Backoff(longest_seconds=10.0, first_seconds=0.2)
        has_started = False
        while not self._stopping.is_set():
            child, code, suspects = await self._run_child(seat)
            if suspects:
                self._isolate(seat, suspects)
            has_started = has_started or child.is_ready
            if self._stopping.is_set():
                return
            if child.error is not None and not has_started:
                self._fail(child.error, is_usage=child.is_usage)
                return
            self._note_death(child, code)
            if monotonic() - child.ready_at > LONG_ENOUGH_SECONDS:
                backoff.reset()
            with anyio.move_on_after(backoff.next_seconds()):
                await self._stopping.wait()

    async def _run_child(
        self, seat: _Seat, trial: Trial | None = None
    ) -> tuple[_Child, int, list[Entry]]:
        """Run a child to its end; return it, its exit code, and what may have ended it."""
        child = await self._start(seat, trial)
        self._children.add(child)
        if trial is None:
            seat.child = child
        try:
            if self._stopping.is_set():  # told while this one was being started
                child.tell("stop" if self._signals == 1 else "cancel")
            async with anyio.create_task_group() as beside:
                beside.start_soon(self._hear, seat, child)
                code = await child.process.wait()
                # It may have said its last words a moment ago: they are read to the end.
                with anyio.move_on_after(1):
                    await child.heard_out.wait()
                beside.cancel_scope.cancel()
        finally:
            self._children.discard(child)
            if seat.child is child:
                seat.leave(child)
        return child, code, await self._clear_up(child, code)

    async def _start(self, seat: _Seat, trial: Trial | None) -> _Child:
        ours, theirs = socket.socketpair()
        board = Board.create()
        environment = os.environ | {
            SOCKET_VARIABLE: str(theirs.fileno()),
            BOARD_VARIABLE: str(board.fd),
        }
        with closing(theirs):
            process = await self._spawn(environment, (theirs.fileno(), board.fd))
        ours.sendall(to_line(self._assignment(seat, trial)))
        return _Child(process, board, ours, trial)

    async def _spawn(self, environment: Mapping[str, str], fds: tuple[int, ...]) -> Process:
        # A signal between its start and its first line would end it unheard: it begins with
        # them blocked, and unblocks them when it listens. One at a time: of two that overlap, one
        # would start with the other's signals unblocked.
        async with self._spawning:
            signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
            try:
                return await anyio.open_process(
                    [sys.executable, "-m", "pgtasks.child"],
                    stdin=subprocess.DEVNULL,
                    stdout=None,
                    stderr=None,
                    env=environment,
                    pass_fds=fds,
                )
            finally:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)

    def _assignment(self, seat: _Seat, trial: Trial | None) -> Assignment:
        server = self._database.server
        place = Place(seat.number, self._config.worker.processes)
        return Assignment(
            tasks=self._config.worker.tasks,
            config=attrs.evolve(self._config, database=self._database.config),
            queues=self._queues,
            embedded_folder=None if server is None else str(self._loaded.project_folder),
            alone=() if trial is None else trial.entries,
            is_together=trial is not None and trial.is_together,
            place=place if trial is None else ALONE,
            lent=dict(seat.lent) if trial is None else {},
        )

    async def _hear(self, seat: _Seat, child: _Child) -> None:
        reader, writer = await asyncio.open_connection(sock=child.link.dup())
        try:
            while line := await reader.readline():
                match read_line(line):
                    case {"is": "ready"}:
                        child.ready_at = monotonic()
                        if child.trial is not None:  # it extends them from now on
                            self._suspects.difference_update(child.trial.entries)
                    case {"is": "ending"}:
                        child.is_ending = True
                    case {"is": "failed", "error": str(error), "is_usage": bool(is_usage),
                          "is_database": bool(is_database)}:  # fmt: skip
                        child.error, child.is_usage = error, is_usage
                        child.is_database = is_database
                    case {
                        "is": "suspect",
                        "queue": queue,
                        "held": [id_, epoch],
                        "delivery": number,
                    }:
                        self._take_over(seat, Entry(queue, Held(id_, epoch), number, True))
        except ConnectionError:
            pass
        finally:
            child.heard_out.set()
            writer.close()

    def _fail(self, error: str, *, is_usage: bool) -> None:
        self._failure = self._failure or (ConfigError if is_usage else PgtasksError)(error)
        self._stopping.set()
        for child in self._children:
            child.tell("cancel")

    def _note_death(self, child: _Child, code: int) -> None:
        log.error(
            "worker process died, starting another",
            pid=child.process.pid,
            cause=child.error or cause_of_death(code),
        )

    # What a dead child held

    async def _clear_up(self, child: _Child, code: int) -> list[Entry]:
        """Free what a dead child held; return what it ran when it died on its own account."""
        trial = child.trial
        entries = child.board.entries()
        child.board.close()
        child.link.close()
        died = not (self._stopping.is_set() or child.is_ending)
        suspects = [entry for entry in entries if entry.is_running and died]
        rest = [entry for entry in entries if entry not in suspects]
        if trial is not None and suspects:
            if not trial.is_together:
                suspects = await self._recovery.prove(suspects, code, trial.crashes)
            suspects, rest = suspects + rest, []
        if rest:
            await self._give_back(rest)
        if self._signals and code != exit_codes.OK and self._code == exit_codes.OK:
            self._code = exit_codes.UNSETTLED
        return suspects

    async def _give_back(self, entries: Sequence[Entry]) -> None:
        """Free what a dead child held; while stopping, not for longer than a stop may take."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._hurry, group.cancel_scope)
            await self._recovery.give_back(entries)
            group.cancel_scope.cancel()

    async def _hurry(self, scope: anyio.CancelScope) -> None:
        await self._stopping.wait()
        await anyio.sleep(LAST_SECONDS)
        scope.cancel()

    def _isolate(self, seat: _Seat, suspects: Sequence[Entry]) -> None:
        """Have what ran when a process died run apart from all others."""
        counted = [entry for entry in suspects if entry.queue in self._counted]
        others = [entry for entry in suspects if entry.queue not in self._counted]
        self._suspects.update(suspects)
        if counted:
            self._lend(seat, counted)
        if others:
            self._group.start_soon(self._try_apart, seat, Trial.first(others))

    def _take_over(self, seat: _Seat, suspect: Entry) -> None:
        """Have a message run alone that has been running too often when processes died."""
        self._suspects.add(suspect)
        if suspect.queue in self._counted:
            self._lend(seat, [suspect])
        elif self._handed_over is None:
            self._handed_over = [suspect]
            self._group.start_soon(self._try_handed_over, seat)
        else:  # a child for each of hundreds would take minutes
            self._handed_over.append(suspect)

    def _lend(self, seat: _Seat, suspects: Sequence[Entry]) -> None:
        """Have messages run one by one in a slot of each of their queues, empty meanwhile."""
        lent = {suspect.queue for suspect in suspects}
        seat.lent.update(lent)
        self._group.start_soon(self._try_in_slots, seat, Trial(tuple(suspects)), lent)

    async def _try_in_slots(self, seat: _Seat, trial: Trial, lent: Collection[str]) -> None:
        await self._try_apart(seat, trial)
        for queue in lent:
            seat.lent[queue] -= 1
            if seat.child is not None:
                seat.child.tell("take back", queue=queue)

    async def _try_handed_over(self, seat: _Seat) -> None:
        async with self._quarantines:
            taken, self._handed_over = self._handed_over or [], None
            trial = await self._try(seat, Trial(tuple(taken)))
        await self._try_apart(seat, trial)

    async def _try_apart(self, seat: _Seat, trial: Trial) -> None:
        """Run suspects in children of their own, until each has ended or is proven."""
        while trial.entries:
            async with self._quarantines:
                trial = await self._try(seat, trial)

    async def _try(self, seat: _Seat, trial: Trial) -> Trial:
        """Run suspects in one child; return what is to be tried again, because it died."""
        suspects: Sequence[Entry] = ()
        if self._stopping.is_set():
            await self._give_back(trial.entries)
        else:
            event = "running suspects together" if trial.is_together else "running suspects alone"
            log.warning(event, messages=len(trial.entries))
            for _ in range(STARTS):
                child, _, suspects = await self._run_child(seat, trial)
                if child.is_ready or child.error is not None or self._stopping.is_set():
                    break  # else it was killed before it had begun, and has proven nothing
        self._suspects.difference_update(trial.entries)
        self._suspects.update(suspects)
        return trial.then(suspects)

    async def _hold_suspects(self) -> None:
        """Extend the leases of suspects that wait: else others would claim them meanwhile."""
        while True:
            if self._suspects:
                await self._recovery.hold(tuple(self._suspects))
            await anyio.sleep(HOLD_SECONDS)

    @property
    def _counted(self) -> set[str]:
        """The queues whose slots are counted over all processes."""
        configured = self._config.worker.queue_config
        return {queue for queue, own in configured.items() if own.total_concurrency is not None}

    # Stopping

    def _on_signal(self, number: int) -> None:
        # One Ctrl-C or one `docker stop` may arrive twice: from the terminal or the process group,
        # and forwarded by what started us (make, uv, timeout).
        if monotonic() - self._signalled_at < SAME_SIGNAL_SECONDS:
            return
        self._signalled_at = monotonic()
        self._signals += 1
        self._stopping.set()
        log.info(_SAID[min(self._signals, 3)], signal=signal.Signals(number).name)
        for child in list(self._children):
            if self._signals == 1:
                child.tell("stop")
            elif self._signals == 2:
                child.tell("cancel")
                self._hurried.set()
            else:
                child.kill()
        if self._signals >= 3:
            self._code = exit_codes.KILLED

    async def _end_in_time(self) -> None:
        """Kill what has not ended when its time is over, however it is stopped."""
        await self._stopping.wait()
        with anyio.move_on_after(self._config.worker.grace.total_seconds() + KILL_SECONDS):
            await self._hurried.wait()
            await anyio.sleep(KILL_SECONDS)
        for child in list(self._children):
            log.error("worker process did not end, killed", pid=child.process.pid)
            self._code = exit_codes.UNSETTLED
            child.kill()


_SAID = {
    1: "stopping: claiming no more, letting running tasks finish (again: cancel them)",
    2: "cancelling running tasks (again: end at once)",
    3: "ending at once",
}
