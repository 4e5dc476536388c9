"""What a worker uses of its machine while things go wrong, for as long as they do."""

import asyncio
import os
import time

import pytest
from acceptance.checker import Checker
from acceptance.conftest import StartWorker
from acceptance.history import History
from acceptance.own_server import OwnServer
from acceptance.tables import Tables
from acceptance.tasks_under_test import fails_at_first, in_thread, quick, slow
from acceptance.worker_process import WorkerProcess

from benchmarks.usage import cpu_seconds, is_told, megabytes
from pgtasks import Client

AWAY_SECONDS = 8.0
CPU_SHARE = 0.05
ROUNDS = 60 if "PGTASKS_TEST_LONG" in os.environ else 6
EACH = 400
GROWTH_MEGABYTES = 2.0
"""After the second round; a leak of half a kilobyte a run would be more."""
END_ALL = """
    SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name LIKE 'pgtasks %'
        AND application_name <> 'pgtasks client' AND pid <> pg_backend_pid()
"""

pytestmark = pytest.mark.skipif(not is_told(), reason="no /proc tells what processes use")


def cpu_of(worker: WorkerProcess) -> float:
    """How long all processes of a worker have run."""
    return sum(cpu_seconds(pid) for pid in (worker.pid, *worker.children()))


def test_a_worker_that_waits_for_its_database_does_not_spin(
    start_worker: StartWorker, checker: Checker, history: History
) -> None:
    with OwnServer() as server:
        checker.url = server.url
        worker = start_worker(environ={"PGTASKS_DATABASE_URL": server.url}).wait_until_ready()
        with history.lasting_fault("postgres-away"):
            server.stop("fast")
            worker.wait_for("fetching failed")
            before = cpu_of(worker)
            time.sleep(AWAY_SECONDS)
            share = (cpu_of(worker) - before) / AWAY_SECONDS
            server.start()
        asyncio.run(checker.check_what_is_left())
    print(f"\n  {share:.1%} of a core")  # noqa: T201
    assert share < CPU_SHARE


@pytest.mark.timeout(60 + 2 * ROUNDS)
async def test_memory_does_not_grow_with_what_fails_and_breaks(
    start_worker: StartWorker, client: Client, tables: Tables, history: History, checker: Checker
) -> None:
    """Successes, failures, threads, cancelled runs and lost connections, round after round."""
    environ = {"PGTASKS__TASK__DELAY": "10ms", "PGTASKS__TASK__JITTER": "0"}
    worker = start_worker("--concurrency", "10", environ=environ).wait_until_ready()
    [child] = worker.children()
    used = []
    for round_ in range(ROUNDS):
        await quick.defer_many([(f"q{round_}-{n}",) for n in range(EACH)])
        await in_thread.defer_many([(f"t{round_}-{n}", 0.0) for n in range(EACH // 4)])
        await fails_at_first.defer_many([(f"f{round_}-{n}", 2) for n in range(EACH // 2)])
        await slow.options(timeout=0.05, retries=0).defer_many(
            [(f"s{round_}-{n}", 9.0) for n in range(EACH // 10)]
        )
        history.fault("ended-connections")
        await tables.connection.fetchval(END_ALL)
        await tables.drained(40)
        used.append(megabytes(child, "Rss"))
    print(f"\n  {used}")  # noqa: T201
    assert worker.children() == [child]
    assert used[-1] - used[1] < GROWTH_MEGABYTES
