"""What `pgtasks doctor` says of a server that endangers queues."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import anyio
import asyncpg
import pytest

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
    "check", ["pooler", "timeouts", "room", "notify", "horizon", "vacuum", "wraparound"]
)
def test_nothing_endangers_a_fresh_server(capsys: CLI, check: str):
    [(level, _, step)] = said(capsys, check)
    assert (level, step) == ("ok", None)


def test_time_outs_of_the_role_that_are_too_short(capsys: CLI, database_url: str):
    short = f"{database_url}&statement_timeout=100ms&idle_session_timeout={quote('29 s')}"
    found = said(capsys, "timeouts", "--database-url", short)
    assert [(level, text) for level, text, _ in found] == [
        ("warn", "statement_timeout is 0.1s for this role"),
        ("warn", "idle_session_timeout is 29s for this role"),
    ]
    assert "ALTER ROLE ... SET idle_session_timeout = 0, or at least 30s" in str(found[1][2])


@pytest.fixture
async def snapshot(database_url: str) -> AsyncIterator[int]:
    """The process of somebody whose transaction has seen the database, and stays open."""
    connection = await asyncpg.connect(database_url, server_settings={"application_name": "left"})
    await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1")
    yield connection.get_server_pid()
    connection.terminate()


async def test_who_holds_the_horizon(snapshot: int, monkeypatch: pytest.MonkeyPatch):
    async with open_session(load()) as session:
        at = Patient(session, None, 0.0, 0.0)
        [young] = await dangers.horizon(at)
        monkeypatch.setattr(dangers, "OLD_SNAPSHOT_SECONDS", 0)
        [old] = await dangers.horizon(at)
    assert (young.level, old.level) == ("ok", "warn")
    assert f"pid {snapshot}, role postgres" in old.text
    assert "application left" in old.text
    assert "SELECT 1" in str(old.next_step)


def test_holders_without_an_age_in_seconds():
    holder = {
        "kind": "replication slot", "owner": "slot s", "seconds": None, "doing": "not active",
        "transactions": dangers.OLD_SNAPSHOT_TRANSACTIONS + 1,
    }  # fmt: skip
    assert dangers._is_old(holder)
    assert not dangers._is_old({**holder, "transactions": 5})
    finding = dangers._of_holder(holder)
    assert "slot s" in finding.text
    assert "drop the slot" in str(finding.next_step)


def test_a_table_that_is_never_vacuumed(capsys: CLI, database_url: str):
    async def spoil() -> None:
        connection = await asyncpg.connect(database_url)
        await connection.execute(
            "SELECT pgtasks.create_queue('emails'); "
            "ALTER TABLE pgmq.q_emails SET (autovacuum_enabled = false)"
        )
        await connection.close()

    anyio.run(spoil)
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
