"""Calls of pgmq's functions, as any client makes them."""

from typing import Any

import asyncpg
import attrs

RECORD = ["msg_id", "read_ct", "enqueued_at", "last_read_at", "vt", "message", "headers"]


@attrs.frozen
class Pgmq:
    """The functions, on one connection."""

    connection: "asyncpg.Connection[asyncpg.Record]"

    async def rows(self, call: str, *args: Any) -> list[Any]:
        """Return what `SELECT * FROM pgmq.<call>` returns."""
        return await self.connection.fetch(f"SELECT * FROM pgmq.{call}", *args)

    async def column(self, call: str, *args: Any) -> list[Any]:
        """Return the first column of it."""
        return [row[0] for row in await self.rows(call, *args)]

    async def ids(self, call: str, *args: Any) -> list[int]:
        """Return the messages' numbers."""
        return [row["msg_id"] for row in await self.rows(call, *args)]

    async def value(self, call: str, *args: Any) -> Any:
        """Return its one value."""
        [row] = await self.rows(call, *args)
        [value] = row
        return value

    async def names(self, call: str, *args: Any) -> list[str]:
        """Return the names of its columns."""
        [row, *_] = await self.rows(call, *args)
        return list(row.keys())

    async def refused(self, call: str, *args: Any) -> str:
        """Return the SQLSTATE with which it is refused."""
        try:
            await self.rows(call, *args)
        except asyncpg.PostgresError as error:
            state: str = error.sqlstate
            return state
        raise AssertionError(f"{call} was not refused")

    async def fill(self, queue: str, count: int, due: str = "-1 second") -> None:
        """Put many messages into a queue, due in so long."""
        await self.connection.execute(
            f'INSERT INTO pgmq."q_{queue}" (vt, message) '
            f"SELECT clock_timestamp() + interval '{due}', jsonb_build_object('n', n) "
            f"FROM generate_series(1, {count}) AS n",
            timeout=120,
        )
