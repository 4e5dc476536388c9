"""Draining queues that the Roadster framework filled, and living beside it in one database.

Rows are inserted by plain SQL exactly as its client leaves them; what it would make of ours is said
by a small model of its reader.
"""

import asyncio
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict
from uuid import UUID, uuid4

import anyio
import asyncpg
import attrs
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from postgres.conftest import Heard
from postgres.rows import Rows, seconds
from postgres.working import working

from pgtasks import (
    Client,
    Config,
    Context,
    NamedTask,
    QueueNameError,
    Registry,
    Retry,
    Snooze,
    UnknownTaskError,
    Worker,
    connect,
    exit_codes,
    migrate,
    task,
)
from pgtasks.cli import main
from pgtasks.config import DatabaseConfig, TaskConfig
from pgtasks.connection import open_connection
from pgtasks.message import new_id
from pgtasks.store import Store
from pgtasks.testing import drain

QUEUE = "roadster"
LARGEST = 2**64 - 1


# What Roadster does


@dataclass(frozen=True)
class Job:
    """What Roadster reads of a message."""

    id: UUID | int
    worker_name: str
    args: Any


def read_as_roadster(text: str) -> Job:
    """Read a message by the rules of its reader; AssertionError where that would refuse it.

    Three keys are required, `args` too although it may be null; others are ignored. The id is
    tried as a UUID, which is a string, then as an unsigned number of 64 bits. Numbers are integers
    of 64 bits or else floats, and a float is finite.
    """
    body = json.loads(text, parse_constant=_refuse, parse_int=_number, parse_float=_finite)
    assert isinstance(body, dict), "a message is an object"
    assert body.keys() >= {"metadata", "args"}, "both keys are required"
    metadata = body["metadata"]
    assert isinstance(metadata, dict), "metadata is an object"
    assert metadata.keys() >= {"id", "worker_name"}, "both keys are required"
    assert isinstance(metadata["worker_name"], str), "a name is a string"
    own_id = metadata["id"]
    if isinstance(own_id, str):
        return Job(UUID(own_id), metadata["worker_name"], body["args"])
    assert type(own_id) is int, "an id is a UUID or a number"
    assert 0 <= own_id <= LARGEST, "of 64 bits, unsigned"
    return Job(own_id, metadata["worker_name"], body["args"])


def _number(text: str) -> int | float:
    whole = int(text)
    return whole if -(2**63) <= whole <= LARGEST else _finite(text)


def _finite(text: str) -> float:
    assert math.isfinite(float(text)), "number out of range"
    return float(text)


def _refuse(text: str) -> None:
    raise AssertionError(f"{text} is no JSON")


@attrs.frozen
class Roadster:
    """Its client: plain SQL, headers NULL, a delay as `vt`, whole seconds."""

    rows: Rows

    async def enqueue(
        self, worker_name: str, args: Any, *, own_id: UUID | int | None = None, delay: int = 0
    ) -> int:
        """Enqueue a job as `enqueue` and `enqueue_delayed` do."""
        written = str(new_id()) if own_id is None else own_id
        body = {
            "metadata": {
                "id": str(written) if isinstance(written, UUID) else written,
                "worker_name": worker_name,
            },
            "args": args,
        }
        vt = f"clock_timestamp() + make_interval(secs => {delay})"
        return await self.rows.put(json.dumps(body), queue=QUEUE, vt=vt, headers=None)

    async def read(self) -> Job:
        """Read one message as its worker does; it is left leased."""
        [row] = await self.rows.fetch(
            f"UPDATE pgmq.q_{QUEUE} SET vt = clock_timestamp() + interval '60 s', "
            "read_ct = read_ct + 1, last_read_at = clock_timestamp() WHERE msg_id = ("
            f"SELECT msg_id FROM pgmq.q_{QUEUE} WHERE vt <= clock_timestamp() ORDER BY msg_id "
            "LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING message::text"
        )
        return read_as_roadster(row[0])

    async def text(self, message_id: int, table: str = "q") -> str:
        """The message of a row, of the archive with table "a"."""
        [row] = await self.rows.fetch(
            f"SELECT message::text FROM pgmq.{table}_{QUEUE} WHERE msg_id = $1", message_id
        )
        return str(row[0])

    async def job(self, message_id: int, table: str = "q") -> Job:
        """What it would read of a row."""
        return read_as_roadster(await self.text(message_id, table))


@pytest.fixture
async def roadster(rows: Rows) -> Roadster:
    """A Roadster application that uses this database."""
    await rows.fetch("SELECT pgtasks.create_queue($1)", QUEUE)
    return Roadster(rows)


