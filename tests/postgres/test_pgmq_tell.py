"""What pgmq's functions tell, and whom they route to: notifications of inserts, and topics."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import attrs
import pytest
from postgres.pgmq_functions import Pgmq
from postgres.rows import LOCKS

from pgtasks.config import DatabaseConfig
from pgtasks.connection import open_connection

RAISED = "P0001"


@attrs.define
class Ear:
    """A connection that listens to the queue `jobs`."""

    connection: "asyncpg.Connection[asyncpg.Record]"
    heard: list[tuple[str, str]] = attrs.field(factory=list)

    async def all(self) -> list[tuple[str, str]]:
        """What was heard: notifications arrive before the answer to a statement."""
        await self.connection.execute("SELECT 1")
        return self.heard


@pytest.fixture
async def ear(database: DatabaseConfig) -> AsyncIterator[Ear]:
    listening = Ear(await open_connection(database, "tests"))

    def note(*args: Any) -> None:
        listening.heard.append((args[2], args[3]))

    await listening.connection.add_listener("pgmq.q_jobs.INSERT", note)
    yield listening
    await listening.connection.close()


async def test_an_insert_is_told_when_it_is_committed(pgmq: Pgmq, ear: Ear):
    assert await pgmq.names("enable_notify_insert('jobs', 0)") == ["enable_notify_insert"]
    async with pgmq.connection.transaction():
        await pgmq.rows("send('jobs', '{}')")
        assert await ear.all() == []
    assert await ear.all() == [("pgmq.q_jobs.INSERT", "")]
    await pgmq.rows("send_batch('jobs', '{1,2,3}'::jsonb[])")
    await pgmq.connection.execute("INSERT INTO pgmq.q_jobs (vt) VALUES (now())")
    assert len(await ear.all()) == 3
    await pgmq.rows("read('jobs', 1, 5)")
    await pgmq.rows("delete('jobs', 1)")
    assert len(await ear.all()) == 3


async def test_no_more_is_told_than_once_in_an_interval(pgmq: Pgmq, ear: Ear):
    await pgmq.rows("enable_notify_insert(queue_name => 'jobs', throttle_interval_ms => 3600000)")
    for _ in range(5):
        await pgmq.rows("send('jobs', '{}')")
    assert len(await ear.all()) == 1
    await pgmq.connection.execute(
        "UPDATE pgmq.notify_insert_throttle SET last_notified_at = now() - interval '61 min'"
    )
    for _ in range(5):
        await pgmq.rows("send('jobs', '{}')")
    assert len(await ear.all()) == 2
    await pgmq.rows("update_notify_insert('jobs', 0)")
    for _ in range(5):
        await pgmq.rows("send('jobs', '{}')")
    assert len(await ear.all()) == 7


async def test_many_senders_tell_once(pgmq: Pgmq, ear: Ear, database: DatabaseConfig):
    await pgmq.rows("enable_notify_insert('jobs', 3600000)")
    others = [await open_connection(database, "tests") for _ in range(8)]
    await asyncio.gather(*(one.execute("SELECT pgmq.send('jobs', '{}')") for one in others))
    assert len(await ear.all()) == 1
    for one in others:
        await one.close()


async def test_a_sender_that_is_not_to_tell_waits_for_nobody(
    pgmq: Pgmq, ear: Ear, database: DatabaseConfig
):
    """Another's transaction may stay open; the row of the interval is not its to hold."""
    await pgmq.rows("enable_notify_insert('jobs')")
    assert await pgmq.column("list_notify_insert_throttles()") == ["jobs"]
    await pgmq.rows("update_notify_insert(queue_name => 'jobs', throttle_interval_ms => 3600000)")
    await pgmq.rows("send('jobs', '{}')")
    other = await open_connection(database, "tests")
    async with other.transaction():
        await other.execute("SELECT pgmq.send('jobs', '{}')")
        await other.execute("SET CONSTRAINTS ALL IMMEDIATE")
        await pgmq.rows("send('jobs', '{}')")
        assert await pgmq.connection.fetchval(LOCKS + "NOT granted") == 0
    assert len(await ear.all()) == 1
    await other.close()


async def test_what_is_told_of_is_listed(pgmq: Pgmq):
    await pgmq.rows("create('Other')")
    assert await pgmq.rows("list_notify_insert_throttles()") == []
    await pgmq.rows("enable_notify_insert('jobs')")
    await pgmq.rows("enable_notify_insert('Other', 7)")
    rows = await pgmq.rows("list_notify_insert_throttles()")
    assert list(rows[0].keys()) == ["queue_name", "throttle_interval_ms", "last_notified_at"]
    assert {tuple(row)[:2] for row in rows} == {("jobs", 250), ("Other", 7)}
    assert {row[2].timestamp() for row in rows} == {0.0}
    await pgmq.rows("enable_notify_insert('jobs', 9)")
    assert {tuple(row)[:2] for row in await pgmq.rows("list_notify_insert_throttles()")} == {
        ("jobs", 9), ("Other", 7),
    }  # fmt: skip


