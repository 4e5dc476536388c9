"""Messages by pgmq's functions: sent, read, popped, ended; in every form that clients may call."""

import asyncio
import functools
import json
import operator
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from postgres.pgmq_functions import RECORD, Pgmq

from pgtasks.config import DatabaseConfig
from pgtasks.connection import open_connection

RAISED, UNIQUE, NOT_NULL, NO_PLACE = "P0001", "23505", "23502", "22004"

# Sending

SENDS = [
    ("send('jobs', '{}')", 0), ("send(queue_name => 'jobs', msg => '{}')", 0),
    ("send('jobs', '{}', 60)", 60), ("send(queue_name => 'jobs', msg => '{}', delay => 60)", 60),
    ("send('jobs', '{}', clock_timestamp() + interval '60 s')", 60),
    ("send('jobs', '{}', delay => clock_timestamp() + interval '60 s')", 60),
    ("send('jobs', '{}', -60)", -60),
    ("""send('jobs', '{}', '{"a":1}'::jsonb)""", 0),
    ("""send('jobs', '{}', headers => '{"a":1}')""", 0),
    ("""send('jobs', '{}', '{"a":1}', 60)""", 60),
    ("""send('jobs', '{}', headers => '{"a":1}', delay => 60)""", 60),
    ("""send('jobs', '{}', '{"a":1}', clock_timestamp() + interval '60 s')""", 60),
]  # fmt: skip


@pytest.mark.parametrize(("call", "delay"), SENDS)
async def test_a_message_is_sent(pgmq: Pgmq, call: str, delay: int):
    assert await pgmq.rows(call) == [(1,)]
    assert await pgmq.names(call) == ["send"]
    [row, _] = await pgmq.connection.fetch(
        "SELECT *, extract(epoch FROM vt - clock_timestamp())::float AS due_in FROM pgmq.q_jobs"
    )
    assert (row["msg_id"], row["read_ct"], row["last_read_at"]) == (1, 0, None)
    assert row["message"] == "{}"
    assert row["headers"] == ('{"a": 1}' if '"a"' in call else None)
    assert row["due_in"] == pytest.approx(delay, abs=20)


BODIES = "ARRAY['1', '2', '3']::jsonb[]"
HEADS = """ARRAY['{"a":1}', '{"a":2}', '{"a":3}']::jsonb[]"""
LATER = "clock_timestamp() + interval '60 s'"
BATCHES = [
    (BODIES, 0), (f"msgs => {BODIES}", 0), (f"{BODIES}, 60", 60),
    (f"msgs => {BODIES}, delay => 60", 60),
    (f"{BODIES}, {LATER}", 60), (f"{BODIES}, delay => {LATER}", 60), (f"{BODIES}, -60", -60),
    (f"{BODIES}, {HEADS}", 0), (f"msgs => {BODIES}, headers => {HEADS}", 0),
    (f"{BODIES}, {HEADS}, 60", 60), (f"{BODIES}, headers => {HEADS}, delay => 60", 60),
    (f"{BODIES}, {HEADS}, {LATER}", 60),
    (f"msgs => {BODIES}, headers => {HEADS}, delay => {LATER}", 60),
]  # fmt: skip


@pytest.mark.parametrize(("args", "delay"), BATCHES)
async def test_many_messages_are_sent(pgmq: Pgmq, args: str, delay: int):
    call = f"send_batch(queue_name => 'jobs', {args})"
    if "msgs" not in args:
        call = f"send_batch('jobs', {args})"
    assert await pgmq.rows(call) == [(1,), (2,), (3,)]
    assert await pgmq.names(call) == ["send_batch"]
    rows = await pgmq.connection.fetch(
        "SELECT *, extract(epoch FROM vt - clock_timestamp())::float AS due_in FROM pgmq.q_jobs "
        "WHERE msg_id < 4 ORDER BY msg_id"
    )
    assert [row["message"] for row in rows] == ["1", "2", "3"]
    with_headers = [f'{{"a": {n}}}' for n in (1, 2, 3)] if HEADS in args else [None] * 3
    assert [row["headers"] for row in rows] == with_headers
    for row in rows:
        assert row["due_in"] == pytest.approx(delay, abs=20)


