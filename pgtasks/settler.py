"""Settler: writes how leases ended, many in a statement."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from operator import attrgetter
from typing import Any, NamedTuple

import attrs

from pgtasks.backoff import Backoff
from pgtasks.board import Board
from pgtasks.config import DatabaseConfig
from pgtasks.connection import FAILURES, WORKER_SETTINGS, Connection, Line, is_transient
from pgtasks.events import Events
from pgtasks.keeper import Keeper
from pgtasks.lease import Lease
from pgtasks.message import Held, write_state
from pgtasks.outage import Outage
from pgtasks.pulse import Pulse
from pgtasks.settlement import Settlement, describe_error
from pgtasks.store import Store

log = Events("pgtasks.settler")

LINGER_SECONDS = 0.005
"""How long the first settlement of a batch waits for others: it costs nobody's time."""
FULL = 500
"""Settlements that are enough for a statement: beyond it the cost of each falls no further."""
LARGEST = 1000
"""The most for one: what came later waits no longer than for so many."""


@attrs.define(eq=False)
class _Pending:
    lease: Lease
    settlement: Settlement
    written: "asyncio.Future[None] | None" = None
    held: Held = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.held = self.lease.message.held

    @property
    def message_id(self) -> int:
        return self.held.message_id


class _Group(NamedTuple):
    """Settlements that one statement can write."""

    queue: str
    action: str
    kind: str
    durable: bool
    delivery: int
    """One for all: the fence is a plain comparison, and no message is in a statement twice."""


