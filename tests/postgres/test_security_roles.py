"""Roles with least rights: what each of them may do, and that it may do nothing else."""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
import attrs
import pytest
from eventually import eventually_async
from postgres.rows import Rows, seconds
from postgres.working import working

from pgtasks import (
    Config,
    Context,
    NamedTask,
    Registry,
    RetryLater,
    Schedule,
    connect,
    exit_codes,
    migrate,
    roles,
    task,
)
from pgtasks.cli import main
from pgtasks.config import (
    DatabaseConfig,
    InstallConfig,
    QueueFetchConfig,
    RetentionConfig,
    TaskConfig,
    WorkerConfig,
)
from pgtasks.errors import ConfigError, SchemaError
from pgtasks.store import Store

BODY = '{"metadata":{"id":1,"worker_name":"secret-work"},"args":{"card":"4111"}}'


@attrs.frozen
class Cast:
    """The four roles of this test, on its database, with a queue `default` in it."""

    prefix: str
    url: str

    def of(self, role: str) -> str:
        """The address for one of them."""
        parts = urlsplit(self.url)
        place = parts.netloc.rpartition("@")[2]
        return urlunsplit(parts._replace(netloc=f"{self.prefix}_{role}@{place}"))

    def config(self, role: str, **worker: Any) -> Config:
        """Settings to work as one of them, that install nothing."""
        return Config(
            database=DatabaseConfig(url=self.of(role)),
            worker=WorkerConfig(
                install=InstallConfig(enable=False),
                grace=seconds(5),
                queue_fetch=QueueFetchConfig(empty_delay=seconds(1)),
                **worker,
            ),
            task=TaskConfig(delay=seconds(0), jitter=seconds(0), retries=2),
        )

    async def run(self, role: str, statement: str, *args: Any) -> list[asyncpg.Record]:
        """Run one statement as one of them."""
        connection = await asyncpg.connect(self.of(role), timeout=10)
        try:
            return await connection.fetch(statement, *args)
        finally:
            await connection.close()


async def drop(connection: Any, prefix: str) -> None:
    await connection.execute("ROLLBACK")
    named = [f"{prefix}_{role}" for role in (*roles.ROLES, "stranger")]
    for name in named:
        if await connection.fetchval("SELECT to_regrole($1::text) IS NOT NULL", name):
            await connection.execute(f"DROP OWNED BY {name} CASCADE; DROP ROLE {name}")


async def set_up(connection: Any, prefix: str) -> None:
    await Store(connection).create_queue("default")
    await connection.execute(
        f"INSERT INTO pgmq.q_default (vt, message) VALUES (now(), '{BODY}');"
        "INSERT INTO pgmq.a_default (msg_id, vt, message) SELECT msg_id + 1000, vt, message "
        "FROM pgmq.q_default;"
        "SELECT pgmq.bind_topic('to.default', 'default')"
    )
    await connection.execute(roles.script(prefix))
    for role in roles.ROLES:
        await connection.execute(f"ALTER ROLE {prefix}_{role} LOGIN")
    await connection.execute(f"CREATE ROLE {prefix}_stranger LOGIN")


async def as_superuser(url: str, do: Callable[[Any, str], Awaitable[None]], prefix: str) -> None:
    connection = await asyncpg.connect(url, timeout=10)
    try:
        await do(connection, prefix)
    finally:
        await connection.close()


@pytest.fixture
def cast(database_url: str) -> Iterator[Cast]:
    prefix = f"t{uuid4().hex[:12]}"
    try:
        asyncio.run(as_superuser(database_url, set_up, prefix))
        yield Cast(prefix, database_url)
    finally:
        asyncio.run(as_superuser(database_url, drop, prefix))


@pytest.fixture
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    for name in os.environ:
        if name.startswith("PGTASKS") or name == "DATABASE_URL":
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


# What is forbidden

