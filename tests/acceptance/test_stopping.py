"""Workers that are told to stop: what runs may end, what does not is given back."""

import asyncio
import os
import signal
import time

import pytest
from acceptance.checker import Checker
from acceptance.conftest import StartWorker
from acceptance.history import History
from acceptance.tables import Tables
from acceptance.tasks_under_test import (
    ignores_everything,
    in_thread,
    quick,
    slow,
    swallows_cancellation,
)
from acceptance.worker_process import WorkerProcess
from eventually import eventually

from pgtasks import Client, exit_codes

ENDING_SECONDS = 3.0 + 1.5
"""How long after its grace, or after a second signal, a worker may need to be gone: three seconds,
and some for a busy machine."""
ROLLING_MESSAGES = 10_000 if "PGTASKS_TEST_LONG" in os.environ else 2_000
APART_SECONDS = 0.3
"""Signals that follow within a fifth of a second are one: see the supervisor."""


def ended_within(worker: WorkerProcess, seconds: float) -> int:
    """Wait for the worker's end, and make sure nothing of it is left; gives its exit code."""
    code = worker.wait(seconds)
    assert not worker.leftovers()
    assert "Traceback" not in worker.text(), worker.text()
    return code


async def test_sigterm_lets_running_tasks_end_and_gives_the_rest_back(
    start_worker: StartWorker, client: Client, tables: Tables, history: History
) -> None:
    """Eight of a second run to their end; of thousands behind them none is run or kept."""
    worker = start_worker("--concurrency", "8").wait_until_ready()
    # With these the worker learns that slots are quick, and claims ahead of them.
    await quick.defer_many([(f"warm-{n}",) for n in range(400)])
    await tables.drained()
    async with client.pool.acquire() as on, on.transaction():
        await slow.options(connection=on).defer_many([(f"slow-{n}", 1.0) for n in range(8)])
        await quick.options(connection=on).defer_many([(f"rest-{n}",) for n in range(3000)])
    history.wait_until_started(408)

    signalled_at = time.monotonic()
    worker.signal()

    assert ended_within(worker, 1 + ENDING_SECONDS) == exit_codes.OK
    assert time.monotonic() - signalled_at < 1 + 1.5
    assert {f"slow-{n}" for n in range(8)} <= history.keys("end")
    assert not [key for key in history.starts() if key.startswith("rest-")]
    waiting = await tables.waiting()
    assert len(waiting) == 3000
    assert all(row.is_due for row in waiting)
    claimed = [row for row in waiting if row.delivery]
    assert claimed, "nothing was claimed ahead: this test has lost its point"
    assert {(row.delivery, row.state["releases"]) for row in claimed} == {(1, 1)}
    assert not history.duplicates()


async def test_sigterm_gives_a_task_back_that_outlasts_the_grace(
    start_worker: StartWorker, client: Client, tables: Tables, history: History
) -> None:
    worker = start_worker("--grace", "1s").wait_until_ready()
    await slow.defer("long", 60.0)
    history.wait_until_started(1)

    worker.signal()

    assert ended_within(worker, 1 + ENDING_SECONDS) == exit_codes.OK
    assert history.keys("cancelled") == {"long"}
    [row] = await tables.waiting()
    assert row.is_due
    assert row.state == {"releases": 1}


async def test_sigterm_ends_a_thread_that_outlasts_the_grace_with_its_process(
    start_worker: StartWorker, client: Client, tables: Tables, history: History
) -> None:
    """A thread cannot be ended: the message is free only when its process is gone."""
    worker = start_worker("--grace", "1s").wait_until_ready()
    await in_thread.defer("long", 60.0)
    history.wait_until_started(1)

    worker.signal()
    code = ended_within(worker, 1 + ENDING_SECONDS)

    assert not history.keys("end")
    [row] = await tables.waiting()
    assert row.is_due
    assert row.state == {"releases": 1}
    assert code == exit_codes.UNSETTLED


async def test_sigterm_ends_a_task_that_will_not_be_cancelled(
    start_worker: StartWorker, client: Client, tables: Tables, history: History
) -> None:
    worker = start_worker("--grace", "1s").wait_until_ready()
    await swallows_cancellation.defer("deaf", 60.0)
    history.wait_until_started(1)

    worker.signal()
    code = ended_within(worker, 1 + ENDING_SECONDS)

    assert history.keys("swallowed") == {"deaf"}
    [row] = await tables.waiting()
    assert row.is_due
    assert row.state == {"releases": 1}
    assert code == exit_codes.UNSETTLED


@pytest.mark.parametrize("how", ["awaiting", "blocking"])
async def test_sigterm_ends_a_task_that_lets_nothing_pass(  # noqa: PLR0917 - fixtures
    how: str,
    start_worker: StartWorker,
    client: Client,
    tables: Tables,
    history: History,
    checker: Checker,
) -> None:
    """`except BaseException: pass` for ever, and holding up the loop that would cancel it."""
    worker = start_worker("--grace", "1s").wait_until_ready()
    history.accepted("deaf", await ignores_everything.defer("deaf", how))
    history.wait_until_started(1)

    worker.signal()
    code = ended_within(worker, 1 + ENDING_SECONDS)

    [row] = await tables.waiting()
    assert row.is_due
    assert row.state == {"releases": 1}
    assert code == exit_codes.UNSETTLED
    await checker.check(drained=False, codes=[code])


