"""Usage: what a process of this machine has used, as the kernel tells it."""

import os
from pathlib import Path

import anyio


def is_told() -> bool:
    """Whether this system has a /proc that tells a process's memory."""
    return Path("/proc/self/smaps_rollup").exists()


def is_here(pid: int) -> bool:
    """Whether the process of a server is one of this machine."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"postgres")
    except OSError:
        return False


def cpu_seconds(pid: int) -> float:
    """How long all threads of a process have run, to the nanosecond where the kernel tells it."""
    try:
        threads = list(Path(f"/proc/{pid}/task").glob("*/schedstat"))
        if times := [int(thread.read_text().split()[0]) for thread in threads]:
            return sum(times) / 1e9
    except FileNotFoundError:  # a thread that has just ended
        return cpu_seconds(pid)
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")


def megabytes(pid: int, kind: str) -> float:
    """Memory of a process: its `Rss` or `Pss`."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(f"{kind}:"):
            return int(line.split()[1]) / 1024
    raise LookupError(f"/proc/{pid}/smaps_rollup has no line {kind}")


async def only_child(pid: int) -> int:
    """Wait for the first child of a process."""
    with anyio.fail_after(10):
        while not (children := _children(pid)):  # noqa: ASYNC110 - nobody tells of a new process
            await anyio.sleep(0.05)
    return children[0]


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
