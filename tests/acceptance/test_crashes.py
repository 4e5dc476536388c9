"""Worker processes that die or freeze in the middle of their work."""

import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from acceptance.checker import Checker
from acceptance.conftest import TASKS, StartWorker
from acceptance.history import History
from acceptance.least_rights import as_a_worker
from acceptance.tables import Row, Tables
from acceptance.tasks_under_test import (
    DEADLY,
    blocking,
    dies,
    dies_in_thread,
    fails_at_first,
    holds_the_lock,
    quick,
    slow,
)
from acceptance.worker_process import WorkerProcess
from eventually import eventually

from pgtasks import Client

LEASE_SECONDS = 3.0
CAUSES = {
    "kill": "SIGKILL",
    "segfault": "SIGSEGV",
    "os._exit": "exited with code 0",
    "recursion": "SIGSEGV",
}
INNOCENT = [f"innocent-{n}" for n in range(7)]
LATE_SECONDS = 3.0
"""What a busy machine may add to a poll of a second and a process's start."""


@pytest.fixture
def reach(database_url: str) -> Iterator[Mapping[str, str]]:
    """As a role that may do what a worker has to, and nothing else."""
    with as_a_worker(database_url) as reach:
        yield reach


def outcome(rows: list[Row], message_id: int) -> dict[str, object]:
    """What the archive says of one message."""
    [row] = [row for row in rows if row.id == message_id]
    return row.state


async def test_killed_child_is_replaced_and_what_it_ran_runs_again_at_once(
    start_worker: StartWorker, client: Client, tables: Tables, history: History, checker: Checker
) -> None:
    """Long before the lease is over, without an attempt counted; the other child goes on."""
    worker = start_worker(
        "--processes", "2", "--concurrency", "2", environ={"PGTASKS__TASK__LEASE": "60s"}
    ).wait_until_ready(2)
    keys = [f"m{n}" for n in range(4)]
    history.accepted_many(keys, await slow.defer_many([(key, 1.0) for key in keys]))
    history.wait_until_started(4)
    victim = history.of("m0")[0].pid
    its_keys = {event.key for event in history.events("start") if event.pid == victim}

    worker.signal_child(victim)
    await tables.drained(20)

    assert history.duplicates() == its_keys
    assert history.starts().total() == 4 + len(its_keys)
    assert {event.note for event in history.events("start")} == {"1"}
    assert {row.state.get("failures") for row in await tables.archived()} == {None}
    worker.wait_for("worker process died")
    replaced = eventually(lambda: _two(worker.children()))
    assert victim not in replaced
    history.accepted("after", await quick.defer("after"))
    await checker.check()


def _two(pids: list[int]) -> list[int]:
    assert len(pids) == 2
    return pids


async def test_what_ran_in_killed_children_begins_again_at_once(
    start_worker: StartWorker, client: Client, tables: Tables, history: History, checker: Checker
) -> None:
    """All of it, and not one after the other, also when two children die in the same moment."""
    worker = start_worker(
        "--processes", "2", "--concurrency", "4", environ={"PGTASKS__TASK__LEASE": "60s"}
    ).wait_until_ready(2)
    keys = [f"m{n}" for n in range(8)]
    history.accepted_many(keys, await slow.defer_many([(key, 3.0) for key in keys]))
    history.wait_until_started(8)

    for child in worker.children():
        worker.signal_child(child)

    figures = await checker.check(lease_seconds=60)
    assert figures.duplicates == 8
    assert "SIGKILL" in figures.recovered_in
    again = [history.of(key)[1] for key in keys]
    for pid in {start.pid for start in again}:
        ends = [event.at for event in history.events("end") if event.pid == pid]
        assert max(start.at for start in again if start.pid == pid) < min(ends), "one by one"


async def test_a_child_for_suspects_that_is_killed_before_it_begins_is_started_again(
    start_worker: StartWorker, client: Client, tables: Tables, history: History, checker: Checker
) -> None:
    """Its messages would else wait for the end of their lease."""
    worker = start_worker(
        "--concurrency", "2", environ={"PGTASKS__TASK__LEASE": "60s"}
    ).wait_until_ready()
    [child] = worker.children()
    history.accepted("m", await slow.defer("m", 1.0))
    history.wait_until_started(1)

    worker.signal_child(child)
    for new in eventually(lambda: _two(worker.children())):  # the other takes the dead one's seat
        worker.signal_child(new)

    await checker.check(within_seconds=20, lease_seconds=60)


