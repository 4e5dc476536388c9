"""No name becomes a part of a statement unchecked, and nobody else's names are found by ours."""

import ast
import asyncio
import itertools
import json
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import asyncpg
import attrs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from postgres.rows import BESIDE_QUEUES, Rows, seconds
from postgres.working import working

import pgtasks
from pgtasks import (
    Config,
    NamedTask,
    Registry,
    Schedule,
    connect,
    exit_codes,
    layers,
    migrate,
    task,
)
from pgtasks.cli import main
from pgtasks.config import DatabaseConfig, QueueConfig, WorkerConfig
from pgtasks.errors import PgtasksError, QueueNameError
from pgtasks.layout import Layout, laid_out
from pgtasks.message import Held
from pgtasks.queue_name import is_queue_name
from pgtasks.store import (
    _ENDED,
    BEGINNING,
    Store,
    _on_databases,
    _on_queue,
    statement,
)
from pgtasks.testing import temporary_database

PACKAGE = Path(pgtasks.__file__).parent
STATEMENTS = sorted(file.stem for file in (PACKAGE / "sql").glob("*.sql"))
ON_DATABASES = {"create_database", "close_database", "rename_database", "drop_database",
                "drop_unused_database"}  # fmt: skip

# Names

MARK = "x9marker"
HOSTILE = [
    "Foo", 'a"b', "'; DROP TABLE pgmq.meta; --", '"; DROP TABLE pgmq.meta; --', "$1", "%I", "%s",
    "{q}", "{0}", "a\\", "a\0", "a\n", "\na", "é" * 30, "🙂", "שלום", "a b", "a.b", "pgmq.meta",
    "a" * 48, "a" * 64, "a" * 100_000, "_a", "0a", "periodic", "", "a;b", "a--b", "a/*b", "١",
    "\ud800", "ａ", "ſ", "a) RETURNING message --", "a'||pg_sleep(9)||'", "a$$b",
]  # fmt: skip
LONE = [name for name in HOSTILE if name]
MARKED = [name + MARK for name in HOSTILE if name not in {"a" * 48, "a" * 64, "periodic", "", "é"}]


@given(st.text() | st.from_regex(r"[a-z0-9_'\";{}$ ]{0,60}"), st.sampled_from(STATEMENTS))
@example("default", "send")
def test_a_name_in_a_statement_is_one_by_the_rule(queue: str, name: str):
    """Whatever text it is: refused, or letters, digits and underscores between quotes."""
    try:
        text = _on_queue(name, queue)
    except QueueNameError:
        assert not is_queue_name(queue)
        return
    assert re.fullmatch(r"[a-z][a-z0-9_]{0,46}", queue, re.ASCII)
    bare = text.replace(f'pgmq."q_{queue}"', "{q}").replace(f'pgmq."a_{queue}"', "{a}")
    assert bare == laid_out(statement(name), Layout())


@given(st.text() | st.from_regex(r"pgtasks_(test|template)_[a-z0-9_\"; ]{0,50}"))
@example("template1")
@example("pgtasks_test_1")
def test_a_database_that_is_made_or_dropped_is_a_temporary_one(database: str):
    for name in ON_DATABASES:
        with suppress(ValueError):
            text = _on_databases(name, name=database)
            assert re.fullmatch(r"pgtasks_(test|template)_[a-z0-9_]{1,40}", database, re.ASCII)
            assert text == statement(name).replace("{name}", f'"{database}"')


@attrs.define
class Spoken:
    """What was said to the server: the statements, without their parameters."""

    texts: list[str] = attrs.field(factory=list)

    def note(self, record: Any) -> None:
        """Note one."""
        self.texts.append(record.query)

    def with_mark(self) -> list[str]:
        """Those into which the mark of a test got."""
        return [text for text in self.texts if MARK in text.lower()]


