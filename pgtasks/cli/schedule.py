"""`pgtasks schedule`."""

import json as json_
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from pgtasks.cli.defer import read_arguments
from pgtasks.cli.help import MESSAGES
from pgtasks.cli.options import NOTHING_GIVEN, Json, Source, whole
from pgtasks.cli.output import moment, print_json, print_pairs, print_table, say, when
from pgtasks.duration import format_duration
from pgtasks.errors import ArgumentError

if TYPE_CHECKING:
    from pgtasks.cli.session import Session
    from pgtasks.schedule import Schedule
    from pgtasks.schedules import Schedules

app = App(
    name="schedule",
    help="Look at schedules; make and change those of run time.",
    help_epilogue="",
    group=MESSAGES,
)

Name = Annotated[str, Parameter(name="NAME")]

_FIRES = 10


@app.command(name="list")
async def list_schedules(*, json: Json = False, source: Source = NOTHING_GIVEN) -> None:
    """List the schedules: when they fire, what they send, and whose they are.

    OWNER is the package whose code declares a schedule; "-" was made at run time.

    For example:
      pgtasks schedule list
      pgtasks schedule list --json | jq '.[] | select(.is_paused) | .name'

    Args:
        json: Print JSON, for programs.
        source: The settings.
    """
    from pgtasks.cli.session import open_session

    async with open_session(source.load()) as session:
        listed = [_known(row) for row in await session.store.list_schedules()]
        clock = await session.store.now()
    if json:
        print_json(listed)
    elif not listed:
        say("there are no schedules yet; workers declare those of their tasks")
    else:
        heads = ("NAME", "WHEN", "NEXT", "LAST", "TASK", "OWNER")
        print_table(heads, (_row(one, clock) for one in listed), cut=True)


@app.command
async def show(name: Name, /, *, json: Json = False, source: Source = NOTHING_GIVEN) -> None:
    """Show one schedule: its rule, what it sends, and the ticks that it fired.

    For example:
      pgtasks schedule show nightly-report

    Args:
        name: The schedule.
        json: Print JSON, for programs.
        source: The settings.
    """
    from pgtasks.cli.session import open_session

    async with open_session(source.load()) as session:
        row = await _schedules(session).find(name)
        found = _known(row)
        found["fires"] = [dict(one) for one in await session.store.list_fires(name, _FIRES)]
    print_json(found) if json else _print_schedule(found, row["now"])


@app.command(name="next")
async def next_ticks(
    name: Annotated[str | None, Parameter(name="NAME")] = None,
    /,
    *,
    count: Annotated[str, Parameter(metavar="N")] = "5",
    cron: Annotated[str | None, Parameter(metavar="EXPRESSION")] = None,
    every: Annotated[str | None, Parameter(metavar="90s")] = None,
    timezone: Annotated[str | None, Parameter(metavar="ZONE")] = None,
    json: Json = False,
    source: Source = NOTHING_GIVEN,
) -> None:
    """Print the next ticks of a schedule, or of a rule that is not one yet.

    For example:
      pgtasks schedule next nightly-report --count 10
      pgtasks schedule next --cron "30 2 * * *" --timezone Europe/Berlin

    Args:
        name: The schedule.
        count: How many ticks, at most; 5.
        cron: Try this cron expression instead.
        every: Try this interval instead.
        timezone: The zone of the expression to try.
        json: Print JSON, for programs.
        source: The settings.
    """
    from datetime import UTC

    from pgtasks.cli.session import open_session
    from pgtasks.schedule import Schedule

    number = whole("--count", count, 1, 1_000)
    rule = {"cron": cron, "every": every, "timezone": timezone}
    given: dict[str, Any] = {key: value for key, value in rule.items() if value is not None}
    if (name is None) == (not given):
        raise ArgumentError("name a schedule, or give --cron or --every to try a rule")
    if name is None:
        schedule, since = Schedule("tried", **given), datetime.now(UTC)
    else:
        async with open_session(source.load()) as session:
            known = await _schedules(session).get(name)
        schedule, since = known.schedule, known.read_at
    ticks = schedule.upcoming(since, number)
    if json:
        print_json(ticks)
    elif not ticks:
        say("no tick is left")
    else:
        print_table((schedule.timezone, "HERE", "IN"), _ticks(schedule, ticks, since))


