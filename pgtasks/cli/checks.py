"""What `pgtasks doctor` checks: each a function that returns what it found."""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import uuid4

import anyio

from pgtasks import migrate
from pgtasks.cli import dangers
from pgtasks.cli.finding import Check, Finding, Level, Patient
from pgtasks.cli.options import Source
from pgtasks.cli.output import span
from pgtasks.cli.queue import counted
from pgtasks.cli.session import Session, explained
from pgtasks.connection import protection
from pgtasks.database import Database, open_database
from pgtasks.database_url import masked_url
from pgtasks.duration import format_duration
from pgtasks.errors import ConfigError, DatabaseError, PgtasksError, SchemaError
from pgtasks.foreign_pgmq import DETACHED, ForeignPgmq
from pgtasks.layers import Loaded
from pgtasks.layout import check_layout
from pgtasks.listener import CHANNEL
from pgtasks.nearest import nearest
from pgtasks.registry import default_registry
from pgtasks.tasks_import import import_tasks

OLD_SECONDS: Final = 300.0
"""A message that has been due for so long should have been run."""
OVERDUE: Final = timedelta(minutes=1)
"""A tick that has been due for so long should have been fired."""
CLOCK_SECONDS: Final = 5.0
LISTEN_SECONDS: Final = 2.0
MOST_TASKS: Final = 1_000
MOST_UNKNOWN: Final = 20


def examine(source: Source, modules: Sequence[str]) -> list[Finding]:
    """Run all checks that can be run; what one needs and is missing ends the list."""
    try:
        loaded = source.load_quietly()
    except ConfigError as error:
        return [Finding("settings", "fail", str(error), "`pgtasks config check` says it again")]
    # Before there is an event loop, as in a worker.
    imported = importing(modules or loaded.config.worker.tasks)
    tasks_known = imported.level == "ok"
    found = anyio.run(_examine_database, loaded, tasks_known, backend="asyncio")
    return [*settings(loaded), imported, *found]


async def _examine_database(loaded: Loaded, tasks_known: bool) -> list[Finding]:
    database: Database | None = None
    try:
        database = await open_database(loaded)
        with explained(database):
            await _install_embedded(database)
            return await _run_all(loaded, database, tasks_known)
    except DatabaseError as error:
        return [_failed("connection", error)]
    finally:
        if database is not None:
            database.close()


async def _run_all(loaded: Loaded, database: Database, tasks_known: bool) -> list[Finding]:
    found: list[Finding] = []
    async with database.connection("doctor") as connection:
        patient = await _looked_at(Session(loaded, database, connection))
        for check in CHECKS if tasks_known else CHECKS[:-1]:
            new = await _run(check, patient)
            found += new
            if check in NEEDED and any(one.level == "fail" for one in new):
                break
    return found


async def _install_embedded(database: Database) -> None:
    """Do for the embedded server what every other command does."""
    if database.server is not None:
        await database.prepare(install=True)


async def _looked_at(session: Session) -> Patient:
    before = time.time()
    facts = await session.store.server_facts()
    round_trip = time.time() - before
    difference = facts["clock"].timestamp() - (before + round_trip / 2)
    return Patient(session, facts, difference, round_trip)


async def _run(check: Check, patient: Patient) -> Sequence[Finding]:
    try:
        with explained(patient.session.database):
            return await check(patient)
    except PgtasksError as error:
        return [_failed(check.__name__, error)]


def _failed(check: str, error: PgtasksError, level: Level = "fail") -> Finding:
    text, _, rest = str(error).partition("\n")
    return Finding(check, level, text, rest or None)


# Without a database


def settings(loaded: Loaded) -> Iterator[Finding]:
    """Say which settings are in force, and what is odd about them."""
    place = f"{loaded.project_folder}"
    if loaded.environment:
        place += f", environment {loaded.environment}"
    yield Finding("settings", "ok", f"project folder {place}")
    for warning in loaded.warnings:
        text, _, step = warning.partition("; ")
        yield Finding("settings", "warn", text, step or None)


def importing(modules: Sequence[str]) -> Finding:
    """Import the task modules; what they print does not belong to the answer."""
    if not modules:
        return Finding(
            "tasks", "warn", "no modules named: messages of unknown tasks were not looked for",
            "`pgtasks doctor shop.tasks`, or list your modules under worker.tasks",
        )  # fmt: skip
    try:
        with redirect_stdout(sys.stderr):
            import_tasks(modules)
    except PgtasksError as error:
        return Finding("tasks", "fail", str(error), "mend the module; a worker cannot start")
    names = ", ".join(modules)
    if not len(default_registry):
        return Finding(
            "tasks", "fail", f"no task is registered by {names}",
            "decorate a function with @pgtasks.task in one of them",
        )  # fmt: skip
    return Finding("tasks", "ok", f"{_number(len(default_registry), 'task')} in {names}")


# The server