@pytest.fixture
def spoken(monkeypatch: pytest.MonkeyPatch) -> Spoken:
    """Hear every statement of every connection of this process."""
    heard, init = Spoken(), asyncpg.Connection.__init__

    def listening(self: Any, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        self.add_query_logger(heard.note)

    monkeypatch.setattr(asyncpg.Connection, "__init__", listening)
    return heard


@pytest.fixture
def _at_home(database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in os.environ:
        if name.startswith("PGTASKS") or name == "DATABASE_URL":
            monkeypatch.delenv(name)
    monkeypatch.setenv("PGTASKS_DATABASE_URL", database_url)
    monkeypatch.chdir(tmp_path)


def _task_of(registry: Registry, queue: str) -> Any:
    return task(name=f"work {len(registry)}", queue=queue, registry=registry)(lambda: None)


async def _deferred(queue: str) -> None:
    await NamedTask("work", queue).defer()


async def _with_options(queue: str) -> None:
    await NamedTask("work").options(queue=queue).defer()


async def _of_a_task(queue: str) -> None:
    await _task_of(Registry(), queue).defer()


async def _of_a_task_with_options(queue: str) -> None:
    await _task_of(Registry(), "default").options(queue=queue).defer_many([()] * 3)


async def _on_own_connection(queue: str) -> None:
    async with pgtasks.client.current_client().pool.acquire() as own, own.transaction():
        await NamedTask("work").options(queue=queue, connection=own).defer()


async def _scheduled(queue: str) -> None:
    await NamedTask("work").schedule(Schedule("mine", every=3600, queue=queue))


async def _scheduled_of_a_task(queue: str) -> None:
    await NamedTask("work", queue).schedule(Schedule("mine", every=3600))


async def _served(queue: str) -> None:
    registry = Registry()
    _task_of(registry, "default")
    config = pgtasks.client.current_client().config
    async with working(config, registry, queues=[queue]):
        pass


async def _served_by_a_task(queue: str) -> None:
    registry = Registry()
    _task_of(registry, queue)
    async with working(pgtasks.client.current_client().config, registry):
        pass


async def _configured(queue: str) -> None:
    Config(worker=WorkerConfig(queue_config={queue: QueueConfig(concurrency=1)}))


async def _configured_to_be_served(queue: str) -> None:
    Config(worker=WorkerConfig(queues=(queue,)))


async def _in_a_file(queue: str) -> None:
    _load_from_file(queue)


def _load_from_file(queue: str) -> None:
    # A file cannot hold a lone surrogate at all.
    spelt = json.dumps(queue.encode(errors="replace").decode())
    file = Path("pgtasks.toml")
    file.write_text(f"[task]\nqueue = {spelt}\n", "utf-8")
    try:
        layers.load(environ={})
    finally:
        file.unlink()


async def _in_a_variable(queue: str) -> None:
    # What is around it does not count.
    layers.load(environ={"PGTASKS__TASK__QUEUE": f".{queue}"})


WAYS_IN: list[Callable[[str], Awaitable[None]]] = [
    _deferred, _with_options, _of_a_task, _of_a_task_with_options, _on_own_connection, _scheduled,
    _scheduled_of_a_task, _served, _served_by_a_task, _configured, _configured_to_be_served,
    _in_a_file, _in_a_variable,
]  # fmt: skip


@pytest.mark.usefixtures("_at_home")
@pytest.mark.parametrize("way_in", WAYS_IN, ids=lambda way: way.__name__.strip("_"))
async def test_a_hostile_name_is_refused_before_anything_is_said(
    config: Config, rows: Rows, spoken: Spoken, way_in: Callable[[str], Awaitable[None]]
):
    async with connect(config=config):
        for name in [*LONE, *MARKED]:
            with pytest.raises(PgtasksError) as refused:
                await way_in(name)
            assert len(str(refused.value)) < 1000, ascii(name)[:80]
    assert spoken.with_mark() == []
    assert spoken.texts
    tables = await rows.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'pgmq'")
    assert {row[0] for row in tables} == {*BESIDE_QUEUES, "q_default", "a_default"}


COMMANDS = [
    ["queue", "create", "{}"], ["message", "list", "{}"], ["message", "show", "{}", "1"],
    ["archive", "list", "{}"], ["archive", "show", "{}", "1"], ["archive", "retry", "{}", "1"],
    ["archive", "prune", "{}"], ["defer", "work", "--queue", "{}"],
    ["defer", "work", "--queue", "{}", "--create"],
    ["schedule", "set", "mine", "work", "--every", "1h", "--queue", "{}"],
    ["worker", "shop.tasks", "--queue", "{}"], ["config", "set", "task.queue", "{}"],
]  # fmt: skip


@pytest.mark.usefixtures("_at_home")
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command[:2]))
def test_a_hostile_name_is_refused_on_the_command_line(
    database_url: str, spoken: Spoken, command: list[str], capsys: pytest.CaptureFixture[str]
):
    for name in [*LONE, *MARKED]:
        if "\0" in name or "\ud800" in name or len(name) > 1000:  # no command line has these
            continue
        if command[0] == "config" and is_queue_name(name.strip()):  # what is around does not count
            continue
        words = [word.replace("{}", name) for word in command]
        assert main(words) in {exit_codes.USAGE, exit_codes.FAILED}, words
        err = capsys.readouterr().err
        assert "cannot be the name of a queue" in err or "usage" in err.lower(), (words, err)
    assert spoken.with_mark() == []


