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

    With no database configured it starts an embedded Postgres of its own.

    For example:
      pgtasks demo
      pgtasks demo --folder /tmp/demo --processes 4 --keep

    Args:
        folder: Where to put the demo's project and data; else a folder that goes afterwards.
        processes: How many worker processes to run; 2.
        keep: Leave everything in place afterwards.
        source: The settings.
    """
    from pgtasks.demo import run

    number = whole("--processes", processes, 1, 64)
    return run(folder, processes=number, keep=keep, loaded=source.load())
