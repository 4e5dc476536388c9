"""Store: the only module that speaks SQL, one method for each file in sql/."""

import re
from collections.abc import AsyncIterable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib.resources import files
from typing import Any, Protocol, cast

import asyncpg
import attrs

from pgtasks.binary_rows import COLUMNS
from pgtasks.declaration import Declaration
from pgtasks.errors import SchemaError
from pgtasks.filter import Filter
from pgtasks.layout import Layout, laid_out, layout_of, note_layouts
from pgtasks.message import Held
from pgtasks.queue_name import check_queue_name
from pgtasks.stored_schedule import StoredSchedule

Record = asyncpg.Record
BEGINNING = datetime.min.replace(tzinfo=UTC)
"""Before every due moment, `-infinity` included."""
NEVER = datetime.max.replace(tzinfo=UTC)
"""After every due moment."""

Mark = tuple[str, int]
"""A place in an archive: the moment a message ended, as text that Postgres wrote, and its number.
As text, since Python cannot hold every moment that a row may bear."""
OLDEST: Mark = ("-infinity", -(2**63))
NEWEST: Mark = ("infinity", 2**63 - 1)

# As the indexes of an archive have it, word for word: see sql/migrations/0003_retention.sql.
_ENDED = {
    True: "headers #>> '{pgtasks,outcome}'::text[] = 'done'",
    False: "headers #>> '{pgtasks,outcome}'::text[] IS DISTINCT FROM 'done'",
}

_BETWEEN = "\x01"
"""Between messages that are sent as one text: as JSON, no text has it in it."""
_TEMPORARY = re.compile(r"pgtasks_(test|template)_[a-z0-9_]{1,40}", re.ASCII)


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


_forgets: list[Callable[[], None]] = []


def _by_layout(made: Callable[..., str]) -> Callable[..., str]:
    """Keep what a function returns, until tables are found that are laid out otherwise."""
    kept = cache(made)
    _forgets.append(kept.cache_clear)
    return kept


def forget_texts() -> None:
    """Make the texts of statements on queues anew, by what is known of their layouts now."""
    for forget in _forgets:
        forget()


@_by_layout
def _on_queue(name: str, queue: str) -> str:
    # Here and below names become part of a statement; the rules for names leave nothing in them
    # that would need quoting, and they are quoted all the same.
    check_queue_name(queue)
    text = laid_out(statement(name), layout_of(queue))
    return text.replace("{q}", f'pgmq."q_{queue}"').replace("{a}", f'pgmq."a_{queue}"')


@_by_layout
def _on_queues(name: str, queues: tuple[str, ...], between: str) -> str:
    # One after the other, each queue at its place. Without what is said on top: it would be
    # sent, and kept by the server, as often as there are queues.
    texts = (_on_queue(name, queue).split("\n") for queue in queues)
    bare = ["\n".join(line for line in lines if not line.startswith("--")) for lines in texts]
    parts = (part.replace("{place}", str(place)) for place, part in enumerate(bare, 1))
    return between.join(f"({part.strip()})" for part in parts)


@_by_layout
def _next_dues(queues: tuple[str, ...]) -> str:
    moments = _on_queues("next_moment", queues, ",\n")
    return statement("next_dues").replace("{moments}", moments)


def _on_databases(text: str, **names: str) -> str:
    text = statement(text)
    for placeholder, name in names.items():
        # No other database is ever created, changed or dropped.
        is_ours = _TEMPORARY.fullmatch(name) is not None
        if not is_ours and (placeholder, name) != ("template", "template1"):
            raise ValueError(f"{name!r} is no temporary database")
        text = text.replace(f"{{{placeholder}}}", f'"{name}"')
    return text


@_by_layout
def _on_archive(name: str, queue: str, *, done: bool) -> str:
    return _on_queue(name, queue).replace("{ended}", _ENDED[done])


def _columns(held: Sequence[Held]) -> tuple[list[int], list[float]]:
    return [row.message_id for row in held], [row.enqueued_epoch for row in held]


