"""Call: what is stored of calls of a task, beside their arguments."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import attrs

from pgtasks.store import Executor, Store

_NO_DELAY = timedelta(0)


@attrs.frozen
class Call:
    """Which task is called, in which queue its messages are stored, and when they are to run."""

    task: str
    queue: str
    headers: str | None = None
    delay: timedelta = _NO_DELAY
    at: datetime | None = None
    connection: Executor | None = None
    """The caller's own, in whose transaction the messages are stored."""

    def is_due_as(self, other: "Call") -> bool:
        """Tell whether another call's messages have the same headers and become due alike."""
        mine = (self.headers, self.delay, self.at)
        return mine == (other.headers, other.delay, other.at)

    async def store(self, store: Store, bodies: Sequence[str], *, notify: bool) -> list[int]:
        """Store messages of it in one statement; return their numbers in order."""
        said = self.headers, self.delay, self.at
        if len(bodies) == 1:
            return [await store.send(self.queue, bodies[0], *said, notify=notify)]
        return await store.send_many(self.queue, bodies, *said, notify=notify)
