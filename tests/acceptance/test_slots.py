"""Queues with slots of their own: per process, and counted over all processes of a worker."""

import os
import signal
from collections.abc import Iterable, Sequence
from pathlib import Path
from time import monotonic

import pytest
from acceptance.conftest import StartWorker
from acceptance.history import Event, History
from acceptance.tables import Tables
from acceptance.tasks_under_test import dies, quick, slow
from acceptance.worker_process import WorkerProcess
from eventually import eventually, eventually_async

from pgtasks import Client, exit_codes
from pgtasks.store import Store

COUNTED = "counted"
TOTAL = "PGTASKS__WORKER__QUEUE_CONFIG__COUNTED__TOTAL_CONCURRENCY"
OWN = "PGTASKS__WORKER__QUEUE_CONFIG__COUNTED__CONCURRENCY"


@pytest.fixture
async def counted(tables: Tables) -> Tables:
    """A queue that no task names: its messages say so themselves."""
    await Store(tables.connection).create_queue(COUNTED)
    return tables


def most_at_once(events: Iterable[Event]) -> int:
    """How many runs there were at a time at most; a run ends with its process, too."""
    running: dict[tuple[str, int], Event] = {}
    most = 0
    for event in sorted(events, key=lambda event: event.at):
        if event.what == "start":
            running[event.key, event.pid] = event
        elif event.what == "died":
            running = {run: one for run, one in running.items() if run[1] != event.pid}
        else:
            running.pop((event.key, event.pid), None)
        most = max(most, len(running))
    return most


def most_by_process(events: Sequence[Event]) -> dict[int, int]:
    """The same for each process."""
    pids = {event.pid for event in events}
    return {pid: most_at_once(event for event in events if event.pid == pid) for pid in pids}


async def is_drained(tables: Tables, queue: str = COUNTED, *, within_seconds: float = 40) -> None:
    async def nothing_left() -> None:
        rows = await tables.connection.fetch(f'SELECT msg_id, read_ct, vt FROM pgmq."q_{queue}"')
        assert not rows, f"{len(rows)} left, such as {rows[0]}"

    await eventually_async(nothing_left, within_seconds=within_seconds)


async def test_slots_over_all_processes_are_used_and_never_exceeded(
    start_worker: StartWorker, client: Client, counted: Tables, history: History
) -> None:
    await slow.options(queue=COUNTED).defer_many([(f"m{n}", 0.1) for n in range(60)])
    await quick.defer_many([(f"d{n}",) for n in range(50)])
    worker = start_worker("--processes", "3", environ={TOTAL: "4"}).wait_until_ready(3)

    await is_drained(counted)

    runs = [event for event in history.events() if event.key.startswith("m")]
    assert most_at_once(runs) == 4
    assert sorted(most_by_process(runs).values()) == [1, 1, 2]
    assert not history.duplicates()
    assert worker.stop() == exit_codes.OK


async def test_a_process_whose_share_is_nothing_serves_the_other_queues(
    start_worker: StartWorker, client: Client, counted: Tables, history: History
) -> None:
    worker = start_worker("--processes", "3", environ={TOTAL: "1"}).wait_until_ready(3)
    await slow.options(queue=COUNTED).defer_many([(f"m{n}", 0.02) for n in range(20)])
    await slow.defer_many([(f"d{n}", 0.3) for n in range(60)])

    await is_drained(counted)
    await counted.drained()

    runs = [event for event in history.events() if event.key.startswith("m")]
    assert most_at_once(runs) == 1
    assert len({event.pid for event in runs}) == 1
    assert len({event.pid for event in history.events("start")}) == 3
    assert sorted(line["queues"] for line in worker.lines("worker ready")) == [
        "counted,default", "default", "default",
    ]  # fmt: skip
    assert worker.stop() == exit_codes.OK


async def test_slots_are_never_exceeded_when_processes_are_killed(
    start_worker: StartWorker, client: Client, counted: Tables, history: History
) -> None:
    """Neither by the process that takes the dead one's place, nor by what is run alone."""
    worker = start_worker("--processes", "3", environ={TOTAL: "4"}).wait_until_ready(3)
    await slow.options(queue=COUNTED).defer_many([(f"m{n}", 0.3) for n in range(70)])
    for round_ in range(3):
        history.wait_until_started(10 * (round_ + 1), within_seconds=20)
        eventually(lambda: kill_the_last(worker, history))

    await is_drained(counted, within_seconds=60)

    worker.wait_for("running suspects alone")
    assert not history.lost(f"m{n}" for n in range(70))
    assert most_at_once(history.events()) == 4
    history.path.unlink()
    await slow.options(queue=COUNTED).defer_many([(f"n{n}", 0.3) for n in range(24)])
    await is_drained(counted)
    assert sorted(most_by_process(history.events()).values()) == [1, 1, 2]
    assert worker.stop() == exit_codes.OK


