"""Worker: what `pgtasks worker pgtasks.demo.tasks` does, as a process that ends with the demo.

The settings arrive as the first line of its standard input, so that a password in them shows in
no list of processes; the end of that input tells it to stop, in whatever way the demo ended.
"""

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import IO

import anyio
import anyio.abc
import attrs
import msgspec

from pgtasks.config import Config, InstallConfig, LogConfig
from pgtasks.demo.tasks import QUEUE
from pgtasks.errors import PgtasksError
from pgtasks.layers import Loaded
from pgtasks.logs import configure
from pgtasks.supervisor import Supervisor

SLOTS = 4
"""Messages at a time in each process: parsing is done by one of its threads at a time anyway."""
GRACE = timedelta(seconds=5)
END_SECONDS = GRACE.total_seconds() + 5.0
LAST_LINES = 15


@attrs.frozen
class Assignment:
    """What the demo tells its worker."""

    config: Config
    project_folder: str


@attrs.define(eq=False)
class WorkerProcess:
    """The worker, as the demo holds it."""

    process: anyio.abc.Process
    log: IO[bytes]

    def check(self) -> None:
        """Make sure that it runs.

        Raises:
            PgtasksError: it has ended; the text has the last lines it said.
        """
        if (code := self.process.returncode) is not None:
            raise self.failed(f"the worker ended too early, with exit code {code}")

    def failed(self, what: str) -> PgtasksError:
        """Return the error that says what is wrong, with the last lines the worker said."""
        self.log.seek(0)
        said = self.log.read().decode(errors="replace").splitlines()[-LAST_LINES:]
        return PgtasksError("\n  ".join([what, *said]))

    async def stop(self) -> None:
        """Let it end what it runs, and wait for that, even while everything is cancelled."""
        with anyio.CancelScope(shield=True):
            await self.process.stdin.aclose()  # type: ignore[union-attr]
            with anyio.move_on_after(END_SECONDS):
                await self.process.wait()
                return
            self.process.kill()
            await self.process.wait()


@asynccontextmanager
async def worker_process(loaded: Loaded, processes: int) -> AsyncIterator[WorkerProcess]:
    """Run a worker for the length of a block."""
    assignment = Assignment(_for_worker(loaded.config, processes), str(loaded.project_folder))
    with tempfile.TemporaryFile() as log:
        process = await anyio.open_process(
            [sys.executable, "-m", "pgtasks.demo.worker"],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=log,
            # Of another session: Ctrl-C is for the demo, which then ends its worker.
            start_new_session=True,
            # The sources of others: what Python would warn of in them is not ours to mend.
            env=os.environ | {"PYTHONWARNINGS": "ignore"},
        )  # fmt: skip
        worker = WorkerProcess(process, log)
        try:
            assert process.stdin is not None  # noqa: S101
            await process.stdin.send(msgspec.json.encode(assignment) + b"\n")
            yield worker
        finally:
            await worker.stop()


def _for_worker(config: Config, processes: int) -> Config:
    """The settings of the project, but for what makes it the demo's worker and nobody else's."""
    worker = attrs.evolve(
        config.worker,
        tasks=("pgtasks.demo.tasks",),
        queues=None,
        queue_config={},
        concurrency=SLOTS,
        processes=processes,
        grace=GRACE,
        install=InstallConfig(enable=False),
    )
    return attrs.evolve(config, worker=worker, log=LogConfig(level="info", format="text"))


def main() -> int:
    """Be the worker of the demo at the other end of the standard input."""
    assignment = msgspec.json.decode(sys.stdin.buffer.readline(), type=Assignment)
    configure(assignment.config.log.level, assignment.config.log.format)
    loaded = Loaded(assignment.config, origins={}, project_folder=Path(assignment.project_folder))
    threading.Thread(target=_stop_with_demo, daemon=True).start()
    try:
        return anyio.run(Supervisor(loaded, (QUEUE,)).run)
    except PgtasksError as error:
        print(error, file=sys.stderr)
        return 1


def _stop_with_demo() -> None:
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
