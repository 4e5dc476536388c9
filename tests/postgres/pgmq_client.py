"""The client `pgmq` of PyPI in each of its forms, all of them called in one way."""

import inspect
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg
import attrs
import psycopg
from pgmq import (
    AsyncPGMQueue,
    SQLAlchemyAsyncPGMQueue,
    SQLAlchemyPGMQueue,
    SyncPGMQueue,
)
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import create_async_engine


@attrs.define(eq=False)
class Speaker:
    """One client; each of its methods is awaited, whether it is a coroutine or not."""

    client: Any
    called: set[str] = attrs.field(factory=set)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self.client, name)

        async def call(*args: Any, **options: Any) -> Any:
            self.called.add(name)
            with warnings.catch_warnings():
                # list_queues() says each time what it returned in its version 1.
                warnings.filterwarnings("ignore", "list_queues", UserWarning)
                answer = method(*args, **options)
                return await answer if inspect.isawaitable(answer) else answer

        return call


def settings_of(url: str) -> dict[str, Any]:
    """Return how each of the clients is to reach a database."""
    parts = {key: value for key, value in conninfo_to_dict(url).items() if value is not None}
    # Its own reading of a URL knows no socket.
    return {"conn_string": make_conninfo("", **parts), "init_extension": False, "pool_size": 2}


@asynccontextmanager
async def psycopg_pool(url: str) -> AsyncIterator[Speaker]:
    """The client on psycopg."""
    speaker = Speaker(SyncPGMQueue(**settings_of(url)))
    try:
        yield speaker
    finally:
        await speaker.close()


@asynccontextmanager
async def asyncpg_pool(url: str) -> AsyncIterator[Speaker]:
    """The client on asyncpg."""
    async with asyncpg.create_pool(url, min_size=1, max_size=2) as pool:
        speaker = Speaker(AsyncPGMQueue(**settings_of(url), pool=pool))
        await speaker.init()
        yield speaker
        await speaker.close()


@asynccontextmanager
async def sqlalchemy_engine(url: str) -> AsyncIterator[Speaker]:
    """The client on SQLAlchemy, and that on psycopg."""
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(url))
    speaker = Speaker(SQLAlchemyPGMQueue(**settings_of(url), engine=engine))
    try:
        yield speaker
    finally:
        await speaker.dispose()


@asynccontextmanager
async def sqlalchemy_asyncpg(url: str) -> AsyncIterator[Speaker]:
    """The asynchronous client on SQLAlchemy, and that on asyncpg."""
    engine = create_async_engine(
        "postgresql+asyncpg://", async_creator=lambda: asyncpg.connect(url)
    )
    async with _on(engine, url) as speaker:
        yield speaker


@asynccontextmanager
async def sqlalchemy_async_psycopg(url: str) -> AsyncIterator[Speaker]:
    """The asynchronous client on SQLAlchemy, and that on psycopg."""
    engine = create_async_engine(
        "postgresql+psycopg://", async_creator=lambda: psycopg.AsyncConnection.connect(url)
    )
    async with _on(engine, url) as speaker:
        yield speaker


@asynccontextmanager
async def _on(engine: Any, url: str) -> AsyncIterator[Speaker]:
    speaker = Speaker(SQLAlchemyAsyncPGMQueue(**settings_of(url), engine=engine))
    await speaker.init()
    try:
        yield speaker
    finally:
        await speaker.close()


BACK_ENDS: Final = {
    "psycopg": (psycopg_pool, SyncPGMQueue),
    "asyncpg": (asyncpg_pool, AsyncPGMQueue),
    "sqlalchemy": (sqlalchemy_engine, SQLAlchemyPGMQueue),
    "sqlalchemy-asyncpg": (sqlalchemy_asyncpg, SQLAlchemyAsyncPGMQueue),
    "sqlalchemy-psycopg": (sqlalchemy_async_psycopg, SQLAlchemyAsyncPGMQueue),
}


def public_methods(client: type[Any]) -> set[str]:
    """Return the names of a client's methods that do not begin with an underscore."""
    return {
        name
        for name, _ in inspect.getmembers(client, inspect.isroutine)
        if not name.startswith("_")
    }