async def test_a_delay_counts_from_the_call_and_not_from_the_transaction(pgmq: Pgmq):
    async with pgmq.connection.transaction():
        before = await pgmq.connection.fetchval("SELECT now()")
        await pgmq.connection.execute("SELECT pg_sleep(0.2)")
        await pgmq.rows("send('jobs', '{}')")
        [row] = await pgmq.connection.fetch("SELECT vt, enqueued_at FROM pgmq.q_jobs")
    assert row["enqueued_at"] == before
    assert row["vt"] - before >= timedelta(seconds=0.2)


async def test_what_is_not_json_at_all_is_sent_too(pgmq: Pgmq):
    await pgmq.rows("send('jobs', NULL)")
    await pgmq.rows("send_batch('jobs', ARRAY[NULL, '2']::jsonb[])")
    assert [row["message"] for row in await pgmq.rows("read('jobs', 0, 9)")] == [None, None, "2"]


@pytest.mark.parametrize(
    "args",
    [
        "NULL::jsonb[]", "'{}'::jsonb[]", "'{}'::jsonb[], 5", "'{1,2}'::jsonb[], '{1}'::jsonb[]",
        "'{1}'::jsonb[], '{}'::jsonb[]", "'{1,2}'::jsonb[], '{1,2,3}'::jsonb[], now()",
    ],
)  # fmt: skip
async def test_batches_that_do_not_fit_are_refused(pgmq: Pgmq, args: str):
    assert await pgmq.refused(f"send_batch('jobs', {args})") == RAISED


async def test_what_the_table_refuses_passes_through(pgmq: Pgmq):
    await pgmq.connection.execute(
        "CREATE UNIQUE INDEX one_of_each ON pgmq.q_jobs ((message -> 'key'))"
    )
    await pgmq.rows("""send('jobs', '{"key":1}')""")
    assert await pgmq.refused("""send('jobs', '{"key":1}', 5)""") == UNIQUE
    twice = """ARRAY['{"key":2}', '{"key":2}']::jsonb[]"""
    assert await pgmq.refused(f"send_batch('jobs', {twice})") == UNIQUE
    assert await pgmq.refused("send('jobs', '{}', NULL::integer)") == NOT_NULL
    assert len(await pgmq.rows("read('jobs', 0, 9)")) == 1


# Reading

READS = ["read('jobs', 30, {n})", "read(queue_name => 'jobs', vt => 30, qty => {n})",
         "read_with_poll('jobs', 30, {n})", "read_with_poll('jobs', 30, {n}, 1, 50)",
         ("read_with_poll(queue_name => 'jobs', vt => 30, qty => {n}, max_poll_seconds => 1, "
         "poll_interval_ms => 50, conditional => '{{}}')"),
         "read_grouped('jobs', 30, {n})",
         "read_grouped(queue_name => 'jobs', vt => 30, qty => {n})",
         "read_grouped_with_poll('jobs', 30, {n})",
         "read_grouped_rr('jobs', 30, {n})",
         "read_grouped_rr(queue_name => 'jobs', vt => 30, qty => {n})",
         "read_grouped_rr_with_poll('jobs', 30, {n}, max_poll_seconds => 1)"]  # fmt: skip


