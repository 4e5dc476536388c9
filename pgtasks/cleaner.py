"""Cleaner: vacuums the tables of busy queues, by one worker at a time and only where it pays."""

import random
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from time import monotonic

import anyio
import attrs

from pgtasks.backoff import Backoff
from pgtasks.config import DatabaseConfig, VacuumConfig
from pgtasks.connection import FAILURES, OWN_LIMITS, open_connection
from pgtasks.events import Events
from pgtasks.outage import Outage
from pgtasks.store import Record, Store

log = Events("pgtasks.cleaner")

LOOK = timedelta(seconds=5)
"""How often a busy worker looks, and how often a table is vacuumed at most."""
DEAD_EACH = 2
"""Dead rows that a message leaves: the one that was claimed, and the one that was done."""
LONGEST_REST_SECONDS = 300.0
VACUUM_SECONDS = 600.0
"""The longest that one may take: 100 million rows."""
CLEANER_SETTINGS: Mapping[str, str] = {**OWN_LIMITS, "statement_timeout": f"{VACUUM_SECONDS:g}s"}


@attrs.define(eq=False)
class Cleaner:
    """Vacuums the queues of a worker, as soon as they are mostly dead rows.

    Postgres' own vacuum comes once a minute at most: at 20,000 messages a second the table of a
    queue has grown to 700 MB by then, and every statement has more to step over. Nothing is asked
    of the database until this worker has done enough to be worth it.
    """

    _queues: Sequence[str]
    _config: VacuumConfig
    _database: DatabaseConfig
    _worked: Callable[[], int]
    """How many messages the worker has settled so far."""
    _rests: dict[str, Backoff] = attrs.field(factory=dict, init=False)
    _rest_until: dict[str, float] = attrs.field(factory=dict, init=False)
    """When to try again a queue in which the last vacuum was of no use."""
    _refused: set[str] = attrs.field(factory=set, init=False)
    """Queues of which it was said that this role may not vacuum them."""
    _outage: Outage = attrs.field(
        factory=lambda: Outage(log, "queues are not vacuumed, trying again"), init=False
    )

    async def run(self) -> None:
        """Vacuum what needs it until cancelled."""
        seen = 0
        while True:
            await anyio.sleep(LOOK.total_seconds() * random.uniform(0.75, 1.25))
            worked = self._worked()
            if DEAD_EACH * (worked - seen) < self._config.dead_rows / 2:
                continue
            try:
                await self.look()
            except FAILURES as error:
                self._outage.report(error)
            else:
                seen = worked
                self._outage.over()

    async def look(self) -> None:
        """Vacuum what needs it now, on a connection for as long as that takes."""
        # Not a line: behind a pooler each of its calls is a transaction, where none may vacuum.
        connection = await open_connection(
            self._database, "cleaner", CLEANER_SETTINGS, call_seconds=VACUUM_SECONDS
        )
        try:
            store = Store(connection)
            for row in await store.dead_rows(self._queues, self._config.dead_rows):
                if await self._is_to_be_done(store, row):
                    await self._vacuum(store, row["queue"], row["dead_rows"])
            await connection.close(timeout=1)
        finally:
            connection.terminate()

    async def _is_to_be_done(self, store: Store, row: Record) -> bool:
        queue = row["queue"]
        if row["may_vacuum"]:
            is_of_use = monotonic() >= self._rest_until.get(queue, 0.0)
            return is_of_use and await store.take_turn(f"vacuum {queue}", LOOK)
        if queue not in self._refused:
            self._refused.add(queue)
            log.debug("this role may not vacuum, autovacuum has to", queue=queue)
        return False

    async def _vacuum(self, store: Store, queue: str, dead: int) -> None:
        began_at = monotonic()
        await store.vacuum(queue)
        seconds = monotonic() - began_at
        left = sum(row["dead_rows"] for row in await store.dead_rows([queue], 0))
        log.debug("vacuumed", queue=queue, dead_rows=dead, left=left, seconds=round(seconds, 2))
        if left <= dead / 2:
            self._rests.pop(queue, None)
            return
        # An old transaction keeps them, whatever is done; `pgtasks doctor` says which.
        rest = self._rests.setdefault(queue, Backoff(LONGEST_REST_SECONDS, first_seconds=20.0))
        self._rest_until[queue] = monotonic() + LOOK.total_seconds() + rest.next_seconds()