@pytest.mark.parametrize(
    "text",
    [
        '{"metadata": {"id": 1, "worker_name": "X"}}',
        '{"metadata": {"id": 1}, "args": null}',
        '{"metadata": {"worker_name": "X"}, "args": null}',
        '{"metadata": {"id": -1, "worker_name": "X"}, "args": null}',
        '{"metadata": {"id": 18446744073709551616, "worker_name": "X"}, "args": null}',
        '{"metadata": {"id": 1.0, "worker_name": "X"}, "args": null}',
        '{"metadata": {"id": true, "worker_name": "X"}, "args": null}',
        '{"metadata": {"id": "seven", "worker_name": "X"}, "args": null}',
        '{"metadata": {"id": 1, "worker_name": null}, "args": null}',
        '{"metadata": {"id": 1, "worker_name": "X"}, "args": 1e999}',
        '[{"id": 1, "worker_name": "X"}, null]',
    ],
)
def test_the_model_of_its_reader_refuses(text: str) -> None:
    with pytest.raises((AssertionError, ValueError)):
        read_as_roadster(text)


def test_the_model_of_its_reader_ignores_what_it_does_not_know() -> None:
    own_id = uuid4()
    metadata = {"id": own_id.hex, "worker_name": "X", "more": 1}
    text = json.dumps({"metadata": metadata, "args": None, "periodic": 2})
    assert read_as_roadster(text) == Job(own_id, "X", None)


# Its messages are run

IDS = [
    UUID("01985d5c-3b1e-7c3a-9f7d-0123456789ab"),
    0,
    2**53 + 1,
    2**63,
    LARGEST,
]


@pytest.mark.parametrize("own_id", IDS, ids=str)
async def test_ids_of_both_forms(
    config: Config, registry: Registry, roadster: Roadster, own_id: UUID | int
):
    seen = list[str]()

    @task(name="Work", queue=QUEUE, registry=registry, on_success="archive")
    async def work(context: Context, number: int) -> None:
        seen.append(context.id)

    message = await roadster.enqueue("Work", 7, own_id=own_id)
    before = await roadster.text(message)
    async with working(config, registry):
        outcome = await roadster.rows.outcome(message, QUEUE)
    assert outcome["outcome"] == "done"
    assert seen == [str(own_id)]
    assert await roadster.text(message, "a") == before
    assert read_as_roadster(before) == Job(own_id, "Work", 7)


ARGS: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = [
    (None, (), {}),
    ([], (), {}),
    ({}, (), {}),
    (7, (7,), {}),
    (-0.5, (-0.5,), {}),
    (True, (True,), {}),
    ("a\u00e4\U0001f600\n", ("a\u00e4\U0001f600\n",), {}),
    ([1, "two", None], (1, "two", None), {}),
    ([[1, 2]], ([1, 2],), {}),
    ({"user_id": 7, "tags": ["a"]}, (), {"user_id": 7, "tags": ["a"]}),
    ({"inner": {"deep": {"x": None}}}, (), {"inner": {"deep": {"x": None}}}),
    (LARGEST, (LARGEST,), {}),
]


@pytest.mark.parametrize(("args", "placed", "named"), ARGS, ids=json.dumps)
async def test_arguments_of_every_form(  # noqa: PLR0917 - a table
    client: Client,
    registry: Registry,
    roadster: Roadster,
    args: Any,
    placed: tuple[Any, ...],
    named: dict[str, Any],
):
    got = list[tuple[tuple[Any, ...], dict[str, Any]]]()

    @task(name="Work", queue=QUEUE, registry=registry)
    async def work(*positional: Any, **keywords: Any) -> None:
        got.append((positional, keywords))

    await roadster.enqueue("Work", args)
    await drain(registry=registry)
    assert got == [(placed, named)]
    assert await roadster.rows.all(QUEUE) == []


@attrs.frozen
class AttrsArgs:
    """The arguments of a Rust worker, as an attrs class."""

    user_id: int
    email: str | None = None


@dataclass
class DataArgs:
    """The same, as a dataclass."""

    user_id: int
    email: str | None = None


class StructArgs(msgspec.Struct):
    """The same, as a Struct."""

    user_id: int
    email: str | None = None


class TypedArgs(TypedDict):
    """The same, as a dictionary."""

    user_id: int
    email: str | None


@pytest.mark.parametrize("model", [AttrsArgs, DataArgs, StructArgs, TypedArgs])
async def test_one_model_stands_for_the_arguments_of_a_rust_worker(
    client: Client, registry: Registry, roadster: Roadster, model: Any
):
    got = list[Any]()

    async def handle(args) -> None:
        got.append(args)

    handle.__annotations__["args"] = model
    task(name="SendWelcome", queue=QUEUE, registry=registry)(handle)
    await roadster.enqueue("SendWelcome", {"user_id": 7, "email": None})
    await drain(registry=registry)
    assert got == [model(user_id=7, email=None)]


