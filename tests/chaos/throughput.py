"""Throughput: how much of it is left when one process of four is killed every two seconds."""

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

ARGUMENTS = ("--processes", "4", "--concurrency", "10", "--log-format", "json")
MESSAGE_SECONDS = 0.1
PAUSE_SECONDS = 2.0
LONGEST_SECONDS = 300.0


@attrs.frozen
class Drained:
    """How long one queue took."""

    seconds: float
    kills: int
    verdict: Verdict


async def drain(server: OwnServer, messages: int, *, kills: bool) -> Drained:
    """Have messages of a tenth of a second each worked by four processes, killed or not."""
    folder = Path(tempfile.mkdtemp(prefix="pgtasks-throughput-"))
    async with Arena.open(server, folder, Random(1), workers=0) as arena:
        worker = await arena.start_worker(ARGUMENTS, children=4)
        keys = [f"m{n}" for n in range(messages)]
        async with connect(config=Config(database=DatabaseConfig(url=server.url))):
            handles = await slow.defer_many([(key, MESSAGE_SECONDS) for key in keys])
        began_at, struck = monotonic(), 0
        arena.history.accepted_many(keys, handles)
        while await arena.execute("SELECT count(*) FROM pgmq.q_default"):
            await asyncio.sleep(PAUSE_SECONDS if kills else 0.1)
            assert monotonic() < began_at + LONGEST_SECONDS
            if kills and (children := worker.children()):
                worker.signal_child(arena.random.choice(sorted(children)))
                struck += 1
        seconds = monotonic() - began_at
        verdict = await arena.checker().examine(codes=(exit_codes.OK, exit_codes.UNSETTLED))
    shutil.rmtree(folder)
    return Drained(seconds, struck, verdict)


async def throughput_row(server: OwnServer, messages: int) -> Row:
    """Measure it both ways, one after the other; the share that is left stands in the name."""
    calm = await drain(server, messages, kills=False)
    harmed = await drain(server, messages, kills=True)
    share = calm.seconds / harmed.seconds
    name = f"one process of four is killed every 2 s: {share:.0%} of the throughput are left"
    return Row(name, harmed.kills, harmed.verdict)
