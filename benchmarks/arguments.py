"""Arguments: what was asked for on the command line."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import attrs

NAMES = (
    "bulk-defer",
    "single-defer",
    "drain",
    "drain-sync",
    "waiting",
    "pickup",
    "pinned",
    "backlog",
    "many-queues",
    "wal",
    "memory",
    "retention",
    "roadster",
    "pgmq-functions",
)
ALL = "all"
PEERS = "peers"
"""Not among all: it installs other systems."""


@attrs.frozen
class Arguments:
    """Which benchmarks to run, how large, and where the results go."""

    names: tuple[str, ...]
    database_url: str | None
    rounds: int
    messages: int
    quick: bool
    json: Path | None
    plots: Path | None
    write: Path | None


def read(argv: Sequence[str]) -> Arguments:
    """Read a command line; a wrong one ends the program with a text that says why."""
    given = _parser().parse_args(argv)
    return Arguments(
        names=_meant(given.names),
        database_url=given.database_url,
        rounds=given.rounds or (2 if given.quick else 5),
        messages=given.messages or (5_000 if given.quick else 50_000),
        quick=given.quick,
        json=given.json,
        plots=given.plots,
        write=given.write,
    )


def _meant(names: Sequence[str]) -> tuple[str, ...]:
    """Each once, in the order of first mention, with all in the place of `all`."""
    parts = (NAMES if name == ALL else (name,) for name in names)
    return tuple(dict.fromkeys(name for part in parts for name in part))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure pgtasks on this machine. Without a URL an embedded server is "
        "started in a temporary folder, with fsync and synchronous commit on.",
    )
    add = parser.add_argument
    names = (*NAMES, PEERS, ALL)
    listed = f"{', '.join(NAMES)}; {ALL} of them; {PEERS}: other systems, installed for it"
    add("names", nargs="+", choices=names, metavar="NAME", help=listed)
    add("--database-url", metavar="URL", help="a server to use; a database is made on it")
    add("--rounds", type=_positive, metavar="N", help="measured rounds (5; quick: 2)")
    add("--messages", type=_positive, metavar="N", help="messages a round (50000; quick: 5000)")
    add("--quick", action="store_true", help="small numbers, to see that everything works")
    add("--json", type=Path, metavar="FILE", help="also write the samples as JSON")
    add("--plots", type=Path, metavar="FOLDER", help="also draw pictures (needs matplotlib)")
    add("--write", type=Path, metavar="FILE", help="put the results between the file's markers")
    return parser


def _positive(text: str) -> int:
    number = int(text.replace("_", ""))
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return number
