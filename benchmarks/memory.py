"""memory: what a worker costs while it does nothing, and what it keeps after much work."""

import anyio

from benchmarks.bench import Bench, create_queues, fill, wait_until_empty
from benchmarks.process import worker
from benchmarks.report import Result
from benchmarks.stats import Series
from benchmarks.usage import cpu_seconds, is_told, megabytes, only_child
from benchmarks.workload import nothing
from pgtasks import connect
from pgtasks.connection import Connection

QUEUE = "bench_memory"
IDLE_SECONDS = 60.0
STATEMENTS = """
    SELECT sum(calls)::float8 FROM pg_stat_statements
    WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
TRANSACTIONS = """
    SELECT (xact_commit + xact_rollback)::float8 FROM pg_stat_database
    WHERE datname = current_database()
"""


async def run(bench: Bench) -> Result:
    """Start a worker, leave it alone for a while, give it work, and look at it each time."""
    if not is_told():
        note = "Not measured: this system has no /proc that tells a process's memory."
        return Result("memory", "a worker's memory, and its cost when idle", (), note)
    series: list[Series] = []
    async with bench.connection() as connection, connect(config=bench.config):
        await create_queues(connection, QUEUE)
        async with worker(bench.url, QUEUE, folder=bench.folder) as running:
            supervisor, child = running.pid, await only_child(running.pid)
            await anyio.sleep(2)
            series += _sizes("idle", supervisor, child)
            series += await _idle(connection, [supervisor, child], 5.0 if bench.quick else None)
            for number in range(2):
                calls = ((number,) for number in range(bench.messages))
                await fill(connection, QUEUE, nothing, calls)
                await wait_until_empty(connection, QUEUE, 0.05)
                await anyio.sleep(1)
                series += _sizes(f"after {(number + 1) * bench.messages:,}", supervisor, child)
    return Result(
        "memory",
        "a worker's memory, and its cost when idle",
        tuple(series),
        (
            "One process under its supervisor, default settings, one look each. PSS counts a "
            "page that several processes share by its part."
        ),
    )


def _sizes(when: str, supervisor: int, child: int) -> list[Series]:
    return [
        Series(f"{name}, {when}, {kind.upper()}", "MB", (megabytes(pid, kind),))
        for name, pid in (("supervisor", supervisor), ("child", child))
        for kind in ("Rss", "Pss")
    ]


async def _idle(connection: Connection, pids: list[int], seconds: float | None) -> list[Series]:
    length = seconds or IDLE_SECONDS
    label, counter = await _counter(connection)
    cpu, count = sum(map(cpu_seconds, pids)), await connection.fetchval(counter)
    await anyio.sleep(length)
    # One of them is our own look at the beginning.
    count = await connection.fetchval(counter) - count - 1
    cpu = sum(map(cpu_seconds, pids)) - cpu
    return [
        Series(f"CPU of both in {length:g} idle seconds", "s", (cpu,)),
        Series(label, "a second", (max(0.0, count) / length,)),
    ]


async def _counter(connection: Connection) -> tuple[str, str]:
    """What counts statements; without the extension every statement is a transaction."""
    known = "SELECT count(*) FROM pg_extension WHERE extname = 'pg_stat_statements'"
    if await connection.fetchval(known):
        return "statements while idle", STATEMENTS
    return "transactions while idle", TRANSACTIONS
