"""The client `pgmq` of PyPI, on each of its drivers, against our functions: every public method.

It is given no extension to make (`init_extension=False`), as there is none.
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import anyio
import asyncpg
import psycopg
import pytest
from pgmq import SyncPGMQueue
from pgmq.notify_listener import SyncNotificationListener
from postgres.pgmq_client import (
    BACK_ENDS,
    Speaker,
    psycopg_pool,
    public_methods,
    settings_of,
)
from psycopg_pool import ConnectionPool
from sqlalchemy import text

from pgtasks import Config, Registry, connect, task
from pgtasks.config import DatabaseConfig, TaskConfig
from pgtasks.message import new_id
from pgtasks.testing import drain, temporary_database

Scenario = Callable[[Speaker, str, Any], Awaitable[None]]
SCENARIOS: dict[str, tuple[Scenario, set[str]]] = {}
"""What a client does with a queue of its own, and which methods it is about."""


def shows(*methods: str) -> Callable[[Scenario], Scenario]:
    """Say which methods a scenario is about: it has to call each that the client has."""

    def add(scenario: Scenario) -> Scenario:
        SCENARIOS[scenario.__name__] = scenario, set(methods)
        return scenario

    return add


@pytest.fixture(scope="module")
def shared_url(server_url: str) -> Iterator[str]:
    """One database for all of this file: each scenario has a queue of its own in it."""
    on_server = Config(database=DatabaseConfig(url=server_url))
    with temporary_database(config=on_server) as database:
        yield database.url


@pytest.fixture
async def sql(shared_url: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """A connection to look with."""
    connection = await asyncpg.connect(shared_url, timeout=10)
    yield connection
    await connection.close()


numbers = count(1)


def test_no_public_method_is_left_out():
    """Of any of the clients; a new one in a later version of it needs a scenario."""
    about = set[str]().union(*(methods for _, methods in SCENARIOS.values()))
    for name, (_, client) in BACK_ENDS.items():
        assert public_methods(client) - about == set(), name
    known = set[str]().union(*(public_methods(client) for _, client in BACK_ENDS.values()))
    assert about - known == set()


# Queues


@shows("create_queue", "list_queues", "drop_queue", "init", "close", "dispose")
async def queues(pgmq: Speaker, queue: str, sql: Any) -> None:
    assert await pgmq.create_queue(queue) is None
    assert await pgmq.create_queue(queue) is None  # again changes nothing
    assert await pgmq.create_queue(queue + "_fast", unlogged=True) is None
    found = {one.queue_name: one for one in await pgmq.list_queues()}
    assert (found[queue].is_partitioned, found[queue].is_unlogged) == (False, False)
    assert found[queue + "_fast"].is_unlogged is True
    assert abs(found[queue].created_at - datetime.now(UTC)) < timedelta(minutes=5)
    assert await pgmq.drop_queue(queue + "_fast") is True
    assert await pgmq.drop_queue(queue + "_fast") is False
    assert queue + "_fast" not in {one.queue_name for one in await pgmq.list_queues()}


@shows("validate_queue_name")
async def names(pgmq: Speaker, queue: str, sql: Any) -> None:
    assert await pgmq.validate_queue_name("x" * 47) is True
    with pytest.raises(Exception, match="too long"):
        await pgmq.validate_queue_name("x" * 48)


@shows("create_partitioned_queue", "convert_archive_partitioned")
async def partitions(pgmq: Speaker, queue: str, sql: Any) -> None:
    """They answer as where pg_partman is not installed."""
    with pytest.raises(Exception, match="pg_partman is required"):
        await pgmq.create_partitioned_queue(queue + "_p")
    await pgmq.create_queue(queue)
    with pytest.raises(Exception, match="pg_partman is required"):
        await pgmq.convert_archive_partitioned(queue)
    assert await sql.fetchval("SELECT to_regclass($1)", f"pgmq.q_{queue}_p") is None


@shows("detach_archive")
async def detached(pgmq: Speaker, queue: str, sql: Any) -> None:
    await pgmq.create_queue(queue)
    assert await pgmq.detach_archive(queue) is None
    assert await sql.fetchval("SELECT to_regclass($1) IS NOT NULL", f"pgmq.a_{queue}")


# Sending and reading


@shows("send", "read")
async def one(pgmq: Speaker, queue: str, sql: Any) -> None:
    await pgmq.create_queue(queue)
    body = {"a": [1, None, "ä"], "b": {"c": 1.5}}
    first = await pgmq.send(queue, body)
    second = await pgmq.send(queue, {"n": 2}, headers={"h": 1})
    assert (first, second) == (1, 2)
    message = await pgmq.read(queue, vt=30)
    assert (message.msg_id, message.read_ct, message.message) == (first, 1, body)
    assert message.headers is None
    now = datetime.now(UTC)
    assert timedelta(seconds=0) < message.vt - now <= timedelta(seconds=31)
    assert message.enqueued_at <= message.last_read_at <= message.vt
    [other] = await pgmq.read(queue, vt=30, qty=5)
    assert (other.msg_id, other.message, other.headers) == (second, {"n": 2}, {"h": 1})
    assert await pgmq.read(queue) is None
    assert await pgmq.read(queue, qty=2) == []


@shows("send", "read")
async def conditions(pgmq: Speaker, queue: str, sql: Any) -> None:
    await pgmq.create_queue(queue)
    for kind in ("a", "b", "a"):
        await pgmq.send(queue, {"kind": kind})
    found = await pgmq.read(queue, qty=5, conditional={"kind": "a"})
    assert sorted(message.msg_id for message in found) == [1, 3]
    assert (await pgmq.read(queue)).msg_id == 2


@shows("send")
async def delays(pgmq: Speaker, queue: str, sql: Any) -> None:
    await pgmq.create_queue(queue)
    later = datetime.now(UTC) + timedelta(hours=2)
    await pgmq.send(queue, {}, delay=3600)
    await pgmq.send(queue, {}, headers={"h": 1}, delay=3600)
    await pgmq.send(queue, {}, delay=later)
    await pgmq.send(queue, {}, headers={"h": 2}, delay=later)
    await pgmq.send(queue, {}, tz=later)
    assert await pgmq.read(queue) is None
    rows = await sql.fetch(
        "SELECT extract(epoch FROM vt - clock_timestamp())::float8 AS due_in, headers, vt "
        f"FROM pgmq.q_{queue} ORDER BY msg_id"
    )
    assert [3500 < row["due_in"] <= 3600 for row in rows] == [True, True, False, False, False]
    assert [row["vt"] for row in rows[2:]] == [later] * 3
    assert [row["headers"] for row in rows] == [None, '{"h": 1}', None, '{"h": 2}', None]


@shows("send_batch", "read_batch")
async def batches(pgmq: Speaker, queue: str, sql: Any) -> None:
    await pgmq.create_queue(queue)
    later = datetime.now(UTC) + timedelta(hours=2)
    bodies: list[dict[str, Any]] = [{"n": 1}, {"n": 2}, {"n": 3}]
    headers = [{"h": number} for number in range(3)]
    assert await pgmq.send_batch(queue, bodies) == [1, 2, 3]
    assert await pgmq.send_batch(queue, bodies, headers=headers) == [4, 5, 6]
    assert await pgmq.send_batch(queue, bodies, delay=3600) == [7, 8, 9]
    assert await pgmq.send_batch(queue, bodies, delay=later) == [10, 11, 12]
    assert await pgmq.send_batch(queue, bodies, headers=headers, delay=3600) == [13, 14, 15]
    assert await pgmq.send_batch(queue, bodies, headers=headers, delay=later) == [16, 17, 18]
    assert await pgmq.send_batch(queue, []) == []
    found = sorted(await pgmq.read_batch(queue, vt=30, batch_size=100), key=lambda m: m.msg_id)
    assert [(message.msg_id, message.message["n"]) for message in found] == [
        (1, 1), (2, 2), (3, 3), (4, 1), (5, 2), (6, 3),
    ]  # fmt: skip
    assert [message.headers for message in found] == [None] * 3 + headers
    assert await pgmq.read_batch(queue) == []
    stored = await sql.fetch(f"SELECT message, headers FROM pgmq.q_{queue} WHERE msg_id > 12")
    assert [json.loads(row["headers"]) for row in stored] == headers * 2


@shows("read_with_poll")
async def polls(pgmq: Speaker, queue: str, sql: Any) -> None:
    await pgmq.create_queue(queue)
    assert await pgmq.read_with_poll(queue, max_poll_seconds=1, poll_interval_ms=50) == []
    await pgmq.send_batch(queue, [{"k": 1}, {"k": 2}])
    [found] = await pgmq.read_with_poll(
        queue, vt=30, qty=2, max_poll_seconds=1, conditional={"k": 2}
    )
    assert found.message == {"k": 2}
    [found] = await pgmq.read_with_poll(queue, vt=30, qty=2)
    assert found.message == {"k": 1}


@shows("pop")
async def pops(pgmq: Speaker, queue: str, sql: Any) -> None:
    await pgmq.create_queue(queue)
    assert await pgmq.pop(queue) is None
    await pgmq.send_batch(queue, [{"n": n} for n in range(4)])
    popped = await pgmq.pop(queue)
    assert (popped.msg_id, popped.read_ct, popped.message) == (1, 0, {"n": 0})
    assert sorted(message.msg_id for message in await pgmq.pop(queue, qty=10)) == [2, 3, 4]
    assert await pgmq.pop(queue, qty=10) == []
    assert await sql.fetchval(f"SELECT count(*) FROM pgmq.a_{queue}") == 0


GROUP = "x-pgmq-group"


async def grouped(pgmq: Speaker, queue: str) -> None:
    """Two groups: a has the messages 1, 2 and 5, b has 3 and 4."""
    await pgmq.create_queue(queue)
    groups = ["a", "a", "b", "b", "a"]
    await pgmq.send_batch(queue, [{"g": g} for g in groups], headers=[{GROUP: g} for g in groups])


def ids(messages: list[Any]) -> list[int]:
    return [message.msg_id for message in messages]


@shows("read_grouped", "read_grouped_with_poll")
async def groups_filled(pgmq: Speaker, queue: str, sql: Any) -> None:
    """The oldest group first, until there is enough."""
    await grouped(pgmq, queue)
    assert sorted(ids(await pgmq.read_grouped(queue, vt=60, qty=2))) == [1, 2]
    # A group of which something is in flight waits.
    assert sorted(ids(await pgmq.read_grouped_with_poll(queue, vt=60, qty=9))) == [3, 4]
    assert await pgmq.read_grouped(queue, qty=9) == []


@shows("read_grouped_rr", "read_grouped_rr_with_poll")
async def groups_in_turn(pgmq: Speaker, queue: str, sql: Any) -> None:
    await grouped(pgmq, queue)
    assert ids(await pgmq.read_grouped_rr(queue, vt=60, qty=3)) == [1, 3, 2]
    await pgmq.delete_batch(queue, [1, 3, 2])
    found = await pgmq.read_grouped_rr_with_poll(queue, vt=60, qty=9)
    assert sorted(ids(found)) == [4, 5]


@shows("create_fifo_index", "create_fifo_indexes_all")
async def fifo_indexes(pgmq: Speaker, queue: str, sql: Any) -> None:
    has = "SELECT indexdef FROM pg_indexes WHERE indexname = $1"
    await pgmq.create_queue(queue)
    assert await pgmq.create_fifo_index(queue) is None
    assert await pgmq.create_fifo_index(queue) is None
    assert "USING gin (headers)" in await sql.fetchval(has, f"q_{queue}_fifo_idx")
    await pgmq.create_queue(queue + "_more")
    assert await pgmq.create_fifo_indexes_all() is None
    assert await sql.fetchval(has, f"q_{queue}_more_fifo_idx")


# Ending


@shows("delete", "delete_batch")
async def deletes(pgmq: Speaker, queue: str, sql: Any) -> None:
    await pgmq.create_queue(queue)
    await pgmq.send_batch(queue, [{}] * 4)
    assert await pgmq.delete(queue, 1) is True
    assert await pgmq.delete(queue, 1) is False
    assert sorted(await pgmq.delete_batch(queue, [1, 2, 3])) == [2, 3]
    assert await pgmq.delete_batch(queue, [99]) == []
    assert await sql.fetchval(f"SELECT count(*) FROM pgmq.q_{queue}") == 1


@shows("archive", "archive_batch")
async def archives(pgmq: Speaker, queue: str, sql: Any) -> None:
    await pgmq.create_queue(queue)
    await pgmq.send_batch(queue, [{"n": n} for n in range(4)], headers=[{"h": n} for n in range(4)])
    await pgmq.read(queue)
    assert await pgmq.archive(queue, 1) is True
    assert await pgmq.archive(queue, 1) is False
    assert sorted(await pgmq.archive_batch(queue, [1, 2, 3])) == [2, 3]
    rows = await sql.fetch(f"SELECT * FROM pgmq.a_{queue} ORDER BY msg_id")
    assert [row["read_ct"] for row in rows] == [1, 0, 0]
    assert [json.loads(row["headers"]) for row in rows] == [{"h": 0}, {"h": 1}, {"h": 2}]
    assert [json.loads(row["message"]) for row in rows] == [{"n": 0}, {"n": 1}, {"n": 2}]
    assert rows[0]["last_read_at"] is not None
    assert rows[1]["last_read_at"] is None


@shows("purge")
async def purges(pgmq: Speaker, queue: str, sql: Any) -> None:
    await pgmq.create_queue(queue)
    await pgmq.send_batch(queue, [{}] * 3)
    await pgmq.archive(queue, 1)
    assert await pgmq.purge(queue) == 2
    assert await pgmq.purge(queue) == 0
    assert await sql.fetchval(f"SELECT count(*) FROM pgmq.a_{queue}") == 1
    assert await pgmq.send(queue, {}) == 4  # numbers are not used again


@shows("set_vt")
async def visibility(pgmq: Speaker, queue: str, sql: Any) -> None:
    await pgmq.create_queue(queue)
    await pgmq.send_batch(queue, [{"n": n} for n in range(3)])
    later = datetime.now(UTC) + timedelta(hours=2)
    moved = await pgmq.set_vt(queue, 1, 3600)
    assert (moved.msg_id, moved.read_ct, moved.message) == (1, 0, {"n": 0})
    assert timedelta(seconds=3500) < moved.vt - datetime.now(UTC) <= timedelta(seconds=3610)
    assert (await pgmq.set_vt(queue, 2, later)).vt == later
    assert await pgmq.set_vt(queue, 99, 0) is None
    assert sorted(ids(await pgmq.set_vt(queue, [1, 2, 99], 0))) == [1, 2]
    found = await pgmq.set_vt(queue, [2, 3], later)
    assert {(message.msg_id, message.vt) for message in found} == {(2, later), (3, later)}
    assert ids(await pgmq.read_batch(queue, batch_size=9)) == [1]


# Looking


@shows("metrics", "metrics_all")
async def metrics(pgmq: Speaker, queue: str, sql: Any) -> None:
    await pgmq.create_queue(queue)
    empty = await pgmq.metrics(queue)
    assert (empty.queue_length, empty.total_messages) == (0, 0)
    assert (empty.newest_msg_age_sec, empty.oldest_msg_age_sec) == (None, None)
    await pgmq.send_batch(queue, [{}] * 3)
    await pgmq.delete(queue, 1)
    await pgmq.read(queue)
    found = await pgmq.metrics(queue)
    assert (found.queue_name, found.queue_length, found.total_messages) == (queue, 2, 3)
    assert found.queue_visible_length == 1
    assert 0 <= found.newest_msg_age_sec <= found.oldest_msg_age_sec < 60
    assert abs(found.scrape_time - datetime.now(UTC)) < timedelta(minutes=5)
    every = {one.queue_name: one for one in await pgmq.metrics_all()}
    assert every[queue].queue_length == 2


# Telling


@shows("enable_notify", "update_notify", "list_notify_throttles", "disable_notify")
async def notifications(pgmq: Speaker, queue: str, sql: Any) -> None:
    async def throttle() -> int | None:
        rows = {one.queue_name: one for one in await pgmq.list_notify_throttles()}
        return rows[queue].throttle_interval_ms if queue in rows else None

    heard = list[str]()
    channel = f"pgmq.q_{queue}.INSERT"
    await pgmq.create_queue(queue)
    await sql.add_listener(channel, lambda *told: heard.append(told[2]))
    await pgmq.enable_notify(queue, 0)
    await pgmq.send(queue, {})
    await sql.fetchval("SELECT 1")
    assert heard == [channel]
    assert await throttle() == 0
    await pgmq.update_notify(queue, 60_000)
    assert await throttle() == 60_000
    await pgmq.disable_notify(queue)
    await pgmq.send(queue, {})
    await sql.fetchval("SELECT 1")
    assert heard == [channel]
    assert await throttle() is None


@shows(
    "bind_topic", "unbind_topic", "list_topic_bindings", "test_routing", "send_topic",
    "send_batch_topic",
)  # fmt: skip
async def topics(pgmq: Speaker, queue: str, sql: Any) -> None:
    other, later = queue + "_more", datetime.now(UTC) + timedelta(hours=2)
    await pgmq.create_queue(queue)
    await pgmq.create_queue(other)
    assert await pgmq.bind_topic(f"{queue}.*.new", queue) is None
    await pgmq.bind_topic(f"{queue}.#", other)
    await pgmq.bind_topic(f"{queue}.#", other)
    [bound] = await pgmq.list_topic_bindings(queue)
    assert (bound.pattern, bound.queue_name) == (f"{queue}.*.new", queue)
    assert len([one for one in await pgmq.list_topic_bindings() if queue in one.pattern]) == 2
    routed = {one.queue_name: one for one in await pgmq.test_routing(f"{queue}.eu.new")}
    assert set(routed) == {queue, other}
    assert routed[queue].pattern == f"{queue}.*.new"
    assert await pgmq.send_topic(f"{queue}.eu.new", {"n": 1}) == 2
    assert await pgmq.send_topic(f"{queue}.eu", {"n": 2}) == 1
    # Of its forms pgmq has none with headers and without a delay.
    with pytest.raises(Exception, match="send_topic(.|\n)*does not exist"):
        await pgmq.send_topic(f"{queue}.eu", {}, headers={"h": 1})
    assert await pgmq.send_topic(f"{queue}.eu", {"n": 3}, delay=3600) == 1
    assert await pgmq.send_topic(f"{queue}.eu", {"n": 4}, headers={"h": 1}, delay=3600) == 1
    assert await pgmq.send_topic(f"{queue}x", {"n": 5}) == 0
    bodies, headers = [{"n": 6}, {"n": 7}], [{"h": 1}, {"h": 2}]
    for given in (
        {}, {"headers": headers}, {"delay": 3600}, {"delay": later},
        {"headers": headers, "delay": 3600}, {"headers": headers, "delay": later},
    ):  # fmt: skip
        sent = await pgmq.send_batch_topic(f"{queue}.eu.new", bodies, **given)
        assert sorted(one.queue_name for one in sent) == [queue] * 2 + [other] * 2
        assert len({(one.queue_name, one.msg_id) for one in sent}) == 4
    assert await pgmq.send_batch_topic(f"{queue}.eu.new", []) == []
    assert (await pgmq.metrics(queue)).queue_length == 1 + 12
    assert (await pgmq.metrics(other)).queue_length == 4 + 12
    assert (await pgmq.metrics(other)).queue_visible_length == 2 + 4
    assert await pgmq.unbind_topic(f"{queue}.#", other) is True
    assert await pgmq.unbind_topic(f"{queue}.#", other) is False
    assert await pgmq.send_topic(f"{queue}.eu", {}) == 0


@shows("validate_routing_key", "validate_topic_pattern")
async def keys_and_patterns(pgmq: Speaker, queue: str, sql: Any) -> None:
    for key in ("a.b-c_d", "A1", "x" * 255):
        assert await pgmq.validate_routing_key(key) is True, key
    for key in ("", ".a", "a.", "a..b", "a.*", "a b", "x" * 256):
        assert await pgmq.validate_routing_key(key) is False, key
    for pattern in ("a.*", "#", "a.#.b"):
        assert await pgmq.validate_topic_pattern(pattern) is True, pattern
    for pattern in ("", "a.**", "a.##", "*#", "#*", "a b"):
        assert await pgmq.validate_topic_pattern(pattern) is False, pattern


# Around it


@shows("session")
async def sessions(pgmq: Speaker, queue: str, sql: Any) -> None:
    """Of SQLAlchemy: a message goes with what else the session writes, or not at all."""
    await pgmq.create_queue(queue)
    if not hasattr(pgmq.client, "session"):
        return
    session = await pgmq.session()
    send = text("SELECT * FROM pgmq.send(:queue, '{}'::jsonb)")
    results = []
    for ending in ("rollback", "commit"):
        for step in (lambda: session.execute(send, {"queue": queue}), getattr(session, ending)):
            answer = step()
            if hasattr(answer, "__await__"):
                answer = await answer
            results.append(answer)
    ended = session.close()
    if hasattr(ended, "__await__"):
        await ended
    assert len(results) == 4
    assert await sql.fetchval(f"SELECT count(*) FROM pgmq.q_{queue}") == 1


@pytest.mark.parametrize("back_end", BACK_ENDS)
@pytest.mark.parametrize("name", SCENARIOS)
async def test_a_client_gets_what_pgmq_would_answer(
    shared_url: str, sql: Any, name: str, back_end: str
):
    opened, client = BACK_ENDS[back_end]
    scenario, methods = SCENARIOS[name]
    queue = f"{name}_{next(numbers)}"
    async with opened(shared_url) as speaker:
        await scenario(speaker, queue, sql)
    assert (methods & public_methods(client)) - speaker.called == set()


# Between it and our workers


@pytest.mark.parametrize("back_end", BACK_ENDS)
async def test_what_it_sends_a_worker_runs_and_what_we_send_it_reads(
    shared_url: str, registry: Registry, back_end: str
):
    queue, got = f"between_{next(numbers)}", list[Any]()
    settings = DatabaseConfig(url=shared_url)
    config = Config(database=settings, task=TaskConfig(queue=queue))

    @task(name="Work", registry=registry)
    async def work(number: int) -> None:
        got.append(number)

    envelope = {"metadata": {"id": str(new_id()), "worker_name": "Work"}, "args": {"number": 7}}
    opened, _ = BACK_ENDS[back_end]
    async with opened(shared_url) as pgmq, connect(config=config):
        await pgmq.create_queue(queue)
        await pgmq.send(queue, envelope, headers={"mine": 1})
        await drain(registry=registry, queues=[queue])
        assert got == [7]
        handle = await work.defer(8)
        message = await pgmq.read(queue)
        assert message.message == {
            "metadata": {"id": str(handle.id), "worker_name": "Work"}, "args": {"number": 8},
        }  # fmt: skip
        assert await pgmq.archive(queue, message.msg_id) is True


async def test_without_the_extension_it_must_not_ask_for_it(
    shared_url: str, monkeypatch: pytest.MonkeyPatch
):
    where = settings_of(shared_url)["conn_string"]
    # With a pool of ours: it would not close its own.
    with (
        ConnectionPool(where, min_size=1, max_size=2, open=True) as pool,
        pytest.raises(psycopg.errors.Error, match="extension"),
    ):
        SyncPGMQueue(pool=pool)
    monkeypatch.setenv("PG_INIT_EXTENSION", "false")
    client = SyncPGMQueue(conn_string=where)
    client.create_queue("by_environment")
    assert client.send("by_environment", {}) == 1
    client.close()


async def test_its_listener_hears_of_what_our_clients_send(shared_url: str, registry: Registry):
    queue, heard = f"heard_{next(numbers)}", list[Any]()

    @task(name="Work", registry=registry, queue=queue)
    async def work() -> None: ...

    async with psycopg_pool(shared_url) as pgmq, connect(shared_url):
        await pgmq.create_queue(queue)
        await pgmq.enable_notify(queue, 0)
        listener = SyncNotificationListener(pgmq.client)

        def hear(told: dict[str, Any]) -> None:
            heard.append(told)
            listener._stop_event.set()

        async with anyio.create_task_group() as group:
            group.start_soon(anyio.to_thread.run_sync, listener.listen, queue, hear, 15.0)
            # It does not say when it has begun to listen.
            while not heard:
                await work.defer()
                await anyio.sleep(0.05)
    assert heard[0]["event"] == "insert"
