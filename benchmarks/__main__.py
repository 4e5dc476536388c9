"""`python -m benchmarks NAME… | all`."""

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import anyio

from benchmarks import (
    backlog,
    bulk_defer,
    drain,
    machine,
    many_queues,
    memory,
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
from benchmarks.report import Result, put_between_markers, to_json, to_markdown
from benchmarks.server import own_database, some_server, temporary_folder

LONGEST_MINUTES = 15
BENCHMARKS: Mapping[str, Callable[[Bench], Awaitable[Result]]] = {
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
}


def main(argv: Sequence[str]) -> int:
    """Run what was asked for, print the results, and store them where that was asked for."""
    arguments = read(argv)
    with temporary_folder() as folder, some_server(arguments.database_url, folder) as url:
        options = {"use_uvloop": machine.has_uvloop()}
        facts, results = anyio.run(_run_all, arguments, url, folder, backend_options=options)
    text = to_markdown(facts, results)
    print(text)
    if arguments.json is not None:
        arguments.json.write_text(to_json(facts, results), encoding="utf-8")
    if arguments.write is not None:
        put_between_markers(arguments.write, text)
    return 0


async def _run_all(
    arguments: Arguments, server_url: str, folder: Path
) -> tuple[dict[str, str], list[Result]]:
    # Whatever ends this, the processes it started are ended too.
    asyncio.get_running_loop().add_signal_handler(
        signal.SIGTERM, signal.raise_signal, signal.SIGINT
    )
    before = machine.load()
    results = [await _run(name, arguments, server_url, folder) for name in arguments.names]
    facts = await machine.facts(server_url)
    facts["load"] = f"{before} before, {machine.load()} after (of the last minute)"
    facts["size"] = f"{arguments.rounds} rounds after a warm-up, {arguments.messages:,} messages"
    return facts, results


async def _run(name: str, arguments: Arguments, server_url: str, folder: Path) -> Result:
    print(f"{name} …", file=sys.stderr, flush=True)
    with anyio.fail_after(60 * LONGEST_MINUTES):
        async with own_database(server_url) as url:
            bench = Bench(url, folder, arguments.rounds, arguments.messages, arguments.quick)
            return await BENCHMARKS[name](bench)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
