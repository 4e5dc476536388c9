"""A database for the length of a test: made, migrated, and gone however the test ends."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from uuid import uuid4

import anyio
import asyncpg
import attrs
import pytest
from postgres.conftest import Heard

from pgtasks import (
    Config,
    DatabaseError,
    NotConnectedError,
    Registry,
    Worker,
    connect,
    current_client,
    migrate,
    task,
)
from pgtasks.config import DatabaseConfig
from pgtasks.database_url import with_database
from pgtasks.temporary_database import (
    LEFTOVER_SECONDS,
    TEMPLATE_SECONDS,
    TemporaryDatabase,
    _here,
)
from pgtasks.testing import temporary_database as make


@attrs.frozen
class Role:
    """A role of the test's own: what it owns on the server is all of this test's making."""

    server_url: str
    name: str = attrs.field(factory=lambda: f"tester_{uuid4().hex[:12]}")

    @property
    def url(self) -> str:
        """The server's address, with this role."""
        return self.server_url.replace("//postgres@", f"//{self.name}@")

    async def databases(self) -> list[str]:
        """The databases it owns."""
        rows = await on_server(
            self.server_url,
            "SELECT datname::text FROM pg_database WHERE pg_get_userbyid(datdba) = $1 ORDER BY 1",
            self.name,
        )
        return [row[0] for row in rows]

    async def leave(self, kind: str, *rest: object) -> str:
        """Create a database as a run that was killed leaves it."""
        name = "_".join(["pgtasks", kind, *map(str, rest)])
        await on_server(self.url, f'CREATE DATABASE "{name}"')
        return name


async def on_server(url: str, statement: str, *args: object) -> Sequence[asyncpg.Record]:
    connection = await asyncpg.connect(url, timeout=10)
    try:
        return await connection.fetch(statement, *args, timeout=60)
    finally:
        await connection.close()


@pytest.fixture
def role(server_url: str) -> Iterator[Role]:
    """A role that may create databases, and is dropped with all it has made."""
    made = Role(server_url)
    asyncio.run(on_server(server_url, f"CREATE ROLE {made.name} LOGIN CREATEDB"))
    yield made
    for name in asyncio.run(made.databases()):
        asyncio.run(on_server(server_url, f'DROP DATABASE "{name}" WITH (FORCE)'))
    asyncio.run(on_server(server_url, f"DROP ROLE {made.name}"))


async def exists(database: TemporaryDatabase, url: str) -> bool:
    with suppress(asyncpg.InvalidCatalogNameError):
        await (await asyncpg.connect(url, timeout=10)).close()
        return True
    return False


async def clock(url: str) -> int:
    rows = await on_server(url, "SELECT extract(epoch FROM clock_timestamp())::bigint")
    return int(rows[0][0])


# Its life


async def test_it_has_the_schema_and_is_gone_afterwards(server_url: str):
    async with make(server_url) as database:
        url = database.url
        async with connect(url) as client:
            applied = await client.pool.fetchval("SELECT max(version) FROM pgtasks.migration")
    assert applied == migrate.migrations()[-1].version
    assert not await exists(database, url)


def test_a_plain_with_does_the_same(server_url: str):
    with make(server_url) as database:
        url = database.url
        with connect(url):
            pass
    assert not asyncio.run(exists(database, url))


async def test_a_plain_with_works_inside_a_running_loop(server_url: str):
    with make(server_url) as database:
        assert await exists(database, database.url)


async def test_two_of_them_know_nothing_of_each_other(server_url: str):
    async with make(server_url) as first, make(server_url) as second:
        assert first.url != second.url
        await on_server(first.url, "SELECT pgtasks.create_queue('emails')")
        assert not await on_server(second.url, "SELECT queue_name FROM pgmq.meta")


async def test_it_is_dropped_after_an_error_which_comes_out_as_it_is(server_url: str):
    with pytest.raises(ZeroDivisionError):  # noqa: PT012
        async with make(server_url) as database:
            url = database.url
            raise ZeroDivisionError
    assert not await exists(database, url)


def test_it_is_dropped_after_ctrl_c(server_url: str):
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012, SIM117
        with make(server_url) as database:
            url = database.url
            raise KeyboardInterrupt
    assert not asyncio.run(exists(database, url))


async def test_it_is_dropped_when_the_test_is_cancelled(server_url: str):
    with anyio.CancelScope() as scope:
        async with make(server_url) as database:
            url = database.url
            scope.cancel()
            await anyio.sleep_forever()
    assert not await exists(database, url)


