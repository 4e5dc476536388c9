"""Schedules in the database: who declares them, who fires them, and how often."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import attrs
import pytest
from eventually import eventually_async
from postgres.conftest import Heard
from postgres.rows import Rows, seconds
from postgres.working import working

from pgtasks import Client, Config, ConfigError, Context, Registry, RetryLater, Schedule, task
from pgtasks.config import PeriodicConfig
from pgtasks.declaration import Declaration
from pgtasks.message import new_id
from pgtasks.schedules import CHANGED, Schedules
from pgtasks.store import Store
from pgtasks.stored_schedule import StoredSchedule

HOURLY = "0 * * * *"


@attrs.frozen
class Table:
    """What stands in the tables of schedules, and what a test does to it."""

    rows: Rows

    async def names(self) -> list[str]:
        found = await self.rows.fetch("SELECT name FROM pgtasks.schedule ORDER BY 1")
        return [row[0] for row in found]

    async def one(self, name: str) -> asyncpg.Record:
        [row] = await self.rows.fetch("SELECT * FROM pgtasks.schedule WHERE name = $1", name)
        return row

    async def fires(self, name: str) -> list[asyncpg.Record]:
        return await self.rows.fetch(
            "SELECT * FROM pgtasks.fire WHERE schedule = $1 ORDER BY fire_at", name
        )

    async def fired(self, name: str, number: int) -> list[asyncpg.Record]:
        async def so_often() -> list[asyncpg.Record]:
            found = await self.fires(name)
            assert len(found) >= number
            return found

        return await eventually_async(so_often)

    async def declared(self, *names: str) -> None:
        async def there() -> None:
            assert set(await self.names()) == set(names)

        await eventually_async(there)

    async def missed(self, name: str, since: timedelta) -> datetime:
        """Let a schedule stand as if nobody had fired it for so long; return its oldest tick."""
        [row] = await self.rows.fetch(
            "UPDATE pgtasks.schedule "
            "SET next_fire_at = date_trunc('hour', clock_timestamp(), 'UTC') - $2::interval "
            "WHERE name = $1 RETURNING next_fire_at",
            name,
            since,
        )
        await self.tell()
        tick: datetime = row[0]
        return tick

    async def due(self, name: str) -> None:
        """Let a tick be due now."""
        await self.missed(name, timedelta(0))

    async def stale(self, name: str, since: timedelta, owner: str | None = None) -> None:
        await self.rows.fetch(
            "UPDATE pgtasks.schedule SET seen_at = clock_timestamp() - $2::interval, "
            "owner = coalesce($3, owner) WHERE name = $1",
            name,
            since,
            owner,
        )

    async def seen_for(self, name: str, length: timedelta) -> None:
        """Wait until a worker has declared a schedule for so long."""
        began_at = (await self.one(name))["seen_at"]

        async def so_long() -> None:
            assert (await self.one(name))["seen_at"] - began_at > length

        await eventually_async(so_long)

    async def tell(self) -> None:
        await self.rows.fetch("SELECT pg_notify('pgtasks', $1)", CHANGED)


@pytest.fixture
def table(rows: Rows) -> Table:
    """The tables of schedules."""
    return Table(rows)


def periodic(config: Config, **changes: Any) -> Config:
    worker = attrs.evolve(config.worker, periodic=PeriodicConfig(**changes))
    return attrs.evolve(config, worker=worker)


def hourly(registry: Registry, name: str = "work", **settings: Any) -> list[datetime | None]:
    """Register a task that is sent at every full hour; what is returned fills with its ticks."""
    ran: list[datetime | None] = []

    @task(name=name, registry=registry, cron=HOURLY, **settings)
    async def work(context: Context) -> None:
        ran.append(context.scheduled_at)

    return ran


# Firing


async def test_a_schedule_fires_at_its_tick(
    config: Config, registry: Registry, rows: Rows, table: Table
):
    ran = list[tuple[str | None, datetime | None]]()

    @task(name="work", registry=registry, every=1)
    async def work(context: Context) -> None:
        ran.append((context.schedule, context.scheduled_at))

    async with working(config, registry):
        fires = await table.fired("work", 2)
        await rows.empty()
    assert ran[:2] == [("work", fire["fire_at"]) for fire in fires[:2]]
    assert (fires[1]["fire_at"] - fires[0]["fire_at"]).total_seconds() == 1
    assert all(fire["fired_at"] >= fire["fire_at"] for fire in fires)
    assert all(fire["fire_at"].microsecond == 0 for fire in fires)


async def test_workers_fire_a_tick_once(
    config: Config, registry: Registry, rows: Rows, table: Table
):
    ran = hourly(registry, misfire="catch_up")
    async with working(config, registry), working(config, registry), working(config, registry):
        await table.declared("work")
        await table.missed("work", timedelta(hours=20))
        await table.fired("work", 21)
        await rows.empty()
    assert sorted(filter(None, ran)) == [fire["fire_at"] for fire in await table.fires("work")]
    assert len(ran) == 21


async def test_of_many_that_fire_one_tick_one_sends(
    rows: Rows, table: Table, database_url: str, store: Store
):
    """And the others are not even told of an error."""
    known = await _due_schedule(table, store)
    connections = [await asyncpg.connect(database_url) for _ in range(12)]
    try:
        fired = [_fire(Store(connection), known) for connection in connections]
        won = await asyncio.gather(*fired)
    finally:
        for connection in connections:
            connection.terminate()
    assert won.count(True) == 1
    assert len(await rows.all()) == len(await table.fires("s")) == 1


async def test_a_tick_that_was_fired_is_not_fired_again(rows: Rows, table: Table, store: Store):
    """Also when the next one is due already, and when nothing was sent."""
    known = await _due_schedule(table, store, hours=2)
    message, jitter = None, timedelta(0)
    tick = _tick(known)
    following = tick + timedelta(hours=1)
    assert await store.fire(known, tick, following, message, jitter, notify=False)
    assert not await _fire(store, known)
    assert await rows.all() == []


async def test_nobody_looks_at_what_is_paused_or_unknown(table: Table, store: Store):
    known = await _due_schedule(table, store)

    async def coming(**changes: Any) -> list[str]:
        asked: dict[str, Any] = {"declared": [], "tasks": ["work"], "without": [], **changes}
        return [row["name"] for row in await store.coming_schedules(**asked, limit=5)]

    assert await coming() == ["s"]
    assert await coming(tasks=["other"]) == []
    assert await coming(without=["s"]) == []
    await store.pause_schedule(known.name)
    assert await coming() == []


async def _due_schedule(table: Table, store: Store, hours: int = 0) -> StoredSchedule:
    declared = Declaration(Schedule("s", cron=HOURLY), "work", "null")
    await Schedules(store.on).set(declared, "default")
    await table.missed("s", timedelta(hours=hours))
    return await Schedules(store.on).get("s")


async def _fire(store: Store, known: StoredSchedule) -> bool:
    made = known.declaration
    message = made.body(new_id()), made.headers("2027-01-01T00:00:00+00:00")
    following = known.schedule.next_after(known.read_at)
    row = await store.fire(known, _tick(known), following, message, timedelta(0), notify=False)
    return row is not None


async def test_a_changed_schedule_is_not_fired_as_it_was(rows: Rows, table: Table, store: Store):
    known = await _due_schedule(table, store)
    await Schedules(store.on).set(attrs.evolve(known.declaration, args="7"), "default")
    assert not await _fire(store, known)
    assert await rows.all() == await table.fires("s") == []


def _tick(known: StoredSchedule) -> datetime:
    assert known.next_fire_at is not None
    return known.next_fire_at


@pytest.mark.parametrize(
    ("misfire", "hours", "expected"),
    [("coalesce", 2, 1), ("skip", 2, 0), ("catch_up", 2, 3), ("catch_up", 200, 100)],
)
async def test_missed_ticks_are_made_up_for_by_policy(  # noqa: PLR0917 - a table
    config: Config,
    registry: Registry,
    rows: Rows,
    table: Table,
    misfire: str,
    hours: int,
    expected: int,
):
    if misfire == "skip":
        await _away_from_a_full_hour()
    ran = hourly(registry, misfire=misfire)
    async with working(config, registry):
        await table.declared("work")
        oldest = await table.missed("work", timedelta(hours=hours))

        async def moved_on() -> None:
            assert (await table.one("work"))["next_fire_at"] > datetime.now(UTC)

        await eventually_async(moved_on)
        await rows.empty()
    fires = [fire["fire_at"] for fire in await table.fires("work")]
    latest = oldest + timedelta(hours=hours)
    assert fires == sorted(filter(None, ran))
    assert fires == [latest - timedelta(hours=n) for n in reversed(range(expected))]


async def _away_from_a_full_hour() -> None:
    """A tick of this moment would be on time, and not a missed one."""
    now = datetime.now(UTC)
    if now.minute == 0 and now.second < 10:
        await asyncio.sleep(10 - now.second)


async def test_the_ledger_keeps_a_tick_from_being_fired_again(
    config: Config, registry: Registry, rows: Rows, table: Table
):
    """Also when the schedule was removed and made again, or somebody moved it back."""
    ran = hourly(registry)
    async with working(config, registry):
        await table.declared("work")
        await table.due("work")
        await table.fired("work", 1)
        await table.due("work")

        async def moved_on() -> None:
            assert (await table.one("work"))["next_fire_at"] > datetime.now(UTC)

        await eventually_async(moved_on)
        await rows.empty()
    assert len(ran) == len(await table.fires("work")) == 1


async def test_a_tick_is_skipped_while_the_last_message_is_there(
    config: Config, registry: Registry, rows: Rows, table: Table
):
    may_end, started = asyncio.Event(), list[datetime | None]()

    @task(name="work", registry=registry, cron=HOURLY, overlap="skip", misfire="catch_up")
    async def work(context: Context) -> None:
        started.append(context.scheduled_at)
        await may_end.wait()

    async with working(config, registry):
        await table.declared("work")
        await table.missed("work", timedelta(hours=2))
        fires = await table.fired("work", 3)
        assert [fire["message_id"] is None for fire in fires] == [False, True, True]
        may_end.set()
        await rows.empty()
        await rows.fetch("DELETE FROM pgtasks.fire")
        await table.due("work")
        [fire] = await table.fired("work", 1)
        await rows.empty()
    assert fire["message_id"] is not None
    assert started == [fires[0]["fire_at"], fires[2]["fire_at"]]


async def test_the_tick_stays_with_the_message_over_retries(
    config: Config, registry: Registry, rows: Rows, table: Table
):
    ran = list[datetime | None]()

    @task(name="work", registry=registry, cron=HOURLY)
    async def work(context: Context) -> None:
        ran.append(context.scheduled_at)
        if len(ran) < 3:
            raise RetryLater(0)

    async with working(config, registry):
        await table.declared("work")
        await table.due("work")
        [fire] = await table.fired("work", 1)
        await rows.empty()
    assert ran == [fire["fire_at"]] * 3


async def test_jitter_delays_the_message_and_not_the_tick(
    config: Config, registry: Registry, rows: Rows, table: Table
):
    hourly(registry, jitter="1h", queue="jittered")
    async with working(config, registry):
        await table.declared("work")
        await table.due("work")
        [fire] = await table.fired("work", 1)
    [row] = await rows.all("jittered")
    assert 0 <= row["due_in"] <= 3600
    assert json.loads(row["headers"])["pgtasks"]["schedule"]["at"] == fire["fire_at"].isoformat()


async def test_arguments_and_queue_of_each_schedule(
    config: Config, registry: Registry, rows: Rows, table: Table
):
    ran = list[tuple[str, int]]()

    @task(
        name="work",
        registry=registry,
        queue="usual",
        schedules=[
            Schedule("small", cron=HOURLY, args=("s",)),
            Schedule("large", cron=HOURLY, args=("l",), kwargs={"size": 9}, queue="special"),
        ],
    )
    async def work(name: str, *, size: int = 1) -> None:
        ran.append((name, size))

    async with working(config, registry, queues=["usual", "special"]):
        await table.declared("small", "large")
        await table.due("small")
        await table.due("large")
        await rows.empty("usual")
        await rows.empty("special")

        async def both() -> None:
            assert sorted(ran) == [("l", 9), ("s", 1)]

        await eventually_async(both)
    assert (await table.one("large"))["last_queue"] == "special"


async def test_a_rule_nobody_understands_keeps_no_other_from_firing(
    config: Config, registry: Registry, rows: Rows, table: Table, heard: Heard
):
    ran = hourly(registry)
    async with working(config, registry):
        await table.declared("work")
        await rows.fetch(
            "INSERT INTO pgtasks.schedule (name, task, queue, args, cron, timezone, jitter, "
            "misfire, catch_up_limit, overlap, next_fire_at) VALUES "
            "('broken', 'work', 'default', '{}', 'at dawn', 'Mars/Base', '0', 'coalesce', 1, "
            "'allow', '-infinity')"
        )
        await table.due("work")
        await table.fired("work", 1)
        await rows.empty()
    assert len(ran) == 1
    assert [event for event in heard.events() if "cannot be followed" in event]


async def test_a_rule_that_cannot_be_reckoned_with_keeps_no_other_from_firing(
    config: Config,
    registry: Registry,
    rows: Rows,
    table: Table,
    monkeypatch: pytest.MonkeyPatch,
):
    """A mistake of ours must not end the firing of everything, in every worker, for ever."""
    ran, due = hourly(registry), Schedule.due
    hourly(registry, "odd")

    def fail(self: Schedule, next_fire_at: datetime, now: datetime) -> Any:
        if self.name == "odd":
            raise OverflowError("date value out of range")
        return due(self, next_fire_at, now)

    monkeypatch.setattr(Schedule, "due", fail)
    async with working(config, registry):
        await table.declared("work", "odd")
        await table.due("odd")
        await table.due("work")
        await table.fired("work", 1)
        await rows.empty()
    assert (len(ran), await table.fires("odd")) == (1, [])


async def test_a_missing_queue_is_created(
    config: Config, registry: Registry, rows: Rows, table: Table
):
    hourly(registry, queue="lost")
    async with working(config, registry, queues=["default"]):
        await table.declared("work")
        await rows.fetch("DROP TABLE IF EXISTS pgmq.q_lost, pgmq.a_lost")
        await table.due("work")
        await table.fired("work", 1)
    assert len(await rows.all("lost")) == 1


# Declaring


async def test_a_restart_keeps_the_next_tick(
    config: Config, registry: Registry, table: Table, rows: Rows
):
    """Otherwise every deploy would put off what is due, or lose it."""
    ran = hourly(registry)
    async with working(config, registry):
        await table.declared("work")
    await table.missed("work", timedelta(hours=3))
    async with working(config, registry):
        await table.fired("work", 1)
        await rows.empty()
    assert len(ran) == 1


async def test_a_new_rule_has_new_ticks_and_new_arguments_do_not(
    config: Config, rows: Rows, table: Table
):
    async def declared(cron: str, number: int) -> asyncpg.Record:
        registry = Registry()

        @task(name="work", registry=registry,
              schedules=[Schedule("s", cron=cron, args=(number,))])  # fmt: skip
        async def work(number: int) -> None: ...

        async with working(config, registry):

            async def said() -> asyncpg.Record:
                row = await table.one("s")
                assert (row["cron"], json.loads(row["args"])) == (cron, {"number": number})
                return row

            await table.declared("s")
            return await eventually_async(said)

    first = await declared("0 0 1 1 *", 1)
    await rows.fetch("UPDATE pgtasks.schedule SET is_paused = true")
    moved = first["next_fire_at"] + timedelta(days=1)
    await rows.fetch("UPDATE pgtasks.schedule SET next_fire_at = $1", moved)
    other_arguments = await declared("0 0 1 1 *", 2)
    other_rule = await declared("0 0 2 1 *", 2)
    assert other_arguments["next_fire_at"] == moved
    assert other_rule["next_fire_at"] == first["next_fire_at"] + timedelta(days=1)
    assert [row["revision"] for row in (first, other_arguments, other_rule)] == [1, 2, 3]
    assert other_rule["is_paused"]


async def test_what_the_code_no_longer_declares_goes_when_it_is_stale(
    config: Config, registry: Registry, rows: Rows, table: Table, heard: Heard
):
    """Only its owner's; not what others still declare, nor what was made at run time."""
    hourly(registry)
    quick = periodic(config, owner="shop", stale_after=seconds(1))
    async with working(quick, registry):
        await table.declared("work")
        for name, owner in {"old": "shop", "theirs": "crm", "fresh": "shop"}.items():
            await rows.fetch(
                "INSERT INTO pgtasks.schedule (name, task, queue, args, every, timezone, "
                "jitter, misfire, catch_up_limit, overlap, owner, seen_at, next_fire_at) VALUES "
                "($1, 'x', 'default', '{}', '1 day', 'UTC', '0', 'coalesce', 1, 'allow', $2, "
                "clock_timestamp() + $3::interval, '2100-01-01')",
                name,
                owner,
                timedelta(hours=1) if name == "fresh" else timedelta(hours=-1),
            )
        await Schedules(rows.connection).set(
            Declaration(Schedule("made", every=60), "work", "null"), "default"
        )
        await table.declared("work", "theirs", "fresh", "made")
    assert heard.fields("schedule deleted: no worker declares it")["schedule"] == "old"


