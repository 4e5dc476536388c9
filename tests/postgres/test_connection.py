"""A connection of our own has our settings, whatever others say, and leaves none behind."""

from typing import Any

import asyncpg
import attrs
import pytest

from pgtasks.config import DatabaseConfig
from pgtasks.connection import WORKER_SETTINGS, Line

SHOWN = "SELECT current_setting('statement_timeout'), current_setting('enable_seqscan')"
OURS = ("4500ms", "off")


@pytest.fixture
async def other_limits(connection: Any) -> None:
    """The database has limits that are made for other programs."""
    name = await connection.fetchval("SELECT quote_ident(current_database())")
    await connection.execute(f"ALTER DATABASE {name} SET statement_timeout = '80ms'")
    await connection.execute(f"ALTER DATABASE {name} SET lock_timeout = '70ms'")


@pytest.mark.usefixtures("other_limits")
@pytest.mark.parametrize("is_pooled", [False, True])
async def test_a_line_has_our_settings(database: DatabaseConfig, is_pooled: bool):
    line = Line(attrs.evolve(database, pgbouncer=is_pooled), "tests", WORKER_SETTINGS)

    async def use(on: Any) -> tuple[Any, ...]:
        return tuple(await on.fetchrow(SHOWN))

    assert await line.call(use) == OURS
    await line.close()


@pytest.mark.usefixtures("other_limits")
async def test_a_line_through_a_pooler_leaves_nothing_behind(database: DatabaseConfig):
    """Neither a setting nor a transaction: the connection is somebody else's afterwards."""
    kept: list[Any] = []

    async def use(on: Any) -> tuple[Any, ...]:
        kept.append(on)
        return tuple(await on.fetchrow(SHOWN))

    async def fail(on: Any) -> None:
        await on.fetchval("SELECT 1 / 0")

    line = Line(attrs.evolve(database, pgbouncer=True), "tests", WORKER_SETTINGS)
    assert await line.call(use) == OURS
    with pytest.raises(asyncpg.DivisionByZeroError):
        await line.call(fail)
    [connection] = kept
    assert not connection.is_in_transaction()
    assert tuple(await connection.fetchrow(SHOWN)) == ("80ms", "on")
    assert await line.call(use) == OURS
    assert kept[0] is kept[1], "an error of SQL ended the connection"
    await line.close()
