"""The schema: installed once however many try, and laid out as pgmq's clients expect it."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import anyio
import asyncpg
import pytest
from eventually import eventually_async
from postgres.rows import BESIDE_QUEUES, LOCKS, seconds

from pgtasks import Config, Registry, SchemaError, Worker, connect, migrate, task
from pgtasks.config import DatabaseConfig, WorkerConfig
from pgtasks.connection import open_connection
from pgtasks.errors import QueueNameError
from pgtasks.queue_name import is_queue_name
from pgtasks.store import Store

SHAPE = """
SELECT format('%s.%s %s %s %s %s identity=%s', n.nspname, c.relname, a.attnum, a.attname,
              format_type(a.atttypid, a.atttypmod),
              CASE WHEN a.attnotnull THEN 'not null' ELSE '' END, a.attidentity)
       || coalesce(' default ' || pg_get_expr(d.adbin, d.adrelid), '')
FROM pg_attribute a
JOIN pg_class c ON c.oid = a.attrelid AND c.relkind = 'r'
JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname IN ('pgmq', 'pgtasks')
LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
WHERE a.attnum > 0 AND NOT a.attisdropped
UNION ALL SELECT pg_get_indexdef(indexrelid) FROM pg_index
    JOIN pg_class c ON c.oid = indexrelid
    JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname IN ('pgmq', 'pgtasks')
UNION ALL SELECT conname || ' ' || pg_get_constraintdef(c.oid) FROM pg_constraint c
    JOIN pg_namespace n ON n.oid = c.connamespace AND n.nspname IN ('pgmq', 'pgtasks')
UNION ALL SELECT pg_get_functiondef(p.oid) FROM pg_proc p
    JOIN pg_namespace n ON n.oid = p.pronamespace AND n.nspname IN ('pgmq', 'pgtasks')
UNION ALL SELECT 'schema ' || nspname FROM pg_namespace WHERE nspname IN ('pgmq', 'pgtasks')
UNION ALL SELECT 'migration ' || version || ' ' || name FROM pgtasks.migration
ORDER BY 1
"""

UPGRADE = """
import asyncio, sys
from pgtasks import migrate
from pgtasks.config import DatabaseConfig
from pgtasks.connection import open_connection
async def main():
    connection = await open_connection(DatabaseConfig(url=sys.argv[1]), "t")
    print("ready", flush=True)
    sys.stdin.readline()
    applied = await migrate.upgrade(connection)
    await migrate.check(connection)
    print(len(applied), flush=True)
