"""Archives are pruned by age and count, a little at a time, by one at a time."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import timedelta
from typing import Any

import anyio
import asyncpg
import attrs
import pytest
from eventually import eventually_async
from postgres.conftest import Heard
from postgres.rows import Rows, seconds
from postgres.working import working

from pgtasks import Config, Registry, migrate, pruner, task
from pgtasks.config import DatabaseConfig, QueueConfig, RetentionConfig, WorkerConfig
from pgtasks.connection import WORKER_SETTINGS, open_connection
from pgtasks.pruner import LEDGER, PRUNER_SETTINGS, Pruner, Pruning
from pgtasks.retention import LARGEST_BATCH, Limits, Retention
from pgtasks.store import NEWEST, OLDEST, Executor, Store, _on_archive

Q = "default"
ALL = Limits(None, None)
DAY = timedelta(days=1)
DONE = '{"pgtasks":{"outcome":"done"}}'
FAILED = '{"pgtasks":{"outcome":"failed"}}'
FOREIGN = [None, "5", '"done"', "[1]", "{}", '{"pgtasks":5}', '{"pgtasks":{"outcome":5}}']
LOCK = "hashtextextended('pgtasks prune ' || $1::text, 0)"


async def archive(
    rows: Rows, *ago: str, headers: str | None = DONE, queue: str = Q, times: int = 1
) -> list[int]:
    """Put rows into an archive that ended so long ago; their numbers."""
    found = await rows.fetch(
        f"INSERT INTO pgmq.a_{queue} (msg_id, vt, archived_at, message, headers) "
        f"SELECT coalesce((SELECT max(msg_id) FROM pgmq.a_{queue}), 0) + row_number() OVER (), "
        "now(), CASE WHEN ago LIKE '%infinity' THEN ago::timestamptz ELSE now() - ago::interval "
        "END, '{}', $2::jsonb FROM unnest($1::text[]) AS ago, generate_series(1, $3) "
        "RETURNING msg_id",
        list(ago), headers, times,
    )  # fmt: skip
    return [row[0] for row in found]


def kept(done: Limits = ALL, failed: Limits = ALL) -> Retention:
    return Retention(done, failed)


async def pruned(store: Store, retention: Retention, queue: str = Q) -> dict[str, int]:
    """Make one pass; how many it deleted, which is how many a count had promised."""
    promised = await Pruning(queue, store).count(retention)
    pruning = Pruning(queue, store)
    await pruning.run(retention)
    assert pruning.is_ours
    assert pruning.deleted == promised
    return dict(pruning.deleted)


@attrs.frozen
class Counting(Executor):
    """A connection that counts the batches."""

    on: Any
    batches: list[int] = attrs.field(factory=list)
    marks: list[tuple[Any, Any]] = attrs.field(factory=list)
    """Of each batch: behind which mark it began, and the mark of its last."""

    async def fetch(self, query: str, /, *args: Any) -> list[Any]:
        found: list[Any] = await self.on.fetch(query, *args)
        return found

    async def fetchrow(self, query: str, /, *args: Any) -> Any:
        row = await self.on.fetchrow(query, *args)
        if row is not None and "is_ours" in dict(row):
            self.batches.append(row["deleted"])
            self.marks.append((args[1:3], (row["archived_at"], row["msg_id"])))
        return row

    async def fetchval(self, query: str, /, *args: Any) -> Any:
        return await self.on.fetchval(query, *args)


@pytest.fixture
async def other(database: DatabaseConfig) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """Another connection."""
    opened = await open_connection(database, "tests")
    yield opened
    await opened.close()


# By age


async def test_what_is_older_than_its_age_goes(store: Store, rows: Rows):
    old = await archive(rows, "8 days", "7 days 1 minute", "-infinity")
    new = await archive(rows, "6 days 23 hours", "0", "infinity", "-1 hour")
    assert await pruned(store, kept(done=Limits(7 * DAY, None))) == {"done": len(old)}
    assert await rows.archived_ids() == new


async def test_each_half_has_an_age_of_its_own(store: Store, rows: Rows):
    await archive(rows, "2 days", headers=DONE)
    failed = await archive(rows, "2 days", headers=FAILED)
    await archive(rows, "4 days", headers=FAILED)
    retention = kept(done=Limits(DAY, None), failed=Limits(3 * DAY, None))
    assert await pruned(store, retention) == {"done": 1, "failed": 1}
    assert await rows.archived_ids() == failed


@pytest.mark.parametrize("headers", FOREIGN)
async def test_what_pgtasks_did_not_write_counts_as_failed(
    store: Store, rows: Rows, headers: str | None
):
    await archive(rows, "2 days", headers=headers)
    assert await pruned(store, kept(done=Limits(DAY, 0))) == {}
    assert await pruned(store, kept(failed=Limits(DAY, None))) == {"failed": 1}


async def test_without_limits_nothing_goes_and_nothing_is_looked_at(store: Store, rows: Rows):
    await archive(rows, "-infinity", "1000 years")
    counting = Counting(store.on)
    await Pruning(Q, Store(counting)).run(kept())
    assert counting.batches == []
    assert len(await rows.archived_ids()) == 2


# By count


@pytest.mark.parametrize("stride", [1, 3, 20_000])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 6, 9, 10, 11])
async def test_the_latest_stay(
    store: Store, rows: Rows, monkeypatch: pytest.MonkeyPatch, count: int, stride: int
):
    """Exactly so many, also of those that ended in the same moment."""
    monkeypatch.setattr(pruner, "STRIDE", stride)
    ended = await archive(rows, "2 days", times=5) + await archive(rows, "1 day", times=5)
    failed = await archive(rows, "-infinity", "infinity", headers=FAILED)
    gone = max(0, 10 - count)
    assert await pruned(store, kept(done=Limits(None, count))) == ({"done": gone} if gone else {})
    assert await rows.archived_ids() == [*ended[gone:], *failed]


async def test_moments_that_python_cannot_hold_have_their_place(store: Store, rows: Rows):
    for moment in ("-infinity", "4000-01-01 BC", "20000-01-01", "infinity"):
        await rows.fetch(
            "INSERT INTO pgmq.a_default (msg_id, vt, archived_at, headers) "
            f"SELECT count(*) + 1, now(), '{moment}', $1::jsonb FROM pgmq.a_default", DONE
        )  # fmt: skip
    for count in (3, 2, 1, 0):
        assert await pruned(store, kept(done=Limits(None, count))) == {"done": 1}
        assert await rows.archived_ids() == list(range(5 - count, 5))


async def test_the_stricter_of_age_and_count_wins(store: Store, rows: Rows):
    await archive(rows, "5 days", "4 days", "3 days", "2 days", "1 day")
    retention = kept(done=Limits(3.5 * DAY, 4))
    assert await pruned(store, retention) == {"done": 2}
    assert await pruned(store, kept(done=Limits(30 * DAY, 1))) == {"done": 2}
    assert await rows.archived_ids() == [5]


@pytest.mark.parametrize("seed", range(12))
async def test_any_archive_is_pruned_as_a_model_of_three_lines_says(
    store: Store, rows: Rows, monkeypatch: pytest.MonkeyPatch, seed: int
):
    draw = random.Random(seed)
    monkeypatch.setattr(pruner, "STRIDE", draw.choice([1, 2, 7, 1000]))
    model: dict[str, list[tuple[int, int]]] = {"done": [], "failed": []}
    for _ in range(draw.randrange(40)):
        half, hours = draw.choice(["done", "failed"]), draw.randrange(12)
        headers = DONE if half == "done" else draw.choice([FAILED, *FOREIGN])
        [number] = await archive(rows, f"{hours} hours 30 minutes", headers=headers)
        model[half].append((-hours, number))
    limits = {
        half: Limits(
            draw.choice([None, timedelta(hours=draw.randrange(13))]),
            draw.choice([None, draw.randrange(20)]),
        )
        for half in model
    }
    expected = set[int]()
    for half, ended in model.items():
        age, count = limits[half].age, limits[half].count
        latest = sorted(ended)[-count:] if count else sorted(ended) if count is None else []
        expected |= {n for at, n in latest if age is None or timedelta(hours=-at, minutes=30) < age}
    await pruned(store, Retention(limits["done"], limits["failed"]))
    assert set(await rows.archived_ids()) == expected


# A little at a time


async def test_batches_are_small_and_begin_where_the_last_ended(store: Store, rows: Rows):
    await archive(rows, "2 days", times=2500)
    counting = Counting(store.on)
    pruning = Pruning(Q, Store(counting))
    await pruning.run(kept(done=Limits(DAY, None)))
    assert sum(counting.batches) == 2500
    assert max(counting.batches) <= LARGEST_BATCH
    assert counting.batches[0] == 100
    assert counting.batches[-1] == 0
    assert [began for began, _ in counting.marks[1:]] == [last for _, last in counting.marks[:-1]]


async def test_a_pass_ends_when_its_time_is_over(store: Store, rows: Rows):
    await archive(rows, "2 days", times=2500)
    pruning = Pruning(Q, store, asyncio.get_running_loop().time() - 1)
    await pruning.run(kept(done=Limits(DAY, None)))
    assert (pruning.is_ours, dict(pruning.deleted)) == (True, {})


async def test_rows_that_somebody_has_locked_are_not_waited_for(
    store: Store, rows: Rows, other: "asyncpg.Connection[asyncpg.Record]"
):
    first, second = await archive(rows, "3 days", "2 days")
    async with other.transaction():
        await other.execute("SELECT FROM pgmq.a_default WHERE msg_id = $1 FOR UPDATE", first)
        async with asyncio.timeout(5):
            await Pruning(Q, store).run(kept(done=Limits(DAY, None)))
        assert await rows.archived_ids() == [first]
    assert second not in await rows.archived_ids()
    assert await pruned(store, kept(done=Limits(DAY, None))) == {"done": 1}


async def test_an_archive_that_somebody_prunes_is_left_to_them(
    store: Store, rows: Rows, other: "asyncpg.Connection[asyncpg.Record]"
):
    await store.create_queue("emails")
    await archive(rows, "2 days")
    await archive(rows, "2 days", queue="emails")
    async with other.transaction():
        await other.execute(f"SELECT pg_advisory_xact_lock({LOCK})", Q)
        pruning = Pruning(Q, store)
        await pruning.run(kept(done=Limits(DAY, None)))
        assert (pruning.is_ours, dict(pruning.deleted)) == (False, {})
        assert await pruned(store, kept(done=Limits(DAY, None)), "emails") == {"done": 1}
    assert await pruned(store, kept(done=Limits(DAY, None))) == {"done": 1}


async def test_two_at_once_delete_each_row_once_and_never_deadlock(
    store: Store, rows: Rows, other: "asyncpg.Connection[asyncpg.Record]"
):
    await archive(rows, "2 days", times=3000)
    retention = kept(done=Limits(DAY, None))
    both = [Pruning(Q, store), Pruning(Q, Store(other))]
    async with asyncio.timeout(30):
        while await rows.archived_ids():
            for one in both:
                one.is_ours = True
            await asyncio.gather(*(one.run(retention) for one in both))
    assert sum(one.deleted["done"] for one in both) == 3000


async def test_a_redrive_at_the_same_time_loses_no_message_and_doubles_none(
    store: Store, rows: Rows, other: "asyncpg.Connection[asyncpg.Record]"
):
    numbers = await archive(rows, "2 days", headers=FAILED, times=2000)
    random.Random(1).shuffle(numbers)
    moved = list[int]()

    async def redrive() -> None:
        for start in range(0, 2000, 50):
            some = await Store(other).redrive(Q, numbers[start : start + 50], 0 * DAY, notify=False)
            moved.extend(row["was"] for row in some)

    pruning = Pruning(Q, store)
    await asyncio.gather(pruning.run(kept(failed=Limits(DAY, None))), redrive())
    await pruning.run(kept(failed=Limits(DAY, None)))
    assert await rows.archived_ids() == []
    assert len(await rows.all()) == len(moved)
    assert len(moved) + pruning.deleted["failed"] == 2000


# With an index, whatever else is in the archive


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", []):
        yield from nodes(below)


async def explained(
    connection: "asyncpg.Connection[asyncpg.Record]", statement: str, *args: object
) -> tuple[float, list[str]]:
    """How many rows a statement read of the archive, and by which indexes."""
    [row] = await connection.fetch(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", *args)
    [plan] = json.loads(row[0])
    scans = [node for node in nodes(plan["Plan"]) if node.get("Relation Name") == "a_default"]
    scans = [node for node in scans if "Scan" in node["Node Type"]]
    read = [
        (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
        for node in scans
    ]
    return sum(read), [node.get("Index Name", node["Node Type"]) for node in scans]


@pytest.mark.parametrize("done", [True, False])
@pytest.mark.parametrize("tuned", [True, False])
async def test_neither_half_is_looked_for_among_the_other(
    database: DatabaseConfig, rows: Rows, done: bool, tuned: bool
):
    """Also through a pooler, where a worker's settings do not hold."""
    mine, others = (DONE, FAILED) if done else (FAILED, DONE)
    await archive(rows, "9 days", headers=others, times=20_000)
    await archive(rows, "8 days", headers=mine, times=3_000)
    await archive(rows, "0 days", headers=others, times=20_000)
    await rows.fetch("ANALYZE pgmq.a_default")
    connection = await open_connection(database, "tests", PRUNER_SETTINGS if tuned else None)
    try:
        week_ago = (await Store(connection).moment_ago(7 * DAY), NEWEST[1])
        read, indexes = await explained(
            connection, _on_archive("prune_archive", Q, done=done), Q, *OLDEST, *week_ago, 100
        )
        own = "done_at_idx_default" if done else "failed_at_idx_default"
        assert indexes == [own, "a_default_pkey"]
        assert read <= 2 * 100
        await rows.fetch("DELETE FROM pgmq.a_default WHERE archived_at BETWEEN now() - '8.5 d'"
                         "::interval AND now() - '7.5 d'::interval")  # fmt: skip
        statement = _on_archive("prune_archive", Q, done=done)
        assert (await explained(connection, statement, Q, *OLDEST, *week_ago, 100))[0] == 0
        statement = _on_archive("archive_mark", Q, done=not done)
        assert await explained(connection, statement, *NEWEST, 99) == (
            100, ["failed_at_idx_default" if done else "done_at_idx_default"],
        )  # fmt: skip
    finally:
        await connection.close()


