"""What is said of an error, and with which exit code a command ends."""

import os
import sys
import traceback
from collections.abc import Iterator

from cyclopts import CycloptsError

from pgtasks import exit_codes
from pgtasks.cli.output import safe
from pgtasks.errors import (
    ArgumentError,
    ConfigError,
    PgtasksError,
    QueueNameError,
    TaskDefinitionError,
)

_USAGE = (ConfigError, ArgumentError, QueueNameError, TaskDefinitionError)
_INTERRUPTED = 130


def report(error: BaseException) -> int:
    """Print what a person needs to know of an error, and return the exit code."""
    errors = list(_leaves(error))
    if any(isinstance(one, KeyboardInterrupt) for one in errors):
        return _INTERRUPTED
    if all(isinstance(one, BrokenPipeError) for one in errors):
        return _left_alone()
    if all(isinstance(one, PgtasksError | CycloptsError) for one in errors):
        for text in dict.fromkeys(map(_text, errors)):
            _say(text)
        usage = all(isinstance(one, (*_USAGE, CycloptsError)) for one in errors)
        return exit_codes.USAGE if usage else exit_codes.FAILED
    # Whatever it is that was not foreseen, it may say a password, or steer a terminal.
    print(safe("".join(traceback.format_exception(error)).rstrip()), file=sys.stderr)
    _say("this is a mistake in pgtasks; please report it together with the lines above")
    return exit_codes.FAILED


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _text(error: BaseException) -> str:
    if not isinstance(error, CycloptsError):
        return str(error)
    command = " ".join(("pgtasks", *(error.command_chain or ())))
    return f"{str(error).strip()}\nSee `{command} --help`."


def _say(text: str) -> None:
    try:
        print(f"pgtasks: {safe(text)}", file=sys.stderr, flush=True)
    except BrokenPipeError:
        _left_alone()


def _left_alone() -> int:
    """Whoever read the output has had enough, as in `| head`: no word about it, at exit neither."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
    return exit_codes.OK
