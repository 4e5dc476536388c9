"""`pgtasks message`."""

import json as json_
import textwrap
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from cyclopts import App, Parameter

from pgtasks.cli.options import NOTHING_GIVEN, Json, Source, whole
from pgtasks.cli.output import moment, print_json, print_pairs, print_table, say, span
from pgtasks.errors import ArgumentError, DecodeError, PgtasksError
from pgtasks.message import State, read_envelope, read_state

app = App(name="message", help="Look at messages.", help_epilogue="")

_ARGS_START = '{"args": '  # how Postgres writes the shortest key of a message: first
_ALL = 10_000

Queue = Annotated[str, Parameter(name="QUEUE")]


@app.command(name="list")
async def list_messages(
    queue: Queue,
    /,
    *,
    archived: bool = False,
    task: Annotated[str | None, Parameter(metavar="NAME")] = None,
    outcome: Annotated[str | None, Parameter(metavar="WORD")] = None,
    limit: Annotated[str, Parameter(metavar="N")] = "20",
    json: Json = False,
    source: Source = NOTHING_GIVEN,
) -> None:
    """List what waits in a queue or is leased, the next due first; or what has ended.

    For example:
      pgtasks message list emails
      pgtasks message list emails --archived --outcome failed --limit 100

    Args:
        queue: The queue.
        archived: What has ended, the latest first.
        task: Only messages of this task.
        outcome: Only archived ones with this outcome: done, failed, discarded, undecodable
            or crashed.
        limit: How many, at most; 20.
        source: The settings.
    """
    from pgtasks.cli.session import known_queue, open_session

    number = whole("--limit", limit, 1, _ALL)
    async with open_session(source.load()) as session:
        store = session.store
        await known_queue(store, queue)
        clock: datetime = (await store.server_facts())["clock"]
        if archived or outcome is not None:
            listed = [_ended(row) for row in await store.list_archived(queue, number, task, outcome)]
        else:
            listed = [_waiting(row) for row in await store.list_messages(queue, number, task)]
    if json:
        print_json(listed)
    elif not listed:
        say(f"no such message in queue {queue}")
    elif archived or outcome is not None:
        heads = ("MESSAGE", "OUTCOME", "ENDED", "TASK", "ATTEMPTS", "ARGS")
        print_table(heads, (_ended_row(one, clock) for one in listed), cut=True)
    else:
        heads = ("MESSAGE", "STATE", "DUE", "TASK", "FAILURES", "ARGS")
        print_table(heads, (_waiting_row(one, clock) for one in listed), cut=True)


@app.command
async def show(
    queue: Queue,
    message: Annotated[str, Parameter(name="ID")],
    /,
    *,
    json: Json = False,
    source: Source = NOTHING_GIVEN,
) -> None:
    """Show one message: its arguments, its state, and the errors of its attempts.

    For example:
      pgtasks message show emails 42
      pgtasks message show emails 01890a5d-ac96-774b-bcce-b302099a8057

    Args:
        queue: The queue.
        message: Its number in the queue, or its own id.
        source: The settings.
    """
    from pgtasks.cli.session import known_queue, open_session

    number, own_id = read_id(message)
    async with open_session(source.load()) as session:
        store = session.store
        await known_queue(store, queue)
        clock: datetime = (await store.server_facts())["clock"]
        row = await store.find_message(queue, number, own_id)
    if row is None:
        raise PgtasksError(
            f"there is no message {message} in queue {queue}, neither waiting nor archived: done "
            "ones are deleted unless their task says otherwise, see on-success"
        )
    found = _whole(queue, row)
    print_json(found) if json else _print_message(found, clock)


def read_id(text: str) -> tuple[int | None, str | None]:
    """A message's number in its queue, or its own id.

    Raises:
        ArgumentError: it is neither.
    """
    if text.isascii() and text.isdecimal() and int(text) < 2**63:
        return int(text), None
    try:
        return None, str(UUID(text))
    except ValueError:
        raise ArgumentError(
            f"{text!r} is neither the number of a message nor its id (a UUID); "
            "`pgtasks message list` shows them"
        ) from None


# What is known of a row


def _waiting(row: Mapping[str, Any]) -> dict[str, Any]:
    state = _state(row["headers"])
    return _common(row) | {
        "state": _state_of(row["is_due"], row["read_ct"], state),
        "visible_at": row["vt"],
        "failures": state.failures,
    }


