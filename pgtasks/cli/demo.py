"""`pgtasks demo`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from pgtasks.cli.options import NOTHING_GIVEN, Source, whole


def demo(
    *,
    folder: Annotated[Path | None, Parameter(metavar="DIR")] = None,
    processes: Annotated[str, Parameter(metavar="N")] = "2",
    keep: bool = False,
    source: Source = NOTHING_GIVEN,
) -> int:
    """Watch thousands of real messages run, crashes included.

    With no database configured an embedded Postgres is started for it.

    For example:
      pgtasks demo
      pgtasks demo --folder ~/src --processes 4 --keep

    Exit codes: 0 every message is accounted for, 1 not so, 130 interrupted.

    Args:
        folder: The files to measure; else Python's own library.
        processes: How many processes the worker has; 2.
        keep: Leave the tables and the archived messages, to look at.
        source: The settings.
    """
    from pgtasks.demo import run

    number = whole("--processes", processes, 1, 64)
    return run(folder, processes=number, keep=keep, loaded=source.load())
