"""The statements: what each does to a row, and that a wrong delivery never has an effect."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from postgres.rows import LOCKS, Rows, held, held_one, seconds

from pgtasks.config import DatabaseConfig
from pgtasks.connection import WORKER_SETTINGS, open_connection
from pgtasks.errors import QueueNameError
from pgtasks.filter import Filter
from pgtasks.message import Held
from pgtasks.store import BEGINNING, Extension, Store

Q = "default"
LEASE = seconds(60)
NONE = seconds(0)

FOREIGN_HEADERS = ["null", "[1, 2]", '"text"', "5", "true", '{"x-pgmq-group": "g"}']


@pytest.fixture
async def other(database: DatabaseConfig, rows: Rows) -> AsyncIterator[Any]:
    """A second connection, as the worker's are set."""
    opened = await open_connection(database, "tests", WORKER_SETTINGS)
    yield opened
    opened.terminate()


async def claimed(store: Store, limit: int = 100, since: datetime = BEGINNING) -> list[int]:
    return [row["msg_id"] for row in await store.claim(Q, limit, LEASE, since)]


async def put_many(rows: Rows, number: int) -> list[int]:
    return [await rows.put("{}") for _ in range(number)]


# Sending


async def test_a_message_is_stored_as_sent(store: Store, rows: Rows):
    made = await store.send(Q, '{"a": 1}', '{"h": 2}', NONE, None, notify=False)
    row = await rows.one(made)
    assert (row["message"], row["headers"], row["read_ct"]) == ('{"a": 1}', '{"h": 2}', 0)
    assert row["last_read_at"] is None
    assert -10 < row["due_in"] <= 0


async def test_a_delay_counts_from_the_servers_clock(store: Store, rows: Rows):
    # enqueued_at is when the transaction began, a moment before.
    waits = (
        "SELECT extract(epoch FROM vt - enqueued_at)::float8 FROM pgmq.q_default WHERE msg_id = $1"
    )
    for delay in (0.001, 0.25, 90, 86_400 * 365):
        one = await store.send(Q, "{}", None, seconds(delay), None, notify=False)
        [many] = await store.send_many(Q, ["{}"], None, seconds(delay), None)
        for made in (one, many):
            assert delay <= await store.on.fetchval(waits, made) < delay + 1


async def test_a_moment_is_kept_to_the_microsecond(store: Store, rows: Rows):
    at = datetime(2031, 3, 30, 1, 30, 0, 123456, tzinfo=UTC)
    one = await store.send(Q, "{}", None, NONE, at, notify=False)
    [many] = await store.send_many(Q, ["{}"], None, NONE, at)
    assert [(await rows.one(made))["vt"] for made in (one, many)] == [at, at]


async def test_many_are_stored_in_their_order(store: Store, rows: Rows):
    ids = await store.send_many(Q, [f'{{"n": {n}}}' for n in range(1000)], '{"h": 1}', NONE, None)
    assert ids == sorted(ids)
    stored = [json.loads(row["message"])["n"] for row in await rows.all()]
    assert stored == list(range(1000))
    assert {row["headers"] for row in await rows.all()} == {'{"h": 1}'}


@pytest.mark.parametrize(
    "bodies", [["{}\x01"], ["\x01", "{}"], ['{"a":"\x01"}'], ["{}\x01{}", "5"]]
)
async def test_what_would_end_a_message_before_its_end_is_refused(
    store: Store, rows: Rows, bodies: list[str]
):
    """No JSON has it; a caller who hands over text as JSON unread might."""
    with pytest.raises(ValueError, match="control character"):
        await store.send_many(Q, bodies, None, NONE, None)
    assert await rows.all() == []