@attrs.define(eq=False)
class Settler:
    """What is to be settled, and the one connection that writes it."""

    _database: DatabaseConfig
    _keeper: Keeper
    _board: Board | None
    _on_due: Callable[[str], None]
    """Called with a queue in which a message was made due again."""
    _pulse: Pulse = attrs.field(factory=Pulse)
    counts: Counter[str] = attrs.field(factory=Counter, init=False)
    _line: Line = attrs.field(init=False)
    _pending: list[_Pending] = attrs.field(factory=list, init=False)
    _wake: asyncio.Event = attrs.field(factory=asyncio.Event, init=False)
    _full: asyncio.Event = attrs.field(factory=asyncio.Event, init=False)
    _outage: Outage = attrs.field(
        factory=lambda: Outage(log, "settling failed, trying again"), init=False
    )
    _closing: bool = attrs.field(default=False, init=False)
    ended: asyncio.Event = attrs.field(factory=asyncio.Event, init=False)
    """Set when it was closed and all is written."""

    def __attrs_post_init__(self) -> None:
        self._line = Line(self._database, "settler", WORKER_SETTINGS, self._pulse)

    def put(self, lease: Lease, settlement: Settlement) -> None:
        """Settle a lease with the next batch."""
        self._put(_Pending(lease, settlement))

    async def put_and_wait(self, lease: Lease, settlement: Settlement) -> None:
        """Settle a lease and return when it is written."""
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._put(_Pending(lease, settlement, written))
        self._full.set()
        await written

    def forget(self, *leases: Lease) -> None:
        """Let go of leases that were settled elsewhere, or are somebody else's now."""
        self._keeper.let_go(*leases)
        if self._board is not None:
            self._board.remove(*leases)

    def close(self) -> None:
        """Write what is there, then let `run` return."""
        self._closing = True
        self._full.set()
        self._wake.set()

    async def run(self) -> None:
        """Write batches until closed and empty."""
        try:
            while self._pending or not self._closing:
                self._pulse.rest()
                await self._wake.wait()
                self._pulse.promise(LINGER_SECONDS)
                await self._linger()
                batch, self._pending = self._pending[:LARGEST], self._pending[LARGEST:]
                if not self._closing and not self._pending:
                    self._wake.clear()
                    self._full.clear()
                for group, members in _grouped(batch).items():
                    await self._write(group, members)
            self.ended.set()
        finally:
            self._pulse.end()
            await self._line.close()

    def _put(self, pending: _Pending) -> None:
        if pending.lease.lost:
            self._note_lost(pending)
            return
        pending.lease.settling = True
        if self._board is not None:
            self._board.mark_ended(pending.lease)
        self._pending.append(pending)
        if not self._wake.is_set():
            self._wake.set()
        if len(self._pending) >= FULL and not self._full.is_set():
            self._full.set()

    async def _linger(self) -> None:
        if not self._full.is_set():
            try:
                async with asyncio.timeout(LINGER_SECONDS):
                    await self._full.wait()
            except TimeoutError:
                pass

    async def _write(self, group: _Group, members: list[_Pending]) -> None:
        members.sort(key=attrgetter("held"))
        backoff = Backoff(longest_seconds=2.0)
        unsure = False
        while members:
            try:
                ids = await self._line.call(partial(_settle, group=group, members=members))
            except FAILURES as error:
                if not is_transient(error):
                    await self._write_apart(group, members, error)
                    return
                unsure = True
                self._outage.report(error, queue=group.queue, messages=len(members))
                pause = backoff.next_seconds()
                self._pulse.promise(pause)
                await asyncio.sleep(pause)
                members = [pending for pending in members if not self._dropped(pending)]
            else:
                self._outage.over()
                self._note(group, members, set(ids), unsure=unsure)
                return

    async def _write_apart(
        self, group: _Group, members: list[_Pending], error: BaseException
    ) -> None:
        """One bad row must not spoil the batch: write each alone, and the bad one without text."""
        if len(members) > 1:
            for pending in members:
                await self._write(group, [pending])
            return
        [pending] = members
        log.error(
            "a settlement was refused",
            **_fields(pending),
            action=group.action,
            error=describe_error(error),
        )
        plain = write_state({"note": "its state could not be stored; see the worker's log"})
        if pending.settlement.state in (None, plain):
            self._end(pending)
            return
        pending.settlement = attrs.evolve(pending.settlement, state=plain)
        await self._write(group, [pending])

    def _note(
        self, group: _Group, members: Sequence[_Pending], ids: set[int], *, unsure: bool
    ) -> None:
        if unsure or len(ids) == len(members):
            ended = members
        else:
            ended = [pending for pending in members if pending.message_id in ids]
            for pending in members:
                if pending.message_id not in ids:
                    self._note_lost(pending)
        if ended:
            self.counts[group.kind] += len(ended)
            self._end(*ended)
        if group.action == "retry":
            self._on_due(group.queue)

    def _dropped(self, pending: _Pending) -> bool:
        if pending.lease.lost:
            self._note_lost(pending)
        return pending.lease.lost

    def _note_lost(self, pending: _Pending) -> None:
        pending.lease.lost = True
        self.counts["lost"] += 1
        log.warning(
            "lease lost, outcome not counted", **_fields(pending), outcome=pending.settlement.kind
        )
        self._end(pending)

    def _end(self, *ended: _Pending) -> None:
        self.forget(*[pending.lease for pending in ended])
        for pending in ended:
            if pending.written is not None and not pending.written.done():
                pending.written.set_result(None)


def _grouped(batch: list[_Pending]) -> dict[_Group, list[_Pending]]:
    groups: dict[tuple[str, str, str, bool, int], list[_Pending]] = defaultdict(list)
    for pending in batch:
        settlement, message = pending.settlement, pending.lease.message
        kind, durable = settlement.kind, settlement.durable
        groups[message.queue, settlement.action, kind, durable, message.delivery].append(pending)
    return {_Group(*key): members for key, members in groups.items()}


async def _settle(on: Connection, group: _Group, members: Sequence[_Pending]) -> list[int]:
    if not group.durable:
        return await _write(Store(on), group, members)
    async with on.transaction():
        await Store(on).wait_for_disk()
        return await _write(Store(on), group, members)


async def _write(store: Store, group: _Group, members: Sequence[_Pending]) -> list[int]:
    queue, delivery = group.queue, group.delivery
    held = [pending.held for pending in members]
    if group.action == "complete":
        return await store.complete(queue, held, delivery)
    states = [pending.settlement.state for pending in members]
    if group.action == "archive":
        return await store.archive(queue, held, delivery, states)
    delays = [pending.settlement.delay for pending in members]
    ended = await store.retry(queue, held, delivery, delays, states)
    if not all(delays):  # due at once: for any worker that has room
        await store.notify(queue)
    return ended


def _fields(pending: _Pending) -> dict[str, Any]:
    message = pending.lease.message
    return {"queue": message.queue, "message": message.message_id, "delivery": message.delivery}