asyncio.run(main())
"""


@pytest.fixture
async def empty(empty_database_url: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """A connection to a database with nothing in it."""
    connection = await open_connection(DatabaseConfig(url=empty_database_url), "tests")
    yield connection
    await connection.close()


async def shape(connection: Any) -> list[str]:
    return [row[0] for row in await connection.fetch(SHAPE)]


async def schemas(connection: Any) -> set[str]:
    rows = await connection.fetch("SELECT nspname FROM pg_namespace")
    return {row[0] for row in rows} & {"pgmq", "pgtasks"}


# Installing


async def test_an_upgrade_installs_and_a_second_does_nothing(empty: Any):
    applied = await migrate.upgrade(empty)
    assert [step.version for step in applied] == [step.version for step in migrate.migrations()]
    assert await migrate.upgrade(empty) == []
    await migrate.check(empty)
    assert await Store(empty).applied_migrations() == [step.version for step in applied]


async def test_thirty_two_first_upgrades_at_once_make_one_schema(
    empty: Any, empty_database_url: str
):
    database = DatabaseConfig(url=empty_database_url, connect_timeout=seconds(60))
    others = [await open_connection(database, "tests") for _ in range(32)]
    done = await asyncio.gather(*(migrate.upgrade(other) for other in others))
    assert sorted(map(len, done)) == [0] * 31 + [len(migrate.migrations())]
    for other in others:
        await migrate.check(other)
        await other.close()
    assert await empty.fetchval(LOCKS + "locktype = 'advisory'") == 0


async def test_processes_that_upgrade_at_once_make_one_schema(empty: Any, empty_database_url: str):
    command = [sys.executable, "-c", UPGRADE, empty_database_url]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    pipes["stderr"] = subprocess.PIPE
    processes = [subprocess.Popen(command, **pipes) for _ in range(4)]  # noqa: ASYNC220
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    ended = [process.communicate(timeout=60) for process in processes]
    assert [error for _, error in ended] == [""] * 4
    assert sorted(out for out, _ in ended) == ["0\n"] * 3 + [f"{len(migrate.migrations())}\n"]
    await migrate.check(empty)


async def test_an_upgrade_that_is_killed_leaves_nothing_half_done(
    empty: Any, empty_database_url: str
):
    """It is killed while it waits inside its transaction, on a lock of ours."""
    holder = await asyncpg.connect(empty_database_url)
    await holder.execute("BEGIN; CREATE SCHEMA pgmq")  # the step's own CREATE SCHEMA waits for it
    process = await anyio.open_process([sys.executable, "-c", UPGRADE, empty_database_url])
    assert process.stdin is not None
    await process.stdin.send(b"\n")

    async def waits() -> None:
        waiting = LOCKS + "NOT granted"
        assert await empty.fetchval(waiting) == 1

    await eventually_async(waits, within_seconds=30)
    process.send_signal(signal.SIGKILL)
    await process.wait()
    await process.aclose()
    await holder.execute("ROLLBACK")
    await holder.close()
    assert await schemas(empty) == set()
    assert len(await migrate.upgrade(empty)) == len(migrate.migrations())
    await migrate.check(empty)


async def test_an_upgrade_that_is_cancelled_leaves_nothing_half_done(
    empty: Any, empty_database_url: str
):
    other = await open_connection(DatabaseConfig(url=empty_database_url), "tests")
    await empty.execute("BEGIN; CREATE SCHEMA pgmq")
    with anyio.move_on_after(0.3) as bound:
        await migrate.upgrade(other)
    assert bound.cancelled_caught
    other.terminate()
    await empty.execute("ROLLBACK")
    assert await schemas(empty) == set()
    assert len(await migrate.upgrade(empty)) == len(migrate.migrations())


async def test_the_script_makes_what_an_upgrade_makes(empty: Any, connection: Any):
    await empty.execute(migrate.script())
    await migrate.check(empty)
    for on in (empty, connection):
        await Store(on).create_queue("emails")
    assert await shape(empty) == await shape(connection)


async def test_tables_of_pgmq_that_are_there_already_are_used(empty: Any):
    await empty.execute(
        "CREATE SCHEMA pgmq; CREATE TABLE pgmq.meta (queue_name varchar UNIQUE NOT NULL, "
        "is_partitioned boolean NOT NULL, is_unlogged boolean NOT NULL, "
        "created_at timestamptz NOT NULL DEFAULT now());"
        "INSERT INTO pgmq.meta VALUES ('theirs', false, false)"
    )
    await migrate.upgrade(empty)
    assert await Store(empty).list_queues() == ["theirs"]


@pytest.mark.parametrize("isolation", ["serializable", "repeatable read"])
async def test_a_stricter_default_isolation_does_not_matter(
    empty: Any, empty_database_url: str, isolation: str
):
    name = await empty.fetchval("SELECT current_database()")
    await empty.execute(f"ALTER DATABASE {name} SET default_transaction_isolation = '{isolation}'")
    database = DatabaseConfig(url=empty_database_url)
    others = [await open_connection(database, "tests") for _ in range(4)]
    done = await asyncio.gather(*(migrate.upgrade(other) for other in others))
    assert sorted(map(len, done)) == [0, 0, 0, len(migrate.migrations())]
    for other in others:
        await other.close()


async def test_limits_of_the_role_do_not_end_an_upgrade_that_waits(
    empty: Any, empty_database_url: str
):
    """They are made for other programs; it may have to wait for another process's upgrade."""
    name = await empty.fetchval("SELECT current_database()")
    for limit in ("statement_timeout = '200ms'", "lock_timeout = '100ms'"):
        await empty.execute(f"ALTER DATABASE {name} SET {limit}")
    other = await open_connection(DatabaseConfig(url=empty_database_url), "tests")
    await empty.execute("BEGIN; CREATE SCHEMA pgmq")
    upgrading = asyncio.ensure_future(migrate.upgrade(other))
    await asyncio.sleep(0.5)
    await empty.execute("ROLLBACK")
    assert len(await upgrading) == len(migrate.migrations())
    await other.close()


