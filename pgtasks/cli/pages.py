"""How messages look on a terminal: what has ended as a list, and one message as a page."""

import json as json_
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from cyclopts import Parameter

from pgtasks.cli.options import Source
from pgtasks.cli.output import moment, print_pairs, print_table, say, when
from pgtasks.errors import ArgumentError

Queue = Annotated[str, Parameter(name="QUEUE")]


def read_id(text: str) -> tuple[int | None, str | None]:
    """A message's number in its queue, or its own id.

    Raises:
        ArgumentError: it is neither.
    """
    if text.isascii() and text.isdecimal() and int(text) < 2**64:
        # Roadster's ids may be numbers, too; none of ours is so large that it does not fit a row's.
        return (int(text), None) if int(text) < 2**63 else (None, text)
    try:
        return None, str(UUID(text))
    except ValueError:
        raise ArgumentError(
            f"{text!r} is neither the number of a message nor its id (a UUID); "
            "`pgtasks message list` shows them"
        ) from None


async def find_message(source: Source, queue: str, message: str) -> tuple[Any, datetime]:
    """The row of one message, None when there is none, and the time by the server's clock.

    Raises:
        ArgumentError: no message can be called so.
        UnknownQueueError: there is no such queue.
    """
    from pgtasks.cli.session import known_queue, open_session

    number, own_id = read_id(message)
    async with open_session(source.load()) as session:
        await known_queue(session.store, queue)
        clock: datetime = (await session.store.server_facts())["clock"]
        return await session.store.find_message(queue, number, own_id), clock


def print_ended(listed: Sequence[Mapping[str, Any]], clock: datetime) -> None:
    """Print a table of archived messages."""
    heads = ("MESSAGE", "OUTCOME", "ENDED", "TASK", "ATTEMPTS", "ERROR")
    print_table(heads, (_ended_row(one, clock) for one in listed), cut=True)


def _ended_row(one: Mapping[str, Any], clock: datetime) -> tuple[object, ...]:
    ago = when(one["archived_at"], clock)
    return one["message_id"], one["outcome"], ago, one["task"], one["attempts"], one["error"]


def print_message(found: Mapping[str, Any], clock: datetime) -> None:
    """Print everything that is known of a message."""
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
    counts = ("failures", "snoozes", "releases", "unknown", "elsewhere", "crashes", "redrives")
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
