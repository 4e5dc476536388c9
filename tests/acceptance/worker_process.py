"""A real `pgtasks worker`, in a process group of its own."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import Any, Self

import attrs
from acceptance.history import VARIABLE, History
from acceptance.processes import children_of, end_group, group_of
from eventually import eventually

TESTS = Path(__file__).parent.parent
START_SECONDS = 30.0
_KILL = signal.SIGKILL
_STOPS = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})


@attrs.define(eq=False)
class WorkerProcess:
    """The supervisor's process, what it says, and what it started.

    What is done to it through this class is written down in the history as a fault.
    """

    process: "subprocess.Popen[bytes]"
    log: Path
    history: History | None = None
    grace_seconds: float = 5.0
    is_killed: bool = attrs.field(default=False, init=False)
    """It was killed, or told to end at once."""
    _told_at: float | None = attrs.field(default=None, init=False)
    _ended_at: float | None = attrs.field(default=None, init=False)

    @classmethod
    def start(cls, arguments: Sequence[str], environ: Mapping[str, str], folder: Path) -> Self:
        """Start `pgtasks worker` with these arguments in a folder; return without waiting."""
        log = folder / f"worker-{len(list(folder.glob('worker-*.log')))}.log"
        command = (sys.executable, "-m", "pgtasks", "worker", *arguments)
        with log.open("ab") as output:
            process = subprocess.Popen(
                command,
                cwd=folder,
                env={**environment(), **environ},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        path = environ.get(VARIABLE)
        return cls(process, log, History(Path(path)) if path else None)

    # What it says

    def text(self) -> str:
        """All it has written so far."""
        return self.log.read_text(errors="replace")

    def lines(self, event: str | None = None) -> list[dict[str, Any]]:
        """The events it has logged so far: those whose text begins so, or all."""
        logged = [json.loads(line) for line in self.text().splitlines() if line.startswith("{")]
        return [line for line in logged if event is None or line["event"].startswith(event)]

    def wait_for(self, event: str, *, times: int = 1, within_seconds: float = 10) -> dict[str, Any]:
        """Wait until an event has been logged so many times; gives the last of them."""

        def logged() -> dict[str, Any]:
            found = self.lines(event)
            assert len(found) >= times, f"{event!r} not logged {times} times:\n{self.text()}"
            return found[-1]

        return eventually(logged, within_seconds=within_seconds)

    def wait_until_ready(self, children: int = 1) -> Self:
        """Wait until so many children have said that they are ready."""
        self.wait_for("worker ready", times=children, within_seconds=START_SECONDS)
        return self

    # What is done to it

    @property
    def pid(self) -> int:
        """The supervisor; also the number of the process group."""
        return self.process.pid

    def children(self) -> list[int]:
        """The supervisor's children."""
        return children_of(self.pid)

    def signal(self, number: int = signal.SIGTERM) -> None:
        """Send the supervisor a signal."""
        self._note_of_all(number)
        self.process.send_signal(number)

    def signal_group(self, number: int) -> None:
        """Send a signal to the supervisor and all it started, as a terminal does."""
        self._note_of_all(number)
        os.killpg(self.pid, number)

    def signal_child(self, pid: int, number: int = _KILL) -> None:
        """Send one child a signal."""
        self._note(number, [pid])
        os.kill(pid, number)

    def _note_of_all(self, number: int) -> None:
        if number in _STOPS:
            if self._told_at is not None:
                return  # said once; finding out who there is would hold up the next one
            self._told_at = monotonic()
        self.is_killed = self.is_killed or number == signal.SIGKILL
        self._note(number, self.leftovers())

    def _note(self, number: int, pids: Sequence[int]) -> None:
        if self.history is None:
            return
        if number == signal.SIGCONT:  # what was frozen goes on
            self.history.note("over", signal.SIGSTOP.name, " ".join(map(str, pids)))
        else:
            self.history.fault(signal.Signals(number).name, *pids)

    @property
    def took_to_end(self) -> float | None:
        """Seconds from the first signal to stop to the supervisor's end; None without one."""
        if self._told_at is None or self._ended_at is None:
            return None
        return self._ended_at - self._told_at

    def wait(self, within_seconds: float = 15) -> int:
        """Wait for the supervisor's end; gives its exit code."""
        try:
            code = self.process.wait(within_seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"still running {within_seconds:g} s later:\n{self.text()}"
            ) from None
        self._ended_at = self._ended_at or monotonic()
        return code

    def stop(self) -> int:
        """Ask it to stop, and wait; gives its exit code."""
        self.signal()
        return self.wait()

    def leftovers(self) -> list[int]:
        """What is left of its process group."""
        return group_of(self.pid)

    def end(self) -> None:
        """End it and its children at once, whatever they are doing."""
        if left := self.leftovers():
            self.is_killed = self.is_killed or self.process.poll() is None
            self._note(signal.SIGKILL, left)
        end_group(self.pid)
        self.process.wait(10)


def environment() -> dict[str, str]:
    """This process's environment, without what would configure pgtasks, with the tests' modules."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("PGTASKS") and name != "DATABASE_URL"
    }
    path = (str(TESTS), kept.get("PYTHONPATH", ""))
    return kept | {"PYTHONPATH": os.pathsep.join(filter(None, path))}
