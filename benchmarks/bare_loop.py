"""A worker's loop without a framework: the least that a worker of such tasks has to do.

It claims batches, decodes each message, awaits an empty coroutine in one of its runners, and
deletes what was done in batches, fenced. It keeps no lease alive, and has no time-outs, retries,
errors, signals or logs. Two connections, one process:

    python -m benchmarks.bare_loop URL QUEUE async|sync|wait
"""

import asyncio
import sys
from collections import defaultdict, deque
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import asyncpg
import msgspec

from benchmarks.machine import has_uvloop

BATCH = 500
RUNNERS = {"async": 20, "sync": 20, "wait": 100}
LEASE = timedelta(seconds=30)
SETTINGS = {
    "synchronous_commit": "off",
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "jit": "off",
}
CLAIM = """
    WITH due AS MATERIALIZED (
        SELECT ctid AS place, vt FROM pgmq."q_{queue}"
        WHERE vt >= $2::timestamptz AND vt <= (SELECT clock_timestamp())
        ORDER BY vt LIMIT $1 FOR UPDATE SKIP LOCKED
    )
    UPDATE pgmq."q_{queue}" AS message
    SET vt = clock_timestamp() + $3::interval, read_ct = message.read_ct + 1
    FROM due WHERE message.ctid = due.place
    RETURNING message.msg_id, message.read_ct, due.vt, message.message::text
"""
DELETE = """
    DELETE FROM pgmq."q_{queue}" WHERE msg_id = ANY($1::bigint[]) AND read_ct = $2::integer
"""


class Loop:
    """One queue's loop."""

    def __init__(self, url: str, queue: str, kind: str) -> None:
        self.url, self.queue = url, queue
        self.runners = RUNNERS[kind]
        self.threads = ThreadPoolExecutor(self.runners) if kind == "sync" else None
        self.function = wait if kind == "wait" else nothing
        self.claimed: deque[tuple[int, int, str]] = deque()
        self.done: list[tuple[int, int]] = []
        self.arrived, self.room, self.ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def run(self) -> None:
        """Run until the process is ended."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.claim())
            group.create_task(self.settle())
            for _ in range(self.runners):
                group.create_task(self.work())

    async def claim(self) -> None:
        """Keep up to two batches ready."""
        connection = await asyncpg.connect(self.url, server_settings=SETTINGS)
        statement = await connection.prepare(CLAIM.format(queue=self.queue))
        beginning = datetime.min.replace(tzinfo=UTC)
        since = beginning
        print("ready", flush=True)
        while True:
            rows = await statement.fetch(BATCH, since, LEASE)
            for message_id, delivery, due_at, body in rows:
                since = max(since, due_at)
                self.claimed.append((message_id, delivery, body))
            self.arrived.set()
            if not rows:
                since = beginning
                await asyncio.sleep(0.002)
            while len(self.claimed) > BATCH:
                self.room.clear()
                await self.room.wait()

    async def work(self) -> None:
        """Run one message after another."""
        decode = msgspec.json.Decoder(dict[str, Any]).decode
        while True:
            while self.claimed:
                message_id, delivery, body = self.claimed.popleft()
                args = decode(body)["args"]
                if self.threads is None:
                    await self.function(**args)
                else:
                    loop = asyncio.get_running_loop()
                    await loop.run_in_executor(self.threads, nothing_sync, args["number"])
                self.done.append((message_id, delivery))
                self.ended.set()
                if len(self.claimed) <= BATCH:
                    self.room.set()
            self.arrived.clear()
            await self.arrived.wait()

    async def settle(self) -> None:
        """Delete what is done, a batch each time the last was written."""
        connection = await asyncpg.connect(self.url, server_settings=SETTINGS)
        statement = await connection.prepare(DELETE.format(queue=self.queue))
        while True:
            await self.ended.wait()
            await asyncio.sleep(0.002)
            self.ended.clear()
            batches: defaultdict[int, list[int]] = defaultdict(list)
            batch, self.done = self.done, []
            for message_id, delivery in batch:
                batches[delivery].append(message_id)
            # Not a join with two arrays: planned while the table's statistics said that it is
            # empty, it walked the whole table for each id, and 700 deletes took 3 s, not 1 ms.
            for delivery, message_ids in batches.items():
                await statement.fetch(message_ids, delivery)


async def nothing(number: int) -> None:
    """Do nothing."""


async def wait(number: int) -> None:  # noqa: ARG001 - as many as the others
    """Wait for 10 ms."""
    await asyncio.sleep(0.01)


def nothing_sync(number: int) -> None:
    """Do nothing."""


async def main(url: str, queue: str, kind: str) -> None:
    """Run the loop."""
    await Loop(url, queue, kind).run()


if __name__ == "__main__":
    place, name, what = sys.argv[1:]
    anyio.run(main, place, name, what, backend_options={"use_uvloop": has_uvloop()})