async def test_listeners_are_told_when_the_message_is_committed(
    store: Store, database: DatabaseConfig
):
    told: list[Any] = []
    listening = await open_connection(database, "tests")
    await listening.add_listener("pgtasks", lambda *heard: told.append(heard[3]))
    connection: Any = store.on
    async with connection.transaction():
        await store.send(Q, "{}", None, NONE, None, notify=True)
        await listening.fetchval("SELECT 1")
        assert told == []
    await store.send(Q, "{}", None, NONE, None, notify=False)
    await store.notify("emails")
    async with asyncio.timeout(10):
        while "emails" not in told:
            await listening.fetchval("SELECT 1")
    assert told == [Q, "emails"]
    await listening.close()


async def test_a_queue_that_cannot_be_never_reaches_a_statement(store: Store):
    for call in (
        store.claim('x"; DROP TABLE pgmq.meta; --', 1, LEASE, BEGINNING),
        store.send("Foo", "{}", None, NONE, None, notify=False),
        store.complete("a b", [Held(1, 0.0)], 1),
        store.create_queue("periodic"),
    ):
        with pytest.raises(QueueNameError):
            await call


# Claiming


async def test_a_claim_leases_what_is_due(store: Store, rows: Rows):
    made = await rows.put('{"a": 1}', headers="""'{"h": 1}'""", read_ct="4")
    await rows.put("{}", vt="clock_timestamp() + interval '1 hour'")
    [row] = await store.claim(Q, 10, LEASE, BEGINNING)
    assert dict(row) | {"enqueued_at": None, "due_at": None} == {
        "msg_id": made, "read_ct": 5, "enqueued_at": None, "due_at": None,
        "message": '{"a": 1}', "headers": '{"h": 1}',
    }  # fmt: skip
    after = await rows.one(made)
    assert (after["read_ct"], after["message"], after["headers"]) == (5, '{"a": 1}', '{"h": 1}')
    assert 50 < after["due_in"] <= 60
    assert after["last_read_at"] is not None
    assert await store.claim(Q, 10, LEASE, BEGINNING) == []


async def test_the_longest_due_are_claimed_first_and_no_more_than_asked(store: Store, rows: Rows):
    late, early, middle = [
        await rows.put("{}", vt=f"clock_timestamp() - interval '{age} s'") for age in (10, 30, 20)
    ]
    assert await claimed(store, 1) == [early]
    assert await claimed(store, 1) == [middle]
    await put_many(rows, 3)
    assert await claimed(store, 1) == [late]
    assert len(await claimed(store, 2)) == 2
    assert len(await claimed(store, 2)) == 1


async def test_a_claim_looks_no_further_back_than_asked(store: Store, rows: Rows):
    await rows.put("{}", vt="clock_timestamp() - interval '1 day'")
    recent = await rows.put("{}", vt="clock_timestamp() - interval '1 minute'")
    since = await rows.connection.fetchval("SELECT clock_timestamp() - interval '1 hour'")
    assert await claimed(store, since=since) == [recent]
    assert len(await claimed(store)) == 1


async def test_a_claim_steps_over_locked_rows(store: Store, rows: Rows, other: Any):
    made = await put_many(rows, 4)
    async with other.transaction():
        await other.fetch("SELECT FROM pgmq.q_default WHERE msg_id = ANY($1) FOR UPDATE", made[:2])
        async with asyncio.timeout(3):
            assert sorted(await claimed(store)) == made[2:]
    assert sorted(await claimed(store)) == made[:2]


async def test_claims_at_once_never_get_the_same_message(
    store: Store, rows: Rows, database: DatabaseConfig
):
    await store.send_many(Q, ["{}"] * 500, None, NONE, None)
    workers = [await open_connection(database, "tests", WORKER_SETTINGS) for _ in range(6)]

    async def work(connection: Any) -> list[int]:
        got: list[int] = []
        while some := await claimed(Store(connection), 7):
            got += some
        return got

    got = [one for some in await asyncio.gather(*map(work, workers)) for one in some]
    got += await claimed(store)
    assert sorted(got) == [row["msg_id"] for row in await rows.all()]
    assert {row["read_ct"] for row in await rows.all()} == {1}
    for worker in workers:
        await worker.close()


