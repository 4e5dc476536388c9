"""Store: the only module that speaks SQL, one method for each file in sql/."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib.resources import files
from typing import Any, Protocol

import asyncpg
import attrs

from pgtasks.queue_name import check_queue_name

Record = asyncpg.Record
BEGINNING = datetime.min.replace(tzinfo=UTC)
"""Before every due moment, `-infinity` included."""


class Executor(Protocol):
    """What a statement runs on: an asyncpg connection, or a pool of them."""

    async def fetch(self, query: str, /, *args: Any) -> list[Any]:
        """Return all rows."""

    async def fetchrow(self, query: str, /, *args: Any) -> Any:
        """Return the first row."""

    async def fetchval(self, query: str, /, *args: Any) -> Any:
        """Return the first value of the first row."""


@cache
def statement(name: str) -> str:
    """Return the text of sql/<name>.sql."""
    return files("pgtasks").joinpath("sql", f"{name}.sql").read_text(encoding="utf-8")


@cache
def _on_queue(name: str, queue: str) -> str:
    # The one place where a name becomes part of a statement; the rule for names leaves nothing
    # in it that would need quoting, and it is quoted all the same.
    check_queue_name(queue)
    text = statement(name)
    return text.replace("{q}", f'pgmq."q_{queue}"').replace("{a}", f'pgmq."a_{queue}"')


@attrs.frozen
class Store:
    """The statements, on one connection or pool."""

    on: Executor

    # Sending

    async def send(
        self,
        queue: str,
        body: str,
        headers: str | None,
        delay: timedelta,
        at: datetime | None,
        *,
        notify: bool,
    ) -> int:
        """Store one message and return its id."""
        text = _on_queue("send", queue)
        told = queue if notify else None
        message_id: int = await self.on.fetchval(text, body, headers, delay, at, told)
        return message_id

    async def send_many(
        self,
        queue: str,
        bodies: Sequence[str],
        headers: str | None,
        delay: timedelta,
        at: datetime | None,
    ) -> list[int]:
        """Store many messages and return their ids in order."""
        rows = await self.on.fetch(_on_queue("send_many", queue), bodies, headers, delay, at)
        return [row[0] for row in rows]

    async def notify(self, queue: str) -> None:
        """Tell listening workers to look at a queue."""
        await self.on.fetchval(statement("notify"), queue)

    # Leases

    async def claim(
        self, queue: str, limit: int, lease: timedelta, since: datetime
    ) -> list[Record]:
        """Lease up to `limit` due messages, none that was due before `since`."""
        return await self.on.fetch(_on_queue("claim", queue), limit, lease, since)

    async def take(self, queue: str, message_id: int, delivery: int) -> Record | None:
        """Return the message of a lease that is already held."""
        row: Record | None = await self.on.fetchrow(_on_queue("take", queue), message_id, delivery)
        return row

    async def extend(
        self,
        queue: str,
        message_ids: Sequence[int],
        deliveries: Sequence[int],
        lengths: Sequence[timedelta],
    ) -> list[Record]:
        """Extend leases; say for each whether it was extended and whether it is still held."""
        return await self.on.fetch(_on_queue("extend", queue), message_ids, deliveries, lengths)

    async def complete(self, queue: str, message_ids: Sequence[int], delivery: int) -> list[int]:
        """Delete messages that are at this delivery; return the ids whose lease was still held."""
        rows = await self.on.fetch(_on_queue("complete", queue), message_ids, delivery)
        return [row[0] for row in rows]

    async def archive(
        self,
        queue: str,
        message_ids: Sequence[int],
        delivery: int,
        states: Sequence[str | None],
    ) -> list[int]:
        """Move messages to the archive; return the ids whose lease was still held."""
        rows = await self.on.fetch(_on_queue("archive", queue), message_ids, delivery, states)
        return [row[0] for row in rows]

    async def retry(
        self,
        queue: str,
        message_ids: Sequence[int],
        delivery: int,
        delays: Sequence[timedelta],
        states: Sequence[str | None],
    ) -> list[int]:
        """Make messages due again later; return the ids whose lease was still held."""
        rows = await self.on.fetch(_on_queue("retry", queue), message_ids, delivery, delays, states)
        return [row[0] for row in rows]

    async def give_back(self, queue: str, message_ids: Sequence[int], delivery: int) -> list[int]:
        """Release a dead process's messages; return the ids whose lease still stood."""
        rows = await self.on.fetch(_on_queue("give_back", queue), message_ids, delivery)
        return [row[0] for row in rows]

    async def count_crash(
        self, queue: str, message_id: int, delivery: int, lease: timedelta
    ) -> Record | None:
        """Count a proven crash against a message, and return it while its lease stands."""
        row: Record | None = await self.on.fetchrow(
            _on_queue("count_crash", queue), message_id, delivery, lease
        )
        return row

    async def wait_for_disk(self) -> None:
        """Let the commit of this transaction wait for the disk."""
        await self.on.fetch(statement("wait_for_disk"))

    async def next_due_seconds(self, queue: str, since: datetime) -> float | None:
        """Return in how many seconds the next message is due; None when nothing waits."""
        seconds: float | None = await self.on.fetchval(_on_queue("next_due", queue), since)
        return seconds

    # Queues and what is in them

    async def create_queue(self, queue: str) -> bool:
        """Create a queue unless it exists; tell whether it did not."""
        created: bool = await self.on.fetchval(statement("create_queue"), check_queue_name(queue))
        return created

    async def queue_exists(self, queue: str) -> bool:
        """Tell whether a queue is there; never fails a transaction that it is asked in."""
        exists: bool = await self.on.fetchval(_on_queue("queue_exists", queue))
        return exists

    async def list_queues(self) -> list[str]:
        """Return the names of all queues."""
        return [row[0] for row in await self.on.fetch(statement("list_queues"))]

    async def queue_counts(self, queue: str) -> Record:
        """Count what is in a queue and in its archive."""
        row: Record = await self.on.fetchrow(_on_queue("queue_counts", queue))
        return row

    async def list_messages(self, queue: str, limit: int, task: str | None = None) -> list[Record]:
        """Return what waits or is leased, the next due first."""
        return await self.on.fetch(_on_queue("list_messages", queue), limit, task)

    async def list_archived(
        self, queue: str, limit: int, task: str | None = None, outcome: str | None = None
    ) -> list[Record]:
        """Return what was archived, the latest first."""
        return await self.on.fetch(_on_queue("list_archived", queue), limit, task, outcome)

    async def find_message(
        self, queue: str, message_id: int | None, own_id: str | None
    ) -> Record | None:
        """Return one message, waiting, leased or archived."""
        text = _on_queue("find_message", queue)
        row: Record | None = await self.on.fetchrow(text, message_id, own_id)
        return row

    async def task_names(self, queue: str, limit: int) -> list[Record]:
        """Return which tasks the messages of a queue name."""
        return await self.on.fetch(_on_queue("task_names", queue), limit)

    # The server and the schema

    async def server_facts(self) -> Record:
        """Return what is to be known of the server."""
        row: Record = await self.on.fetchrow(statement("server_facts"))
        return row

    async def applied_migrations(self) -> list[int]:
        """Return the numbers of the migrations this database has."""
        return [row[0] for row in await self.on.fetch(statement("applied_migrations"))]

    async def record_migration(self, version: int, name: str) -> None:
        """Remember that a migration was applied."""
        await self.on.fetch(statement("record_migration"), version, name)
