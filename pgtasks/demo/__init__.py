"""`pgtasks demo`: the main job, on real files, with a real worker and a real Postgres.

```
tasks.py         the task that is run; read this one first
measurement.py   what is measured in a file
files.py         which files, and how their names travel
recipe.py        the demo from beginning to end
estate.py        the schema and the queue the demo makes, and drops
worker.py        the worker process it starts
progress.py      what is shown while it runs
summary.py       what is shown at the end; its numbers come from sql/
```
"""

from pathlib import Path

from pgtasks.layers import Loaded


def run(folder: Path | None, *, processes: int, keep: bool, loaded: Loaded) -> int:
    """Run the demo and return its exit code (blocking; no event loop may run here).

    Args:
        folder: the files to measure; None: Python's own standard library.
        processes: how many processes the worker has.
        keep: whether to leave the demo's tables and archived messages for you to look at.
        loaded: the settings; without a database in them the embedded server is used.

    Returns:
        0 when every message is accounted for, 1 when not, 128 and the signal's number (130 for
        Ctrl-C) when it was interrupted.

    Raises:
        ConfigError: there is nothing to measure in the folder.
        DatabaseError: the database cannot be reached or used, or another demo is using it.
    """
    # Not above: the worker's children import this package for its tasks alone.
    import anyio

    from pgtasks.demo.recipe import Demo

    return anyio.run(Demo(folder, processes, keep, loaded).run)
