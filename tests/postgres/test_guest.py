"""As a guest: the database has another program's pgmq, in which nothing is ours to make."""

import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import anyio
import asyncpg
import attrs
import pytest
from eventually import eventually_async
from postgres.foreign import (
    EXTENSION,
    MIGRATIONS,
    PARTITIONED,
    catalog,
    shaped,
)
from postgres.rows import Rows, held, seconds
from postgres.working import working

from pgtasks import (
    Config,
    Context,
    NamedTask,
    Registry,
    Retry,
    SchemaError,
    connect,
    exit_codes,
    layout,
    migrate,
    roles,
    task,
)
from pgtasks import store as statements
from pgtasks.cli import main
from pgtasks.config import DatabaseConfig, QueueFetchConfig, TaskConfig, WorkerConfig
from pgtasks.connection import open_connection
from pgtasks.foreign_pgmq import ForeignPgmq
from pgtasks.pruner import Pruning
from pgtasks.retention import Limits, Retention
from pgtasks.store import Store
from pgtasks.testing import drain

Connection = Any
Q = "emails"
SHAPES = ["1.5", "1.13"]
AS = {"": "", "extension": EXTENSION, "crate": MIGRATIONS}
"""How it came there: by hand, as the extension, by a client that brings the SQL."""


@pytest.fixture(params=SHAPES)
def shape(request: pytest.FixtureRequest) -> str:
    """Which pgmq it is."""
    version: str = request.param
    return version


@pytest.fixture
async def host(empty_database_url: str) -> AsyncIterator[Connection]:
    """A connection to a database with nothing in it."""
    connection = await open_connection(DatabaseConfig(url=empty_database_url), "tests")
    yield connection
    await connection.close()


@pytest.fixture
async def guest(host: Connection, shape: str) -> Connection:
    """A connection to a database with another's pgmq and a queue of its making, and then ours."""
    await host.execute(shaped(shape))
    await host.execute(f"SELECT pgmq.create('{Q}')")
    await migrate.upgrade(host)
    return host


@pytest.fixture
def config(guest: Connection, empty_database_url: str) -> Config:
    """Settings under which things happen soon."""
    return Config(
        database=DatabaseConfig(url=empty_database_url),
        worker=WorkerConfig(
            grace=seconds(20), queue_fetch=QueueFetchConfig(empty_delay=seconds(0.2))
        ),
        task=TaskConfig(queue=Q, delay=seconds(0), jitter=seconds(0), retries=2),
    )


def kept(*, done: int | None = None, failed: int | None = None) -> Retention:
    return Retention(done=Limits(None, done), failed=Limits(None, failed))


# Coming


@pytest.mark.parametrize("come", AS)
async def test_nothing_of_pgmqs_is_changed_by_coming(host: Connection, shape: str, come: str):
    await host.execute(shaped(shape) + AS[come].replace("{version}", shape))
    await host.execute("SELECT pgmq.create('Emails'), pgmq.create_unlogged('fast')")
    await host.execute("SELECT pgmq.send('emails', '{}')")
    before = await catalog(host)
    assert await migrate.upgrade(host)
    await migrate.check(host)
    assert await migrate.upgrade(host) == []
    assert await catalog(host) == before
    assert await host.fetchval("SELECT pgtasks.owns_pgmq()") is False


@pytest.mark.parametrize("come", AS)
async def test_nor_by_the_script(host: Connection, shape: str, come: str):
    await host.execute(shaped(shape) + AS[come].replace("{version}", shape))
    await host.execute("SELECT pgmq.create('emails')")
    before = await catalog(host)
    await host.execute(migrate.script())
    await migrate.check(host)
    assert await catalog(host) == before