@pytest.mark.parametrize(
    "name", ["SendWelcome", "app::SendWelcome", "Bar>", "Worker<String>", "Größe"]
)
async def test_names_of_rust_types_are_names_or_aliases(
    client: Client, registry: Registry, roadster: Roadster, name: str
):
    ran = list[str]()

    @task(name="emails.welcome", aliases=[name], queue=QUEUE, registry=registry)
    async def welcome(user_id: int) -> None:
        ran.append("welcome")

    await roadster.enqueue(name, {"user_id": 1})
    await welcome.defer(user_id=2)
    await drain(registry=registry)
    assert ran == ["welcome", "welcome"]


async def test_a_delay_is_waited_for(client: Client, registry: Registry, roadster: Roadster):
    ran = list[int]()

    @task(name="Work", queue=QUEUE, registry=registry)
    async def work(number: int) -> None:
        ran.append(number)

    await roadster.enqueue("Work", 1, delay=3600)
    await roadster.enqueue("Work", 2)
    await drain(registry=registry)
    assert ran == [2]
    await drain(registry=registry, delayed=True)
    assert ran == [2, 1]


# How they end


async def test_done_is_deleted_unless_it_is_to_be_archived(
    client: Client, registry: Registry, roadster: Roadster
):
    @task(name="Gone", queue=QUEUE, registry=registry)
    async def gone() -> None: ...

    @task(name="Kept", queue=QUEUE, registry=registry, on_success="archive")
    async def kept() -> None: ...

    await roadster.enqueue("Gone", None)
    message = await roadster.enqueue("Kept", None, own_id=LARGEST)
    await drain(registry=registry)
    assert await roadster.rows.archived_ids(QUEUE) == [message]
    assert await roadster.job(message, "a") == Job(LARGEST, "Kept", None)


async def test_given_up_is_archived_with_its_envelope_and_its_errors(
    client: Client, registry: Registry, roadster: Roadster
):
    @task(name="Fail", queue=QUEUE, registry=registry, retries=Retry(2, delay="1h"))
    async def fail(number: int) -> None:
        raise ValueError(f"no {number}")

    message = await roadster.enqueue("Fail", 7, own_id=2**63)
    before = await roadster.text(message)
    drained = await drain(registry=registry, delayed=True, raise_errors=False)
    assert drained.counts == {"given up": 1}
    state = (await roadster.rows.archived(QUEUE))[message]
    assert (state["outcome"], state["attempts"]) == ("failed", 3)
    assert [error["error"] for error in state["errors"]] == ["ValueError: no 7"] * 3
    assert await roadster.text(message, "a") == before
    assert read_as_roadster(before) == Job(2**63, "Fail", 7)


async def test_given_up_can_be_deleted_instead(
    client: Client, registry: Registry, roadster: Roadster
):
    @task(name="Fail", queue=QUEUE, registry=registry, retries=0, on_failure="delete")
    async def fail() -> None:
        raise ValueError

    await roadster.enqueue("Fail", None)
    await drain(registry=registry, raise_errors=False)
    assert await roadster.rows.all(QUEUE) == []
    assert await roadster.rows.archived_ids(QUEUE) == []


async def test_between_two_attempts_roadster_can_read_it_too(
    client: Client, registry: Registry, roadster: Roadster
):
    """What pgtasks knows of the failure stands in the headers, which Roadster does not look at."""

    @task(name="Fail", queue=QUEUE, registry=registry, retries=Retry(2, delay="1h"))
    async def fail(number: int) -> None:
        raise ValueError(number)

    own_id = new_id()
    message = await roadster.enqueue("Fail", 7, own_id=own_id)
    await drain(registry=registry, raise_errors=False)
    row = await roadster.rows.one(message, QUEUE)
    assert 3500 < row["due_in"] < 3700
    assert json.loads(row["headers"]).keys() == {"pgtasks"}
    await roadster.rows.set(message, "vt = clock_timestamp()", QUEUE)
    assert await roadster.read() == Job(own_id, "Fail", 7)


async def test_what_does_not_fit_is_archived_at_once(
    client: Client, registry: Registry, roadster: Roadster, heard: Heard
):
    """Where Roadster tries it 25 times, over weeks."""

    @task(name="Work", queue=QUEUE, registry=registry)
    async def work(number: int) -> None: ...

    message = await roadster.enqueue("Work", {"number": "seven"}, own_id=LARGEST)
    await drain(registry=registry, raise_errors=False)
    state = (await roadster.rows.archived(QUEUE))[message]
    assert (state["outcome"], state["attempts"]) == ("undecodable", 0)
    assert "Expected `int`, got `str`" in state["reason"]
    assert await roadster.job(message, "a") == Job(LARGEST, "Work", {"number": "seven"})


