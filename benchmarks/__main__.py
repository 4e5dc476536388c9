"""`python -m benchmarks NAME… | all`."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from time import monotonic

import anyio

from benchmarks import (
    backlog,
    bulk_defer,
    drain,
    machine,
    many_queues,
    memory,
    pgmq_functions,
    pickup,
    pinned,
    retention,
    roadster,
    single_defer,
    waiting,
    wal,
)
from benchmarks.arguments import Arguments, read
from benchmarks.bench import Bench
from benchmarks.peers import run as peers
from benchmarks.report import Result, put_between_markers, to_json, to_markdown
from benchmarks.server import own_database, some_server, temporary_folder

LONGEST_MINUTES = 20
BENCHMARKS: Mapping[str, Callable[[Bench], Awaitable[Result | tuple[Result, ...]]]] = {
    "bulk-defer": bulk_defer.run,
    "single-defer": single_defer.run,
    "drain": drain.run,
    "drain-sync": drain.run_sync,
    "waiting": waiting.run,
    "pickup": pickup.run,
    "pinned": pinned.run,
    "backlog": backlog.run,
    "many-queues": many_queues.run,
    "wal": wal.run,
    "memory": memory.run,
    "retention": retention.run,
    "roadster": roadster.run,
    "pgmq-functions": pgmq_functions.run,
    "peers": peers.run,
}


def main(argv: Sequence[str]) -> int:
    """Run what was asked for, print the results, and store them where that was asked for."""
    arguments = read(argv)
    if arguments.plots is not None and find_spec("matplotlib") is None:
        # Now, and not after ten minutes.
        sys.exit("--plots needs matplotlib: pip install -e '.[bench]'")
    with temporary_folder() as folder, some_server(arguments.database_url, folder) as url:
        options = {"use_uvloop": machine.has_uvloop()}
        facts, results = anyio.run(_run_all, arguments, url, folder, backend_options=options)
    data = to_json(facts, results)
    print(to_markdown(facts, results))
    if arguments.json is not None:
        arguments.json.write_text(data, encoding="utf-8")
    images = {} if arguments.plots is None else _draw(data, arguments.plots)
    if arguments.write is not None:
        beside = {
            name: Path(os.path.relpath(file, arguments.write.parent)).as_posix()
            for name, file in images.items()
        }
        put_between_markers(arguments.write, to_markdown(facts, results, beside))
    return 0


def _draw(data: str, folder: Path) -> dict[str, Path]:
    from benchmarks.plots import draw  # noqa: PLC0415 - an extra: there or not

    return draw(json.loads(data), folder)


async def _run_all(
    arguments: Arguments, server_url: str, folder: Path
) -> tuple[dict[str, str], list[Result]]:
    # Whatever ends this, the processes it started are ended too.
    asyncio.get_running_loop().add_signal_handler(
        signal.SIGTERM, signal.raise_signal, signal.SIGINT
    )
    before, began = machine.load(), monotonic()
    results: list[Result] = []
    for name in arguments.names:
        results += await _run(name, arguments, server_url, folder)
    facts = await machine.facts(server_url)
    facts["load"] = f"{before} before, {machine.load()} after (of the last minute)"
    facts["took"] = f"{(monotonic() - began) / 60:.1f} minutes"
    facts["size"] = f"{arguments.rounds} rounds after a warm-up, {arguments.messages:,} messages"
    return facts, results


async def _run(
    name: str, arguments: Arguments, server_url: str, folder: Path
) -> tuple[Result, ...]:
    print(f"{name} …", file=sys.stderr, flush=True)
    with anyio.fail_after(60 * LONGEST_MINUTES):
        async with own_database(server_url) as url:
            bench = Bench(url, folder, arguments.rounds, arguments.messages, arguments.quick)
            found = await BENCHMARKS[name](bench)
            return found if isinstance(found, tuple) else (found,)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