async def test_second_sigterm_cancels_at_once(
    start_worker: StartWorker, client: Client, tables: Tables, history: History
) -> None:
    worker = start_worker("--grace", "60s").wait_until_ready()
    await slow.defer("long", 60.0)
    history.wait_until_started(1)

    worker.signal()
    await asyncio.sleep(APART_SECONDS)
    worker.signal()

    assert ended_within(worker, ENDING_SECONDS) == exit_codes.OK
    assert history.keys("cancelled") == {"long"}
    [row] = await tables.waiting()
    assert row.is_due
    assert row.state == {"releases": 1}


def test_sigterms_until_it_is_gone_do_not_spoil_its_exit_code(start_worker: StartWorker) -> None:
    """The last of them meets a process that has done all it had to do."""
    worker = start_worker().wait_until_ready()
    worker.signal()
    worker.wait_for("stopped")

    while worker.process.poll() is None:
        worker.signal()
        time.sleep(0.001)

    assert worker.process.returncode == exit_codes.OK, worker.text()


async def test_third_sigterm_ends_at_once(
    start_worker: StartWorker, client: Client, tables: Tables, history: History
) -> None:
    worker = start_worker("--grace", "60s").wait_until_ready()
    await swallows_cancellation.defer("deaf", 60.0)
    history.wait_until_started(1)

    for _ in range(3):
        worker.signal()
        await asyncio.sleep(APART_SECONDS)

    assert ended_within(worker, 2) == exit_codes.KILLED
    [row] = await tables.waiting()
    assert row.is_due


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_signal_to_the_whole_process_group_counts_once(
    number: signal.Signals,
    start_worker: StartWorker,
    client: Client,
    tables: Tables,
    history: History,
) -> None:
    """Ctrl-C, a closed terminal and some init systems signal supervisor and children alike."""
    worker = start_worker("--processes", "2").wait_until_ready(2)
    await slow.defer("running", 1.0)
    history.wait_until_started(1)

    worker.signal_group(number)

    assert ended_within(worker, 1 + ENDING_SECONDS) == exit_codes.OK
    assert history.keys("end") == {"running"}
    await tables.is_empty()


async def test_twenty_sigterms_in_a_tenth_of_a_second_are_one(
    start_worker: StartWorker, client: Client, tables: Tables, history: History
) -> None:
    """Whatever started it may pass a signal on that it got from the terminal already."""
    worker = start_worker().wait_until_ready()
    await slow.defer("running", 1.0)
    history.wait_until_started(1)

    for _ in range(20):
        worker.signal()
        await asyncio.sleep(0.005)

    assert ended_within(worker, 1 + ENDING_SECONDS) == exit_codes.OK
    assert history.keys("end") == {"running"}
    await tables.is_empty()


async def test_sigterm_at_any_moment_of_the_start_leaves_nothing_behind(
    start_worker: StartWorker, client: Client, tables: Tables, history: History
) -> None:
    """Before its handlers are set the signal ends it as it would any program."""
    await slow.defer_many([(f"m{n}", 0.05) for n in range(200)])
    for delay_seconds in (0.0, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9, 1.2):
        worker = start_worker("--concurrency", "2")
        await asyncio.sleep(delay_seconds)
        worker.signal()

        code = ended_within(worker, 1 + ENDING_SECONDS)

        assert code in {exit_codes.OK, -signal.SIGTERM}, worker.text()
        waiting = await tables.waiting()
        assert all(row.is_due for row in waiting), f"{delay_seconds}: {waiting[:5]}"
    assert not history.duplicates()


def test_sigterm_to_the_group_of_a_child_that_does_not_listen_yet(
    start_worker: StartWorker,
) -> None:
    """It is not killed by it: the signal waits until the child can heed it."""
    worker = start_worker("--processes", "2")
    eventually(lambda: _some(worker.children()))

    worker.signal_group(signal.SIGTERM)

    assert ended_within(worker, ENDING_SECONDS) == exit_codes.OK


def _some(pids: list[int]) -> None:
    assert pids


async def test_sigterm_to_a_child_lets_its_tasks_end_and_another_takes_its_place(
    start_worker: StartWorker, client: Client, tables: Tables, history: History
) -> None:
    worker = start_worker().wait_until_ready()
    await slow.defer("running", 1.0)
    history.wait_until_started(1)
    [child] = worker.children()

    os.kill(child, signal.SIGTERM)
    worker.wait_for("worker ready", times=2)
    await quick.defer("after")
    await tables.drained()

    assert worker.children() != [child]
    assert history.starts() == {"running": 1, "after": 1}
    assert worker.stop() == exit_codes.OK


async def test_rolling_restart_runs_every_message_once(
    start_worker: StartWorker, client: Client, tables: Tables, history: History, checker: Checker
) -> None:
    """The new worker is up while the old one drains, three times over."""
    old = start_worker("--concurrency", "16").wait_until_ready()
    keys = [f"m{n}" for n in range(ROLLING_MESSAGES)]
    history.accepted_many(keys, await slow.defer_many([(key, 0.02) for key in keys]))
    for round_ in range(3):
        history.wait_until_started(ROLLING_MESSAGES * round_ // 4 + 50, within_seconds=60)
        new = start_worker("--concurrency", "16").wait_until_ready()
        old.signal()
        assert ended_within(old, ENDING_SECONDS) == exit_codes.OK
        old = new

    figures = await checker.check(within_seconds=60)
    assert figures.starts == ROLLING_MESSAGES