async def test_a_claim_that_is_rolled_back_never_was(store: Store, rows: Rows, other: Any):
    [made] = await put_many(rows, 1)
    transaction = other.transaction()
    await transaction.start()
    assert await claimed(Store(other)) == [made]
    await transaction.rollback()
    assert (await rows.one(made))["read_ct"] == 0
    assert await claimed(store) == [made]


GARBAGE = {
    "due for ever": {"vt": "'-infinity'"},
    "due before Christ": {"vt": "'0044-03-15 BC'"},
    "stored at no time": {"enqueued_at": "'infinity'"},
    "stored before all time": {"enqueued_at": "'-infinity'"},
    "stored before Christ": {"enqueued_at": "'4713-01-01 BC'"},
    "stored in the far future": {"enqueued_at": "'294276-12-31'"},
    "read as often as can be": {"read_ct": "2147483647"},
    "read less than never": {"read_ct": "-2147483648"},
    "odd headers": {"headers": "'[1]'"},
    "headers of JSON null": {"headers": "'null'"},
    "a number that no float holds": {"headers": """'{"pgtasks": {"failures": 1e400}}'"""},
}


async def test_a_foreign_row_never_makes_a_claim_fail(store: Store, rows: Rows):
    made = {name: await rows.put("{}", **columns) for name, columns in GARBAGE.items()}
    made["no message"] = await rows.put(None)
    made["fine"] = await rows.put("{}")
    never = await rows.put("{}", vt="'infinity'")
    found = {row["msg_id"]: row for row in await store.claim(Q, 100, LEASE, BEGINNING)}
    assert found.keys() == set(made.values())
    assert found[made["no message"]]["message"] is None
    assert found[made["read as often as can be"]]["read_ct"] == 2**31 - 1
    assert found[made["read less than never"]]["read_ct"] == -(2**31) + 1
    for row in found.values():
        assert datetime.fromtimestamp(row["enqueued_at"], UTC).year >= 1970
        assert datetime.fromtimestamp(row["due_at"], UTC).year >= 1970
    assert await claimed(store) == []
    assert (await rows.one(never))["read_ct"] == 0
    # Each can be settled like any other.
    ids, deliveries = list(found), [row["read_ct"] for row in found.values()]
    assert len(await settle(store, "give_back", ids, deliveries)) == 13
    found = {row["msg_id"]: row for row in await store.claim(Q, 100, LEASE, BEGINNING)}
    deliveries = [found[one]["read_ct"] for one in ids]
    assert sorted(await settle(store, "archive", ids, deliveries)) == sorted(ids)


async def test_ids_beyond_32_and_53_bits_work(store: Store, rows: Rows):
    for start in (2**31, 2**53 + 1):
        await store.on.fetch(f"ALTER TABLE pgmq.q_default ALTER COLUMN msg_id RESTART {start}")
        assert await store.send(Q, "{}", None, NONE, None, notify=False) == start
        [row] = await store.claim(Q, 10, LEASE, BEGINNING)
        assert row["msg_id"] == start
        assert await store.archive(Q, await held(store, [start]), 1, ["{}"]) == [start]
    assert set(await rows.archived()) == {2**31, 2**53 + 1}


async def test_taking_over_a_lease_reads_its_row(store: Store, rows: Rows):
    made = await rows.put('{"a": 1}', enqueued_at="'infinity'", headers="'[]'")
    assert await store.take(Q, await held_one(store, made), 1) is None
    await claimed(store)
    row = await store.take(Q, await held_one(store, made), 1)
    assert row is not None
    assert (row["msg_id"], row["read_ct"], row["message"], row["headers"]) == (
        made, 1, '{"a": 1}', "[]",
    )  # fmt: skip
    assert await store.take(Q, await held_one(store, made), 2) is None
    assert await store.take(Q, await held_one(store, made + 1), 1) is None


# The fence


