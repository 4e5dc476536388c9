"""What `pgtasks doctor` says of a server that endangers queues."""

import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

import anyio
import asyncpg
import pytest
from eventually import eventually_async

from pgtasks import exit_codes
from pgtasks.cli import dangers, main
from pgtasks.cli.finding import Patient
from pgtasks.cli.session import open_session
from pgtasks.layers import load

CLI = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _configured(database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PGTASKS_DATABASE_URL", database_url)
    monkeypatch.chdir(tmp_path)


def said(capsys: CLI, check: str, *arguments: str) -> list[tuple[str, str, str | None]]:
    main(["doctor", "--json", *arguments])
    found = json.loads(capsys.readouterr().out)
    return [(one["level"], one["text"], one["next_step"]) for one in found if one["check"] == check]


@pytest.mark.parametrize(
    "check", ["pooler", "timeouts", "room", "notify", "horizon", "vacuum", "wraparound", "rights"]
)
def test_nothing_endangers_a_fresh_server(capsys: CLI, check: str):
    [(level, _, step)] = said(capsys, check)
    assert (level, step) == ("ok", None)


def test_time_outs_of_the_connection_that_are_too_short(capsys: CLI, database_url: str):
    short = f"{database_url}&statement_timeout=100ms&idle_session_timeout={quote('29 s')}"
    found = said(capsys, "timeouts", "--database-url", short)
    assert [(level, text) for level, text, _ in found] == [
        ("warn", "statement_timeout is 0.1s for this role"),
        ("warn", "idle_session_timeout is 29s for this role"),
    ]
    assert "take it out of database.url" in str(found[0][2])
    assert "at least 30s" in str(found[1][2])


@pytest.fixture
def limited(database_url: str) -> Iterator[str]:
    """The address of a role that may look at queues, and whose locks time out too soon."""
    name = f"limited_{uuid4().hex[:8]}"
    run(
        database_url,
        f"CREATE ROLE {name} LOGIN; GRANT USAGE ON SCHEMA pgtasks, pgmq TO {name};"
        f"GRANT SELECT ON ALL TABLES IN SCHEMA pgtasks TO {name};"
        f"GRANT SELECT ON pgmq.meta TO {name}; ALTER ROLE {name} SET lock_timeout = '50ms'",
    )
    yield database_url.replace("//postgres@", f"//{name}@")
    run(database_url, f"DROP OWNED BY {name}; DROP ROLE {name}")


def role_of(url: str) -> str:
    return url.partition("//")[2].partition("@")[0]


def run(url: str, statement: str) -> None:
    async def at_once() -> None:
        connection = await asyncpg.connect(url)
        await connection.execute(statement)
        await connection.close()

    anyio.run(at_once)


def test_what_would_change_a_time_out_of_the_role_is_named(capsys: CLI, limited: str):
    [(_, text, step)] = said(capsys, "timeouts", "--database-url", limited)
    assert text == "lock_timeout is 50ms for this role"
    assert str(step).startswith(f"ALTER ROLE {role_of(limited)} SET lock_timeout = 0, or at least")


def test_what_would_change_a_time_out_of_the_database_is_named(capsys: CLI, database_url: str):
    name = database_url.partition("?")[0].rpartition("/")[2]
    run(database_url, f"ALTER DATABASE {name} SET lock_timeout = '50ms'")
    [(_, _, step)] = said(capsys, "timeouts")
    assert str(step).startswith(f"ALTER DATABASE {name} SET lock_timeout = 0, or at least")


HOLDING = {
    "has seen the database": "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1",
    "has written to it": "BEGIN; CREATE TABLE written ()",
}


@pytest.fixture(params=HOLDING)
async def holder(database_url: str, request: pytest.FixtureRequest) -> AsyncIterator[int]:
    """The process of somebody whose transaction stays open."""
    connection = await asyncpg.connect(database_url, server_settings={"application_name": "left"})
    await connection.execute(HOLDING[request.param])
    yield connection.get_server_pid()
    connection.terminate()


async def test_who_holds_the_horizon(
    holder: int, database_url: str, monkeypatch: pytest.MonkeyPatch
):
    """It is the one without which a vacuum removes what is dead, by the statement that is named."""
    async with open_session(load()) as session:
        at = Patient(session, {}, 0.0, 0.0)
        [young] = await dangers.horizon(at)
        monkeypatch.setattr(dangers, "OLD_SNAPSHOT_SECONDS", 0)
        [old] = await dangers.horizon(at)
    assert (young.level, old.level) == ("ok", "warn")
    assert f"pid {holder}, role postgres" in old.text
    assert "application left" in old.text
    assert "it is idle in transaction: BEGIN" in str(old.next_step)

    connection = await asyncpg.connect(database_url)

    async def removed() -> None:
        assert await _left_by_a_vacuum(connection) == 0

    try:
        await connection.execute("CREATE TABLE dying AS SELECT 1 AS a; DELETE FROM dying")
        assert await _left_by_a_vacuum(connection) == 1
        await connection.fetchval(str(old.next_step).split("`")[1])
        await eventually_async(removed)
    finally:
        await connection.execute("DROP TABLE IF EXISTS dying")
        await connection.close()


async def _left_by_a_vacuum(connection: "asyncpg.Connection[asyncpg.Record]") -> int:
    """How many dead rows there are in one table after a vacuum."""
    said: list[str] = []
    connection.add_log_listener(lambda _, message: said.append(str(message)))
    await connection.execute("VACUUM (VERBOSE) dying")
    [dead] = re.findall(
        r"(\d+) (?:are dead but not yet removable|dead row versions cannot)", str(said)
    )
    return int(dead)


def test_a_role_that_may_claim_and_not_end_is_told_so(capsys: CLI, database_url: str, limited: str):
    """Its worker would run each message again and again."""
    role = role_of(limited)
    run(database_url, "SELECT pgtasks.create_queue('emails')")
    [(level, text, _)] = said(capsys, "rights", "--database-url", limited)
    assert (level, "from no queue" in text) == ("ok", True)
    run(database_url, f"GRANT SELECT, INSERT, UPDATE ON pgmq.q_emails, pgmq.a_emails TO {role}")
    [(level, text, step)] = said(capsys, "rights", "--database-url", limited)
    assert level == "warn"
    assert "lacks DELETE on pgmq.q_emails" in text
    assert step == f"GRANT DELETE ON pgmq.q_emails TO {role}"
    run(database_url, str(step))
    assert said(capsys, "rights", "--database-url", limited) == [
        ("ok", "what this role may claim it may also end", None)
    ]


def test_who_does_not_see_the_sessions_of_others_is_told_so(
    capsys: CLI, database_url: str, limited: str
):
    """Else nothing would seem to be wrong."""
    [(level, text, step)] = said(capsys, "horizon", "--database-url", limited)
    assert level == "warn"
    assert "does not see" in text
    grant = f"GRANT pg_read_all_stats TO {role_of(limited)}"
    assert grant in str(step)
    run(database_url, grant)
    [(level, _, _)] = said(capsys, "horizon", "--database-url", limited)
    assert level == "ok"


def test_connections_of_others_are_counted_by_whoever_looks(
    capsys: CLI, database_url: str, limited: str
):
    async def with_others() -> int:
        others = [await asyncpg.connect(database_url) for _ in range(7)]
        async with open_session(load({"database.url": limited})) as session:
            [found] = await dangers.connections(Patient(session, {}, 0.0, 0.0))
        for other in others:
            await other.close()
        return int(found.text.split()[0])

    assert anyio.run(with_others) >= 7 + 1


@pytest.mark.parametrize(
    ("kind", "seconds", "says"),
    [
        ("replication slot", None, "`SELECT 1` if nobody reads it"),
        ("standby", None, "hot_standby_feedback"),
        ("prepared transaction", 301.0, "`SELECT 1`, or COMMIT PREPARED"),
    ],
)
def test_other_holders(kind: str, seconds: float | None, says: str):
    holder = {
        "kind": kind, "owner": "slot s", "seconds": seconds, "doing": "not active",
        "transactions": dangers.OLD_SNAPSHOT_TRANSACTIONS + 1, "ending": "SELECT 1",
    }  # fmt: skip
    assert dangers._is_old(holder)
    assert not dangers._is_old({**holder, "transactions": 5, "seconds": seconds and 299.0})
    finding = dangers._of_holder(holder)
    assert "slot s" in finding.text
    assert says in str(finding.next_step)


def test_a_table_that_is_never_vacuumed(capsys: CLI, database_url: str):
    run(
        database_url,
        "SELECT pgtasks.create_queue('emails'); "
        "ALTER TABLE pgmq.q_emails SET (autovacuum_enabled = false)",
    )
    [(level, text, step)] = said(capsys, "vacuum")
    assert level == "warn"
    assert text.startswith("pgmq.q_emails: ")
    assert step == "ALTER TABLE pgmq.q_emails RESET (autovacuum_enabled)"


@pytest.mark.parametrize(
    ("dead", "rows", "worn"),
    [(100_001, 100_000, True), (100_001, 200_000, False), (99_999, 1, False), (None, None, False)],
)
def test_a_table_with_more_dead_rows_than_live(dead: int | None, rows: int | None, worn: bool):
    table = {
        "name": "pgmq.q_a", "dead_rows": dead, "rows": rows, "vacuumed_seconds_ago": None,
        "is_never_vacuumed": False,
    }  # fmt: skip
    assert dangers._is_worn(table) is worn
    assert "vacuumed never" in dangers._of_table(table).text


@pytest.mark.parametrize(
    ("limit", "value", "check", "level"),
    [
        ("FREE_CONNECTIONS", 100_000, "room", "warn"),
        ("NOTIFICATIONS", -1.0, "notify", "warn"),
        ("WRAPAROUND", -1, "wraparound", "fail"),
    ],
)
def test_limits(  # noqa: PLR0917 - a table
    capsys: CLI, monkeypatch: pytest.MonkeyPatch, limit: str, value: float, check: str, level: str
):
    monkeypatch.setattr(dangers, limit, value)
    found = said(capsys, check)
    assert {one[0] for one in found} == {level}
    assert all(one[2] for one in found)
    assert main(["doctor"]) == (exit_codes.FAILED if level == "fail" else exit_codes.OK)


@pytest.mark.parametrize(
    ("transactions", "multixacts", "says"),
    [(1_500_000_001, 5, "1,500,000,001 transactions"), (5, 1_500_000_001, "1,500,000,001 multi")],
)
def test_what_the_server_runs_out_of_is_named(transactions: int, multixacts: int, says: str):
    aged = {"frozen_age": transactions, "multixact_age": multixacts}
    assert dangers._is_near(aged)
    finding = dangers._of_age("pgmq.q_a", aged, "VACUUM (FREEZE) pgmq.q_a now")
    assert finding.level == "fail"
    assert finding.text.startswith(f"pgmq.q_a: {says}")


@pytest.mark.parametrize(
    ("pgbouncer", "level"), [("true", "ok"), ("none", "ok"), ("false", "warn")]
)
async def test_a_pooler_in_front(
    database_url: str, monkeypatch: pytest.MonkeyPatch, pgbouncer: str, level: str
):
    """Another process answers than the one that introduced itself."""
    given = {"database.url": database_url, "database.pgbouncer": pgbouncer}
    async with open_session(load(given)) as session:
        monkeypatch.setattr(type(session.connection), "get_server_pid", lambda _: 0)
        [finding] = await dangers.pooler(Patient(session, None, 0.0, 0.0))
    assert finding.level == level
