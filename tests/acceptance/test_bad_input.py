"""Rows that other clients put into the tables: whatever they hold, the worker and others go on."""

import json
from typing import Any

import attrs
import pytest
from acceptance.conftest import StartWorker
from acceptance.history import History
from acceptance.tables import Row, Tables
from acceptance.tasks_under_test import quick

from pgtasks import Client, exit_codes

_INSERT = """
    INSERT INTO pgmq.q_default (vt, message, headers, read_ct, enqueued_at)
    VALUES ($1::text::timestamptz, $2::text::jsonb, $3::text::jsonb, $4, $5::text::timestamptz)
    RETURNING msg_id
"""


def call(task: str, args: Any) -> str:
    """A well-formed message."""
    envelope = {"metadata": {"id": 1, "worker_name": task}, "args": args}
    return json.dumps(envelope)


def good(key: str) -> str:
    """A message that can be run."""
    return call("acceptance.tasks_under_test.quick", {"key": key})


NUMBER = "acceptance.tasks_under_test.takes_a_number"


@attrs.frozen
class Foreign:
    """A row as no client of ours would write it."""

    message: str | None
    headers: str | None = None
    vt: str = "now"
    read_ct: int = 0
    enqueued_at: str = "now"


def with_number(json_text: str) -> Foreign:
    """A call with a number that only JSON can write."""
    return Foreign(call(NUMBER, {"key": "number", "number": 0}).replace("0}}", f"{json_text}}}}}"))


UNREADABLE = {
    "NULL": Foreign(None),
    "JSON null": Foreign("null"),
    "array": Foreign("[]"),
    "text": Foreign('"x"'),
    "number": Foreign("17"),
    "empty": Foreign("{}"),
    "no name": Foreign('{"metadata": {"id": 1}, "args": {}}'),
    "name that is none": Foreign('{"metadata": {"id": 1, "worker_name": 5}, "args": {}}'),
    "deep message": Foreign("[" * 6000 + "]" * 6000),
    "deep argument": with_number("[" * 6000 + "]" * 6000),
    "wrong type": Foreign(call(NUMBER, {"key": "x", "number": "many"})),
    "one argument too many": Foreign(call(NUMBER, {"key": "x", "number": 1, "more": 2})),
    "one argument too few": Foreign(call(NUMBER, {"key": "x"})),
    "too many positions": Foreign(call(NUMBER, ["x", 1, 2])),
    "number of 100,000 digits": with_number("1e100000"),
    "unreadable and odd headers": Foreign("[]", headers='{"pgtasks": {"failures": -1e9}}'),
    "unreadable and at the end of its type": Foreign("[]", read_ct=2**31 - 1),
    "unreadable for ever": Foreign("[]", vt="-infinity", enqueued_at="-infinity"),
}

ODD_BUT_READABLE = {
    "headers are an array": Foreign(good("headers-array"), headers="[1, 2]"),
    "headers are text": Foreign(good("headers-text"), headers='"x"'),
    "our headers are a number": Foreign(good("ours-number"), headers='{"pgtasks": 5}'),
    "our headers are nonsense": Foreign(
        good("ours-nonsense"),
        headers='{"pgtasks": {"failures": "many", "errors": 7, "releases": 1e99, '
        '"options": {"timeout": -5, "retries": "x", "on_success": 1}}}',
    ),
    "due since ever": Foreign(good("since-ever"), vt="-infinity"),
    "stored before Christ": Foreign(good("before-christ"), enqueued_at="0044-03-15 BC"),
    "stored at the end of time": Foreign(good("end-of-time"), enqueued_at="infinity"),
    "arguments as an array": Foreign(call("acceptance.tasks_under_test.quick", ["positional"])),
    "number of 400 digits": with_number("1e400"),
    "argument as a scalar": Foreign(call("acceptance.tasks_under_test.quick", "scalar")),
}

UNKNOWN = {
    "unknown": Foreign(call("nobody.knows.this", {})),
    "a function, but no task": Foreign(call("os.system", ["true"])),
    "empty name": Foreign(call("", {})),
    "name that would break lines": Foreign(call("x\n\x1b[31m{} %s", {})),
}


async def insert(tables: Tables, rows: dict[str, Foreign]) -> dict[str, int]:
    """Store rows as another client would; gives their ids."""
    return {
        name: await tables.connection.fetchval(
            _INSERT, row.vt, row.message, row.headers, row.read_ct, row.enqueued_at
        )
        for name, row in rows.items()
    }