async def test_no_right_on_its_schema_is_needed_to_come(host: Connection):
    """In a hosted database the extension belongs to somebody else."""
    await host.execute(shaped("1.5"))
    name, role = await host.fetchrow("SELECT current_database(), 'guest_' || current_database()")
    await host.execute(f"CREATE ROLE {role}; GRANT CREATE ON DATABASE {name} TO {role}")
    await host.execute(f"GRANT USAGE ON SCHEMA pgmq TO {role}; GRANT SELECT ON pgmq.meta TO {role}")
    before = await catalog(host)
    try:
        await host.execute(f"SET ROLE {role}")
        await migrate.upgrade(host)
        await host.execute("RESET ROLE")
        assert await catalog(host) == before
    finally:
        await host.execute(f"RESET ROLE; DROP OWNED BY {role}; DROP ROLE {role}")


@pytest.mark.parametrize("come", AS)
async def test_a_pgmq_without_headers_is_refused(host: Connection, come: str):
    await host.execute(shaped("1.4") + AS[come].replace("{version}", "1.4.4"))
    await host.execute("SELECT pgmq.create('emails')")
    before = await catalog(host)
    for refused in (migrate.upgrade, migrate.check):
        with pytest.raises(SchemaError, match="older than 1.5(.|\n)*Upgrade it") as error:
            await refused(host)
        assert ("1.4.4" in str(error.value)) is bool(come)
    with pytest.raises(asyncpg.RaiseError, match="older than 1.5"):
        await host.execute(migrate.script())
    await host.execute("ROLLBACK")
    assert await catalog(host) == before
    assert not (await Store(host).server_facts())["is_installed"]


async def test_a_pgmq_that_came_later_and_is_too_old_is_refused_by_a_worker(
    host: Connection, empty_database_url: str, registry: Registry
):
    await migrate.upgrade(host)
    await host.execute("DROP SCHEMA pgmq CASCADE")
    await host.execute(shaped("1.4"))
    config = Config(database=DatabaseConfig(url=empty_database_url))

    @task(name="work", registry=registry)
    async def work() -> None: ...

    with pytest.raises(SchemaError, match="older than 1.5"):
        async with working(config, registry):
            pass
    with pytest.raises(SchemaError, match="older than 1.5"):
        async with connect(config=config):
            pass


async def test_one_queue_that_an_upgrade_forgot_is_refused(
    guest: Connection, config: Config, registry: Registry
):
    """An upgrade of pgmq passes over queues with capitals in their names."""
    await guest.execute(f"ALTER TABLE pgmq.q_{Q} DROP COLUMN headers")

    @task(name="work", registry=registry)
    async def work() -> None: ...

    with pytest.raises(SchemaError, match="ADD COLUMN headers"):
        async with working(config, registry):
            pass


# What it is


async def test_it_is_known_by_what_it_has(host: Connection):
    found = ForeignPgmq.find(Store(host))
    assert await found is None
    await host.execute(shaped("1.5"))
    foreign = await ForeignPgmq.find(Store(host))
    assert foreign is not None
    assert str(foreign) == (
        "a pgmq that was installed by its SQL, which has headers; it lacks last_read_at (1.10), "
        "queue locks (1.6), insert notifications (1.7), grouped reads (1.9), topics (1.11)"
    )


@pytest.mark.parametrize("come", ["extension", "crate"])
async def test_its_number_is_told_and_not_believed(host: Connection, come: str):
    await host.execute(shaped("1.13") + AS[come].replace("{version}", "1.5.1"))
    foreign = await ForeignPgmq.find(Store(host))
    assert foreign is not None
    assert "1.5.1" in foreign.name
    assert foreign.missing == ()


async def test_ours_is_not_foreign(host: Connection):
    await migrate.upgrade(host)
    assert await host.fetchval("SELECT pgtasks.owns_pgmq()") is True
    assert await ForeignPgmq.find(Store(host)) is None