async def settle(store: Store, how: str, ids: list[int], deliveries: list[int]) -> list[int]:
    """Settle leases, those of one delivery in a statement."""
    ended = []
    for delivery in sorted(set(deliveries)):
        alike = [one for one, of in zip(ids, deliveries, strict=True) if of == delivery]
        ended += await settle_alike(store, how, alike, delivery)
    return ended


async def settle_alike(store: Store, how: str, ids: list[int], delivery: int) -> list[int]:
    return await settle_held(store, how, await held(store, ids), delivery)


async def settle_held(store: Store, how: str, leases: list[Held], delivery: int) -> list[int]:
    number = len(leases)
    match how:
        case "complete":
            return await store.complete(Q, leases, delivery)
        case "archive":
            return await store.archive(Q, leases, delivery, ['{"outcome":"done"}'] * number)
        case "retry":
            return await store.retry(Q, leases, delivery, [seconds(5)] * number, ["{}"] * number)
        case "give_back":
            return await store.give_back(Q, leases, delivery)
        case "count_crash":
            counted = [await store.count_crash(Q, one, delivery, LEASE) for one in leases]
            return [row["msg_id"] for row in counted if row is not None]
        case _:
            rows = await store.extend(Q, [Extension(one, delivery, seconds(500)) for one in leases])
            assert all(row["held"] is row["extended"] for row in rows)
            return [row["msg_id"] for row in rows if row["extended"]]


WAYS = ["complete", "archive", "retry", "give_back", "count_crash", "extend"]


@pytest.mark.parametrize("how", WAYS)
async def test_a_wrong_delivery_has_no_effect(store: Store, rows: Rows, how: str):
    """Older, newer, and the right one among them: only the right one counts."""
    made = await put_many(rows, 3)
    for _ in range(2):
        await claimed(store)
        await store.on.fetch("UPDATE pgmq.q_default SET vt = clock_timestamp() - interval '1 s'")
    await claimed(store)
    before = {row["msg_id"]: row for row in await rows.all()}
    assert await settle(store, how, made, [2, 3, 4]) == [made[1]]
    after = {row["msg_id"]: row for row in await rows.all()}
    for untouched in (made[0], made[2]):
        assert after[untouched]["vt"] == before[untouched]["vt"]
        assert after[untouched]["headers"] is None
        assert after[untouched]["read_ct"] == 3
    assert set(await rows.archived()) <= {made[1]}
    assert made[1] not in after or after[made[1]]["vt"] != before[made[1]]["vt"]


@pytest.mark.parametrize("how", WAYS)
async def test_another_message_of_the_same_number_is_left_alone(store: Store, rows: Rows, how: str):
    """A standby that took over had not seen the number, and has given it anew, between others."""
    made = await put_many(rows, 3)
    await claimed(store)
    seen = await held(store, made)
    for lost in made[::2]:
        await rows.set(lost, "enqueued_at = enqueued_at + interval '1 microsecond'")
    before = await _told(rows)

    assert await settle_held(store, how, seen, 1) == [made[1]]

    assert [row for row in await _told(rows) if row[0] != made[1]] == before[::2]
    assert set(await rows.archived()) <= {made[1]}
    assert await store.take(Q, seen[0], 1) is None


async def _told(rows: Rows) -> list[tuple[Any, ...]]:
    """What is to stay as it is."""
    names = ("msg_id", "read_ct", "vt", "headers")
    return [tuple(row[name] for name in names) for row in await rows.all()]


@pytest.mark.parametrize("how", WAYS)
async def test_a_message_that_is_gone_has_no_effect(store: Store, rows: Rows, how: str):
    [made] = await put_many(rows, 1)
    await claimed(store)
    assert await store.complete(Q, await held(store, [made]), 1) == [made]
    assert await settle(store, how, [made], [1]) == []
    assert (await rows.all(), await rows.archived()) == ([], {})