# Refusing


async def test_a_missing_schema_is_refused_with_the_next_step(empty: Any, empty_database_url: str):
    with pytest.raises(SchemaError, match="has no pgtasks schema(.|\n)*pgtasks db upgrade"):
        await migrate.check(empty)
    with pytest.raises(SchemaError, match="pgtasks db upgrade"):
        async with connect(empty_database_url):
            pass


async def test_a_newer_schema_is_refused_and_left_alone(connection: Any):
    await connection.execute("INSERT INTO pgtasks.migration VALUES (9999, 'from_the_future')")
    for refuse in (migrate.check, migrate.upgrade):
        with pytest.raises(SchemaError, match="version 9999(.|\n)*Upgrade the pgtasks package"):
            await refuse(connection)
    assert 9999 in await Store(connection).applied_migrations()


@pytest.fixture
async def weak(connection: Any) -> AsyncIterator[str]:
    """A role that may do nothing yet."""
    name = "weak_" + (await connection.fetchval("SELECT current_database()"))
    await connection.execute(f"CREATE ROLE {name}")
    yield name
    await connection.execute(f"RESET ROLE; DROP OWNED BY {name}; DROP ROLE {name}")


async def test_a_role_that_may_not_create_is_told_what_to_do(empty: Any):
    name = "weak_" + (await empty.fetchval("SELECT current_database()"))
    await empty.execute(f"CREATE ROLE {name}; SET ROLE {name}")
    try:
        with pytest.raises(SchemaError, match="may not install(.|\n)*pgtasks db sql"):
            await migrate.upgrade(empty)
        assert await schemas(empty) == set()
    finally:
        await empty.execute(f"RESET ROLE; DROP ROLE {name}")


@pytest.mark.parametrize("grant", ["", "GRANT USAGE ON SCHEMA pgtasks TO {role}"])
async def test_a_role_that_may_not_read_the_schema_is_told_what_to_do(
    connection: Any, weak: str, grant: str
):
    await connection.execute(f"{grant.format(role=weak)}; SET ROLE {weak}")
    for refused in (migrate.check, migrate.upgrade):
        with pytest.raises(SchemaError, match="role"):
            await refused(connection)


async def test_a_worker_needs_no_right_to_create(
    connection: Any, database_url: str, registry: Registry
):
    """A role that can log in and use the tables, on a database where everything is there."""
    await Store(connection).create_queue("default")
    name = "worker_" + (await connection.fetchval("SELECT current_database()"))
    await connection.execute(
        f"CREATE ROLE {name} LOGIN PASSWORD 'secret';"
        f"GRANT USAGE ON SCHEMA pgmq, pgtasks TO {name};"
        f"GRANT SELECT ON pgtasks.migration, pgmq.meta TO {name};"
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON pgmq.q_default TO {name};"
        f"GRANT SELECT, INSERT ON pgmq.a_default TO {name};"
    )
    # The server of the tests trusts whoever reaches it; SET ROLE by a setting of the session.
    joint = "&" if "?" in database_url else "?"
    url = f"{database_url}{joint}role={name}"
    done = asyncio.Event()

    @task(name="work", registry=registry, on_success="archive")
    async def work() -> None:
        done.set()

    try:
        config = Config(database=DatabaseConfig(url=url), worker=WorkerConfig(grace=seconds(5)))
        async with connect(config=config), Worker(config=config, registry=registry):
            assert await current_user(config) == name
            await work.defer()
            async with asyncio.timeout(15):
                await done.wait()
            with pytest.raises(SchemaError, match="may not create it"):
                await work.options(queue="fresh").defer()
        assert await connection.fetchval("SELECT count(*) FROM pgmq.a_default") == 1
    finally:
        await connection.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


