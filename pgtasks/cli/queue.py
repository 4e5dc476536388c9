"""`pgtasks queue`."""

from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from pgtasks.cli.help import MESSAGES
from pgtasks.cli.options import NOTHING_GIVEN, Json, Source
from pgtasks.cli.output import print_json, print_table, say, span
from pgtasks.layout import layout_of
from pgtasks.queue_name import check_queue_name, is_queue_name

if TYPE_CHECKING:
    from pgtasks.store import Store

app = App(name="queue", help="List and create queues.", help_epilogue="", group=MESSAGES)


@app.command(name="list")
async def list_queues(*, json: Json = False, source: Source = NOTHING_GIVEN) -> None:
    """List the queues, and how much waits in each.

    DUE can be run now, DELAYED is not due yet, LEASED is running or waits to be tried again,
    ARCHIVED has ended, OLDEST says how long the oldest due message has been due. ITS TABLES says
    how another program's pgmq made them, where pgtasks would have made others.

    For example:
      pgtasks queue list --json | jq '.[] | select(.due > 1000) | .queue'

    Args:
        json: Print JSON, for programs.
        source: The settings.
    """
    from pgtasks.cli.session import open_session

    async with open_session(source.load()) as session:
        store = session.store
        queues = [await counted(store, queue) for queue in await store.list_queues()]
    if json:
        print_json(queues)
    elif not queues:
        say("there are no queues yet; workers create those of their tasks")
    else:
        titles = ["QUEUE", "DUE", "DELAYED", "LEASED", "ARCHIVED", "OLDEST"]
        # Only a pgmq of others makes such tables: most people never see this column.
        if any(queue["differs"] for queue in queues):
            titles.append("ITS TABLES")
        print_table(titles, [_row(queue)[: len(titles)] for queue in queues])


@app.command
async def create(
    name: Annotated[str, Parameter(name="NAME")], /, *, source: Source = NOTHING_GIVEN
) -> None:
    """Create a queue, for workers whose role may not.

    For example:
      pgtasks queue create emails

    Args:
        name: 1 to 47 of a-z, 0-9 and _, starting with a letter.
        source: The settings.
    """
    from pgtasks.cli.session import open_session

    check_queue_name(name)
    async with open_session(source.load()) as session:
        created = await session.store.create_queue(name)
    say(f"created {name}" if created else f"{name} exists already")


async def counted(store: "Store", queue: str) -> dict[str, Any]:
    """How much is in a queue; None for all of it when it is not one that pgtasks can read."""
    import asyncpg

    nothing = dict.fromkeys(
        ("due", "delayed", "leased_or_retrying", "archived", "oldest_due_seconds")
    )
    unusable: dict[str, Any] = {"queue": queue, **nothing, "differs": []}
    if not is_queue_name(queue):
        return unusable
    try:
        counts = dict(await store.queue_counts(queue))
    except asyncpg.UndefinedTableError:
        return unusable
    return {"queue": queue, **counts, "differs": layout_of(queue).differences}


def _row(queue: dict[str, Any]) -> tuple[object, ...]:
    oldest = queue["oldest_due_seconds"]
    return (
        *(queue[key] for key in ("queue", "due", "delayed", "leased_or_retrying", "archived")),
        None if oldest is None else span(oldest),
        ", ".join(queue["differs"]) or None,
    )
