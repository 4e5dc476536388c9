"""Queues of pgmq's functions: made, dropped, listed, measured, whatever their names."""

import asyncio
from typing import Any

import asyncpg
import pytest
from postgres.pgmq_functions import Pgmq
from postgres.rows import BESIDE_QUEUES, LOCKS, Rows

from pgtasks.config import DatabaseConfig
from pgtasks.connection import open_connection
from pgtasks.store import Store

RAISED, UNDEFINED_TABLE, TRUNCATED = "P0001", "42P01", "42622"

DEFINITION = """
SELECT replace(format('%s %s %s %s %s', kind, name, a, b, c), $1, '…') FROM (
    SELECT 'column' AS kind, relname::text AS name, attname::text AS a,
        format_type(atttypid, atttypmod) || attnotnull || attidentity::text AS b,
        pg_get_expr(adbin, adrelid) AS c
    FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid AND attnum > 0
    LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
    WHERE relnamespace = 'pgmq'::regnamespace AND relname LIKE '__' || $1
    UNION ALL
    SELECT 'index', indexdef, '', '', '' FROM pg_indexes
    WHERE schemaname = 'pgmq' AND tablename LIKE '__' || $1
    UNION ALL
    SELECT 'rights', relname, relacl::text, relpersistence::text, '' FROM pg_class
    WHERE relnamespace = 'pgmq'::regnamespace AND relname LIKE '__' || $1 || '%'
) AS parts ORDER BY 1
"""

# Making