@pytest.mark.parametrize("call", READS)
async def test_messages_are_read(pgmq: Pgmq, call: str):
    await pgmq.rows("""send('jobs', '{"a":1}', headers => '{"h":1}')""")
    await pgmq.fill("jobs", 4)
    rows = await pgmq.rows(call.format(n=3))
    assert list(rows[0].keys()) == RECORD
    assert [row["msg_id"] for row in rows] == [1, 2, 3]
    [first, *_] = rows
    assert (first["message"], first["headers"], first["read_ct"]) == ('{"a": 1}', '{"h": 1}', 1)
    now = datetime.now(UTC)
    assert first["vt"] - first["last_read_at"] == pytest.approx(
        timedelta(seconds=30), abs=timedelta(seconds=2)
    )
    assert abs(now - first["last_read_at"]) < timedelta(seconds=30)
    assert sorted(await pgmq.ids("read('jobs', 0, 9)")) == [4, 5]
    assert [row["read_ct"] for row in await pgmq.rows("read('jobs', 0, 9)")] == [2, 2]


async def test_a_message_is_popped(pgmq: Pgmq):
    await pgmq.fill("jobs", 5)
    [row] = await pgmq.rows("pop('jobs')")
    assert list(row.keys()) == RECORD
    assert (row["msg_id"], row["read_ct"], row["last_read_at"]) == (1, 0, None)
    assert await pgmq.ids("pop('jobs', 2)") == [2, 3]
    assert await pgmq.ids("pop(queue_name => 'jobs', qty => 9)") == [4, 5]
    assert await pgmq.rows("pop('jobs')") == []


@pytest.mark.parametrize("qty", [0, None])
async def test_odd_quantities(pgmq: Pgmq, qty: int | None):
    """None is no limit, as it is for LIMIT."""
    await pgmq.fill("jobs", 300)
    for call in ("read('jobs', 0, $1)", "read_grouped('jobs', 0, $1)",
                 "read_grouped_rr('jobs', 0, $1)",
                 "pop('jobs', $1)"):  # fmt: skip
        assert len(await pgmq.rows(call, qty)) == (0 if qty == 0 else 300), call


async def test_a_negative_quantity_is_refused(pgmq: Pgmq):
    await pgmq.fill("jobs", 3)
    for call in ("read('jobs', 0, -1)", "pop('jobs', -1)"):
        assert await pgmq.refused(call) == "2201W"


CONDITIONS = [
    ("""'{"kind":"b"}'""", [2, 4]), ("""'{"kind":"b","n":4}'""", [4]), ("'{}'", [1, 2, 3, 4, 5]),
    ("NULL", [1, 2, 3, 4, 5]), ("""'{"kind":"none"}'""", []),
]  # fmt: skip


@pytest.mark.parametrize(("condition", "wanted"), CONDITIONS)
async def test_messages_are_read_by_a_condition(pgmq: Pgmq, condition: str, wanted: list[int]):
    for n, kind in enumerate("ababa", 1):
        await pgmq.rows("send('jobs', $1)", json.dumps({"kind": kind, "n": n}))
    for call in ("read('jobs', 0, 9, {})", "read('jobs', 0, 9, conditional => {})",
                 "read_with_poll('jobs', 0, 9, 0, 50, {})"):  # fmt: skip
        assert sorted(await pgmq.ids(call.format(condition))) == wanted


async def test_a_condition_finds_the_one_message_behind_many(pgmq: Pgmq):
    await pgmq.fill("jobs", 8000)
    await pgmq.rows("""send('jobs', '{"mine":true}')""")
    assert await pgmq.ids("""read('jobs', 30, 5, '{"mine":true}')""") == [8001]
    assert await pgmq.ids("""read('jobs', 30, 5, '{"mine":true}')""") == []


async def test_a_reader_waits_for_a_message(pgmq: Pgmq, database: DatabaseConfig):
    for name in ("read", "read_grouped", "read_grouped_rr", "read_grouped_head"):
        other = await open_connection(database, "tests")
        waiting = asyncio.create_task(Pgmq(other).ids(f"{name}_with_poll('jobs', 30, 5, 30, 20)"))
        slept = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep' "
        slept += "AND datname = current_database())"
        async with asyncio.timeout(20):
            while not await pgmq.connection.fetchval(slept):
                await asyncio.sleep(0.01)
        [sent] = await pgmq.column("send('jobs', '{}')")
        assert await waiting == [sent]
        assert await pgmq.value("delete('jobs', $1::bigint)", sent)
        await other.close()


