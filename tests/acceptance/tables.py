"""What the database says of a queue's messages."""

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

import asyncpg
import attrs
from eventually import eventually_async

_WAITING = """
    SELECT msg_id, read_ct, headers, vt <= clock_timestamp() AS is_due
    FROM pgmq.q_default ORDER BY msg_id
"""
_ARCHIVED = "SELECT msg_id, read_ct, headers FROM pgmq.a_default ORDER BY msg_id"


@attrs.frozen
class Row:
    """One message in the queue or in the archive."""

    id: int
    delivery: int
    is_due: bool
    """Nobody holds it, and nobody has put it off."""
    state: dict[str, Any]
    """What pgtasks keeps in its headers."""


@attrs.frozen
class Tables:
    """The queue `default` of one database, and its archive."""

    connection: "asyncpg.Connection[asyncpg.Record]"

    async def waiting(self) -> list[Row]:
        """What is in the queue, due or leased or put off."""
        rows = await self.connection.fetch(_WAITING)
        return [_row(row, is_due=row["is_due"]) for row in rows]

    async def archived(self) -> list[Row]:
        """What is in the archive."""
        return [_row(row, is_due=False) for row in await self.connection.fetch(_ARCHIVED)]

    async def outcomes(self) -> Counter[str]:
        """How many archived messages ended in which way."""
        return Counter(row.state.get("outcome", "?") for row in await self.archived())

    async def is_empty(self) -> None:
        """Nothing waits, nothing is leased."""
        waiting = await self.waiting()
        assert not waiting, f"{len(waiting)} left, such as {waiting[:3]}"

    async def drained(self, within_seconds: float = 20) -> None:
        """Wait until nothing waits and nothing is leased."""
        await eventually_async(self.is_empty, within_seconds=within_seconds)

    async def all_done_once(self, ids: Iterable[int]) -> None:
        """Every one of these, and nothing else, is in the archive as done; nothing waits."""
        await self.is_empty()
        assert {row.id for row in await self.archived()} == set(ids)
        assert set(await self.outcomes()) <= {"done"}


def _row(row: asyncpg.Record, *, is_due: bool) -> Row:
    headers = json.loads(row["headers"] or "{}")
    state = headers.get("pgtasks", {}) if isinstance(headers, dict) else {}
    return Row(row["msg_id"], row["read_ct"], is_due, state)