def _ended(row: Mapping[str, Any]) -> dict[str, Any]:
    return _common(row) | {
        "state": "archived",
        "outcome": row["outcome"],
        "archived_at": row["archived_at"],
        "attempts": _ours(row["headers"]).get("attempts"),
    }


def _common(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "message_id": row["msg_id"],
        "id": row["id"],
        "task": row["task"],
        "args": _args(row["message"]),
        "enqueued_at": row["enqueued_at"],
        "deliveries": row["read_ct"],
    }


def _whole(queue: str, row: Mapping[str, Any]) -> dict[str, Any]:
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
        "crashes": state.crashes,
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
        "args": json_.loads(bytes(envelope.args)),
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
        ours = json_.loads(headers or "{}")["pgtasks"]
    except (ValueError, KeyError, TypeError):
        return {}
    return ours if isinstance(ours, dict) else {}


def _args(body: str | None) -> Any:
    """The arguments; as text when the message is too long to be listed whole."""
    if body is None:
        return None
    try:
        whole_body = json_.loads(body)
    except ValueError:
        return f"{body.removeprefix(_ARGS_START)}..."
    return whole_body.get("args") if isinstance(whole_body, dict) else whole_body


# For people


def _waiting_row(one: Mapping[str, Any], clock: datetime) -> tuple[object, ...]:
    due = _when(one["visible_at"], clock)
    return one["message_id"], one["state"], due, one["task"], one["failures"], _brief(one["args"])


def _ended_row(one: Mapping[str, Any], clock: datetime) -> tuple[object, ...]:
    ended = _when(one["archived_at"], clock)
    return (
        one["message_id"], one["outcome"], ended, one["task"], one["attempts"],
        _brief(one["args"]),
    )  # fmt: skip


def _when(at: datetime, clock: datetime) -> str:
    seconds = (at - clock).total_seconds()
    return f"in {span(seconds)}" if seconds > 0 else f"{span(-seconds)} ago"


def _brief(args: Any) -> str:
    return args if isinstance(args, str) else json_.dumps(args, ensure_ascii=False)


def _print_message(found: Mapping[str, Any], clock: datetime) -> None:
    print_pairs(_facts(found, clock))
    if "foreign" in found:
        _print_block("not a message of pgtasks", str(found["foreign"]))
    else:
        _print_block("args", json_.dumps(found["args"], indent=2, ensure_ascii=False))
    for error in found["errors"]:
        head = f"attempt {error.get('attempt')}, {error.get('at')}, {error.get('worker')}"
        _print_block(head, str(error.get("traceback") or error.get("error")))


def _facts(found: Mapping[str, Any], clock: datetime) -> dict[str, object]:
    counts = ("failures", "snoozes", "releases", "unknown", "crashes")
    facts: dict[str, object] = {
        "message": f"{found['message_id']} in queue {found['queue']}",
        "id": found["id"],
        "task": found["task"],
        "state": " ".join(_state_words(found, clock)),
        "reason": found.get("reason"),
        "enqueued": f"{moment(found['enqueued_at'])} ({_when(found['enqueued_at'], clock)})",
        "deliveries": found["deliveries"],
        **{name: found[name] for name in counts if found[name]},
        "attempts": found.get("attempts"),
        "options": json_.dumps(found["options"]) if found["options"] else None,
        "worker": found.get("worker"),
    }
    if found.get("seconds") is not None:
        facts["last run"] = f"took {found['seconds']} s"
    return facts


def _state_words(found: Mapping[str, Any], clock: datetime) -> Iterator[str]:
    if found["state"] == "archived":
        yield f"archived as {found['outcome'] or 'is, not by pgtasks'}"
        yield f"{_when(found['archived_at'], clock)}, at {moment(found['archived_at'])}"
        return
    words = {"due": "due", "delayed": "delayed, due", "leased": "leased, to run out",
             "retrying": "waits to be tried again"}  # fmt: skip
    yield words[found["state"]]
    yield f"{_when(found['visible_at'], clock)}, at {moment(found['visible_at'])}"


def _print_block(head: str, text: str) -> None:
    say(f"\n{head}\n{textwrap.indent(text, '  ')}")
