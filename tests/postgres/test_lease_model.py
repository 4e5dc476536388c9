"""The real statements against a model of a few lines, in any order that can happen.

Workers claim, extend, settle, crash, come back as zombies; foreign clients read and delete; leases
run out. After every step the tables must be what the model says.

`PGTASKS_MODEL_EXAMPLES=4000` runs so many sequences, each twice as long.
"""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from typing import Any, ClassVar, TypeVar, cast

import asyncpg
import attrs
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from pgtasks import message
from pgtasks import store as statements
from pgtasks.connection import WORKER_SETTINGS
from pgtasks.message import State, read_state, write_state
from pgtasks.store import BEGINNING, Extension, Store

T = TypeVar("T")

Q = "default"
HOUR = timedelta(hours=1)
NOW = timedelta(0)
WORKERS = ("a", "b", "c")
EXAMPLES = os.environ.get("PGTASKS_MODEL_EXAMPLES")

RUN = settings(
    max_examples=int(EXAMPLES or 60),
    stateful_step_count=60 if EXAMPLES else 30,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@attrs.define
class Row:
    """What a message should be."""

    delivery: int = 0
    is_due: bool = True
    state: State = attrs.field(factory=State)
    written_by: int = 0
    """The delivery that wrote what is known of it."""
    writes: int = 0
    """How often that was written."""
    lives: int = 1
    """How many messages had this number, one after the other."""

    def wrote(self, state: State) -> None:
        """Somebody wrote this into its headers."""
        self.state, self.writes = state, self.writes + 1


@attrs.frozen
class Held:
    """A lease as its worker knows it: the row, the delivery, and what it saw."""

    id: int
    delivery: int
    seen: State = attrs.field(eq=False)
    headers: str | None = attrs.field(eq=False)
    writes: int = attrs.field(eq=False)
    place: message.Held
    life: int

    @property
    def extension(self) -> Extension:
        """What keeps it for another hour."""
        return Extension(self.place, self.delivery, HOUR)

    def counting(self, name: str) -> State:
        """What this worker would store: what it saw, and one more."""
        return attrs.evolve(self.seen, **{name: getattr(self.seen, name) + 1})


class Server:
    """One connection, somebody else's, and the loop they live on."""

    def __init__(self, url: str) -> None:
        self.runner = asyncio.Runner()
        self.connection: Any = self.run(asyncpg.connect(url, server_settings=dict(WORKER_SETTINGS)))
        self.other: Any = self.run(asyncpg.connect(url))
        self.store = Store(self.connection)

    def run(self, work: Awaitable[T]) -> T:
        """Wait for a call."""

        async def waited() -> T:
            return await work

        return self.runner.run(waited())

    def empty(self) -> None:
        """Begin anew."""
        self.run(self.connection.execute("DELETE FROM pgmq.q_default; DELETE FROM pgmq.a_default"))

    async def cancelled(self, work: Awaitable[T], locked: int) -> None:
        """Cancel a call that waits for the lock of a message."""
        async with self.other.transaction():
            await self.other.execute(
                "SELECT FROM pgmq.q_default WHERE msg_id = $1 FOR UPDATE", locked
            )
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02):
                    await work
            # The lock must outlast the cancellation, which comes to the server a moment later.
            await self.connection.fetchval("SELECT 1")

    def close(self) -> None:
        """Leave nothing behind."""
        self.run(self.other.close())
        self.run(self.connection.close())
        self.runner.close()


def of_one_delivery(leases: list[Held]) -> tuple[list[Held], int]:
    """Those of them that one statement can settle."""
    delivery = leases[0].delivery
    return [one for one in leases if one.delivery == delivery], delivery


def held(answer: Any, row: Row) -> Held:
    """What a worker is told when it has the lease on this row."""
    headers = answer["headers"]
    place = message.Held(answer["msg_id"], answer["enqueued_at"])
    return Held(
        place.message_id, answer["read_ct"], counted(headers), headers, row.writes, place, row.lives
    )


def counted(headers: str | None) -> State:
    """What is remembered in headers, without our own note of who wrote them."""
    return attrs.evolve(read_state(headers or "null"), rest={})


def with_some(choose: Callable[[Any], list[Any]]) -> Callable[[T], T]:
    """Only when there is something to do it with."""
    return cast("Callable[[T], T]", precondition(lambda self: bool(choose(self))))