@pytest.mark.parametrize("against", ["complete", "archive", "claim"])
async def test_of_two_that_settle_at_once_one_wins(
    store: Store, rows: Rows, other: Any, against: str
):
    """The second waits for the first to commit and then finds that the lease is over."""
    waiting = LOCKS + "NOT granted"
    for how in ("complete", "archive", "retry", "give_back", "count_crash"):
        [made] = await put_many(rows, 1)
        await claimed(store)
        async with other.transaction():
            if against == "claim":
                await Rows(other).set(made, "read_ct = read_ct + 1")
            else:
                assert await settle(Store(other), against, [made], [1]) == [made]
            second = asyncio.ensure_future(settle(store, how, [made], [1]))
            async with asyncio.timeout(10):
                while await other.fetchval(waiting) == 0:
                    await asyncio.sleep(0.005)
        assert await second == [], how
        left = [row["msg_id"] for row in await rows.all() if row["msg_id"] == made]
        assert left == ([made] if against == "claim" else []), how
        assert (made in await rows.archived_ids()) is (against == "archive"), how


async def test_batches_in_any_order_never_deadlock(
    store: Store, rows: Rows, database: DatabaseConfig
):
    """Batches of several settlers and keepers, each ordered by id, on the same rows."""
    made = await store.send_many(Q, ["{}"] * 60, None, NONE, None)
    await claimed(store)
    workers = [await open_connection(database, "tests", WORKER_SETTINGS) for _ in range(4)]

    async def work(connection: Any, place: int) -> None:
        for turn in range(15):
            on = Store(connection)
            if (turn + place) % 2:
                leases = await held(on, made)
                await on.extend(Q, [Extension(one, 1, LEASE) for one in leases])
            else:
                await on.retry(Q, await held(on, made), 1, [LEASE] * len(made), ["{}"] * len(made))

    await asyncio.gather(*(work(worker, place) for place, worker in enumerate(workers)))
    for worker in workers:
        await worker.close()


# Extending


async def test_extending_moves_the_end_of_the_lease(store: Store, rows: Rows):
    one, other_one = await put_many(rows, 2)
    await claimed(store)
    answers = await store.extend(
        Q,
        [
            Extension(row, 1, seconds(length))
            for row, length in zip(await held(store, [one, other_one]), (500, 2000), strict=True)
        ],
    )
    assert {row["msg_id"]: (row["extended"], row["held"]) for row in answers} == {
        one: (True, True),
        other_one: (True, True),
    }
    assert 490 < (await rows.one(one))["due_in"] <= 500
    assert 1990 < (await rows.one(other_one))["due_in"] <= 2000


async def test_extending_says_of_each_whether_it_is_still_held(
    store: Store, rows: Rows, other: Any
):
    ids = ours, taken, locked, gone = await put_many(rows, 4)
    await claimed(store)
    leases = await held(store, ids)
    await rows.steal(taken)
    await store.complete(Q, await held(store, [gone]), 1)
    async with other.transaction():
        await other.fetch("SELECT FROM pgmq.q_default WHERE msg_id = $1 FOR UPDATE", locked)
        async with asyncio.timeout(3):  # it never waits
            answers = await store.extend(Q, [Extension(row, 1, LEASE) for row in leases])
    assert {row["msg_id"]: (row["extended"], row["held"]) for row in answers} == {
        ours: (True, True),
        taken: (False, False),
        locked: (False, True),
        gone: (False, False),
    }


async def test_a_lease_that_ran_out_can_be_extended_while_nobody_took_it(store: Store, rows: Rows):
    [made] = await put_many(rows, 1)
    await claimed(store)
    await rows.set(made, "vt = clock_timestamp() - interval '1 minute'")
    [answer] = await store.extend(Q, [Extension(await held_one(store, made), 1, LEASE)])
    assert answer["extended"]
    assert await claimed(store) == []


