"""Single statements on a database, for code without an event loop."""

import asyncio

import asyncpg


def run_statement(url: str, statement: str) -> None:
    """Run one statement on a connection of its own."""

    async def run() -> None:
        connection = await asyncpg.connect(url, timeout=10)
        try:
            await connection.execute(statement, timeout=30)
        finally:
            await connection.close()

    asyncio.run(run())
