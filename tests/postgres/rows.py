"""Rows: what stands in a queue's tables, read and written as any other client would."""

import asyncio
import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import asyncpg
import attrs
from eventually import eventually_async

from pgtasks.message import Held, new_id
from pgtasks.store import Store

DEFAULT = "default"

BESIDE_QUEUES = {"meta", "notify_insert_throttle", "topic_bindings", "__pgmq_migrations"}
"""The tables of pgmq that are no queues."""

LOCKS = (
    "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) "
    "WHERE datname = current_database() AND "
)
"""Of this test's database: others are at work on the server. Not for polling within a transaction,
in which Postgres shows the sessions there were when it was asked first."""


@attrs.frozen
class Rows:
    """The two tables of each queue, on one connection."""

    connection: "asyncpg.Connection[asyncpg.Record]"
    _turn: asyncio.Lock = attrs.field(factory=asyncio.Lock, init=False)
    """A test and the tasks it runs may look at the same time."""

    async def fetch(self, query: str, *args: Any) -> list[asyncpg.Record]:
        """Return all rows of a query."""
        async with self._turn:
            return await self.connection.fetch(query, *args)

    async def put(self, message: str | None, *, queue: str = DEFAULT, **columns: str | None) -> int:
        """Insert a row as a foreign client does; columns are SQL expressions."""
        columns.setdefault("vt", "clock_timestamp()")
        names = ", ".join(["message", *columns])
        values = ", ".join(["$1::jsonb", *("NULL" if c is None else c for c in columns.values())])
        rows = await self.fetch(
            f'INSERT INTO pgmq."q_{queue}" ({names}) VALUES ({values}) RETURNING msg_id', message
        )
        found: int = rows[0][0]
        return found

    async def call(self, task: str, args: Any = None, **options: Any) -> int:
        """Insert an envelope for a task, as a foreign client does."""
        envelope = {"metadata": {"id": str(new_id()), "worker_name": task}, "args": args}
        return await self.put(json.dumps(envelope), **options)

    async def all(self, queue: str = DEFAULT) -> list[asyncpg.Record]:
        """What waits or is leased, with the seconds until it is due."""
        return await self.fetch(
            "SELECT msg_id, read_ct, enqueued_at::text, message, headers, "
            # The tables of an older pgmq have no such column.
            "(to_jsonb(one) ->> 'last_read_at')::timestamptz AS last_read_at, CASE WHEN "
            "vt > '1900-01-01' AND vt < '3000-01-01' THEN vt END AS vt, CASE WHEN isfinite(vt) "
            "THEN extract(epoch FROM vt - clock_timestamp())::float8 END AS due_in "
            f'FROM pgmq."q_{queue}" AS one ORDER BY msg_id'
        )

    async def one(self, message_id: int, queue: str = DEFAULT) -> asyncpg.Record:
        """One row that waits or is leased."""
        rows = [row for row in await self.all(queue) if row["msg_id"] == message_id]
        assert rows, f"message {message_id} is not in the queue"
        return rows[0]

    async def archived(self, queue: str = DEFAULT) -> dict[int, dict[str, Any]]:
        """Our part of the headers of what was archived, by message."""
        rows = await self.fetch(f'SELECT msg_id, headers FROM pgmq."a_{queue}"')
        return {row["msg_id"]: json.loads(row["headers"])["pgtasks"] for row in rows}

    async def archived_ids(self, queue: str = DEFAULT) -> list[int]:
        """The messages in the archive."""
        rows = await self.fetch(f'SELECT msg_id FROM pgmq."a_{queue}" ORDER BY 1')
        return [row[0] for row in rows]

    async def state(self, message_id: int, queue: str = DEFAULT) -> dict[str, Any]:
        """Our part of the headers of what waits or is leased."""
        headers = (await self.one(message_id, queue))["headers"]
        found: dict[str, Any] = json.loads(headers)["pgtasks"] if headers else {}
        return found

    async def set(self, message_id: int, what: str, queue: str = DEFAULT) -> None:
        """Change a row behind everybody's back."""
        changed = f'UPDATE pgmq."q_{queue}" SET {what} WHERE msg_id = $1 RETURNING msg_id'
        assert len(await self.fetch(changed, message_id)) == 1

    async def steal(self, message_id: int, queue: str = DEFAULT) -> None:
        """Take a lease away, as another worker's claim would."""
        await self.set(
            message_id, "read_ct = read_ct + 1, vt = clock_timestamp() + interval '1 hour'", queue
        )

    async def empty(self, queue: str = DEFAULT, *, within_seconds: float = 15) -> None:
        """Wait until nothing waits and nothing is leased."""

        async def is_empty() -> None:
            assert [row["msg_id"] for row in await self.all(queue)] == []

        await eventually_async(is_empty, within_seconds=within_seconds)

    async def outcome(
        self, message_id: int, queue: str = DEFAULT, *, within_seconds: float = 15
    ) -> dict[str, Any]:
        """Wait until a message is archived; return our part of its headers."""

        async def is_archived() -> dict[str, Any]:
            archived = await self.archived(queue)
            assert message_id in archived, await self.all(queue)
            return archived[message_id]

        return await eventually_async(is_archived, within_seconds=within_seconds)


async def held(store: Store, ids: Sequence[int], queue: str = DEFAULT) -> list[Held]:
    """What leases are for, as a claim tells it; of a row that is gone, something."""
    stored = {
        row["msg_id"]: row["epoch"]
        for row in await store.on.fetch(
            "SELECT msg_id, date_part('epoch', pgtasks.clamped(enqueued_at)) AS epoch "
            f'FROM pgmq."q_{queue}" WHERE msg_id = ANY($1)',
            ids,
        )
    }
    return [Held(one, stored.get(one, 0.0)) for one in ids]


async def held_one(store: Store, message_id: int) -> Held:
    """The same of one."""
    [one] = await held(store, [message_id])
    return one


def seconds(number: float) -> timedelta:
    """A length of time, shortly."""
    return timedelta(seconds=number)
