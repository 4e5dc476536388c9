"""Process: programs that are measured or measured against, each ended by its own id."""

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

import anyio
import attrs
from anyio.abc import Process

T = TypeVar("T")

ROOT = Path(__file__).resolve().parent.parent
START_SECONDS = 60.0
END_SECONDS = 20.0


@attrs.frozen
class Running:
    """A program that said it is ready."""

    pid: int
    log: Path

    def only_in(self, turn: Callable[[], Awaitable[T]]) -> Callable[[], Awaitable[T]]:
        """Let it run in this turn only: a loop that asks 500 times a second disturbs others'."""
        os.kill(self.pid, signal.SIGSTOP)

        async def awake() -> T:
            os.kill(self.pid, signal.SIGCONT)
            try:
                return await turn()
            finally:
                os.kill(self.pid, signal.SIGSTOP)

        return awake


@asynccontextmanager
async def bare(
    module: str, *arguments: str, folder: Path, stamps: Path | None = None
) -> AsyncIterator[Running]:
    """Run one of the programs `benchmarks/bare_….py` for the length of a block."""
    command = (sys.executable, "-m", f"benchmarks.{module}", *arguments)
    async with running(command, environment(stamps), folder, "ready", 1) as program:
        yield program


@asynccontextmanager
async def worker(
    url: str,
    *queues: str,
    folder: Path,
    processes: int = 1,
    concurrency: int | None = None,
    stamps: Path | None = None,
) -> AsyncIterator[Running]:
    """Run a real `pgtasks worker`, supervisor and children, for the length of a block."""
    command = (sys.executable, "-m", "pgtasks", "worker", "benchmarks.workload")
    options = ["--processes", str(processes)]
    for queue in queues:
        options += ["--queue", queue]
    if concurrency is not None:
        options += ["--concurrency", str(concurrency)]
    settings = environment(stamps) | {"PGTASKS_DATABASE_URL": url}
    async with running((*command, *options), settings, folder, "worker ready", processes) as it:
        yield it


@asynccontextmanager
async def running(
    command: Sequence[str], environment: dict[str, str], folder: Path, text: str, times: int
) -> AsyncIterator[Running]:
    """Run a program for the length of a block, which begins when it has said a text."""
    log = folder / f"{uuid4().hex[:8]}.log"
    with log.open("wb") as out:
        process = await anyio.open_process(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=folder, env=environment
        )
    try:
        await _wait_for(text, times, process, log)
        async with anyio.create_task_group() as watch:
            watch.start_soon(_fail_when_ended, process, log)
            yield Running(process.pid, log)
            watch.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await _end(process)


# Nothing of the caller's settings may reach what is measured.
def environment(stamps: Path | None) -> dict[str, str]:
    """Return the environment of what is measured."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("PGTASKS_") and name != "DATABASE_URL"
    }
    kept |= {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    return kept if stamps is None else kept | {"BENCH_STAMPS": str(stamps)}


async def _wait_for(text: str, times: int, process: Process, log: Path) -> None:
    with anyio.move_on_after(START_SECONDS):
        while process.returncode is None:
            if _said(log).count(text) >= times:
                return
            await anyio.sleep(0.05)
    raise RuntimeError(
        f"{process.pid} did not say {text!r} {times} times, but:\n{_said(log)[-3000:]}"
    )


async def _fail_when_ended(process: Process, log: Path) -> None:
    await process.wait()
    raise RuntimeError(f"{process.pid} ended while it was measured:\n{_said(log)[-3000:]}")


def _said(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")


async def _end(process: Process) -> None:
    if process.returncode is not None:
        return
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGCONT)  # it may have been stopped
    with anyio.move_on_after(END_SECONDS):
        await process.wait()
        return
    process.kill()
    await process.wait()
