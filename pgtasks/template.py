"""What `pgtasks init` writes: a pgtasks.toml that explains itself, and a first tasks.py."""

import json
from collections.abc import Iterator
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any, Final

from pgtasks.config_reference import NAME, Field, fields
from pgtasks.errors import ConfigError

TASKS: Final = '''\
"""The tasks of this project.

Run a worker:    pgtasks worker
Send it work:    python tasks.py
"""

import asyncio

from pgtasks import connect, task


@task(queue="default", retries=3)
async def hello(name: str) -> None:
    """Greet somebody; when it raises, it is tried again, three times at most."""
    await asyncio.sleep(0.1)
    print(f"Hello, {name}!")


@task
def count_primes(limit: int) -> int:
    """Count the primes below a limit; plain functions run in a thread of the worker."""
    composite: set[int] = set()
    primes = 0
    for number in range(2, limit):
        if number not in composite:
            primes += 1
            composite.update(range(number * number, limit, number))
    print(f"There are {primes} primes below {limit}.")
    return primes


async def main() -> None:
    """Send a few messages; they are safe in Postgres even when no worker is running."""
    async with connect():
        await hello.defer("world")
        await hello.options(delay=5).defer("world, five seconds later")
        await count_primes.defer(10_000)
    print("Sent 3 messages. `pgtasks worker` runs them.")


if __name__ == "__main__":
    asyncio.run(main())
'''

_HEAD: Final = """\
# Settings of pgtasks.
#
# Each key below stands at its default: remove the "#" before it to change it.
# Times are seconds as a number, or text such as "250ms", "30s", "5m", "1h".
# A variable wins over this file, as in PGTASKS__WORKER__CONCURRENCY=8, and a flag over both.
# `pgtasks config show` says what is in force, and where it came from.
# A password belongs into PGTASKS_DATABASE_URL, or here if nobody else may read this file.
"""
_SET: Final = {"worker.tasks": ["tasks"]}
_EXAMPLES: Final = {
    "database.url": "postgresql://shop@db.example.com/shop?sslmode=verify-full",
    "worker.queues": ["default", "emails"],
    "worker.health.listen": "127.0.0.1:9464",
}
_EXAMPLE_QUEUE: Final = {"concurrency": 4, "weight": 2, "done-for": "1d", "failed-for": "none"}


def settings_text() -> str:
    """The pgtasks.toml of a new project: every key, commented out at its default."""
    return _HEAD + "".join(f"{line}\n" for line in _lines())


def write_project(folder: Path, *, force: bool = False) -> list[Path]:
    """Write pgtasks.toml and tasks.py into a folder, which is made when it does not exist.

    Args:
        folder: the folder of the new project.
        force: whether files that are there already may be overwritten.

    Returns:
        the files written.

    Raises:
        ConfigError: a file is there already, or cannot be written; then nothing was changed.

    Example:
        >>> write_project(Path("shop"))
        [PosixPath('shop/pgtasks.toml'), PosixPath('shop/tasks.py')]
    """
    texts = {folder / "pgtasks.toml": settings_text(), folder / "tasks.py": TASKS}
    present = [file.name for file in texts if file.exists() or file.is_symlink()]
    if present and not force:
        names = " and ".join(present)
        raise ConfigError(f"{folder}: {names} exists already; use --force to overwrite it")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, text in texts.items():
            file.write_text(text, "utf-8", newline="\n")
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be written: {error.strerror}") from error
    return list(texts)


def _lines() -> Iterator[str]:
    for table, keys in groupby(fields(), attrgetter("table")):
        yield ""
        if NAME in table:
            yield "# One table for each queue that needs its own, for example:"
            yield f"# [{table.replace(NAME, 'emails')}]"
            yield from (line for field in keys for line in _queue_key(field))
        else:
            yield f"[{table}]"
            yield from (line for field in keys for line in _key(field))


def _key(field: Field) -> Iterator[str]:
    """A sentence and the key; with "#" and no space, so that it is known from prose."""
    yield f"# {field.doc}"
    if field.key in _EXAMPLES:
        yield f"# For example: {_pair(field, _EXAMPLES[field.key])}"
    if field.key in _SET:
        yield _pair(field, _SET[field.key])
    else:
        yield f"#{_pair(field, field.kind.plain(field.default))}"


def _queue_key(field: Field) -> Iterator[str]:
    """With "# " before each line: without it the whole example is TOML."""
    yield f"# # {field.doc}"
    yield f"# {_pair(field, _EXAMPLE_QUEUE.get(field.name, field.kind.plain(field.default)))}"


def _pair(field: Field, value: Any) -> str:
    """A line of TOML, which writes the values in the list of settings as JSON does."""
    return f"{field.name} = {json.dumps(value)}"
