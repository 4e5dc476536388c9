"""Whatever a message, a schedule or an error says, a worker does no more than it was told to."""

import asyncio
import io
import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import attrs
import pytest
from eventually import eventually_async
from postgres.rows import Rows
from postgres.working import working

from pgtasks import Config, NamedTask, Registry, Schedule, connect, logs, task
from pgtasks.cli.failure import report
from pgtasks.codec import MAX_BYTES
from pgtasks.errors import ArgumentError, PgtasksError
from pgtasks.message import MAX_ERRORS
from pgtasks.settlement import MAX_ERROR_CHARS, MAX_TRACEBACK_CHARS
from pgtasks.store import Store

MODULE = "imported_by_a_message"
SECRET = "s3cr3t-argument"
EVIL = "x\nERROR forged\r\x1b[31mred\x85\u2028\u202e%s %(x)s {} {0.__class__} $1"


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module on the path that leaves a mark when it is imported."""
    mark = tmp_path / "mark"
    code = f"open({str(mark)!r}, 'w').close()\ndef run(*args, **kwargs): pass\n"
    (tmp_path / f"{MODULE}.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return mark


async def test_no_module_is_imported_because_something_names_it(
    config: Config, registry: Registry, rows: Rows, trap: Path
):
    """Not for the task of a message or a schedule, nor for what its rule says."""
    ran = list[Any]()

    @task(name="work", registry=registry)
    async def work(value: Any) -> None:
        ran.append(value)

    names = [f"{MODULE}.run", MODULE, f"{MODULE}:run", f"../{MODULE}", "os.system", "builtins.exec",
             "a.b.c", "antigravity", "xmlrpc.server", "turtledemo.clock.main"]  # fmt: skip
    made = [await rows.call(name, ["touch mark"]) for name in names]
    rule = (
        "INSERT INTO pgtasks.schedule (name, task, queue, args, every, timezone, jitter, misfire, "
        "catch_up_limit, overlap, next_fire_at) VALUES ($1, $2, 'default', '[]', '1h', $3, '0s', "
        "'coalesce', 5, 'allow', now())"
    )
    await rows.fetch(rule, "one", f"{MODULE}.run", "UTC")
    await rows.fetch(rule, "two", "work", f"{MODULE}/run")
    await rows.fetch(rule, "three", "work", f"../../{trap}")
    before = set(sys.modules)
    async with connect(config=config), working(config, registry):

        async def all_seen() -> None:
            for message_id in made:
                assert (await rows.state(message_id)).get("unknown", 0) >= 1

        await eventually_async(all_seen)
        await work.defer(1)
        await eventually_async(lambda: _is(ran, [1]))
    assert _marks(trap) == []
    new = {name.partition(".")[0] for name in set(sys.modules) - before}
    assert not new & {MODULE, "antigravity", "xmlrpc", "turtledemo"}
    # Put back with a pause and kept: another worker may know them.
    assert {row["msg_id"] for row in await rows.all()} == set(made)
    assert await rows.archived() == {}


async def _is(seen: list[Any], wanted: list[Any]) -> None:
    assert seen == wanted


async def test_that_trap_closes(trap: Path):
    __import__(MODULE)
    del sys.modules[MODULE]
    assert _marks(trap) == [trap]


def _marks(trap: Path) -> list[Path]:
    return list(trap.parent.glob(trap.name))


# Limits


@attrs.frozen
class Box:
    """What a task may take."""

    text: str


HUGE = "x" * 50_000_000


@pytest.mark.parametrize(
    "sent",
    [HUGE, Box(HUGE), [HUGE[:1000]] * 50_000, {"a": {"b": HUGE}}],
    ids=lambda value: type(value).__name__,
)
async def test_what_is_far_too_long_is_refused_at_once_and_nothing_is_said(
    config: Config, rows: Rows, sent: Any
):
    """What takes a second here would take twenty for a gigabyte."""

    def take(value: Any) -> None: ...

    async with connect(config=config) as client:
        said = list[str]()
        opened: Any = client.pool
        for holder in opened._holders:
            if holder._con is not None:
                holder._con.add_query_logger(lambda record: said.append(record.query))
        known = task(name="work", registry=Registry())(take)
        began_at = perf_counter()
        for defer in (
            lambda: known.defer(sent),
            lambda: known.defer_many([(sent,)]),
            lambda: NamedTask("work").defer(sent if not isinstance(sent, Box) else HUGE),
        ):
            with pytest.raises(ArgumentError, match=f"longer than {MAX_BYTES:,} bytes"):
                await defer()
        assert perf_counter() - began_at < 1
        assert said == []
        await NamedTask("work").defer(1)
        assert said != []


async def test_a_huge_error_is_kept_short(
    config: Config, registry: Registry, rows: Rows, heard: Any
):
    """A hundred megabytes of text, and a chain of causes without end."""

    @task(name="huge", registry=registry, retries=0)
    async def huge() -> None:
        raise ValueError("://a:" * 20_000_000)

    @task(name="endless", registry=registry, retries=0)
    async def endless() -> None:
        error = ValueError("x" * 100_000)
        error.__cause__ = KeyError("y" * 100_000)
        error.__cause__.__cause__ = error
        raise error

    @task(name="odd", registry=registry, retries=0)
    async def odd() -> None:
        raise _WithoutTextError

    @task(name="again", registry=registry, retries=9)
    async def again() -> None:
        raise ValueError("z" * 100_000)

    async with connect(config=config), working(config, registry, within_seconds=40):
        made = [(await one.defer()).message_id for one in (huge, endless, odd, again)]
        began_at = perf_counter()
        states = [await rows.outcome(message_id, within_seconds=30) for message_id in made]
        assert perf_counter() - began_at < 15
    for state in states:
        assert state["outcome"] == "failed"
        assert 1 <= len(state["errors"]) <= MAX_ERRORS
        for error in state["errors"]:
            assert len(error["error"]) <= MAX_ERROR_CHARS
            assert len(error["traceback"]) <= MAX_TRACEBACK_CHARS
    assert "raised RuntimeError" in states[2]["errors"][0]["error"]
    stored = await rows.fetch("SELECT max(length(headers::text)) FROM pgmq.a_default")
    assert stored[0][0] < 2 * MAX_ERRORS * (MAX_ERROR_CHARS + MAX_TRACEBACK_CHARS)


class _WithoutTextError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


async def test_headers_of_any_size_do_not_matter(config: Config, registry: Registry, rows: Rows):
    """A foreign client's are kept as they are, however long."""
    ran = list[int]()
    done = "SELECT length(headers::text) FROM pgmq.a_default"

    @task(name="work", registry=registry, on_success="archive")
    async def work(n: int) -> None:
        ran.append(n)

    await rows.call("work", [1], headers="jsonb_build_object('x', repeat('h', 20000000))")
    errors = "jsonb_build_array(jsonb_build_object('error', repeat('e', 5000000)))"
    ours = f"jsonb_build_object('pgtasks', jsonb_build_object('errors', {errors}))"
    await rows.call("work", [2], headers=ours)
    async with working(config, registry):
        await rows.empty()
    assert sorted(ran) == [1, 2]
    assert max(row[0] for row in await rows.fetch(done)) > 20_000_000


