"""What `pgtasks init` writes: a pgtasks.toml that explains itself, and a first tasks.py."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from pgtasks.config import EXAMPLE_URL, Config, Field, fields
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
"""
_SET: Final[dict[tuple[str, ...], Any]] = {("worker", "tasks"): ["tasks"]}
_EXAMPLES: Final[dict[tuple[str, ...], Any]] = {
    ("database", "url"): EXAMPLE_URL,
    ("worker", "queues"): ["default", "emails"],
}
_EXAMPLE_QUEUE: Final = {"concurrency": 4, "weight": 2}


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
    section: tuple[str, ...] = ()
    for field in fields(Config):
        if field.path[:-1] != section:
            section = field.path[:-1]
            yield from ("", *_header(section))
        yield from _queue_key(field) if "<name>" in section else _key(field)


def _header(section: tuple[str, ...]) -> list[str]:
    name = ".".join(section)
    if "<name>" not in section:
        return [f"[{name}]"]
    return [
        "# One table for each queue that needs its own, for example:",
        f"# [{name}]".replace("<name>", "emails"),
    ]


def _key(field: Field) -> Iterator[str]:
    """A sentence and the key; with "#" and no space, so that it is known from prose."""
    yield f"# {field.doc}"
    name = field.path[-1]
    if field.path in _EXAMPLES:
        yield f"# For example: {name} = {_toml(_EXAMPLES[field.path])}"
    if field.path in _SET:
        yield f"{name} = {_toml(_SET[field.path])}"
    else:
        yield f"#{name} = {_toml(field.kind.plain(field.default))}"


def _queue_key(field: Field) -> Iterator[str]:
    """With "# " before each line: without it the whole example is TOML."""
    yield f"# # {field.doc}"
    yield f"# {field.path[-1]} = {_toml(_EXAMPLE_QUEUE[field.path[-1]])}"


def _toml(value: Any) -> str:
    """A value as TOML; what stands in the list of settings needs no escapes."""
    match value:
        case bool():
            return "true" if value else "false"
        case list():
            return f"[{', '.join(map(_toml, value))}]"
        case str():
            return f'"{value}"'
        case _:
            return str(value)