async def current_user(config: Config) -> str:
    connection = await open_connection(config.database, "tests")
    user: str = await connection.fetchval("SELECT current_user")
    await connection.close()
    return user


# The tables, as pgmq 1.13 has them

COLUMNS = """
SELECT a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
       pg_get_expr(d.adbin, d.adrelid), a.attidentity
FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = to_regclass($1) AND a.attnum > 0 ORDER BY a.attnum
"""
TIME = "timestamp with time zone"


async def columns(connection: Any, table: str) -> list[tuple[Any, ...]]:
    return [
        (name, kind, required, default)
        for name, kind, required, default, _ in await connection.fetch(COLUMNS, table)
    ]


async def test_a_queues_table_has_pgmqs_columns(store: Store):
    assert await columns(store.on, "pgmq.q_default") == [
        ("msg_id", "bigint", True, None),
        ("read_ct", "integer", True, "0"),
        ("enqueued_at", TIME, True, "now()"),
        ("last_read_at", TIME, False, None),
        ("vt", TIME, True, None),
        ("message", "jsonb", False, None),
        ("headers", "jsonb", False, None),
    ]


async def test_a_queues_ids_are_generated_as_pgmqs(store: Store):
    identity = (await store.on.fetch(COLUMNS, "pgmq.q_default"))[0]["attidentity"]
    assert identity == b"a"  # ALWAYS


async def test_an_archives_table_has_pgmqs_columns(store: Store):
    assert await columns(store.on, "pgmq.a_default") == [
        ("msg_id", "bigint", True, None),
        ("read_ct", "integer", True, "0"),
        ("enqueued_at", TIME, True, "now()"),
        ("last_read_at", TIME, False, None),
        ("archived_at", TIME, True, "now()"),
        ("vt", TIME, True, None),
        ("message", "jsonb", False, None),
        ("headers", "jsonb", False, None),
    ]


async def test_the_list_of_queues_has_exactly_pgmqs_four_columns(store: Store):
    assert await columns(store.on, "pgmq.meta") == [
        ("queue_name", "character varying", True, None),
        ("is_partitioned", "boolean", True, None),
        ("is_unlogged", "boolean", True, None),
        ("created_at", TIME, True, "now()"),
    ]
    unique = (
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint "
        "WHERE conrelid = 'pgmq.meta'::regclass AND contype IN ('u', 'p')"
    )
    assert [row[0] for row in await store.on.fetch(unique)] == ["UNIQUE (queue_name)"]


async def test_indexes_and_the_sequence_have_pgmqs_names(store: Store):
    name = "x" * 47
    await store.create_queue(name)
    indexes = (
        "SELECT indexname, indexdef FROM pg_indexes "
        "WHERE schemaname = 'pgmq' AND tablename LIKE '__' || $1"
    )
    found = {row[0]: row[1].split(" USING ")[1] for row in await store.on.fetch(indexes, name)}
    assert found == {
        f"q_{name}_pkey": "btree (msg_id)",
        f"q_{name}_vt_idx": "btree (vt)",
        f"a_{name}_pkey": "btree (msg_id)",
        f"archived_at_idx_{name}": "btree (archived_at)",
        # Those that archives are pruned by: more than pgmq has, and no hindrance to it.
        f"done_at_idx_{name}": "btree (archived_at, msg_id) "
        "WHERE ((headers #>> '{pgtasks,outcome}'::text[]) = 'done'::text)",
        f"failed_at_idx_{name}": "btree (archived_at, msg_id) "
        "WHERE ((headers #>> '{pgtasks,outcome}'::text[]) IS DISTINCT FROM 'done'::text)",
    }
    sequence = await store.on.fetchval(
        "SELECT pg_get_serial_sequence($1, 'msg_id')", f"pgmq.q_{name}"
    )
    assert sequence == f"pgmq.q_{name}_msg_id_seq"
    assert await store.on.fetchval(f"SELECT last_value FROM pgmq.q_{name}_msg_id_seq") == 1


