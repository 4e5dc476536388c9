"""`pgtasks archive`."""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final, get_args

import attrs
from cyclopts import App, Group, Parameter

from pgtasks.cli.help import MESSAGES
from pgtasks.cli.options import DELAY, NOTHING_GIVEN, Json, Source, read, whole
from pgtasks.cli.output import print_json, print_table, say
from pgtasks.cli.pages import Queue, find_message, print_ended, print_message, read_id
from pgtasks.cli.rows import ended, known_of
from pgtasks.errors import ArgumentError, PgtasksError
from pgtasks.filter import Filter
from pgtasks.layers import Flag
from pgtasks.queue_name import check_queue_name
from pgtasks.setting_kind import Choice, Duration
from pgtasks.settlement import Outcome

if TYPE_CHECKING:
    from pgtasks.store import Record

app = App(
    name="archive",
    help="Look at what has ended, put it back, prune it.",
    help_epilogue="",
    group=MESSAGES,
)

_LISTED_AT_MOST: Final = 10_000
_MOVED_AT_MOST: Final = 100_000_000
_OUTCOME: Final = Choice((*get_args(Outcome), "none"))
_AGE: Final = Duration("1ms", "36500d")

Limit = Annotated[str | None, Parameter(metavar="LIMIT")]
DryRun = Annotated[bool, Parameter(name="--dry-run")]


@Parameter(name="*", group=Group("Which messages", sort_key=5))
@attrs.frozen
class Sought:
    """Which archived messages a command is for."""

    task: Annotated[str | None, Parameter(metavar="NAME", help="Only those of this task.")] = None
    outcome: Annotated[
        str | None,
        Parameter(
            metavar="WORD",
            help="Only those that ended so: done, failed, discarded, undecodable, crashed; or "
            "none, archived by another program.",
        ),
    ] = None
    since: Annotated[
        str | None, Parameter(metavar="1d", help="Only those that ended within this time.")
    ] = None
    before: Annotated[
        str | None, Parameter(metavar="1h", help="Only those that ended so long ago or earlier.")
    ] = None
    error: Annotated[
        str | None,
        Parameter(metavar="TEXT", help="Only those whose last error has this text in it."),
    ] = None

    def filter(self, messages: Sequence[str] = ()) -> Filter:
        """What is meant, and only these messages where some are named.

        Raises:
            ArgumentError: a value is wrong; the text names its flag.
        """
        named = [read_id(message) for message in messages]
        if self.error is not None and not self.error.strip():
            raise ArgumentError("--error: an empty text is in every error; leave it out")
        return Filter(
            task=self.task,
            outcome=_given(_OUTCOME, "--outcome", self.outcome),
            since=_given(_AGE, "--since", self.since),
            before=_given(_AGE, "--before", self.before),
            error=self.error,
            numbers=tuple(number for number, _ in named if number is not None),
            ids=tuple(own_id for _, own_id in named if own_id is not None),
        )


_ALL: Final = Sought()


def _given(kind: Any, flag: str, text: str | None) -> Any:
    return None if text is None else read(kind, flag, text)


# Looking


@app.command(name="list")
async def list_archived(
    queue: Queue,
    /,
    *,
    sought: Sought = _ALL,
    limit: Annotated[str, Parameter(metavar="N")] = "20",
    json: Json = False,
    source: Source = NOTHING_GIVEN,
) -> None:
    """List what has ended and was archived, the latest first.

    For example:
      pgtasks archive list emails
      pgtasks archive list emails --outcome failed --since 1d --error "timed out"

    Args:
        queue: The queue.
        sought: Which messages.
        limit: How many, at most; 20.
        json: Print JSON, for programs.
        source: The settings.
    """
    from pgtasks.cli.session import known_queue, open_session

    number, meant = whole("--limit", limit, 1, _LISTED_AT_MOST), sought.filter()
    async with open_session(source.load()) as session:
        store = session.store
        await known_queue(store, queue)
        clock: datetime = (await store.server_facts())["clock"]
        listed = [ended(row) for row in await store.list_archived(queue, number, meant)]
    if json:
        print_json(listed)
    elif not listed:
        say(f"no such message in the archive of queue {queue}")
    else:
        print_ended(listed, clock)


