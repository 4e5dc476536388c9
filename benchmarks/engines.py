"""Engines: what a message costs the server, by how a queue's table is laid out and claimed from.

    python -m benchmarks.engines [--database-url URL]

Nobody else may work on the server meanwhile: the log is that of all of it. Whole pages, which are
logged once after each checkpoint, are not counted where `full_page_writes` is off; the embedded
server that is started without a URL has it off for this.
"""

import argparse
import asyncio
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

import asyncpg
import attrs

from benchmarks.server import own_database, temporary_folder
from pgtasks import embedded
from pgtasks.connection import WORKER_SETTINGS
from pgtasks.message import Held, new_id, write_envelope
from pgtasks.store import BEGINNING, Store, _on_queue

QUEUE = "engines"
MESSAGES = 20_000
SENT_AT_ONCE = 1_000
LEASE = timedelta(minutes=5)
TABLE = f'pgmq."q_{QUEUE}"'
LOGGED = "SELECT (pg_current_wal_insert_lsn() - pg_lsn '0/0')::float8"
HOT = f"""
SELECT pg_stat_get_tuples_hot_updated(oid)::float8 / pg_stat_get_tuples_updated(oid)
FROM pg_class WHERE oid = '{TABLE}'::regclass
"""  # noqa: S608
# The same claim in the order of ids, which an index on the due moment is not needed for.
BY_ID = (
    _on_queue("claim", QUEUE)
    .replace("vt >= $3::timestamptz AND", "msg_id > $3::bigint AND")
    .replace("ORDER BY vt", "ORDER BY msg_id")
)


@attrs.frozen
class Engine:
    """A layout, and the claim that goes with it."""

    name: str
    room: int
    """How full pages are made, in percent."""
    is_by_id: bool = False

    async def set_up(self, connection: Any) -> None:
        """Make the queue's tables anew."""
        await connection.execute(f"DROP TABLE IF EXISTS {TABLE}, pgmq.a_{QUEUE}")
        await Store(connection).create_queue(QUEUE)
        await connection.execute(f"ALTER TABLE {TABLE} SET (fillfactor = {self.room})")
        if self.is_by_id:
            await connection.execute(f"DROP INDEX pgmq.q_{QUEUE}_vt_idx")

    async def claim(self, connection: Any, limit: int) -> list[Held]:
        """Claim so many; which they are."""
        if self.is_by_id:
            rows = await connection.fetch(BY_ID, limit, LEASE, 0)
        else:
            rows = await Store(connection).claim(QUEUE, limit, LEASE, BEGINNING)
        return [Held(row["msg_id"], row["enqueued_at"]) for row in rows]


ENGINES = (
    Engine("V, pages filled", 100),
    Engine("V, 70 %", 70),
    Engine("V, 50 %", 50),
    Engine("H, pages filled", 100, is_by_id=True),
    Engine("H, 70 %", 70, is_by_id=True),
    Engine("H, 50 %", 50, is_by_id=True),
)


@attrs.define
class Meter:
    """What the server did for one connection."""

    connection: Any
    bytes: float = 0.0
    microseconds: float = 0.0

    async def __aenter__(self) -> Self:
        self.bytes, self.microseconds = await self._read()
        return self

    async def __aexit__(self, *_: object) -> None:
        logged, spent = await self._read()
        self.bytes, self.microseconds = logged - self.bytes, spent - self.microseconds

    async def _read(self) -> tuple[float, float]:
        spent = _spent(self.connection.get_server_pid())
        return await self.connection.fetchval(LOGGED), spent


def _spent(process: int) -> float:
    nanoseconds = Path(f"/proc/{process}/schedstat").read_text("ascii").split()[0]
    return int(nanoseconds) / 1e3


async def measure(connection: Any, engine: Engine, limit: int) -> str:
    """Defer, claim and complete messages; return a row of the table."""
    await engine.set_up(connection)
    store, done = Store(connection), 0
    bodies = [write_envelope(new_id(), "nothing", b'{"number":1}') for _ in range(MESSAGES)]
    async with Meter(connection) as deferred:
        for start in range(0, MESSAGES, SENT_AT_ONCE):
            some = bodies[start : start + SENT_AT_ONCE]
            await store.send_many(QUEUE, some, None, timedelta(0), None)
    async with Meter(connection) as worked:
        while done < MESSAGES:
            done += len(await store.complete(QUEUE, await engine.claim(connection, limit), 1))
    await asyncio.sleep(1.2)  # the server sums up what a session did when it is next asked
    await connection.fetchval("SELECT 1")
    hot = await connection.fetchval(HOT)
    both = [deferred.bytes, worked.bytes, deferred.bytes + worked.bytes]
    spent = [deferred.microseconds, worked.microseconds]
    cells = [f"{one / MESSAGES:.0f}" for one in both] + [f"{one / MESSAGES:.1f}" for one in spent]
    return f"| {engine.name} | {limit} | {' | '.join(cells)} | {hot:.2f} |"


async def run(server_url: str) -> None:
    """Print the table."""
    async with own_database(server_url) as url:
        connection = await asyncpg.connect(url, server_settings=dict(WORKER_SETTINGS), timeout=10)
        try:
            print(
                "| engine | claimed at once | defer, B | claim and complete, B | all, B "
                "| defer, µs | claim and complete, µs | HOT |\n|---|---|---|---|---|---|---|---|"
            )
            for limit in (10, 100, 500):
                for engine in ENGINES:
                    print(await measure(connection, engine, limit), flush=True)
        finally:
            await connection.close(timeout=5)


@contextmanager
def server(url: str | None) -> Iterator[str]:
    """Give the address of a server."""
    if url is not None:
        yield url
        return
    with temporary_folder() as folder, embedded.start(folder, durable=False) as started:
        yield started.url


def main(argv: Sequence[str]) -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engines", description=__doc__)
    parser.add_argument("--database-url", metavar="URL")
    with server(parser.parse_args(argv).database_url) as url:
        asyncio.run(run(url))


if __name__ == "__main__":
    main(sys.argv[1:])