async def test_connections_of_the_test_do_not_keep_it(server_url: str):
    async with make(server_url) as database:
        url = database.url
        forgotten = await asyncpg.connect(url, timeout=10)
        await forgotten.execute("BEGIN; SELECT 1")
    assert not await exists(database, url)
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await forgotten.fetch("SELECT 1")
    forgotten.terminate()


async def test_cancelled_while_it_is_made_it_leaves_nothing(role: Role):
    """At whatever moment: the first ones fall into making the template."""
    for delay in (0.0, 0.005, 0.02, 0.05, 0.1, 0.2):
        with anyio.move_on_after(delay):
            async with make(role.url):
                pass
        left = [name for name in await role.databases() if name.startswith("pgtasks_test")]
        assert left == [], delay


@pytest.mark.parametrize("milliseconds", [20, 60, 120])
async def test_ctrl_c_while_it_is_made_leaves_nothing(role: Role, milliseconds: int):
    code = (
        "import os, signal, sys, threading\n"
        "from pgtasks.testing import temporary_database\n"
        "interrupt = lambda: os.kill(os.getpid(), signal.SIGINT)\n"
        "threading.Timer(float(sys.argv[2]) / 1000, interrupt).start()\n"
        "with temporary_database(sys.argv[1]): threading.Event().wait(5)"
    )
    command = [sys.executable, "-c", code, role.url, str(milliseconds)]
    with anyio.fail_after(20):
        await anyio.run_process(command, check=False, stderr=subprocess.DEVNULL)
    left = [name for name in await role.databases() if name.startswith("pgtasks_test")]
    assert left == []


async def test_the_default_client_is_left_alone(server_url: str, database_url: str):
    async with make(server_url):
        with pytest.raises(NotConnectedError):
            current_client()
    async with connect(database_url) as client:
        async with make(server_url):
            assert current_client() is client
        assert current_client() is client


async def test_its_settings_are_those_of_the_project_with_its_address(
    server_url: str, registry: Registry
):
    ran: list[int] = []
    done = anyio.Event()

    @task(name="work", registry=registry)
    async def work(number: int) -> None:
        ran.append(number)
        done.set()

    config = Config(database=DatabaseConfig(url=server_url, max_connections=3))
    async with make(config=config) as database:
        assert database.config.database.max_connections == 3
        worker = Worker(config=database.config, registry=registry)
        with anyio.fail_after(20):
            async with connect(config=database.config), worker:
                await work.defer(7)
                await done.wait()
    assert ran == [7]


async def test_an_address_wins_over_the_configuration(server_url: str):
    elsewhere = Config(database=DatabaseConfig(url="postgresql://127.0.0.1:1/x"))
    async with make(server_url, elsewhere) as database:
        assert await exists(database, database.url)


async def test_without_the_schema_it_is_empty(server_url: str):
    async with make(server_url, install=False) as database:
        [row] = await on_server(database.url, "SELECT to_regnamespace('pgtasks') IS NULL")
        assert row[0]


def test_it_shows_its_name_and_no_address(server_url: str):
    with make(server_url) as database:
        assert repr(database) == f"TemporaryDatabase({database.name!r})"


def test_outside_its_block_there_is_none(server_url: str):
    with pytest.raises(RuntimeError, match="with temporary_database"):
        make(server_url).url  # noqa: B018
    with make(server_url) as database:
        pass
    with pytest.raises(RuntimeError, match="with temporary_database"):
        database.url  # noqa: B018


# What cannot be done


async def test_a_role_that_may_not_create_databases_is_told_so(server_url: str, role: Role):
    await on_server(server_url, f"ALTER ROLE {role.name} NOCREATEDB")
    with pytest.raises(DatabaseError, match="may not make temporary databases") as caught:
        async with make(role.url):
            pass
    assert "CREATEDB" in str(caught.value)
    assert await role.databases() == []


async def test_a_server_that_is_not_there_is_told():
    with pytest.raises(DatabaseError, match="cannot connect"):
        async with make("postgresql://127.0.0.1:1/x"):
            pass


async def test_that_it_cannot_be_dropped_is_told(server_url: str):
    async def keep(database: TemporaryDatabase, *, template: bool) -> None:
        said = f'ALTER DATABASE "{database.name}" IS_TEMPLATE {str(template).lower()}'
        await on_server(server_url, said)

    database = make(server_url)
    with pytest.raises(DatabaseError, match="cannot be made or dropped"):  # noqa: PT012
        async with database:
            left = attrs.evolve(database)
            left._name, left._server = database.name, database._server
            await keep(database, template=True)
    await keep(left, template=False)
    await left.drop()