TEXTS = [
    "'; DROP TABLE pgmq.meta; --" + MARK, '"' + MARK, f"${MARK}", f"$$ {MARK} $$", f"%s {MARK}",
    f"{{q}} {{ended}} {MARK}", f"\\'{MARK}", f"/* {MARK}",
]  # fmt: skip


@pytest.mark.usefixtures("_at_home")
async def test_values_are_parameters_and_no_text(
    config: Config, registry: Registry, rows: Rows, spoken: Spoken, heard: Any
):
    """Of messages, errors, schedules and worker names: none is a part of a statement."""

    @task(name="work", registry=registry, retries=0)
    async def work(text: str) -> None:
        raise ValueError(text)

    async with connect(config=config) as client:
        for text in TEXTS:
            await work.options(timeout=5).defer(text)
            gone = await NamedTask(text).defer(text, **{text: text})
            rule = Schedule(text, every=3600)
            await NamedTask(text).schedule(rule, text)
            await client.schedules.trigger(text)
            await client.schedules.pause(text)
            await client.schedules.resume(text)
            await client.schedules.remove(text)
            await client.pool.execute(
                "DELETE FROM pgmq.q_default WHERE msg_id >= $1", gone.message_id
            )
        async with working(config, registry) as worker:
            worker.name = TEXTS[0]
            await rows.empty()
    errors = [state["errors"][-1]["error"] for state in (await rows.archived()).values()]
    assert sorted(errors) == sorted(f"ValueError: {text}" for text in TEXTS)
    assert len(spoken.texts) > 50
    assert spoken.with_mark() == []


FILTERS = [
    ["archive", "list", "default", "--task", "{}"], ["archive", "list", "default", "--error", "{}"],
    ["archive", "retry", "default", "--task", "{}"], ["message", "list", "default", "--task", "{}"],
    ["schedule", "show", "{}"], ["schedule", "pause", "{}"], ["schedule", "remove", "{}"],
    ["defer", "{}"],
]  # fmt: skip


@pytest.mark.usefixtures("_at_home")
@pytest.mark.parametrize("command", FILTERS, ids=lambda command: " ".join(command[:2]))
def test_values_of_the_command_line_are_parameters(
    database_url: str, spoken: Spoken, command: list[str]
):
    assert main(["queue", "create", "default"]) == exit_codes.OK
    for text in TEXTS:
        main([word.replace("{}", text) for word in command])
    assert spoken.texts
    assert spoken.with_mark() == []


# Where statements come from


