"""Message: one leased row, and what is known of its past runs."""

import os
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple
from uuid import UUID

import attrs
import msgspec

from pgtasks.errors import DecodeError

VERSION = 1
"""Of what we write into messages. A newer pgtasks gives another one to a message that we could not
run as it is meant."""
MAX_ERRORS = 5
"""How many errors of past attempts travel with a message."""


# Not an attrs class, which is frozen too, and made in 0.5 µs: this is in 0.1, for each message of
# `defer_many`. A UUID takes 1 µs to make, and few are asked for.
class Handle(msgspec.Struct, frozen=True, gc=False):
    """What `defer` gives back: which message was stored, and where."""

    id_text: str
    """Its id as text, as it stands in the message."""
    queue: str
    message_id: int

    @property
    def id(self) -> UUID:
        """The id of the message, whatever becomes of its row: a UUID of version 7."""
        return UUID(self.id_text)


@attrs.frozen
class State:
    """What pgtasks remembers of a message's past runs, kept in its headers.

    Deliveries are counted by the database (`read_ct`); these are the ones of them that ended in
    a known way, so that what is left over was a crash.
    """

    failures: int = 0
    snoozes: int = 0
    releases: int = 0
    unknown: int = 0
    crashes: int = 0
    errors: tuple[dict[str, Any], ...] = ()
    options: dict[str, Any] = attrs.field(factory=dict)
    """What `.options()` said of this one message's retries, timeout and ending."""
    schedule: dict[str, Any] = attrs.field(factory=dict)
    """The name of the schedule that sent it, and the tick it was sent for."""
    redrives: int = 0
    """How often it was put back from the archive; the other counts began anew then."""
    elsewhere: int = 0
    """Deliveries that were put down to other programs, which write no end of them down."""
    version: int = 0
    """What a reader has to understand; 0 is not said, and as good as 1."""
    rest: dict[str, msgspec.Raw] = attrs.field(factory=dict)
    """What a newer pgtasks keeps beside these: it stays, through attempts of ours as well."""

    @property
    def is_readable(self) -> bool:
        """Whether we know what it means."""
        return self.version <= VERSION

    @property
    def ended(self) -> int:
        """How many deliveries ended in a known way."""
        return self.failures + self.snoozes + self.releases + self.unknown + self.elsewhere

    def with_error(self, error: dict[str, Any]) -> "State":
        """Return this state with one more error, the oldest dropped when there are too many."""
        return attrs.evolve(self, errors=(*self.errors, error)[-MAX_ERRORS:])

    def as_dict(self, **more: Any) -> dict[str, Any]:
        """Return what is stored: only what is not at its default, and `more`."""
        known = {name: getattr(self, name) for name in _KEPT if getattr(self, name)}
        return {**self.rest, **known, **more}


_COUNTS = ("failures", "snoozes", "releases", "unknown", "crashes", "redrives", "elsewhere")
_KEPT = (*_COUNTS, "errors", "options", "schedule", "version")
_KNOWN = frozenset((*_KEPT, "outcome", "attempts", "seconds", "worker", "reason"))
NEW = State()


class Held(NamedTuple):
    """A row that a lease is for.

    Its number alone does not tell which row it is: a standby that takes over gives numbers anew
    that it had not seen.
    """

    message_id: int
    enqueued_epoch: float
    """When it was stored, as a claim tells it."""


# Not an attrs class, which is frozen too, and made in 1.1 µs: this is in 0.06, for each message.
class Message(msgspec.Struct, frozen=True, gc=False):
    """One leased row: the lease is `(held, delivery)`."""

    queue: str
    message_id: int
    delivery: int
    enqueued_epoch: float
    """When it was stored, by the database's clock, in seconds since 1970."""
    body: str | None
    headers: str | None
    claimed_at: float
    """The local monotonic clock just before the claim was sent: the lease is no older."""

    @property
    def held(self) -> Held:
        """Which row it is."""
        return Held(self.message_id, self.enqueued_epoch)

    @property
    def enqueued_at(self) -> datetime:
        """When it was stored, by the database's clock."""
        return datetime.fromtimestamp(self.enqueued_epoch, UTC)

    @property
    def state(self) -> State:
        """What is remembered of past runs; a fresh state when the headers are not ours."""
        return NEW if self.headers is None else read_state(self.headers)

    @property
    def unexplained(self) -> int:
        """How many earlier deliveries never ended: crashes, and reads by foreign clients."""
        return max(0, self.delivery - 1 - self.state.ended)