TABLES = """
CREATE TABLE pgmq.mine (n int)
CREATE TABLE pgtasks.mine (n int)
CREATE FUNCTION pgtasks.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'
CREATE SCHEMA mine
DROP TABLE pgmq.q_default
DROP SCHEMA pgtasks CASCADE
ALTER TABLE pgmq.q_default ADD COLUMN mine int
ALTER FUNCTION pgtasks.clamped(timestamptz) COST 1
CREATE INDEX mine ON pgmq.q_default (vt)
CREATE TRIGGER mine AFTER INSERT ON pgmq.q_default EXECUTE FUNCTION tsvector_update_trigger()
CREATE RULE mine AS ON INSERT TO pgmq.q_default DO INSTEAD NOTHING
CREATE POLICY mine ON pgmq.q_default
COMMENT ON SCHEMA pgtasks IS 'mine'
TRUNCATE pgmq.q_default
TRUNCATE pgmq.a_default
LOCK TABLE pgmq.meta IN ACCESS EXCLUSIVE MODE
INSERT INTO pgmq.meta (queue_name, is_partitioned, is_unlogged) VALUES ('mine', false, false)
DELETE FROM pgmq.meta
INSERT INTO pgtasks.migration (version, name) VALUES (99, 'mine')
DELETE FROM pgtasks.migration
INSERT INTO pgtasks.grantee (role, rights) VALUES (current_user, 'worker')
DELETE FROM pgtasks.grantee
SELECT pgtasks.create_queue('mine')
SELECT pgtasks.index_archive('default')
SELECT pgmq.create('mine')
SELECT pgmq.create_unlogged('mine')
SELECT pgmq.drop_queue('default')
SELECT pgmq.purge_queue('default')
SELECT pgmq.create_fifo_index('default')
SELECT pgmq.bind_topic('#', 'default')
SELECT pgmq.unbind_topic('#', 'default')
SELECT pgmq.enable_notify_insert('default')
SELECT pgmq.update_notify_insert('default', 1)
SELECT pgmq.disable_notify_insert('default')
UPDATE pgmq.notify_insert_throttle SET throttle_interval_ms = 1
DELETE FROM pgmq.__pgmq_migrations
CREATE FUNCTION pgmq.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'
DROP FUNCTION pgmq.send(text, jsonb)
COMMENT ON TYPE pgmq.message_record IS 'mine'
""".strip().splitlines()
"""What nobody may who is not the admin."""

ROWS = """
UPDATE pgmq.q_default SET vt = now()
UPDATE pgmq.q_default SET message = NULL
DELETE FROM pgmq.q_default
SELECT msg_id FROM pgmq.q_default FOR UPDATE
INSERT INTO pgmq.a_default (msg_id, vt) VALUES (5, now())
UPDATE pgmq.a_default SET vt = now()
DELETE FROM pgmq.a_default
INSERT INTO pgtasks.schedule (name) VALUES ('mine')
UPDATE pgtasks.schedule SET is_paused = true
DELETE FROM pgtasks.schedule
DELETE FROM pgtasks.fire
INSERT INTO pgtasks.turn VALUES ('mine', now())
SELECT nextval('pgmq.q_default_msg_id_seq')
SELECT setval('pgmq.q_default_msg_id_seq', 1)
SELECT pgmq.read('default', 1, 1)
SELECT pgmq.read_with_poll('default', 1, 1)
SELECT pgmq.read_grouped('default', 1, 1)
SELECT pgmq.read_grouped_rr('default', 1, 1)
SELECT pgmq.read_grouped_head('default', 1, 1)
SELECT pgmq.pop('default')
SELECT pgmq.set_vt('default', 1, 1)
SELECT pgmq.delete('default', 1)
SELECT pgmq.delete('default', '{1}'::bigint[])
SELECT pgmq.archive('default', 1)
SELECT pgmq.archive('default', '{1}'::bigint[])
""".strip().splitlines()
"""What nobody may who is neither a worker nor the admin."""

READING = """
SELECT message FROM pgmq.q_default
SELECT headers FROM pgmq.q_default
SELECT * FROM pgmq.q_default
SELECT count(*) FROM pgmq.a_default
SELECT message FROM pgmq.a_default
SELECT name FROM pgtasks.schedule
SELECT * FROM pgtasks.fire
SELECT * FROM pgtasks.turn
TABLE pgmq.q_default
COPY pgmq.q_default TO STDOUT
INSERT INTO pgmq.q_default (vt) VALUES (now()) RETURNING message
INSERT INTO pgmq.q_default (vt, read_ct) VALUES (now(), 5)
INSERT INTO pgmq.q_default (vt, enqueued_at) VALUES (now(), now())
INSERT INTO pgmq.q_default (msg_id, vt) OVERRIDING SYSTEM VALUE VALUES (5, now())
INSERT INTO pgmq.q_default (vt) VALUES (now()) ON CONFLICT (msg_id) DO UPDATE SET vt = now()
SELECT pgmq.metrics('default')
SELECT pgmq.metrics_all()
""".strip().splitlines()
"""What a producer may not although it may add messages."""