def _calls(module: ast.Module) -> Iterator[tuple[ast.Call, ast.AST]]:
    """Every call that says something to a server, with the function that it stands in."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    for function in (node for node in ast.walk(module) if isinstance(node, kinds)):
        for node in ast.walk(function):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            if node.func.attr in SAYING and node.args:
                yield node, function


SAYING = {"execute", "executemany", "fetch", "fetchrow", "fetchval", "prepare", "cursor",
          "copy_from_query", "copy_from_table", "copy_records_to_table", "copy_to_table",
          "fetchmany"}  # fmt: skip
READ = {"statement", "_on_queue", "_on_queues", "_next_dues", "_on_archive", "_on_databases"}
"""What returns the text of a file in sql/, with checked names in it."""
EXCEPTIONS = {
    # The text of a whole migration, or of a part of one, and the number of a lock.
    ("migrate.py", "step.text"), ("migrate.py", "take[0]"),
    ("migrate.py", "f'SELECT pg_advisory_xact_lock({_LOCK})'"),
    # Not a statement, and a name that was checked, which asyncpg quotes.
    ("recipe.py", "database"), ("store.py", "f'q_{queue}'"),
}  # fmt: skip


def _is_read(node: ast.expr, function: ast.AST) -> bool:
    """Whether an argument is a constant, was read from a file, or was handed through."""
    if isinstance(node, ast.Constant):
        return True
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id in READ
    if not isinstance(node, ast.Name):
        return False
    if node.id == "query":  # an Executor that passes on what a Store said
        return True
    given = [
        value
        for one in ast.walk(function)
        if isinstance(one, ast.Assign)
        for target, value in _pairs(one)
        if isinstance(target, ast.Name) and target.id == node.id
    ]
    return bool(given) and all(
        _is_read(branch, function)
        for value in given
        for branch in ([value.body, value.orelse] if isinstance(value, ast.IfExp) else [value])
    )


def _pairs(assigned: ast.Assign) -> Iterator[tuple[ast.expr, ast.expr]]:
    for target in assigned.targets:
        if isinstance(target, ast.Tuple) and isinstance(assigned.value, ast.Tuple):
            yield from zip(target.elts, assigned.value.elts, strict=True)
        else:
            yield target, assigned.value


def test_statements_come_from_files():
    """The text of no statement is put together anywhere but in six functions of the store."""
    found, seen = list[tuple[str, str]](), 0
    for file in sorted(PACKAGE.rglob("*.py")):
        module = ast.parse(file.read_text("utf-8"))
        for call, function in _calls(module):
            seen += 1
            constants = ast.Module([one for one in module.body if isinstance(one, ast.Assign)], [])
            if not (_is_read(call.args[0], function) or _is_read(call.args[0], constants)):
                found.append((file.name, ast.unparse(call.args[0])))
    assert seen > 60
    assert set(found) - EXCEPTIONS == set()


def test_each_place_for_a_name_is_one_the_store_fills():
    known = {"q", "a", "ended", "name", "template", "admin", "worker", "producer", "reader",
             "place", "moments"}  # fmt: skip
    for name in STATEMENTS:
        text = laid_out(statement(name), Layout())
        bare = re.sub(r"'\{[^']*\}'", "", text)  # paths into JSON
        assert set(re.findall(r"\{(.*?)\}", bare)) <= known, name


# What statements find

TYPES = ["text", "jsonb", "bigint", "integer", "timestamptz", "interval", "numeric", "text[]",
         "bigint[]", "integer[]", "boolean", "float8", "name", "varchar", "regclass"]  # fmt: skip
FEW_TYPES = ["text", "jsonb", "integer", "bigint"]
OPERATORS = ["->", "->>", "#>>", "#>", "||", "~", "<>", "=", "<", "<=", ">", ">=", "-", "+", "*"]


async def put_hostile_names(connection: Any) -> None:
    """Make the schema `hostile`: an operator or function of each name, for all that is left open.

    Postgres prefers its own only where the types fit exactly: anybody who may create in a schema
    of the search_path can offer a better fit for the rest.
    """
    await connection.execute("CREATE SCHEMA hostile")
    makes = []
    for place, (left, right) in enumerate(itertools.product(TYPES, TYPES)):
        made = f"hostile.op_{place}"
        makes.append(
            f"CREATE FUNCTION {made}({left}, {right}) RETURNS boolean LANGUAGE sql AS 'SELECT true'"
        )
        makes += [
            f"CREATE OPERATOR hostile.{operator} "
            f"(LEFTARG = {left}, RIGHTARG = {right}, FUNCTION = {made})"
            for operator in OPERATORS
        ]
    texts = [statement(name) for name in STATEMENTS]
    words = {word for text in texts for word in re.findall(r"(?<!\w)([a-z_0-9]+)\(", text)}
    known = await connection.fetch(
        "SELECT DISTINCT proname, pronargs, provariadic <> 0 AS is_variadic FROM pg_proc "
        "WHERE pronamespace = 'pg_catalog'::regnamespace AND proname = ANY($1)", list(words),
    )  # fmt: skip
    for row in known:
        for count in range(1, 5) if row["is_variadic"] else [row["pronargs"]]:
            some = TYPES if count <= 2 else FEW_TYPES
            makes += [
                f"CREATE FUNCTION hostile.{row['proname']}({', '.join(types)}) "
                "RETURNS boolean LANGUAGE sql AS 'SELECT true'"
                for types in (itertools.product(some, repeat=count) if count <= 4 else ())
            ]
    # What Postgres has itself is always preferred, and need not be there twice.
    for start in range(0, len(makes), 500):
        each = "".join(
            f"BEGIN EXECUTE $_${make}$_$; EXCEPTION WHEN OTHERS THEN NULL; END;\n"
            for make in makes[start : start + 500]
        )
        await connection.execute(f"DO $do$ BEGIN {each} END $do$", timeout=60)


@pytest.fixture(scope="module")
def hostile_url(server_url: str) -> Iterator[str]:
    """A database with the schema in it, and with that of somebody who wishes us ill."""

    async def fill(url: str) -> None:
        connection = await asyncpg.connect(url, timeout=10)
        try:
            await Store(connection).create_queue("default")
            await put_hostile_names(connection)
        finally:
            await connection.close()

    config = Config(database=DatabaseConfig(url=server_url))
    with temporary_database(config=config) as database:
        asyncio.run(fill(database.url))
        yield database.url


@pytest.fixture
async def hostile(hostile_url: str) -> AsyncIterator[Any]:
    """A connection to it on which their names are found where ours leave it open."""
    connection = await asyncpg.connect(
        hostile_url, timeout=10, server_settings={"search_path": "hostile, public"}
    )
    yield connection
    await connection.close()


FINDS = """
SELECT CASE refclassid
    WHEN 'pg_operator'::regclass THEN refobjid::regoperator::text
    ELSE refobjid::regprocedure::text
