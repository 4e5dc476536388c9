"""Anybody who can connect can send a NOTIFY: it costs little, whatever it says, however often."""

import asyncio
import resource
from collections.abc import AsyncIterator
from time import monotonic
from typing import Any

import asyncpg
import attrs
import pytest
from postgres.rows import Rows, seconds
from postgres.working import working

from pgtasks import Config, Registry, connect, task
from pgtasks.config import PeriodicConfig, QueueFetchConfig, RetentionConfig, WorkerConfig
from pgtasks.fetcher import CALL_PAUSE_SECONDS, CALLS_IN_A_ROW
from pgtasks.store import Store

SECONDS = 2.0
LOOKS = 2 * (CALLS_IN_A_ROW + SECONDS / CALL_PAUSE_SECONDS)
"""Each call may be followed by a full look."""


@attrs.define
class Flood:
    """Somebody who sends notifications as fast as he can."""

    connection: Any
    sent: int = 0

    async def run(self, payloads: str, *, each_apart: bool) -> None:
        """Send for some seconds; the payloads are an expression with `n`."""
        end_at = monotonic() + SECONDS
        # One transaction tells the same thing only once.
        apart = "COMMIT;" if each_apart else ""
        many = (
            f"DO $$ BEGIN FOR n IN 1..1000 LOOP PERFORM pg_notify('pgtasks', {payloads}); {apart} "
            "END LOOP; END $$"
        )
        while monotonic() < end_at:
            await self.connection.execute(many, timeout=30)
            self.sent += 1000


@pytest.fixture
async def flood(database_url: str) -> AsyncIterator[Flood]:
    connection = await asyncpg.connect(database_url)
    await connection.execute("SET synchronous_commit = off")
    yield Flood(connection)
    await connection.close()


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How often was looked for messages, and for schedules."""
    counts, claim, coming = {"claim": 0, "coming": 0}, Store.claim, Store.coming_schedules

    async def counted_claim(self: Store, *args: Any) -> Any:
        counts["claim"] += 1
        return await claim(self, *args)

    async def counted_coming(self: Store, *args: Any) -> Any:
        counts["coming"] += 1
        return await coming(self, *args)

    monkeypatch.setattr(Store, "claim", counted_claim)
    monkeypatch.setattr(Store, "coming_schedules", counted_coming)
    return counts


@pytest.fixture
def quiet(config: Config) -> Config:
    """Settings under which nothing happens by itself."""
    return attrs.evolve(
        config,
        worker=WorkerConfig(
            queue_fetch=QueueFetchConfig(empty_delay=seconds(30)),
            retention=RetentionConfig(enable=False),
            periodic=PeriodicConfig(stale_cleanup="manual"),
            grace=seconds(5),
        ),
    )


@pytest.fixture
def ran(registry: Registry) -> list[float]:
    moments = list[float]()

    @task(name="work", registry=registry)
    async def work() -> None:
        moments.append(monotonic())

    return moments


GARBAGE = {
    "no queue": "'nobody ' || n",
    "hostile": "chr(27) || '[31m''; DROP TABLE pgmq.meta; --' || chr(10) || n",
    "long": "repeat('x', 7000) || n",
}


@pytest.mark.parametrize("payloads", GARBAGE.values(), ids=GARBAGE)
async def test_garbage_is_heard_and_nothing_is_looked_for(  # noqa: PLR0917 - fixtures
    quiet: Config, registry: Registry, rows: Rows, ran: list[float], flood: Flood,
    looks: dict[str, int], payloads: str,
):  # fmt: skip
    async with connect(config=quiet), working(quiet, registry):
        await asyncio.sleep(0.3)  # what is looked for at the start
        before, used_before = dict(looks), _used_seconds()
        await flood.run(payloads, each_apart=False)
        used = _used_seconds() - used_before
        assert looks["claim"] - before["claim"] <= 2
        assert looks["coming"] - before["coming"] <= 2
        await registry.get("work").defer()  # type: ignore[union-attr]
        await _has_run(ran)
    # The test's own half is in it, and other processes slow both down.
    assert used < SECONDS
    assert flood.sent >= 2000


@pytest.mark.parametrize("name", ["default", "@schedules"])
async def test_a_flood_in_the_name_of_what_there_is_costs_few_looks(  # noqa: PLR0917 - fixtures
    quiet: Config, registry: Registry, rows: Rows, ran: list[float], flood: Flood,
    looks: dict[str, int], name: str,
):  # fmt: skip
    async with connect(config=quiet), working(quiet, registry):
        await asyncio.sleep(0.3)
        before = dict(looks)
        await flood.run(f"'{name}'", each_apart=True)
        assert looks["claim"] - before["claim"] <= LOOKS
        assert looks["coming"] - before["coming"] <= LOOKS
        kind = "claim" if name == "default" else "coming"
        assert looks[kind] - before[kind] >= CALLS_IN_A_ROW  # it was heard
        sent_at = monotonic()
        await registry.get("work").defer()  # type: ignore[union-attr]
        await _has_run(ran)
        assert ran[-1] - sent_at < 1
    assert flood.sent >= 2000


async def test_what_is_sent_in_the_midst_of_a_flood_is_soon_run(
    quiet: Config, registry: Registry, rows: Rows, ran: list[float], flood: Flood
):
    async with connect(config=quiet), working(quiet, registry):
        flooding = asyncio.ensure_future(flood.run("'default'", each_apart=True))
        waits = list[float]()
        while not flooding.done():
            sent_at, number = monotonic(), len(ran)
            await registry.get("work").defer()  # type: ignore[union-attr]
            await _has_run(ran, number + 1)
            waits.append(ran[-1] - sent_at)
        await flooding
    assert max(waits) < 1.0
    assert len(waits) > 10


async def test_a_notification_says_the_name_of_a_queue_and_nothing_else(
    quiet: Config, rows: Rows, database_url: str
):
    """Whoever listens learns where something is to do, not what."""
    heard = list[str]()
    ear = await asyncpg.connect(database_url)
    await ear.add_listener("pgtasks", lambda *said: heard.append(said[-1]))
    secret = task(name="secret", registry=Registry())(lambda card: card)
    try:
        async with connect(config=quiet):
            await secret.defer("4111 1111")
            await secret.options(retries=3, timeout=5).defer_many([("4111 1111",)] * 3)
        await ear.fetchval("SELECT 1")
    finally:
        await ear.close()
    assert heard == ["default", "default"]


async def _has_run(ran: list[float], times: int = 1) -> None:
    async with asyncio.timeout(10):
        while len(ran) < times:
            await asyncio.sleep(0.002)


def _used_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
