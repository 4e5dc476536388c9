"""Calls that a type checker must accept, with the types it must see; never run."""

import datetime as dt
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, assert_type

import asyncpg

from pgtasks import (
    Context,
    Discard,
    Handle,
    NamedTask,
    Registry,
    Retry,
    RetryLater,
    Snooze,
    Task,
    Worker,
    connect,
    current_message,
    lifespan,
    task,
)


@task
async def bare(user_id: int, *, locale: str = "en") -> str:
    return locale


@task(queue="emails", retries=5, timeout=30)
async def with_settings(user_id: int, *, locale: str = "en") -> str:
    return locale


@task()
def sync(a: int, b: float = 1.0) -> float:
    return a * b


@task
async def with_context(context: Context, order_id: int) -> None:
    context.log.info("paying, attempt %d", context.attempt)
    async with context.transaction() as connection:
        await connection.execute("SELECT 1")
        await sync.options(connection=connection).defer(order_id)
    await context.extend(30)
    await context.extend("5m")


@task(retries=Retry(max_retries=3, delay="250ms", give_up_on=ValueError), timeout=None)
def with_context_and_settings(context: Context, order_id: int) -> None: ...


@task(retries=lambda failures, error: None if isinstance(error, ValueError) else failures * 2.0)
async def with_function(*names: str, **more: int) -> None: ...


@task
async def says(how: str) -> Snooze | None:
    if how == "later":
        raise RetryLater(30, "busy")
    if how == "never":
        raise Discard("closed")
    return Snooze(dt.timedelta(minutes=5))


@task
def without_arguments() -> None: ...


@lifespan
@asynccontextmanager
async def resources() -> AsyncIterator[int]:
    yield 1


async def defers(connection: asyncpg.Connection[Any]) -> None:
    assert_type(await bare.defer(42), Handle)
    assert_type(await bare.defer(user_id=42, locale="de"), Handle)
    assert_type(await bare.defer_many([(1,), {"user_id": 2}]), list[Handle])
    assert_type(bare.defer_sync(42, locale="de"), Handle)
    assert_type(bare.defer_many_sync([(1,)]), list[Handle])
    assert_type(await with_settings.defer(1), Handle)
    assert_type(await sync.defer(1, b=2), Handle)
    assert_type(await with_context.defer(7), Handle)
    assert_type(await with_context.defer(order_id=7), Handle)
    assert_type(await with_context_and_settings.defer(7), Handle)
    assert_type(await with_function.defer("a", "b", c=1), Handle)
    assert_type(await says.defer("later"), Handle)
    assert_type(await without_arguments.defer(), Handle)
    at = dt.datetime(2027, 1, 1, tzinfo=dt.UTC)
    await bare.options(delay=60).defer(1)
    await bare.options(delay="250ms", queue="other", retries=0, timeout=None).defer(1)
    await bare.options(delay=dt.timedelta(1)).options(at=at, connection=connection).defer(1)
    await NamedTask("billing.charge", queue="billing").options(delay=5).defer(order_id=7)


async def calls() -> None:
    called: Coroutine[Any, Any, str] = bare(1)
    assert_type(await called, str)
    assert_type(sync(1), float)
    assert_type(bare.name, str)
    assert_type(await bare.options(delay=1)(1, locale="de"), str)


async def takes(some: Task[[int], None]) -> None:
    await some.defer(1)


async def lives() -> None:
    await takes(with_context_and_settings)
    async with connect() as client, Worker(registry=Registry(), queues=["a"]) as worker:
        assert_type(worker, Worker)
        await client.pool.fetch("SELECT 1")
    with connect("postgresql:///app"):
        sync.defer_sync(1)
    assert_type(current_message(), Context)
