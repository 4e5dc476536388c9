"""docs/interop.md: what it tells to write is run as it stands there."""

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import attrs
import pytest
from postgres.foreign import shaped
from postgres.rows import Rows
from postgres.working import working

from pgtasks import Client, Config, Registry, Retry, connect, message, migrate, task
from pgtasks.config import DatabaseConfig
from pgtasks.connection import open_connection
from pgtasks.store import Store
from pgtasks.testing import drain

PAGE = (Path(__file__).parents[2] / "docs" / "interop.md").read_text("utf-8")
Q = "emails"
TASK = "shop.send_welcome"


def blocks(language: str) -> list[str]:
    """The examples in one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def statements_in(text: str) -> list[str]:
    """The statements of an example in another language: its texts that begin as one."""
    return re.findall(r'"((?:SELECT|INSERT)[^"]*)"', text)


@attrs.define
class Welcome:
    """The task of all the examples, and whom it welcomed."""

    registry: Registry
    users: list[int] = attrs.field(factory=list)

    def __attrs_post_init__(self) -> None:
        @task(name=TASK, queue=Q, registry=self.registry)
        async def send_welcome(user_id: int) -> None:
            self.users.append(user_id)

    async def drained(self, *, delayed: bool = False) -> list[int]:
        """Run what there is; return whom that welcomed."""
        await drain(registry=self.registry, delayed=delayed)
        welcomed, self.users = sorted(self.users), []
        return welcomed


@pytest.fixture
async def welcome(client: Client, registry: Registry, rows: Rows) -> Welcome:
    """With its queue."""
    await Store(rows.connection).create_queue(Q)
    return Welcome(registry)


# Sending


async def test_the_examples_of_sql_run_and_what_they_send_is_run(welcome: Welcome, rows: Rows):
    sending = [text for text in blocks("sql") if "pgmq.send" in text]
    assert len(sending) == 4
    one, later_and_many, trigger, told = sending
    await rows.connection.execute(one)
    assert await welcome.drained() == [42]
    await rows.connection.execute(later_and_many)
    assert await welcome.drained() == [44, 45, 46]
    assert await welcome.drained(delayed=True) == [43]
    heard = list[Any]()
    await rows.connection.add_listener("pgtasks", lambda *args: heard.append(args[3]))
    await rows.connection.execute(trigger)
    assert await welcome.drained() == [1]
    async with rows.connection.transaction():
        await rows.connection.execute("INSERT INTO users (email) SELECT 'b' FROM pg_class LIMIT 5")
    assert await welcome.drained() == [2, 3, 4, 5, 6]
    await rows.connection.execute(told)
    assert await welcome.drained() == [47]
    assert set(heard) == {Q}
    assert len(heard) == 3


@pytest.mark.parametrize("language", ["js", "go", "rust"])
async def test_the_statements_of_other_languages_run(welcome: Welcome, rows: Rows, language: str):
    [text] = blocks(language)
    [statement] = statements_in(text)
    body = json.dumps(
        {"metadata": {"id": str(uuid4()), "worker_name": TASK}, "args": {"user_id": 42}}
    )
    given = [Q, body, 0][: len(set(re.findall(r"\$\d", statement)))]
    assert await rows.connection.fetchval(statement, *given) == 1
    assert TASK in text
    assert await welcome.drained() == [42]


async def test_the_example_of_python_runs(
    welcome: Welcome, config: Config, monkeypatch: pytest.MonkeyPatch
):
    [text] = blocks("python")
    url = "postgresql://shop@db/shop"
    from postgres.pgmq_client import settings_of

    assert url in text
    where = settings_of(config.database.url or "")["conn_string"]
    made = dict[str, Any]()
    exec(text.replace(url, where), made)
    made["queue"].close()
    assert await welcome.drained() == [42]


ARGS = [({"user_id": 7}, 7), ([8], 8), (9, 9)]


@pytest.mark.parametrize(("args", "user"), ARGS)
@pytest.mark.parametrize("own_id", ["0f8fad5b-d9cb-469f-a165-70867728950e", 7])
async def test_what_args_may_be(
    welcome: Welcome, rows: Rows, args: Any, user: int, own_id: str | int
):
    body = {"metadata": {"id": own_id, "worker_name": TASK}, "args": args}
    await rows.fetch("SELECT pgmq.send($1, $2::jsonb)", Q, json.dumps(body))
    assert await welcome.drained() == [user]


# How soon


@pytest.mark.parametrize("told", ["pgtasks", "pgmq", "host"])
async def test_a_foreign_message_that_is_told_of_starts_at_once(
    config: Config, welcome: Welcome, rows: Rows, told: str
):
    """The poll would come after half a minute."""
    if told == "pgmq":
        await rows.fetch("SELECT pgmq.enable_notify_insert($1, 0)", Q)
    async with working(config, welcome.registry):
        for user in range(3):
            body = {"metadata": {"id": user, "worker_name": TASK}, "args": [user]}
            async with rows.connection.transaction():
                await rows.fetch("SELECT pgmq.send($1, $2::jsonb)", Q, json.dumps(body))
                if told != "pgmq":
                    channel = "pgtasks" if told == "pgtasks" else f"pgmq.q_{Q}.INSERT"
                    await rows.fetch("SELECT pg_notify($1, $2)", channel, Q)
            await rows.empty(Q, within_seconds=10)
            assert len(welcome.users) == user + 1


# The archive


async def test_the_archive_is_read_by_the_examples(client: Client, registry: Registry, rows: Rows):
    await Store(rows.connection).create_queue(Q)

    @task(name="done", queue=Q, registry=registry, on_success="archive")
    async def done() -> None: ...

    @task(name="failed", queue=Q, registry=registry, retries=Retry(1, delay=0, jitter=0))
    async def failed() -> None:
        raise ValueError("no such user")

    for _ in range(3):
        await done.defer()
    await failed.defer()
    await rows.call("done", {"unknown": 1}, queue=Q)
    await rows.call("done", None, queue=Q)
    await rows.fetch("SELECT pgmq.archive($1, 6)", Q)
    await drain(registry=registry, raise_errors=False)
    lately, by_day = [text for text in blocks("sql") if "pgmq.a_emails" in text]
    found = {row["msg_id"]: row for row in await rows.fetch(lately)}
    assert {number: row["outcome"] for number, row in found.items()} == {
        4: "failed", 5: "undecodable", 6: None,
    }  # fmt: skip
    assert found[4]["error"] == "ValueError: no such user"
    assert "unknown" in found[5]["error"]
    [day] = await rows.fetch(by_day)
    assert (day["done"], day["failed"]) == (3, 3)
    plan = "\n".join(row[0] for row in await rows.fetch(f"EXPLAIN {lately}"))
    await rows.fetch("SET enable_seqscan = off")
    plan = "\n".join(row[0] for row in await rows.fetch(f"EXPLAIN {lately}"))
    assert "failed_at_idx_emails" in plan


def test_every_key_of_our_headers_is_told():
    section = PAGE.partition("\n## What headers hold\n")[2].partition("\n## ")[0]
    told = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    ending = ["outcome", "attempts", "seconds", "worker", "reason"]
    assert set(told) == {*message._KEPT, *ending}


# Whose pgmq it is


@pytest.fixture
async def host(empty_database_url: str) -> AsyncIterator[Any]:
    connection = await open_connection(DatabaseConfig(url=empty_database_url), "tests")
    await connection.execute(shaped("1.13"))
    await migrate.upgrade(connection)
    yield connection
    await connection.close()


async def test_the_examples_of_sending_run_as_a_guest_too(
    host: Any, empty_database_url: str, registry: Registry
):
    welcome = Welcome(registry)
    async with connect(empty_database_url):
        await Store(host).create_queue(Q)
        await host.execute(blocks("sql")[0])
        assert await welcome.drained() == [42]


async def test_a_host_that_tells_of_inserts_wakes_workers(
    host: Any, empty_database_url: str, config: Config, registry: Registry
):
    settings = attrs.evolve(config, database=DatabaseConfig(url=empty_database_url))
    welcome = Welcome(registry)
    await host.execute(f"SELECT pgmq.create('{Q}'), pgmq.enable_notify_insert('{Q}', 0)")
    async with working(settings, registry):
        await host.execute(blocks("sql")[0])
        await Rows(host).empty(Q, within_seconds=10)
        assert welcome.users == [42]