@app.command
async def show(
    queue: Queue,
    message: Annotated[str, Parameter(name="ID")],
    /,
    *,
    json: Json = False,
    source: Source = NOTHING_GIVEN,
) -> None:
    """Show one archived message: its arguments, how it ended, and the errors of its attempts.

    For example:
      pgtasks archive show emails 42
      pgtasks archive show emails 01890a5d-ac96-774b-bcce-b302099a8057

    Args:
        queue: The queue.
        message: Its number in the queue, or its own id.
        json: Print JSON, for programs.
        source: The settings.
    """
    row, clock = await find_message(source, queue, message)
    if row is None or row["place"] != "archive":
        where = "it is not archived" if row is None else "it has not ended yet"
        raise PgtasksError(
            f"there is no message {message} in the archive of queue {queue}: {where}; "
            f"see `pgtasks message show {queue} {message}`"
        )
    found = known_of(queue, row)
    print_json(found) if json else print_message(found, clock)


# Putting back


@app.command
async def retry(
    queue: Queue,
    /,
    *messages: Annotated[str, Parameter(name="ID")],
    sought: Sought = _ALL,
    everything: Annotated[bool, Parameter(name="--all")] = False,
    delay: Annotated[str, Parameter(metavar="5s")] = "0s",
    limit: Annotated[str, Parameter(metavar="N")] = "10000",
    dry_run: DryRun = False,
    json: Json = False,
    source: Source = NOTHING_GIVEN,
) -> None:
    """Put messages that were given up back into their queue.

    They begin anew: with a new number and all their retries, but with their own id, arguments,
    options and last errors. Those that are done only come back when --outcome done says so.

    For example:
      pgtasks archive retry emails 42 43
      pgtasks archive retry emails --task shop.tasks.send --error "timed out" --dry-run
      pgtasks archive retry emails --all --delay 10m

    Args:
        queue: The queue.
        messages: Their numbers in the archive, or their own ids.
        sought: Which messages.
        everything: All that were given up, when nothing else says which.
        delay: How long until they are due: 5s, 10m, 1h.
        limit: How many, at most, the first archived first; 10000.
        dry_run: Say what would be put back, and change nothing.
        json: Print JSON, for programs.
        source: The settings.
    """
    from pgtasks.cli.session import known_queue, open_session
    from pgtasks.redrive import Redrive

    meant, due_in = sought.filter(messages), read(DELAY, "--delay", delay)
    most = whole("--limit", limit, 1, _MOVED_AT_MOST)
    if meant.means_all and not everything:
        raise ArgumentError(
            f"this would put back {'all that is done' if meant.means_done else 'all that failed'} "
            "in this queue; name messages or say which (--task, --error, ...), or --all"
        )
    loaded = source.load()
    notify = loaded.config.worker.queue_fetch.notify
    async with open_session(loaded) as session:
        await known_queue(session.store, queue)
        redrive = Redrive(queue, meant, session.store)
        moves = _Moves(queue, meant, due_in, is_dry=dry_run)
        async for rows in redrive.find(most):
            moves.add(rows, {} if dry_run else await redrive.put_back(rows, due_in, notify=notify))
    print_json(moves.as_dict()) if json else moves.say(most)
    moves.check()