@app.command
async def pause(*names: Name, source: Source = NOTHING_GIVEN) -> None:
    """Let schedules fire no more, until they are resumed.

    For example:
      pgtasks schedule pause nightly-report

    Args:
        names: The schedules.
        source: The settings.
    """
    from pgtasks.cli.session import open_session

    async with open_session(source.load()) as session:
        for name in _some(names):
            await _schedules(session).pause(name)
            say(f"paused {name}")


@app.command
async def resume(*names: Name, source: Source = NOTHING_GIVEN) -> None:
    """Let paused schedules fire again, from their next tick on; what they missed stays missed.

    For example:
      pgtasks schedule resume nightly-report

    Args:
        names: The schedules.
        source: The settings.
    """
    from pgtasks.cli.session import open_session

    async with open_session(source.load()) as session:
        for name in _some(names):
            known = await _schedules(session).resume(name)
            say(f"resumed {name}, next at {_shown(known.next_fire_at)}")


@app.command
async def trigger(
    name: Name, /, *, force: bool = False, json: Json = False, source: Source = NOTHING_GIVEN
) -> None:
    """Send a schedule's message now, beside its ticks; also while it is paused.

    For example:
      pgtasks schedule trigger nightly-report

    Args:
        name: The schedule.
        force: Also when it may not overlap and its last message is still queued or running.
        json: Print JSON, for programs.
        source: The settings.
    """
    from pgtasks.cli.session import open_session

    async with open_session(source.load()) as session:
        handle = await _schedules(session).trigger(name, force=force)
    told = {"id": str(handle.id), "queue": handle.queue, "message_id": handle.message_id}
    print_json(told) if json else print_pairs(told)


@app.command(name="set")
async def set_schedule(
    name: Name,
    task: Annotated[str, Parameter(name="TASK")],
    /,
    *arguments: Annotated[str, Parameter(name="ARGS")],
    cron: Annotated[str | None, Parameter(metavar="EXPRESSION")] = None,
    every: Annotated[str | None, Parameter(metavar="90s")] = None,
    timezone: Annotated[str | None, Parameter(metavar="ZONE")] = None,
    jitter: Annotated[str | None, Parameter(metavar="5s")] = None,
    misfire: Annotated[str | None, Parameter(metavar="POLICY")] = None,
    catch_up_limit: Annotated[str | None, Parameter(metavar="N")] = None,
    overlap: Annotated[str | None, Parameter(metavar="POLICY")] = None,
    queue: Annotated[str | None, Parameter(metavar="NAME")] = None,
    paused: bool = False,
    source: Source = NOTHING_GIVEN,
) -> None:
    """Make a schedule for a task, known by its name, or change the one of this name.

    It is kept in the database; any worker that knows the task fires it. ARGS are as in
    `pgtasks defer`.

    For example:
      pgtasks schedule set report-42 shop.tasks.report customer=42 --cron "0 9 * * MON"
      pgtasks schedule set cleanup shop.tasks.cleanup --every 90s --overlap skip

    Args:
        name: The schedule's name.
        task: The task's name, usually module.function.
        arguments: Its arguments.
        cron: When it fires: five fields, or six with seconds first, or @daily and the like.
        every: Or at which interval.
        timezone: The zone that --cron is meant in; UTC.
        jitter: The most that chance delays each message.
        misfire: What becomes of missed ticks: coalesce, skip or catch_up; coalesce.
        catch_up_limit: How many missed ticks are caught up with, at most; 100.
        overlap: allow, or skip while its last message is queued or running; allow.
        queue: The queue; else task.queue of the settings.
        paused: Make it paused.
        source: The settings.
    """
    from pgtasks.cli.session import open_session
    from pgtasks.codec import encode_plain
    from pgtasks.declaration import Declaration
    from pgtasks.schedule import MOST_CAUGHT_UP, Schedule
    from pgtasks.task import check_task_name

    limit = (
        None
        if catch_up_limit is None
        else whole("--catch-up-limit", catch_up_limit, 1, MOST_CAUGHT_UP)
    )
    said = {
        "cron": cron,
        "every": every,
        "timezone": timezone,
        "jitter": jitter,
        "misfire": misfire,
        "catch_up_limit": limit,
        "overlap": overlap,
        "queue": queue,
    }
    rule: dict[str, Any] = {key: value for key, value in said.items() if value is not None}
    positional, named = read_arguments(arguments)
    made = Declaration(
        Schedule(name, **rule),
        check_task_name(task),
        encode_plain(tuple(positional), named).decode(),
    )
    loaded = source.load()
    async with open_session(loaded) as session:
        known = await _schedules(session).set(
            made, queue or loaded.config.task.queue, paused=True if paused else None
        )
    state = "paused" if known.is_paused else f"next at {_shown(known.next_fire_at)}"
    say(f"set {name}, {state}")