async def connection(at: Patient) -> Sequence[Finding]:
    """Say which database this is, and who said so."""
    database, server = at.session.database, at.session.database.server
    url = masked_url(database.config.url or "")
    if server is None:
        origin = at.session.loaded.origins["database.url"]
        return [Finding("connection", "ok", f"{url} (from {origin})"), *_unprotected(at)]
    text = f"embedded Postgres {server.version}, as no database is configured\n"
    text += f"data in {server.data_folder}\nprograms in {server.binaries}\n{url}"
    return [Finding("connection", "ok", text)]


def _unprotected(at: Patient) -> Iterator[Finding]:
    """Say when what passes, and perhaps the password, can be read or changed on the way."""
    tls = protection(at.session.connection)
    if tls in {"none", "require"}:
        text = "in the clear" if tls == "none" else "encrypted, but the server did not prove itself"
        step = "set database.require-tls = true, and sslrootcert=FILE in the URL"
        yield Finding("connection", "warn", f"over a network, {text} (tls: {tls})", step)


async def server_version(at: Patient) -> Sequence[Finding]:
    """PostgreSQL has to be 14 or newer."""
    text = f"PostgreSQL {at.facts['version']}"
    if at.facts["version_number"] >= migrate.OLDEST_SERVER:
        return [Finding("server", "ok", text)]
    return [Finding("server", "fail", text, "upgrade it: pgtasks needs PostgreSQL 14 or newer")]


async def writable(at: Patient) -> Sequence[Finding]:
    """A standby or a read-only database takes no messages."""
    step = "name the primary in database.url; with several hosts, add target_session_attrs=primary"
    if at.facts["is_standby"]:
        return [Finding("writable", "fail", "this server is a standby", step)]
    if at.facts["is_read_only"]:
        return [Finding("writable", "fail", "transactions are read-only here", step)]
    return [Finding("writable", "ok", "a primary that can be written to")]


async def clocks(at: Patient) -> Sequence[Finding]:
    """Only the server's clock decides when messages run, but people compare the two in logs."""
    away, sure = abs(at.clock_difference), at.round_trip / 2
    text = f"the server's clock differs by {away:.2f} s (to {sure:.2f} s)"
    if away <= CLOCK_SECONDS + sure:
        return [Finding("clock", "ok", text)]
    step = "set both by NTP; messages run by the server's clock, logs show this machine's"
    return [Finding("clock", "warn", text, step)]


async def role(at: Patient) -> Sequence[Finding]:
    """The role has to be able to install the schema while there is none."""
    facts = at.facts
    text = f"{facts['role']} on database {facts['database']}"
    if facts["may_create"]:
        return [Finding("role", "ok", f"{text}, may create schemas")]
    if facts["is_installed"]:
        return [Finding("role", "ok", f"{text}, may not create schemas, nor does it have to")]
    step = "run `pgtasks db upgrade` once as a role that may, or `pgtasks db sql` for your admin"
    return [Finding("role", "fail", f"{text}, may not install the schema", step)]


async def schema(at: Patient) -> Sequence[Finding]:
    """The schema has to be the one this version works with."""
    try:
        await migrate.check(at.session.connection)
    except SchemaError as error:
        return [_failed("schema", error)]
    return [Finding("schema", "ok", f"version {migrate.migrations()[-1].version}")]


async def pgmq(at: Patient) -> Sequence[Finding]:
    """Say whose functions and tables there are in the schema pgmq."""
    whose = await ForeignPgmq.describe(at.session.store)
    step = "tasks need none; install another pgmq, or bring ours back: `pgtasks db attach-pgmq`"
    return [Finding("pgmq", "ok", whose, step if whose == DETACHED else None)]


# What is in it


async def listen(at: Patient) -> Sequence[Finding]:
    """A NOTIFY has to reach who listens; without it workers poll, and start messages later."""
    config = at.session.loaded.config
    poll = format_duration(config.worker.queue_fetch.empty_delay)
    polling = f"workers look for messages every {poll} at least"
    if not config.worker.queue_fetch.notify:
        return [Finding("listen", "ok", f"not used (queue-fetch.notify is off): {polling}")]
    if config.database.pgbouncer:
        return [Finding("listen", "ok", f"not used (database.pgbouncer is on): {polling}")]
    seconds = await _notified_within(at.session)
    if seconds is not None:
        return [Finding("listen", "ok", f"NOTIFY arrives, within {seconds * 1000:.0f} ms")]
    text = f"a NOTIFY did not arrive within {LISTEN_SECONDS:g} s: {polling}"
    step = "a pooler in transaction mode swallows it: go past it where messages have to start soon"
    return [Finding("listen", "warn", text, step)]


async def _notified_within(session: Session) -> float | None:
    heard, word = anyio.Event(), f"doctor {uuid4().hex}"  # no queue: whoever hears it ignores it

    def hear(_connection: object, _pid: int, _channel: str, payload: object) -> None:
        if payload == word:
            heard.set()

    async with session.database.connection("doctor") as ear:
        await ear.add_listener(CHANNEL, hear)
        began = time.monotonic()
        await session.store.notify(word)
        with anyio.move_on_after(LISTEN_SECONDS):
            await heard.wait()
            return time.monotonic() - began
    return None