class Leases(RuleBasedStateMachine):
    """What may happen to a queue."""

    server: ClassVar[Server]

    def __init__(self) -> None:
        super().__init__()
        self.server.empty()
        self.queue: dict[int, Row] = {}
        self.archive: dict[int, Row] = {}
        self.gone: set[int] = set()
        self.accepted: set[int] = set()
        self.given: set[tuple[int, int]] = set()
        self.held: dict[str, list[Held]] = {worker: [] for worker in WORKERS}
        self.zombies: list[Held] = []
        """Leases that were settled, or left behind, by somebody who may come back."""

    @property
    def store(self) -> Store:
        return self.server.store

    def run(self, work: Awaitable[T]) -> T:
        return self.server.run(work)

    def is_ours(self, lease: Held) -> bool:
        row = self.queue.get(lease.id)
        return row is not None and (row.lives, row.delivery) == (lease.life, lease.delivery)

    def was_written_since(self, lease: Held) -> bool:
        row = self.queue.get(lease.id)
        return row is not None and row.writes != lease.writes

    def pick(self, data: st.DataObject, leases: list[Held]) -> list[Held]:
        # Half of the time those that are somebody else's by now: that is what fences are for.
        stale = [one for one in leases if one.id in self.queue and not self.is_ours(one)]
        prefers_stale: bool = data.draw(cast("Any", st.booleans()))
        if stale and prefers_stale:
            leases = stale
        chosen = data.draw(st.lists(st.sampled_from(leases), min_size=1, max_size=4, unique=True))
        # A batch names a row once: each worker knows it under one lease only.
        once = {lease.id: lease for lease in chosen}
        return sorted(once.values(), key=lambda lease: lease.id)

    def holders(self) -> list[Held]:
        return [lease for lease in self.everybodys() if self.is_ours(lease)]

    def everybodys(self) -> list[Held]:
        return [lease for leases in self.held.values() for lease in leases] + self.zombies

    def settled(self, leases: list[Held], ids: list[int]) -> list[Held]:
        """The statement's word on whose leases stood must be the model's."""
        ours = [lease for lease in leases if self.is_ours(lease)]
        assert sorted(ids) == [lease.id for lease in ours]
        for worker, mine in self.held.items():
            self.held[worker] = [lease for lease in mine if lease not in leases]
        self.zombies += [lease for lease in leases if lease not in self.zombies]
        return ours

    # What happens

    @initialize(freezes=st.booleans())
    def begin(self, freezes: bool) -> None:
        """Some work is under way: from nothing, too few sequences come to where it hurts."""
        self.defer(number=8, later=False)
        self.claim(worker="a", limit=4, freezes=False)
        self.archive_some(self.held["a"][:1])
        self.claim(worker="b", limit=3, freezes=freezes)

    @rule(number=st.integers(1, 4), later=st.booleans())
    def defer(self, number: int, later: bool) -> None:
        delay = HOUR if later else NOW
        for made in self.run(self.store.send_many(Q, ["{}"] * number, None, delay, None)):
            assert made not in self.accepted
            self.accepted.add(made)
            self.queue[made] = Row(is_due=not later)

    @rule(worker=st.sampled_from(WORKERS), limit=st.integers(1, 5), freezes=st.booleans())
    def claim(self, worker: str, limit: int, freezes: bool) -> None:
        """A worker that freezes now loses what it got before it knows."""
        rows = self.run(self.store.claim(Q, limit, HOUR, BEGINNING))
        due = {one for one, row in self.queue.items() if row.is_due}
        claimed = {row["msg_id"] for row in rows}
        assert claimed <= due
        assert len(rows) == len(claimed) == min(limit, len(due))
        for got in rows:
            row = self.queue[got["msg_id"]]
            row.delivery, row.is_due = row.delivery + 1, False
            lease = held(got, row)
            assert (lease.delivery, lease.seen) == (row.delivery, row.state)
            assert (lease.id, lease.delivery) not in self.given
            self.given.add((lease.id, lease.delivery))
            self.held[worker].append(lease)
            if freezes:
                self.lose(lease)

    @with_some(lambda self: self.everybodys())
    @rule(data=st.data(), settling=st.booleans())
    def extend(self, data: st.DataObject, settling: bool) -> None:
        """Whose lease is being settled wants it extended only if that has not happened yet."""
        leases = self.everybodys()
        put_back = [one for one in leases if self.is_ours(one) and self.was_written_since(one)]
        leases = self.pick(data, (settling and put_back) or leases)
        extensions = [
            attrs.evolve(one.extension, is_settling=settling, headers=one.headers) for one in leases
        ]
        answers = self.run(self.store.extend(Q, extensions))
        for lease in leases:
            [answer] = [row for row in answers if row["msg_id"] == lease.id]
            assert answer["held"] is self.is_ours(lease)
            not_to_be = settling and self.was_written_since(lease)
            assert answer["extended"] is (self.is_ours(lease) and not not_to_be)
            if answer["extended"]:
                self.queue[lease.id].is_due = False

    @with_some(lambda self: self.everybodys())
    @rule(data=st.data())
    def complete(self, data: st.DataObject) -> None:
        leases = self.pick(data, self.everybodys())
        leases, delivery = of_one_delivery(leases)
        ids = self.run(self.store.complete(Q, [one.place for one in leases], delivery))
        for lease in self.settled(leases, ids):
            del self.queue[lease.id]
            self.gone.add(lease.id)

    @with_some(lambda self: self.holders())
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        """A settlement that is cancelled while it waits has not happened, and may happen yet."""
        lease = data.draw(st.sampled_from(self.holders()))
        settling = self.store.complete(Q, [lease.place], lease.delivery)
        self.run(self.server.cancelled(settling, locked=lease.id))

    @with_some(lambda self: self.everybodys())
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        self.archive_some(self.pick(data, self.everybodys()))

    def archive_some(self, leases: list[Held]) -> None:
        leases, delivery = of_one_delivery(leases)
        states = [one.counting("failures") for one in leases]
        ids = self.run(
            self.store.archive(
                Q,
                [one.place for one in leases],
                delivery,
                [
                    write_state(state.as_dict(outcome="failed", by=lease.delivery))
                    for state, lease in zip(states, leases, strict=True)
                ],
            )
        )
        for lease in self.settled(leases, ids):
            row = self.queue.pop(lease.id)
            row.wrote(lease.counting("failures"))
            row.written_by = lease.delivery
            self.archive[lease.id] = row

    @with_some(lambda self: self.everybodys())
    @rule(data=st.data(), later=st.booleans())
    def fail(self, data: st.DataObject, later: bool) -> None:
        self.put_back(data, "failures", HOUR if later else NOW)

    @with_some(lambda self: self.everybodys())
    @rule(data=st.data(), later=st.booleans())
    def snooze(self, data: st.DataObject, later: bool) -> None:
        self.put_back(data, "snoozes", HOUR if later else NOW)

    @with_some(lambda self: self.everybodys())
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        self.put_back(data, "releases", NOW)

    @with_some(lambda self: self.everybodys())
    @rule(data=st.data())
    def find_no_such_task(self, data: st.DataObject) -> None:
        self.put_back(data, "unknown", HOUR)

    def put_back(self, data: st.DataObject, what: str, delay: timedelta) -> None:
        leases, delivery = of_one_delivery(self.pick(data, self.everybodys()))
        delays = [delay] * len(leases)
        states = [write_state(one.counting(what).as_dict(by=one.delivery)) for one in leases]
        ids = self.run(self.store.retry(Q, [one.place for one in leases], delivery, delays, states))
        for lease in self.settled(leases, ids):
            row = self.queue[lease.id]
            row.wrote(lease.counting(what))
            row.is_due, row.written_by = not delay, lease.delivery

    @with_some(lambda self: [one for one, row in self.queue.items() if not row.is_due])
    @rule(data=st.data())
    def expire(self, data: st.DataObject) -> None:
        """An hour passes for some message."""
        late = sorted(one for one, row in self.queue.items() if not row.is_due)
        made = data.draw(st.sampled_from(late))
        self.change(made, "vt = clock_timestamp() - interval '1 s'")
        self.queue[made].is_due = True

    @with_some(lambda self: list(self.queue))
    @rule(data=st.data())
    def foreign_read(self, data: st.DataObject) -> None:
        made = data.draw(st.sampled_from(sorted(self.queue)))
        self.change(made, "read_ct = read_ct + 1, vt = clock_timestamp() + interval '1 hour'")
        row = self.queue[made]
        row.delivery, row.is_due = row.delivery + 1, False
        self.given.add((made, row.delivery))

    @with_some(lambda self: self.everybodys())
    @rule(data=st.data())
    def overtake(self, data: st.DataObject) -> None:
        """A lease runs out, and somebody else has its message before its holder knows."""
        lease = data.draw(st.sampled_from(self.everybodys()))
        if self.is_ours(lease):
            self.lose(lease)

    @with_some(lambda self: self.holders())
    @rule(data=st.data())
    def give_number_anew(self, data: st.DataObject) -> None:
        """A standby takes over that lacks a message, and its number comes to be another one's.

        That one was claimed as often, by somebody else.
        """
        lease = data.draw(st.sampled_from(self.holders()))
        self.change(lease.id, "enqueued_at = enqueued_at + interval '1 microsecond'")
        self.queue[lease.id].lives += 1

    @with_some(lambda self: list(self.queue))
    @rule(data=st.data())
    def foreign_delete(self, data: st.DataObject) -> None:
        """All there is to cancel a message with, too."""
        made = data.draw(st.sampled_from(sorted(self.queue)))
        self.run(
            self.server.connection.execute("DELETE FROM pgmq.q_default WHERE msg_id = $1", made)
        )
        del self.queue[made]
        self.gone.add(made)

    @with_some(lambda self: self.workers())
    @rule(data=st.data())
    def freeze(self, data: st.DataObject) -> None:
        """It is paused, or its machine is gone: all it holds runs out, and it may come back."""
        worker = data.draw(st.sampled_from(self.workers()))
        leases, self.held[worker] = self.held[worker], []
        self.zombies += [lease for lease in leases if lease not in self.zombies]

    @with_some(lambda self: self.workers())
    @rule(data=st.data())
    def crash(self, data: st.DataObject) -> None:
        """Its supervisor reads its board: one was running and is counted, the rest go back."""
        worker = data.draw(st.sampled_from(self.workers()))
        leases, self.held[worker] = self.held[worker], []
        once = sorted({lease.id: lease for lease in leases}.values(), key=lambda lease: lease.id)
        suspect = once.pop(data.draw(st.integers(0, len(once) - 1)))
        answer = self.run(self.store.count_crash(Q, suspect.place, suspect.delivery, HOUR))
        assert (answer is not None) is self.is_ours(suspect)
        if answer is not None:
            row = self.queue[suspect.id]
            row.is_due = False
            row.wrote(attrs.evolve(row.state, crashes=row.state.crashes + 1))
            assert counted(answer["headers"]) == row.state
            self.held[worker].append(held(answer, row))
        given_back = []
        for delivery in {one.delivery for one in once}:
            places = [one.place for one in once if one.delivery == delivery]
            given_back += self.run(self.store.give_back(Q, places, delivery))
        assert sorted(given_back) == [one.id for one in once if self.is_ours(one)]
        for made in given_back:
            row = self.queue[made]
            row.is_due = True
            row.wrote(attrs.evolve(row.state, releases=row.state.releases + 1))

    @with_some(lambda self: self.workers())
    @rule(data=st.data(), fresh=st.sampled_from(WORKERS))
    def take_over(self, data: st.DataObject, fresh: str) -> None:
        """A process died, and a fresh one goes on with a lease of its, to run the message alone."""
        dead = data.draw(st.sampled_from(self.workers()))
        lease = data.draw(st.sampled_from(self.held[dead]))
        self.held[dead].remove(lease)
        [extended] = self.run(self.store.extend(Q, [lease.extension]))
        answer = self.run(self.store.take(Q, lease.place, lease.delivery))
        assert extended["held"] is (answer is not None) is self.is_ours(lease)
        if answer is not None:
            row = self.queue[lease.id]
            row.is_due = False
            taken = held(answer, row)
            assert (taken, taken.seen) == (lease, row.state)
            self.held[fresh].append(taken)

    @with_some(lambda self: list(self.archive))
    @rule(data=st.data(), later=st.booleans())
    def redrive(self, data: st.DataObject, later: bool) -> None:
        """A user puts back what was given up: it comes as a new message."""
        chosen = data.draw(st.lists(st.sampled_from(sorted(self.archive)), min_size=1, unique=True))
        delay = HOUR if later else NOW
        rows = self.run(self.store.redrive(Q, chosen, delay, notify=False))
        assert sorted(row["was"] for row in rows) == sorted(chosen)
        for moved in rows:
            was, made = self.archive.pop(moved["was"]), moved["msg_id"]
            assert made not in self.accepted
            self.accepted.add(made)
            self.gone.add(moved["was"])
            self.queue[made] = Row(is_due=not later, state=State(redrives=was.state.redrives + 1))

    def workers(self) -> list[str]:
        return [worker for worker, leases in self.held.items() if leases]

    def lose(self, lease: Held) -> None:
        self.change(lease.id, "read_ct = read_ct + 1, vt = clock_timestamp() - interval '1 s'")
        row = self.queue[lease.id]
        row.delivery, row.is_due = row.delivery + 1, True
        self.given.add((lease.id, row.delivery))

    def change(self, made: int, what: str) -> None:
        text = f"UPDATE pgmq.q_default SET {what} WHERE msg_id = $1"
        assert self.run(self.server.connection.execute(text, made)) == "UPDATE 1"

    # What always holds

    @invariant()
    def the_tables_are_what_the_model_says(self) -> None:
        waiting, archived = self.run(tables(self.server.connection))
        # Each accepted message is in exactly one place, and nothing else is anywhere.
        assert waiting.keys() == self.queue.keys()
        assert archived.keys() == self.archive.keys()
        assert self.accepted == self.queue.keys() | self.archive.keys() | self.gone
        for one, (delivery, is_due, headers) in waiting.items():
            row = self.queue[one]
            assert (delivery, is_due) == (row.delivery, row.is_due), one
            self.is_known(row, headers)
        for one, (delivery, _, headers) in archived.items():
            row = self.archive[one]
            # The last word was the holder's of the highest delivery.
            assert delivery == row.delivery == row.written_by
            assert json.loads(headers or "")["pgtasks"]["by"] == delivery
            self.is_known(row, headers)

    def is_known(self, row: Row, headers: str | None) -> None:
        state = counted(headers)
        assert state == row.state
        # Nothing is counted that was not delivered.
        assert state.ended <= row.delivery
        if headers is not None and row.written_by:
            assert json.loads(headers)["pgtasks"].get("by") == row.written_by
        assert row.written_by <= row.delivery