async def test_killed_worker_loses_nothing(
    start_worker: StartWorker, client: Client, tables: Tables, history: History, checker: Checker
) -> None:
    """Supervisor and children, as when a machine goes: leases run out, another takes over."""
    first = start_worker("--concurrency", "4").wait_until_ready()
    keys = [f"m{n}" for n in range(12)]
    history.accepted_many(keys, await slow.defer_many([(key, 0.5) for key in keys]))
    history.wait_until_started(6)
    first.end()
    killed_at = time.monotonic()
    running = history.keys("start") - history.keys("end")
    assert running

    start_worker("--concurrency", "4").wait_until_ready()
    await tables.drained(LEASE_SECONDS + 5 + 10)

    assert running <= history.duplicates()
    # What ended in the last moment may not have been settled any more.
    recent = {event.key for event in history.events("end") if event.at > killed_at - 1.5}
    assert history.duplicates() <= running | recent
    again = max(history.of(key)[1].at for key in running)
    assert again - killed_at < LEASE_SECONDS + 1 + LATE_SECONDS
    assert {event.note for event in history.events("start")} == {"1"}
    await checker.check()


async def test_children_of_a_killed_supervisor_drain_and_end(
    start_worker: StartWorker, client: Client, tables: Tables, history: History, checker: Checker
) -> None:
    worker = start_worker("--processes", "2", "--concurrency", "2").wait_until_ready(2)
    keys = [f"m{n}" for n in range(4)]
    history.accepted_many(keys, await slow.defer_many([(key, 1.0) for key in keys]))
    history.wait_until_started(4)

    worker.signal(signal.SIGKILL)
    worker.process.wait(5)
    eventually(lambda: _none(worker.leftovers()), within_seconds=5 + LATE_SECONDS)

    assert (await checker.check()).duplicates == 0


async def test_children_of_a_killed_supervisor_give_back_what_outlasts_the_grace(
    start_worker: StartWorker, client: Client, tables: Tables, history: History, checker: Checker
) -> None:
    worker = start_worker("--grace", "1s").wait_until_ready()
    await slow.defer("long", 60.0)
    history.wait_until_started(1)

    worker.signal(signal.SIGKILL)
    worker.process.wait(5)
    eventually(lambda: _none(worker.leftovers()), within_seconds=1 + 3 + LATE_SECONDS)

    [row] = await tables.waiting()
    assert row.is_due
    assert row.state == {"releases": 1}
    await checker.check(drained=False)


@pytest.mark.parametrize("how", ["importing", "blocking"])
async def test_child_of_a_killed_supervisor_ends_though_it_is_held_up(
    how: str, start_worker: StartWorker, tables: Tables, history: History, tmp_path: Path
) -> None:
    """By a module that hangs while it is imported, or a task that never lets go of the loop."""
    begun = tmp_path / "begun"
    (tmp_path / "hangs.py").write_text(
        f"import pathlib, time\npathlib.Path({str(begun)!r}).touch()\ntime.sleep(600)\n"
    )
    worker = start_worker(TASKS if how == "blocking" else "hangs", "--grace", "1s")
    if how == "blocking":
        worker.wait_until_ready()
        await blocking.defer("held-up", 600.0)
        history.wait_until_started(1)
    else:
        eventually(lambda: _is_there(begun))

    worker.signal(signal.SIGKILL)
    worker.process.wait(5)

    eventually(lambda: _none(worker.leftovers()), within_seconds=1 + 3 + LATE_SECONDS)


def _is_there(file: Path) -> None:
    assert file.exists()


def _none(pids: list[int]) -> None:
    assert not pids


@pytest.mark.parametrize("how", DEADLY)
async def test_message_that_kills_its_process_is_archived_and_its_neighbours_are_done(  # noqa: PLR0917 - fixtures
    how: str,
    start_worker: StartWorker,
    client: Client,
    tables: Tables,
    history: History,
    checker: Checker,
) -> None:
    """Proven alone, after three crashes at most; nobody else is taken for the culprit."""
    start_worker("--concurrency", "8").wait_until_ready()
    async with client.pool.acquire() as on, on.transaction():
        poison = await dies.options(connection=on).defer("poison", how)
        innocent = await slow.options(connection=on).defer_many([(key, 0.3) for key in INNOCENT])
    history.accepted("poison", poison, becomes="crashed")
    history.accepted_many(INNOCENT, innocent)
    await tables.drained(30)

    archived = await tables.archived()
    ended = outcome(archived, poison.message_id)
    assert ended["outcome"] == "crashed"
    assert CAUSES[how] in str(ended["reason"])
    assert max(history.starts().values()) <= 3
    history.accepted("after", await quick.defer("after"))
    await checker.check()