async def test_how_far_the_newest_reach_is_read_from_the_index_alone(
    database: DatabaseConfig, rows: Rows
):
    await archive(rows, "1 day", times=3000)
    connection = await open_connection(database, "tests", WORKER_SETTINGS)
    try:
        statement = _on_archive("archive_mark", Q, done=True)
        [row] = await connection.fetch(f"EXPLAIN (FORMAT JSON) {statement}", *NEWEST, 500)
        kinds = [node["Node Type"] for node in nodes(json.loads(row[0])[0]["Plan"])]
        assert kinds == ["Limit", "Index Only Scan"]
    finally:
        await connection.close()


# Turns


def retaining(every: float = 3600, **limits: Any) -> WorkerConfig:
    return WorkerConfig(retention=RetentionConfig(every=seconds(every), **limits))


async def test_of_many_workers_one_takes_the_turn(
    database: DatabaseConfig, rows: Rows, heard: Heard
):
    await archive(rows, "8 days", times=300)
    pruners = [Pruner([Q], retaining(), database) for _ in range(6)]
    async with anyio.create_task_group() as group:
        for one in pruners:
            group.start_soon(one.look)
    assert heard.events().count("archive pruned") == 1
    assert heard.fields("archive pruned")["done"] == 300
    await archive(rows, "8 days")
    await pruners[0].look()
    assert len(await rows.archived_ids()) == 1
    await rows.fetch("UPDATE pgtasks.turn SET taken_at = now() - interval '1 hour'")
    await pruners[0].look()
    assert await rows.archived_ids() == []


