"""What `pgtasks demo` decides without a database."""

import io
import itertools
import os
import re
import tokenize
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import asyncpg
import msgspec
import pytest

from pgtasks.codec import encode_plain
from pgtasks.demo import estate, progress
from pgtasks.demo.files import find_files, to_name, to_path
from pgtasks.demo.measurement import MAX_BYTES, NONE, Function, measure_file
from pgtasks.demo.progress import Progress, bar, describe
from pgtasks.demo.recipe import STUMBLES, _calls
from pgtasks.demo.statement import statement
from pgtasks.demo.summary import Summary, shown
from pgtasks.demo.tasks import QUEUE, RETRIES, Stumble
from pgtasks.errors import ConfigError

ODD_NAMES = (b"new\nline.py", b"caf\xe9.py", b"%41.py", "grüße 🎉.md".encode(), b" .txt")
NESTED = """\
class Outer:
    def method():
        async def inner():
            return lambda: 1
        return inner

if True:
    @decorated
    def last(): pass
"""


Write = Callable[[str, str | bytes], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a file below the test's folder."""

    def _write(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return _write


# Files


def test_only_text_of_the_folder_itself_is_found(tmp_path: Path, write: Write) -> None:
    """Links, loops of them, hidden, generated and binary files are passed over."""
    for name in ("b.py", "a/c.txt", "Makefile", ".git/x", "node_modules/x", "__pycache__/x"):
        write(name, "text")
    write("picture", b"a\0b")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    (tmp_path / "self").symlink_to("self")
    (tmp_path / "again.py").symlink_to("b.py")
    os.mkfifo(tmp_path / "pipe")

    found = find_files(tmp_path)

    assert [path.relative_to(tmp_path).as_posix() for path in found.paths] == [
        "Makefile", "b.py", "a/c.txt"
    ]  # fmt: skip
    assert found.binary == 1


def test_without_a_folder_there_are_more_than_a_thousand() -> None:
    found = find_files(None)
    assert len(found.paths) > 1000
    assert {path.suffix for path in found.paths} == {".py"}


def test_relative_folders_are_made_absolute(
    tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker may stand in another folder than the demo."""
    write("src/a.py", "")
    monkeypatch.chdir(tmp_path)
    assert find_files(Path("src")).paths == (tmp_path / "src" / "a.py",)


@pytest.mark.parametrize("name", ["missing", "file.py"])
def test_what_is_no_folder_is_refused(tmp_path: Path, write: Write, name: str) -> None:
    write("file.py", "")
    with pytest.raises(ConfigError, match=f"--folder .*{name}: "):
        find_files(tmp_path / name)


def test_a_folder_without_text_is_refused(tmp_path: Path, write: Write) -> None:
    write("picture", b"\0")
    with pytest.raises(ConfigError, match="no text file in it; 1 binary"):
        find_files(tmp_path)


@pytest.mark.parametrize("raw", ODD_NAMES)
def test_every_name_travels_as_a_message(raw: bytes) -> None:
    path = Path("/tmp") / os.fsdecode(raw)
    name = msgspec.json.decode(encode_plain((to_name(path),), {}))[0]
    assert to_path(name) == path


def test_usual_names_stay_readable() -> None:
    assert to_name(Path("/a/grüße.py")) == "/a/grüße.py"


# Measurement


def test_functions_are_named_by_what_is_around_them(write: Write) -> None:
    found = measure_file(write("x.py", NESTED))
    assert (found.lines, found.functions) == (9, 3)
    assert found.longest == Function("Outer.method", 2, 4)


def test_counts_every_def_of_real_code() -> None:
    """Against the tokens of the file: another way to the same number."""
    path = Path(tokenize.__file__).with_name("argparse.py")
    with path.open("rb") as file:
        words = [token.string for token in tokenize.tokenize(file.readline)
                 if token.type == tokenize.NAME]  # fmt: skip
    assert measure_file(path).functions == words.count("def") > 100


@pytest.mark.parametrize(
    ("content", "lines"), [("", 0), ("a", 1), ("a\n", 1), ("a\nb", 2), (b"\xff\n\n", 2)]
)
def test_lines_are_counted_whatever_they_hold(
    write: Write, content: str | bytes, lines: int
) -> None:
    found = measure_file(write("x.txt", content))
    assert (found.lines, found.functions, found.longest) == (lines, 0, NONE)


@pytest.mark.parametrize(
    ("name", "content"),
    [("x.py", "no Python\n"), ("x.py", b"a = '\xff'"), ("x.txt", b"x" * (MAX_BYTES + 1))],
)
def test_what_no_attempt_would_mend_is_not_tried_again(
    write: Write, name: str, content: str | bytes
) -> None:
    with pytest.raises((SyntaxError, ValueError)) as raised:
        measure_file(write(name, content))
    assert RETRIES.delay_after(1, raised.value) is None


def test_what_is_gone_is_not_tried_again_and_a_stumble_is(tmp_path: Path) -> None:
    with pytest.raises(OSError) as raised:  # noqa: PT011 - which one is the system's
        measure_file(tmp_path / "gone.py")
    assert RETRIES.delay_after(1, raised.value) is None
    assert RETRIES.delay_after(1, Stumble()) is not None
    assert RETRIES.delay_after(1, ConnectionResetError()) is not None


@pytest.mark.parametrize("count", [0, 1, 4, 5, 6, 999])
def test_a_handful_stumbles(count: int) -> None:
    calls = _calls([Path(f"/{place}") for place in range(count)])
    assert len(calls) == count
    assert sum(call["stumble"] for call in calls) == min(STUMBLES, count)


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


# Progress


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock for progress that goes on by 0.2 s whenever it is read."""
    now = itertools.count(0.2, 0.2)
    monkeypatch.setattr(progress, "monotonic", lambda: next(now))


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> _Terminal:
    """A terminal of 80 columns."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    return _Terminal()


def test_a_pipe_gets_whole_lines_a_second_apart() -> None:
    stream = io.StringIO()
    piped = Progress(stream)
    for place in range(9):
        piped.show(f"at {place}", bar(place, 9))
    lines = stream.getvalue().splitlines()
    assert 1 < len(lines) < 5
    assert all(line.startswith("at ") for line in lines)
    assert "\r" not in stream.getvalue()


def test_a_terminal_keeps_one_line(terminal: _Terminal) -> None:
    live = Progress(terminal)
    live.show("a long line", bar(1, 2))
    live.show("short", bar(1, 2))
    live.say("done")
    first, second, blank, last = terminal.getvalue().split("\r")[1:]
    assert first == f"{bar(1, 2)} a long line"
    assert len(second) == len(first)
    assert not blank.strip()
    assert last == "done\n"


@pytest.mark.parametrize("columns", ["20", "21", "59", "60"])
def test_the_line_fits_a_narrow_terminal(
    terminal: _Terminal, monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    live = Progress(terminal)
    for _ in range(3):
        live.show(describe(123_456, 789, 1_234_567), bar(1, 10))
    live.clear()
    assert terminal.getvalue()
    assert all(len(part) < int(columns) for part in terminal.getvalue().split("\r"))


@pytest.mark.parametrize("ended", [0, 1, 1790, 1791])
def test_the_bar_is_full_at_the_end_only(ended: int) -> None:
    drawn = bar(ended, 1791)
    assert len(drawn) == len(bar(0, 1))
    assert ("." not in drawn) == (ended == 1791)


# Summary


def test_counts_must_agree() -> None:
    assert _summary().is_complete(10)
    assert not _summary().is_complete(11)
    assert not _summary(waiting=1).is_complete(10)
    assert not _summary(done=8, given_up=2).is_complete(10)
    assert "NOT ALL" in "\n".join(_summary(waiting=1).lines(10, (), 80))


def test_errors_stay_on_one_line_of_the_terminal() -> None:
    error = {"path": "/x/a\nb.py", "outcome": "failed", "error": "E: \x1b[31m" + "y" * 200}
    lines = list(_summary(errors=[error]).lines(10, (Path("/x"),), 50))
    [line] = [line for line in lines if "a\\nb.py" in line]
    assert len(line) == 50
    assert "\x1b" not in line


def test_more_errors_are_counted() -> None:
    errors = [{"path": f"/{place}", "outcome": "crashed", "error": None} for place in range(5)]
    text = "\n".join(_summary(done=3, given_up=7, errors=errors).lines(10, (), 80))
    assert "/4: crashed" in text
    assert "... and 2 more" in text


def test_a_path_is_shown_below_its_folder_whatever_its_bytes() -> None:
    path = Path("/src") / os.fsdecode(b"caf\xe9.py")
    assert shown(to_name(path), (Path("/else"), Path("/src"))) == "caf\\xe9.py"


def _summary(
    done: int = 9, given_up: int = 1, waiting: int = 0, errors: list[dict[str, Any]] | None = None
) -> Summary:
    def row(**columns: Any) -> asyncpg.Record:
        return cast("asyncpg.Record", columns)

    return Summary(
        files=row(files=9, bytes=1000, lines=100, functions=10),
        longest=row(path="/a.py", name="f", line=1, lines=5),
        messages=row(
            ended=done + given_up, done=done, retried=1, given_up=given_up, waiting=waiting
        ),
        given_up=[row(**error) for error in errors or []],
        rate=row(messages=10, seconds=0.0),
        latency=row(messages=0, picked_up=None, picked_up_max=None, ended=None, ended_max=None),
    )


def test_the_statements_speak_of_the_demos_queue_and_mark() -> None:
    """Their names are written out in SQL, for whoever reads it."""
    assert estate.MARK in statement("create")
    for name in ("create", "drop"):
        assert f"'{QUEUE}'" in statement(name)
    assert f"pgmq.q_{QUEUE}, pgmq.a_{QUEUE};" in statement("drop")


def test_the_tasks_stay_short() -> None:
    """They are what people read first."""
    source = Path(estate.__file__).with_name("tasks.py").read_text()
    assert source.count("\n") < 80


def test_the_tutorial_shows_the_task_as_it_is() -> None:
    tutorial = (Path(__file__).parents[2] / "docs" / "tutorial.md").read_text()
    part = tutorial.split("## 2. What ran")[1].split("## 3.")[0]
    shown_there = re.findall(r"```python\n(.*?)```", part, re.DOTALL)
    source = Path(estate.__file__).with_name("tasks.py").read_text()
    assert len(shown_there) > 3
    assert [block for block in shown_there if block not in source] == []
