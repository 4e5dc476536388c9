"""Calls that a type checker must refuse: each `ignore` that is not needed is an error; never run.

What is ignored must be exactly what it says, so that a looser type would be noticed.
"""

import datetime as dt

from pgtasks import Context, NamedTask, Registry, Schedule, Snooze, Worker, connect, task


@task
async def send(user_id: int, *, locale: str = "en") -> None: ...


@task(queue="sums")
def add(a: int, b: int = 1) -> int:
    return a + b


@task
def pay(context: Context, order_id: int) -> None: ...


async def wrong_calls() -> None:
    await send.defer("42")  # type: ignore[arg-type]
    await send.defer()  # type: ignore[call-arg]
    await send.defer(42, "de")  # type: ignore[call-arg]
    await send.defer(42, local="de")  # type: ignore[call-arg]
    await send.defer(42, locale=5)  # type: ignore[arg-type]
    await send.defer(None)  # type: ignore[arg-type]
    await send.defer(42, delay=5)  # type: ignore[call-arg]
    send.defer_sync("42")  # type: ignore[arg-type]
    send.defer_sync()  # type: ignore[call-arg]
    await add.defer(1, 2, 3)  # type: ignore[call-arg]
    await add.defer(a=1, c=2)  # type: ignore[call-arg]
    await add.options(delay=1).defer("1")  # type: ignore[arg-type]
    await pay.defer("7")  # type: ignore[arg-type]
    await pay.defer()  # type: ignore[call-arg]
    await send.defer_many([1])  # type: ignore[list-item]
    await send.schedule(Schedule("s", cron="@daily"), "42")  # type: ignore[arg-type]
    await send.schedule(Schedule("s", cron="@daily"))  # type: ignore[call-arg]
    await send.schedule("s", 42)  # type: ignore[arg-type]
    await pay.schedule(Schedule("s", every="1d"))  # type: ignore[call-arg]
    await send.defer_many(5)  # type: ignore[arg-type]
    add("1")  # type: ignore[arg-type]
    send.dely(1)  # type: ignore[attr-defined]


def wrong_options() -> None:
    send.options(60)  # type: ignore[call-arg, arg-type]
    send.options(delay=[])  # type: ignore[arg-type]
    send.options(dely=1)  # type: ignore[call-arg]
    send.options(at="tomorrow")  # type: ignore[arg-type]
    send.options(at=dt.date(2027, 1, 1))  # type: ignore[arg-type]
    send.options(retries=1.5)  # type: ignore[arg-type]
    send.options(on_success="keep")  # type: ignore[arg-type]
    send.options(connection="postgresql://")  # type: ignore[arg-type]
    NamedTask("x").options(retries=1)  # type: ignore[call-arg]
    NamedTask()  # type: ignore[call-arg]


def wrong_settings() -> None:
    task(retires=3)  # type: ignore[call-overload]
    task(queue=5)  # type: ignore[call-overload]
    task(timeout=[])  # type: ignore[call-overload]
    task(on_failure="keep")  # type: ignore[call-overload]
    task(5)  # type: ignore[call-overload]
    Worker(Registry())  # type: ignore[call-arg]
    connect(5)  # type: ignore[arg-type]
    Snooze()  # type: ignore[call-arg]
    Snooze([])  # type: ignore[arg-type]


def frozen() -> None:
    send.name = "x"  # type: ignore[misc]
