"""The one rule for the names of queues; sql/migrations/0001_initial.sql states the same."""

import re

from pgtasks.errors import QueueNameError

MAX_LENGTH = 47
RESERVED = frozenset({"periodic"})  # Roadster keeps its schedules in a queue of this name

_VALID = re.compile(r"[a-z][a-z0-9_]{0,46}", re.ASCII)


def is_queue_name(name: str) -> bool:
    """Tell whether `name` can be the name of a queue."""
    return _VALID.fullmatch(name) is not None and name not in RESERVED


def check_queue_name(name: str) -> str:
    """Return `name` if it can be the name of a queue.

    Raises:
        QueueNameError: it cannot; the text says why, and a name near it that can.
    """
    if not isinstance(name, str):
        raise QueueNameError(f"the name of a queue is a string, not {type(name).__name__}")
    if is_queue_name(name):
        return name
    shown = repr(name if len(name) <= 60 else name[:60] + "…")
    if name in RESERVED:
        raise QueueNameError(
            f"{shown} cannot be the name of a queue: Roadster keeps its schedules under it; "
            "choose another name"
        )
    near = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_0123456789")[:MAX_LENGTH]
    raise QueueNameError(
        f"{shown} cannot be the name of a queue: use 1 to {MAX_LENGTH} of a-z, 0-9 and _, "
        f"starting with a letter, for example {near if is_queue_name(near) else 'emails'!r}"
    )