async def test_no_table_of_ours_stands_among_pgmqs(store: Store):
    tables = await store.on.fetch("SELECT tablename::text FROM pg_tables WHERE schemaname = 'pgmq'")
    assert {row[0] for row in tables} == {*BESIDE_QUEUES, "q_default", "a_default"}


# Queues


async def test_a_queue_is_created_once(store: Store):
    assert await store.create_queue("emails")
    assert not await store.create_queue("emails")
    assert await store.list_queues() == ["default", "emails"]


async def test_a_queue_is_created_once_by_many_at_once(database: DatabaseConfig):
    others = [await open_connection(database, "tests") for _ in range(16)]
    created = await asyncio.gather(*(Store(other).create_queue("emails") for other in others))
    assert sorted(created) == [False] * 15 + [True]
    for other in others:
        await other.close()


async def test_a_table_that_is_there_already_is_adopted(store: Store):
    await store.on.fetch("DELETE FROM pgmq.meta")
    assert not await store.create_queue("default")
    assert await store.list_queues() == ["default"]


async def test_a_queues_functions_do_not_follow_the_callers_search_path(store: Store):
    await store.on.fetch(
        "CREATE FUNCTION pg_temp.format(text, text) RETURNS text LANGUAGE sql "
        "AS $$ SELECT 'pgmq.evil' $$"
    )
    await store.on.fetch("SET search_path = pg_temp, pg_catalog")
    assert await store.create_queue("fresh")


# The one rule for queue names, in Python and in SQL

NAMES = [
    "a", "emails", "q_emails", "pg_x", "x" * 47, "a0_9", "a_",
    "", "Foo", "foo", 'a"b', "'; drop", "$1", "%I", "%s", "x" * 48, "x" * 63, "x" * 64, "é" * 30,
    "é", "ſ", "ａ", "ª", "ß", "🙂", "שלום", "a\n", "\na", "a\nb", "a b", "a-b", "a.b", "_a", "0a",
    "periodic", "a;b", "a--b", "١", "a١", "a\u0301", "İ", "k\u212a",
]  # fmt: skip
ACCEPTS = "SELECT pgtasks.is_queue_name($1)"
EXISTS = "SELECT to_regclass($1) IS NOT NULL"


async def test_python_and_sql_agree_on_every_name(store: Store):
    notices: list[Any] = []
    connection: Any = store.on
    connection.add_log_listener(lambda _, notice: notices.append(notice))
    for name in NAMES:
        accepted = is_queue_name(name)
        shown = ascii(name)
        assert await store.on.fetchval(ACCEPTS, name) is accepted, shown
        if accepted:
            assert await store.create_queue(name), shown
            assert await store.on.fetchval(EXISTS, f"pgmq.q_{name}"), shown
        else:
            with pytest.raises(QueueNameError):
                await store.create_queue(name)
            with pytest.raises(asyncpg.InvalidParameterValueError, match="cannot be the name"):
                await store.on.fetchval("SELECT pgtasks.create_queue($1)", name)
    assert set(await store.list_queues()) == {"default", *filter(is_queue_name, NAMES)}
    assert notices == []  # above all none that says that a name was truncated


async def test_no_name_is_refused_by_sql_too(store: Store):
    assert await store.on.fetchval("SELECT pgtasks.is_queue_name(NULL)") is False
    with pytest.raises(asyncpg.InvalidParameterValueError):
        await store.on.fetchval("SELECT pgtasks.create_queue(NULL)")