END
FROM pg_depend
WHERE classid = 'pg_proc'::regclass AND objid = 'public.probe'::regproc
    AND refclassid IN ('pg_operator'::regclass, 'pg_proc'::regclass)
    AND refobjid NOT IN (SELECT oid FROM pg_proc WHERE pronamespace = 'pgtasks'::regnamespace)
"""


async def found_by(connection: Any, text: str) -> list[str]:
    """What is not Postgres' own of that which a statement calls."""
    prepared = await connection.prepare(text)
    types = ", ".join(kind.name for kind in prepared.get_parameters())
    await connection.execute(
        f"CREATE FUNCTION public.probe({types}) RETURNS void BEGIN ATOMIC {text.rstrip()}; END"
    )
    found = await connection.fetch(FINDS)
    await connection.execute("DROP FUNCTION public.probe")
    return [row[0] for row in found]


MIGRATIONS_OF_PGMQ = """
CREATE TABLE IF NOT EXISTS pgmq.__pgmq_migrations (
    name text PRIMARY KEY, version text, run_at timestamptz DEFAULT clock_timestamp()
)
"""


async def test_no_statement_is_led_astray_by_what_others_put_into_a_schema(hostile: Any):
    """Else a role that may only create an operator in `public` would do all that a worker may.

    A statement that fails here leaves the type of a literal open, or calls a function that takes
    any type: write `'{a,b}'::text[]`, `'key'::text`, `pg_catalog.unnest(...)`.
    """
    wrong = dict[str, object]()
    await hostile.execute(MIGRATIONS_OF_PGMQ)
    other = Layout(is_wide=False, is_partitioned=True)
    for name in STATEMENTS:
        if name in {
            *ON_DATABASES,
            "wait_for_disk",
            "guard_transaction",
            "vacuum",
            "roles",
            "detach_pgmq",
        }:
            continue
        for ended, layout in itertools.product(_ENDED.values(), (Layout(), other)):
            text = laid_out(statement(name), layout).replace("{ended}", ended)
            text = (
                text.replace("{moments}", f"({statement('next_moment')})")
                .replace("{place}", "1")
                .replace("{q}", "pgmq.q_default")
                .replace("{a}", "pgmq.a_default")
            )
            try:
                if found := await found_by(hostile, text):
                    wrong[name] = found
            except asyncpg.PostgresError as error:
                wrong[name] = str(error)
    assert wrong == {}


@pytest.mark.parametrize(
    "text",
    ["SELECT (headers -> 'a') FROM pgmq.q_default", "SELECT concat_ws(' ', 'a'::text, 'b'::text)",
     "SELECT * FROM unnest('{a}'::text[])", "SELECT queue_name = 'a' FROM pgmq.meta"],
)  # fmt: skip
async def test_that_test_sees_what_it_looks_for(hostile: Any, text: str):
    with suppress(asyncpg.PostgresError):
        assert await found_by(hostile, text)
    exact = "SELECT headers -> 'a'::text, queue_name::text = 'a' FROM pgmq.q_default, pgmq.meta"
    assert await found_by(hostile, exact) == []