async def test_a_turn_that_was_taken_when_the_clock_was_wrong_is_nobodys(
    database: DatabaseConfig, rows: Rows
):
    one = Pruner([Q], retaining(), database)
    await one.look()
    await archive(rows, "8 days")
    await rows.fetch("UPDATE pgtasks.turn SET taken_at = now() + interval '1 day'")
    await one.look()
    assert await rows.archived_ids() == []


async def test_only_the_queues_it_was_given_are_pruned_each_by_its_own_limits(
    database: DatabaseConfig, rows: Rows, heard: Heard
):
    for queue in ("strict", "free", "others"):
        await Store(rows.connection).create_queue(queue)
    for queue in (Q, "strict", "free", "others"):
        await archive(rows, "30 days", "2 days", queue=queue)
    config = attrs.evolve(
        retaining(),
        queue_config={
            "strict": QueueConfig(done_for=DAY),
            "free": QueueConfig(done_for=None, done_count=None),
        },
    )
    await Pruner([Q, "strict", "free", "not_there"], config, database).look()
    left = {queue: await rows.archived_ids(queue) for queue in (Q, "strict", "free", "others")}
    assert left == {Q: [2], "strict": [], "free": [1, 2], "others": [1, 2]}
    assert heard.events(30) == []


async def test_a_table_that_is_locked_is_not_waited_for_long(
    database: DatabaseConfig, rows: Rows, other: "asyncpg.Connection[asyncpg.Record]"
):
    """Whoever rebuilds it must not have a queue of pruners behind him; nor is that a refusal."""
    async with other.transaction():
        await other.execute("LOCK pgmq.a_default")
        with pytest.raises(asyncpg.LockNotAvailableError):
            await Pruner([Q], retaining(), database).look()