async def test_a_reader_waits_no_longer_than_it_says(pgmq: Pgmq):
    """Not at all, with none; and one that says nothing of when to look does not spin."""
    for name in ("read", "read_grouped", "read_grouped_rr", "read_grouped_head"):
        assert await pgmq.rows(f"{name}_with_poll('jobs', 30, 5, 0, 100)") == []
        began = asyncio.get_running_loop().time()
        assert await pgmq.rows(f"{name}_with_poll('jobs', 30, 5, 1, 10000)") == []
        assert 0.9 <= asyncio.get_running_loop().time() - began < 9


# The order

ORDERED = "SELECT msg_id FROM pgmq.q_jobs WHERE vt <= clock_timestamp() ORDER BY msg_id"


@pytest.mark.parametrize("qty", [1, 7, 100])
async def test_the_order_is_that_of_the_ids_among_what_is_due(pgmq: Pgmq, qty: int):
    """Due at moments that have nothing to do with their numbers, delayed ones in between."""
    await pgmq.connection.execute(
        "INSERT INTO pgmq.q_jobs (vt) SELECT clock_timestamp() + (n * 7919 % 2000 - 1500) * "
        "interval '1 minute' FROM generate_series(1, 2000) AS n"
    )
    due = [row[0] for row in await pgmq.connection.fetch(ORDERED)]
    assert 1300 < len(due) < 1700
    got = list[int]()
    for _ in range(5):
        some = await pgmq.ids(f"read('jobs', 3600, {qty})")
        assert len(some) == qty
        got += sorted(some)
    assert got == due[: 5 * qty]


@pytest.mark.parametrize("taken", ["read('jobs', 3600, 1)", "pop('jobs')"])
async def test_the_order_holds_behind_many_delayed_and_among_many_due(pgmq: Pgmq, taken: str):
    """Each of the ways to the first messages, up to where it is long; due last come first."""
    behind, among, both = [], [], []
    await pgmq.fill("jobs", 6000, "1 hour")
    await pgmq.connection.execute(
        "INSERT INTO pgmq.q_jobs (vt) SELECT clock_timestamp() - n * interval '1 s' "
        "FROM generate_series(1, 900) AS n"
    )
    for _ in range(3):
        behind += await pgmq.ids(taken)
    await pgmq.connection.execute(
        "TRUNCATE pgmq.q_jobs RESTART IDENTITY; INSERT INTO pgmq.q_jobs (vt) "
        "SELECT clock_timestamp() - n * interval '1 s' FROM generate_series(1, 5000) AS n"
    )
    for _ in range(3):
        among += await pgmq.ids(taken)
    await pgmq.connection.execute(
        "UPDATE pgmq.q_jobs SET vt = clock_timestamp() + interval '1 h' WHERE msg_id < 3000"
    )
    for _ in range(3):
        both += await pgmq.ids(taken)
    assert (behind, among, both) == ([6001, 6002, 6003], [1, 2, 3], [3000, 3001, 3002])


async def test_beyond_that_the_longest_due_come_first(pgmq: Pgmq):
    await pgmq.fill("jobs", 7000, "1 hour")
    await pgmq.connection.execute(
        "INSERT INTO pgmq.q_jobs (vt) SELECT clock_timestamp() - n * interval '1 s' "
        "FROM generate_series(1, 3000) AS n"
    )
    assert sorted(await pgmq.ids("read('jobs', 3600, 3)")) == [9998, 9999, 10000]
    assert await pgmq.ids("pop('jobs')") == [9997]


# Several at once


