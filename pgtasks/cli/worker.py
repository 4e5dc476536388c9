"""`pgtasks worker`."""

import logging
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from pgtasks.cli.options import NOTHING_GIVEN, Source
from pgtasks.errors import ConfigError
from pgtasks.layers import Flag, Loaded


# Numbers and durations stay text here: the settings have one reader, for files, variables and
# flags alike, and it says what is wrong with the flag's name.
def worker(
    *modules: str,
    queue: Annotated[list[str] | None, Parameter(metavar="NAME")] = None,
    concurrency: Annotated[str | None, Parameter(metavar="N")] = None,
    processes: Annotated[str | None, Parameter(metavar="N")] = None,
    grace: Annotated[str | None, Parameter(metavar="30s")] = None,
    scheduler_only: bool = False,
    no_scheduler: bool = False,
    log_level: Annotated[str | None, Parameter(metavar="LEVEL")] = None,
    log_format: Annotated[str | None, Parameter(metavar="FORMAT")] = None,
    source: Source = NOTHING_GIVEN,
) -> int:
    """Run the tasks of these modules, until stopped.

    The first Ctrl-C (or SIGTERM) lets running tasks end, the second cancels them and gives their
    messages back, the third ends at once. What is not given here comes from the settings:
    `pgtasks config show`.

    For example:
      pgtasks worker shop.tasks
      pgtasks worker shop.tasks --queue emails --queue reports --concurrency 50 --processes 2

    Exit codes: 0 everything settled or given back, 1 it could not start, 2 wrong settings,
    3 some leases have to run out, 130 ended at once.

    Args:
        modules: Modules to import, as Python names them: shop.tasks. Else worker.tasks.
        queue: A queue to serve; once for each. Else those of the tasks.
        concurrency: How many messages each process runs at the same time.
        processes: How many processes to run.
        grace: How long running tasks may go on after a stop was asked for.
        scheduler_only: Only fire schedules, and run no messages.
        no_scheduler: Only run messages, and fire no schedules.
        log_level: debug, info, warning, error or critical.
        log_format: auto, text or json.
        source: The settings.
    """
    overrides = {
        "worker.tasks": Flag("MODULES", modules or None),
        "worker.queues": Flag("--queue", queue),
        "worker.concurrency": Flag("--concurrency", concurrency),
        "worker.processes": Flag("--processes", processes),
        "worker.grace": Flag("--grace", grace),
        "worker.periodic.enable": Flag("--no-scheduler", "false" if no_scheduler else None),
        "worker.periodic.only": Flag("--scheduler-only", "true" if scheduler_only else None),
        "log.level": Flag("--log-level", log_level),
        "log.format": Flag("--log-format", log_format),
    }
    loaded = source.load_quietly(overrides)
    if not loaded.config.worker.tasks:
        raise ConfigError(_no_modules(loaded.project_folder))
    queues = loaded.config.worker.queues if queue else None
    return _run(loaded, queues)


def _run(loaded: Loaded, queues: tuple[str, ...] | None) -> int:
    import anyio

    from pgtasks import logs
    from pgtasks.supervisor import Supervisor

    logs.configure(loaded.config.log.level, loaded.config.log.format)
    for text in loaded.warnings:
        logging.getLogger("pgtasks.cli").warning(text)
    return anyio.run(Supervisor(loaded, queues).run, backend="asyncio")


def _no_modules(folder: Path) -> str:
    tried = "pgtasks.toml" if (folder / "pgtasks.toml").exists() else "a pgtasks.toml"
    return (
        "no module with tasks is named, so there is nothing to run. Either\n"
        "  pgtasks worker shop.tasks      name the modules that hold your tasks\n"
        f'  tasks = ["shop.tasks"]         or list them under [worker] in {tried}\n'
        "  pgtasks init shop              or begin with a small project\n"
        "  pgtasks demo                   or just watch it work"
    )
