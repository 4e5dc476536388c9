"""A claim's second version of a row finds room on its page: then little of it is logged."""

from typing import Any

import asyncpg
import pytest
from postgres.rows import Rows, seconds

from pgtasks import migrate
from pgtasks.config import DatabaseConfig
from pgtasks.connection import WORKER_SETTINGS
from pgtasks.message import Held
from pgtasks.store import BEGINNING, Store

Q = "default"
BODY = '{"metadata": {"id": "0198e9ab-1111-7222-8333-444444444444", "worker_name": "a.task"}}'
MADE = 2000


async def pages(rows: Rows) -> dict[int, str]:
    """On which page each message is."""
    found = await rows.fetch("SELECT msg_id, split_part(ctid::text, ',', 1) FROM pgmq.q_default")
    return {row[0]: row[1] for row in found}


async def test_a_claim_stays_on_its_page(store: Store, rows: Rows):
    await store.send_many(Q, [BODY] * MADE, None, seconds(0), None)
    before = await pages(rows)
    await store.claim(Q, MADE, seconds(60), BEGINNING)
    after = await pages(rows)
    assert sum(before[one] != after[one] for one in before) < MADE / 20


async def test_a_message_costs_few_bytes_of_log(rows: Rows, database: DatabaseConfig):
    """From defer to done, as one session counts it; this server logs no whole pages."""
    connection = await asyncpg.connect(database.url, server_settings=dict(WORKER_SETTINGS))
    store = Store(connection)
    try:
        if connection.get_server_version().major < 18:
            pytest.skip("the log of one session is counted since PostgreSQL 18")
        counted = "SELECT wal_bytes::float8 FROM pg_stat_get_backend_wal(pg_backend_pid())"
        await connection.fetch("SELECT pg_stat_force_next_flush()")
        before = await connection.fetchval(counted)
        await store.send_many(Q, [BODY] * MADE, None, seconds(0), None)
        claimed = await store.claim(Q, MADE, seconds(60), BEGINNING)
        leases = [Held(row["msg_id"], row["enqueued_at"]) for row in claimed]
        assert len(await store.complete(Q, leases, 1)) == MADE
        await connection.fetch("SELECT pg_stat_force_next_flush()")
        assert (await connection.fetchval(counted) - before) / MADE < 750
    finally:
        await connection.close()


async def options(connection: Any, queue: str) -> list[str] | None:
    found: list[str] | None = await connection.fetchval(
        "SELECT reloptions FROM pg_class WHERE oid = to_regclass('pgmq.q_' || $1)", queue
    )
    return found


async def test_queues_there_are_get_room_but_for_those_set_up_by_hand(connection: Any):
    store = Store(connection)
    for queue in ("plain", "tuned"):
        await store.create_queue(queue)
        await connection.execute(
            f"ALTER TABLE pgmq.q_{queue} RESET (fillfactor, "
            "autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold, "
            "autovacuum_vacuum_cost_delay)"
        )
    await connection.execute("ALTER TABLE pgmq.q_tuned SET (fillfactor = 90)")
    [step] = [step for step in migrate.migrations() if step.name == "room"]
    await connection.execute("DROP FUNCTION pgtasks.make_room(text)")
    await connection.execute(step.text)
    assert "fillfactor=50" in (await options(connection, "plain") or [])
    assert await options(connection, "tuned") == ["fillfactor=90"]
    await store.create_queue("new")
    assert await options(connection, "new") == await options(connection, "plain")