async def test_commands_say_whose_guest_they_are(
    host: Connection,
    empty_database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setenv("PGTASKS_DATABASE_URL", empty_database_url)
    await host.execute(shaped("1.5") + EXTENSION.replace("{version}", "1.5.1"))

    async def run(*command: str, code: int = exit_codes.OK) -> str:
        assert await anyio.to_thread.run_sync(main, list(command)) == code
        return capsys.readouterr().out

    assert "guest of the extension pgmq 1.5.1" in await run("db", "upgrade")
    assert "guest of the extension pgmq 1.5.1" in await run("db", "check")
    found = {one["check"]: one for one in json.loads(await run("doctor", "--json"))}
    assert found["pgmq"]["level"] == "ok"
    assert found["pgmq"]["text"].startswith("guest of the extension pgmq 1.5.1, which has headers;")


async def test_commands_say_which_queues_are_laid_out_otherwise(
    host: Connection,
    empty_database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setenv("PGTASKS_DATABASE_URL", empty_database_url)
    await host.execute(shaped("1.13") + "SELECT pgmq.create('emails'), pgmq.create('bills')")
    await migrate.upgrade(host)

    async def run(*command: str) -> str:
        assert await anyio.to_thread.run_sync(main, list(command)) == exit_codes.OK
        return capsys.readouterr().out

    assert "ITS TABLES" not in await run("queue", "list")
    await host.execute(PARTITIONED)
    await host.execute(
        "ALTER TABLE pgmq.a_bills DROP headers; ALTER TABLE pgmq.q_bills DROP headers"
    )
    listed = json.loads(await run("queue", "list", "--json"))
    assert {one["queue"]: one["differs"] for one in listed} == {
        "bills": ["without headers"], "emails": [], "parted": ["partitioned"],
    }  # fmt: skip
    assert "ITS TABLES" in await run("queue", "list")
    layout._noted.clear()  # as in a process that has run no other command
    found = [one for one in json.loads(await run("doctor", "--json")) if one["check"] == "queues"]
    bills, emails, parted = found
    assert (bills["level"], emails["level"], parted["level"]) == ("warn", "ok", "ok")
    assert "ALTER TABLE pgmq.q_bills ADD COLUMN headers jsonb" in bills["next_step"]
    assert parted["text"].endswith("leased or retrying; partitioned")


async def test_tables_without_functions_are_ours_too(host: Connection):
    """They were taken out, for the real pgmq to come."""
    await migrate.upgrade(host)
    assert await ForeignPgmq.describe(Store(host)) == "our own"
    await migrate.detach_pgmq(host)
    assert await ForeignPgmq.describe(Store(host)) == (
        "detached: our own tables, without pgmq's functions"
    )
    await host.execute(shaped("1.13").replace("CREATE SCHEMA", "CREATE SCHEMA IF NOT EXISTS")
                       .replace("CREATE TABLE", "CREATE TABLE IF NOT EXISTS"))  # fmt: skip
    assert (await ForeignPgmq.describe(Store(host))).startswith("guest of a pgmq that was")


async def test_commands_say_that_it_is_ours(
    host: Connection,
    empty_database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setenv("PGTASKS_DATABASE_URL", empty_database_url)
    for command in (["db", "upgrade"], ["db", "check"], ["doctor"]):
        assert await anyio.to_thread.run_sync(main, command) == exit_codes.OK
        assert "our own" in capsys.readouterr().out


async def test_how_its_tables_are_laid_out_is_looked_at(host: Connection, shape: str):
    store = Store(host)

    async def looked() -> dict[str, layout.Layout]:
        await store.note_layouts()
        found = dict(layout._noted)
        layout._noted.clear()
        return found

    await host.execute(shaped(shape) + "SELECT pgmq.create('emails'), pgmq.create('Bills')")
    narrow = layout.Layout(is_wide=False)
    expected = {} if shape == "1.13" else dict.fromkeys(["*", "emails", "bills"], narrow)
    assert await looked() == expected
    await host.execute(PARTITIONED)
    assert await looked() == {**expected, "parted": layout.Layout(is_partitioned=True)}
    await host.execute(
        "ALTER TABLE pgmq.a_bills DROP headers; ALTER TABLE pgmq.q_bills DROP headers"
    )
    assert (await looked())["bills"] == attrs.evolve(
        expected.get("bills", layout.Layout()), has_headers=False
    )


# Working


async def test_messages_are_run_tried_again_archived_and_deleted(
    config: Config, registry: Registry, guest: Connection
):
    rows, attempts = Rows(guest), list[int]()

    @task(name="Gone", registry=registry)
    async def gone(number: int) -> None: ...

    @task(name="Kept", registry=registry, on_success="archive")
    async def kept(context: Context, number: int) -> None:
        attempts.append(context.attempt)
        if context.attempt < 3:
            raise ValueError(number)

    @task(name="Fail", registry=registry, retries=0)
    async def fail(number: int) -> None:
        raise ValueError(number)

    async with connect(config=config), working(config, registry):
        await gone.defer(1)
        await gone.defer_many([(number,) for number in range(50)])
        done = await kept.defer(2)
        failed = await fail.defer(3)
        foreign = await guest.fetchval(
            "SELECT pgmq.send($1, jsonb_build_object("
            "'metadata', jsonb_build_object('id', 7, 'worker_name', 'Fail'), 'args', 4))",
            Q,
        )
        await rows.empty(Q)
    archived = await rows.archived(Q)
    assert {number: state["outcome"] for number, state in archived.items()} == {
        done.message_id: "done", failed.message_id: "failed", foreign: "failed",
    }  # fmt: skip
    assert attempts == [1, 2, 3]
    [read_ct] = [
        row["read_ct"]
        for row in await guest.fetch(f"SELECT * FROM pgmq.a_{Q}")
        if row["msg_id"] == done.message_id
    ]
    assert read_ct == 3


async def test_when_it_was_last_read_is_kept_where_it_can_be(
    config: Config, registry: Registry, guest: Connection, shape: str
):
    @task(name="Kept", registry=registry, on_success="archive")
    async def kept() -> None: ...

    async with connect(config=config):
        await kept.defer()
        await drain(registry=registry)
    [row] = await guest.fetch(f"SELECT * FROM pgmq.a_{Q}")
    assert ("last_read_at" in dict(row)) is (shape == "1.13")
    assert dict(row).get("last_read_at", 0) is not None


async def test_a_transaction_of_a_task_ends_its_message(
    config: Config, registry: Registry, guest: Connection
):
    @task(name="Work", registry=registry, on_success="archive")
    async def work(context: Context) -> None:
        async with context.transaction():
            pass

    async with connect(config=config):
        handle = await work.defer()
        await drain(registry=registry)
    assert (await Rows(guest).archived(Q))[handle.message_id]["outcome"] == "done"


async def test_columns_in_another_order_are_no_hindrance(
    config: Config, registry: Registry, guest: Connection, shape: str
):
    """An upgraded database has those that came later at the end."""
    if shape == "1.5":
        await guest.execute(
            f"ALTER TABLE pgmq.q_{Q} ADD COLUMN last_read_at timestamptz;"
            f"ALTER TABLE pgmq.a_{Q} ADD COLUMN last_read_at timestamptz;"
        )
    else:
        await guest.execute(
            f"ALTER TABLE pgmq.q_{Q} DROP COLUMN headers; ALTER TABLE pgmq.a_{Q} DROP headers;"
            f"ALTER TABLE pgmq.q_{Q} ADD COLUMN headers jsonb;"
            f"ALTER TABLE pgmq.a_{Q} ADD COLUMN headers jsonb;"
        )
    got = list[int]()

    @task(name="Work", registry=registry, on_success="archive")
    async def work(number: int) -> None:
        got.append(number)

    async with connect(config=config):
        handle = await work.defer(7)
        await drain(registry=registry)
    assert got == [7]
    assert (await Rows(guest).archived(Q))[handle.message_id]["outcome"] == "done"


@pytest.mark.parametrize("identity", ["ALWAYS", "BY DEFAULT"])
async def test_either_kind_of_identity_is_sent_to(
    config: Config, registry: Registry, guest: Connection, identity: str
):
    await guest.execute(f"ALTER TABLE pgmq.q_{Q} ALTER COLUMN msg_id SET GENERATED {identity}")
    ran = list[int]()

    @task(name="Work", registry=registry, retries=0)
    async def work(number: int) -> None:
        ran.append(number)
        if number < 0:
            raise ValueError

    async with connect(config=config):
        await work.defer(1)
        await work.defer_many([(2,), (3,), (-1,)])
        await drain(registry=registry, raise_errors=False)
        numbers = await Rows(guest).archived_ids(Q)
        assert len(await Store(guest).redrive(Q, numbers, seconds(0), notify=False)) == 1
        await drain(registry=registry, raise_errors=False)
    assert ran == [1, 2, 3, -1, -1]


async def test_capitals_in_the_name_of_a_queue_are_pgmqs_business(
    config: Config, registry: Registry, guest: Connection
):
    """The tables have small letters, and those are the queue's name."""
    await guest.execute("SELECT pgmq.create('Invoices'), pgmq.create('invoices')")
    ran = list[int]()

    @task(name="Work", registry=registry, queue="invoices")
    async def work(number: int) -> None:
        ran.append(number)

    body = '{"metadata": {"id": 1, "worker_name": "Work"}, "args": 2}'
    async with connect(config=config), working(config, registry):
        await work.defer(1)
        await guest.execute(f"SELECT pgmq.send('Invoices', '{body}')")
        await Rows(guest).empty("invoices")
    assert sorted(ran) == [1, 2]
    assert await Store(guest).list_queues() == [Q, "invoices"]
    assert await guest.fetchval("SELECT count(*) FROM pgmq.meta") == 3


async def test_an_unlogged_queue_is_worked_off(
    config: Config, registry: Registry, guest: Connection
):
    await guest.execute("SELECT pgmq.create_unlogged('fast')")

    @task(name="Work", registry=registry, queue="fast", on_success="archive")
    async def work() -> None: ...

    async with connect(config=config):
        handle = await work.defer()
        await drain(registry=registry)
    assert (await Rows(guest).archived("fast"))[handle.message_id]["outcome"] == "done"


@pytest.mark.parametrize("shape", ["1.13"], indirect=True)
async def test_a_partitioned_queue_is_worked_off(
    config: Config, registry: Registry, guest: Connection
):
    """Rows of several partitions stand in the same place of each: a claim must tell them apart."""
    await guest.execute(PARTITIONED)
    ran = list[int]()

    @task(name="Work", registry=registry, queue="parted", on_success="archive")
    async def work(context: Context, number: int) -> None:
        ran.append(number)
        if context.attempt == 1 and number % 3 == 0:
            raise ValueError

    async with connect(config=config), working(config, registry):
        handles = await work.defer_many([(number,) for number in range(120)])
        await Rows(guest).empty("parted")
    assert sorted(ran) == sorted([*range(120), *range(0, 120, 3)])
    archived = await Rows(guest).archived("parted")
    assert {state["outcome"] for state in archived.values()} == {"done"}
    assert len(archived) == len(handles)


@pytest.mark.parametrize("shape", ["1.13"], indirect=True)
async def test_a_claim_from_partitions_takes_what_it_chose(config: Config, guest: Connection):
    await guest.execute(PARTITIONED)
    store = Store(guest)
    await store.note_layouts()
    for number in range(8):
        due = "1 hour" if number < 4 else "-1 hour"
        await guest.execute(
            f"INSERT INTO pgmq.q_parted (vt, message) "
            f"VALUES (clock_timestamp() + interval '{due}', '{number}')"
        )
    rows = await store.claim("parted", 2, seconds(60), statements.BEGINNING)
    assert len(rows) == 2
    leased = await guest.fetch("SELECT msg_id FROM pgmq.q_parted WHERE read_ct > 0")
    assert {row[0] for row in leased} == {row["msg_id"] for row in rows}
    assert {json.loads(row["message"]) for row in rows} < {4, 5, 6, 7}


async def test_a_queue_is_made_by_pgmqs_own_function(
    config: Config, registry: Registry, guest: Connection, shape: str
):
    rows = Rows(guest)

    @task(name="Work", registry=registry, queue="fresh", on_success="archive")
    async def work() -> None: ...

    async with connect(config=config), working(config, registry):
        handle = await work.defer()
        assert (await rows.outcome(handle.message_id, "fresh"))["outcome"] == "done"
    theirs = f"SELECT attname, attnum FROM pg_attribute WHERE attrelid = 'pgmq.q_{Q}'::regclass"
    ours = theirs.replace(f"q_{Q}", "q_fresh")
    assert await guest.fetch(ours) == await guest.fetch(theirs)
    [identity] = await guest.fetch(
        "SELECT attidentity FROM pg_attribute "
        "WHERE attrelid = 'pgmq.q_fresh'::regclass AND attname = 'msg_id'"
    )
    assert identity[0] == (b"a" if shape == "1.5" else b"d")
    indexes = "SELECT count(*) FROM pg_indexes WHERE schemaname = 'pgmq' AND tablename = $1"
    assert await guest.fetchval(indexes, "a_fresh") == 2
    assert not await Store(guest).create_queue("fresh")


async def test_a_queue_is_made_once_by_many(guest: Connection, config: Config):
    others = [await open_connection(config.database, "tests") for _ in range(8)]
    made = list[bool]()

    async def make(on: Connection) -> None:
        made.append(await Store(on).create_queue("fresh"))

    async with anyio.create_task_group() as group:
        for other in others:
            group.start_soon(make, other)
    assert sorted(made) == [False] * 7 + [True]
    for other in others:
        await other.close()


async def test_schedules_fire(config: Config, registry: Registry, guest: Connection):
    ran = list[int]()

    @task(name="Work", registry=registry, every="1s")
    async def work() -> None:
        ran.append(1)

    async with connect(config=config), working(config, registry):

        async def has_run() -> None:
            assert len(ran) >= 2

        await eventually_async(has_run, within_seconds=15)


async def test_an_archive_is_pruned_without_an_index_of_ours(
    config: Config, registry: Registry, guest: Connection
):
    @task(name="Work", registry=registry, on_success="archive", retries=0)
    async def work(number: int) -> None:
        if number < 3:
            raise ValueError(number)

    async with connect(config=config):
        await work.defer_many([(number,) for number in range(10)])
        await drain(registry=registry, raise_errors=False)
    pruning = Pruning(Q, Store(guest))
    assert await pruning.count(kept(done=2)) == {"done": 5}
    await pruning.run(kept(done=2, failed=1))
    assert pruning.deleted == {"done": 5, "failed": 2}
    assert len(await Rows(guest).archived_ids(Q)) == 3


async def test_room_is_made_when_somebody_asks_for_it(guest: Connection):
    options = "SELECT reloptions FROM pg_class WHERE oid = 'pgmq.q_emails'::regclass"
    assert await guest.fetchval(options) is None
    await guest.execute("SELECT pgtasks.make_room('emails')")
    assert "fillfactor=50" in await guest.fetchval(options)


async def test_the_index_is_made_when_somebody_asks_for_it(guest: Connection):
    await guest.execute("SELECT pgtasks.index_archive($1)".replace("$1", f"'{Q}'"))
    assert await guest.fetchval(
        "SELECT count(*) FROM pg_indexes WHERE indexname IN ('done_at_idx_emails', "
        "'failed_at_idx_emails')"
    ) == 2  # fmt: skip


async def test_commands_work(
    config: Config,
    registry: Registry,
    guest: Connection,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setenv("PGTASKS_DATABASE_URL", config.database.url or "")

    @task(name="Fail", registry=registry, retries=Retry(1, delay=0))
    async def fail() -> None:
        raise ValueError("no")

    async with connect(config=config):
        failed = await fail.defer()
        await drain(registry=registry, raise_errors=False)
        waiting = await fail.options(delay=3600).defer()

    async def run(*command: str) -> Any:
        assert await anyio.to_thread.run_sync(main, [*command, "--json"]) == exit_codes.OK
        return json.loads(capsys.readouterr().out)

    [queue] = await run("queue", "list")
    assert (queue["queue"], queue["delayed"], queue["archived"]) == (Q, 1, 1)
    [message] = await run("message", "list", Q)
    assert message["message_id"] == waiting.message_id
    assert await run("message", "show", Q, str(waiting.message_id))
    [archived] = await run("archive", "list", Q)
    assert archived["message_id"] == failed.message_id
    assert await run("archive", "show", Q, str(failed.message_id))
    assert await run("archive", "retry", Q, "--all")
    assert await Rows(guest).archived_ids(Q) == []
    assert len(await Rows(guest).all(Q)) == 2


async def test_a_crash_is_archived_by_who_never_claimed(guest: Connection, config: Config):
    """A supervisor does so."""
    store = Store(guest)
    await store.note_layouts()
    number = await guest.fetchval("SELECT pgmq.send($1, '{}')", Q)
    assert await store.claim(Q, 1, seconds(60), statements.BEGINNING)
    leases = await held(store, [number], Q)
    assert await store.archive(Q, leases, 1, ['{"outcome": "crashed"}']) == [number]
    assert (await Rows(guest).archived(Q))[number] == {"outcome": "crashed"}


# Roles

OWNERS = """
SELECT 'pgmq', nspowner::regrole::text FROM pg_namespace WHERE nspname = 'pgmq'
UNION ALL
SELECT relname, relowner::regrole::text FROM pg_class WHERE relnamespace = 'pgmq'::regnamespace
UNION ALL
SELECT proname, proowner::regrole::text FROM pg_proc WHERE pronamespace = 'pgmq'::regnamespace
"""


@pytest.fixture
async def prefix(guest: Connection) -> AsyncIterator[str]:
    """What the names of the roles begin with."""
    name = f"g{uuid4().hex[:12]}"
    yield name
    await guest.execute("RESET ROLE")
    for role in roles.ROLES:
        if await guest.fetchval("SELECT to_regrole($1::text) IS NOT NULL", f"{name}_{role}"):
            await guest.execute(f"DROP OWNED BY {name}_{role} CASCADE; DROP ROLE {name}_{role}")


async def test_roles_get_rights_and_what_is_pgmqs_keeps_its_owner(
    guest: Connection, prefix: str, config: Config, registry: Registry
):
    await guest.execute("SELECT pgmq.create('Bills')")
    before = sorted(await guest.fetch(OWNERS))
    for _ in range(2):
        await guest.execute(roles.script(prefix))
    assert sorted(await guest.fetch(OWNERS)) == before
    assert await guest.fetchval(
        "SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = 'pgtasks'"
    ) == f"{prefix}_admin"  # fmt: skip
    await guest.execute(f"SET ROLE {prefix}_admin")
    assert await Store(guest).create_queue("fresh")
    await guest.execute("RESET ROLE")

    ran = list[str]()

    def as_role(role: str) -> Config:
        url = config.database.url or ""
        joint = "&" if "?" in url else "?"
        database = attrs.evolve(config.database, url=f"{url}{joint}role={prefix}_{role}")
        install = attrs.evolve(config.worker.install, enable=False)
        worker = attrs.evolve(config.worker, install=install)
        return attrs.evolve(config, database=database, worker=worker)

    queues = [Q, "bills", "fresh"]
    for name in queues:

        @task(name=name, registry=registry, queue=name, on_success="archive")
        async def work(context: Context) -> None:
            ran.append(context.queue)

    async with connect(config=as_role("producer")):
        for name in queues:
            await NamedTask(name, queue=name).defer()
    async with working(as_role("worker"), registry):
        for name in queues:
            await Rows(guest).empty(name)
    assert sorted(ran) == sorted(queues)


async def test_without_roles_a_worker_needs_no_more_than_the_tables(
    guest: Connection, prefix: str, config: Config, registry: Registry
):
    """Who may not make a queue is told which, and by whom it can be made."""
    role = f"{prefix}_worker"
    await guest.execute(f"CREATE ROLE {role}; GRANT USAGE ON SCHEMA pgmq, pgtasks TO {role}")
    await guest.execute(f"GRANT SELECT ON pgmq.meta TO {role}; SET ROLE {role}")
    with pytest.raises(SchemaError, match="pgtasks queue create fresh"):
        await Store(guest).create_queue("fresh")