SENDING = ["INSERT INTO pgmq.q_default (vt) VALUES (now())", "SELECT pgmq.send('default', '1')",
           "SELECT pgmq.send_batch('default', '{1}'::jsonb[])",
           "SELECT pgmq.send_topic('to.default', '1')"]  # fmt: skip
PLACES = ["SELECT * FROM pgmq.meta", "SELECT * FROM pgtasks.migration",
          "SELECT * FROM pgtasks.grantee", "SELECT pgmq.list_queues()",
          "SELECT pgmq.list_topic_bindings()", "SELECT pgmq.test_routing('a')",
          "SELECT pgmq.list_notify_insert_throttles()"]  # fmt: skip
SEQUENCE = ["SELECT currval('pgmq.q_default_msg_id_seq')"]

FORBIDDEN = {
    "worker": [*TABLES, "SELECT setval('pgmq.q_default_msg_id_seq', 1)"],
    "reader": [*TABLES, *ROWS, *SENDING],
    "producer": [*TABLES, *ROWS, *READING, *SEQUENCE],
    "stranger": [*TABLES, *ROWS, *READING, *SENDING, *PLACES, *SEQUENCE],
}


@pytest.mark.parametrize("role", FORBIDDEN)
async def test_what_a_role_has_no_need_of_is_refused(cast: Cast, role: str):
    connection = await asyncpg.connect(cast.of(role), timeout=10)
    allowed = []
    try:
        for statement in FORBIDDEN[role]:
            transaction = connection.transaction()
            await transaction.start()
            try:
                await connection.execute(statement)
            except asyncpg.InsufficientPrivilegeError:
                pass
            else:
                allowed.append(statement)
            finally:
                await transaction.rollback()
    finally:
        await connection.close()
    assert allowed == []


async def test_no_role_but_the_admin_passes_its_rights_on(cast: Cast, connection: Any):
    """What is refused here is mostly a warning only, so that the outcome is looked at."""
    for role in ("worker", "reader", "producer"):
        with suppress(asyncpg.InsufficientPrivilegeError):
            await cast.run(role, "GRANT ALL ON pgmq.q_default TO PUBLIC")
        await cast.run(role, "GRANT INSERT (vt), SELECT (msg_id) ON pgmq.q_default TO PUBLIC")
    assert (
        await connection.fetch(
            "SELECT FROM pg_attribute, aclexplode(attacl) WHERE grantee = 0 AND attrelid IN "
            "(SELECT oid FROM pg_class WHERE relnamespace = 'pgmq'::regnamespace) UNION ALL "
            "SELECT FROM pg_class, aclexplode(relacl) "
            "WHERE grantee = 0 AND relnamespace = 'pgmq'::regnamespace"
        )
        == []
    )


async def test_everybody_else_has_no_rights_at_all(connection: Any, rows: Rows):
    """PUBLIC may only see the names of roles, and not even that without the schema's USAGE."""
    schemas = await connection.fetch(
        "SELECT nspname::text FROM pg_namespace WHERE nspname IN ('pgtasks', 'pgmq') "
        "AND (has_schema_privilege('public', oid, 'USAGE') "
        "OR has_schema_privilege('public', oid, 'CREATE'))"
    )
    tables = await connection.fetch(
        "SELECT oid::regclass::text FROM pg_class WHERE relnamespace IN "
        "('pgtasks'::regnamespace, 'pgmq'::regnamespace) AND relkind IN ('r', 'S') AND EXISTS "
        "(SELECT FROM aclexplode(relacl) WHERE grantee = 0)"
    )
    assert (schemas, [row[0] for row in tables]) == ([], ["pgtasks.grantee"])


async def test_every_table_of_ours_is_thought_of(cast: Cast, connection: Any):
    """One that a migration adds has to be in sql/roles.sql: else no worker could use it."""
    tables = await connection.fetch(
        "SELECT relname::text AS name, "
        "has_table_privilege($1, oid, 'SELECT') AND has_table_privilege($2, oid, 'SELECT') AS seen "
        "FROM pg_class WHERE relnamespace = 'pgtasks'::regnamespace AND relkind IN ('r', 'v')",
        f"{cast.prefix}_worker", f"{cast.prefix}_reader",
    )  # fmt: skip
    assert len(tables) >= 5
    assert [row["name"] for row in tables if not row["seen"]] == []