async def test_nothing_is_stale_at_the_start(
    config: Config, registry: Registry, table: Table, rows: Rows
):
    """After a night without any worker, the others are starting just now."""
    hourly(registry, "mine")
    hourly(registry, "other")
    shop = periodic(config, owner="shop", stale_after=seconds(3))
    async with working(shop, registry):
        await table.declared("mine", "other")
    await table.stale("other", timedelta(days=1))
    alone = Registry()
    hourly(alone, "mine")
    async with working(shop, alone):
        await table.seen_for("mine", seconds(0.5))
        assert await table.names() == ["mine", "other"]
        await table.declared("mine")


@pytest.mark.parametrize(
    ("mode", "left"),
    [("auto-clean-all", ["mine", "theirs"]), ("manual", ["mine", "other", "theirs"])],
)
async def test_modes_of_cleaning(
    config: Config, rows: Rows, table: Table, mode: str, left: list[str]
):
    both, alone, theirs = Registry(), Registry(), Registry()
    for name in ("mine", "other"):
        hourly(both, name)
    hourly(alone, "mine")
    hourly(theirs, "theirs")
    async with (
        working(periodic(config, owner="shop"), both),
        working(periodic(config, owner="crm"), theirs),
    ):
        await table.declared("mine", "other", "theirs")
    mine = periodic(config, owner="shop", stale_cleanup=mode, stale_after=seconds(1))
    async with working(mine, alone):
        await table.due("mine")
        await table.fired("mine", 1)
        if mode == "manual":
            await table.seen_for("mine", seconds(1.5))
        await table.declared(*left)