async def test_readers_skip_what_others_hold(pgmq: Pgmq, database: DatabaseConfig):
    await pgmq.fill("jobs", 10)
    other = Pgmq(await open_connection(database, "tests"))
    async with other.connection.transaction():
        assert await other.ids("read('jobs', 30, 4)") == [1, 2, 3, 4]
        assert await pgmq.ids("read('jobs', 30, 2)") == [5, 6]
        assert await pgmq.ids("pop('jobs')") == [7]
        assert await pgmq.ids("read('jobs', 30, 9)") == [8, 9, 10]
    assert await pgmq.ids("read('jobs', 30, 9)") == []
    await other.connection.close()


@pytest.mark.parametrize("call", ["read('jobs', 30, {})", "pop('jobs', {})"])
async def test_however_many_others_hold_the_next_is_found(
    pgmq: Pgmq, database: DatabaseConfig, call: str
):
    """More than are looked at first."""
    await pgmq.fill("jobs", 3000)
    other = Pgmq(await open_connection(database, "tests"))
    async with other.connection.transaction():
        assert len(await other.ids("read('jobs', 30, 2000)")) == 2000
        assert sorted(await pgmq.ids(call.format(2))) == [2001, 2002]
        assert len(await pgmq.ids(call.format(5000))) == 998
    await other.connection.close()


async def test_no_message_is_read_twice(pgmq: Pgmq, database: DatabaseConfig):
    await pgmq.fill("jobs", 600)
    others = [Pgmq(await open_connection(database, "tests")) for _ in range(6)]

    async def drain(one: Pgmq, call: str) -> list[int]:
        got = list[int]()
        while some := await one.ids(call):
            got += some
        return got

    calls = ["read('jobs', 3600, 7)", "pop('jobs', 3)", "read('jobs', 3600, 1)"]
    each = await asyncio.gather(*(drain(one, calls[n % 3]) for n, one in enumerate(others)))
    assert sorted(functools.reduce(operator.iadd, each, [])) == list(range(1, 601))
    for one in others:
        await one.connection.close()


async def test_what_is_rolled_back_was_not_read(pgmq: Pgmq):
    await pgmq.fill("jobs", 1)
    transaction = pgmq.connection.transaction()
    await transaction.start()
    assert await pgmq.ids("read('jobs', 3600, 1)") == [1]
    await transaction.rollback()
    assert [row["read_ct"] for row in await pgmq.rows("read('jobs', 30, 1)")] == [1]


async def test_a_count_at_the_end_of_its_type_spoils_no_read(pgmq: Pgmq):
    await pgmq.fill("jobs", 2)
    await pgmq.connection.execute("UPDATE pgmq.q_jobs SET read_ct = 2147483647 WHERE msg_id = 1")
    for call in (
        "read('jobs', 0, 2)",
        "read_grouped('jobs', 0, 2)",
        "read_grouped_rr('jobs', 0, 2)",
    ):
        assert len(await pgmq.rows(call)) == 2


# Group by group


async def in_groups(pgmq: Pgmq, groups: str) -> None:
    """Send one message for each letter, of the group so named; "-" is a message of none."""
    for group in groups:
        headers = None if group == "-" else json.dumps({"x-pgmq-group": group})
        await pgmq.rows("send('jobs', '{}', $1::jsonb)", headers)


@pytest.mark.parametrize(
    ("call", "wanted"),
    [
        ("read_grouped('jobs', 30, 4)", [1, 3, 6, 2]), ("read_grouped('jobs', 30, 2)", [1, 3]),
        ("read_grouped('jobs', 30, 9)", [1, 3, 6, 2, 4, 5]),
        ("read_grouped_rr('jobs', 30, 4)", [1, 2, 5, 3]),
        ("read_grouped_rr('jobs', 30, 2)", [1, 2]),
        ("read_grouped_rr('jobs', 30, 9)", [1, 2, 5, 3, 4, 6]),
        ("read_grouped_head('jobs', 30, 9)", [1, 2, 5]),
        ("read_grouped_head(queue_name => 'jobs', vt => 30, qty => 2)", [1, 2]),
        ("read_grouped_head_with_poll('jobs', 30, 9)", [1, 2, 5]),
    ],
)  # fmt: skip
async def test_groups_take_turns(pgmq: Pgmq, call: str, wanted: list[int]):
    await in_groups(pgmq, "abab-a")
    rows = await pgmq.rows(call)
    assert [row["msg_id"] for row in rows] == wanted
    assert list(rows[0].keys()) == RECORD