@app.command
async def remove(*names: Name, source: Source = NOTHING_GIVEN) -> None:
    """Delete schedules that were made at run time, or that no worker declares any more.

    For example:
      pgtasks schedule remove report-42

    Args:
        names: The schedules.
        source: The settings.
    """
    from pgtasks.cli.session import open_session

    async with open_session(source.load()) as session:
        for name in _some(names):
            await _schedules(session).remove(name)
            say(f"removed {name}")


def _schedules(session: "Session") -> "Schedules":
    from pgtasks.schedules import Schedules

    worker = session.loaded.config.worker
    return Schedules(session.store.on, worker.queue_fetch.notify, worker.periodic.stale_after)


def _some(names: Sequence[str]) -> Sequence[str]:
    if not names:
        raise ArgumentError("name one or more schedules; `pgtasks schedule list` lists them")
    return names


def _known(row: Any) -> dict[str, Any]:
    """What is known of a schedule, also of one that this version cannot read."""
    kept = ("name", "task", "queue", "cron", "timezone", "misfire", "catch_up_limit", "overlap",
            "owner", "is_paused", "next_fire_at", "last_fire_at", "last_queue", "last_message_id",
            "seen_at", "created_at", "changed_at")  # fmt: skip
    return {
        **{key: row[key] for key in kept},
        "every": None if row["every"] is None else format_duration(row["every"]),
        "jitter": format_duration(row["jitter"]),
        "args": json_.loads(row["args_text"]),
    }


def _row(one: dict[str, Any], clock: datetime) -> tuple[object, ...]:
    coming = "paused" if one["is_paused"] else _when(one["next_fire_at"], clock)
    return (
        one["name"],
        _rule(one),
        coming,
        _when(one["last_fire_at"], clock),
        one["task"],
        one["owner"],
    )


def _rule(one: dict[str, Any]) -> str:
    if one["every"] is not None:
        return f"every {one['every']}"
    zone = "" if one["timezone"] == "UTC" else f" ({one['timezone']})"
    return f"{one['cron']}{zone}"


def _print_schedule(found: dict[str, Any], clock: datetime) -> None:
    owner, seen_at = found["owner"], found["seen_at"]
    policies = f"misfire {found['misfire']}, overlap {found['overlap']}"
    if found["misfire"] == "catch_up":
        policies += f", at most {found['catch_up_limit']} ticks"
    print_pairs(
        {
            "schedule": found["name"],
            "when": _rule(found),
            "policies": policies,
            "jitter": None if found["jitter"] == "0s" else found["jitter"],
            "task": found["task"],
            "args": json_.dumps(found["args"], ensure_ascii=False),
            "queue": found["queue"],
            "owner": f"the code of {owner}, seen {when(seen_at, clock)}" if owner
            else "made at run time",
            "state": "paused" if found["is_paused"] else None,
            "next": _both(found["next_fire_at"], clock),
            "last": _both(found["last_fire_at"], clock),
        }
    )  # fmt: skip
    if found["fires"]:
        say("")
        print_table(("TICK", "LATE", "MESSAGE"), map(_fire, found["fires"]))


def _fire(one: dict[str, Any]) -> tuple[object, ...]:
    late: timedelta = max(one["fired_at"] - one["fire_at"], timedelta(0))
    sent = (
        "not sent: overlap"
        if one["message_id"] is None
        else f"{one['message_id']} in {one['queue']}"
    )
    return moment(one["fire_at"]), f"{late.total_seconds():.3f} s", sent


def _ticks(
    schedule: "Schedule", ticks: Sequence[datetime], since: datetime
) -> list[tuple[object, ...]]:
    return [
        (
            f"{tick.astimezone(schedule.zone):%a %Y-%m-%d %H:%M:%S %z}",
            moment(tick),
            when(tick, since),
        )
        for tick in ticks
    ]


def _both(at: datetime | None, clock: datetime) -> str | None:
    return None if at is None else f"{moment(at)} ({when(at, clock)})"


def _when(at: datetime | None, clock: datetime) -> str | None:
    return None if at is None else when(at, clock)


def _shown(at: datetime | None) -> str:
    return "no tick left" if at is None else moment(at)