async def test_a_client_neither_declares_nor_cleans(
    client: Client, registry: Registry, rows: Rows, table: Table
):
    """Roadster's web processes delete the schedules that they do not know."""
    hourly(registry)
    await client.schedules.set(Declaration(Schedule("s", every=60), "work", "null"), "default")
    await table.stale("s", timedelta(days=9), owner=__name__.partition(".")[0])
    async with client.pool.acquire():
        assert await table.names() == ["s"]


async def test_a_name_that_is_taken_waits_for_its_owner_to_go(
    config: Config, registry: Registry, table: Table, heard: Heard
):
    ran = hourly(registry)
    async with working(periodic(config, owner="crm"), registry):
        await table.declared("work")
    mine = periodic(config, owner="shop", stale_after=seconds(3))
    async with working(mine, registry):

        async def told() -> None:
            assert [event for event in heard.events() if "name is taken" in event]

        await eventually_async(told)
        assert (await table.one("work"))["owner"] == "crm"
        await table.due("work")
        await table.tell()
        await table.stale("work", timedelta(hours=1))

        async def taken_over() -> None:
            assert (await table.one("work"))["owner"] == "shop"

        await eventually_async(taken_over)
        await table.fired("work", 1)
    assert len(ran) <= 1


async def test_each_package_is_the_owner_of_its_schedules(
    config: Config, registry: Registry, table: Table
):
    hourly(registry)
    async with working(config, registry):
        await table.declared("work")
    assert (await table.one("work"))["owner"] == __name__.partition(".")[0]


