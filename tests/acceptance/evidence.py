"""Evidence: all that is known at the end of a case, from outside of pgtasks."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import asyncpg
import attrs
from acceptance.history import Event

_QUEUES = "SELECT queue_name FROM pgmq.meta ORDER BY queue_name"
_ROWS = """
    SELECT msg_id, read_ct, headers::text, message #>> '{args,key}' AS key,
        message #>> '{metadata,worker_name}' AS task,
        CASE WHEN isfinite(vt) THEN extract(epoch FROM vt - clock_timestamp())::float8
            ELSE 0 END AS due_in
    FROM pgmq.%s ORDER BY msg_id
"""
_EFFECTS = "SELECT key, count(*) FROM effect GROUP BY key"
_BACKENDS = """
    SELECT pid, application_name, state,
        extract(epoch FROM clock_timestamp() - state_change)::float8 AS seconds
    FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
        AND backend_type = 'client backend'
"""
_LOCKS = """
    SELECT count(*) FROM pg_locks
    WHERE locktype = 'advisory' AND pid <> pg_backend_pid()
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
CREATE_EFFECTS = "CREATE TABLE IF NOT EXISTS effect (key text NOT NULL)"
"""What tasks write into in their own transactions."""


@attrs.frozen
class Stored:
    """One message in a queue or in an archive."""

    queue: str
    message_id: int
    delivery: int
    key: str | None
    is_archived: bool
    state: Mapping[str, Any] = attrs.field(factory=dict)
    """What pgtasks keeps in its headers."""
    due_in: float = 0.0
    """Seconds until it is due; negative since it has been."""

    @property
    def ended(self) -> int:
        """How many of its deliveries ended in a known way."""
        known = ("failures", "snoozes", "releases", "unknown", "elsewhere")
        return sum(self.state.get(name, 0) for name in known)


@attrs.frozen
class Backend:
    """One connection to the database, as the server sees it."""

    purpose: str
    state: str
    seconds: float
    """For how long it has been in this state."""


@attrs.frozen
class Exit:
    """How a worker's supervisor ended."""

    pid: int
    code: int
    is_killed: bool = False
    """The case killed it."""
    took: float | None = None
    """Seconds since it was first told to stop."""
    grace_seconds: float = 0.0
    leftovers: int = 0
    """Processes of its group that outlived it."""


@attrs.frozen
class Evidence:
    """What tasks and tests wrote down, what the database holds, what became of the processes."""

    events: Sequence[Event] = ()
    notes: Sequence[Event] = ()
    stored: Sequence[Stored] = ()
    effects: Mapping[str, int] = attrs.field(factory=Counter)
    backends: Sequence[Backend] = ()
    advisory_locks: int = 0
    exits: Sequence[Exit] = ()
    logs: str = ""
    """All that the workers have said."""
    secrets: Sequence[str] = ()
    """What must not stand in them."""


@attrs.frozen
class Witness:
    """What the database says, asked over a connection of the tests' own."""

    connection: "asyncpg.Connection[asyncpg.Record]"

    async def stored(self) -> list[Stored]:
        """Every message there is, in any queue or archive."""
        found: list[Stored] = []
        for [queue] in await self.connection.fetch(_QUEUES):
            for place in ("q", "a"):
                rows = await self.connection.fetch(_ROWS % f'"{place}_{queue}"')
                found += [_stored(queue, row, is_archived=place == "a") for row in rows]
        return found

    async def unfinished(self) -> int:
        """How many messages are not in an archive yet."""
        queues = [queue for [queue] in await self.connection.fetch(_QUEUES)]
        counts = [
            await self.connection.fetchval(f'SELECT count(*) FROM pgmq."q_{queue}"')
            for queue in queues
        ]
        return sum(counts)

    async def effects(self) -> Counter[str]:
        """How often each key stands in the table of effects, where there is one."""
        if await self.connection.fetchval("SELECT to_regclass('effect')") is None:
            return Counter()
        rows = await self.connection.fetch(_EFFECTS)
        return Counter({row["key"]: row["count"] for row in rows})

    async def backends(self) -> list[Backend]:
        """The other connections to this database."""
        rows = await self.connection.fetch(_BACKENDS)
        return [Backend(r["application_name"], r["state"] or "", r["seconds"] or 0.0) for r in rows]

    async def advisory_locks(self) -> int:
        """How many advisory locks are held in this database."""
        held: int = await self.connection.fetchval(_LOCKS)
        return held


def _stored(queue: str, row: asyncpg.Record, *, is_archived: bool) -> Stored:
    headers = json.loads(row["headers"] or "{}")
    state = headers.get("pgtasks", {}) if isinstance(headers, dict) else {}
    return Stored(
        queue,
        row["msg_id"],
        row["read_ct"],
        row["key"],
        is_archived,
        state if isinstance(state, dict) else {},
        row["due_in"],
    )
