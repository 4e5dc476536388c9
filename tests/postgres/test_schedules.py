"""Schedules that are made and changed at run time, from code and from the command line."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import asyncpg
import pytest
from eventually import eventually_async
from postgres.rows import Rows
from postgres.working import working

from pgtasks import (
    ArgumentError,
    Client,
    Config,
    Context,
    DuplicateScheduleError,
    NamedTask,
    PgtasksError,
    QueueNameError,
    Registry,
    Schedule,
    UnknownScheduleError,
    exit_codes,
    task,
)
from pgtasks.cli import main

CLI = pytest.CaptureFixture[str]
YEARLY = "0 0 1 1 *"


async def own(rows: Rows, name: str, owner: str = "shop") -> None:
    """Let a schedule be one that running workers declare."""
    await rows.fetch(
        "UPDATE pgtasks.schedule SET owner = $2, seen_at = clock_timestamp() WHERE name = $1",
        name,
        owner,
    )


async def test_a_schedule_of_run_time_is_fired_at_once_by_a_worker_that_knows_its_task(
    client: Client, config: Config, registry: Registry, rows: Rows
):
    """The worker hears of it: its own look would come seconds later."""
    ran = list[tuple[int, str | None]]()

    @task(name="report", registry=registry)
    async def report(context: Context, customer: int) -> None:
        ran.append((customer, context.schedule))

    async with working(config, registry):
        await _listens(rows)
        made = await report.schedule(Schedule("report-42", every=1), customer=42)
        assert (made.name, made.queue, made.owner, made.is_paused) == (
            "report-42", "default", None, False,
        )  # fmt: skip
        assert made.next_fire_at is not None
        assert made.read_at < made.next_fire_at <= made.read_at + timedelta(seconds=1)

        async def twice() -> None:
            assert ran[:2] == [(42, "report-42")] * 2

        await eventually_async(twice, within_seconds=4)
        await client.schedules.remove("report-42")
        assert await client.schedules.all() == []


async def _listens(rows: Rows) -> None:
    """Wait until the worker hears: when it begins to, it looks for itself."""

    async def does() -> None:
        listeners = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'pgtasks listener'"
        assert await rows.fetch(
            f"{listeners} AND datname = current_database() AND state = 'idle' AND query ~ 'LISTEN' "
            "AND state_change < clock_timestamp() - interval '0.2 seconds'"
        )

    await eventually_async(does)


async def test_a_worker_leaves_schedules_of_tasks_it_does_not_know(
    client: Client, config: Config, registry: Registry, rows: Rows
):
    other = Registry()

    @task(name="mine", registry=registry)
    async def mine() -> None: ...

    @task(name="theirs", registry=other)
    async def theirs() -> None: ...

    async with working(config, registry):
        await theirs.schedule(Schedule("theirs", every=1))
        await mine.schedule(Schedule("mine", every=1))

        async def fired() -> None:
            assert (await client.schedules.get("mine")).last_fire_at is not None

        await eventually_async(fired)
    assert (await client.schedules.get("theirs")).last_fire_at is None


async def test_changing_a_schedule(client: Client, registry: Registry):
    @task(name="report", registry=registry)
    def report(number: int = 0) -> None: ...

    first = await report.schedule(Schedule("r", cron=YEARLY), 1)
    await client.schedules.pause("r")
    second = await report.schedule(Schedule("r", cron=YEARLY, overlap="skip"), 2)
    assert second.next_fire_at == first.next_fire_at
    assert (second.schedule.overlap, second.is_paused) == ("skip", True)
    assert json.loads(second.declaration.args) == {"number": 2}
    third = await report.schedule(Schedule("r", every="1d"), 2)
    assert third.next_fire_at != first.next_fire_at
    assert len(await client.schedules.all()) == 1


async def test_a_schedule_is_refused_before_anything_is_stored(
    client: Client, registry: Registry, rows: Rows
):
    @task(name="report", registry=registry)
    def report(number: int) -> None: ...

    untyped: Any = report
    with pytest.raises(ArgumentError, match="number"):
        await untyped.schedule(Schedule("r", cron=YEARLY))
    with pytest.raises(ArgumentError, match="given once|give them once"):
        await report.schedule(Schedule("r", cron=YEARLY, args=(1,)), 1)
    with pytest.raises(QueueNameError):
        await report.schedule(Schedule("r", cron=YEARLY, queue="Not One"), 1)
    assert await client.schedules.all() == []


async def test_what_code_declares_is_not_changed_at_run_time(
    client: Client, registry: Registry, rows: Rows
):
    @task(name="report", registry=registry)
    def report() -> None: ...

    await report.schedule(Schedule("r", cron=YEARLY))
    await own(rows, "r")
    with pytest.raises(DuplicateScheduleError, match=r"'shop' declares the schedule 'r'"):
        await report.schedule(Schedule("r", every=60))
    with pytest.raises(PgtasksError, match="pause it, or remove it there"):
        await client.schedules.remove("r")
    await rows.fetch("UPDATE pgtasks.schedule SET seen_at = clock_timestamp() - interval '1 day'")
    await client.schedules.remove("r")
    assert await client.schedules.all() == []


async def test_a_paused_schedule_does_not_fire_and_makes_up_for_nothing(
    client: Client, config: Config, registry: Registry, rows: Rows
):
    @task(name="work", registry=registry)
    def work() -> None: ...

    @task(name="other", registry=registry)
    def other() -> None: ...

    await work.schedule(Schedule("w", every="1h", misfire="catch_up"))
    await client.schedules.pause("w")
    await rows.fetch("UPDATE pgtasks.schedule SET next_fire_at = next_fire_at - interval '1 day'")
    async with working(config, registry):
        await other.schedule(Schedule("o", every=1))

        async def fired() -> None:
            assert (await client.schedules.get("o")).last_fire_at is not None

        await eventually_async(fired)
        resumed = await client.schedules.resume("w")
    assert (resumed.is_paused, resumed.last_fire_at) == (False, None)
    assert resumed.next_fire_at is not None
    assert resumed.next_fire_at > resumed.read_at


async def test_triggering_sends_now_and_moves_no_tick(
    client: Client, config: Config, registry: Registry, rows: Rows
):
    ran = list[tuple[str | None, datetime | None]]()

    @task(name="work", registry=registry)
    async def work(context: Context) -> None:
        ran.append((context.schedule, context.scheduled_at))

    before = await work.schedule(Schedule("w", cron=YEARLY))
    await client.schedules.pause("w")
    async with working(config, registry):
        handle = await client.schedules.trigger("w")
        await rows.empty()
    after = await client.schedules.get("w")
    [(name, moment)] = ran
    assert name == "w"
    assert moment is not None
    assert abs((moment - datetime.now(UTC)).total_seconds()) < 60
    assert (after.next_fire_at, after.last_message_id) == (before.next_fire_at, handle.message_id)


async def test_triggering_respects_overlap_unless_forced(
    client: Client, registry: Registry, rows: Rows
):
    @task(name="work", registry=registry)
    def work() -> None: ...

    await work.schedule(Schedule("w", cron=YEARLY, overlap="skip"))
    await client.schedules.trigger("w")
    with pytest.raises(PgtasksError, match="still queued or running"):
        await client.schedules.trigger("w")
    await client.schedules.trigger("w", force=True)
    assert len(await rows.all()) == 2
    await rows.fetch("DELETE FROM pgmq.q_default")
    await client.schedules.trigger("w")


@pytest.mark.parametrize("method", ["get", "pause", "resume", "trigger", "remove"])
async def test_a_schedule_that_is_not_there(client: Client, registry: Registry, method: str):
    @task(name="work", registry=registry)
    def work() -> None: ...

    await work.schedule(Schedule("nightly", cron=YEARLY))
    with pytest.raises(UnknownScheduleError, match="did you mean 'nightly'"):
        await getattr(client.schedules, method)("nightley")


async def test_schedules_from_another_loop(client: Client, registry: Registry):
    """As deferring: the client runs on the loop it was opened on."""

    @task(name="work", registry=registry)
    def work() -> None: ...

    def elsewhere() -> str:
        async def make() -> str:
            return (await work.schedule(Schedule("w", cron=YEARLY))).name

        return anyio.run(make)

    assert await anyio.to_thread.run_sync(elsewhere) == "w"


# The command line


@pytest.fixture
def run(
    database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: CLI
) -> Callable[..., tuple[int, str]]:
    """Run a command on the test's database; gives its exit code and all it printed."""
    monkeypatch.setenv("PGTASKS_DATABASE_URL", database_url)

    def command(*arguments: str) -> tuple[int, str]:
        code = main(["schedule", *arguments])
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return command


