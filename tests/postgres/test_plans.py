"""The statements of a worker stay with their indexes, whatever Postgres believes of the table.

`PGTASKS_PLAN_ROWS=1000000` has so many messages due, and a fifth as many delayed, instead of few.
"""

import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import asyncpg
import attrs
import pytest
from postgres.rows import held

from pgtasks.config import DatabaseConfig
from pgtasks.connection import WORKER_SETTINGS, Line, open_connection
from pgtasks.store import Store, _next_dues, _on_queue, statement

Connection = Any

Q = "default"
DUE = int(os.environ.get("PGTASKS_PLAN_ROWS", "20000"))
DELAYED = DUE // 5
BATCH = 100

ARGUMENTS: dict[str, tuple[str, str]] = {
    "claim": ("integer, interval, timestamptz", f"{BATCH}, '30s', '-infinity'"),
    "next_due": ("timestamptz", "'-infinity'"),
    "next_dues": ("timestamptz[]", "'{{-infinity,-infinity}}'"),
    "complete": ("bigint[], float8[], integer", "{ids}, {epochs}, 0"),
    "archive": ("bigint[], float8[], integer, text[]", "{ids}, {epochs}, 0, NULL"),
    "retry": (
        "bigint[], float8[], integer, interval[], text[]",
        "{ids}, {epochs}, 0, {lengths}, NULL",
    ),
    "give_back": ("bigint[], float8[], integer", "{ids}, {epochs}, 0"),
    "extend": (
        "bigint[], float8[], integer[], interval[], boolean[], text[]",
        "{ids}, {epochs}, {zeros}, {lengths}, NULL, NULL",
    ),
    "take": ("bigint, float8, integer", "{one}, {epoch}, 0"),
}


async def never_analysed(_: Connection) -> None:
    """Leave the queue as it was made."""


async def analysed(connection: Connection) -> None:
    """Let the server be sure that it is empty."""
    await connection.execute("ANALYZE pgmq.q_default")


async def drained(connection: Connection) -> None:
    """Leave the queue as a burst leaves it: pages without rows, and statistics that say so."""
    await put(connection, 3000, "0")
    await connection.execute("DELETE FROM pgmq.q_default")
    await connection.execute("VACUUM (ANALYZE, TRUNCATE OFF) pgmq.q_default")


async def put(connection: Connection, count: int, due_in: str) -> list[int]:
    """Put messages into the queue, all due at one time."""
    rows = await connection.fetch(
        "INSERT INTO pgmq.q_default (vt, message) SELECT clock_timestamp() + $2::text::interval, "
        "'{}' FROM generate_series(1, $1::integer) RETURNING msg_id",
        count, due_in, timeout=60,
    )  # fmt: skip
    return [row[0] for row in rows]


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", []):
        yield from nodes(below)


def rows_read(plan: dict[str, Any]) -> float:
    """How many rows of the queue a statement looked at, those that it left alone too."""
    read = ("Actual Rows", "Rows Removed by Filter", "Rows Removed by Index Recheck")
    rows: float = sum(
        sum(node.get(name, 0) for name in read) * node["Actual Loops"]
        for node in nodes(plan)
        if "Scan" in node["Node Type"] and node.get("Relation Name") == "q_default"
    )
    return rows


def buffers(plan: dict[str, Any]) -> int:
    """How many pages it looked at, some of them more than once."""
    seen: int = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
    return seen


async def explained(connection: Connection, name: str, values: str) -> dict[str, Any]:
    """Run a prepared statement; return its plan, and what each step of it did."""
    [row] = await connection.fetch(
        f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE {name} ({values})", timeout=60
    )
    [explanation] = json.loads(row[0])
    plan: dict[str, Any] = explanation["Plan"]
    return plan


async def prepare(connection: Connection, name: str) -> None:
    types, _ = ARGUMENTS[name]
    text = _next_dues((Q, Q)) if name == "next_dues" else _on_queue(name, Q)
    await connection.execute(f"PREPARE {name} ({types}) AS {text}")


async def prepare_early(connection: Connection, name: str) -> None:
    """Prepare a statement and use it once: its plan is kept."""
    await prepare(connection, name)
    nothing = {"ids": "'{}'", "zeros": "'{}'", "lengths": "'{}'", "one": "0",
               "epochs": "'{}'", "epoch": "0"}  # fmt: skip
    await connection.execute(f"EXECUTE {name} ({ARGUMENTS[name][1].format(**nothing)})")


@attrs.frozen
class Way:
    """How a statement comes to the server."""

    settings: Mapping[str, str]
    is_planned_anew: bool
    names: Iterable[str] = tuple(ARGUMENTS)
    first: str = "SELECT"