async def test_a_queue_in_capitals_tells_too(pgmq: Pgmq, ear: Ear):
    await pgmq.rows("create('JOBS')")
    await pgmq.rows("enable_notify_insert('JOBS', 3600000)")
    for _ in range(3):
        await pgmq.rows("send('JOBS', '{}')")
    assert len(await ear.all()) == 1


async def test_telling_can_be_ended(pgmq: Pgmq, ear: Ear):
    await pgmq.rows("enable_notify_insert('jobs', 0)")
    for _ in range(2):
        assert await pgmq.names("disable_notify_insert('jobs')") == ["disable_notify_insert"]
    await pgmq.rows("send('jobs', '{}')")
    assert await ear.all() == []
    assert await pgmq.rows("list_notify_insert_throttles()") == []


async def test_the_trigger_is_the_one_that_pgmq_knows(pgmq: Pgmq):
    await pgmq.rows("enable_notify_insert('jobs')")
    triggers = await pgmq.connection.fetch(
        "SELECT tgname::text, tgdeferrable, tgfoid::regproc::text, tgconstraint <> 0 "
        "FROM pg_trigger WHERE tgrelid = 'pgmq.q_jobs'::regclass"
    )
    assert [tuple(row) for row in triggers] == [
        ("trigger_notify_queue_insert_listeners", True, "pgmq.notify_queue_listeners", True)
    ]


async def test_what_cannot_be_told_is_refused(pgmq: Pgmq):
    for call in (
        "enable_notify_insert('jobs', -1)", "enable_notify_insert('gone')",
        "enable_notify_insert('jobs', NULL)", "update_notify_insert('jobs', -1)",
        "update_notify_insert('jobs', 5)", "update_notify_insert('gone', 5)",
    ):  # fmt: skip
        assert await pgmq.refused(call) == RAISED, call
    await pgmq.rows("create($1)", "é" * 30)
    assert await pgmq.refused("enable_notify_insert($1)", "é" * 30) == RAISED
    await pgmq.rows("send($1, '{}')", "é" * 30)


# Topics

FITS = {
    "a.b": ["a.b", "a.*", "*.b", "*.*", "#", "a.#", "#.b", "a#"],
    "a": ["a", "*", "#"],
    "a.b.c": ["a.#", "#", "a.*.c", "a.b.*", "#.c", "*.*.*", "a.b.c"],
    "a-1_x.B": ["a-1_x.B", "*.B", "a-*.B"],
}
FITS_NOT = {
    "a.b": ["a", "b", "*", "a.b.c", "A.b", "axb", "a.b.#", "*.*.*", "b.#"],
    "a": ["a.#", "a.*", "#.a", "aa"],
    "axb": ["a.b"],
}


@pytest.mark.parametrize("key", [*FITS, *FITS_NOT])
async def test_a_key_fits_patterns(pgmq: Pgmq, key: str):
    for pattern in {*FITS.get(key, []), *FITS_NOT.get(key, [])}:
        await pgmq.rows("bind_topic($1, 'jobs')", pattern)
    rows = await pgmq.rows("test_routing($1)", key)
    assert {row["pattern"] for row in rows} == set(FITS.get(key, []))
    for row in rows:
        assert list(row.keys()) == ["pattern", "queue_name", "compiled_regex"]
        assert row["queue_name"] == "jobs"


BAD_KEYS = ["", None, "a" * 256, ".a", "a.", "a..b", "a b", "a/b", "é", "a*", "#", "a\n", "a;b"]
BAD_PATTERNS = ["", None, "a" * 256, ".a", "a.", "a..b", "a b", "**", "##", "*#", "#*", "a.**",
       "a(b",
                "a|b", "[a]", "a\\", "a\n"]  # fmt: skip