# Roles


async def test_a_worker_may_leave_schedules_to_others(
    config: Config, registry: Registry, rows: Rows, table: Table
):
    ran = hourly(registry)
    async with working(periodic(config, enable=False), registry):
        assert await table.names() == []
        message = await rows.call("work", {})
        await rows.connection.execute("NOTIFY pgtasks, 'default'")
        await rows.empty()
    assert (len(ran), message) == (1, message)


async def test_a_worker_may_only_fire_schedules(
    config: Config, registry: Registry, rows: Rows, table: Table
):
    ran = hourly(registry)
    async with working(periodic(config, only=True), registry):
        await table.declared("work")
        await table.due("work")
        await table.fired("work", 1)
        await rows.connection.execute("NOTIFY pgtasks, 'default'")
    assert (len(await rows.all()), ran) == (1, [])


async def test_a_worker_with_nothing_to_do_does_not_start(
    config: Config, registry: Registry, rows: Rows
):
    hourly(registry)
    with pytest.raises(ConfigError, match="neither"):
        async with working(periodic(config, only=True, enable=False), registry):
            pytest.fail("it started")


async def test_a_worker_that_stops_fires_no_more(
    config: Config, registry: Registry, rows: Rows, table: Table
):
    """Although what it runs may go on for the whole grace: others fire meanwhile."""
    may_end, started = asyncio.Event(), asyncio.Event()

    @task(name="work", registry=registry, cron=HOURLY)
    async def work() -> None:
        started.set()
        await may_end.wait()

    async with working(config, registry) as worker:
        await table.declared("work")
        await table.due("work")
        await started.wait()
        worker.stop()

        async def has_let_go() -> None:
            tickers = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'pgtasks ticker'"
            assert await rows.fetch(f"{tickers} AND datname = current_database()") == []

        await eventually_async(has_let_go)
        may_end.set()
