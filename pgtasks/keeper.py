"""Keeper: extends the leases a worker holds, from a thread that nothing in the worker can stop.

Code of a task that blocks the event loop, a pool that is used up, a scope that is cancelled: each
would stop an extension that ran on the worker's own loop, and the message would be run twice.
So this thread has its own loop and its own connection.
"""

import asyncio
import threading
from collections import defaultdict
from collections.abc import Callable
from datetime import timedelta
from time import monotonic
from typing import Final

import anyio
import asyncpg
import attrs

from pgtasks.config import DatabaseConfig
from pgtasks.connection import CALL_SECONDS, FAILURES, WORKER_SETTINGS, Line
from pgtasks.events import Events
from pgtasks.lease import Lease
from pgtasks.outage import Outage
from pgtasks.pulse import Pulse
from pgtasks.settlement import describe_error
from pgtasks.store import Extension, Store

log = Events("pgtasks.keeper")

LONGEST_PAUSE = 0.5
SHORTEST_TRY = 0.25
KEEPER_SETTINGS: Final = {**WORKER_SETTINGS, "lock_timeout": "200ms"}
"""It waits for a locked table no longer than it waits for an answer."""
MOST_FAULTS = 3
"""So many rounds in a row that fail by a mistake of ours end the keeper: leases that are neither
extended nor given up would be run twice."""


@attrs.define(eq=False)
class Keeper:
    """The leases a worker holds, and the thread that extends them."""

    _database: DatabaseConfig
    _on_lost: Callable[[Lease], None]
    """Called in the keeper's thread."""
    _pulse: Pulse = attrs.field(factory=Pulse)
    _held: dict[tuple[str, int], Lease] = attrs.field(factory=dict, init=False)
    _line: Line = attrs.field(init=False)
    _thread: threading.Thread | None = attrs.field(default=None, init=False)
    _stopping: threading.Event = attrs.field(factory=threading.Event, init=False)
    _outage: Outage = attrs.field(
        factory=lambda: Outage(log, "leases not extended, trying again"), init=False
    )
    _loop: asyncio.AbstractEventLoop | None = attrs.field(default=None, init=False)
    _rouse: asyncio.Event = attrs.field(factory=asyncio.Event, init=False)
    _pause: float = attrs.field(default=LONGEST_PAUSE, init=False)
    _fault: BaseException | None = attrs.field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self._line = Line(self._database, "keeper", KEEPER_SETTINGS, self._pulse)

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._work, name="pgtasks-keeper", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread; leases still held run out by themselves."""
        self._stopping.set()
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._rouse.set)

    def join(self) -> None:
        """Wait for the thread's end; not for a database that does not answer."""
        if self._thread is not None:
            self._thread.join(timeout=2)

    def hold(self, *leases: Lease) -> None:
        """Extend these leases until they are let go."""
        for lease in leases:
            before = self._held.get(lease.key)
            self._held[lease.key] = lease
            # Claimed anew by us: somebody else made it due, or gave its number to another message.
            if before is not None and not before.lost and not before.settling:
                self._lose(before)
        for seconds in {lease.length_seconds for lease in leases}:
            self._pause = min(self._pause, max(0.05, seconds / 12))

    def let_go(self, *leases: Lease) -> None:
        """Extend these leases no longer."""
        for lease in leases:
            if self._held.get(lease.key) is lease:
                del self._held[lease.key]

    def held(self) -> list[Lease]:
        """Return the leases held now."""
        return list(self._held.values())

    def is_alive(self) -> bool:
        """Tell whether the thread runs."""
        return self._thread is not None and self._thread.is_alive()

    def check(self) -> None:
        """Raise an error when the thread has ended before it was told to."""
        if self._fault is not None:
            why = describe_error(self._fault)
            raise RuntimeError(f"its thread has ended: {why}") from self._fault

    def _work(self) -> None:
        try:
            anyio.run(self._keep, backend="asyncio")
        except BaseException as fault:  # noqa: BLE001 - whatever it is, `check` tells of it
            self._fault = fault
        else:
            self._pulse.end()

    async def _keep(self) -> None:
        self._loop = asyncio.get_running_loop()
        faults = 0
        while not self._stopping.is_set():
            self._pulse.promise(self._pause)
            try:
                await self._round()
            except Exception as broken:  # the thread must outlive what a round runs into
                faults += 1
                if faults == MOST_FAULTS:
                    raise
                log.error("extending leases failed", raised=broken)
            else:
                faults = 0
            self._pulse.promise(self._pause)
            with anyio.move_on_after(self._pause):
                await self._rouse.wait()
        await self._line.close()

    async def _round(self) -> None:
        now, held = monotonic(), self.held()
        due: dict[str, list[Lease]] = defaultdict(list)
        for lease in held:
            if lease.extend_at <= now and not lease.lost:
                due[lease.message.queue].append(lease)
        for queue, leases in due.items():
            await self._extend(queue, leases)
            # After each: the trouble of one queue must not hide the end of another's leases.
            self._give_up(held)
        self._give_up(held)

    def _give_up(self, held: list[Lease]) -> None:
        """Lose what is over; what came since the round began may be extended by the next."""
        for lease in held:
            is_held = self._held.get(lease.key) is lease
            if is_held and lease.is_over() and not lease.lost and not lease.settling:
                self._lose(lease)

    async def _extend(self, queue: str, leases: list[Lease]) -> None:
        extensions = [_extension(lease) for lease in leases]
        asked_at = monotonic()
        # No longer than until the first of them is over: then it is to be cancelled, not kept.
        # What is being settled runs no more, and may be long over.
        ends = [lease.over_at - asked_at for lease in leases if not lease.settling]
        # Half of it, for a new connection as well: there must be time for another try.
        patience = min([2 * CALL_SECONDS, *ends]) / 2
        try:
            with anyio.fail_after(max(SHORTEST_TRY, min(CALL_SECONDS, patience))):
                rows = await self._line.call(lambda on: Store(on).extend(queue, extensions))
        except FAILURES as error:
            self._outage.report(error, queue=queue, leases=len(leases))
            return
        self._outage.over()
        self._note(leases, rows, asked_at)

    def _note(self, leases: list[Lease], rows: list[asyncpg.Record], asked_at: float) -> None:
        answers = {row["msg_id"]: row for row in rows}
        for lease in leases:
            row = answers[lease.message.message_id]
            if row["extended"]:
                lease.renewed(asked_at, lease.length_seconds)
            elif not row["held"] and not lease.settling and self._held.get(lease.key) is lease:
                self._lose(lease)

    def _lose(self, lease: Lease) -> None:
        lease.lost = True
        self._on_lost(lease)


def _extension(lease: Lease) -> Extension:
    message, length = lease.message, timedelta(seconds=lease.length_seconds)
    return Extension(message.held, message.delivery, length, lease.settling, message.headers)
