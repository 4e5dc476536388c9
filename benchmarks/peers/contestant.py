"""Contestant: one system that is set up and waits for its turns."""

import json
import subprocess
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import asyncpg
import attrs
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream

from benchmarks.bench import LONGEST_SECONDS, Bench
from benchmarks.peers.catalogue import OURS, Peer
from benchmarks.peers.environment import Environment
from benchmarks.process import ROOT, Running, environment, running, worker
from benchmarks.rounds import Sample
from benchmarks.stamps import now, read_stamps
from benchmarks.stats import percentile
from pgtasks.connection import Connection
from pgtasks.embedded import binaries
from pgtasks.embedded.account import Account
from pgtasks.errors import EmbeddedError

BULK, ONE, FIFTY, DRAIN = "bulk", "one", "fifty", "drain"
P50, P99 = "p50", "p99"
AT_ONCE = 50
SPACED = 100
SPACING_SECONDS = 0.02


@attrs.define
class Contestant:
    """A system, where it is installed, and its database."""

    peer: Peer
    installed: Environment
    url: str
    bench: Bench
    _producer: "_Line"
    _connection: Connection

    @property
    def size(self) -> int:
        """How many messages a drain has."""
        return self.peer.messages // (10 if self.bench.quick else 1)

    async def turn(self) -> Sample:
        """Defer one by one and many, then let a worker drain them, and wait for more."""
        seconds = 0.3 if self.bench.quick else 1.0
        sample = {
            ONE: await self._producer.ask("single", 1, seconds),
            FIFTY: await self._producer.ask("single", AT_ONCE, seconds),
        }
        stamps = self.bench.folder / f"{self.peer.name}.stamps"
        stamps.write_bytes(b"")
        # What was deferred one by one is worked off, so that the drain has its own alone.
        await self._producer.ask("paced", 1, 0.0)
        async with self._working(stamps):
            await _stamps_of(stamps, {1})
            await self._wait_until_done()
            await anyio.sleep(0.5)
        size = self.size
        sample[BULK] = size / await self._producer.ask("many", size)
        async with self._working(stamps):
            sample[DRAIN] = await self._drain(stamps, size)
            sample |= await self._pickup(stamps)
        return sample

    def _working(self, stamps: Path) -> AbstractAsyncContextManager[Running]:
        if self.peer is OURS:
            return worker(self.url, "bench_peers", folder=self.bench.folder, stamps=stamps)
        command = _command(self.peer, self.installed, "work", self.url)
        return running(command, environment(stamps), self.bench.folder, "ready", 1)

    async def _drain(self, stamps: Path, size: int) -> float:
        """From the start of the first message until the last is durably done."""
        started = await _stamps_of(stamps, {1, 2})
        if self.peer.unfinished is None:
            return size / (started[2] - started[1])
        await self._wait_until_done()
        return size / (now() - started[1])

    async def _wait_until_done(self) -> None:
        if self.peer.unfinished is None:
            return
        with anyio.fail_after(LONGEST_SECONDS):
            while await self._connection.fetchval(self.peer.unfinished):  # noqa: ASYNC110 - theirs
                await anyio.sleep(0.005)

    async def _pickup(self, stamps: Path) -> Sample:
        """From the answer to a single defer to the start, with a worker that has nothing to do."""
        await anyio.sleep(1)
        count = SPACED // 4 if self.bench.quick else SPACED
        stored = await self._producer.ask("paced", count, SPACING_SECONDS)
        started = await _stamps_of(stamps, set(range(1, count + 1)))
        latencies = [1000 * (started[n] - moment) for n, moment in enumerate(stored, 1)]
        return {P50: percentile(latencies, 50), P99: percentile(latencies, 99)}


@asynccontextmanager
async def set_up(
    peer: Peer, installed: Environment, url: str, bench: Bench
) -> AsyncIterator[Contestant]:
    """Prepare a database for a system, and start the program that defers to it."""
    with anyio.fail_after(LONGEST_SECONDS):
        result = await anyio.run_process(
            _command(peer, installed, "prepare", url), check=False, env=_with_psql(), cwd=ROOT
        )
    if result.returncode:
        raise RuntimeError(result.stderr.decode(errors="replace").strip()[-2000:])
    connection = await asyncpg.connect(url, timeout=10)
    try:
        async with _line(_command(peer, installed, "produce", url)) as producer:
            yield Contestant(peer, installed, url, bench, producer, connection)
    finally:
        connection.terminate()


@attrs.frozen
class _Line:
    """A program that is asked by a line of JSON and answers by one."""

    process: Process
    lines: BufferedByteReceiveStream

    async def ask(self, *question: object) -> Any:
        assert self.process.stdin is not None
        with anyio.fail_after(LONGEST_SECONDS):
            await self.process.stdin.send(json.dumps(question).encode() + b"\n")
            return json.loads(await self.read())

    async def read(self) -> bytes:
        return await self.lines.receive_until(b"\n", 1_000_000)


@asynccontextmanager
async def _line(command: tuple[str, ...]) -> AsyncIterator[_Line]:
    process = await anyio.open_process(
        command, stderr=subprocess.DEVNULL, cwd=ROOT, env=environment(None)
    )
    try:
        assert process.stdout is not None
        line = _Line(process, BufferedByteReceiveStream(process.stdout))
        with anyio.fail_after(60):
            assert await line.read() == b"ready"
        yield line
    finally:
        with anyio.CancelScope(shield=True):
            process.kill()
            await process.aclose()


def _command(peer: Peer, installed: Environment, verb: str, url: str) -> tuple[str, ...]:
    return (str(installed.python), "-m", "benchmarks.peers.side", peer.name, verb, url)


def _with_psql() -> dict[str, str]:
    """Return an environment in which a system's own commands find `psql`."""
    settings = environment(None)
    with suppress(EmbeddedError):
        settings["PATH"] = f"{settings['PATH']}:{binaries.find(Account.current()).folder}"
    return settings


async def _stamps_of(file: Path, numbers: set[int]) -> dict[int, float]:
    stamps: dict[int, float] = {}
    with anyio.fail_after(LONGEST_SECONDS):
        while not numbers <= stamps.keys():
            await anyio.sleep(0.01)
            stamps |= read_stamps(file)
    return stamps
