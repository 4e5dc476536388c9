"""Whose pgmq it is: ours where nobody's code is in the schema; else nothing is made in it."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from postgres.pgmq_functions import Pgmq
from postgres.rows import BESIDE_QUEUES, seconds

from pgtasks import exit_codes, migrate
from pgtasks.cli import main
from pgtasks.config import DatabaseConfig
from pgtasks.connection import open_connection
from pgtasks.errors import SchemaError
from pgtasks.store import BEGINNING, Store

META = (
    "CREATE SCHEMA pgmq; CREATE TABLE pgmq.meta (queue_name varchar UNIQUE NOT NULL, "
    "is_partitioned boolean NOT NULL, is_unlogged boolean NOT NULL, "
    "created_at timestamptz NOT NULL DEFAULT now());"
)
TABLES = """
CREATE TABLE pgmq.q_old (msg_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    read_ct int NOT NULL DEFAULT 0, enqueued_at timestamptz NOT NULL DEFAULT now(),
    vt timestamptz NOT NULL, message jsonb);
CREATE TABLE pgmq.a_old (msg_id bigint PRIMARY KEY, read_ct int NOT NULL DEFAULT 0,
    enqueued_at timestamptz NOT NULL DEFAULT now(), archived_at timestamptz NOT NULL DEFAULT now(),
    vt timestamptz NOT NULL, message jsonb, headers jsonb);