async def test_keys_and_patterns_are_refused_or_true(pgmq: Pgmq):
    for key in BAD_KEYS:
        for call in ("validate_routing_key($1)", "test_routing($1)", "send_topic($1, '{}')",
                     "send_batch_topic($1, '{1}'::jsonb[])"):  # fmt: skip
            assert await pgmq.refused(call, key) == RAISED, (call, key)
    for pattern in BAD_PATTERNS:
        for call in ("validate_topic_pattern($1)", "bind_topic($1, 'jobs')"):
            assert await pgmq.refused(call, pattern) == RAISED, (call, pattern)
    for key in ("a", "a" * 255, "a.b-c_D.9"):
        assert await pgmq.value("validate_routing_key(routing_key => $1)", key) is True
    for pattern in ("#", "*", "a.*.#", "a" * 255, "#.a"):
        assert await pgmq.value("validate_topic_pattern(pattern => $1)", pattern) is True
    assert await pgmq.refused("bind_topic('a', 'gone')") == RAISED
    assert await pgmq.refused("bind_topic('a', NULL)") == RAISED


async def test_bindings_are_made_listed_and_ended(pgmq: Pgmq):
    await pgmq.rows("create('other')")
    for _ in range(2):
        assert await pgmq.names("bind_topic('a.*', 'jobs')") == ["bind_topic"]
    await pgmq.rows("bind_topic(pattern => '#', queue_name => 'other')")
    rows = await pgmq.rows("list_topic_bindings()")
    assert list(rows[0].keys()) == ["pattern", "queue_name", "bound_at", "compiled_regex"]
    assert [row["queue_name"] for row in rows] == ["other", "jobs"]
    assert await pgmq.column("list_topic_bindings('jobs')") == ["a.*"]
    assert await pgmq.column("list_topic_bindings(queue_name => 'other')") == ["#"]
    assert await pgmq.names("unbind_topic('a.*', 'jobs')") == ["unbind_topic"]
    assert await pgmq.value("unbind_topic(pattern => 'a.*', queue_name => 'jobs')") is False
    assert await pgmq.value("unbind_topic('#', 'other')") is True
    assert await pgmq.rows("list_topic_bindings()") == []


@pytest.fixture
async def bound(pgmq: Pgmq) -> Pgmq:
    """Three queues; two of them take `a.b`, one of these by two patterns."""
    for queue in ("other", "third"):
        await pgmq.rows("create($1)", queue)
    for pattern, queue in [("a.*", "jobs"), ("#", "jobs"), ("a.#", "other"), ("b", "third")]:
        await pgmq.rows("bind_topic($1, $2)", pattern, queue)
    return pgmq


@pytest.mark.parametrize(
    ("args", "headers", "is_due"),
    [
        ("'a.b', '1'", None, True), ("routing_key => 'a.b', msg => '1'", None, True),
        ("'a.b', '1', 60", None, False), ("'a.b', msg => '1', delay => 60", None, False),
        ("""'a.b', '1', '{"a":1}', 0""", '{"a": 1}', True),
        (
            """routing_key => 'a.b', msg => '1', headers => '{"a":1}', delay => 60""",
            '{"a": 1}', False,
        ),
    ],
)  # fmt: skip
async def test_a_message_goes_to_each_queue_once(
    bound: Pgmq, args: str, headers: str | None, is_due: bool
):
    assert await bound.rows(f"send_topic({args})") == [(2,)]
    assert await bound.names(f"send_topic({args})") == ["send_topic"]
    assert await bound.value("send_topic('c', '1')") == 1
    for queue, count in (("jobs", 3), ("other", 2), ("third", 0)):
        rows = await bound.connection.fetch(f"SELECT * FROM pgmq.q_{queue} ORDER BY msg_id")
        assert len(rows) == count
        assert all(row["headers"] == headers for row in rows[:2])
    assert len(await bound.rows("read('other', 30, 9)")) == (2 if is_due else 0)


@pytest.mark.parametrize(
    "rest",
    ["", ", 60", ", delay => 60", ", now()", ", ARRAY['{}', '{}']::jsonb[]",
     ", headers => ARRAY['{}', '{}']::jsonb[]", ", ARRAY['{}', '{}']::jsonb[], 60",
     ", headers => ARRAY['{}', '{}']::jsonb[], delay => 60",
     ", ARRAY['{}', '{}']::jsonb[], now()"],
)  # fmt: skip
async def test_many_messages_go_to_each_queue(bound: Pgmq, rest: str):
    msgs = "ARRAY['1', '2']::jsonb[]"
    rows = await bound.rows(f"send_batch_topic('a.b', {msgs}{rest})")
    assert list(rows[0].keys()) == ["queue_name", "msg_id"]
    assert [tuple(row) for row in rows] == [("jobs", 1), ("jobs", 2), ("other", 1), ("other", 2)]
    named = f"send_batch_topic(routing_key => 'a.b', msgs => {msgs}{rest})"
    if "=>" in rest:
        assert len(await bound.rows(named)) == 4
    assert await bound.refused("send_batch_topic('a.b', '{}'::jsonb[])") == RAISED
