"""Assignment: what a supervisor tells a child to do, and the lines they exchange."""

from typing import Any

import attrs
import msgspec

from pgtasks.board import Entry
from pgtasks.config import Config
from pgtasks.plan import ALONE, Place

_encoder = msgspec.json.Encoder()


@attrs.frozen
class Assignment:
    """All a child needs to know; it reads no configuration of its own."""

    tasks: tuple[str, ...]
    config: Config
    queues: tuple[str, ...] | None
    embedded_folder: str | None
    """The project folder whose embedded server the child holds up too, beside its supervisor."""
    alone: tuple[Entry, ...] = ()
    """What to run apart from all other messages, instead of fetching any."""
    is_together: bool = False
    """Not one by one, but as many at a time as there are slots."""
    place: Place = ALONE
    lent: dict[str, int] = attrs.field(factory=dict)
    """By queue: how many of its slots are left to messages that run alone, in other children."""


def to_line(value: Any) -> bytes:
    """Return a value as one line for the other side."""
    return _encoder.encode(value) + b"\n"


def read_assignment(line: bytes) -> Assignment:
    """Read what `to_line` made of an assignment."""
    return msgspec.json.decode(line, type=Assignment)


def read_line(line: bytes) -> dict[str, Any]:
    """Read any other line."""
    told: dict[str, Any] = msgspec.json.decode(line)
    return told