Run = Callable[..., tuple[int, str]]


def test_schedules_on_the_command_line(run: Run):
    code, text = run("set", "w", "shop.work", "number=1", "--cron", "30 2 * * *",
                     "--timezone", "Europe/Berlin", "--queue", "emails")  # fmt: skip
    assert (code, text.startswith("set w, next at ")) == (exit_codes.OK, True)
    code, text = run("list")
    assert code == exit_codes.OK
    assert "30 2 * * * (Europe/Berlin)" in text
    [listed] = json.loads(run("list", "--json")[1])
    assert (listed["task"], listed["args"], listed["queue"]) == (
        "shop.work", {"number": 1}, "emails",
    )  # fmt: skip
    assert run("pause", "w") == (exit_codes.OK, "paused w\n")
    assert "paused" in run("list")[1]
    assert run("resume", "w")[1].startswith("resumed w, next at ")
    sent = json.loads(run("trigger", "w", "--json")[1])
    assert (sent["queue"], sent["message_id"]) == ("emails", 1)
    shown = json.loads(run("show", "w", "--json")[1])
    assert (shown["last_message_id"], shown["fires"]) == (1, [])
    assert "made at run time" in run("show", "w")[1]
    assert run("remove", "w") == (exit_codes.OK, "removed w\n")
    assert "no schedules yet" in run("list")[1]


