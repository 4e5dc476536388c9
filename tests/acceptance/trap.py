"""Trap: catches a connection in the middle of a statement."""

import asyncio
import re
from collections.abc import Iterable

import attrs
from acceptance.proxy import Link

STATEMENTS = {
    "claim": b"-- Claim up to",
    "archive": b"by moving their messages",
    "complete": b"by deleting their messages",
    "retry": b"by making their messages due",
    "commit": b"COMMIT",
}
"""Words of each statement's text, by what it does."""


@attrs.define(eq=False)
class Trap:
    """Holds the connection on which a statement passes, before it arrives or when it is done."""

    statement: bytes
    is_done: bool
    caught: asyncio.Event = attrs.field(factory=asyncio.Event)
    _seen: dict[Link, int] = attrs.field(factory=dict)

    def set(self, links: Iterable[Link]) -> None:
        """Note what has passed already."""
        self._seen = {link: self._count(link) for link in links}

    def holds(self, link: Link, is_answer: bool) -> bool:
        """Tell whether nothing more may pass."""
        is_sent = self._count(link) > self._seen.get(link, 0)
        if is_sent and is_answer is self.is_done:
            self.caught.set()
        return is_sent and is_answer is self.is_done

    def _count(self, link: Link) -> int:
        """How often it was sent: the text comes once, and then only the name of what it became."""
        text = re.escape(self.statement)
        named = re.search(rb"(__asyncpg_stmt_[0-9a-f]+__)\0[^\0]*" + text, link.asked)
        return link.asked.count(self.statement if named is None else named[1])
