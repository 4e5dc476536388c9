"""A worker in a database whose pgmq is another program's, and of an old version."""

import asyncio

import asyncpg
import pytest
from acceptance.conftest import StartWorker
from acceptance.history import History
from acceptance.tables import Tables
from acceptance.tasks_under_test import dies, quick
from postgres.foreign import catalog, shaped

from pgtasks import Client, migrate


@pytest.fixture
def database_url(empty_database_url: str) -> str:
    """A database with pgmq as it was before it had the column last_read_at."""
    asyncio.run(_prepare(empty_database_url))
    return empty_database_url


async def _prepare(url: str) -> None:
    connection = await asyncpg.connect(url, timeout=30)
    try:
        await connection.execute(shaped("1.5") + "SELECT pgmq.create('default')")
        await connection.execute(migrate.script(), timeout=60)
    finally:
        await connection.close()


async def test_messages_are_run_and_what_brings_its_process_down_is_archived(
    start_worker: StartWorker, client: Client, tables: Tables, history: History
) -> None:
    """By the supervisor, which has claimed nothing itself."""
    before = await catalog(tables.connection)
    start_worker("--processes", "2").wait_until_ready(2)
    await quick.defer_many([(f"m{number}",) for number in range(30)])
    await dies.defer("poison", "kill")
    await tables.drained(40)
    assert await tables.outcomes() == {"done": 30, "crashed": 1}
    assert await catalog(tables.connection) == before