Found = dict[int, tuple[int, bool, str | None]]


async def tables(connection: Any) -> tuple[Found, Found]:
    rows = await connection.fetch(
        "SELECT false AS archived, msg_id, read_ct, vt <= clock_timestamp() AS is_due, headers "
        "FROM pgmq.q_default UNION ALL "
        "SELECT true, msg_id, read_ct, false, headers FROM pgmq.a_default"
    )
    found: tuple[Found, Found] = ({}, {})
    for archived, *row in rows:
        made, delivery, is_due, headers = row
        found[archived][made] = (delivery, is_due, headers)
    return found


@pytest.fixture
def machine(database_url: str) -> Iterator[type[Leases]]:
    """The state machine, on a server."""
    server = Server(database_url)
    server.run(server.store.create_queue(Q))
    Leases.server = server
    yield Leases
    server.close()


@pytest.mark.timeout(3600 if EXAMPLES else 120)
def test_leases_are_kept_to_whatever_happens(machine: type[Leases]):
    run_state_machine_as_test(machine, settings=RUN)


BY_DELIVERY = "read_ct = $3::integer"
PLACE = "[pg_catalog.width_bucket(msg_id, $1::bigint[])]"
STORED = f"($2::float8[]){PLACE}"

FENCES = {
    "complete": ("complete", BY_DELIVERY, "$3::integer > 0"),
    "archive": ("archive", BY_DELIVERY, "$3::integer > 0"),
    "retry": ("retry", BY_DELIVERY, "$3::integer > 0"),
    "give back": ("give_back", BY_DELIVERY, "$3::integer > 0"),
    "extend": ("extend", f"read_ct = ($3::integer[]){PLACE}", "cardinality($3::integer[]) > 0"),
    "extend what is settled": ("extend", "OR headers IS", "OR true OR headers IS"),
    "take": ("take", "read_ct = $3", "$3::integer > 0"),
    "count a crash": ("count_crash", "message.read_ct = $3", "$3::integer > 0"),
    "complete what has its number now": ("complete", f"= {STORED}", f"<> ({STORED} - 0.5)"),
    "claim": ("claim", "least(message.read_ct, 2147483646) + 1", "message.read_ct"),
    "lower": ("retry", "SET vt =", "SET read_ct = read_ct - 1, vt ="),
    "redrive": ("redrive", 'DELETE FROM pgmq."a_default"', 'UPDATE pgmq."a_default" SET vt = vt'),
}
"""By what is done: the statement, what in it keeps a message with one owner and in one place, and
what is left of that."""


@pytest.mark.parametrize("missing", FENCES)
def test_the_model_notices_a_missing_fence(
    machine: type[Leases], monkeypatch: pytest.MonkeyPatch, missing: str
):
    """Without this, nobody knows that the test above can fail."""
    broken, fence, left = FENCES[missing]
    whole = statements._on_queue
    assert fence in whole(broken, Q)

    def without_fence(name: str, queue: str) -> str:
        text = whole(name, queue)
        return text.replace(fence, left) if name == broken else text

    monkeypatch.setattr(statements, "_on_queue", without_fence)
    until_found = settings(
        RUN, max_examples=1000, stateful_step_count=30, phases=[Phase.generate], print_blob=False
    )
    with pytest.raises(AssertionError):
        run_state_machine_as_test(machine, settings=until_found)