def test_ticks_to_come(run: Run):
    run("set", "w", "shop.work", "--every", "1h")
    code, text = run("next", "w", "--count", "3")
    assert (code, len(text.splitlines())) == (exit_codes.OK, 4)
    code, text = run("next", "--cron", "0 12 * * *", "--timezone", "Asia/Tokyo", "--count", "2")
    assert (code, text.count("12:00:00 +0900")) == (exit_codes.OK, 2)
    assert len(json.loads(run("next", "--every", "90s", "--json")[1])) == 5


def test_a_schedule_may_be_made_paused(run: Run):
    assert run("set", "w", "t", "--every", "1h", "--paused")[1] == "set w, paused\n"
    assert run("set", "w", "t", "--every", "2h")[1] == "set w, paused\n"


async def test_what_was_fired_is_shown(
    client: Client, config: Config, registry: Registry, rows: Rows, run: Run
):
    @task(name="work", registry=registry)
    async def work() -> None: ...

    await work.schedule(Schedule("w", every=1))
    async with working(config, registry):

        async def fired() -> None:
            assert (await client.schedules.get("w")).last_fire_at is not None

        await eventually_async(fired)
    code, text = await anyio.to_thread.run_sync(run, "show", "w")
    assert code == exit_codes.OK
    assert "in default" in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("set", "w", "t"), "cron"),
        (("set", "w", "t", "--cron", "* * * *"), "* * * *"),
        (("set", "w", "t", "--cron", "@reboot"), "@reboot"),
        (("set", "w", "t", "--cron", "0 0 * * *", "--every", "5s"), "every"),
        (("set", "w", "t", "--cron", "0 0 * * *", "--timezone", "Europe/Berln"), "Europe/Berlin"),
        (("set", "w", "t", "--every", "soon"), "soon"),
        (("set", "w", "t", "--every", "1h", "--misfire", "never"), "coalesce"),
        (("set", "w", "t", "--every", "1h", "--overlap", "no"), "skip"),
        (("set", "w", "t", "--every", "1h", "--catch-up-limit", "0"), "--catch-up-limit"),
        (("set", "w", "t", "--every", "1h", "--queue", "No Queue"), "No Queue"),
        (("set", "w", "t", "what", "--every", "1h"), "what"),
        (("set", "w", "", "--every", "1h"), "name of a task"),
        (("next",), "--cron"),
        (("next", "w", "--cron", "0 0 * * *"), "--cron"),
        (("next", "--cron", "0 0 * * *", "--count", "0"), "--count"),
        (("next", "w"), "no schedule 'w'"),
        (("pause",), "name one or more"),
        (("resume", "w"), "no schedule 'w'"),
        (("remove", "w"), "no schedule 'w'"),
        (("trigger", "w"), "no schedule 'w'"),
        (("show", "w"), "no schedule 'w'"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_stored(run: Run, arguments: tuple[str, ...], said: str):
    code, text = run(*arguments)
    assert code in (exit_codes.FAILED, exit_codes.USAGE)
    assert said in text
    assert "Traceback" not in text
    assert "no schedules yet" in run("list")[1]


async def test_a_rule_made_by_hand_can_be_listed_shown_paused_and_removed(rows: Rows, run: Run):
    """A newer version may have made it, or a person."""
    await rows.fetch(
        "INSERT INTO pgtasks.schedule (name, task, queue, args, cron, timezone, jitter, misfire, "
        "catch_up_limit, overlap) VALUES "
        "('odd', 'work', 'default', '{}', E'at\\x1b[31m dawn', 'Mars/Base', '0', 'coalesce', 1, "
        "'allow')"
    )
    code, text = await anyio.to_thread.run_sync(run, "list")
    assert (code, "\x1b" in text) == (exit_codes.OK, False)
    for words in (("show", "odd"), ("pause", "odd")):
        assert (await anyio.to_thread.run_sync(run, *words))[0] == exit_codes.OK
    code, text = await anyio.to_thread.run_sync(run, "resume", "odd")
    assert code != exit_codes.OK
    assert "Traceback" not in text
    assert (await anyio.to_thread.run_sync(run, "remove", "odd"))[0] == exit_codes.OK


def test_tables_check_themselves(database_url: str):
    """What is neither a cron expression nor an interval, or both, is not stored."""

    async def insert(cron: str | None, every: timedelta | None) -> None:
        connection = await asyncpg.connect(database_url)
        try:
            await connection.execute(
                "INSERT INTO pgtasks.schedule (name, task, queue, args, cron, every, timezone, "
                "jitter, misfire, catch_up_limit, overlap) VALUES ('s', 't', 'default', '{}', $1, "
                "$2, 'UTC', '0', 'coalesce', 1, 'allow')",
                cron,
                every,
            )
        finally:
            await connection.close()

    for cron, every in ((None, None), (YEARLY, timedelta(1))):
        with pytest.raises(asyncpg.CheckViolationError):
            anyio.run(insert, cron, every)


async def test_a_task_of_another_program_has_schedules_too(client: Client):
    billing = NamedTask("billing.charge", queue="billing")
    made = await billing.schedule(Schedule("charge", cron=YEARLY), order=7)
    assert (made.queue, made.declaration.task) == ("billing", "billing.charge")
    assert json.loads(made.declaration.args) == {"order": 7}


async def test_doctor_names_what_nobody_fires(client: Client, rows: Rows, run: Run, capsys: CLI):
    work = NamedTask("work")
    for name in ("mine", "theirs", "fine"):
        await work.schedule(Schedule(name, cron=YEARLY))
    await own(rows, "theirs")
    await rows.fetch(
        "UPDATE pgtasks.schedule SET next_fire_at = clock_timestamp() - interval '2 hours' "
        "WHERE name <> 'fine'"
    )

    def doctor() -> list[tuple[str, str | None]]:
        main(["doctor", "--json"])
        found = json.loads(capsys.readouterr().out)
        return [(one["text"], one["next_step"]) for one in found if one["check"] == "schedules"]

    mine, theirs = await anyio.to_thread.run_sync(doctor)
    assert mine[0].startswith("mine: its tick has been due for 2h")
    assert "knows the task work" in str(mine[1])
    assert "a worker of shop" in str(theirs[1])
    await client.schedules.pause("mine")
    await client.schedules.pause("theirs")
    assert await anyio.to_thread.run_sync(doctor) == [("1 schedule, none overdue", None)]
