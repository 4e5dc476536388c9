"""`pgtasks init`."""

import shlex
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from pgtasks.cli.output import say


def init(
    folder: Annotated[Path, Parameter(name="FOLDER")] = Path(), /, *, force: bool = False
) -> None:
    """Begin a project: a pgtasks.toml with every setting, and a tasks.py.

    For example:
      pgtasks init shop

    Args:
        folder: Where; made when it does not exist. Else the current folder.
        force: Overwrite files that are there already.
    """
    from pgtasks import template

    for file in template.write_project(folder, force=force):
        say(f"wrote {file}")
    enter = "" if folder.resolve() == Path.cwd() else f"cd {shlex.quote(str(folder))} && "
    say(f"\nNow, in two terminals:\n  {enter}pgtasks worker\n  {enter}python tasks.py")