async def test_a_queue_that_cannot_be_pruned_is_named_once_and_holds_up_no_other(
    database: DatabaseConfig, rows: Rows, heard: Heard
):
    """An archive as old clients of pgmq made it, without the column that says how it ended."""
    await Store(rows.connection).create_queue("ancient")
    await rows.fetch("ALTER TABLE pgmq.a_ancient DROP COLUMN headers")
    await archive(rows, "8 days")
    one = Pruner(["ancient", Q], retaining(), database)
    for _ in range(2):
        await rows.fetch("UPDATE pgtasks.turn SET taken_at = '-infinity'")
        await one.look()
    assert await rows.archived_ids() == []
    [refused] = heard.events(40)
    assert refused.startswith("the archive cannot be pruned: mend what the error says")
    assert 'column "headers" does not exist' in heard.fields(refused)["error"]


async def test_a_lost_database_is_waited_for(
    database: DatabaseConfig,
    rows: Rows,
    other: "asyncpg.Connection[asyncpg.Record]",
    heard: Heard,
):
    """Its connection is cut while it waits for a lock, again and again; then it may go on."""
    await archive(rows, "8 days")
    kill = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE application_name = 'pgtasks pruner' AND datname = current_database()"
    )
    one = Pruner([Q], retaining(every=1), database)
    async with anyio.create_task_group() as group:
        async with rows.connection.transaction():
            await rows.fetch("LOCK pgmq.a_default")
            group.start_soon(one.run)

            async def is_cut() -> None:
                assert await other.fetch(kill)
                assert "archives are not pruned, trying again" in heard.events()

            await eventually_async(is_cut, within_seconds=20)

        async def is_pruned() -> None:
            assert await rows.archived_ids() == []

            assert "the database answers again" in heard.events()

        await eventually_async(is_pruned, within_seconds=20)
        group.cancel_scope.cancel()


