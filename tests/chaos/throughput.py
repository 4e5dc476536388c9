"""Throughput: how much of it is left when processes of four are killed every two seconds."""

import asyncio
import shutil
import tempfile
from pathlib import Path
from random import Random
from time import monotonic

import attrs
from acceptance.judgement import Verdict
from acceptance.own_server import OwnServer
from acceptance.tasks_under_test import slow
from chaos.arena import Arena
from chaos.case import Row

from pgtasks import Config, connect, exit_codes
from pgtasks.config import DatabaseConfig

PROCESSES = 4
ARGUMENTS = ("--processes", f"{PROCESSES}", "--concurrency", "10", "--log-format", "json")
MESSAGE_SECONDS = 0.1
PAUSE_SECONDS = 2.0
LONGEST_SECONDS = 300.0


@attrs.frozen
class Drained:
    """How long one queue took."""

    seconds: float
    kills: int
    verdict: Verdict


async def drain(server: OwnServer, messages: int, *, killed: int) -> Drained:
    """Have messages of a tenth of a second each worked by four processes.

    So many of them are killed at a time.
    """
    folder = Path(tempfile.mkdtemp(prefix="pgtasks-throughput-"))
    async with Arena.open(server, folder, Random(1), workers=0) as arena:
        worker = await arena.start_worker(ARGUMENTS, children=PROCESSES)
        keys = [f"m{n}" for n in range(messages)]
        async with connect(config=Config(database=DatabaseConfig(url=server.url))):
            handles = await slow.defer_many([(key, MESSAGE_SECONDS) for key in keys])
        began_at, struck = monotonic(), 0
        arena.history.accepted_many(keys, handles)
        while await arena.execute("SELECT count(*) FROM pgmq.q_default"):
            await asyncio.sleep(PAUSE_SECONDS if killed else 0.1)
            assert monotonic() < began_at + LONGEST_SECONDS
            children = sorted(worker.children())
            for child in arena.random.sample(children, min(killed, len(children))):
                worker.signal_child(child)
                struck += 1
        seconds = monotonic() - began_at
        verdict = await arena.checker().examine(codes=(exit_codes.OK, exit_codes.UNSETTLED))
    shutil.rmtree(folder)
    return Drained(seconds, struck, verdict)


async def throughput_rows(server: OwnServer, messages: int) -> list[Row]:
    """Measure it each way, one after the other; the share that is left stands in the name."""
    calm = await drain(server, messages, killed=0)
    rows = []
    for killed, who in ((1, "one process of four is"), (PROCESSES, "all four processes are")):
        harmed = await drain(server, messages, killed=killed)
        share = calm.seconds / harmed.seconds
        name = f"{who} killed every 2 s: {share:.0%} of the throughput are left"
        rows.append(Row(name, harmed.kills, harmed.verdict))
    return rows