@pytest.mark.parametrize("name", ["read_grouped", "read_grouped_rr", "read_grouped_head"])
async def test_a_group_waits_for_its_first_message(pgmq: Pgmq, name: str):
    await in_groups(pgmq, "aabb")
    await pgmq.rows("set_vt('jobs', 1, 3600)")
    assert await pgmq.ids(f"{name}('jobs', 3600, 1)") == [3]
    assert await pgmq.ids(f"{name}('jobs', 30, 9)") == []
    await pgmq.rows("delete('jobs', 1)")
    assert await pgmq.ids(f"{name}('jobs', 30, 9)") == [2]


@pytest.mark.parametrize("name", ["read_grouped", "read_grouped_rr"])
async def test_of_a_group_nothing_is_read_beyond_what_is_delayed(pgmq: Pgmq, name: str):
    await in_groups(pgmq, "aaaa")
    await pgmq.rows("set_vt('jobs', 3, 3600)")
    assert await pgmq.ids(f"{name}('jobs', 30, 9)") == [1, 2]


@pytest.mark.parametrize("name", ["read_grouped", "read_grouped_rr", "read_grouped_head"])
async def test_a_group_is_read_by_one_at_a_time(pgmq: Pgmq, database: DatabaseConfig, name: str):
    await in_groups(pgmq, "aaab")
    other = Pgmq(await open_connection(database, "tests"))
    async with other.connection.transaction():
        assert await other.ids(f"{name}('jobs', 30, 1)") == [1]
        assert await pgmq.ids(f"{name}('jobs', 30, 9)") == [4]
    assert await pgmq.ids(f"{name}('jobs', 30, 9)") == []
    await other.connection.close()


@pytest.mark.parametrize("name", ["read_grouped", "read_grouped_rr"])
async def test_the_order_of_groups_holds_among_many_readers(
    pgmq: Pgmq, database: DatabaseConfig, name: str
):
    await in_groups(pgmq, "abcd" * 15)
    others = [Pgmq(await open_connection(database, "tests")) for _ in range(4)]
    seen = list[int]()

    async def work(one: Pgmq) -> None:
        idle = 0
        while idle < 50:
            some = await one.ids(f"{name}('jobs', 3600, 2)")
            seen.extend(some)
            await one.rows("delete('jobs', $1::bigint[])", some)
            idle = 0 if some else idle + 1
            await asyncio.sleep(0)

    await asyncio.gather(*(work(one) for one in others))
    assert sorted(seen) == list(range(1, 61))
    for group in range(4):
        of_group = [n for n in seen if n % 4 == group]
        assert of_group == sorted(of_group)
    for one in others:
        await one.connection.close()


async def test_the_index_of_groups(pgmq: Pgmq):
    await pgmq.rows("create('Other')")
    for _ in range(2):
        await pgmq.rows("create_fifo_index(queue_name => 'jobs')")
        assert await pgmq.names("create_fifo_indexes_all()") == ["create_fifo_indexes_all"]
    made = "SELECT indexname::text FROM pg_indexes WHERE indexdef LIKE '%gin (headers)' ORDER BY 1"
    assert [row[0] for row in await pgmq.connection.fetch(made)] == [
        "q_jobs_fifo_idx", "q_other_fifo_idx",
    ]  # fmt: skip


# Finishing