async def by_name(tables: Tables, ids: dict[str, int]) -> dict[str, Row]:
    """What the archive says of these."""
    archived = {row.id: row for row in await tables.archived()}
    return {name: archived[id_] for name, id_ in ids.items() if id_ in archived}


async def test_garbage_is_archived_with_its_reason_and_harms_nobody(
    start_worker: StartWorker, client: Client, tables: Tables, history: History
) -> None:
    worker = start_worker("--concurrency", "50").wait_until_ready()
    [child] = worker.children()
    async with tables.connection.transaction():  # so that one claim gets them all
        ours = quick.options(connection=tables.connection)
        before = await ours.defer_many([(f"before-{n}",) for n in range(10)])
        history.fault("read-elsewhere")
        unreadable = await insert(tables, UNREADABLE)
        odd = await insert(tables, ODD_BUT_READABLE)
        after = await ours.defer_many([(f"after-{n}",) for n in range(10)])

    await tables.drained()

    refused = await by_name(tables, unreadable)
    assert {name: row.state["outcome"] for name, row in refused.items()} == dict.fromkeys(
        UNREADABLE, "undecodable"
    )
    assert all(row.state["reason"] for row in refused.values())
    ran = await by_name(tables, odd)
    assert {name: row.state["outcome"] for name, row in ran.items()} == dict.fromkeys(
        ODD_BUT_READABLE, "done"
    )
    neighbours = {handle.message_id for handle in (*before, *after)}
    assert neighbours <= {row.id for row in await tables.archived()}
    assert len(history.keys("end")) == 20 + len(ODD_BUT_READABLE)
    assert not history.duplicates()
    assert child in worker.children()
    assert "Traceback" not in worker.text(), worker.text()
    assert worker.stop() == exit_codes.OK


async def test_message_of_an_unknown_task_waits_for_a_worker_that_knows_it(
    start_worker: StartWorker, client: Client, tables: Tables, history: History
) -> None:
    """Put back at no cost, later and later; its neighbours run meanwhile."""
    ids = await insert(tables, UNKNOWN)
    await quick.defer("neighbour")
    worker = start_worker().wait_until_ready()

    worker.wait_for("no such task here", times=len(UNKNOWN))
    await quick.defer("later")
    worker.wait_for("no such task here", times=2 * len(UNKNOWN))

    assert worker.stop() == exit_codes.OK
    waiting = {row.id: row for row in await tables.waiting()}
    assert set(waiting) == set(ids.values())
    for row in waiting.values():
        assert row.state["unknown"] >= 1
        assert "failures" not in row.state
        assert row.delivery == row.state["unknown"] + row.state.get("releases", 0)
    assert history.keys("end") == {"neighbour", "later"}
    assert "\x1b" not in worker.text()


@pytest.mark.parametrize("read_ct", [2**31 - 2, 2**31 - 1])
async def test_message_read_two_thousand_million_times_ends(
    read_ct: int, start_worker: StartWorker, client: Client, tables: Tables, history: History
) -> None:
    """It looks like one that crashes its processes: it runs alone, and once."""
    history.fault("read-elsewhere")
    [id_] = (await insert(tables, {"one": Foreign(good("worn"), read_ct=read_ct)})).values()
    await quick.defer("neighbour")
    worker = start_worker().wait_until_ready()

    await tables.drained()

    archived = {row.id: row.state["outcome"] for row in await tables.archived()}
    assert archived[id_] == "done"
    assert history.starts() == {"worn": 1, "neighbour": 1}
    worker.wait_for("running suspects alone")
    assert worker.stop() == exit_codes.OK


async def test_many_that_look_as_if_they_ended_processes_are_all_run(
    start_worker: StartWorker, tables: Tables, client: Client, history: History
) -> None:
    """As after answers to claims were lost: they run alone, and share the process they do it in.

    With a process for each, most would wait for longer than their leases, and none would end.
    """
    handles = await quick.defer_many([(f"m{n}",) for n in range(80)])
    history.fault("read-elsewhere")
    await tables.connection.execute("UPDATE pgmq.q_default SET read_ct = 2")
    worker = start_worker("--concurrency", "8").wait_until_ready()

    await tables.drained(30)

    await tables.all_done_once(handle.message_id for handle in handles)
    assert set(history.starts().values()) == {1}
    assert worker.stop() == exit_codes.OK