@attrs.define(eq=False)
class _Moves:
    """What was put back, or would be."""

    queue: str
    meant: Filter
    delay: timedelta
    is_dry: bool
    kinds: Counter[tuple[str | None, str | None]] = attrs.field(factory=Counter)
    numbers: dict[int, int | None] = attrs.field(factory=dict)
    """By the number in the archive: the new one."""
    ids: set[str] = attrs.field(factory=set)

    def add(self, rows: Iterable["Record"], moved: dict[int, int]) -> None:
        for row in rows:
            number = row["msg_id"]
            if self.is_dry or number in moved:
                self.kinds[row["task"], row["outcome"]] += 1
                self.numbers[number] = moved.get(number)
                self.ids.add(row["id"])

    def as_dict(self) -> dict[str, Any]:
        return {
            "queue": self.queue,
            "dry_run": self.is_dry,
            "messages": len(self.numbers),
            "kinds": [
                {"task": task, "outcome": outcome, "messages": number}
                for (task, outcome), number in self.kinds.most_common()
            ],
            "moved": [
                {"was": was, "message_id": number}
                for was, number in self.numbers.items()
                if number is not None
            ],
        }

    def say(self, most: int) -> None:
        what = "would put back" if self.is_dry else "put back"
        number = len(self.numbers)
        say(f"{what} {number} message{'' if number == 1 else 's'} of queue {self.queue}")
        if self.kinds:
            rows = ((*kind, number) for kind, number in self.kinds.most_common())
            print_table(("TASK", "OUTCOME", "MESSAGES"), rows)
        if number == most:
            say("that is as many as --limit allows; there may be more")
        if self.meant.numbers or self.meant.ids:
            for was, new in self.numbers.items():
                if new is not None:
                    say(f"message {was} is message {new} now")

    def check(self) -> None:
        """Make sure that what was named was there.

        Raises:
            PgtasksError: some was not; the text says which.
        """
        missing = [str(number) for number in self.meant.numbers if number not in self.numbers]
        missing += [own_id for own_id in self.meant.ids if own_id not in self.ids]
        if missing:
            raise PgtasksError(
                f"not put back: {', '.join(missing)}: not in the archive of queue {self.queue}, or "
                "not as said (what is done needs --outcome done); see `pgtasks archive list`"
            )


# Pruning


@app.command
async def prune(
    queue: Queue,
    /,
    *,
    done_for: Limit = None,
    done_count: Limit = None,
    failed_for: Limit = None,
    failed_count: Limit = None,
    dry_run: DryRun = False,
    json: Json = False,
    source: Source = NOTHING_GIVEN,
) -> None:
    """Delete from the archive what is beyond the limits, now, as workers do now and then.

    The limits come from the settings of this queue, see `pgtasks config show`, where they are not
    given here. "failed" is all that is not done.

    For example:
      pgtasks archive prune emails --dry-run
      pgtasks archive prune emails --done-for 1h --failed-for none --failed-count none

    Args:
        queue: The queue.
        done_for: How long done messages stay: 12h, 7d, none.
        done_count: How many done messages stay: 1000, none.
        failed_for: How long all others stay: 90d, none.
        failed_count: How many of all others stay: 1000, none.
        dry_run: Say how many would be deleted, and delete nothing.
        json: Print JSON, for programs.
        source: The settings.
    """
    from pgtasks.cli.session import known_queue, open_session
    from pgtasks.pruner import Pruning
    from pgtasks.retention import Retention

    given = {"done-for": done_for, "done-count": done_count, "failed-for": failed_for,
             "failed-count": failed_count}  # fmt: skip
    table = f"worker.queue-config.{check_queue_name(queue)}"
    loaded = source.load({f"{table}.{key}": Flag(f"--{key}", text) for key, text in given.items()})
    retention = Retention.of(loaded.config.worker, queue)
    async with open_session(loaded) as session:
        await known_queue(session.store, queue)
        pruning = Pruning(queue, session.store)
        if dry_run:
            counts = await pruning.count(retention)
        else:
            await pruning.run(retention)
            counts = pruning.deleted
    told = {"queue": queue, "dry_run": dry_run, "done": counts["done"], "failed": counts["failed"]}
    what = "would delete" if dry_run else "deleted"
    text = f"{what} {counts['done']} done and {counts['failed']} failed messages of queue {queue}"
    print_json(told) if json else say(text)
    if not pruning.is_ours:
        raise PgtasksError(
            f"somebody else prunes the archive of queue {queue} now, probably a worker, and goes "
            "on with it by its own limits; try again later"
        )
