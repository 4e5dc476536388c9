"""`pgtasks demo`, run for real on real files."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import attrs
import pytest
from acceptance.processes import children_of, running
from acceptance.worker_process import environment
from eventually import eventually

from pgtasks.connection import Connection

DEMO_SECONDS = 90.0
LONG = "def longest_of_all():\n" + "    pass\n" * 3000


@attrs.define(eq=False)
class Demo:
    """A demo's process and what it prints."""

    process: "subprocess.Popen[bytes]"
    output: Path
    seen: set[int] = attrs.field(factory=set)
    """The processes of its worker, as far as a test has looked: they may outlive it."""

    def text(self) -> str:
        """All it has printed so far."""
        return self.output.read_text()

    def wait(self) -> int:
        """Wait for its end; gives its exit code."""
        return self.process.wait(DEMO_SECONDS)

    def wait_for(self, pattern: str) -> str:
        """Wait until it has printed something."""

        def printed() -> str:
            found = re.search(pattern, self.text(), re.MULTILINE)
            assert found, f"{pattern!r} not printed:\n{self.text()}"
            return found[0]

        return eventually(printed, within_seconds=DEMO_SECONDS)

    def number(self, name: str) -> int:
        """The number that stands after a name in the summary."""
        found = re.search(rf"^ +{name} +([\d,]+)", self.text(), re.MULTILINE)
        assert found, f"no {name!r}:\n{self.text()}"
        return int(found[1].replace(",", ""))

    def worker_processes(self) -> list[int]:
        """The worker's supervisor, and its children."""
        supervisors = children_of(self.process.pid)
        found = supervisors + [child for one in supervisors for child in children_of(one)]
        self.seen.update(found)
        return found


class Start:
    """Starts demos that are ended with the test."""

    def __init__(self, database_url: str, folder: Path) -> None:
        self.settings = environment() | {"PGTASKS_DATABASE_URL": database_url}
        self.folder = folder
        self.started: list[Demo] = []

    def __call__(self, *arguments: str | Path, url: str | None = None) -> Demo:
        """Start one with these arguments, and return without waiting."""
        output = self.folder / f"demo-{len(self.started)}.txt"
        settings = self.settings | ({} if url is None else {"PGTASKS_DATABASE_URL": url})
        with output.open("wb") as stream:
            process = subprocess.Popen(
                (sys.executable, "-m", "pgtasks", "demo", *arguments),
                cwd=self.folder, env=settings, stdin=subprocess.DEVNULL, stdout=stream,
                stderr=stream, start_new_session=True,
            )  # fmt: skip
        self.started.append(Demo(process, output))
        return self.started[-1]