async def test_what_is_being_settled_is_extended_until_it_was_put_back(store: Store, rows: Rows):
    """By its headers, which every way of putting it back changes."""
    plain, marked, put_back = await put_many(rows, 3)
    await rows.set(marked, 'headers = \'{"b": 1, "a": [null]}\'')
    await claimed(store)
    await store.retry(Q, await held(store, [put_back]), 1, [seconds(0)], ['{"failures": 1}'])
    headers = {plain: None, marked: '{"a":[null],"b":1}', put_back: None}
    leases = [
        Extension(row, 1, seconds(500), True, headers[row.message_id])
        for row in await held(store, list(headers))
    ]
    answers = await store.extend(Q, leases)
    assert {row["msg_id"]: (row["extended"], row["held"]) for row in answers} == {
        plain: (True, True),
        marked: (True, True),
        put_back: (False, True),
    }
    assert (await rows.one(put_back))["due_in"] <= 0


# Settling


async def test_completing_deletes(store: Store, rows: Rows):
    made = await put_many(rows, 3)
    await claimed(store)
    assert sorted(await store.complete(Q, await held(store, made[:2]), 1)) == made[:2]
    assert [row["msg_id"] for row in await rows.all()] == made[2:]
    assert await rows.archived() == {}


async def test_archiving_keeps_everything(store: Store, rows: Rows):
    made = await rows.put('{"a": 1}', headers="""'{"mine": 1, "pgtasks": {"failures": 9}}'""")
    await claimed(store)
    before = await rows.one(made)
    assert await store.archive(Q, await held(store, [made]), 1, ['{"outcome":"done"}']) == [made]
    row = await store.on.fetchrow("SELECT *, enqueued_at::text AS enqueued FROM pgmq.a_default")
    assert row["enqueued"] == before["enqueued_at"]
    for column in ("msg_id", "read_ct", "last_read_at", "vt", "message"):
        assert row[column] == before[column]
    assert json.loads(row["headers"]) == {"mine": 1, "pgtasks": {"outcome": "done"}}
    assert row["archived_at"] >= before["last_read_at"]
    assert await rows.all() == []


async def test_retrying_makes_due_again(store: Store, rows: Rows):
    now, later = await put_many(rows, 2)
    await claimed(store)
    states = ['{"failures":1}', None]
    assert sorted(
        await store.retry(Q, await held(store, [now, later]), 1, [NONE, seconds(90)], states)
    ) == [
        now,
        later,
    ]
    assert await rows.state(now) == {"failures": 1}
    assert (await rows.one(later))["headers"] is None
    assert 80 < (await rows.one(later))["due_in"] <= 90
    assert (await rows.one(now))["read_ct"] == 1  # it never falls
    assert await claimed(store) == [now]
    assert (await rows.one(now))["read_ct"] == 2


async def test_foreign_headers_survive_our_part(store: Store, rows: Rows):
    for headers in (None, *FOREIGN_HEADERS):
        await survives(store, rows, headers)
        await store.on.fetch("DELETE FROM pgmq.q_default")
        await store.on.fetch("DELETE FROM pgmq.a_default")


async def survives(store: Store, rows: Rows, headers: str | None) -> None:
    ids = [await rows.put("{}", headers=headers and f"'{headers}'") for _ in range(4)]
    await claimed(store)
    await store.retry(Q, await held(store, ids[:1]), 1, [NONE], ['{"failures":1}'])
    await store.give_back(Q, await held(store, ids[1:2]), 1)
    await store.count_crash(Q, await held_one(store, ids[2]), 1, LEASE)
    await store.archive(Q, await held(store, ids[3:]), 1, ['{"outcome":"done"}'])
    found = [json.loads((await rows.one(one))["headers"]) for one in ids[:3]]
    found.append(json.loads(await store.on.fetchval("SELECT headers FROM pgmq.a_default")))
    ours = [{"failures": 1}, {"releases": 1}, {"crashes": 1}, {"outcome": "done"}]
    assert [one.pop("pgtasks") for one in found] == ours
    theirs = None if headers is None else json.loads(headers)
    kept = theirs if isinstance(theirs, dict) else {} if headers is None else {"foreign": theirs}
    assert found == [kept] * 4


