"""Arena: a database, a proxy in front of it, and workers that may be harmed."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any, Self

import asyncpg
import attrs
from acceptance.checker import Checker
from acceptance.evidence import CREATE_EFFECTS
from acceptance.history import VARIABLE, History
from acceptance.own_server import OwnServer
from acceptance.proxy import Proxy
from acceptance.worker_process import WorkerProcess

LEASE_SECONDS = 3.0
POLL_SECONDS = 1.0
GRACE_SECONDS = 5.0
WORKERS = 2
SETTINGS = {
    "PGTASKS__TASK__LEASE": f"{LEASE_SECONDS:g}s",
    "PGTASKS__WORKER__GRACE": f"{GRACE_SECONDS:g}s",
    "PGTASKS__WORKER__QUEUE_FETCH__EMPTY_DELAY": f"{POLL_SECONDS:g}s",
    "PGTASKS__WORKER__QUEUE_FETCH__ERROR_DELAY": "2s",
    "PGTASKS__TASK__ON_SUCCESS": "archive",
    "PGTASKS__TASK__RETRIES": "200",
    "PGTASKS__TASK__DELAY": "200ms",
    "PGTASKS__TASK__MAX_DELAY": "1s",
}
TASKS = "acceptance.tasks_under_test"
ARGUMENTS = ("--processes", "2", "--concurrency", "4", "--log-format", "json")


@attrs.define(eq=False)
class Arena:
    """What a fault may lay hands on. Draw all chance from `random`: then a seed repeats it."""

    server: OwnServer
    proxy: Proxy
    """Between the workers and the server; who defers goes past it."""
    history: History
    random: Random
    folder: Path
    workers: list[WorkerProcess] = attrs.field(factory=list)
    """All that were started, the dead ones too."""

    @classmethod
    @asynccontextmanager
    async def open(
        cls, server: OwnServer, folder: Path, random: Random, *, workers: int = WORKERS
    ) -> AsyncIterator[Self]:
        """Make an empty database and start workers on it; end them when the block is left."""
        await asyncio.to_thread(server.start)
        await asyncio.to_thread(server.create_database)
        async with Proxy.to(server.url) as proxy:
            proxy.faults.random = random
            arena = cls(server, proxy, History(folder / "history"), random, folder)
            try:
                await asyncio.gather(*(arena.start_worker() for _ in range(workers)))
                await arena.execute(CREATE_EFFECTS)
                yield arena
            finally:
                for worker in arena.workers:
                    await asyncio.to_thread(worker.end)

    async def start_worker(
        self, arguments: Sequence[str] = ARGUMENTS, *, children: int = 2
    ) -> WorkerProcess:
        """Start a worker, and return when it is ready."""
        worker = self.spawn_worker(arguments)
        await asyncio.to_thread(worker.wait_until_ready, children)
        return worker

    def spawn_worker(self, arguments: Sequence[str] = ARGUMENTS) -> WorkerProcess:
        """Start a worker, and do not wait for it."""
        environ = {
            **SETTINGS,
            "PGTASKS_DATABASE_URL": self.proxy.url,
            VARIABLE: str(self.history.path),
        }
        worker = WorkerProcess.start((TASKS, *arguments), environ, self.folder)
        self.workers.append(worker)
        return worker

    def living(self) -> list[WorkerProcess]:
        """The workers that run."""
        return [worker for worker in self.workers if worker.process.poll() is None]

    def any_worker(self) -> WorkerProcess:
        """One of them, drawn by lot."""
        return self.random.choice(self.living())

    async def any_child(self) -> tuple[WorkerProcess, int]:
        """A child of one of them, drawn by lot; waits while all are being replaced."""
        while True:
            worker = self.any_worker()
            if children := sorted(worker.children()):
                return worker, self.random.choice(children)
            await asyncio.sleep(0.05)

    async def execute(self, statement: str, *arguments: Any) -> Any:
        """Run a statement past the proxy, on a connection of its own; the first value, if any."""
        connection = await asyncpg.connect(self.server.url, timeout=10)
        try:
            return await connection.fetchval(statement, *arguments, timeout=30)
        finally:
            await connection.close()

    def checker(self) -> Checker:
        """What looks at all this at the end."""
        return Checker(self.history, self.server.url, self.workers)