async def test_through_a_pooler_nothing_is_left_on_a_connection(
    database: DatabaseConfig, rows: Rows
):
    await archive(rows, "8 days", times=300)
    await Pruner([Q], retaining(), attrs.evolve(database, pgbouncer=True)).look()
    assert await rows.archived_ids() == []
    locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid "
    locks += "FROM pg_database WHERE datname = current_database())"
    assert await rows.connection.fetchval(locks) == 0


# The schedules' ledger


async def ticks(rows: Rows, schedule: str, *days_ago: float) -> None:
    await rows.fetch(
        "INSERT INTO pgtasks.fire (schedule, fire_at, queue) "
        "SELECT $1, now() - ago * interval '1 day', 'default' FROM unnest($2::float8[]) AS ago",
        schedule, list(days_ago),
    )  # fmt: skip


async def ledger(rows: Rows) -> list[tuple[str, int]]:
    found = await rows.fetch(
        "SELECT schedule, round(extract(epoch FROM now() - fire_at) / 86400)::int AS days "
        "FROM pgtasks.fire ORDER BY 1, fire_at"
    )
    return [(row["schedule"], row["days"]) for row in found]


async def test_old_ticks_go_but_not_the_latest_of_a_schedule(
    database: DatabaseConfig, rows: Rows, store: Store
):
    await rows.fetch(
        "INSERT INTO pgtasks.schedule (name, task, queue, args, cron, timezone, jitter, misfire, "
        "catch_up_limit, overlap) SELECT name, 't', 'default', '{}', '* * * * *', 'UTC', '0', "
        "'skip', 1, 'allow' FROM unnest(ARRAY['rare', 'daily']) AS name"
    )
    await ticks(rows, "rare", 400, 300, 200)
    await ticks(rows, "daily", 40, 31, 29, 1)
    await ticks(rows, "removed", 300, 200, 20)
    await Pruner([Q], retaining(), database).look()
    assert await ledger(rows) == [
        ("daily", 29), ("daily", 1), ("rare", 200), ("removed", 20),
    ]  # fmt: skip
    assert [row[0] for row in await rows.fetch("SELECT what FROM pgtasks.turn ORDER BY 1")] == [
        f"archive {Q}", LEDGER,
    ]  # fmt: skip


