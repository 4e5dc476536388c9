"""What a row of a queue or of its archive says, as the commands print it."""

import json
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from pgtasks.errors import DecodeError
from pgtasks.message import State, read_envelope, read_state

if TYPE_CHECKING:
    from pgtasks.store import Record

_DEEPEST = 200
_ARGS_START = '{"args": '  # how Postgres writes the shortest key of a message: first


def waiting(row: "Record") -> dict[str, Any]:
    """What a listing says of a message that is in the queue."""
    state = _state(row["headers"])
    return _common(row) | {
        "state": _state_of(row["is_due"], row["read_ct"], state),
        "visible_at": row["vt"],
        "failures": state.failures,
    }


def ended(row: "Record") -> dict[str, Any]:
    """What a listing says of an archived message."""
    ours = _ours(row["headers"])
    return _common(row) | {
        "state": "archived",
        "outcome": row["outcome"],
        "archived_at": row["archived_at"],
        "attempts": ours.get("attempts"),
        "error": _last_error(ours),
    }


def _common(row: "Record") -> dict[str, Any]:
    return {
        "message_id": row["msg_id"],
        "id": row["id"],
        "task": row["task"],
        "args": _args(row["message"]),
        "enqueued_at": row["enqueued_at"],
        "deliveries": row["read_ct"],
    }


def known_of(queue: str, row: "Record") -> dict[str, Any]:
    """Everything there is to say of one message, wherever it is."""
    state, ours = _state(row["headers"]), _ours(row["headers"])
    is_archived = row["place"] == "archive"
    known: dict[str, Any] = {
        "queue": queue,
        "message_id": row["msg_id"],
        **_envelope(row["message"]),
        "state": "archived" if is_archived
        else _state_of(row["is_due"], row["read_ct"], state),
        "enqueued_at": row["enqueued_at"],
        "visible_at": None if is_archived else row["vt"],
        "last_leased_at": row["last_read_at"],
        "deliveries": row["read_ct"],
        "failures": state.failures,
        "snoozes": state.snoozes,
        "releases": state.releases,
        "unknown": state.unknown,
        "elsewhere": state.elsewhere,
        "crashes": state.crashes,
        "redrives": state.redrives,
        "options": state.options,
        "errors": list(state.errors),
    }  # fmt: skip
    if is_archived:
        known["archived_at"] = row["archived_at"]
        for key in ("outcome", "attempts", "seconds", "worker", "reason"):
            known[key] = ours.get(key)
    return known


def _envelope(body: str | None) -> dict[str, Any]:
    try:
        envelope = read_envelope(body)
    except DecodeError:
        return {"id": None, "task": None, "args": None, "foreign": body}
    return {
        "id": str(envelope.metadata.id),
        "task": envelope.metadata.worker_name,
        "args": _parsed(bytes(envelope.args).decode()),
    }


def _state_of(is_due: bool, delivery: int, state: State) -> str:
    if is_due:
        return "due"
    if delivery == 0:
        return "delayed"
    # Each delivery that ended was counted as something; one that was not is still out.
    return "leased" if delivery > state.ended else "retrying"


def _state(headers: str | None) -> State:
    return State() if headers is None else read_state(headers)


def _ours(headers: str | None) -> dict[str, Any]:
    try:
        ours = json.loads(headers or "{}")["pgtasks"]
    except (ValueError, KeyError, TypeError):
        return {}
    return ours if isinstance(ours, dict) else {}


def _last_error(ours: dict[str, Any]) -> str | None:
    errors = ours.get("errors")
    last = errors[-1] if isinstance(errors, list) and errors else None
    error = last.get("error") if isinstance(last, dict) else ours.get("reason")
    return None if error is None else str(error)


def _args(body: str | None) -> Any:
    """The arguments; as text when the message is too long to be listed whole."""
    whole = None if body is None else _parsed(body)
    if isinstance(whole, dict):
        return whole.get("args")
    if isinstance(whole, str) and whole == body:
        return f"{body.removeprefix(_ARGS_START)}..."
    return whole


def _parsed(text: str) -> Any:
    """What JSON says; the text itself when it was cut, or is too deep or long for Python."""
    steps = ((char in "[{") - (char in "]}") for char in text)
    if max(accumulate(steps), default=0) > _DEEPEST:
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text
