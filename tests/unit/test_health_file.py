"""What supervisors write of their workers, and what is found of it."""

import fcntl
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from pgtasks import health_file
from pgtasks.health import Health, Problem
from pgtasks.health_file import HealthFile, Status, find_workers

SICK = Health((Problem("database", 3.0, 7), Problem("held up", 1.5, 8)), processes=2)


def status(health: Health = SICK, **changes: Any) -> Status:
    return attrs.evolve(Status.of(Path("/srv/shop"), 60.0, health), **changes)


@pytest.fixture
def place(tmp_path: Path) -> str:
    return str(tmp_path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the files of this account's workers are."""
    return tmp_path / f"pgtasks-{os.geteuid()}"


@pytest.fixture
def file(place: str) -> Iterator[HealthFile]:
    """The file of this process's worker."""
    made = HealthFile.make(status(), [place])
    yield made
    made.close()


def test_what_was_written_is_found(file: HealthFile, place: str, folder: Path):
    [found] = find_workers([place])
    assert (found.pid, found.project_folder, found.health) == (os.getpid(), "/srv/shop", SICK)
    for health in (Health(), SICK, Health((), 3)):
        file.write(status(health))
        assert [one.health for one in find_workers([place])] == [health]
    assert folder.stat().st_mode & 0o777 == 0o700
    assert [path.stat().st_mode & 0o777 for path in folder.iterdir()] == [0o600]


def test_nothing_is_left_of_a_worker_that_ended(place: str, folder: Path):
    file = HealthFile.make(status(), [place])
    file.close()
    assert list(folder.iterdir()) == []
    assert find_workers([place]) == []


def test_several_workers_are_told_apart(place: str):
    files = [HealthFile.make(status(pid=number), [place]) for number in (30, 10, 20)]
    assert [one.pid for one in find_workers([place, place])] == [10, 20, 30]
    for file in files:
        file.close()


def test_a_supervisor_that_has_fallen_silent_is_not_believed(file: HealthFile, place: str):
    file.write(status(Health(), written_at=time.monotonic() - 61, stale_after=60.0))
    [found] = find_workers([place])
    [problem] = found.health.problems
    assert (problem.kind, problem.pid) == ("silent", os.getpid())
    assert not found.health.is_live
    file.write(status(Health(), written_at=time.monotonic() - 50, stale_after=60.0))
    assert find_workers([place])[0].health.is_ready


def test_workers_of_another_host_are_not_ours(file: HealthFile, place: str):
    """Containers may share a folder for temporary files; both have a process 1."""
    file.write(status(host="another"))
    assert find_workers([place]) == []


DYING = """
import sys
from pathlib import Path
from pgtasks.health import Health
from pgtasks.health_file import HealthFile, Status
HealthFile.make(Status.of(Path("/srv/shop"), 1e9, Health()), [sys.argv[1]])
print("made", flush=True)
sys.stdin.read()
"""


def test_a_worker_that_was_killed_is_gone_whoever_has_its_number_now(place: str, folder: Path):
    command = [sys.executable, "-c", DYING, place]
    dying = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with dying:
        assert dying.stdout is not None
        assert dying.stdout.readline() == "made\n"
        [found] = find_workers([place])
        assert found.pid == dying.pid
        dying.kill()
        dying.wait()
        [left] = folder.iterdir()
        left.rename(folder / f"{os.getpid()}-0.worker")  # a process that lives
        assert find_workers([place]) == []
        assert list(folder.iterdir()) == []


def test_a_new_worker_removes_what_killed_ones_have_left(place: str, folder: Path):
    folder.mkdir(mode=0o700)
    for number in range(3):
        (folder / f"{number}-dead.worker").write_text("left")
    file = HealthFile.make(status(), [place])
    assert list(folder.iterdir()) == [file.path]
    assert not file.is_gone()
    file.close()


def test_a_file_that_somebody_removed_is_known_to_be_gone(file: HealthFile):
    file.path.unlink()
    assert file.is_gone()


def test_a_reader_never_sees_half_of_what_is_written(file: HealthFile, place: str):
    """Written in place, by one process, while another one reads."""
    long = Health(tuple(Problem("held up", 0.0, number) for number in range(3000)))
    known = {Health(): 0, SICK: 0, long: 0}
    enough = threading.Event()

    def write() -> None:
        while not enough.is_set():
            for health in known:
                file.write(status(health))

    writing = threading.Thread(target=write)
    writing.start()
    deadline = time.monotonic() + 20
    try:
        while min(known.values()) < 5:
            assert time.monotonic() < deadline, known.values()
            for found in find_workers([place]):
                known[found.health] += 1
    finally:
        enough.set()
        writing.join()


def test_what_is_half_written_is_read_again(
    file: HealthFile, place: str, monkeypatch: pytest.MonkeyPatch
):
    """A writer that the machine put aside in the middle of its line."""
    read, seen = os.pread, list[bytes]()

    def torn(descriptor: int, size: int, at: int) -> bytes:
        seen.append(read(descriptor, size, at))
        whole = len(seen) == 5
        return seen[-1] if whole else seen[-1].replace(b'"processes":2', b'"processes":3')

    monkeypatch.setattr("os.pread", torn)
    [found] = find_workers([place])
    assert found.health == SICK
    assert len(seen) == 5


def test_what_is_not_ours_in_the_folder_is_passed_over_at_once(
    file: HealthFile, place: str, folder: Path, tmp_path: Path
):
    os.mkfifo(folder / "1-fifo.worker")
    (folder / "2-folder.worker").mkdir()
    (folder / "3-link.worker").symlink_to(tmp_path / "secret")
    (tmp_path / "secret").write_text("kept")
    held = [_locked(folder / "4-text.worker", b"garbage"), _locked(folder / "5-empty.worker", b"")]
    held.append(_locked(folder / "6-json.worker", b"00000000 {}\n"))
    held.append(_locked(folder / "7-endless.worker", b"x" * (health_file.MOST_BYTES + 100)))
    began_at = time.monotonic()
    assert [found.pid for found in find_workers([place])] == [os.getpid()]
    assert time.monotonic() - began_at < 1
    assert (tmp_path / "secret").read_text() == "kept"
    for descriptor in held:
        os.close(descriptor)


def _locked(path: Path, content: bytes) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    os.write(descriptor, content)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


def test_the_next_place_is_taken_when_the_first_will_not_do(tmp_path: Path):
    not_a_folder, no_place, place = tmp_path / "file", tmp_path / "missing", tmp_path / "good"
    not_a_folder.write_text("")
    place.mkdir()
    places = [str(not_a_folder), str(no_place), str(place)]
    file = HealthFile.make(status(), places)
    assert [found.pid for found in find_workers(places)] == [os.getpid()]
    assert file.path.is_relative_to(place)
    file.close()
    with pytest.raises(OSError, match="file"):
        HealthFile.make(status(), places[:2])


@pytest.mark.parametrize("how", ["open to others", "a link", "another's"])
def test_a_folder_that_others_may_write_to_is_neither_used_nor_believed(
    how: str, place: str, folder: Path, tmp_path: Path
):
    real = tmp_path / "real"
    HealthFile.make(status(), [str(tmp_path)])  # never closed: its worker lives
    folder.rename(real)
    if how == "a link":
        folder.symlink_to(real)
    else:
        real.rename(folder)
        if how == "open to others":
            folder.chmod(0o770)
        elif os.geteuid() == 0:
            os.chown(folder, 12_345, -1)
        else:
            pytest.skip("only root can give a folder away")
    assert find_workers([place]) == []
    with pytest.raises(PermissionError, match="not a folder of this account alone"):
        HealthFile.make(status(), [place])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root sees those of others")
def test_root_sees_the_workers_of_others(file: HealthFile, place: str, folder: Path):
    """A container starts as root, and its worker may run as somebody else."""
    os.chown(folder, 12_345, -1)
    assert find_workers([place]) == []  # the folder's name and its owner differ
    folder.rename(folder.with_name("pgtasks-12345"))
    assert [found.pid for found in find_workers([place])] == [os.getpid()]
