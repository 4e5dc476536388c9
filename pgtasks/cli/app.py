"""The commands and their groups."""

import sys
from collections.abc import Callable, Sequence

from cyclopts import App, Group, Parameter

import pgtasks
from pgtasks import exit_codes
from pgtasks.cli import (
    archive,
    config,
    db,
    defer,
    demo,
    doctor,
    explain,
    health,
    init,
    message,
    queue,
    schedule,
    worker,
)
from pgtasks.cli.failure import report
from pgtasks.cli.help import DATABASE, MESSAGES, OTHER, PROJECT, RUN, HelpPage
from pgtasks.cli.output import make_safe

_COMMANDS: tuple[App | tuple[Group, Callable[..., object]], ...] = (
    (RUN, worker.worker),
    (RUN, health.health),
    (RUN, demo.demo),
    (PROJECT, init.init),
    config.app,
    explain.app,
    (MESSAGES, defer.defer),
    queue.app,
    message.app,
    archive.app,
    schedule.app,
    db.app,
    (DATABASE, doctor.doctor),
)

_EXAMPLES = """\
Examples:
  pgtasks demo                                 watch thousands of tasks run
  pgtasks init shop                            begin a project
  pgtasks worker shop.tasks --concurrency 50   run its tasks
  pgtasks defer shop.tasks.hello name=world    send it a message from here
  pgtasks doctor shop.tasks                    find out what is wrong

Exit codes: 0 done, 1 failed, 2 wrong usage or settings.
`pgtasks COMMAND --help` says more.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; nothing is raised.

    Args:
        arguments: the command line without the program's name; default: this process's.

    Example:
        >>> main(["config", "check"])
        0
    """
    make_safe(sys.stdout, sys.stderr)
    try:
        code = _app()(
            sys.argv[1:] if arguments is None else list(arguments),
            print_error=False,
            exit_on_error=False,
            result_action="return_value",
        )
        sys.stdout.flush()
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - said here, once, in full
        return report(error)
    return code if isinstance(code, int) else exit_codes.OK


def _app() -> App:
    app = App(
        name="pgtasks",
        help="Background tasks for Python on plain PostgreSQL.",
        usage="Usage: pgtasks COMMAND [OPTIONS]",
        help_epilogue=_EXAMPLES,
        help_format="plaintext",
        help_formatter=HelpPage(),
        version=f"pgtasks {pgtasks.__version__}",
        default_parameter=Parameter(negative=(), show_default=False),
        suppress_keyboard_interrupt=False,
    )
    app["--help"].group = OTHER
    app["--version"].group = OTHER
    for command in _COMMANDS:
        if isinstance(command, App):
            app.command(command)
        else:
            group, function = command
            # An epilogue of its own, however empty, keeps this one away.
            app.command(function, group=group, help_epilogue="")
    return app
