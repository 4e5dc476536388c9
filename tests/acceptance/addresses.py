"""Addresses of databases, and single statements on them, for code without an event loop."""

import asyncio
from urllib.parse import urlsplit, urlunsplit

import asyncpg


def on_database(url: str, database: str) -> str:
    """The address of another database of the same server."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{database}"))


def run_statement(url: str, statement: str) -> None:
    """Run one statement on a connection of its own."""

    async def run() -> None:
        connection = await asyncpg.connect(url, timeout=10)
        try:
            await connection.execute(statement, timeout=30)
        finally:
            await connection.close()

    asyncio.run(run())
