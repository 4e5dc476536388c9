"""`pgtasks config`."""

import os
from collections import Counter
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from pgtasks import layers
from pgtasks.cli.help import PROJECT
from pgtasks.cli.options import NOTHING_GIVEN, Json, Source
from pgtasks.cli.output import print_json, print_table, say, warn
from pgtasks.database_url import has_password
from pgtasks.layers import Loaded, Origin

app = App(
    name="config", help="Show, check and change the settings.", help_epilogue="", group=PROJECT
)


@app.command
def show(*, json: Json = False, source: Source = NOTHING_GIVEN) -> None:
    """Show every setting in force, and where it comes from.

    Passwords are never shown.

    For example:
      pgtasks config show
      pgtasks config show --environment production --json

    Args:
        json: Print JSON, for programs.
        source: The settings.
    """
    loaded = source.load()
    settings = layers.describe(loaded)
    if json:
        print_json([{
            "key": one.path, "value": one.value, "default": one.default,
            "origin": str(one.origin), "meaning": one.doc,
        } for one in settings])  # fmt: skip
        return
    rows = [(one.path, one.value, one.origin) for one in settings]
    print_table(("KEY", "VALUE", "FROM"), rows)


@app.command
def check(*, source: Source = NOTHING_GIVEN) -> None:
    """Check the settings: all that is wrong at once, or one line.

    For example:
      pgtasks config check --environment production

    Exit codes: 0 all is well, 2 something is wrong.

    Args:
        source: The settings.
    """
    say(_verdict(source.load()))


@app.command(name="set")
def set_value(
    key: Annotated[str, Parameter(name="KEY")], value: Annotated[str, Parameter(name="VALUE")], /
) -> None:
    """Write one setting into pgtasks.toml; comments in it stay.

    For example:
      pgtasks config set worker.concurrency 50
      pgtasks config set worker.tasks shop.tasks,shop.reports
      pgtasks config set task.timeout 5m

    Args:
        key: The dotted key: worker.concurrency.
        value: As in a variable: 8, 30s, true, emails,default.
    """
    file = layers.find_project_folder(Path.cwd()) / "pgtasks.toml"
    layers.set_value(file, key, value)
    say(f"wrote {key} to {os.path.relpath(file)}")
    if key == "database.url" and has_password(value):
        warn("the password is in your shell's history now")
    if above := _what_wins(file, key):
        warn(f"{above} is stronger than the file, and sets {key} too")


def _verdict(loaded: Loaded) -> str:
    counts = Counter(origin.name for origin in loaded.origins.values() if origin.layer != "default")
    parts = [f"{name} sets {count}" for name, count in counts.items()]
    return f"the settings are right: {', '.join(parts) or 'all at their defaults'}"


def _what_wins(file: Path, key: str) -> Origin | None:
    origin = layers.load().origins.get(key)
    return None if origin is None or origin.file == file else origin
