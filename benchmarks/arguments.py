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
)
ALL = "all"


@attrs.frozen
class Arguments:
    """Which benchmarks to run, how large, and where the results go."""

    names: tuple[str, ...]
    database_url: str | None
    rounds: int
    messages: int
    quick: bool
    json: Path | None
    write: Path | None


def read(argv: Sequence[str]) -> Arguments:
    """Read a command line; a wrong one ends the program with a text that says why."""
    given = _parser().parse_args(argv)
    return Arguments(
        names=NAMES if ALL in given.names else tuple(dict.fromkeys(given.names)),
        database_url=given.database_url,
        rounds=given.rounds or (2 if given.quick else 5),
        messages=given.messages or (5_000 if given.quick else 50_000),
        quick=given.quick,
        json=given.json,
        write=given.write,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure pgtasks on this machine. Without a URL an embedded server is "
        "started in a temporary folder, with fsync and synchronous commit on.",
    )
    add = parser.add_argument
    add("names", nargs="+", choices=(*NAMES, ALL), metavar="NAME", help=", ".join((*NAMES, ALL)))
    add("--database-url", metavar="URL", help="a server to use; a database is made on it")
    add("--rounds", type=_positive, metavar="N", help="measured rounds (5; quick: 2)")
    add("--messages", type=_positive, metavar="N", help="messages a round (50000; quick: 5000)")
    add("--quick", action="store_true", help="small numbers, to see that everything works")
    add("--json", type=Path, metavar="FILE", help="also write the samples as JSON")
    add("--write", type=Path, metavar="FILE", help="put the results between the file's markers")
    return parser


def _positive(text: str) -> int:
    number = int(text.replace("_", ""))
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return number