WAYS = {
    # On a connection of a worker's own: the plan is made once.
    "worker": Way(WORKER_SETTINGS, is_planned_anew=False),
    # Behind PgBouncer, with the settings of a transaction: nothing is kept.
    "pooled": Way(WORKER_SETTINGS, is_planned_anew=True),
    # On a connection that a task uses for its own statements: the planner's defaults.
    "task": Way(
        {"plan_cache_mode": "force_generic_plan"},
        is_planned_anew=False,
        names=("complete", "archive", "extend"),
        first=statement("guard_transaction"),
    ),
}


@pytest.mark.timeout(600 if DUE > 100_000 else 120)
@pytest.mark.parametrize("before", [never_analysed, analysed, drained], ids=lambda f: f.__name__)
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
async def test_a_plan_made_on_an_empty_queue_serves_a_full_one(
    database: DatabaseConfig, way: Way, before: Callable[[Connection], Awaitable[None]]
):
    """At worst a statement may read a few times as many rows as it is asked for."""
    async with opened(database, way) as connections:
        [anybodys, *_] = connections.values()
        await Store(anybodys).create_queue(Q)
        await before(anybodys)
        for name, connection in connections.items():
            await prepare_early(connection, name)
        await put(anybodys, DELAYED, "1 hour")
        ids = await put(anybodys, DUE, "0")
        some = ids[DUE // 2 : DUE // 2 + BATCH]
        epochs = [str(one.enqueued_epoch) for one in await held(Store(anybodys), some)]
        given = {
            "epochs": f"'{{{','.join(epochs)}}}'",
            "epoch": epochs[0],
            "ids": f"'{{{','.join(map(str, some))}}}'",
            "zeros": f"array_fill(0, ARRAY[{BATCH}])",
            "lengths": f"array_fill(interval '1s', ARRAY[{BATCH}])",
            "one": str(some[0]),
        }
        for name, connection in connections.items():
            if way.is_planned_anew:
                await connection.execute(f"DEALLOCATE {name}")
                await prepare(connection, name)
            turn = connection.transaction()
            await turn.start()
            await connection.execute(way.first)
            plan = await explained(connection, name, ARGUMENTS[name][1].format(**given))
            await turn.rollback()
            assert rows_read(plan) <= 5 * BATCH, (name, json.dumps(plan, indent=1))
            assert buffers(plan) <= 30 * BATCH, (name, json.dumps(plan, indent=1))


@pytest.mark.parametrize("way", ["worker", "pooled"])
async def test_an_empty_look_reads_none_of_what_is_delayed(database: DatabaseConfig, way: str):
    async with opened(database, WAYS[way]) as connections:
        await Store(connections["claim"]).create_queue(Q)
        await put(connections["claim"], DELAYED, "1 hour")
        for name in ("claim", "next_due"):
            await prepare(connections[name], name)
            plan = await explained(connections[name], name, ARGUMENTS[name][1])
            assert rows_read(plan) <= 1
            assert buffers(plan) <= 20


@asynccontextmanager
async def opened(database: DatabaseConfig, way: Way) -> AsyncIterator[dict[str, Connection]]:
    """Open a connection for each statement."""
    connections = dict[str, Connection]()
    async with AsyncExitStack() as stack:
        for name in way.names:
            connections[name] = made = await open_connection(
                database, "tests", way.settings, call_seconds=120
            )
            stack.push_async_callback(made.close)
        yield connections


@pytest.fixture
async def pooled(database: DatabaseConfig) -> AsyncIterator[Line]:
    """The line of a worker that knows of a pooler."""
    line = Line(attrs.evolve(database, pgbouncer=True), "tests", WORKER_SETTINGS)
    yield line
    await line.close()


async def setting(on: Connection, name: str = "enable_bitmapscan") -> str:
    value: str = await on.fetchval("SELECT pg_catalog.current_setting($1)", name)
    return value


async def test_behind_a_pooler_settings_are_those_of_a_call(pooled: Line):
    """They must be in force, and must not be left to whoever is next."""
    for name, value in WORKER_SETTINGS.items():
        assert await pooled.call(partial(setting, name=name)) == value
    assert await setting(await pooled._opened()) == "on"


async def test_what_is_to_wait_for_the_disk_does_so_there_too(pooled: Line):
    async def durable(on: Connection) -> str:
        async with on.transaction():
            await Store(on).wait_for_disk()
        return await setting(on, "synchronous_commit")

    assert await pooled.call(durable) == "on"


async def test_behind_a_pooler_a_call_that_is_refused_leaves_nothing_open(pooled: Line):
    with pytest.raises(asyncpg.UndefinedTableError):
        await pooled.call(lambda on: on.fetch("SELECT * FROM elsewhere"))
    connection = await pooled._opened()
    assert not connection.is_in_transaction()
    assert await setting(connection) == "on"


async def test_each_queue_costs_a_start_the_same(connection: Connection):
    """Compared as text, 20 queues took 2,000 pages and 400 took 610,000."""
    for number in range(100):
        await Store(connection).create_queue(f"many_{number}")
    await connection.execute(f"PREPARE layouts (integer) AS {statement('layouts')}")
    assert buffers(await explained(connection, "layouts", "0")) < 100 * 40
