"""`pgtasks message`."""

import json as json_
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

from cyclopts import App, Parameter

from pgtasks.cli.help import MESSAGES
from pgtasks.cli.options import NOTHING_GIVEN, Json, Source, whole
from pgtasks.cli.output import print_json, print_table, say, when
from pgtasks.cli.pages import Queue, find_message, print_ended, print_message
from pgtasks.cli.rows import ended, known_of, waiting
from pgtasks.errors import PgtasksError
from pgtasks.filter import Filter

app = App(name="message", help="Look at messages.", help_epilogue="", group=MESSAGES)

_ALL = 10_000


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
            meant = Filter(task=task, outcome=outcome)
            listed = [ended(row) for row in await store.list_archived(queue, number, meant)]
        else:
            listed = [waiting(row) for row in await store.list_messages(queue, number, task)]
    if json:
        print_json(listed)
    elif not listed:
        say(f"no such message in queue {queue}")
    elif archived or outcome is not None:
        print_ended(listed, clock)
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
    row, clock = await find_message(source, queue, message)
    if row is None:
        raise PgtasksError(
            f"there is no message {message} in queue {queue}, neither waiting nor archived: done "
            "ones are deleted unless their task says otherwise, see on-success"
        )
    found = known_of(queue, row)
    print_json(found) if json else print_message(found, clock)


def _waiting_row(one: Mapping[str, Any], clock: datetime) -> tuple[object, ...]:
    due = when(one["visible_at"], clock)
    return one["message_id"], one["state"], due, one["task"], one["failures"], _brief(one["args"])


def _brief(args: Any) -> str:
    return args if isinstance(args, str) else json_.dumps(args, ensure_ascii=False)