async def test_foreign_headers_survive_a_second_settlement(store: Store, rows: Rows):
    made = await rows.put("{}", headers="'[1]'")
    for _ in range(3):
        [row] = await store.claim(Q, 1, LEASE, BEGINNING)
        await store.give_back(Q, await held(store, [made]), row["read_ct"])
    assert json.loads((await rows.one(made))["headers"]) == {
        "foreign": [1],
        "pgtasks": {"releases": 3},
    }


GARBAGE_STATES = {
    '{"pgtasks": null}': 1,
    '{"pgtasks": []}': 1,
    '{"pgtasks": "x"}': 1,
    '{"pgtasks": {"releases": "7", "crashes": "7"}}': 1,
    '{"pgtasks": {"releases": null, "crashes": [1]}}': 1,
    '{"pgtasks": {"releases": 1.5, "crashes": 1.5}}': 2.5,
    '{"pgtasks": {"releases": -3, "crashes": -3}}': -2,
    '{"pgtasks": {"releases": 1e300, "crashes": 1e300}}': 1e300,
    '{"pgtasks": 1e100000}': 1,
}


async def test_counting_in_garbage_never_fails(store: Store, rows: Rows):
    for headers, expected in GARBAGE_STATES.items():
        one, other_one = [await rows.put("{}", headers=f"'{headers}'") for _ in range(2)]
        await claimed(store)
        assert await store.give_back(Q, await held(store, [one]), 1) == [one]
        assert await store.count_crash(Q, await held_one(store, other_one), 1, LEASE) is not None
        assert float((await rows.state(one))["releases"]) == expected
        assert float((await rows.state(other_one))["crashes"]) == expected
        await claimed(store)


async def test_giving_back_is_due_at_once_and_counted(store: Store, rows: Rows):
    made = await rows.put("{}", headers="""'{"pgtasks": {"failures": 2, "releases": 1}}'""")
    await claimed(store)
    assert await store.give_back(Q, await held(store, [made]), 1) == [made]
    assert await rows.state(made) == {"failures": 2, "releases": 2}
    assert (await rows.one(made))["read_ct"] == 1
    assert await claimed(store) == [made]


async def test_what_was_put_back_in_the_last_moment_of_its_process_keeps_its_delay(
    store: Store, rows: Rows
):
    """Its lease has ended, and the dead process had not been told."""
    made, again = await rows.put("{}"), await rows.put("{}")
    await claimed(store)
    await store.retry(Q, await held(store, [made]), 1, [LEASE], ['{"failures":1}'])

    assert await store.give_back(Q, await held(store, [made, again]), 1) == [again]
    assert await store.give_back(Q, await held(store, [made, again]), 1) == []

    assert await rows.state(made) == {"failures": 1}
    assert (await rows.one(made))["due_in"] > 0
    assert await rows.state(again) == {"releases": 1}


async def test_counting_a_crash_keeps_the_lease(store: Store, rows: Rows):
    made = await rows.put('{"a": 1}', enqueued_at="'infinity'")
    await claimed(store)
    row = await store.count_crash(Q, await held_one(store, made), 1, seconds(500))
    assert row is not None
    assert (row["msg_id"], row["read_ct"], row["message"]) == (made, 1, '{"a": 1}')
    assert json.loads(row["headers"]) == {"pgtasks": {"crashes": 1}}
    assert 490 < (await rows.one(made))["due_in"] <= 500
    assert await claimed(store) == []


# When to look again


async def test_when_the_next_is_due(store: Store, rows: Rows):
    assert await store.next_due_seconds(Q, BEGINNING) is None
    await rows.put("{}", vt="'infinity'")
    assert await store.next_due_seconds(Q, BEGINNING) is None
    await rows.put("{}", vt="clock_timestamp() + interval '1 hour'")
    found = await store.next_due_seconds(Q, BEGINNING)
    assert found is not None
    assert 3590 < found <= 3600
    await rows.put("{}", vt="clock_timestamp() - interval '1 hour'")
    found = await store.next_due_seconds(Q, BEGINNING)
    assert found is not None
    assert -3610 < found <= -3600
    since: datetime = await rows.connection.fetchval("SELECT clock_timestamp()")
    found = await store.next_due_seconds(Q, since)
    assert found is not None
    assert found > 3590