async def test_a_long_ledger_goes_in_batches_by_its_index(
    database: DatabaseConfig, rows: Rows, store: Store
):
    await ticks(rows, "removed", *(31 + n / 1000 for n in range(1500)))
    await ticks(rows, "new", *(n / 1000 for n in range(1500)))
    assert await store.prune_fires(100, 30 * DAY) == 100
    await Pruner([Q], retaining(), database).look()
    assert {schedule for schedule, _ in await ledger(rows)} == {"new"}


# In a worker


def with_retention(config: Config, **changes: Any) -> Config:
    retention = RetentionConfig(**({"every": seconds(1)} | changes))
    return attrs.evolve(config, worker=attrs.evolve(config.worker, retention=retention))


@pytest.mark.parametrize("only", [False, True])
async def test_a_worker_prunes_while_it_works(
    config: Config, registry: Registry, rows: Rows, heard: Heard, only: bool
):
    """What ends while it is pruned stays, as far as the limits say; failures all stay."""

    @task(name="work", registry=registry, on_success="archive", retries=0)
    async def work(number: int) -> None:
        if number % 10 == 0:
            raise ValueError(number)

    old = await archive(rows, "8 days", times=2000)
    await rows.fetch("SELECT setval('pgmq.q_default_msg_id_seq', 2000)")
    limits = {"done_count": 0, "failed_for": "none"} if only else {"done_for": "7d"}
    async with working(with_retention(config, **limits), registry):
        await work.defer_many([(number,) for number in range(200)])
        await rows.empty()

        async def is_pruned() -> None:
            left = await rows.archived()
            assert not set(old) & set(left)
            outcomes = [state["outcome"] for state in left.values()]
            assert outcomes.count("failed") == 20
            assert outcomes.count("done") == (0 if only else 180)

        await eventually_async(is_pruned)
    assert set(heard.events(40)) == {"failed, given up"}


def starts(monkeypatch: pytest.MonkeyPatch) -> list[Sequence[str]]:
    """The queues of each pruner that is started."""
    started: list[Sequence[str]] = []

    async def run(self: Pruner) -> None:
        started.append(self._queues)

    monkeypatch.setattr(Pruner, "run", run)
    return started