async def test_a_queue_is_the_same_whoever_makes_it(pgmq: Pgmq):
    role = "watch_" + (await pgmq.connection.fetchval("SELECT current_database()"))
    await pgmq.connection.execute(f"CREATE ROLE {role}")
    try:
        await pgmq.connection.execute(f"INSERT INTO pgtasks.grantee VALUES ('{role}', 'reader')")
        await Store(pgmq.connection).create_queue("ours")
        await pgmq.rows("create('them')")
        await pgmq.rows("create_non_partitioned(queue_name => 'they')")
        ours, them, they = [
            [row[0] for row in await pgmq.connection.fetch(DEFINITION, name)]
            for name in ("ours", "them", "they")
        ]
        assert ours == them == they
        assert len(ours) > 20
        assert any("failed_at_idx_" in line for line in ours)
        assert any(f"{role}=r" in line for line in ours)
    finally:
        await pgmq.connection.execute(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")


async def test_queues_are_made_once(pgmq: Pgmq):
    await pgmq.rows("send('jobs', '1')")
    for _ in range(2):
        assert await pgmq.names("create('jobs')") == ["create"]
        await pgmq.rows("create_unlogged('fast')")
    assert [tuple(row)[:3] for row in await pgmq.rows("list_queues()")] == [
        ("fast", False, True), ("jobs", False, False),
    ]  # fmt: skip
    assert await pgmq.names("list_queues()") == [
        "queue_name", "is_partitioned", "is_unlogged", "created_at",
    ]  # fmt: skip
    assert await pgmq.value("purge_queue('jobs')") == 1
    kept = (
        "SELECT relpersistence::text FROM pg_class WHERE relname ~ '^[qa]_fast$' ORDER BY relname"
    )
    assert [row[0] for row in await pgmq.connection.fetch(kept)] == ["p", "u"]


async def test_many_at_once_make_a_queue_once(pgmq: Pgmq, database: DatabaseConfig):
    """In pgmq's words and in ours; before pgmq 1.6 this raced in the catalog."""
    others = [await open_connection(database, "tests") for _ in range(12)]
    makes = ["SELECT pgmq.create('new')", "SELECT pgtasks.create_queue('new')"]
    await asyncio.gather(*(one.execute(makes[n % 2]) for n, one in enumerate(others)))
    assert [row[0] for row in await pgmq.rows("list_queues()")] == ["jobs", "new"]
    drops = [one.fetchval("SELECT pgmq.drop_queue('new')") for one in others]
    assert sorted(await asyncio.gather(*drops)) == [False] * 11 + [True]
    for one in others:
        await one.close()


async def test_the_lock_of_a_queue_is_held_to_the_end(pgmq: Pgmq, database: DatabaseConfig):
    """Under pgmq's key, which its clients take too."""
    other = await open_connection(database, "tests")
    async with other.transaction():
        await other.execute("SELECT pgmq.acquire_queue_lock(queue_name => 'jobs')")
        key = "pg_try_advisory_xact_lock(hashtext('pgmq.queue_jobs'))"
        assert not await pgmq.connection.fetchval(f"SELECT {key}")
        assert await pgmq.connection.fetchval(LOCKS + "locktype = 'advisory'") == 1
    assert await pgmq.connection.fetchval(f"SELECT {key}")
    await other.close()


async def test_there_are_no_partitioned_queues(pgmq: Pgmq):
    for call in (
        "create_partitioned('p')", "create_partitioned('p', '1000', '5000', 2)",
        "create_partitioned(queue_name => 'p', partition_interval => '1 day', premake => 1)",
        "convert_archive_partitioned('jobs')", "convert_archive_partitioned(table_name => 'jobs')",
        "_ensure_pg_partman_installed()",
    ):  # fmt: skip
        with pytest.raises(asyncpg.RaiseError, match="pg_partman is required"):
            await pgmq.rows(call)
    assert await pgmq.value("_extension_exists('pg_partman')") is False
    assert await pgmq.value("_extension_exists('plpgsql')") is True
    assert await pgmq.value("_get_pg_partman_schema()") is None
    assert await pgmq.value("_get_pg_partman_major_version()") is None
    assert await pgmq.value("_get_partition_col('1000')") == "msg_id"
    assert await pgmq.value("_get_partition_col('1 day')") == "enqueued_at"
    assert await pgmq.value("_belongs_to_pgmq('q_jobs')") is False


# Dropping and emptying


async def test_a_queue_is_dropped_with_all_that_is_its(pgmq: Pgmq):
    await pgmq.rows("enable_notify_insert('jobs')")
    await pgmq.rows("bind_topic('a.*', 'jobs')")
    assert await pgmq.rows("drop_queue('jobs')") == [(True,)]
    assert await pgmq.names("drop_queue(queue_name => 'jobs')") == ["drop_queue"]
    assert await pgmq.value("drop_queue('jobs')") is False
    for rest in ("list_queues()", "list_notify_insert_throttles()", "list_topic_bindings()"):
        assert await pgmq.rows(rest) == []
    left = "SELECT count(*) FROM pg_class WHERE relname LIKE '%jobs%'"
    assert await pgmq.connection.fetchval(left) == 0


async def test_the_old_way_to_drop_warns(pgmq: Pgmq):
    heard = list[Any]()
    pgmq.connection.add_log_listener(lambda _, message: heard.append(message.severity))
    assert await pgmq.value("drop_queue('jobs', partitioned => false)") is True
    assert await pgmq.value("drop_queue('jobs', true)") is True
    await pgmq.rows("detach_archive(queue_name => 'jobs')")
    assert heard.count("WARNING") == 3


async def test_a_purge_counts_and_leaves_the_archive(pgmq: Pgmq):
    await pgmq.fill("jobs", 3)
    await pgmq.rows("archive('jobs', 1)")
    assert await pgmq.rows("purge_queue(queue_name => 'jobs')") == [(2,)]
    assert await pgmq.names("purge_queue('jobs')") == ["purge_queue"]
    assert await pgmq.value("send('jobs', '1')") == 4
    assert await pgmq.connection.fetchval("SELECT count(*) FROM pgmq.a_jobs") == 1


# Measuring


async def test_the_metrics_of_a_queue(pgmq: Pgmq):
    names = [
        "queue_name", "queue_length", "newest_msg_age_sec", "oldest_msg_age_sec",
        "total_messages", "scrape_time", "queue_visible_length", "default_partition_length",
    ]  # fmt: skip
    assert await pgmq.names("metrics(queue_name => 'jobs')") == names
    [empty] = await pgmq.rows("metrics('jobs')")
    assert list(empty)[:5] == ["jobs", 0, None, None, 0]
    assert list(empty)[6:] == [0, None]
    await pgmq.fill("jobs", 2)
    await pgmq.fill("jobs", 1, "1 hour")
    await pgmq.rows("delete('jobs', 1)")
    await pgmq.connection.execute(
        "UPDATE pgmq.q_jobs SET enqueued_at = now() - interval '100 s' WHERE msg_id = 2"
    )
    [row] = await pgmq.rows("metrics('jobs')")
    assert (row["queue_length"], row["total_messages"], row["queue_visible_length"]) == (2, 3, 1)
    assert row["oldest_msg_age_sec"] == pytest.approx(100, abs=30)
    assert row["newest_msg_age_sec"] == pytest.approx(0, abs=30)
    await pgmq.rows("create('Other')")
    assert set(await pgmq.column("metrics_all()")) == {"jobs", "Other"}
    assert await pgmq.names("metrics_all()") == names


# Names

ODD = ['a"b', "%I", "a b", "a.b", "UPPER", "0lead", "a-b", "éé", "x" * 47, "é" * 47, "🙂",
       "%s",
       "q", "pg_x", "{q}", "a\\b", "a/*b"]  # fmt: skip
REFUSED = ["a$b", "$1", "a;b", "a--b", "a'b", "'; DROP TABLE pgmq.meta; --"]
LONG = ["x" * 48, "é" * 48]


async def every_call(pgmq: Pgmq, name: str) -> None:
    [sent] = await pgmq.column("send($1, '{}')", name)
    await pgmq.rows("send_batch($1, '{1,2}'::jsonb[])", name)
    assert await pgmq.ids("read($1, 60, 1)", name) == [sent]
    assert await pgmq.value("archive($1, $2::bigint)", name, sent)
    assert len(await pgmq.ids("pop($1)", name)) == 1
    assert len(await pgmq.ids("read_grouped($1, 0, 1)", name)) == 1
    await pgmq.rows("create_fifo_index($1)", name)
    await pgmq.rows("create_fifo_index($1)", name)
    [row] = await pgmq.rows("metrics($1)", name)
    assert (row["queue_name"], row["queue_length"], row["total_messages"]) == (name, 1, 3)
    assert await pgmq.value("purge_queue($1)", name) == 1


@pytest.mark.parametrize("name", ODD, ids=ascii)
async def test_an_odd_name_is_quoted_everywhere(pgmq: Pgmq, name: str):
    await pgmq.rows("create($1)", name)
    await every_call(pgmq, name)
    tables = await pgmq.connection.fetch(
        "SELECT FROM pg_class WHERE relkind = 'r' AND relname IN ($1::text::name, $2::text::name)",
        f"q_{name.lower()}",
        f"a_{name.lower()}",
    )
    assert len(tables) == 2
    vt = "SELECT count(*) FROM pg_index WHERE indrelid = $1::text::regclass AND indkey[0] = 5"
    queue = await pgmq.value("format_table_name($1, 'q')", name)
    quoted = await pgmq.connection.fetchval("SELECT format('pgmq.%I', $1::text)", queue)
    assert await pgmq.connection.fetchval(vt, quoted) == 1
    assert await pgmq.value("drop_queue($1)", name) is True


CALLS = [
    "create($1)", "create_unlogged($1)", "drop_queue($1)", "purge_queue($1)", "metrics($1)",
    "send($1, '{}')", "send($1, '{}'::jsonb, 1)", "send($1, '{}', now())",
    "send($1, '{}', '{}', 1)", "send_batch($1, '{1}'::jsonb[])", "read($1, 1, 1)",
    "read_with_poll($1, 1, 1, 0)", "pop($1)", "read_grouped($1, 1, 1)",
    "read_grouped_rr($1, 1, 1)", "read_grouped_head($1, 1, 1)", "create_fifo_index($1)",
    "delete($1, 1)", "delete($1, '{1}'::bigint[])", "archive($1, 1)",
    "archive($1, '{1}'::bigint[])", "set_vt($1, 1, 1)", "set_vt($1, '{1}'::bigint[], now())",
    "enable_notify_insert($1)", "disable_notify_insert($1)", "format_table_name($1, 'q')",
    "validate_queue_name($1)",
]  # fmt: skip


async def test_a_name_that_pgmq_refuses_is_refused_by_every_function(pgmq: Pgmq):
    for name in REFUSED:
        for call in CALLS:
            assert await pgmq.refused(call, name) == RAISED, (call, name)
    for name in LONG:
        for call in ("create($1)", "create_unlogged($1)", "validate_queue_name($1)"):
            assert await pgmq.refused(call, name) == RAISED, (call, name)
    tables = "SELECT tablename::text FROM pg_tables WHERE schemaname = 'pgmq'"
    assert {row[0] for row in await pgmq.connection.fetch(tables)} == {
        "q_jobs", "a_jobs", *BESIDE_QUEUES,
    }  # fmt: skip


async def test_a_queue_that_is_not_there_is_an_undefined_table(pgmq: Pgmq):
    spare = {"create", "create_unlogged", "drop_queue", "format_table_name", "validate_queue_name",
             "enable_notify_insert", "disable_notify_insert"}  # fmt: skip
    for call in CALLS:
        if call.split("(")[0] not in spare:
            assert await pgmq.refused(call, "gone") == UNDEFINED_TABLE, call
    assert await pgmq.refused("enable_notify_insert('gone')") == RAISED


async def test_no_name_is_no_queue(pgmq: Pgmq):
    for call in CALLS:
        if not call.startswith(("format_table_name", "metrics", "drop_queue")):
            with pytest.raises(asyncpg.PostgresError):
                await pgmq.rows(call, None)


async def test_names_in_other_letters_are_one_queue(pgmq: Pgmq):
    """As with pgmq there is a row for each; dropped is the queue, and no row is left over."""
    await pgmq.rows("create('Jobs')")
    await pgmq.rows("send('JOBS', '{}')")
    assert await pgmq.ids("read('jobs', 0, 5)") == [1]
    assert [row[0] for row in await pgmq.rows("list_queues()")] in (
        ["jobs", "Jobs"],
        ["Jobs", "jobs"],
    )
    assert await pgmq.value("drop_queue('Jobs')") is True
    assert await pgmq.rows("list_queues()") == []


async def test_what_others_name_the_same_is_not_used(pgmq: Pgmq, rows: Rows):
    """Temporary tables and functions of the caller stand before nothing of ours."""
    await pgmq.connection.execute(
        "CREATE TEMP TABLE q_jobs (n int); CREATE TEMP TABLE meta (n int);"
        "CREATE FUNCTION pg_temp.format(text, text) RETURNS text LANGUAGE sql AS $$ SELECT '' $$;"
        "SET search_path = pg_temp, pg_catalog"
    )
    await every_call(pgmq, "jobs")
    await pgmq.rows("create('fresh')")
    assert len(await pgmq.rows("list_queues()")) == 3