async def test_names_have_bounds(config: Config, rows: Rows):
    async with connect(config=config):
        for length, fits in ((1, True), (200, True), (201, False), (1_000_000, False)):
            name = "n" * length
            if fits:
                await NamedTask(name).defer()
                await NamedTask("work").schedule(Schedule(name, every=3600))
                continue
            with pytest.raises(PgtasksError) as refused:
                NamedTask(name)
            assert len(str(refused.value)) < 500
            with pytest.raises(PgtasksError) as refused:
                Schedule(name, every=3600)
            assert len(str(refused.value)) < 500
        store = Store(rows.connection)
        assert await store.create_queue("q" * 47)
        with pytest.raises(PgtasksError):
            await store.create_queue("q" * 48)


# What is logged


@pytest.fixture(params=["text", "json"])
def written(request: pytest.FixtureRequest) -> Iterator[io.StringIO]:
    """All that is logged at DEBUG, whoever logs it, as `pgtasks worker` writes it."""
    stream, root, ours = io.StringIO(), logging.getLogger(), logging.getLogger("pgtasks")
    before = (root.handlers[:], root.level, ours.propagate, ours.level)
    logs.configure("debug", request.param, stream, everything=True)
    ours.setLevel(logging.DEBUG)
    stream.is_json = request.param == "json"  # type: ignore[attr-defined]
    yield stream
    root.handlers, root.level, ours.propagate, ours.level = before


