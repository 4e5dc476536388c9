"""The tasks that the worker processes of these tests run."""

import asyncio
import ctypes
import faulthandler
import os
import signal
import sys
import time
from contextlib import AsyncExitStack

import asyncpg
from acceptance.history import record

from pgtasks import Context, LeaseLost, current_message, task
from pgtasks.client import current_client

DEADLY = ("kill", "segfault", "os._exit", "recursion")
"""How a task may end its process."""


@task
async def quick(key: str) -> None:
    record("start", key, current_message().attempt)
    record("end", key)


@task
async def slow(key: str, seconds: float) -> None:
    record("start", key, current_message().attempt)
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        record("cancelled", key)
        raise
    record("end", key)


@task
async def slow_at_first(key: str, seconds: float) -> None:
    """Takes its time in its first delivery only."""
    record("start", key, current_message().attempt)
    try:
        await asyncio.sleep(seconds if current_message().message.delivery == 1 else 0)
    except asyncio.CancelledError:
        record("cancelled", key)
        raise
    record("end", key)


@task
def in_thread(key: str, seconds: float) -> None:
    record("start", key)
    time.sleep(seconds)
    record("end", key)


@task
async def blocking(key: str, seconds: float) -> None:
    """Holds up the event loop of its worker, which an async function must not do."""
    record("start", key)
    time.sleep(seconds)  # noqa: ASYNC251 - the mistake under test
    record("end", key)


@task
async def swallows_cancellation(key: str, seconds: float) -> None:
    record("start", key)
    until, swallowed = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        try:
            await asyncio.sleep(0.05)
        except asyncio.CancelledError:
            swallowed += 1
            if swallowed == 1:  # it is cancelled again and again
                record("swallowed", key)
    record("end", key)


@task
def holds_the_lock(key: str, seconds: float) -> None:
    """A C call that does not let go of the interpreter, so that no thread of it goes on."""
    record("start", key)
    if current_message().message.delivery == 1:
        ctypes.PyDLL(None).usleep(int(seconds * 1_000_000))
    record("end", key)


@task
async def ignores_everything(key: str, how: str) -> None:
    """Cannot be ended but with its process: it lets nothing pass, and may block the loop."""
    record("start", key)
    while True:
        try:
            if how == "blocking":
                time.sleep(0.05)  # noqa: ASYNC251 - the mistake under test
            else:
                await asyncio.sleep(0.05)
        except BaseException:  # noqa: BLE001
            pass


@task
async def dies(key: str, how: str) -> None:
    """Takes its process down, a moment after it started, so that its neighbours run as well."""
    record("start", key, current_message().attempt)
    await asyncio.sleep(0.2)
    if how in DEADLY:
        record("dies", key)
    match how:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "segfault":
            ctypes.string_at(0)
        case "os._exit":
            os._exit(0)
        case "recursion":
            faulthandler._stack_overflow()  # type: ignore[attr-defined] # in C, as in a parser
        case "memory":
            record("raised", key)
            bytearray(1 << 62)
        case "sys.exit":
            record("raised", key)
            sys.exit()
        case "KeyboardInterrupt":
            record("raised", key)
            raise KeyboardInterrupt
    record("end", key)


@task
def dies_in_thread(key: str, how: str) -> None:
    record("start", key)
    record("raised", key)
    if how == "sys.exit":
        sys.exit()
    raise KeyboardInterrupt


@task
async def fails_at_first(key: str, times: int, *, seconds: float = 0.0) -> None:
    """Fails so many times before it succeeds."""
    attempt = current_message().attempt
    record("start", key, attempt)
    await asyncio.sleep(seconds)
    if attempt <= times:
        record("raised", key)
        raise RuntimeError(f"failure {attempt} of {times}")
    record("end", key)


@task
async def hoards_connections(key: str, seconds: float) -> None:
    """Takes all that the pool has, and leaves a transaction open on each."""
    record("start", key)
    pool = current_client().pool
    async with AsyncExitStack() as stack:
        for _ in range(pool.get_max_size()):
            connection = await stack.enter_async_context(pool.acquire())
            await connection.execute("BEGIN; SELECT count(*) FROM pgmq.q_default")
            stack.push_async_callback(connection.execute, "ROLLBACK")
        record("hoarded", key)
        await asyncio.sleep(seconds)
    record("end", key)


@task
async def takes_effect(context: Context, key: str) -> None:
    """Writes a row of the table `effect` in the transaction that completes it."""
    record("start", key, context.attempt)
    try:
        async with context.transaction() as connection:
            await connection.execute("INSERT INTO effect (key) VALUES ($1)", key)
            await asyncio.sleep(0.02)
    except LeaseLost:
        record("cancelled", key)
        raise
    except asyncpg.PostgresError as error:
        record("error", key, error.sqlstate)
        record("raised", key)
        raise
    except (OSError, asyncpg.InterfaceError, asyncpg.InternalClientError):
        record("raised", key)
        raise
    record("end", key)


@task
async def writes_in_a_transaction(key: str, seconds: float) -> None:
    record("start", key)
    try:
        async with current_message().transaction() as connection:
            await connection.execute("CREATE TEMPORARY TABLE IF NOT EXISTS written (key text)")
            await asyncio.sleep(seconds)
    except BaseException:
        record("raised", key)
        raise
    record("end", key)


@task
async def takes_a_number(key: str, number: int) -> None:
    record("start", key)
    record("end", key)