# What works


async def test_a_producer_defers_and_hears_the_number(cast: Cast, rows: Rows):
    async with connect(config=cast.config("producer")) as client:
        alone = await NamedTask("work").defer(n=1)
        await NamedTask("work").options(delay=60).defer(n=2)
        async with client.pool.acquire() as own, own.transaction():
            inside = await NamedTask("work").options(connection=own).defer(n=3)
    found = {row["msg_id"]: json.loads(row["message"]) for row in await rows.all()}
    assert found[alone.message_id]["args"] == {"n": 1}
    assert found[inside.message_id]["args"] == {"n": 3}


async def test_a_producer_defers_many_of_a_task(cast: Cast, rows: Rows, registry: Registry):
    @task(name="work", registry=registry, retries=9)
    def work(n: int) -> None: ...

    async with connect(config=cast.config("producer")):
        made = await work.options(timeout=5).defer_many([(n,) for n in range(2500)])
    assert len({handle.message_id for handle in made}) == 2500
    assert len(await rows.all()) == 2501


@pytest.mark.parametrize("inside", [False, True])
async def test_a_producer_hears_what_to_do_about_a_queue_that_is_not_there(
    cast: Cast, inside: bool
):
    async with connect(config=cast.config("producer")) as client, client.pool.acquire() as own:
        send = NamedTask("work", "fresh").options(connection=own if inside else None)
        with pytest.raises(SchemaError, match="no queue 'fresh'.*\n?.*pgtasks queue create fresh"):
            await send.defer()


async def test_a_producer_does_not_schedule(cast: Cast):
    async with connect(config=cast.config("producer")):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await NamedTask("work").schedule(Schedule("mine", every=60))


@pytest.mark.usefixtures("_no_settings_from_outside")
def test_a_producer_defers_from_the_shell(cast: Cast, capsys: pytest.CaptureFixture[str]):
    address = ("--database-url", cast.of("producer"))
    assert main(["defer", "work", "n=1", *address]) == exit_codes.OK
    assert main(["queue", "list", *address]) == exit_codes.FAILED
    assert "this role may not do that" in capsys.readouterr().err