INSERT INTO pgmq.meta VALUES ('old', false, false);
"""
CODE = (
    "CREATE FUNCTION pgmq.create(queue_name text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN "
    "EXECUTE format('CREATE TABLE pgmq.%I (msg_id bigint GENERATED ALWAYS AS IDENTITY "
    "PRIMARY KEY, vt timestamptz, message jsonb, headers jsonb)', 'q_' || queue_name);"
    "EXECUTE format('CREATE TABLE pgmq.%I (LIKE pgmq.%I)', 'a_' || queue_name, 'q_' || queue_name);"
    "INSERT INTO pgmq.meta VALUES (queue_name, false, false); END $$;"
)
RUST = "CREATE TABLE pgmq.__pgmq_migrations (name text PRIMARY KEY, version text);"
TYPES = "CREATE TYPE pgmq.message_record AS (msg_id bigint, headers jsonb);"

OBJECTS = """
SELECT 'r' || oid FROM pg_class WHERE relnamespace = 'pgmq'::regnamespace
UNION ALL SELECT 'f' || oid FROM pg_proc WHERE pronamespace = 'pgmq'::regnamespace
UNION ALL SELECT 'c' || obj_description('pgmq'::regnamespace, 'pg_namespace')
ORDER BY 1
"""


@pytest.fixture
async def empty(empty_database_url: str) -> AsyncIterator[Any]:
    """A connection to a database with nothing in it."""
    connection = await open_connection(DatabaseConfig(url=empty_database_url), "tests")
    yield connection
    await connection.close()


async def owns(connection: Any) -> Any:
    return await connection.fetchval("SELECT pgtasks.owns_pgmq()")


async def objects(connection: Any) -> list[str]:
    return [row[0] for row in await connection.fetch(OBJECTS)]


@pytest.mark.parametrize(
    "there", ["SELECT 1", META, META + "COMMENT ON SCHEMA pgmq IS 'queues of ours'"]
)
async def test_a_schema_without_code_becomes_ours(empty: Any, there: str):
    await empty.execute(there)
    await migrate.upgrade(empty)
    assert await owns(empty)


@pytest.mark.parametrize(
    "there",
    [
        META + TYPES + CODE, META + RUST, META + TYPES, META + TABLES,
        META + TABLES + TYPES + CODE,
    ],
    ids=["functions", "the Rust crate", "types", "old tables", "an old install"],
)  # fmt: skip
async def test_a_foreign_pgmq_is_left_as_it_is(empty: Any, there: str):
    await empty.execute(there)
    before = await objects(empty)
    await migrate.upgrade(empty)
    assert not await owns(empty)
    assert await objects(empty) == before


async def test_a_guest_needs_no_right_to_create_in_pgmq(empty: Any):
    name = "guest_" + (await empty.fetchval("SELECT current_database()"))
    await empty.execute(META + TABLES + TYPES + CODE)
    await empty.execute(
        f"CREATE ROLE {name}; GRANT USAGE ON SCHEMA pgmq TO {name};"
        f"GRANT SELECT ON ALL TABLES IN SCHEMA pgmq TO {name};"
        f"GRANT CREATE ON DATABASE {await empty.fetchval('SELECT current_database()')} TO {name};"
        f"SET ROLE {name}"
    )
    try:
        await migrate.upgrade(empty)
        assert not await owns(empty)
    finally:
        await empty.execute(f"RESET ROLE; DROP OWNED BY {name} CASCADE; DROP ROLE {name}")


async def test_a_guest_has_queues_made_by_their_pgmq(empty: Any):
    await empty.execute(META + TYPES + CODE)
    await migrate.upgrade(empty)
    assert await Store(empty).create_queue("fresh")
    assert not await Store(empty).create_queue("fresh")
    assert not await empty.fetchval(
        "SELECT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'pgmq.q_fresh'::regclass "
        "AND attname = 'read_ct')"
    )
    assert await Store(empty).list_queues() == ["fresh"]


async def test_ours_stays_ours_when_the_other_schema_is_made_anew(connection: Any):
    before = await objects(connection)
    await connection.execute("DROP SCHEMA pgtasks CASCADE")
    await migrate.upgrade(connection)
    assert await owns(connection)
    assert await objects(connection) == before


@pytest.mark.parametrize(
    "remade",
    [
        "DROP SCHEMA pgmq CASCADE; " + META + TYPES + CODE,
        "DROP TYPE pgmq.message_record CASCADE; " + TYPES,
    ],
)
async def test_what_others_put_in_its_place_is_not_ours(connection: Any, remade: str):
    assert await owns(connection)
    await connection.execute(remade)
    assert not await owns(connection)


def test_the_first_steps_are_sent_around_what_is_not_ours():
    """Each of the texts is in its step, once: else nothing would be replaced."""
    for version, texts in migrate._FOR_GUESTS_TOO.items():
        [step] = [step for step in migrate.migrations() if step.version == version]
        for written, meant in texts:
            assert step.text.count(meant) == 1
            assert step.text.replace(meant, "").count(written) == 0


# Moving out


async def test_what_is_detached_leaves_the_tables(pgmq: Pgmq):
    await pgmq.rows("enable_notify_insert('jobs')")
    await pgmq.rows("bind_topic('#', 'jobs')")
    await pgmq.rows("send('jobs', '{}')")
    await migrate.detach_pgmq(pgmq.connection)
    code = await pgmq.connection.fetch(
        "SELECT proname FROM pg_proc WHERE pronamespace = 'pgmq'::regnamespace UNION ALL "
        "SELECT relname FROM pg_class WHERE relnamespace = 'pgmq'::regnamespace AND relkind = 'c'"
    )
    assert code == []
    tables = "SELECT tablename::text FROM pg_tables WHERE schemaname = 'pgmq'"
    assert {row[0] for row in await pgmq.connection.fetch(tables)} == {
        "q_jobs", "a_jobs", *BESIDE_QUEUES,
    } - {"__pgmq_migrations"}  # fmt: skip
    store = Store(pgmq.connection)
    await store.send("jobs", "{}", None, seconds(0), None, notify=False)
    assert len(await store.claim("jobs", 9, seconds(30), BEGINNING)) == 2
    assert await store.create_queue("fresh")
    comment = "SELECT obj_description('pgmq'::regnamespace, 'pg_namespace')"
    assert await pgmq.connection.fetchval(comment) is None


async def test_what_is_detached_does_not_come_back(pgmq: Pgmq):
    await migrate.detach_pgmq(pgmq.connection)
    assert not await owns(pgmq.connection)
    assert await migrate.upgrade(pgmq.connection) == []
    await pgmq.connection.execute("DELETE FROM pgtasks.migration WHERE version > 7")
    assert len(await migrate.upgrade(pgmq.connection)) >= 4
    there = "SELECT to_regproc('pgmq.read') IS NULL AND NOT pgtasks.owns_pgmq()"
    assert await pgmq.connection.fetchval(there)
    with pytest.raises(SchemaError, match="nothing was detached.*not those of pgtasks"):
        await migrate.detach_pgmq(pgmq.connection)


async def test_another_pgmq_moves_in(pgmq: Pgmq):
    """Its tables are made if they are not there, its types and functions in any case."""
    await migrate.detach_pgmq(pgmq.connection)
    await pgmq.connection.execute(
        "CREATE TABLE IF NOT EXISTS pgmq.meta ();"
        "CREATE TABLE IF NOT EXISTS pgmq.topic_bindings ();" + TYPES + CODE
    )  # fmt: skip
    assert not await owns(pgmq.connection)
    assert await Store(pgmq.connection).create_queue("theirs")


async def test_what_somebody_has_built_on_it_keeps_it_there(pgmq: Pgmq):
    await pgmq.connection.execute("CREATE VIEW public.lengths AS SELECT * FROM pgmq.metrics_all()")
    with pytest.raises(SchemaError, match="nothing was detached(.|\n)*view public.lengths"):
        await migrate.detach_pgmq(pgmq.connection)
    assert len(await pgmq.rows("metrics_all()")) == 1
    assert await owns(pgmq.connection)
    await pgmq.connection.execute("DROP VIEW public.lengths")


async def test_a_foreign_pgmq_is_not_detached(empty: Any):
    await empty.execute(META + TYPES + CODE)
    await migrate.upgrade(empty)
    with pytest.raises(SchemaError, match="not those of pgtasks"):
        await migrate.detach_pgmq(empty)
    assert await empty.fetchval("SELECT to_regproc('pgmq.create') IS NOT NULL")


async def code_of(connection: Any) -> list[Any]:
    """All there is of code in pgmq, with its texts, and what marks it as ours."""
    rows: list[Any] = await connection.fetch(
        """
        SELECT proname::text AS made, pg_get_functiondef(oid) AS text
        FROM pg_proc WHERE pronamespace = 'pgmq'::regnamespace
        UNION ALL
        SELECT typname, obj_description(oid, 'pg_type')
        FROM pg_type WHERE typnamespace = 'pgmq'::regnamespace AND typtype = 'c'
        UNION ALL SELECT relname, NULL FROM pg_class WHERE relnamespace = 'pgmq'::regnamespace
        UNION ALL SELECT 'schema', obj_description('pgmq'::regnamespace, 'pg_namespace')
        ORDER BY 1, 2
        """
    )
    return rows


async def test_what_was_detached_can_be_attached_again(pgmq: Pgmq):
    before = await code_of(pgmq.connection)
    await pgmq.rows("bind_topic('#', 'jobs')")
    await pgmq.rows("send('jobs', '{}')")
    await migrate.attach_pgmq(pgmq.connection)  # nothing to do
    await migrate.detach_pgmq(pgmq.connection)
    assert await code_of(pgmq.connection) != before
    assert await Store(pgmq.connection).create_queue("meanwhile")
    await migrate.attach_pgmq(pgmq.connection)
    after = await code_of(pgmq.connection)
    assert [row for row in after if "meanwhile" not in row["made"]] == before
    assert len(await pgmq.rows("read('jobs', 30, 9)")) == 1
    assert await pgmq.rows("send_topic('any', '{}')")
    assert await pgmq.rows("send('meanwhile', '{}')")


@pytest.mark.parametrize(
    ("there", "why"),
    [
        (TYPES + CODE, "this database has a pgmq that was installed by its SQL"),
        (RUST, "table __pgmq_migrations"),
        ("ALTER TABLE pgmq.q_jobs DROP last_read_at", "queues without the columns"),
    ],
    ids=["functions", "client", "old queue"],
)
async def test_nothing_is_attached_where_another_pgmq_is(pgmq: Pgmq, there: str, why: str):
    await migrate.detach_pgmq(pgmq.connection)
    await pgmq.connection.execute(there)
    before = await code_of(pgmq.connection)
    with pytest.raises(SchemaError, match=f"nothing was attached(.|\n)*{why}"):
        await migrate.attach_pgmq(pgmq.connection)
    assert await code_of(pgmq.connection) == before


async def test_who_may_not_is_told_who_may(pgmq: Pgmq):
    await pgmq.connection.execute(
        "GRANT USAGE ON SCHEMA pgtasks, pgmq TO pg_monitor;"
        "GRANT SELECT ON pgtasks.migration, pgmq.meta TO pg_monitor; SET ROLE pg_monitor"
    )
    with pytest.raises(SchemaError, match="nothing was detached: permission denied(.|\n)*owner"):
        await migrate.detach_pgmq(pgmq.connection)
    await pgmq.connection.execute("RESET ROLE")
    await migrate.detach_pgmq(pgmq.connection)
    await pgmq.connection.execute("SET ROLE pg_monitor")
    with pytest.raises(SchemaError, match="nothing was attached: permission denied(.|\n)*owner"):
        await migrate.attach_pgmq(pgmq.connection)
    await pgmq.connection.execute("RESET ROLE")


def test_the_command(
    database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("PGTASKS_DATABASE_URL", database_url)
    assert main(["db", "detach-pgmq"]) == exit_codes.OK
    assert "tables only" in capsys.readouterr().out
    assert main(["db", "detach-pgmq"]) == exit_codes.FAILED
    assert "not those of pgtasks" in capsys.readouterr().err
    assert main(["db", "upgrade"]) == exit_codes.OK
    assert "pgmq: detached" in capsys.readouterr().out
    assert main(["db", "attach-pgmq"]) == exit_codes.OK
    assert capsys.readouterr().out == "pgmq: our own\n"