async def test_a_message_due_for_ever_is_due_now(store: Store, rows: Rows):
    """PostgreSQL before 17 cannot subtract from an infinite moment."""
    await rows.put("{}", vt="'-infinity'")
    found = await store.next_due_seconds(Q, BEGINNING)
    assert found is not None
    assert found <= 0


async def test_waiting_for_the_disk_ends_with_the_transaction(store: Store, other: Any):
    setting = "SELECT current_setting('synchronous_commit')"
    assert await other.fetchval(setting) == "off"
    async with other.transaction():
        await Store(other).wait_for_disk()
        assert await other.fetchval(setting) == "on"
    assert await other.fetchval(setting) == "off"


# Looking


async def test_counts(store: Store, rows: Rows):
    await rows.put("{}", vt="clock_timestamp() - interval '1 minute'")
    await rows.put("{}", vt="'-infinity'")
    await rows.put("{}", vt="clock_timestamp() + interval '1 minute'")
    await rows.put("{}", vt="'infinity'")
    await rows.put("{}", vt="clock_timestamp() + interval '1 minute'", read_ct="1")
    gone = await rows.put("{}", vt="clock_timestamp() - interval '2 minutes'")
    [lease] = await store.claim(Q, 1, LEASE, datetime.now(UTC) - timedelta(days=9))
    assert lease["msg_id"] == gone
    await store.archive(Q, await held(store, [gone]), 1, ["{}"])
    counts = await store.queue_counts(Q)
    assert (counts["due"], counts["delayed"], counts["leased_or_retrying"]) == (2, 2, 1)
    assert counts["archived"] == 1
    assert 59 < counts["oldest_due_seconds"] < 90


async def test_lists_and_finds_what_waits_and_what_is_archived(store: Store, rows: Rows):
    first, second = await rows.call("a"), await rows.call("b")
    own_id = json.loads((await rows.one(second))["message"])["metadata"]["id"]
    [row] = await store.list_messages(Q, 10, "b")
    assert (row["msg_id"], row["task"], row["id"]) == (second, "b", own_id)
    assert [row["msg_id"] for row in await store.list_messages(Q, 10)] == [first, second]
    assert len(await store.list_messages(Q, 1)) == 1
    await claimed(store)
    await store.archive(
        Q, await held(store, [first, second]), 1, ['{"outcome":"done"}', '{"outcome":"failed"}']
    )
    [row] = await store.list_archived(Q, 10, Filter(outcome="failed"))
    assert (row["msg_id"], row["task"], row["outcome"]) == (second, "b", "failed")
    [row] = await store.list_archived(Q, 10, Filter(task="a"))
    assert row["msg_id"] == first
    for found in (
        await store.find_message(Q, second, None),
        await store.find_message(Q, None, own_id),
    ):
        assert found is not None
        assert (found["place"], found["msg_id"]) == ("archive", second)
    assert await store.find_message(Q, 99, None) is None


async def test_a_listing_shows_foreign_rows_too(store: Store, rows: Rows):
    await rows.put("{}", enqueued_at="'4713-01-01 BC'")
    await rows.put("{}", vt="'-infinity'")
    assert len(await store.list_messages(Q, 10)) == 2


async def test_task_names_are_counted(store: Store, rows: Rows):
    for name in ("a", "b", "b"):
        await rows.call(name)
    await rows.put("5")
    found = await store.task_names(Q, 10)
    assert {row["task"]: row["messages"] for row in found} == {"a": 1, "b": 2, None: 1}


async def test_an_unknown_queue_is_the_servers_error(store: Store):
    with pytest.raises(asyncpg.UndefinedTableError):
        await store.claim("elsewhere", 1, LEASE, BEGINNING)