@pytest.mark.usefixtures("_no_settings_from_outside")
@pytest.mark.parametrize(
    "command",
    [
        ["queue", "list"], ["message", "list", "default"], ["message", "show", "default", "1"],
        ["archive", "list", "default"], ["archive", "show", "default", "1001"],
        ["schedule", "list"], ["db", "check"], ["doctor"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_a_reader_sees_everything(
    cast: Cast, command: list[str], capsys: pytest.CaptureFixture[str]
):
    done = main([*command, "--database-url", cast.of("reader")])
    assert done == exit_codes.OK, capsys.readouterr()


@pytest.mark.usefixtures("_no_settings_from_outside")
@pytest.mark.parametrize(
    "command",
    [
        ["archive", "retry", "default", "1001"], ["queue", "create", "fresh"],
        ["defer", "work"], ["schedule", "set", "mine", "work", "--every", "1h"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_a_reader_changes_nothing(
    cast: Cast, command: list[str], capsys: pytest.CaptureFixture[str]
):
    assert main([*command, "--database-url", cast.of("reader")]) == exit_codes.FAILED
    err = capsys.readouterr().err
    assert "may not" in err
    assert "Traceback" not in err


async def test_a_worker_works_with_its_rights_alone(
    cast: Cast, rows: Rows, registry: Registry, heard: Any
):
    """Claims, retries, transactions, archives, schedules, pruning: with the rights of one role."""
    await rows.connection.execute("TRUNCATE pgmq.q_default, pgmq.a_default")
    ran = list[str]()

    @task(name="plain", registry=registry)
    async def plain() -> None:
        ran.append("plain")
        await chained.defer()

    @task(name="chained", registry=registry, on_success="archive")
    def chained() -> None:
        ran.append("chained")

    @task(name="failing", registry=registry, retries=1)
    async def failing() -> None:
        ran.append("failing")
        raise ValueError

    @task(name="later", registry=registry)
    async def later(context: Context) -> None:
        ran.append("later")
        if context.attempt == 1:
            raise RetryLater(0)

    @task(name="in one", registry=registry, durable=True)
    async def in_one(context: Context) -> None:
        async with context.transaction():
            await plain.options(delay=3600).defer()
        ran.append("in one")

    @task(name="ticking", registry=registry, every=1)
    async def ticking(context: Context) -> None:
        ran.append(f"ticking {context.scheduled_at is not None}")

    config = cast.config(
        "worker", retention=RetentionConfig(every=seconds(1), done_for=timedelta(0))
    )
    async with connect(config=config) as client, working(config, registry, within_seconds=40):
        for one in (plain, failing, later, in_one):
            await one.defer()
        await ticking.schedule(Schedule("at run time", every=1))
        await client.schedules.pause("at run time")
        await client.schedules.trigger("at run time")
        await client.schedules.remove("at run time")

        async def all_ran() -> None:
            assert {"plain", "chained", "failing", "later", "in one"} < set(ran), ran
            assert ran.count("failing") == ran.count("later") == 2
            assert ran.count("ticking True") >= 2
            assert "archive pruned" in heard.events()
            archived = [row["outcome"] for row in (await rows.archived()).values()]
            assert archived == ["failed"]

        await eventually_async(all_ran, within_seconds=30)
    assert heard.events(30) == ["failed, trying again", "failed, given up"], heard.records
    assert heard.fields("worker stopped")["unsettled"] == 0


FUNCTIONS = {
    "producer": """
        send('default', '1')
        send('default', '1', '{}', 5)
        send_batch('default', '{1,2}'::jsonb[])
        send_topic('to.default', '1')
        send_batch_topic('to.default', '{1}'::jsonb[])
        list_queues()
        list_topic_bindings()
        test_routing('to.default')
    """,
    "reader": """
        metrics('default')
        metrics_all()
        list_queues()
        list_topic_bindings('default')
        list_notify_insert_throttles()
    """,
    "worker": """
        send('default', '1')
        send_topic('to.default', '1')
        metrics('default')
        read('default', 0, 5)
        read_with_poll('default', 0, 5)
        read_grouped('default', 0, 5)
        read_grouped_rr('default', 0, 5)
        read_grouped_head_with_poll('default', 0, 5)
        set_vt('default', 1, 0)
        archive('default', 1)
        archive('default', '{2}'::bigint[])
        pop('default')
        delete('default', 9)
        delete('default', '{9}'::bigint[])
        list_topic_bindings()
    """,
}


@pytest.mark.parametrize("role", FUNCTIONS)
async def test_a_role_calls_the_functions_that_it_needs(cast: Cast, connection: Any, role: str):
    """On a queue that tells of its inserts, and on one that was made later."""
    await connection.execute("SELECT pgmq.enable_notify_insert('default', 1)")
    await connection.execute("SELECT pgmq.create('later'), pgmq.bind_topic('to.later', 'later')")
    for call in FUNCTIONS[role].strip().splitlines():
        await cast.run(role, f"SELECT * FROM pgmq.{call}")
        await cast.run(role, f"SELECT * FROM pgmq.{call}".replace("default", "later"))


async def test_a_worker_whose_queue_is_not_there_says_who_makes_it(cast: Cast, registry: Registry):
    @task(name="work", queue="fresh", registry=registry)
    def work() -> None: ...

    with pytest.raises(SchemaError, match="no queue 'fresh'.*\n?.*pgtasks queue create fresh"):
        async with working(cast.config("worker"), registry):
            pass


# The admin


@pytest.mark.usefixtures("_no_settings_from_outside")
def test_queues_to_come_give_the_roles_their_rights(cast: Cast):
    made = ["queue", "create", "fresh", "--database-url", cast.of("admin")]
    assert main(made) == exit_codes.OK
    sent = ["defer", "work", "--queue", "fresh", "--database-url", cast.of("producer")]
    assert main(sent) == exit_codes.OK

    async def look() -> None:
        store = "SELECT * FROM pgmq.q_fresh, pgmq.a_fresh"
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await cast.run("producer", store)
        await cast.run("reader", store)
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await cast.run("reader", "DELETE FROM pgmq.q_fresh")
        assert await cast.run("worker", "DELETE FROM pgmq.q_fresh RETURNING msg_id")

    asyncio.run(look())


async def test_a_role_that_is_gone_keeps_no_queue_from_being_made(cast: Cast, connection: Any):
    reader = f"{cast.prefix}_reader"
    await connection.execute(f"DROP OWNED BY {reader}; DROP ROLE {reader}")
    assert await Store(connection).create_queue("fresh")
    assert await connection.fetchval(
        "SELECT has_table_privilege($1, 'pgmq.q_fresh', 'DELETE')", f"{cast.prefix}_worker"
    )


async def test_the_admin_owns_it_and_can_install_it_anew(cast: Cast, connection: Any):
    owners = await connection.fetch(
        "SELECT DISTINCT relowner::regrole::text FROM pg_class WHERE relkind = 'r' AND "
        "relnamespace IN ('pgtasks'::regnamespace, 'pgmq'::regnamespace) UNION "
        "SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname IN ('pgtasks', 'pgmq') "
        "UNION SELECT proowner::regrole::text FROM pg_proc "
        "WHERE pronamespace = 'pgtasks'::regnamespace"
    )
    assert [row[0] for row in owners] == [f"{cast.prefix}_admin"]
    await cast.run("admin", "DROP SCHEMA pgtasks CASCADE")
    admin = await asyncpg.connect(cast.of("admin"), timeout=10)
    try:
        assert await migrate.upgrade(admin) == migrate.migrations()
        await migrate.check(admin)
        await admin.execute(roles.script(cast.prefix))
    finally:
        await admin.close()
    await cast.run("worker", "SELECT pgtasks.clamped(vt) FROM pgmq.q_default FOR UPDATE")


async def test_run_again_the_script_changes_nothing(cast: Cast, connection: Any):
    """And by the admin itself, who may neither create roles nor grant on the database."""

    async def rights() -> Any:
        return await connection.fetch(
            "SELECT oid::regclass::text, relowner, (SELECT array_agg(acl::text ORDER BY 1) "
            "FROM unnest(relacl) AS acl) FROM pg_class WHERE relnamespace IN "
            "('pgtasks'::regnamespace, 'pgmq'::regnamespace) ORDER BY 1"
        )

    before = await rights()
    await connection.execute(roles.script(cast.prefix))
    admin = await asyncpg.connect(cast.of("admin"), timeout=10)
    await admin.execute(roles.script(cast.prefix))
    await admin.close()
    assert await rights() == before


async def test_an_owner_who_may_create_roles_needs_no_superuser(connection: Any, rows: Rows):
    """As on servers that others run: the owner of the database, but no superuser."""
    prefix = f"t{uuid4().hex[:12]}"
    name = f"{prefix}_stranger"
    database = await connection.fetchval("SELECT current_database()")
    try:
        await connection.execute(
            f"CREATE ROLE {name} CREATEROLE; ALTER DATABASE {database} OWNER TO {name};"
            "DROP SCHEMA pgtasks, pgmq CASCADE;"
        )
        await connection.execute(f"SET SESSION AUTHORIZATION {name}")
        await migrate.upgrade(connection)
        await Store(connection).create_queue("default")
        await connection.execute(roles.script(prefix))
        await Store(connection).create_queue("fresh")
        await connection.execute("RESET SESSION AUTHORIZATION")
        await connection.execute(f"SET ROLE {prefix}_worker")
        await connection.execute("SELECT 1 FROM pgmq.q_default, pgmq.q_fresh FOR UPDATE")
    finally:
        await connection.execute("RESET SESSION AUTHORIZATION; RESET ROLE")
        await connection.execute(f"ALTER DATABASE {database} OWNER TO CURRENT_USER")
        await drop(connection, prefix)


# Their names


@pytest.mark.parametrize(
    "prefix",
    ["", "Shop", "shop-1", "1shop", "_shop", "pg_shop", 'a"b', "a;b", "é", "a\n", "x" * 41, "a b"],
    ids=ascii,
)
def test_a_prefix_that_cannot_begin_a_name(prefix: str):
    with pytest.raises(ConfigError, match="cannot begin the name of a role"):
        roles.script(prefix)


def test_the_script_names_the_roles_of_its_prefix_only(capsys: pytest.CaptureFixture[str]):
    assert main(["db", "roles", "--prefix", "shop"]) == exit_codes.OK
    printed = capsys.readouterr().out
    assert printed == roles.script("shop")
    assert "pgtasks_" not in printed
    assert "{" not in printed
    assert main(["db", "roles"]) == exit_codes.OK
    assert "pgtasks_worker" in capsys.readouterr().out
    assert main(["db", "roles", "--prefix", "Shop"]) == exit_codes.USAGE