async def test_our_functions_do_what_they_do_among_hostile_names(hostile: Any):
    counted = """SELECT pgtasks.with_one_more('{"pgtasks":{"releases":1}}', 'releases')"""
    assert json.loads(await hostile.fetchval(counted)) == {"pgtasks": {"releases": 2}}
    kept = """SELECT pgtasks.with_state('{"x":1}', '{"failures":1}')"""
    assert json.loads(await hostile.fetchval(kept)) == {"x": 1, "pgtasks": {"failures": 1}}
    for moment in ("infinity", "-infinity"):
        clamped = f"SELECT isfinite(pgtasks.clamped('{moment}'))"
        assert await hostile.fetchval(clamped) is True
    assert await hostile.fetchval("SELECT pgtasks.is_queue_name('a;b')") is False
    store = Store(hostile)
    assert await store.create_queue("fresh")
    [made] = await store.send_many("fresh", ["{}"], None, seconds(0), None)
    [row] = await store.claim("fresh", 1, seconds(60), BEGINNING)
    held = [Held(row["msg_id"], row["enqueued_at"])]
    assert await store.retry("fresh", held, row["read_ct"], [seconds(0)], ['{"a":1}']) == [made]


async def test_the_schema_is_installed_among_hostile_names(hostile: Any):
    """Their operators do not get into what is installed, whoever calls it later."""
    await hostile.execute("DROP SCHEMA pgtasks CASCADE")
    await migrate.upgrade(hostile)
    await Store(hostile).create_queue("default")
    assert (
        await hostile.fetchval(
            "SELECT count(*) FROM pg_depend WHERE classid = 'pg_proc'::regclass AND objid IN "
            "(SELECT oid FROM pg_proc WHERE pronamespace = 'pgtasks'::regnamespace) "
            "AND refclassid = 'pg_operator'::regclass"
        )
        == 0
    )
    await hostile.execute("DROP SCHEMA pgtasks CASCADE")
    await hostile.execute(migrate.script())


async def test_our_functions_do_not_follow_whoever_calls_them(connection: Any, rows: Rows):
    """None runs with another's rights, and each finds its names the same for everybody."""
    functions = await connection.fetch(
        "SELECT proname::text AS name, prosecdef, proconfig, prosqlbody IS NOT NULL AS is_read, "
        "lanname::text AS language FROM pg_proc JOIN pg_language ON pg_language.oid = prolang "
        "WHERE pronamespace IN ('pgtasks'::regnamespace, 'pgmq'::regnamespace)"
    )
    assert len(functions) >= 7
    for function in functions:
        assert not function["prosecdef"], function["name"]
        if function["language"] == "sql":
            assert function["is_read"], f"{function['name']}: write its body as RETURN ..."
        else:
            fixed = ["search_path=pg_catalog, pg_temp"]
            assert function["proconfig"] == fixed, function["name"]


async def test_sql_that_is_made_in_functions_quotes_its_names():
    """`format` with %I (and %L for a text), and nothing joined to what is executed."""
    for file in (PACKAGE / "sql" / "migrations").glob("*.sql"):
        text = file.read_text("utf-8")
        for made in re.findall(r"EXECUTE\s+(?!FUNCTION)(\S+)", text):
            assert made.startswith("format("), (file.name, made)
        for template in re.findall(r"format\(\s*'((?:[^']|'')*)'", text):
            assert set(re.findall(r"%\w", template)) <= {"%I", "%L"}, (file.name, template)


async def test_temporary_tables_do_not_stand_before_ours(connection: Any, rows: Rows):
    """Relations of pg_temp are found first of all, where a name says no schema."""
    for table in ("q_default", "a_default", "q_fresh", "meta", "migration", "schedule", "fire",
                  "turn", "grantee", "pg_roles"):  # fmt: skip
        await connection.execute(f"CREATE TEMP TABLE {table} (n int)")
    store = Store(connection)
    assert await store.create_queue("fresh")
    await store.send("fresh", "{}", None, seconds(0), None, notify=True)
    assert len(await store.claim("fresh", 5, seconds(60), BEGINNING)) == 1
    assert await store.list_queues() == ["default", "fresh"]