@pytest.mark.parametrize("name", ["delete", "archive"])
async def test_messages_are_ended(pgmq: Pgmq, name: str):
    await pgmq.fill("jobs", 6)
    assert await pgmq.rows(f"{name}('jobs', 1)") == [(True,)]
    assert await pgmq.names(f"{name}('jobs', 1)") == [name]
    assert await pgmq.value(f"{name}(queue_name => 'jobs', msg_id => 1)") is False
    assert sorted(await pgmq.column(f"{name}('jobs', ARRAY[1, 3, 2, 99]::bigint[])")) == [2, 3]
    assert await pgmq.column(f"{name}(queue_name => 'jobs', msg_ids => '{{4}}')") == [4]
    assert await pgmq.names(f"{name}('jobs', '{{5}}'::bigint[])") == [name]
    assert await pgmq.rows(f"{name}('jobs', '{{}}'::bigint[])") == []
    assert await pgmq.ids("read('jobs', 0, 9)") == [6]


@pytest.mark.parametrize("call", ["archive('jobs', 1)", "archive('jobs', '{1}'::bigint[])"])
async def test_the_archive_keeps_every_column(pgmq: Pgmq, call: str):
    await pgmq.rows("""send('jobs', '{"a":1}', headers => '{"h":1}')""")
    [row] = await pgmq.rows("read('jobs', 30, 1)")
    await pgmq.rows(call)
    [kept] = await pgmq.connection.fetch("SELECT * FROM pgmq.a_jobs")
    assert {name: kept[name] for name in RECORD} == dict(row)
    assert kept["archived_at"] is not None


async def test_extra_columns_do_not_get_in_the_way(pgmq: Pgmq):
    await pgmq.connection.execute(
        "ALTER TABLE pgmq.q_jobs ADD COLUMN priority int DEFAULT 0;"
        "ALTER TABLE pgmq.a_jobs ADD COLUMN note text"
    )
    await pgmq.fill("jobs", 9)
    for call in ("read('jobs', 0, 1)", "read_grouped('jobs', 0, 1)",
                 "read_grouped_rr('jobs', 0, 1)",
                 "read_grouped_head('jobs', 0, 1)", "set_vt('jobs', 1, 0)",
                 "pop('jobs')"):  # fmt: skip
        assert await pgmq.names(call) == RECORD
    assert await pgmq.value("archive('jobs', 9)") is True


@pytest.mark.parametrize(
    ("call", "ids"),
    [
        ("set_vt('jobs', 2, 60)", [2]),
        ("set_vt(queue_name => 'jobs', msg_id => 2, vt => 60)", [2]),
        ("set_vt('jobs', 2, clock_timestamp() + interval '60 s')", [2]),
        ("set_vt('jobs', msg_id => 2, vt => clock_timestamp() + interval '60 s')", [2]),
        ("set_vt('jobs', '{1,2,9}'::bigint[], 60)", [1, 2]),
        ("set_vt(queue_name => 'jobs', msg_ids => '{1,2}', vt => 60)", [1, 2]),
        ("set_vt('jobs', '{1,3}'::bigint[], clock_timestamp() + interval '60 s')", [1, 3]),
        ("set_vt('jobs', msg_ids => '{3}', vt => clock_timestamp() + interval '60 s')", [3]),
        ("set_vt('jobs', 9, 60)", []),
    ],
)  # fmt: skip
async def test_the_moment_of_messages_is_set(pgmq: Pgmq, call: str, ids: list[int]):
    await pgmq.fill("jobs", 3)
    rows = await pgmq.rows(call)
    assert sorted(row["msg_id"] for row in rows) == ids
    for row in rows:
        assert list(row.keys()) == RECORD
        assert row["read_ct"] == 0
        assert row["vt"] - datetime.now(UTC) == pytest.approx(
            timedelta(seconds=60), abs=timedelta(seconds=30)
        )
    left = [n for n in (1, 2, 3) if n not in ids]
    assert await pgmq.ids("read('jobs', 0, 9)") == left


async def test_an_untyped_moment_is_ambiguous(pgmq: Pgmq):
    """As it is with pgmq since it has two forms."""
    with pytest.raises(asyncpg.AmbiguousFunctionError):
        await pgmq.rows("set_vt('jobs', 1, NULL)")
