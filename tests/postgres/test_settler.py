"""Endings are written many in a statement, over every loss, and one bad row spoils no other."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import asyncpg
import attrs
import pytest
from postgres.rows import LOCKS, Rows, seconds

from pgtasks import settlement as settle
from pgtasks.board import Board
from pgtasks.config import DatabaseConfig, TaskConfig
from pgtasks.keeper import Keeper
from pgtasks.lease import Lease, leased
from pgtasks.policy import Policy, TaskSettings
from pgtasks.settlement import Run, Settlement
from pgtasks.settler import FULL, Settler
from pgtasks.store import BEGINNING, Store

Q = "default"
RUN = Run(0.1, "tests")
POLICY = Policy.of(
    TaskSettings(), TaskConfig(delay=seconds(0), jitter=seconds(0), retries=5), durable=False
)
ARCHIVING = attrs.evolve(POLICY, on_success="archive")


@attrs.define
class Bench:
    """A settler, its keeper (whose thread does not run), and what it called due."""

    settler: Settler
    keeper: Keeper
    due: list[str]
    store: Store

    async def claim(self, number: int) -> list[Lease]:
        """Claim messages and hold them."""
        rows = await self.store.claim(Q, number, seconds(60), BEGINNING)
        leases = [leased(Q, row, 0.0, seconds(60)) for row in rows]
        for lease in leases:
            self.keeper.hold(lease)
        return sorted(leases, key=lambda lease: lease.message.message_id)

    async def settled(self, number: int) -> None:
        """Wait until so many endings were counted."""
        async with asyncio.timeout(15):
            while self.settler.counts.total() < number:
                await asyncio.sleep(0.005)


@pytest.fixture
async def bench(database: DatabaseConfig, store: Store) -> AsyncIterator[Bench]:
    async with working_settler(database, store) as made:
        yield made


@asynccontextmanager
async def working_settler(
    database: DatabaseConfig, store: Store, board: Board | None = None
) -> AsyncIterator[Bench]:
    due = list[str]()
    keeper = Keeper(database, lambda _: None)
    settler = Settler(database, keeper, board, due.append)
    running = asyncio.ensure_future(settler.run())
    yield Bench(settler, keeper, due, store)
    settler.close()
    async with asyncio.timeout(15):
        await running


def done(lease: Lease) -> Settlement:
    return settle.succeeded(lease.message, POLICY, RUN)


def failed(lease: Lease, text: str = "no") -> Settlement:
    return settle.failed(lease.message, POLICY, ValueError(text), RUN)


def archived(lease: Lease) -> Settlement:
    return settle.succeeded(lease.message, ARCHIVING, RUN)


async def fill(rows: Rows, number: int) -> list[int]:
    return await Store(rows.connection).send_many(Q, ["{}"] * number, None, seconds(0), None)


async def test_each_ending_is_written(bench: Bench, rows: Rows):
    await fill(rows, 3)
    one, two, three = await bench.claim(3)
    bench.settler.put(one, done(one))
    bench.settler.put(two, archived(two))
    bench.settler.put(three, failed(three))
    await bench.settled(3)
    assert bench.settler.counts == {"done": 2, "retried": 1}
    assert [row["msg_id"] for row in await rows.all()] == [three.message.message_id]
    assert (await rows.state(three.message.message_id))["failures"] == 1
    assert set(await rows.archived()) == {two.message.message_id}
    assert (bench.due, bench.keeper.held()) == ([Q], [])


async def test_many_endings_are_one_statement(
    bench: Bench, rows: Rows, monkeypatch: pytest.MonkeyPatch
):
    sizes = list[int]()
    complete = Store.complete

    async def counting(self: Store, queue: str, ids: Any, deliveries: Any) -> list[int]:
        sizes.append(len(ids))
        assert list(ids) == sorted(ids)  # so that two batches never wait for each other
        return await complete(self, queue, ids, deliveries)

    monkeypatch.setattr(Store, "complete", counting)
    await fill(rows, FULL + 100)
    leases = await bench.claim(FULL + 100)
    for lease in reversed(leases):
        bench.settler.put(lease, done(lease))
    await bench.settled(FULL + 100)
    assert sizes == [FULL + 100]
    assert await rows.all() == []


async def test_waiting_for_an_ending_returns_when_it_is_written(bench: Bench, rows: Rows):
    await fill(rows, 1)
    [lease] = await bench.claim(1)
    await bench.settler.put_and_wait(lease, archived(lease))
    assert len(await rows.archived()) == 1


async def test_a_lease_that_is_lost_counts_as_lost_and_as_nothing_else(
    bench: Bench, rows: Rows, heard: Any
):
    """Its neighbours in the batch are not touched by it."""
    await fill(rows, 4)
    leases = await bench.claim(4)
    stolen, gone, known, fine = leases
    await rows.steal(stolen.message.message_id)
    await Store(rows.connection).complete(Q, [gone.message.held], 1)
    known.lost = True
    for lease in leases:
        bench.settler.put(lease, archived(lease))
    await bench.settled(4)
    assert bench.settler.counts == {"lost": 3, "done": 1}
    assert set(await rows.archived()) == {fine.message.message_id}
    assert (await rows.one(stolen.message.message_id))["headers"] is None
    assert (await rows.one(known.message.message_id))["headers"] is None
    assert (stolen.lost, gone.lost, fine.lost) == (True, True, False)
    assert bench.keeper.held() == []
    assert heard.events(30).count("lease lost, outcome not counted") == 3
    assert heard.events(40) == []


async def test_waiting_for_the_ending_of_a_lost_lease_returns_too(bench: Bench, rows: Rows):
    await fill(rows, 2)
    known, unknown = await bench.claim(2)
    known.lost = True
    await rows.steal(unknown.message.message_id)
    async with asyncio.timeout(10):
        await bench.settler.put_and_wait(known, done(known))
        await bench.settler.put_and_wait(unknown, done(unknown))
    assert bench.settler.counts == {"lost": 2}


async def test_of_two_messages_of_one_number_the_one_that_is_there_is_ended(
    bench: Bench, rows: Rows
):
    """A standby took over, gave a number anew, and both runs end in the same moment."""
    [made] = await fill(rows, 1)
    [first] = await bench.claim(1)
    first.settling = True
    await rows.set(made, "vt = clock_timestamp(), read_ct = 0")
    await rows.set(made, "enqueued_at = enqueued_at + interval '1 microsecond'")
    [second] = await bench.claim(1)
    bench.settler.put(second, failed(second, "of the second"))
    bench.settler.put(first, failed(first, "of the first"))
    await bench.settled(2)
    [error] = (await rows.state(made))["errors"]
    assert "of the second" in json.dumps(error)


async def test_one_bad_row_spoils_no_other(bench: Bench, rows: Rows, heard: Any):
    await fill(rows, 30)
    leases = await bench.claim(30)
    bad = leases[7].message.message_id
    await rows.connection.execute(
        f"ALTER TABLE pgmq.a_default ADD CHECK (msg_id <> {bad} OR headers::text NOT LIKE '%done%')"
    )
    for lease in leases:
        bench.settler.put(lease, archived(lease))
    await bench.settled(30)
    state = await rows.archived()
    assert len(state) == 30
    assert "could not be stored" in state[bad]["note"]
    assert sum(one.get("outcome") == "done" for one in state.values()) == 29
    assert heard.fields("a settlement was refused")["message"] == bad
    assert bench.keeper.held() == []


async def test_a_row_that_can_never_be_written_is_left_to_run_out(
    bench: Bench, rows: Rows, heard: Any
):
    await fill(rows, 2)
    bad, fine = await bench.claim(2)
    await rows.connection.execute(
        f"ALTER TABLE pgmq.a_default ADD CHECK (msg_id <> {bad.message.message_id})"
    )
    bench.settler.put(bad, archived(bad))
    bench.settler.put(fine, archived(fine))
    await bench.settled(1)
    async with asyncio.timeout(10):
        while bench.keeper.held():
            await asyncio.sleep(0.005)
    assert set(await rows.archived()) == {fine.message.message_id}
    assert (await rows.one(bad.message.message_id))["headers"] is None
    assert "a settlement was refused" in heard.events(40)


async def test_endings_survive_a_lost_connection(bench: Bench, rows: Rows, heard: Any):
    await fill(rows, 2)
    one, two = await bench.claim(2)
    bench.settler.put(one, done(one))
    await bench.settled(1)
    await rows.connection.fetch(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE application_name = 'pgtasks settler' AND datname = current_database()"
    )
    bench.settler.put(two, done(two))
    await bench.settled(2)
    assert await rows.all() == []
    assert bench.settler.counts["done"] == 2
    assert heard.events(40) == []


async def test_an_ending_whose_answer_was_lost_is_not_called_a_lost_lease(
    bench: Bench, rows: Rows, monkeypatch: pytest.MonkeyPatch
):
    """It was committed, and the connection broke before we heard of it."""
    archive, cuts = Store.archive, list[int]()

    async def cut(self: Store, *args: Any) -> list[int]:
        ended = await archive(self, *args)
        if not cuts:
            cuts.append(1)
            cast("Any", self.on).terminate()
            raise ConnectionResetError
        return ended

    monkeypatch.setattr(Store, "archive", cut)
    await fill(rows, 3)
    leases = await bench.claim(3)
    for lease in leases:
        bench.settler.put(lease, archived(lease))
    await bench.settled(3)
    assert (cuts, bench.settler.counts) == ([1], {"done": 3})
    assert (len(await rows.archived()), await rows.all()) == (3, [])


async def test_endings_wait_for_a_lock_and_are_written_after_it(
    bench: Bench, rows: Rows, database_url: str
):
    """Longer than a statement may take."""
    await fill(rows, 2)
    leases = await bench.claim(2)
    other = await asyncpg.connect(database_url)
    async with other.transaction():
        await other.execute("SELECT FROM pgmq.q_default FOR UPDATE")
        for lease in leases:
            bench.settler.put(lease, done(lease))
        waiting = LOCKS + "NOT granted"
        async with asyncio.timeout(10):
            while not await rows.connection.fetchval(waiting):
                await asyncio.sleep(0.01)
        assert bench.settler.counts == {}
    await other.close()
    await bench.settled(2)
    assert bench.settler.counts == {"done": 2}


@pytest.mark.parametrize("code", ["40P01", "40001", "55P03", "25006", "53300", "57014"])
async def test_an_error_that_passes_is_waited_out(bench: Bench, rows: Rows, code: str, heard: Any):
    """No deadlock and no serialization failure loses an ending."""
    await rows.connection.execute(
        "CREATE SCHEMA app; CREATE SEQUENCE app.failures;"
        "CREATE FUNCTION app.fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "IF nextval('app.failures') <= 2 THEN "
        f"RAISE EXCEPTION 'passing' USING ERRCODE = '{code}'; END IF; RETURN NULL; END $$;"
        "CREATE TRIGGER fail AFTER DELETE ON pgmq.q_default EXECUTE FUNCTION app.fail()"
    )
    await fill(rows, 3)
    for lease in await bench.claim(3):
        bench.settler.put(lease, done(lease))
    await bench.settled(3)
    assert (bench.settler.counts, await rows.all()) == ({"done": 3}, [])
    assert await rows.connection.fetchval("SELECT last_value FROM app.failures") == 3
    assert "settling failed, trying again" in heard.events()
    assert heard.events(40) == []


async def test_closing_writes_what_is_there(database: DatabaseConfig, store: Store, rows: Rows):
    await fill(rows, 50)
    async with working_settler(database, store) as bench:
        for lease in await bench.claim(50):
            bench.settler.put(lease, done(lease))
    assert await rows.all() == []
    assert bench.settler.counts == {"done": 50}


async def test_the_board_is_kept_up(database: DatabaseConfig, store: Store, rows: Rows):
    board = Board.create()
    board.name_queues([Q])
    await fill(rows, 3)
    async with working_settler(database, store, board) as bench:
        leases = await bench.claim(3)
        for lease in leases:
            board.add(lease)
            board.mark_running(lease)
        bench.settler.put(leases[0], done(leases[0]))
        # Its task has ended: whatever the process dies of now, it was not that.
        running = {entry.message_id for entry in board.entries() if entry.is_running}
        assert running == {lease.message.message_id for lease in leases[1:]}
        await bench.settled(1)
        assert len(board.entries()) == 2
        await rows.steal(leases[1].message.message_id)
        bench.settler.put(leases[1], done(leases[1]))
        bench.settler.put(leases[2], failed(leases[2]))
    assert board.entries() == []
    board.close()