async def test_a_worker_that_nobody_knows_is_waited_for(
    client: Client, registry: Registry, roadster: Roadster
):
    """At no cost: when its task comes with a later version, the message has all its attempts."""

    @task(name="Known", queue=QUEUE, registry=registry)
    async def known() -> None: ...

    message = await roadster.enqueue("Late", {"number": 7})
    with pytest.raises(UnknownTaskError, match="Late"):
        await drain(registry=registry)
    assert await roadster.rows.archived_ids(QUEUE) == []
    assert await roadster.rows.state(message, QUEUE) == {"unknown": 1}
    seen = list[tuple[int, int]]()

    @task(name="Late", queue=QUEUE, registry=registry)
    async def late(context: Context, number: int) -> None:
        seen.append((context.attempt, number))

    await drain(registry=registry, delayed=True)
    assert seen == [(1, 7)]


@pytest.mark.parametrize("reads", [1, 5, 26])
async def test_its_own_attempts_before_cost_none_of_ours(
    config: Config, registry: Registry, roadster: Roadster, reads: int
):
    """26 are all that Roadster makes: then a message is in its archive."""
    attempts = list[int]()

    @task(name="Work", queue=QUEUE, registry=registry, on_success="archive")
    async def work(context: Context) -> None:
        attempts.append(context.attempt)

    message = await roadster.enqueue("Work", None)
    await roadster.rows.set(message, f"read_ct = {reads}", QUEUE)
    async with working(config, registry):
        state = await roadster.rows.outcome(message, QUEUE)
    assert (state["outcome"], state["attempts"]) == ("done", 1)
    assert attempts == [1]


async def test_what_it_has_leased_is_left_to_it(
    client: Client, registry: Registry, roadster: Roadster
):
    ran = list[int]()

    @task(name="Work", queue=QUEUE, registry=registry)
    async def work() -> None:
        ran.append(1)

    await roadster.enqueue("Work", None)
    await roadster.read()
    await drain(registry=registry, within=5)
    assert ran == []


# What we write, it can read


async def test_what_defer_writes_it_can_read(
    client: Client, registry: Registry, roadster: Roadster
):
    @task(name="SendWelcome", queue=QUEUE, registry=registry)
    async def welcome(user_id: int, *more: str, locale: str = "en") -> None: ...

    plain = await welcome.defer(42)
    full = await welcome.options(delay=0, retries=3, timeout=5).defer(42, "x", locale="de")
    [first, second] = await welcome.defer_many([(1,), {"user_id": 2}])
    foreign = NamedTask("Theirs", queue=QUEUE)
    array = await foreign.defer(1, "two")
    nothing = await foreign.defer()
    wanted = [
        (plain, "SendWelcome", {"user_id": 42}),
        (full, "SendWelcome", {"*": ["x"], "user_id": 42, "locale": "de"}),
        (first, "SendWelcome", {"user_id": 1}),
        (second, "SendWelcome", {"user_id": 2}),
        (array, "Theirs", [1, "two"]),
    ]
    for handle, name, args in wanted:
        assert handle.id.version == 7
        assert await roadster.job(handle.message_id) == Job(handle.id, name, args)
    assert (await roadster.job(nothing.message_id)).worker_name == "Theirs"


