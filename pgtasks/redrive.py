"""Redrive: puts archived messages back into their queue, where they begin anew."""

from collections.abc import AsyncIterator
from datetime import timedelta

import attrs

from pgtasks.filter import Filter
from pgtasks.store import OLDEST, Record, Store

BATCH = 1_000


@attrs.frozen
class Redrive:
    """The archived messages of a queue that are meant, and the way back for them.

    Only what was archived before this began is ever found: what fails again at once, and is
    archived again meanwhile, is not put back for a second time.
    """

    queue: str
    meant: Filter
    _store: Store

    async def find(self, limit: int) -> AsyncIterator[list[Record]]:
        """Give up to `limit` of them, the first archived first, some at a time."""
        until, after = await self._until(), OLDEST
        while limit > 0:
            size = min(limit, BATCH)
            rows = await self._store.find_archived(
                self.queue, size, self.meant, after=after, until=until
            )
            if rows:
                yield rows
            if len(rows) < size:
                return
            limit -= size
            after = rows[-1]["archived_at"], rows[-1]["msg_id"]

    async def put_back(
        self, rows: list[Record], delay: timedelta, *, notify: bool
    ) -> dict[int, int]:
        """Put these back, all or none, due after a delay; return the number of each, and its new.

        Those that somebody else has taken meanwhile are left out.
        """
        numbers = [row["msg_id"] for row in rows]
        moved = await self._store.redrive(self.queue, numbers, delay, notify=notify)
        return {row["was"]: row["msg_id"] for row in moved}

    async def _until(self) -> str:
        """The moment after which nothing is looked for; who names messages means just those."""
        if self.meant.numbers or self.meant.ids:
            return "infinity"
        return await self._store.moment_ago(timedelta(0))
