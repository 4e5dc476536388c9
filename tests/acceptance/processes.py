"""What runs on this machine, as `ps` tells it: the same on Linux and macOS."""

import os
import subprocess
from contextlib import suppress

import attrs


@attrs.frozen
class Running:
    """One process; a zombie, which nobody has waited for yet, counts as gone."""

    pid: int
    parent: int
    group: int
    command: str


def running() -> list[Running]:
    """All processes of the machine but zombies."""
    command = ("ps", "-A", "-ww", "-o", "pid=,ppid=,pgid=,stat=,args=")
    listed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    found = []
    for line in listed.stdout.splitlines():
        pid, parent, group, state, *words = line.split(None, 4)
        if not state.startswith("Z"):
            found.append(Running(int(pid), int(parent), int(group), " ".join(words)))
    return found


def children_of(pid: int) -> list[int]:
    """The ids of a process's own children."""
    return [one.pid for one in running() if one.parent == pid]


def group_of(group: int) -> list[int]:
    """The ids of what still runs in a process group."""
    return [one.pid for one in running() if one.group == group]


def end_group(group: int) -> None:
    """End a process group at once, stopped processes too."""
    with suppress(ProcessLookupError):
        os.killpg(group, 9)