async def test_what_was_tried_it_can_read(
    config: Config, client: Client, registry: Registry, roadster: Roadster
):
    """Failed, snoozed, released, put back: the message itself is never rewritten."""

    @task(name="Fail", queue=QUEUE, registry=registry, retries=Retry(9, delay="1h"))
    async def fail(number: int) -> None:
        raise ValueError

    @task(name="Snooze", queue=QUEUE, registry=registry)
    async def snooze(number: int) -> None:
        raise Snooze("1h")

    handles = [await fail.defer(1), await snooze.defer(2)]
    unknown = NamedTask("Unknown", queue=QUEUE)
    handles.append(await unknown.defer(number=3))
    await drain(registry=registry, raise_errors=False)
    started = anyio.Event()

    @task(name="Wait", queue=QUEUE, registry=registry)
    async def wait(number: int) -> None:
        started.set()
        await anyio.sleep_forever()

    async with working(config, registry) as worker:
        handles.append(await wait.defer(4))
        await started.wait()
        worker.cancel()
    for number, handle in enumerate(handles, 1):
        assert await roadster.rows.state(handle.message_id, QUEUE), number
        job = await roadster.job(handle.message_id)
        assert (job.id, job.args) == (handle.id, {"number": number})


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), LARGEST)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(JSON, min_size=20, max_size=40))
@settings(
    max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_json_arrives_in_both_directions(database_url: str, values: list[Any]):
    registry = Registry()
    got = list[Any]()

    @task(name="Work", queue=QUEUE, registry=registry)
    async def work(value: Any) -> None:
        got.append(value)

    async def both_ways() -> None:
        async with connect(database_url) as client:
            handles = await work.defer_many([(value,) for value in values])
            roadster = Roadster(Rows(client.pool))  # type: ignore[arg-type]
            for handle, value in zip(handles, values, strict=True):
                assert same((await roadster.job(handle.message_id)).args, {"value": value})
            await drain(registry=registry)
            for value in values:
                await roadster.enqueue("Work", {"value": value})
            await drain(registry=registry)

    asyncio.run(both_ways())
    assert len(got) == 2 * len(values)
    for arrived, sent in zip(got, values * 2, strict=True):
        assert same(arrived, sent), (arrived, sent)


def same(one: Any, other: Any) -> bool:
    """Equal as JSON: `jsonb` has no sign of a zero, and writes 37061560668657710 for 3.7…71e16."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, float) or isinstance(other, float):
        return float(one) == float(other)
    return bool(one == other)


# Its queue `periodic`

PERIODIC = """
CREATE SCHEMA IF NOT EXISTS pgmq;
CREATE TABLE IF NOT EXISTS pgmq.meta (
    queue_name varchar UNIQUE NOT NULL, is_partitioned boolean NOT NULL,
    is_unlogged boolean NOT NULL, created_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE pgmq.q_periodic (
    msg_id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY, read_ct integer NOT NULL DEFAULT 0,
    enqueued_at timestamptz NOT NULL DEFAULT now(), last_read_at timestamptz,
    vt timestamptz NOT NULL, message jsonb, headers jsonb
);
CREATE TABLE pgmq.a_periodic (
    msg_id bigint PRIMARY KEY, read_ct integer NOT NULL DEFAULT 0,
    enqueued_at timestamptz NOT NULL DEFAULT now(), last_read_at timestamptz,
    archived_at timestamptz NOT NULL DEFAULT now(),
    vt timestamptz NOT NULL, message jsonb, headers jsonb
);
CREATE INDEX q_periodic_vt_idx ON pgmq.q_periodic (vt);
CREATE INDEX archived_at_idx_periodic ON pgmq.a_periodic (archived_at);
CREATE UNIQUE INDEX roadster_periodic_hash_idx
    ON pgmq.q_periodic ((message -> 'periodic' -> 'hash'));
INSERT INTO pgmq.meta (queue_name, is_partitioned, is_unlogged)
    VALUES ('periodic', false, false);
INSERT INTO pgmq.q_periodic (vt, read_ct, message)
SELECT moment, 3, format('{"metadata": {"id": "%s", "worker_name": "Work"}, "periodic":
    {"hash": %s, "schedule": "0/5 * * * * * *"}, "args": null}', gen_random_uuid(), hash)::jsonb
FROM (VALUES (now() - interval '1 day', '18446744073709551615'), (now(), '7'),
    (now() + interval '1 h', '8')) AS rows (moment, hash);
INSERT INTO pgmq.a_periodic (msg_id, vt, archived_at, message)
    VALUES (99, now(), now() - interval '9 years', '{"metadata": {}}');
"""

LOOK = """
SELECT 'row', to_jsonb(one)::text, xmin::text, xmax::text, ctid::text FROM pgmq.q_periodic AS one
UNION ALL
SELECT 'archived', to_jsonb(one)::text, xmin::text, xmax::text, ctid::text
FROM pgmq.a_periodic AS one
UNION ALL
SELECT 'queue', to_jsonb(one)::text, xmin::text, xmax::text, ctid::text
FROM pgmq.meta AS one WHERE queue_name = 'periodic'
UNION ALL
SELECT 'relation', relname, pg_class.oid::text, relfilenode::text,
    coalesce(pg_get_indexdef(indexrelid), '')
FROM pg_class LEFT JOIN pg_index ON indexrelid = pg_class.oid
WHERE relname ~ 'periodic' AND relnamespace = 'pgmq'::regnamespace
UNION ALL
SELECT 'sequence', last_value::text, is_called::text, '', '' FROM pgmq.q_periodic_msg_id_seq
UNION ALL
SELECT 'trigger', tgname, '', '', '' FROM pg_trigger
WHERE tgrelid IN ('pgmq.q_periodic'::regclass, 'pgmq.a_periodic'::regclass)
ORDER BY 1, 2, 3
"""
"""Everything there is of it: rows with their places and versions, indexes, files, the sequence."""


async def looked_at(url: str) -> list[Sequence[Any]]:
    connection = await asyncpg.connect(url, timeout=10)
    try:
        return [tuple(row) for row in await connection.fetch(LOOK, timeout=10)]
    finally:
        await connection.close()


@pytest.fixture
async def with_periodic(empty_database_url: str) -> str:
    """A database in which Roadster keeps its schedules, and that pgtasks came to later."""
    connection = await open_connection(DatabaseConfig(url=empty_database_url), "tests")
    await connection.execute(PERIODIC)
    before = await looked_at(empty_database_url)
    await migrate.upgrade(connection)
    assert await looked_at(empty_database_url) == before
    await connection.close()
    return empty_database_url


async def test_workers_leave_its_schedules_alone(with_periodic: str, registry: Registry):
    before = await looked_at(with_periodic)
    ran = list[int]()

    @task(name="Work", registry=registry, every="1s", on_success="archive")
    async def work() -> None:
        ran.append(1)

    config = Config(
        database=DatabaseConfig(url=with_periodic),
        task=TaskConfig(delay=seconds(0), jitter=seconds(0)),
    )
    async with connect(config=config), working(config, registry):
        while len(ran) < 2:
            await anyio.sleep(0.02)
    async with connect(config=config):
        await work.defer()
        await drain(registry=registry, delayed=True)
    assert await looked_at(with_periodic) == before


async def test_no_worker_and_no_task_takes_it_for_a_queue(with_periodic: str, registry: Registry):
    before = await looked_at(with_periodic)

    @task(name="Work", registry=registry)
    async def work() -> None: ...

    config = Config(database=DatabaseConfig(url=with_periodic))
    with pytest.raises(QueueNameError, match="Roadster keeps its schedules"):
        async with Worker(config=config, registry=registry, queues=["periodic"]):
            pass
    with pytest.raises(QueueNameError):
        task(name="Other", queue="periodic", registry=registry)(work.fn)
    async with connect(config=config):
        with pytest.raises(QueueNameError):
            await work.options(queue="periodic").defer()
        with pytest.raises(QueueNameError):
            await NamedTask("Work", queue="periodic").defer()
    assert await looked_at(with_periodic) == before


COMMANDS = [
    ("queue", "list"),
    ("queue", "list", "--json"),
    ("queue", "create", "periodic"),
    ("message", "list", "periodic"),
    ("message", "show", "periodic", "1"),
    ("archive", "list", "periodic"),
    ("archive", "show", "periodic", "99"),
    ("archive", "retry", "periodic", "99"),
    ("archive", "retry", "periodic", "--all"),
    ("archive", "prune", "periodic", "--done-for", "1h", "--failed-for", "1h"),
    ("defer", "Work", "--queue", "periodic"),
    ("defer", "Work", "--queue", "periodic", "--create"),
    ("schedule", "list"),
    ("doctor", "--json"),
    ("db", "upgrade"),
    ("db", "check"),
    ("worker", "json", "--queue", "periodic"),
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
async def test_commands_leave_its_schedules_alone_and_do_not_speak_of_them(
    with_periodic: str,
    command: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Any,
):
    for name in os.environ:
        if name.startswith("PGTASKS") or name == "DATABASE_URL":
            monkeypatch.delenv(name)
    monkeypatch.setenv("PGTASKS_DATABASE_URL", with_periodic)
    monkeypatch.chdir(tmp_path)
    before = await looked_at(with_periodic)
    code = await anyio.to_thread.run_sync(main, list(command))
    said = capsys.readouterr()
    assert "periodic" not in said.out
    assert code in ((exit_codes.USAGE,) if "periodic" in command else (exit_codes.OK,)), said
    assert await looked_at(with_periodic) == before


async def test_whatever_roadster_calls_it(with_periodic: str, registry: Registry):
    """Its table is the lower-cased name, whatever the case in which it was made."""
    connection = await open_connection(DatabaseConfig(url=with_periodic), "tests")
    await connection.execute("UPDATE pgmq.meta SET queue_name = 'Periodic'")
    before = await looked_at(with_periodic)
    config = Config(database=DatabaseConfig(url=with_periodic))

    @task(name="Work", registry=registry)
    async def work() -> None: ...

    async with connect(config=config):
        await work.defer()
        await drain(registry=registry)
    assert await looked_at(with_periodic) == before
    await connection.close()


# Beside each other


async def test_one_database_a_queue_for_each_side(
    client: Client, registry: Registry, roadster: Roadster
):
    """A Roadster application calls a task of ours and we call a worker of theirs."""

    @task(name="Ours", queue=QUEUE, registry=registry)
    async def ours(number: int) -> None:
        await NamedTask("Theirs", queue="for_roadster").defer(number=number + 1)

    await roadster.enqueue("Ours", {"number": 7})
    await drain(queues=[QUEUE], registry=registry)
    [row] = await roadster.rows.all("for_roadster")
    job = read_as_roadster(row["message"])
    assert (job.worker_name, job.args) == ("Theirs", {"number": 8})
    assert row["headers"] is None


# The statements of its client, which are functions of pgmq, on our functions

EXISTS = "SELECT EXISTS (SELECT 1 FROM pgmq.meta WHERE queue_name = $1::text)"
SEND = "SELECT * FROM pgmq.send(queue_name => $1::text, msg => $2::jsonb, delay => $3::int)"
SEND_BATCH = (
    "SELECT * FROM pgmq.send_batch(queue_name => $1::text, msgs => $2::jsonb[], delay => $3::int)"
)
FIVE = "SELECT msg_id, read_ct, enqueued_at, vt, message FROM pgmq."
READ = FIVE + "read(queue_name => $1::text, vt => $2::int, qty => $3::int)"
READ_WITH_POLL = (
    FIVE + "read_with_poll(queue_name => $1::text, vt => $2::int, qty => $3::int, "
    "max_poll_seconds => $4::int, poll_interval_ms => $5::int)"
)
SET_VT = FIVE + "set_vt(queue_name => $1::text, msg_id => $2::bigint, vt => $3::int)"
POP = FIVE + "pop(queue_name => $1::text)"


@attrs.frozen
class Crate:
    """Its client, `PGMQueueExt`: named arguments, an integer as every delay."""

    on: "asyncpg.Connection[asyncpg.Record]"

    async def create(self, queue: str, function: str = "create") -> bool:
        """Create a queue unless it exists, in one transaction."""
        async with self.on.transaction():
            lock = "SELECT pgmq.acquire_queue_lock(queue_name => $1::text)"
            await self.on.execute(lock, queue)
            if await self.on.fetchval(EXISTS, queue):
                return False
            await self.on.execute(f"SELECT pgmq.{function}(queue_name => $1::text)", queue)
            return True

    async def one(self, call: str, *args: Any) -> Any:
        """Call a function and return its one value, found by the function's name."""
        function = call.partition("(")[0]
        [row] = await self.on.fetch(f"SELECT * FROM pgmq.{call}", *args)
        return row[function]

    async def every(self, call: str, *args: Any) -> list[Any]:
        """Call a function and return its values, found by the function's name."""
        function = call.partition("(")[0]
        return sorted(
            row[function] for row in await self.on.fetch(f"SELECT * FROM pgmq.{call}", *args)
        )


@pytest.fixture
def crate(connection: "asyncpg.Connection[asyncpg.Record]") -> Crate:
    """Its client on a database with our schema."""
    return Crate(connection)


def job(number: int) -> str:
    """The message of a job."""
    return json.dumps({"metadata": {"id": number, "worker_name": "Work"}, "args": number})


async def test_its_client_finds_pgmq_installed(crate: Crate):
    """What it would install by itself at its start is left alone when this row is there."""
    found = await crate.on.fetch(
        "SELECT name, version FROM pgmq.__pgmq_migrations WHERE name = 'pgmq.sql'"
    )
    assert [row["name"] for row in found] == ["pgmq.sql"]
    major, minor, _ = found[0]["version"].split(".")
    assert (int(major), int(minor)) >= (1, 11)


async def test_its_client_creates_and_drops_queues(crate: Crate):
    assert await crate.create("theirs")
    assert not await crate.create("theirs")
    assert await crate.create("fast", "create_unlogged")
    listed = await crate.on.fetch(
        "SELECT queue_name, is_partitioned, is_unlogged, created_at FROM pgmq.list_queues()"
    )
    assert {row["queue_name"]: row["is_unlogged"] for row in listed} == {
        "theirs": False, "fast": True,
    }  # fmt: skip
    await crate.on.execute("SELECT pgmq.create_fifo_index(queue_name => $1::text)", "theirs")
    await crate.on.execute("SELECT pgmq.create_fifo_indexes_all()")
    assert await crate.one("drop_queue(queue_name => $1::text)", "theirs") is True
    assert await crate.one("drop_queue(queue_name => $1::text)", "theirs") is False


async def test_its_clients_that_create_at_once_make_one_queue(crate: Crate, database_url: str):
    others = [Crate(await asyncpg.connect(database_url, timeout=10)) for _ in range(6)]
    made = await asyncio.gather(*(other.create("theirs") for other in others))
    assert sorted(made) == [False] * 5 + [True]
    for other in others:
        await other.on.close()


async def test_its_workers_way_of_a_job(crate: Crate):
    """Enqueued, read, tried again, read once more, archived."""
    await crate.create("theirs")
    assert await crate.on.fetchval(SEND, "theirs", job(1), 0) == 1
    assert [row[0] for row in await crate.on.fetch(SEND_BATCH, "theirs", [job(2), job(3)], 0)] == [
        2, 3,
    ]  # fmt: skip
    assert await crate.on.fetchval(SEND, "theirs", job(4), 3600) == 4
    [row] = await crate.on.fetch(READ, "theirs", 60, 1)
    assert (row["msg_id"], row["read_ct"]) == (1, 1)
    assert read_as_roadster(row["message"]) == Job(1, "Work", 1)
    again = await crate.on.fetchrow(SET_VT, "theirs", 1, 0)
    assert again is not None
    assert (again["msg_id"], again["read_ct"]) == (1, 1)
    read = await crate.on.fetch(READ_WITH_POLL, "theirs", 60, 5, 1, 50)
    assert sorted((row["msg_id"], row["read_ct"]) for row in read) == [(1, 2), (2, 1), (3, 1)]
    assert await crate.on.fetchrow(SET_VT, "theirs", 99, 0) is None
    assert await crate.one("archive(queue_name => $1::text, msg_id => $2::bigint)", "theirs", 1)
    assert await crate.one("delete(queue_name => $1::text, msg_id => $2::bigint)", "theirs", 2)
    assert not await crate.one("delete(queue_name => $1::text, msg_id => $2::bigint)", "theirs", 2)
    many = "(queue_name => $1::text, msg_ids => $2::bigint[])"
    assert await crate.every("archive" + many, "theirs", [3, 99]) == [3]
    assert await crate.every("delete" + many, "theirs", [4, 99]) == [4]
    kept = await crate.on.fetch("SELECT msg_id, read_ct FROM pgmq.a_theirs ORDER BY 1")
    assert [tuple(row) for row in kept] == [(1, 2), (3, 1)]
    assert await crate.on.fetch(POP, "theirs") == []
    await crate.on.fetchval(SEND_BATCH, "theirs", [job(5), job(6)], 0)
    [popped] = await crate.on.fetch(POP, "theirs")
    assert popped["msg_id"] == 5
    assert await crate.one("purge_queue(queue_name => $1::text)", "theirs") == 1


async def test_its_schedules_are_kept_by_our_functions(crate: Crate):
    """A row for each, found by its hash; that the second of a hash is refused must be heard."""
    await crate.create("periodic")
    await crate.on.execute(
        "CREATE UNIQUE INDEX IF NOT EXISTS roadster_periodic_hash_idx "
        "ON pgmq.q_periodic USING btree ((message->'periodic'->'hash'))"
    )
    hashes = [2**64 - 1, 7, 2**53 + 1]

    def periodic(own_hash: int) -> str:
        return (
            f'{{"metadata": {{"id": "{uuid4()}", "worker_name": "Work"}}, "periodic": {{"hash": '
            f'{own_hash}, "schedule": "0/5 * * * * * *"}}, "args": null}}'
        )

    for own_hash in hashes:
        assert await crate.on.fetchval(SEND, "periodic", periodic(own_hash), 3600)
        with pytest.raises(asyncpg.UniqueViolationError) as refused:
            await crate.on.fetchval(SEND, "periodic", periodic(own_hash), 3600)
        assert refused.value.sqlstate == "23505"
        assert refused.value.constraint_name == "roadster_periodic_hash_idx"
    await crate.on.execute(
        "DELETE FROM pgmq.q_periodic WHERE message->'periodic'->'hash' != ALL($1::jsonb[])",
        [str(own_hash) for own_hash in hashes[:2]],
    )
    assert await crate.on.fetch(READ, "periodic", 60, 1) == []
    first = await crate.on.fetchrow(SET_VT, "periodic", 1, 0)
    assert first is not None
    [due] = await crate.on.fetch(READ, "periodic", 60, 1)
    assert (due["msg_id"], json.loads(due["message"])["periodic"]["hash"]) == (1, 2**64 - 1)
    # What is due it sends to its worker's queue, and moves on to the next tick.
    await crate.create("theirs")
    await crate.on.fetchval(SEND, "theirs", job(1), 0)
    moved = await crate.on.fetchrow(SET_VT, "periodic", 1, 5)
    assert moved is not None
    assert moved["vt"] > due["enqueued_at"]
    assert await crate.on.fetchval("SELECT count(*) FROM pgmq.q_periodic") == 2
    assert await Store(crate.on).list_queues() == ["theirs"]


async def test_what_its_client_sends_a_worker_of_ours_runs(
    crate: Crate, config: Config, registry: Registry
):
    ran = list[int]()

    @task(name="Work", queue="ours", registry=registry)
    async def work(number: int) -> None:
        ran.append(number)

    await crate.create("ours")
    async with working(config, registry):
        await crate.on.fetch(SEND_BATCH, "ours", [job(number) for number in range(5)], 0)
        await crate.on.fetchval("SELECT pg_notify('pgtasks', 'ours')")
        await Rows(crate.on).empty("ours")
    assert sorted(ran) == list(range(5))
