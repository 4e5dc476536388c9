"""Workers and clients behind PgBouncer in transaction mode."""

import asyncio
import time
from collections.abc import Iterator, Mapping

import pytest
from acceptance.bouncer import Bouncer, needs_pgbouncer
from acceptance.conftest import StartWorker
from acceptance.history import History
from acceptance.tables import Tables
from acceptance.tasks_under_test import quick, slow
from eventually import eventually

from pgtasks import Client, connect, exit_codes
from pgtasks.cli import main
from pgtasks.config import Config, DatabaseConfig

pytestmark = needs_pgbouncer

BACK_SECONDS = 5.0
LATE_SECONDS = 3.0
CALL_SECONDS = 5.0


@pytest.fixture
def bouncer(database_url: str) -> Iterator[Bouncer]:
    """What stands between the workers of this test and its database: three connections."""
    with Bouncer(database_url) as opened:
        yield opened


def behind(bouncer: Bouncer, **more: str) -> Mapping[str, str]:
    """Settings of a worker that reaches its database through the pooler."""
    return {"PGTASKS_DATABASE_URL": bouncer.url, **more}


@pytest.mark.parametrize("known", ["true", "none"], ids=["configured", "found out"])
async def test_workers_share_fewer_connections_than_they_have(  # noqa: PLR0917 - fixtures
    start_worker: StartWorker,
    bouncer: Bouncer,
    client: Client,
    tables: Tables,
    history: History,
    known: str,
) -> None:
    """Four workers of four connections each, over three: no error, and one line about LISTEN."""
    environ = behind(bouncer, PGTASKS__DATABASE__PGBOUNCER=known)
    workers = [start_worker("--processes", "2", environ=environ) for _ in range(4)]
    for worker in workers:
        worker.wait_until_ready(2)
    through = Config(database=DatabaseConfig(url=bouncer.url))
    async with connect(config=through):
        handles = await quick.defer_many([(f"m{n}",) for n in range(1000)])
        handles += [await slow.defer(f"s{n}", 0.2) for n in range(20)]
    await tables.drained(40)

    await tables.all_done_once(handle.message_id for handle in handles)
    assert not history.duplicates()
    for worker in workers:
        assert worker.stop() == exit_codes.OK
        bad = [line for line in worker.lines() if line["level"] in {"warning", "error"}]
        assert [line["event"][:6] for line in bad] == ["LISTEN"], bad


async def test_work_goes_on_after_the_pooler_was_away(
    start_worker: StartWorker, bouncer: Bouncer, client: Client, tables: Tables, history: History
) -> None:
    worker = start_worker("--concurrency", "4", environ=behind(bouncer)).wait_until_ready()
    await slow.defer_many([(f"m{n}", 0.02) for n in range(200)])
    history.wait_until_started(20)

    bouncer.stop()
    worker.wait_for("fetching failed")
    bouncer.start()
    back_at = time.monotonic()
    await quick.defer("after")
    eventually(lambda: _ended(history, "after"), within_seconds=BACK_SECONDS + LATE_SECONDS)

    assert history.of("after")[0].at - back_at < BACK_SECONDS
    await tables.drained()
    assert not history.lost(f"m{n}" for n in range(200))
    assert len(worker.lines("worker ready")) == 1, "its process was replaced"
    assert worker.stop() == exit_codes.OK


async def test_a_paused_pooler_costs_neither_a_lease_nor_a_message(
    start_worker: StartWorker, bouncer: Bouncer, client: Client, tables: Tables, history: History
) -> None:
    """As before a switch-over; shorter than a lease, nobody notices but by waiting."""
    worker = start_worker("--concurrency", "4", environ=behind(bouncer)).wait_until_ready()
    await slow.defer("running", 4.0)
    await slow.defer_many([(f"m{n}", 0.02) for n in range(100)])
    history.wait_until_started(20)

    bouncer.pause()
    await asyncio.sleep(1.0)
    bouncer.resume()
    await tables.drained()

    assert not history.lost({"running", *(f"m{n}" for n in range(100))})
    assert history.starts()["running"] == 1
    assert worker.stop() == exit_codes.OK


async def test_a_pooler_paused_for_long_is_waited_for(
    start_worker: StartWorker, bouncer: Bouncer, client: Client, tables: Tables, history: History
) -> None:
    """Longer than a statement may take: each is given up, and tried again."""
    worker = start_worker("--concurrency", "4", environ=behind(bouncer)).wait_until_ready()
    bouncer.pause()
    worker.wait_for("fetching failed", within_seconds=CALL_SECONDS + 2 + LATE_SECONDS)
    bouncer.resume()
    back_at = time.monotonic()
    await quick.defer("after")
    eventually(lambda: _ended(history, "after"), within_seconds=CALL_SECONDS + BACK_SECONDS)

    assert history.of("after")[0].at - back_at < BACK_SECONDS + LATE_SECONDS
    assert worker.stop() == exit_codes.OK


@pytest.mark.parametrize("command", [("doctor", "--json"), ("queue", "list"), ("db", "check")])
async def test_commands_work_behind_it(
    bouncer: Bouncer,
    tables: Tables,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: tuple[str, ...],
) -> None:
    monkeypatch.setenv("PGTASKS_DATABASE_URL", bouncer.url)
    assert await asyncio.to_thread(main, command) == exit_codes.OK, capsys.readouterr()


def _ended(history: History, key: str) -> None:
    assert key in history.keys("end")
