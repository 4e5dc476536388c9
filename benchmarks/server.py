"""Server: the Postgres that is measured, and a database of the benchmarks' own on it."""

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from pgtasks import Config, embedded, migrate
from pgtasks.config import DatabaseConfig
from pgtasks.connection import open_connection
from pgtasks.testing import temporary_database


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder for logs and for the embedded server's data."""
    # What a server writes while it stops may still appear under our hands.
    with TemporaryDirectory(prefix="pgtasks-bench-", ignore_cleanup_errors=True) as folder:
        # Run by root, the server steps down to an account that has to reach its data.
        Path(folder).chmod(0o755)
        yield Path(folder)


@contextmanager
def some_server(url: str | None, folder: Path) -> Iterator[str]:
    """Give the address of a server: the given one, or an embedded one that ends with the block.

    The embedded one is durable: it waits for the disk as a server in production does.
    """
    if url is not None:
        yield url
        return
    with embedded.start(folder, durable=True) as server:
        yield server.url
    _wait_until_gone(server.data_folder / "postmaster.pid")


@asynccontextmanager
async def own_database(server_url: str) -> AsyncIterator[str]:
    """Make a database with the schema in it; give its address; drop it at the end."""
    server = Config(database=DatabaseConfig(url=server_url))
    # Empty at first, so that no template stays on a server that is somebody's own.
    async with temporary_database(config=server, install=False) as database:
        connection = await open_connection(database.config.database, "benchmark")
        await migrate.upgrade(connection)
        await connection.close()
        yield database.url


@asynccontextmanager
async def empty_database(server_url: str) -> AsyncIterator[str]:
    """Make a database with nothing in it; give its address; drop it at the end."""
    server = Config(database=DatabaseConfig(url=server_url))
    async with temporary_database(config=server, install=False) as database:
        yield database.url


def _wait_until_gone(file: Path) -> None:
    deadline = time.monotonic() + 20
    while file.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
