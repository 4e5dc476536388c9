"""pgmq.read() and pop() stay short, whatever stands before the first message that is due."""

import json
import os
from typing import Any

import pytest
from postgres.pgmq_functions import Pgmq

MANY = int(os.environ.get("PGTASKS_TEST_ROWS", "80000"))
"""Set it to 1000000 to see it at full length; the bounds are the same."""
QUEUES = {
    "all of them due": [(MANY, "-1 hour")],
    "delayed ones before a few": [(MANY, "1 hour"), (300, "-1 second")],
    "delayed ones before many": [(MANY, "1 hour"), (MANY, "-1 second")],
    "none of them due": [(MANY, "1 hour")],
    "nothing": [],
}
LOOKING = 700
"""How many pages are enough to find the first messages; to change one takes about ten more."""
CALLS = {
    "read('jobs', 3600, 1)": LOOKING, "pop('jobs')": LOOKING,
    "read('jobs', 3600, 100)": LOOKING + 1500, "pop('jobs', 100)": LOOKING + 1500,
}  # fmt: skip


async def pages(pgmq: Pgmq, call: str) -> int:
    """How many pages of tables and indexes a call touches."""
    [row] = await pgmq.connection.fetch(
        f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT * FROM pgmq.{call}"
    )
    plan: dict[str, Any] = json.loads(row[0])[0]["Plan"]
    hit: int = plan["Shared Hit Blocks"]
    read: int = plan["Shared Read Blocks"]
    return hit + read


@pytest.mark.parametrize("is_analyzed", [False, True], ids=["new", "analyzed"])
@pytest.mark.parametrize("queue", QUEUES)
async def test_a_read_is_short_in_every_queue(pgmq: Pgmq, queue: str, is_analyzed: bool):
    """With statistics, and with none, or such as say that the table is empty."""
    await pgmq.connection.execute("ALTER TABLE pgmq.q_jobs SET (autovacuum_enabled = false)")
    if not is_analyzed:
        await pgmq.connection.execute("VACUUM ANALYZE pgmq.q_jobs")
    for count, due in QUEUES[queue]:
        await pgmq.fill("jobs", count, due)
    if is_analyzed:
        await pgmq.connection.execute("VACUUM ANALYZE pgmq.q_jobs")
    await pgmq.rows("read('jobs', 0, 0)")  # looks up what is looked up once a session
    touched = {call: await pages(pgmq, call) for call in CALLS}
    assert {call: n for call, n in touched.items() if n > CALLS[call]} == {}


async def test_that_test_sees_a_long_walk(pgmq: Pgmq):
    await pgmq.fill("jobs", MANY, "1 hour")
    await pgmq.rows("send('jobs', '{}')")
    walk = "SELECT * FROM pgmq.q_jobs WHERE vt <= clock_timestamp() ORDER BY msg_id LIMIT 1"
    [row] = await pgmq.connection.fetch(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {walk}")
    plan = json.loads(row[0])[0]["Plan"]
    assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] > 2 * LOOKING
