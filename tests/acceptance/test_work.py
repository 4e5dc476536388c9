"""Workers with nothing wrong: several processes, a lifespan, the embedded server."""

from acceptance.conftest import StartWorker
from acceptance.history import History
from acceptance.tables import Tables
from acceptance.tasks_under_test import quick
from acceptance.tasks_with_lifespan import uses_resources

from pgtasks import Client, exit_codes


async def test_two_processes_run_every_message_once(
    start_worker: StartWorker, client: Client, tables: Tables, history: History
) -> None:
    worker = start_worker("--processes", "2", "--concurrency", "10").wait_until_ready(2)
    handles = await quick.defer_many([(f"m{n}",) for n in range(2000)])

    await tables.drained(30)

    await tables.all_done_once(handle.message_id for handle in handles)
    assert len(history.starts()) == 2000
    assert not history.duplicates()
    assert len({event.pid for event in history.events("start")}) == 2
    assert worker.stop() == exit_codes.OK


async def test_lifespan_is_entered_once_by_each_child_and_left_at_its_end(
    start_worker: StartWorker, client: Client, tables: Tables, history: History
) -> None:
    worker = start_worker("acceptance.tasks_with_lifespan", "--processes", "2")
    worker.wait_until_ready(2)
    children = set(worker.children())
    await uses_resources.defer_many([(f"m{n}",) for n in range(20)])
    await tables.drained()

    assert {event.pid for event in history.events("entered")} == children
    assert not history.events("left")
    assert worker.stop() == exit_codes.OK
    assert len(history.events("entered")) == 2
    assert sorted(event.pid for event in history.events("left")) == sorted(children)
    assert {event.note for event in history.events("end")} == {"open"}
    assert history.events()[-1].what == "left"
