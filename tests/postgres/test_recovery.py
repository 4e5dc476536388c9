"""What the supervisor does in the database for messages of processes that died."""

from datetime import timedelta

import anyio
import asyncpg
import pytest

from pgtasks.board import Entry
from pgtasks.config import DatabaseConfig
from pgtasks.message import Held
from pgtasks.recovery import Recovery
from pgtasks.store import BEGINNING, Store

LEASE = timedelta(seconds=2)


@pytest.fixture
async def entries(connection: asyncpg.Connection) -> list[Entry]:
    """Six messages, claimed by a process that is gone."""
    store = Store(connection)
    await store.create_queue("default")
    await connection.execute(
        "INSERT INTO pgmq.q_default (vt, message) "
        "SELECT clock_timestamp(), '{}' FROM generate_series(1, 6)"
    )
    rows = await store.claim("default", 6, LEASE, BEGINNING)
    return [
        Entry("default", Held(row["msg_id"], row["enqueued_at"]), row["read_ct"], True)
        for row in rows
    ]


@pytest.fixture
async def recovery(database: DatabaseConfig):
    opened = Recovery(database)
    yield opened
    await opened.close()


async def test_processes_that_die_together_are_cleared_up_together(
    recovery: Recovery, entries: list[Entry], connection: asyncpg.Connection
) -> None:
    async with anyio.create_task_group() as group:
        for entry in entries:
            group.start_soon(recovery.give_back, [entry])

    due = "SELECT count(*) FROM pgmq.q_default WHERE vt <= clock_timestamp()"
    assert await connection.fetchval(due) == 6


async def test_suspects_are_held_and_what_is_lost_is_left_alone(
    recovery: Recovery, entries: list[Entry], connection: asyncpg.Connection
) -> None:
    lost = entries[0]
    await connection.execute(
        "UPDATE pgmq.q_default SET read_ct = read_ct + 1 WHERE msg_id = $1", lost.message_id
    )

    await recovery.hold(entries)

    beyond = "SELECT msg_id FROM pgmq.q_default WHERE vt > clock_timestamp() + $1::interval"
    held = {row[0] for row in await connection.fetch(beyond, LEASE + LEASE / 4)}
    assert held == {entry.message_id for entry in entries} - {lost.message_id}


async def test_a_suspect_is_given_up_after_as_many_crashes_as_are_a_proof(
    recovery: Recovery, entries: list[Entry], connection: asyncpg.Connection
) -> None:
    once, twice = entries[:2]

    assert await recovery.prove([once], -9, 1) == []
    assert await recovery.prove([twice], -11, 2) == [twice]
    assert await recovery.prove([twice], -11, 2) == []

    rows = await connection.fetch(
        "SELECT headers #>> '{pgtasks,outcome}', headers #>> '{pgtasks,reason}' "
        "FROM pgmq.a_default ORDER BY msg_id"
    )
    assert [row[0] for row in rows] == ["crashed", "crashed"]
    assert "SIGKILL" in rows[0][1]
    assert "SIGSEGV" in rows[1][1]