@pytest.mark.parametrize("enable", [True, False])
async def test_a_worker_prunes_the_queues_it_serves_unless_told_not_to(
    config: Config, registry: Registry, rows: Rows, monkeypatch: pytest.MonkeyPatch, enable: bool
):
    @task(name="work", registry=registry)
    async def work() -> None: ...

    @task(name="elsewhere", registry=registry, queue="elsewhere")
    async def elsewhere() -> None: ...

    started = starts(monkeypatch)
    async with working(with_retention(config, enable=enable), registry, queues=[Q]):
        await work.defer()
        await rows.empty()
    assert started == ([[Q]] if enable else [])


async def test_a_worker_that_runs_no_messages_prunes_the_queues_of_its_tasks(
    config: Config, registry: Registry, rows: Rows, monkeypatch: pytest.MonkeyPatch
):
    """Of another program's queues it does not know what their limits are."""

    @task(name="work", registry=registry, queue="fresh")
    async def work() -> None: ...

    started = starts(monkeypatch)
    periodic = attrs.evolve(config.worker.periodic, only=True)
    worker = attrs.evolve(with_retention(config).worker, periodic=periodic)
    async with working(attrs.evolve(config, worker=worker), registry):

        async def is_started() -> None:
            assert started == [["fresh"]]

        await eventually_async(is_started)


# The indexes of archives that are there already


async def test_an_upgrade_indexes_the_archives_that_are_there(
    connection: "asyncpg.Connection[asyncpg.Record]",
):
    """Of queues that pgtasks can use, where the columns are there and the role owns the table."""
    await connection.execute("DROP SCHEMA pgtasks, pgmq CASCADE")
    role = "owner_" + await connection.fetchval("SELECT current_database()")
    before = [step for step in migrate.migrations() if step.version < 3]
    [step] = [step for step in migrate.migrations() if step.version == 3]
    for earlier in before:
        await connection.execute(earlier.text)
    for queue in ("emails", "ancient", "theirs", "gone"):
        await Store(connection).create_queue(queue)
    await connection.execute(
        "ALTER TABLE pgmq.a_ancient DROP COLUMN headers; DROP TABLE pgmq.a_gone;"
        f"CREATE ROLE {role}; GRANT ALL ON SCHEMA pgmq, pgtasks TO {role};"
        f"CREATE ROLE {role}_other; ALTER TABLE pgmq.a_theirs OWNER TO {role}_other;"
        f"ALTER TABLE pgmq.a_emails OWNER TO {role}; ALTER TABLE pgmq.a_ancient OWNER TO {role};"
        f"ALTER FUNCTION pgtasks.create_queue OWNER TO {role};"
        f"GRANT SELECT ON pgmq.meta TO {role};"
        "INSERT INTO pgmq.meta VALUES ('Their-Queue', false, false);"
        'CREATE TABLE pgmq."a_Their-Queue" (LIKE pgmq.a_emails);'
    )
    try:
        async with connection.transaction():
            await connection.execute(f"SET LOCAL ROLE {role}")
            await connection.execute(step.text)
        assert await indexed(connection) == {"emails"}
        for later in (step for step in migrate.migrations() if step.version > 3):
            await connection.execute(later.text)
        await Store(connection).create_queue("fresh")
        assert await indexed(connection) == {"emails", "fresh"}
        await connection.fetchval("SELECT pgtasks.index_archive('theirs')")
        assert await indexed(connection) == {"emails", "fresh", "theirs"}
    finally:
        await connection.execute("DROP SCHEMA pgtasks, pgmq CASCADE")
        await connection.execute(f"DROP ROLE {role}, {role}_other")


async def indexed(connection: "asyncpg.Connection[asyncpg.Record]") -> set[str]:
    found = await connection.fetch(
        "SELECT substr(tablename, 3) AS queue FROM pg_indexes WHERE schemaname = 'pgmq' "
        "AND indexname IN ('done_at_idx_' || substr(tablename, 3), "
        "'failed_at_idx_' || substr(tablename, 3)) GROUP BY 1 HAVING count(*) = 2"
    )
    return {row["queue"] for row in found}
