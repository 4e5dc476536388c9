"""What a server left behind: its pid file, its lock files, its orphaned children."""

import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from pgtasks.embedded.reaper import is_running
from pgtasks.errors import EmbeddedError

ORPHAN_SECONDS = 10.0


def recorded_pid(data_folder: Path) -> int | None:
    """The pid in the data folder's postmaster.pid, None when there is no such file."""
    with suppress(ValueError):
        return int(_pid_file_line(data_folder, 1))
    return None


def claims_to_be_ready(data_folder: Path) -> bool:
    """Whether it is worth asking; asking too early would leave a FATAL line in the log."""
    return _pid_file_line(data_folder, 8).startswith("ready")


def _pid_file_line(data_folder: Path, number: int) -> str:
    with suppress(OSError, IndexError):
        return (data_folder / "postmaster.pid").read_text().splitlines()[number - 1]
    return ""


def serves(pid: int, data_folder: Path) -> bool:
    """Whether `pid` is a living server process of this data folder, not one with a reused pid."""
    if not is_running(pid):
        return False
    if sys.platform == "linux":
        return _lives_in(pid, data_folder)
    else:  # noqa: RET505 - how mypy sees that this is another platform
        command = ("ps", "-o", "command=", "-p", str(pid))
        listed = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        return str(data_folder) in listed.stdout


def clear_leftovers(data_folder: Path, socket_path: Path) -> None:
    """Remove the lock files of a dead server that would keep a new one from starting.

    Postgres does that itself when the recorded pid is gone. When the pid is a zombie (nobody
    waits for it, common in containers) or belongs to another program by now, Postgres refuses.
    The pid file also guards against orphans of the dead server that still write to the data, so
    it is removed only when none are left, which only Linux lets us see.
    """
    pid = recorded_pid(data_folder)
    if pid is None or sys.platform != "linux":
        return
    _wait_for_orphans(data_folder)
    if Path(f"/proc/{pid}").exists():
        (data_folder / "postmaster.pid").unlink(missing_ok=True)
        socket_path.with_name(socket_path.name + ".lock").unlink(missing_ok=True)


def _wait_for_orphans(data_folder: Path) -> None:
    deadline = time.monotonic() + ORPHAN_SECONDS
    while orphans := _processes_in(data_folder):
        if time.monotonic() > deadline:
            raise EmbeddedError(
                f"The server of {data_folder} died, but its processes {orphans} still use the "
                "data. End them with `kill` (not -9), then try again."
            )
        time.sleep(0.01)


def _processes_in(data_folder: Path) -> list[int]:
    pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return [pid for pid in pids if _lives_in(pid, data_folder) and is_running(pid)]


def _lives_in(pid: int, data_folder: Path) -> bool:
    """Every Postgres process works in its data folder (whose name changes when it is deleted)."""
    with suppress(OSError):
        folder = Path(f"/proc/{pid}/cwd").readlink()
        return str(folder).removesuffix(" (deleted)") == str(data_folder)
    return False