async def test_one_slot_over_all_processes_is_one_even_while_its_messages_end_processes(
    start_worker: StartWorker, client: Client, counted: Tables, history: History
) -> None:
    worker = start_worker("--processes", "2", environ={TOTAL: "1"}).wait_until_ready(2)
    await dies.options(queue=COUNTED).defer("culprit", "kill")
    await slow.options(queue=COUNTED).defer_many([(f"m{n}", 0.1) for n in range(30)])

    await is_drained(counted)

    worker.wait_for("message crashes its process, archived")
    assert len(history.of("culprit")) == 3
    assert not history.lost(f"m{n}" for n in range(30))
    # It ends each of its processes 0.2 s after its start.
    died = [Event("died", "", e.pid, e.at + 0.21, 0, "") for e in history.of("culprit")]
    assert len({event.pid for event in died}) == 3
    assert most_at_once([*history.events(), *died]) == 1
    assert worker.stop() == exit_codes.OK


async def test_what_looks_as_if_it_ended_processes_runs_alone_in_a_slot_of_its_queue(
    start_worker: StartWorker, client: Client, counted: Tables, history: History
) -> None:
    """Other workers died of it, or other clients read it; there is one slot for all of them."""
    suspects = [f"s{n}" for n in range(3)]
    await slow.options(queue=COUNTED).defer_many([(key, 0.3) for key in suspects])
    history.fault("read-elsewhere")
    await counted.connection.execute("UPDATE pgmq.q_counted SET read_ct = 5")
    await slow.options(queue=COUNTED).defer_many([(f"m{n}", 0.2) for n in range(25)])
    worker = start_worker("--processes", "2", environ={TOTAL: "1"}).wait_until_ready(2)

    await is_drained(counted)

    worker.wait_for("running suspects alone", times=3)
    assert not history.lost([*suspects, *(f"m{n}" for n in range(25))])
    assert not history.duplicates()
    assert most_at_once(history.events()) == 1
    assert len({history.of(key)[0].pid for key in (*suspects, "m0")}) == 4
    assert worker.stop() == exit_codes.OK


async def test_slots_of_each_process_need_no_listing(
    start_worker: StartWorker, client: Client, counted: Tables, history: History
) -> None:
    environ = {OWN: "2", "PGTASKS__WORKER__QUEUES": "default"}
    worker = start_worker("--processes", "2", environ=environ).wait_until_ready(2)
    await slow.options(queue=COUNTED).defer_many([(f"m{n}", 0.2) for n in range(20)])

    await is_drained(counted)

    assert sorted(most_by_process(history.events()).values()) == [2, 2]
    assert worker.stop() == exit_codes.OK


@pytest.mark.parametrize("total", ["0", "3"])
def test_settings_of_a_queue_nobody_knows_are_a_mistake_of_settings(
    total: str, start_worker: StartWorker
) -> None:
    worker = start_worker(environ={TOTAL.replace("COUNTED", "DEFALT"): total})

    assert worker.wait() == exit_codes.USAGE
    says = "did you mean 'default'?" if total == "3" else "0 is too small: without slots nothing"
    assert says in worker.text()
    assert "Traceback" not in worker.text()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("queues = []", "pgtasks.toml:2: worker.queues: an empty list is not allowed here"),
        ("concurrency = 0", "pgtasks.toml:2: worker.concurrency: 0 is too small"),
        (
            "queue-config.default = { concurrency = 2, total-concurrency = 3 }",
            "pgtasks.toml:2: worker.queue-config.default.total-concurrency: not together with",
        ),
        (
            "queue-config.counted = { concurrency = 2 }",
            "worker.queue-config.counted: there is no queue 'counted', and no task uses it",
        ),
    ],
)
def test_a_queue_that_nobody_could_serve_is_a_mistake_of_settings(
    text: str, says: str, tmp_path: Path, start_worker: StartWorker
) -> None:
    (tmp_path / "pgtasks.toml").write_text(f"[worker]\n{text}\n")
    worker = start_worker()

    assert worker.wait() == exit_codes.USAGE
    said = worker.text()
    assert says in said
    assert "Traceback" not in said


def kill_the_last(worker: WorkerProcess, history: History) -> None:
    """End the process that was the last to do something, unless it has ended by itself."""
    living = worker.children()
    last = next((e.pid for e in reversed(history.events()) if e.pid in living), None)
    assert last is not None
    try:
        kill(last, history)
    except ProcessLookupError as error:
        raise AssertionError from error


def kill(pid: int, history: History) -> None:
    """End a process, and tell the history that its runs are over."""
    os.kill(pid, signal.SIGKILL)
    with history.path.open("a") as file:
        file.write(f"died - {pid} {monotonic()} 0 \n")
