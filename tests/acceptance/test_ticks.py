"""Schedules that several worker processes fire, while they are killed, frozen and cut off."""

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

import asyncpg
import attrs
import pytest
from acceptance.conftest import StartWorker
from acceptance.history import History
from acceptance.tables import Tables
from acceptance.worker_process import WorkerProcess
from eventually import eventually, eventually_async

from pgtasks import exit_codes

MODULE = "acceptance.scheduled_tasks"
TASK = f"{MODULE}.every_second"
WORKERS = 5
FAULTY_SECONDS = float(os.environ.get("PGTASKS_TEST_SCHEDULE_SECONDS", "15"))
"""How long the workers are tormented; 1200 is the long run."""


@attrs.define
class Torment:
    """One fault after another, on workers drawn by lot."""

    workers: list[WorkerProcess]
    start: Callable[[], WorkerProcess]
    connection: "asyncpg.Connection[asyncpg.Record]"
    random: random.Random
    frozen: list[int] = attrs.field(factory=list)
    done: Counter[str] = attrs.field(factory=Counter)

    async def one(self) -> None:
        """Do something bad, and undo what was frozen before."""
        for pid in self.frozen:
            _send(pid, signal.SIGCONT)
        self.frozen.clear()
        fault = self.random.choice((self._kill_child, self._kill_worker, self._freeze))
        if self.random.random() < 0.25:
            await self._cut_off()
        else:
            fault(self.random.choice(self.workers))

    def _kill_child(self, worker: WorkerProcess) -> None:
        for pid in worker.children():
            _send(pid, signal.SIGKILL)
            self.done["child killed"] += 1

    def _kill_worker(self, worker: WorkerProcess) -> None:
        worker.end()
        self.workers.remove(worker)
        self.workers.append(self.start())
        self.done["worker killed"] += 1

    def _freeze(self, worker: WorkerProcess) -> None:
        for pid in worker.children():
            _send(pid, signal.SIGSTOP)
            self.frozen.append(pid)
            self.done["frozen"] += 1

    async def _cut_off(self) -> None:
        rows = await self.connection.fetch(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'pgtasks ticker' AND datname = current_database()"
        )
        self.done["connections cut"] += len(rows)

    def relent(self) -> None:
        """Let everything that is frozen go on."""
        for pid in self.frozen:
            _send(pid, signal.SIGCONT)


def _send(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):  # it died of an earlier fault
        os.kill(pid, number)


@pytest.mark.timeout(FAULTY_SECONDS * 2 + 120)
async def test_five_workers_under_kills_fire_each_tick_once(
    start_worker: StartWorker, tables: Tables, history: History
) -> None:
    """No second without its message, and none with two."""

    def start() -> WorkerProcess:
        return start_worker(MODULE, "--concurrency", "2")

    workers = [start() for _ in range(WORKERS)]
    for worker in workers:
        worker.wait_until_ready()
    torment = Torment(workers, start, tables.connection, random.Random(7))
    until = time.monotonic() + FAULTY_SECONDS
    while time.monotonic() < until:
        await torment.one()
        await _a_tick_later(tables.connection)
    torment.relent()
    await _a_tick_later(tables.connection)
    await _no_more_ticks(tables.connection)
    await tables.drained(30)

    ticks = [
        row["fire_at"]
        for row in await tables.connection.fetch("SELECT * FROM pgtasks.fire ORDER BY fire_at")
    ]
    second = timedelta(seconds=1)
    assert ticks == [ticks[0] + n * second for n in range(len(ticks))]
    assert len(ticks) >= FAULTY_SECONDS
    sent = [row.state["schedule"]["at"] for row in await tables.archived()]
    assert Counter(sent) == Counter(tick.isoformat() for tick in ticks)
    assert set(await tables.outcomes()) == {"done"}
    assert history.lost(sent) == set()
    assert torment.done["child killed"] + torment.done["worker killed"] > 0, torment.done
    codes = [worker.stop() for worker in torment.workers]
    assert set(codes) == {exit_codes.OK}


async def _a_tick_later(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Wait until ticks are fired again, whoever is dead, frozen or cut off."""
    query = "SELECT max(fire_at) FROM pgtasks.fire"
    before = await connection.fetchval(query)

    async def later() -> None:
        assert await connection.fetchval(query) != before

    await eventually_async(later, within_seconds=20)


async def _no_more_ticks(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    await connection.execute("UPDATE pgtasks.schedule SET is_paused = true")


async def test_roles_of_workers(
    start_worker: StartWorker, tables: Tables, history: History
) -> None:
    """One only fires, the other only runs."""
    fires = start_worker(MODULE, "--scheduler-only").wait_until_ready()
    await _a_tick_later(tables.connection)
    assert history.events() == []
    runs = start_worker(MODULE, "--no-scheduler").wait_until_ready()
    history.wait_until_started(1)
    assert fires.stop() == exit_codes.OK
    last = await tables.connection.fetchval("SELECT max(fire_at) FROM pgtasks.fire")
    await tables.drained()
    assert await tables.connection.fetchval("SELECT max(fire_at) FROM pgtasks.fire") == last
    assert runs.stop() == exit_codes.OK


def test_a_worker_without_any_role_does_not_start(start_worker: StartWorker) -> None:
    worker = start_worker(MODULE, "--scheduler-only", "--no-scheduler")
    assert worker.wait() in (exit_codes.FAILED, exit_codes.USAGE)
    eventually(lambda: _said(worker, "exclude each other"))


def _said(worker: WorkerProcess, text: str) -> None:
    assert text in worker.text()
