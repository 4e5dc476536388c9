"""Layout: how the tables of a queue differ from those that we make, where another program's do."""

import re
from collections.abc import Iterable

import attrs

from pgtasks.errors import SchemaError

EVERY_QUEUE = "*"
"""Stands for the queues that are yet to be made."""


@attrs.frozen
class Layout:
    """What a statement has to know of the tables of a queue."""

    is_wide: bool = True
    """They have the column last_read_at, as pgmq's have from 1.10 on."""
    is_partitioned: bool = False
    has_headers: bool = True
    """They have the column headers, as pgmq's have from 1.5 on."""

    @property
    def differences(self) -> list[str]:
        """How they differ from ours, in words."""
        found = {
            "partitioned": self.is_partitioned,
            "without last_read_at": not self.is_wide,
            "without headers": not self.has_headers,
        }
        return [words for words, holds in found.items() if holds]

    def __and__(self, other: "Layout") -> "Layout":
        """Return the layout whose statements work on tables of either."""
        return Layout(
            is_wide=self.is_wide and other.is_wide,
            is_partitioned=self.is_partitioned or other.is_partitioned,
            has_headers=self.has_headers and other.has_headers,
        )


# Of the databases that this process has opened. Were there two, with a queue of the same name in
# each, what is said of one is said of the other: that is true of both, if not the whole truth.
_noted: dict[str, Layout] = {}


def note_layouts(found: Iterable[tuple[str, Layout]]) -> bool:
    """Remember layouts that are not the usual one; tell whether anything was news."""
    before = dict(_noted)
    for queue, layout in found:
        _noted[queue] = _noted.get(queue, Layout()) & layout
    return _noted != before


def layout_of(queue: str) -> Layout:
    """Return what is known of the tables of a queue."""
    general = _noted.get(EVERY_QUEUE, Layout())
    return general & _noted.get(queue, Layout())


def check_layout(queue: str) -> None:
    """Make sure that a worker can serve a queue.

    Raises:
        SchemaError: its tables are of a pgmq before 1.5.
    """
    if not layout_of(queue).has_headers:
        raise SchemaError(
            f"the table of the queue {queue!r} has no column headers: a pgmq before 1.5 made it\n"
            f"As its owner: ALTER TABLE pgmq.q_{queue} ADD COLUMN headers jsonb; and the same for "
            f"pgmq.a_{queue}; or serve another queue."
        )


def laid_out(text: str, layout: Layout) -> str:
    """Return a statement as it is for a layout.

    Example:
        `{wide: last_read_at|NULL}` stands for `last_read_at` where there is such a column, and for
        `NULL` where there is not; nothing need be said after the bar.
    """
    holds = {"wide": layout.is_wide, "partitioned": layout.is_partitioned}
    return _CHOICE.sub(lambda found: found[2] if holds[found[1]] else found[3] or "", text)


_CHOICE = re.compile(r"\{(wide|partitioned): ([^|{}]*)(?:\|([^|{}]*))?\}")