@attrs.frozen
class Extension:
    """A lease to be extended."""

    held: Held
    delivery: int
    length: timedelta
    is_settling: bool = False
    """Its settlement may have happened already: it is extended only if it has not."""
    headers: str | None = None
    """What it was claimed with."""


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
        text = _on_queue("send_and_tell" if notify else "send", queue)
        told = (queue,) if notify else ()
        message_id: int = await self.on.fetchval(text, body, headers, delay, at, *told)
        return message_id

    async def send_many(
        self,
        queue: str,
        bodies: Sequence[str],
        headers: str | None,
        delay: timedelta,
        at: datetime | None,
        *,
        notify: bool = False,
    ) -> list[int]:
        """Store many messages of one call, at least one, and return their ids in order."""
        text, told = _on_queue("send_many", queue), queue if notify else None
        joined = _BETWEEN.join(bodies)
        if joined.count(_BETWEEN) != len(bodies) - 1:
            raise ValueError("a message has a control character in it that JSON does not allow")
        ids: list[int] = await self.on.fetchval(text, joined, headers, delay, at, told)
        return ids

    async def draw_numbers(
        self, queue: str, count: int, delay: timedelta, at: datetime | None
    ) -> tuple[list[int], int] | None:
        """Return numbers for messages to copy, and when they are due; None: this role may not."""
        numbers, due = await self.on.fetchrow(_on_queue("draw_numbers", queue), count, delay, at)
        return None if numbers is None else (numbers, due)

    async def copy(self, queue: str, rows: AsyncIterable[bytes]) -> int:
        """Copy messages into the queue, as binary rows; return how many it took."""
        check_queue_name(queue)
        on = cast("asyncpg.Connection[Record]", self.on)
        status = await on.copy_to_table(
            f"q_{queue}", schema_name="pgmq", columns=COLUMNS, source=rows, format="binary"
        )
        return int(status.removeprefix("COPY "))

    async def send_batch(
        self,
        queue: str,
        bodies: Sequence[str],
        headers: Sequence[str | None],
        delays: Sequence[timedelta],
        moments: Sequence[datetime | None],
        *,
        notify: bool,
    ) -> list[int]:
        """Store messages of several calls and return their ids in order."""
        text, told = _on_queue("send_batch", queue), queue if notify else None
        ids: list[int] = await self.on.fetchval(text, bodies, headers, delays, moments, told)
        return ids

    async def notify(self, queue: str) -> None:
        """Tell listening workers to look at a queue."""
        await self.on.fetchval(statement("notify"), queue)

    async def notify_after(self, queues: Sequence[str]) -> None:
        """Tell listening workers to look at queues, after the commit of what they will find."""
        await self.on.fetch(statement("notify_after"), queues)

    # Leases

    async def claim(
        self, queue: str, limit: int, lease: timedelta, since: datetime
    ) -> list[Record]:
        """Lease up to `limit` due messages, none that was due before `since`."""
        return await self.on.fetch(_on_queue("claim", queue), limit, lease, since)

    async def take(self, queue: str, held: Held, delivery: int) -> Record | None:
        """Return the message of a lease that is already held."""
        row: Record | None = await self.on.fetchrow(_on_queue("take", queue), *held, delivery)
        return row

    async def extend(self, queue: str, leases: Sequence[Extension]) -> list[Record]:
        """Extend leases; say for each whether it was extended and whether it is still held."""
        in_order = sorted(leases, key=lambda lease: lease.held)
        return await self.on.fetch(
            _on_queue("extend", queue),
            *_columns([lease.held for lease in in_order]),
            [lease.delivery for lease in in_order],
            [lease.length for lease in in_order],
            [lease.is_settling for lease in in_order],
            [lease.headers for lease in in_order],
        )

    async def complete(self, queue: str, held: Sequence[Held], delivery: int) -> list[int]:
        """Delete messages that are at this delivery; return the ids whose lease was still held."""
        columns = _columns(sorted(held))
        rows = await self.on.fetch(_on_queue("complete", queue), *columns, delivery)
        return [row[0] for row in rows]

    async def archive(
        self,
        queue: str,
        held: Sequence[Held],
        delivery: int,
        states: Sequence[str | None],
    ) -> list[int]:
        """Move messages, in their order, to the archive; return the ids whose lease still stood."""
        columns = _columns(held)
        rows = await self.on.fetch(_on_queue("archive", queue), *columns, delivery, states)
        return [row[0] for row in rows]

    async def retry(
        self,
        queue: str,
        held: Sequence[Held],
        delivery: int,
        delays: Sequence[timedelta],
        states: Sequence[str | None],
    ) -> list[int]:
        """Make messages, in their order, due again later; return the ids still held."""
        columns = _columns(held)
        rows = await self.on.fetch(_on_queue("retry", queue), *columns, delivery, delays, states)
        return [row[0] for row in rows]

    async def give_back(self, queue: str, held: Sequence[Held], delivery: int) -> list[int]:
        """Release a dead process's messages; return the ids whose lease still stood."""
        columns = _columns(sorted(held))
        rows = await self.on.fetch(_on_queue("give_back", queue), *columns, delivery)
        return [row[0] for row in rows]

    async def count_crash(
        self, queue: str, held: Held, delivery: int, lease: timedelta
    ) -> Record | None:
        """Count a proven crash against a message, and return it while its lease stands."""
        row: Record | None = await self.on.fetchrow(
            _on_queue("count_crash", queue), *held, delivery, lease
        )
        return row

    async def wait_for_disk(self) -> None:
        """Let the commit of this transaction wait for the disk."""
        await self.on.fetch(statement("wait_for_disk"))

    async def guard_transaction(self) -> None:
        """Let no older plan be used in this transaction, and no client that is gone hold it up."""
        await self.on.fetch(statement("guard_transaction"))

    async def next_due_seconds(self, queue: str, since: datetime) -> float | None:
        """Return in how many seconds the next message is due; None when nothing waits."""
        seconds: float | None = await self.on.fetchval(_on_queue("next_due", queue), since)
        return seconds

    async def next_dues(self, queues: Sequence[str], since: Sequence[datetime]) -> dict[str, float]:
        """Return in how many seconds the next message of each queue is due, where one waits."""
        rows = await self.on.fetch(_next_dues(tuple(queues)), since)
        return {queues[place - 1]: seconds for place, seconds in rows}

    async def snapshot(self) -> str:
        """Return what is another one as soon as anything can have been written."""
        text: str = await self.on.fetchval(statement("snapshot"))
        return text

    # Queues and what is in them

    async def create_queue(self, queue: str) -> bool:
        """Create a queue unless it exists; tell whether it did not.

        Raises:
            SchemaError: this role may not, or the schema is not there; says what to do.
        """
        text = statement("create_queue")
        try:
            created: bool = await self.on.fetchval(text, check_queue_name(queue))
        except (asyncpg.InvalidSchemaNameError, asyncpg.UndefinedFunctionError) as error:
            raise SchemaError(
                "this database has no pgtasks schema; run `pgtasks db upgrade`"
            ) from error
        except asyncpg.InsufficientPrivilegeError as error:
            raise SchemaError(
                f"there is no queue {queue!r}, and this role may not create it; run "
                f"`pgtasks queue create {queue}` as a role that may"
            ) from error
        return created

    async def queue_exists(self, queue: str) -> bool:
        """Tell whether a queue is there; never fails a transaction that it is asked in."""
        exists: bool = await self.on.fetchval(_on_queue("queue_exists", queue))
        return exists

    async def list_queues(self) -> list[str]:
        """Return the names of all queues."""
        return [row[0] for row in await self.on.fetch(statement("list_queues"))]

    async def note_layouts(self) -> None:
        """Look how the tables of queues are laid out, so that our statements fit them."""
        rows = await self.on.fetch(statement("layouts"))
        if note_layouts((queue, Layout(*facts)) for queue, *facts in rows):
            forget_texts()

    async def queue_counts(self, queue: str) -> Record:
        """Count what is in a queue and in its archive."""
        row: Record = await self.on.fetchrow(_on_queue("queue_counts", queue))
        return row

    async def list_messages(self, queue: str, limit: int, task: str | None = None) -> list[Record]:
        """Return what waits or is leased, the next due first."""
        return await self.on.fetch(_on_queue("list_messages", queue), limit, task)

    async def list_archived(self, queue: str, limit: int, meant: Filter) -> list[Record]:
        """Return what was archived and is meant, the latest first; by its number or id: nothing."""
        return await self.on.fetch(
            _on_queue("list_archived", queue),
            limit, meant.task, meant.outcome, meant.since, meant.before, meant.error,
        )  # fmt: skip

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

    # Archives: of what is done, or of all else

    async def find_archived(
        self, queue: str, limit: int, meant: Filter, *, after: Mark, until: str
    ) -> list[Record]:
        """Return what is meant between a mark and a moment, the first archived first.

        What is done is only found by a filter that asks for it.
        """
        return await self.on.fetch(
            _on_archive("find_archived", queue, done=meant.means_done),
            limit, *after, until, meant.task, meant.outcome, meant.since, meant.before, meant.error,
            meant.numbers or None, meant.ids or None,
        )  # fmt: skip

    async def redrive(
        self, queue: str, message_ids: Sequence[int], delay: timedelta, *, notify: bool
    ) -> list[Record]:
        """Put archived messages back; return the number of each before and now."""
        text, told = _on_queue("redrive", queue), queue if notify else None
        return await self.on.fetch(text, message_ids, delay, told)

    async def moment_ago(self, length: timedelta) -> str:
        """Return a moment of the past, as the text of a mark."""
        moment: str = await self.on.fetchval(statement("moment_ago"), length)
        return moment

    async def archive_mark(
        self, queue: str, before: Mark, skipped: int, *, done: bool
    ) -> Mark | None:
        """Return the mark with so many messages between it and a later one; None when too few."""
        text = _on_archive("archive_mark", queue, done=done)
        row = await self.on.fetchrow(text, *before, skipped)
        return None if row is None else (row["archived_at"], row["msg_id"])

    async def count_old(self, queue: str, until: Mark, *, done: bool) -> int:
        """Count what was archived up to a mark."""
        text = _on_archive("count_old", queue, done=done)
        number: int = await self.on.fetchval(text, *until)
        return number

    async def prune_archive(
        self, queue: str, limit: int, after: Mark, until: Mark, *, done: bool
    ) -> Record:
        """Delete the oldest that were archived between two marks."""
        text = _on_archive("prune_archive", queue, done=done)
        row: Record = await self.on.fetchrow(text, queue, *after, *until, limit)
        return row

    async def prune_fires(self, limit: int, kept: timedelta) -> int:
        """Delete the oldest rows of the schedules' ledger; return how many."""
        number: int = await self.on.fetchval(statement("prune_fires"), limit, kept)
        return number

    async def due_turns(self, what: Sequence[str], every: timedelta) -> list[str]:
        """Return the turns that nobody has taken for so long."""
        return [row[0] for row in await self.on.fetch(statement("due_turns"), what, every)]

    async def take_turn(self, what: str, every: timedelta) -> bool:
        """Take a turn; tell whether nobody else has."""
        return await self.on.fetchrow(statement("take_turn"), what, every) is not None

    # Schedules

    async def declare_schedule(
        self,
        declared: Declaration,
        queue: str,
        *,
        owner: str | None,
        next_fire_at: datetime | None,
        stale_after: timedelta | None = None,
        paused: bool | None = None,
    ) -> bool:
        """Make or change a schedule; tell whether it was not left to another owner."""
        rule = declared.schedule
        row = await self.on.fetchrow(
            statement("declare_schedule"),
            declared.name, declared.task, queue, declared.args, rule.cron, rule.every,
            rule.timezone, rule.jitter, rule.misfire, rule.catch_up_limit, rule.overlap,
            paused, owner, next_fire_at, stale_after,
        )  # fmt: skip
        return row is not None

    async def see_schedules(self, names: Sequence[str], owners: Sequence[str]) -> list[str]:
        """Say that schedules are still declared; return those that are there."""
        rows = await self.on.fetch(statement("see_schedules"), names, owners)
        return [row[0] for row in rows]

    async def clean_schedules(
        self, owners: Sequence[str], declared: Sequence[str], stale_after: timedelta
    ) -> list[str]:
        """Delete what nobody declares any more, of these owners; return the names."""
        rows = await self.on.fetch(statement("clean_schedules"), owners, declared, stale_after)
        return [row[0] for row in rows]

    async def coming_schedules(
        self, declared: Sequence[str], tasks: Sequence[str], without: Sequence[str], limit: int
    ) -> list[Record]:
        """Return the schedules that fire next and that a worker may fire."""
        text = statement("coming_schedules")
        return await self.on.fetch(text, declared, tasks, without, limit)

    async def fire(
        self,
        known: StoredSchedule,
        tick: datetime,
        next_fire_at: datetime | None,
        message: tuple[str, str] | None,
        jitter: timedelta,
        *,
        notify: bool,
    ) -> Record | None:
        """Fire one tick, with this body and these headers; None when it was not ours to fire.

        Raises:
            asyncpg.UniqueViolationError: the ledger has this tick.
        """
        body, headers = message or (None, None)
        row: Record | None = await self.on.fetchrow(
            _on_queue("fire", known.queue),
            known.name, known.revision, known.next_fire_at, known.last_message_id, tick,
            next_fire_at, body, headers, known.queue, jitter, notify,
        )  # fmt: skip
        return row

    async def pass_ticks(self, known: StoredSchedule, next_fire_at: datetime | None) -> None:
        """Let ticks pass without firing."""
        text = statement("pass_ticks")
        await self.on.fetch(text, known.name, known.revision, known.next_fire_at, next_fire_at)

    async def trigger_schedule(
        self, known: StoredSchedule, body: str, headers: str, *, notify: bool
    ) -> int | None:
        """Send a schedule's message now; return its number, None when the schedule is gone."""
        text = _on_queue("trigger_schedule", known.queue)
        number: int | None = await self.on.fetchval(
            text, known.name, body, headers, known.queue, notify
        )
        return number

    async def list_schedules(self) -> list[Record]:
        """Return all schedules by name."""
        return await self.on.fetch(statement("list_schedules"))

    async def find_schedule(self, name: str) -> Record | None:
        """Return the schedule of this name."""
        row: Record | None = await self.on.fetchrow(statement("find_schedule"), name)
        return row

    async def pause_schedule(self, name: str) -> None:
        """Let a schedule fire no more."""
        await self.on.fetch(statement("pause_schedule"), name)

    async def resume_schedule(self, known: StoredSchedule, next_fire_at: datetime | None) -> None:
        """Let a paused schedule fire again."""
        text = statement("resume_schedule")
        await self.on.fetch(text, known.name, known.revision, next_fire_at)

    async def remove_schedule(self, name: str, stale_after: timedelta) -> bool:
        """Delete a schedule unless running workers declare it; tell whether it is gone."""
        text = statement("remove_schedule")
        return await self.on.fetchval(text, name, stale_after) is not None

    async def list_fires(self, name: str, limit: int) -> list[Record]:
        """Return the latest ticks of a schedule that were fired."""
        return await self.on.fetch(statement("list_fires"), name, limit)

    async def is_waiting(self, queue: str, message_id: int) -> bool:
        """Tell whether a message is still in its queue, waiting or leased."""
        waits: bool = await self.on.fetchval(_on_queue("is_waiting", queue), message_id)
        return waits

    async def now(self) -> datetime:
        """Return the time by the clock that decides."""
        moment: datetime = await self.on.fetchval(statement("now"))
        return moment

    # The server and the schema

    async def server_facts(self) -> Record:
        """Return what is to be known of the server."""
        row: Record = await self.on.fetchrow(statement("server_facts"))
        return row

    async def server_limits(self) -> Record:
        """Return what of the server may get into a worker's way."""
        row: Record = await self.on.fetchrow(statement("server_limits"))
        return row

    async def horizon_holders(self, limit: int) -> list[Record]:
        """Return what keeps old row versions from being removed, the oldest first."""
        return await self.on.fetch(statement("horizon_holders"), limit)

    async def lacking_rights(self) -> list[Record]:
        """Return what a worker could not do as this role, on tables that it may claim from."""
        return await self.on.fetch(statement("lacking_rights"))

    async def table_health(self) -> list[Record]:
        """Return how our tables are doing, those with the most dead rows first."""
        return await self.on.fetch(statement("table_health"))

    async def dead_rows(self, queues: Sequence[str], least: int) -> list[Record]:
        """Return the queues whose tables are mostly dead rows, and how many those are."""
        return await self.on.fetch(statement("dead_rows"), queues, least)

    async def vacuum(self, queue: str) -> None:
        """Let the space of a queue's dead rows be used again; not in a transaction."""
        await self.on.fetch(_on_queue("vacuum", queue))

    async def applied_migrations(self) -> list[int]:
        """Return the numbers of the migrations this database has."""
        return [row[0] for row in await self.on.fetch(statement("applied_migrations"))]

    async def foreign_pgmq(self) -> Record | None:
        """Return what another program has installed in the schema pgmq, if one has."""
        row: Record | None = await self.on.fetchrow(statement("foreign_pgmq"))
        return row

    async def owns_pgmq(self) -> bool:
        """Tell whether pgmq's functions are there and ours."""
        owns: bool = await self.on.fetchval(statement("owns_pgmq"))
        return owns

    async def foreign_pgmq_version(self) -> str | None:
        """Return which version it calls itself, where it was installed by its SQL."""
        version: str | None = await self.on.fetchval(statement("foreign_pgmq_version"))
        return version

    async def record_migration(self, version: int, name: str) -> None:
        """Remember that a migration was applied."""
        await self.on.fetch(statement("record_migration"), version, name)

    async def detach_pgmq(self) -> None:
        """Take our functions and types out of the schema pgmq."""
        await self.on.fetch(statement("detach_pgmq"))

    # For tests

    async def unfinished(self, queues: Sequence[str], since: datetime) -> int:
        """Count what is due in any of the queues, or was claimed since then and runs.

        In one statement, and so at one moment: what a message defers before it ends, into
        whichever queue, is never missed.
        """
        text = _on_queues("unfinished", tuple(queues), "\nUNION ALL\n")
        rows = await self.on.fetch(text, since)
        return sum(row[0] for row in rows)

    async def hasten(self, queue: str, but: Sequence[int]) -> int:
        """Make due what is due later and not leased, but for these; return how many."""
        return len(await self.on.fetch(_on_queue("hasten", queue), but))

    async def temporary_databases(self) -> list[Record]:
        """Return what there is of temporary databases and templates; see the statement."""
        return await self.on.fetch(statement("temporary_databases"))

    async def lock_templates(self) -> None:
        """Be the only one to make a template, until the end of the transaction."""
        await self.on.fetch(statement("lock_templates"))

    async def create_database(self, name: str, template: str) -> None:
        """Create a database as a copy of another."""
        await self.on.fetch(_on_databases("create_database", name=name, template=template))

    async def close_database(self, name: str) -> None:
        """Let nobody connect to a database any more."""
        await self.on.fetch(_on_databases("close_database", name=name))

    async def rename_database(self, name: str, template: str) -> None:
        """Give a database another name."""
        await self.on.fetch(_on_databases("rename_database", name=name, template=template))

    async def drop_database(self, name: str, *, in_use: bool) -> None:
        """Drop a database, if it exists; `in_use`: even if somebody is connected to it."""
        text = "drop_database" if in_use else "drop_unused_database"
        await self.on.fetch(_on_databases(text, name=name))
