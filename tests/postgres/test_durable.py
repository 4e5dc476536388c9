"""Tasks whose ending must have reached the disk before anything else happens."""

from typing import Any

import attrs
import pytest
from postgres.rows import LOCKS, Rows
from postgres.working import working

from pgtasks import Config, Registry, RetryLater, task

WATCH = """
CREATE SCHEMA app;
CREATE TABLE app.seen (what text, setting text);
CREATE FUNCTION app.note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO app.seen VALUES (TG_OP, current_setting('synchronous_commit'));
    RETURN NULL;
END $$;
CREATE TRIGGER note AFTER DELETE OR UPDATE OF headers ON pgmq.q_default
    FOR EACH ROW EXECUTE FUNCTION app.note();
"""


@pytest.fixture
async def seen(rows: Rows) -> Any:
    """How each ending of a lease was committed: was the disk waited for?"""
    await rows.connection.execute(WATCH)

    async def read() -> list[tuple[str, str]]:
        found = await rows.fetch("SELECT * FROM app.seen")
        return [tuple(row) for row in found]

    return read


@pytest.mark.parametrize("end", ["delete", "archive", "retry", "give up"])
@pytest.mark.parametrize("durable", [True, False])
async def test_a_durable_end_waits_for_the_disk_and_another_does_not(  # noqa: PLR0917
    config: Config, registry: Registry, rows: Rows, seen: Any, end: str, durable: bool
):
    on_success: Any = "archive" if end == "archive" else "delete"
    runs = list[int]()

    @task(name="work", registry=registry, durable=durable, on_success=on_success, retries=1)
    async def work() -> None:
        runs.append(1)
        if end == "retry" and len(runs) == 1:
            raise RetryLater(0)
        if end == "give up":
            raise ValueError

    async with working(config, registry):
        await work.defer()
        await rows.empty()
    setting = "on" if durable else "off"
    expected = {"retry": ["UPDATE", "DELETE"], "give up": ["UPDATE", "DELETE"]}
    assert await seen() == [(what, setting) for what in expected.get(end, ["DELETE"])]


async def test_durable_may_be_the_workers_default(
    config: Config, registry: Registry, rows: Rows, seen: Any
):
    config = attrs.evolve(config, worker=attrs.evolve(config.worker, durable=True))

    @task(name="work", registry=registry)
    async def work() -> None: ...

    @task(name="not", registry=registry, durable=False)
    async def not_durable() -> None: ...

    async with working(config, registry):
        await work.defer()
        await rows.empty()
        await not_durable.defer()
        await rows.empty()
    assert await seen() == [("DELETE", "on"), ("DELETE", "off")]


async def test_the_slot_of_a_durable_run_is_busy_until_its_end_is_written(
    config: Config, registry: Registry, rows: Rows, database_url: str
):
    import anyio
    import asyncpg
    from eventually import eventually_async

    config = attrs.evolve(config, worker=attrs.evolve(config.worker, concurrency=1))
    ran, locked = list[int](), anyio.Event()

    @task(name="work", registry=registry, durable=True)
    async def work(number: int) -> None:
        ran.append(number)
        await locked.wait()

    async with working(config, registry):
        first = await work.defer(1)
        await work.defer(2)

        async def is_running() -> None:
            assert ran == [1]

        await eventually_async(is_running)
        other = await asyncpg.connect(database_url)
        async with other.transaction():
            await other.execute(
                "SELECT FROM pgmq.q_default WHERE msg_id = $1 FOR UPDATE", first.message_id
            )
            locked.set()
            waiting = LOCKS + "NOT granted"
            while not await rows.connection.fetchval(waiting):
                await anyio.sleep(0.01)
            await anyio.sleep(0.2)
            assert ran == [1]
        await other.close()
        await rows.empty()
    assert ran == [1, 2]
