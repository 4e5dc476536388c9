"""`pgtasks message`."""

import json as json_
import textwrap
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from cyclopts import App, Parameter

from pgtasks.cli.help import MESSAGES
from pgtasks.cli.options import NOTHING_GIVEN, Json, Source, whole
from pgtasks.cli.output import moment, print_json, print_pairs, print_table, say, when
from pgtasks.cli.rows import ended, known_of, waiting
from pgtasks.errors import ArgumentError, PgtasksError

app = App(name="message", help="Look at messages.", help_epilogue="", group=MESSAGES)

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
        json: Print JSON, for programs.
        source: The settings.
    """
    from pgtasks.cli.session import known_queue, open_session

    number = whole("--limit", limit, 1, _ALL)
    async with open_session(source.load()) as session:
        store = session.store
        await known_queue(store, queue)
        clock: datetime = (await store.server_facts())["clock"]
        if archived or outcome is not None:
            listed = [ended(row) for row in await store.list_archived(queue, number, task, outcome)]
        else:
            listed = [waiting(row) for row in await store.list_messages(queue, number, task)]
    if json:
        print_json(listed)
    elif not listed:
        say(f"no such message in queue {queue}")
    elif archived or outcome is not None:
        heads = ("MESSAGE", "OUTCOME", "ENDED", "TASK", "ATTEMPTS", "ERROR")
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
        json: Print JSON, for programs.
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
    found = known_of(queue, row)
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


def _waiting_row(one: Mapping[str, Any], clock: datetime) -> tuple[object, ...]:
    due = when(one["visible_at"], clock)
    return one["message_id"], one["state"], due, one["task"], one["failures"], _brief(one["args"])


def _ended_row(one: Mapping[str, Any], clock: datetime) -> tuple[object, ...]:
    ago = when(one["archived_at"], clock)
    return one["message_id"], one["outcome"], ago, one["task"], one["attempts"], one["error"]


def _brief(args: Any) -> str:
    return args if isinstance(args, str) else json_.dumps(args, ensure_ascii=False)


def _print_message(found: Mapping[str, Any], clock: datetime) -> None:
    print_pairs(_facts(found, clock))
    if "foreign" in found:
        foreign = "NULL" if found["foreign"] is None else found["foreign"]
        _print_block("not a message of pgtasks", foreign)
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
        "enqueued": f"{moment(found['enqueued_at'])} ({when(found['enqueued_at'], clock)})",
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
        yield f"{when(found['archived_at'], clock)}, at {moment(found['archived_at'])}"
        return
    words = {"due": "due", "delayed": "delayed, due", "leased": "leased, to run out",
             "retrying": "waits to be tried again"}  # fmt: skip
    yield words[found["state"]]
    yield f"{when(found['visible_at'], clock)}, at {moment(found['visible_at'])}"


def _print_block(head: str, text: str) -> None:
    say(f"\n{head}\n{textwrap.indent(text, '  ')}")