class _Metadata(msgspec.Struct, gc=False):
    id: UUID | int
    worker_name: str


class Envelope(msgspec.Struct, gc=False):
    """The message as it is stored, in the form the Roadster framework uses too."""

    metadata: _Metadata
    args: msgspec.Raw = msgspec.Raw(b"null")


_envelope = msgspec.json.Decoder(Envelope)
_headers = msgspec.json.Decoder(dict[str, msgspec.Raw])
_state = msgspec.json.Decoder(dict[str, Any])
_raw_state = msgspec.json.Decoder(dict[str, msgspec.Raw])
_encoder = msgspec.json.Encoder()
_HEAD = '{"metadata":{"id":"'


def read_envelope(body: str | None) -> Envelope:
    """Return the envelope of a stored message.

    Raises:
        DecodeError: the message is not in the form of an envelope.
    """
    if body is None:
        raise DecodeError("the message is NULL; it needs metadata.worker_name and args")
    try:
        return _envelope.decode(body)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise DecodeError(f"the message is not an envelope of metadata and args: {error}") from None


def write_envelope(message_id: UUID, task: str, args: bytes) -> str:
    """Return the stored form of a call: its id, its task's name and its encoded arguments."""
    return f"{_HEAD}{message_id}{_middle(task)}{args.decode()}}}"


def write_envelopes(task: str, many_args: Sequence[bytes]) -> tuple[list[str], list[str]]:
    """Return fresh ids for many calls of a task, as text, and the stored form of each."""
    texts, middle = _new_texts(len(many_args)), _middle(task)
    bodies = [
        f"{_HEAD}{text}{middle}{args.decode()}}}"
        for text, args in zip(texts, many_args, strict=True)
    ]
    return texts, bodies


@lru_cache(maxsize=1024)
def _middle(task: str) -> str:
    return f'","worker_name":{_encoder.encode(task).decode()}}},"args":'


def read_state(headers: str) -> State:
    """Return the state in a message's headers; what is not as we wrote it counts as absent."""
    try:
        raw = _headers.decode(headers)["pgtasks"]
        ours = _state.decode(raw)
        rest = {} if ours.keys() <= _KNOWN else _raw_state.decode(raw)
    except (msgspec.MsgspecError, KeyError, RecursionError, ValueError):
        return NEW
    counts = {name: ours[name] for name in (*_COUNTS, "version") if _is_count(ours.get(name))}
    errors = ours.get("errors")
    kept = tuple(e for e in errors if isinstance(e, dict)) if isinstance(errors, list) else ()
    return State(
        **counts,
        errors=kept[-MAX_ERRORS:],
        options=_dict(ours.get("options")),
        schedule=_dict(ours.get("schedule")),
        rest={name: value for name, value in rest.items() if name not in _KNOWN},
    )


def write_state(state: dict[str, Any]) -> str:
    """Return the stored form of a state."""
    return _encoder.encode(state).decode()


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**31


def new_id() -> UUID:
    """Return a fresh UUID of version 7 (RFC 9562): ordered by the millisecond it was made in."""
    [text] = _new_texts(1)
    return UUID(text)


_VARIANT = {digit: "89ab"[int(digit, 16) & 0b11] for digit in "0123456789abcdef"}


def _new_texts(count: int) -> list[str]:
    """Fresh ids as text, in a sixth of the time that it takes to make UUIDs and ask for theirs."""
    time_ = f"{time.time_ns() // 1_000_000 & (1 << 48) - 1:012x}"
    head, noise = f"{time_[:8]}-{time_[8:]}-7", os.urandom(10 * count).hex()
    return [
        f"{head}{noise[at : at + 3]}-{_VARIANT[noise[at + 3]]}{noise[at + 4 : at + 7]}-"
        f"{noise[at + 7 : at + 19]}"
        for at in range(0, 20 * count, 20)
    ]