@pytest.fixture
def start(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Start `pgtasks demo` on the test's database."""
    starting = Start(database_url, tmp_path_factory.mktemp("demo"))
    yield starting
    for demo in starting.started:
        demo.worker_processes()
        for pid in {one.pid for one in running()} & {*demo.seen, demo.process.pid}:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        demo.process.wait(10)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Real files: a package of the standard library, and some that are hard."""
    folder = tmp_path / "tree"
    package = Path(tokenize.__file__).parent
    shutil.copytree(package / "json", folder / "json")
    shutil.copytree(package / "asyncio", folder / "asyncio")
    shutil.rmtree(folder / "json" / "__pycache__", ignore_errors=True)
    shutil.rmtree(folder / "asyncio" / "__pycache__", ignore_errors=True)
    (folder / "long.py").write_text(LONG)
    (folder / "notes.txt").write_text("one\ntwo\n")
    (folder / "unfinished.py").write_text("def broken(:\n")
    (folder / "picture.png").write_bytes(b"\x89PNG\0")
    (folder / os.fsdecode(b"caf\xe9\n.py")).write_text("def drink(): pass\n")
    return folder


async def leftovers(connection: Connection) -> list[str]:
    """What of the demo's is in the database."""
    rows = await connection.fetch(
        "SELECT nspname::text FROM pg_namespace WHERE nspname = 'pgtasks_demo'"
        " UNION ALL SELECT tablename::text FROM pg_tables WHERE tablename ~ 'pgtasks_demo'"
        " UNION ALL SELECT queue_name::text FROM pgmq.meta"
    )
    return [row[0] for row in rows]


def counted(tree: Path) -> tuple[int, int, int]:
    """The files that can be measured, their lines and their functions, by another way."""
    sources = [path for path in tree.rglob("*.py") if path.name != "unfinished.py"]
    lines = sum(len(path.read_bytes().split(b"\n")) - 1 for path in (*sources, tree / "notes.txt"))
    functions = 0
    for path in sources:
        with path.open("rb") as file:
            functions += sum(
                token.type == tokenize.NAME and token.string == "def"
                for token in tokenize.tokenize(file.readline)
            )
    return len(sources) + 1, lines, functions


async def test_its_numbers_are_those_of_the_files(
    start: Start, tree: Path, connection: Connection
) -> None:
    files, lines, functions = counted(tree)

    demo = start("--folder", tree, "--processes", "2")

    assert demo.wait() == 0, demo.text()
    assert [demo.number(name) for name in ("files", "lines", "functions")] == [
        files, lines, functions
    ]  # fmt: skip
    assert "3,001 lines: longest_of_all in long.py:1" in demo.text()
    assert demo.number("done") == files
    assert demo.number("of them") == 5  # stumbled, and were retried
    assert demo.number("given up") == 2  # unfinished.py, and the one the demo adds
    assert re.search(r"^ +unfinished\.py: SyntaxError: ", demo.text(), re.MULTILINE)
    assert re.search(r"^ +not_python\.py: SyntaxError: ", demo.text(), re.MULTILINE)
    assert "passed over: binary files: 1" in demo.text()
    total = files + 2
    assert f"{total} sent = {files} done + 2 given up + 0 waiting" in demo.text()
    assert await leftovers(connection) == []


async def test_keep_leaves_all_to_look_at_until_the_next_demo(
    start: Start, tree: Path, connection: Connection
) -> None:
    files, lines, functions = counted(tree)

    assert start("--folder", tree, "--processes", "1", "--keep").wait() == 0

    [row] = await connection.fetch(
        "SELECT count(*), sum(lines), sum(functions) FROM pgtasks_demo.file"
    )
    assert tuple(row) == (files, lines, functions)
    outcomes = await connection.fetch(
        "SELECT headers #>> '{pgtasks,outcome}', count(*) FROM pgmq.a_pgtasks_demo GROUP BY 1"
    )
    assert dict(map(tuple, outcomes)) == {"done": files, "failed": 2}

    assert start("--folder", tree / "json").wait() == 0
    assert await leftovers(connection) == []


async def test_a_killed_process_changes_no_number_and_a_second_demo_is_refused(
    start: Start, tree: Path, connection: Connection
) -> None:
    for copy in range(40):  # some seconds of work, on a quick machine too
        shutil.copytree(tree / "asyncio", tree / f"copy{copy}")
    files, lines, functions = counted(tree)

    demo = start("--folder", tree, "--processes", "2")
    demo.wait_for(r"^[1-9][\d,]* of [\d,]+ messages")
    os.kill(eventually(lambda: _some(demo.worker_processes()[1:])), signal.SIGKILL)
    second = start("--folder", tree)
    assert second.wait() == 1
    assert "another `pgtasks demo` is running" in second.text()

    assert demo.wait() == 0, demo.text()
    assert [demo.number(name) for name in ("files", "lines", "functions", "done")] == [
        files, lines, functions, files
    ]  # fmt: skip
    assert await leftovers(connection) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_interrupted_it_leaves_nothing(
    start: Start, connection: Connection, number: int
) -> None:
    demo = start()
    demo.wait_for(r"^[1-9]\d* of [\d,]+ messages")
    worker = demo.worker_processes()
    assert len(worker) >= 2

    os.killpg(demo.process.pid, number)

    assert demo.wait() == 128 + number, demo.text()
    assert "interrupted: stopping the worker and clearing up" in demo.text()
    assert "Traceback" not in demo.text()
    assert not {one.pid for one in running()} & set(worker)
    assert await leftovers(connection) == []


async def test_when_it_is_killed_its_worker_ends_and_the_next_one_clears_up(
    start: Start, tree: Path, connection: Connection
) -> None:
    demo = start("--folder", tree)
    worker = eventually(lambda: _several(demo.worker_processes()), within_seconds=30)

    demo.process.kill()

    eventually(lambda: _none(set(worker) & {one.pid for one in running()}), within_seconds=30)
    assert await leftovers(connection) != []
    assert start("--folder", tree / "json").wait() == 0
    assert await leftovers(connection) == []


async def test_a_schema_of_somebody_elses_is_left_alone(
    start: Start, tree: Path, connection: Connection
) -> None:
    await connection.execute("CREATE SCHEMA pgtasks_demo CREATE TABLE mine (x int)")
    demo = start("--folder", tree)
    assert demo.wait() == 1
    assert "that the demo did not make" in demo.text()
    assert await connection.fetchval("SELECT count(*) FROM pgtasks_demo.mine") == 0


def test_what_cannot_work_is_said_in_words(start: Start, tree: Path, tmp_path: Path) -> None:
    missing = start("--folder", tmp_path / "missing")
    unreachable = start("--folder", tree, url="postgresql://me:hidden@127.0.0.1:1/none")
    assert missing.wait() == 2
    assert "missing: No such file or directory" in missing.text()
    assert unreachable.wait() == 1
    assert "cannot connect to postgresql://me:***@127.0.0.1:1/none" in unreachable.text()
    assert "Traceback" not in missing.text() + unreachable.text()


def _some(pids: list[int]) -> int:
    assert pids
    return pids[0]


def _several(pids: list[int]) -> list[int]:
    assert len(pids) > 1
    return pids


def _none(pids: set[int]) -> None:
    assert not pids
