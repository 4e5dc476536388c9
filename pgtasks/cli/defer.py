"""`pgtasks defer`."""

import json as json_
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Annotated, Any, NoReturn

from cyclopts import Parameter

from pgtasks.cli.options import DELAY, NOTHING_GIVEN, Json, Source, read
from pgtasks.cli.output import print_json, print_pairs
from pgtasks.errors import ArgumentError
from pgtasks.layers import Loaded

_PAIR = re.compile(r"([^\W\d]\w*)=(.*)", re.DOTALL)


async def defer(
    task: Annotated[str, Parameter(name="TASK")],
    /,
    *arguments: Annotated[str, Parameter(name="ARGS")],
    queue: Annotated[str | None, Parameter(metavar="NAME")] = None,
    delay: Annotated[str | None, Parameter(metavar="5s")] = None,
    at: Annotated[str | None, Parameter(metavar="MOMENT")] = None,
    create: bool = False,
    json: Json = False,
    source: Source = NOTHING_GIVEN,
) -> None:
    """Store a message for a task, known by its name.

    The task's module is not imported.

    ARGS are KEY=VALUE, where VALUE is JSON or else text, or one JSON object of named arguments,
    or one JSON array of positional ones.

    For example:
      pgtasks defer shop.tasks.hello name=world
      pgtasks defer shop.tasks.hello '{"name": "world"}' --queue emails --delay 5m
      pgtasks defer shop.tasks.count_primes '[10000]' --at 2027-01-01T09:00+01:00

    Args:
        task: The task's name, usually module.function.
        arguments: Its arguments.
        queue: The queue; else task.queue of the settings.
        delay: How long until it is due: 5s, 10m, 1h.
        at: When it is due, with its zone: 2027-01-01T09:00+01:00.
        create: Create the queue when it does not exist.
        json: Print JSON, for programs.
        source: The settings.
    """
    from pgtasks.task import NamedTask

    positional, named = read_arguments(arguments)
    due_in = None if delay is None else read(DELAY, "--delay", delay)
    due_at = None if at is None else read_moment(at)
    if due_in is not None and due_at is not None:
        raise ArgumentError("--delay and --at exclude each other; give one of them")
    loaded = source.load()
    chosen = queue or loaded.config.task.queue
    async with _open_client(loaded, chosen, create=create):
        sent = NamedTask(task, chosen).options(delay=due_in, at=due_at)
        handle = await sent.defer(*positional, **named)
    told = {"id": str(handle.id), "queue": handle.queue, "message_id": handle.message_id}
    print_json(told) if json else print_pairs(told)


def read_arguments(arguments: tuple[str, ...]) -> tuple[list[Any], dict[str, Any]]:
    """The positional and the named arguments that words of a command line stand for.

    Raises:
        ArgumentError: a word is neither JSON nor KEY=VALUE; the text says which.
    """
    if len(arguments) == 1 and arguments[0].lstrip().startswith(("{", "[")):
        whole = _from_json(arguments[0])
        return (whole, {}) if isinstance(whole, list) else ([], whole)
    named: dict[str, Any] = {}
    for word in arguments:
        pair = _PAIR.fullmatch(word)
        if pair is None:
            _refuse(word)
        if pair[1] in named:
            raise ArgumentError(f"{pair[1]} is given twice")
        named[pair[1]] = _value(pair[2])
    return [], named


def read_moment(text: str) -> datetime:
    """A moment of the command line, with its zone.

    Raises:
        ArgumentError: it is none, or has no zone.
    """
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ArgumentError(f"--at: {text!r} is no moment; {_MOMENT}") from None
    if at.utcoffset() is None:
        raise ArgumentError(f"--at: {text!r} has no zone; {_MOMENT}, or end it with Z for UTC")
    return at


_MOMENT = "write e.g. 2027-01-01T09:00+01:00"


def _from_json(text: str) -> Any:
    try:
        return json_.loads(text, parse_constant=_no_json, object_pairs_hook=_without_twins)
    except ValueError as error:
        raise ArgumentError(f"ARGS are not JSON: {error}") from None


def _value(text: str) -> Any:
    try:
        return json_.loads(text, parse_constant=_no_json)
    except ValueError:
        return text


def _no_json(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON value")


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name is given twice")
    return found


def _refuse(word: str) -> NoReturn:
    raise ArgumentError(
        f"{word!r} is neither KEY=VALUE nor one JSON object or array; write e.g. name=world, "
        """'{"name": "world"}' or '["world"]'"""
    )


@asynccontextmanager
async def _open_client(loaded: Loaded, queue: str, *, create: bool) -> AsyncIterator[None]:
    """A client to defer with, once it is sure that the queue is meant."""
    from pgtasks.cli.session import explained, known_queue, open_session
    from pgtasks.client import Client

    async with open_session(loaded) as session:
        if not create:
            await known_queue(session.store, queue, "--create creates it.")
        else:
            await session.store.create_queue(queue)
        with explained(session.database):
            async with Client(loaded, session.database, owns_database=False):
                yield
