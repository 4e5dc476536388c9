"""The statements of a worker stay with their indexes, whatever Postgres believes of the table."""

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from pgtasks.config import DatabaseConfig
from pgtasks.connection import WORKER_SETTINGS, open_connection
from pgtasks.store import Store, _on_queue

Q = "default"
WAITING = 20_000
BATCH = 100

ARGUMENTS: dict[str, tuple[str, str]] = {
    "claim": ("integer, interval, timestamptz", f"{BATCH}, '30s', '-infinity'"),
    "next_due": ("timestamptz", "'-infinity'"),
    "complete": ("bigint[], integer", "{ids}, 0"),
    "archive": ("bigint[], integer, text[]", "{ids}, 0, NULL"),
    "retry": ("bigint[], integer, interval[], text[]", "{ids}, 0, {lengths}, NULL"),
    "give_back": ("bigint[], integer", "{ids}, 0"),
    "extend": (
        "bigint[], integer[], interval[], boolean[], text[]",
        "{ids}, {zeros}, {lengths}, NULL, NULL",
    ),
}


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", []):
        yield from nodes(below)


async def drained(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Leave the queue as a burst leaves it: pages without rows, and statistics that say so."""
    store = Store(connection)
    await store.create_queue(Q)
    bodies = ["{}"] * 3000
    await store.send_many(Q, bodies, None, timedelta(0), None)
    await connection.execute("DELETE FROM pgmq.q_default")
    await connection.execute("VACUUM (ANALYZE, TRUNCATE OFF) pgmq.q_default")


@pytest.mark.parametrize("name", ARGUMENTS)
async def test_a_plan_made_on_an_empty_queue_serves_a_full_one(database: DatabaseConfig, name: str):
    """At worst a statement may read a few times as many rows as it is asked for."""
    connection = await open_connection(database, "tests", WORKER_SETTINGS)
    try:
        await drained(connection)
        types, values = ARGUMENTS[name]
        await connection.execute(f"PREPARE made_early ({types}) AS {_on_queue(name, Q)}")
        nothing = values.format(ids="'{}'", zeros="'{}'", lengths="'{}'")
        await connection.execute(f"EXECUTE made_early ({nothing})")
        ids = await Store(connection).send_many(Q, ["{}"] * WAITING, None, timedelta(0), None)
        some = ids[WAITING // 2 : WAITING // 2 + BATCH]
        given = values.format(
            ids=f"'{{{','.join(map(str, some))}}}'",
            zeros=f"array_fill(0, ARRAY[{BATCH}])",
            lengths=f"array_fill(interval '1s', ARRAY[{BATCH}])",
        )
        [row] = await connection.fetch(
            f"EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE made_early ({given})"
        )
        [plan] = json.loads(row[0])
        read = sum(
            (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
            for node in nodes(plan["Plan"])
            if "Scan" in node["Node Type"] and node.get("Relation Name") == "q_default"
        )
        assert read <= 5 * BATCH, json.dumps(plan, indent=1)
    finally:
        await connection.close()