@pytest.mark.parametrize("how", ["sys.exit", "KeyboardInterrupt", "memory"])
async def test_message_that_asks_the_process_to_exit_has_only_failed(  # noqa: PLR0917 - fixtures
    how: str,
    start_worker: StartWorker,
    client: Client,
    tables: Tables,
    history: History,
    checker: Checker,
) -> None:
    """On the event loop and in a thread alike: the process goes on, and so do the neighbours."""
    worker = start_worker("--concurrency", "8").wait_until_ready()
    async with client.pool.acquire() as on, on.transaction():
        guilty = [
            await dies.options(connection=on, retries=0).defer("async", how),
            await dies_in_thread.options(connection=on, retries=0).defer("thread", how),
        ]
        innocent = await slow.options(connection=on).defer_many(
            [(f"innocent-{n}", 0.5) for n in range(6)]
        )
    [child] = worker.children()
    await tables.drained()

    archived = await tables.archived()
    assert {outcome(archived, handle.message_id)["outcome"] for handle in guilty} == {"failed"}
    assert {outcome(archived, handle.message_id)["outcome"] for handle in innocent} == {"done"}
    assert not history.duplicates()
    assert worker.children() == [child]
    await checker.check()


@pytest.mark.parametrize("becomes", ["running", "failed", "done"])
async def test_outcome_of_a_frozen_worker_does_not_count_once_another_has_the_message(  # noqa: PLR0917
    becomes: str,
    start_worker: StartWorker,
    client: Client,
    tables: Tables,
    history: History,
    checker: Checker,
) -> None:
    """Frozen beyond its lease and thawed: it must not settle what runs, failed or is done."""
    frozen = start_worker("--concurrency", "1").wait_until_ready()
    failures = int(becomes == "failed")
    handle = await fails_at_first.defer("contested", failures, seconds=1.0)
    history.accepted("contested", handle)
    history.wait_until_started(1)
    frozen.signal_group(signal.SIGSTOP)
    start_worker("--concurrency", "1").wait_until_ready()
    event = {"running": "start", "failed": "raised", "done": "end"}[becomes]
    eventually(lambda: _by_another(history, event), within_seconds=LEASE_SECONDS + 8)

    frozen.signal_group(signal.SIGCONT)
    await tables.drained()
    frozen.wait_for("lease lost")

    [row] = await tables.archived()
    assert row.state.get("failures", 0) == failures, "the zombie's failure was counted"
    assert (await checker.check()).starts == 2 + failures


def _by_another(history: History, event: str) -> None:
    first = history.of("contested")[0].pid
    assert [one for one in history.of("contested", event) if one.pid != first]


async def test_code_that_blocks_the_event_loop_keeps_its_lease(
    start_worker: StartWorker, client: Client, tables: Tables, history: History, checker: Checker
) -> None:
    """Three times as long as the lease, with an idle neighbour that would take it."""
    start_worker("--processes", "2", environ={"PGTASKS__TASK__LEASE": "1s"}).wait_until_ready(2)
    history.accepted("blocking", await blocking.defer("blocking", 3.0))

    assert (await checker.check()).starts == 1


async def test_code_that_stops_all_threads_cannot_settle_what_it_has_lost(
    start_worker: StartWorker, client: Client, tables: Tables, history: History, checker: Checker
) -> None:
    """Not even the thread that keeps leases goes on: the message is run by somebody else."""
    start_worker("--processes", "2", environ={"PGTASKS__TASK__LEASE": "1s"}).wait_until_ready(2)
    history.accepted("holding", await holds_the_lock.defer("holding", 3.0))
    history.wait_until_started(1)

    with history.lasting_fault("blocked", history.of("holding")[0].pid):
        await tables.drained(30)
    figures = await checker.check(may_overlap=True)
    assert (figures.starts, figures.stale) == (2, 0)


async def test_fifty_that_run_for_five_leases_are_run_once(
    start_worker: StartWorker, client: Client, tables: Tables, history: History, checker: Checker
) -> None:
    environ = {"PGTASKS__TASK__LEASE": "1s"}
    start_worker("--processes", "2", "--concurrency", "25", environ=environ).wait_until_ready(2)
    keys = [f"m{n}" for n in range(50)]
    history.accepted_many(keys, await slow.defer_many([(key, 5.0) for key in keys]))

    assert (await checker.check()).starts == 50


def kill_any_child(worker: WorkerProcess) -> None:
    children = worker.children()
    assert children, "all are being replaced"
    try:
        worker.signal_child(children[0])
    except ProcessLookupError as error:
        raise AssertionError("it had ended already") from error


async def test_killed_in_the_middle_of_thousands_loses_none(
    start_worker: StartWorker, client: Client, tables: Tables, history: History, checker: Checker
) -> None:
    """Children killed again and again while messages are claimed, run and settled in batches."""
    worker = start_worker("--processes", "2", "--concurrency", "10").wait_until_ready(2)
    keys = [f"m{n}" for n in range(3000)]
    history.accepted_many(keys, await quick.defer_many([(key,) for key in keys]))
    for round_ in range(3):
        history.wait_until_started(100 + 600 * round_)
        eventually(lambda: kill_any_child(worker))

    await checker.check()