async def test_nothing_forges_a_line_of_the_log(
    config: Config, registry: Registry, rows: Rows, written: io.StringIO
):
    """Names and errors with line breaks, escapes, and what other loggers would fill in."""

    @task(name="work", registry=registry, retries=1)
    async def work(text: str) -> None:
        error = ValueError(text)
        error.add_note(text)
        raise error from KeyError(text)

    async with connect(config=config), working(config, registry):
        await NamedTask("gone").defer()
        for name in (EVIL, "a\nINFO worker task done", "%s%s%n{}", "\x1b]0;t\x07"):
            await rows.call(name, {})
        await rows.call("work", {EVIL: 1})
        await work.defer(EVIL)

        async def seen() -> None:
            for event in ("no such task here", "failed, given up", "message cannot be decoded"):
                assert event in written.getvalue()

        await eventually_async(seen)
    text = written.getvalue()
    assert not set("\r\x1b\x00\x85\u2028\u202e\x07") & set(text)
    lines = text.splitlines()
    if written.is_json:  # type: ignore[attr-defined]
        events = [json.loads(line)["event"] for line in lines]
        assert "ERROR forged" not in events
        assert {"level", "logger", "event", "ts"} <= json.loads(lines[0]).keys()
    else:
        # A new line of the log begins with its moment; whatever else there is, is indented.
        begun = [line for line in lines if line and not line.startswith("    ")]
        assert all(line[:4].isdigit() for line in begun)
        assert any("ERROR forged" in line for line in lines if line not in begun)
        assert not [line for line in begun if "task done" in line and "\\nINFO" not in line]
    assert all(len(line) < 100_000 for line in lines)


async def test_arguments_are_not_logged(
    config: Config, registry: Registry, rows: Rows, written: io.StringIO
):
    """At DEBUG either: not of a run that fails, times out, cannot be decoded or is not known."""

    @task(name="failing", registry=registry, retries=0)
    async def failing(card: str) -> None:
        raise KeyError

    @task(name="slow", registry=registry, retries=0, timeout=0.2)
    async def slow(card: str) -> None:
        await asyncio.sleep(30)

    @task(name="fine", registry=registry)
    def fine(card: str) -> None: ...

    @task(name="typed", registry=registry)
    def typed(card: int) -> None: ...

    async with connect(config=config), working(config, registry):
        for name in ("typed", "nobody", "fine"):
            await rows.call(name, {"card": SECRET} if name != "fine" else {"wrong": SECRET})
        for one in (failing, slow, fine):
            await one.defer(SECRET)

        async def seen() -> None:
            text = written.getvalue()
            assert text.count("failed, given up") == 2
            assert text.count("cannot be decoded") == 2
            assert "no such task here" in text

        await eventually_async(seen)
    assert SECRET not in written.getvalue()
    for state in (await rows.archived()).values():
        assert SECRET not in json.dumps(state)


async def test_an_error_that_says_a_password_is_kept_without_it(
    config: Config, registry: Registry, rows: Rows, written: io.StringIO
):
    url = f"postgresql://me:{SECRET}@db/app"

    @task(name="work", registry=registry, retries=0)
    async def work() -> None:
        raise ConnectionError(f"cannot reach {url}") from ValueError(url)

    async with connect(config=config), working(config, registry):
        made = await work.defer()
        state = await rows.outcome(made.message_id)
    assert "postgresql://me:***@db/app" in state["errors"][0]["error"]
    assert SECRET not in json.dumps(state)
    assert SECRET not in written.getvalue()


def test_what_is_printed_of_a_mistake_of_ours_is_safe(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(RuntimeError) as caught:
        raise RuntimeError(f"\x1b[31m postgresql://me:{SECRET}@db")
    report(caught.value)
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert SECRET not in err
    assert "\x1b" not in err