async def queues(at: Patient) -> Sequence[Finding]:
    """Messages that have been due for long say that nobody serves their queue, or too few do."""
    await at.session.store.note_layouts()
    names = await at.session.store.list_queues()
    at.counts.extend([await counted(at.session.store, name) for name in names])
    none = [Finding("queues", "ok", "none yet; workers create those of their tasks")]
    return [_of_queue(count) for count in at.counts] or none


def _of_queue(count: dict[str, Any]) -> Finding:
    queue = count["queue"]
    if count["due"] is None:
        text = f"{queue}: pgtasks cannot use it, for its name or because its tables are gone"
        return Finding("queues", "warn", text, "leave it to the program that made it")
    try:
        check_layout(queue)
    except SchemaError as error:
        return _failed("queues", error, "warn")
    if (count["oldest_due_seconds"] or 0.0) <= OLD_SECONDS:
        return Finding("queues", "ok", _in_words(count))
    step = f"is a worker serving it? `pgtasks worker MODULE --queue {queue}`, or more of them"
    return Finding("queues", "warn", _in_words(count), step)


def _in_words(count: dict[str, Any]) -> str:
    oldest = count["oldest_due_seconds"]
    age = "" if oldest is None else f" (the oldest for {span(oldest)})"
    return (
        f"{count['queue']}: {count['due']} due{age}, {count['delayed']} delayed, "
        f"{count['leased_or_retrying']} leased or retrying"
        + "".join(f"; {words}" for words in count["differs"])
    )


async def schedules(at: Patient) -> Sequence[Finding]:
    """A schedule that is overdue says that no worker fires it."""
    now = await at.session.store.now()
    rows = [row for row in await at.session.store.list_schedules() if not row["is_paused"]]
    late = [row for row in rows if row["next_fire_at"] and now - row["next_fire_at"] > OVERDUE]
    if not late:
        return [Finding("schedules", "ok", f"{_number(len(rows), 'schedule')}, none overdue")]
    return [_of_schedule(row, now) for row in late[:MOST_UNKNOWN]]


def _of_schedule(row: Any, now: datetime) -> Finding:
    age = span((now - row["next_fire_at"]).total_seconds())
    text = f"{row['name']}: its tick has been due for {age}, and no worker fired it"
    if row["owner"] is None:
        step = f"start a worker that knows the task {row['task'][:200]}"
        return Finding("schedules", "warn", text, step)
    step = f"start a worker of {row['owner']} that declares it; or `pgtasks schedule pause`"
    return Finding("schedules", "warn", text, step)


async def unknown_tasks(at: Patient) -> Sequence[Finding]:
    """Messages of tasks that no module registers are put back for ever."""
    store, found = at.session.store, []
    known = [name for task in default_registry for name in (task.name, *task.aliases)]
    for count in at.counts:
        if count["due"] is None:
            continue
        rows = await store.task_names(count["queue"], MOST_TASKS)
        found += [
            _unknown(count["queue"], row, known, at.facts["clock"])
            for row in rows
            if row["task"] not in known
        ]
    rest = len(found) - MOST_UNKNOWN
    more = [Finding("unknown", "warn", f"and {rest} more task names")] if rest > 0 else []
    none = [Finding("unknown", "ok", "every message names a task that is registered")]
    return [*found[:MOST_UNKNOWN], *more] or none


def _unknown(queue: str, row: Any, known: list[str], now: datetime) -> Finding:
    age = span((now - row["oldest"]).total_seconds())
    what = f"{_number(row['messages'], 'message')} (the oldest since {age})"
    if row["task"] is None:
        text = f"queue {queue}: {what} of another program, with no task's name"
        return Finding("unknown", "warn", text, "once due, archived by workers as undecodable")
    text = f"queue {queue}: {what} of the task {row['task'][:200]!r}, not registered"
    near = nearest(row["task"], known)
    step = f'did it become {near}? @task(aliases=["{row["task"]}"]) keeps the old name; else '
    step = (step if near else "") + "name the module that has it, or deploy it"
    return Finding("unknown", "warn", text, step)


def _number(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


CHECKS: Final[tuple[Check, ...]] = (
    connection,
    server_version,
    writable,
    clocks,
    role,
    schema,
    pgmq,
    listen,
    dangers.pooler,
    dangers.timeouts,
    dangers.connections,
    dangers.notifications,
    dangers.horizon,
    dangers.dead_rows,
    dangers.wraparound,
    dangers.rights,
    queues,
    schedules,
    unknown_tasks,
)
"""In this order; the last one needs the task modules too."""
NEEDED: Final = {schema, queues}
"""Without these the checks after them have nothing to look at."""