async def test_an_error_of_the_block_is_not_hidden_by_that(server_url: str, heard: Heard):
    database = make(server_url)
    with pytest.raises(ZeroDivisionError):  # noqa: PT012
        async with database:
            left = attrs.evolve(database)
            left._name, left._server = database.name, database._server
            await on_server(server_url, f'ALTER DATABASE "{left.name}" IS_TEMPLATE true')
            raise ZeroDivisionError
    assert "a temporary database was not dropped" in heard.events()
    await on_server(server_url, f'ALTER DATABASE "{left.name}" IS_TEMPLATE false')
    await left.drop()


# The template


async def test_processes_that_start_at_once_make_one_template(role: Role):
    code = (
        "import sys; from pgtasks.testing import temporary_database\n"
        "with temporary_database(sys.argv[1]) as database: print(database.name)"
    )
    running = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, role.url, stdout=subprocess.PIPE
        )
        for _ in range(5)
    ]
    answers = [await process.communicate() for process in running]
    assert [process.returncode for process in running] == [0] * 5
    assert len({out for out, _ in answers}) == 5
    [template] = await role.databases()
    assert template.startswith("pgtasks_template_")


async def test_the_template_is_used_again(role: Role):
    async with make(role.url):
        pass
    before = await role.databases()
    async with make(role.url):
        pass
    assert await role.databases() == before


async def test_another_schema_has_a_template_of_its_own(
    role: Role, monkeypatch: pytest.MonkeyPatch
):
    async with make(role.url):
        pass
    script = migrate.script()
    monkeypatch.setattr(migrate, "script", lambda: script + "-- one more")
    async with make(role.url):
        pass
    assert len(await role.databases()) == 2


async def test_nobody_can_connect_to_the_template(role: Role):
    async with make(role.url):
        pass
    [template] = await role.databases()
    with pytest.raises(asyncpg.ObjectNotInPrerequisiteStateError):
        await asyncpg.connect(with_database(role.url, template), timeout=10)


async def test_a_template_that_somebody_drops_meanwhile_is_made_anew(
    role: Role, monkeypatch: pytest.MonkeyPatch
):
    from pgtasks import temporary_database as module

    seen, real = [], module._template

    def pretend(found: Sequence[asyncpg.Record]) -> str | None:
        seen.append(found)
        return "pgtasks_template_dropped" if len(seen) == 1 else real(found)

    monkeypatch.setattr(module, "_template", pretend)
    async with make(role.url) as database:
        assert await exists(database, database.url)


async def test_old_templates_go_when_another_is_made(role: Role):
    now = await clock(role.url)
    old = await role.leave("template", "0123456789ab", now - TEMPLATE_SECONDS - 60)
    young = await role.leave("template", "ba9876543210", now - TEMPLATE_SECONDS + 60)
    async with make(role.url):
        pass
    names = await role.databases()
    assert old not in names
    assert young in names


# What killed runs leave behind


async def test_what_a_killed_run_left_is_dropped_by_the_next(role: Role):
    code = (
        "import os, sys; from pgtasks.testing import temporary_database\n"
        "with temporary_database(sys.argv[1]): os.kill(os.getpid(), 9)"
    )
    killed = await anyio.run_process([sys.executable, "-c", code, role.url], check=False)
    assert killed.returncode == -9
    assert len(await role.databases()) == 2
    async with make(role.url):
        pass
    [template] = await role.databases()
    assert template.startswith("pgtasks_template_")


async def test_only_what_is_surely_left_behind_is_dropped(role: Role):
    """Not what lives, what another machine made lately, or what somebody is connected to."""
    now, here, elsewhere = await clock(role.url), _here(), "00000000"
    dead = await asyncio.create_subprocess_exec("true")
    await dead.wait()
    left = {
        "dead": await role.leave("test", now, here, dead.pid, "aaaaaaaa"),
        "alive": await role.leave("test", now, here, os.getpid(), "bbbbbbbb"),
        "elsewhere": await role.leave("test", now, elsewhere, dead.pid, "cccccccc"),
        "old": await role.leave("test", now - LEFTOVER_SECONDS - 60, elsewhere, 1, "dddddddd"),
        "in use": await role.leave("test", now, here, dead.pid, "eeeeeeee"),
        "not ours": await role.leave("test", "of", "somebody"),
    }
    user = await asyncpg.connect(with_database(role.url, left["in use"]), timeout=10)
    async with make(role.url):
        pass
    await user.close()
    names = await role.databases()
    dropped = {what for what, name in left.items() if name not in names}
    assert dropped == {"dead", "old"}


async def test_what_belongs_to_another_role_is_not_touched(server_url: str, role: Role):
    dead = await asyncio.create_subprocess_exec("true")
    await dead.wait()
    name = await role.leave("test", await clock(role.url), _here(), dead.pid, uuid4().hex[:8])
    async with make(server_url):
        pass
    assert name in await role.databases()
