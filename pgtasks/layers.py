"""Where settings come from: defaults, files, the environment, the command line.

Each source is read as plain nested dicts and laid over the one before; only the result becomes a
`Config`. So a key that a source does not mention keeps what an earlier one said, and each value
knows its origin. Lowest first:

    defaults < DATABASE_URL < pyproject.toml [tool.pgtasks] < pgtasks.toml
             < pgtasks.<environment>.toml < PGTASKS__... < PGTASKS_DATABASE_URL < command line

Everything wrong in any of them is collected into one `ConfigError`.
"""

import os
import re
import stat
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from pgtasks import toml_file
from pgtasks.config import Config
from pgtasks.config_reference import NAME, KeyPath, fields
from pgtasks.database_url import has_password
from pgtasks.errors import ConfigError
from pgtasks.merger import Layer, LayerName, Merger, Origin
from pgtasks.nearest import nearest
from pgtasks.toml_lines import key_lines

__all__ = [
    "Flag",
    "Loaded",
    "Origin",
    "Setting",
    "describe",
    "find_project_folder",
    "load",
    "set_value",
]

_DATABASE_URL: Final = ("database", "url")
_PREFIX: Final = "PGTASKS__"


@attrs.frozen
class Flag:
    """A value for `load(overrides=...)` that names its flag, when `--<key>` is not its name."""

    name: str
    value: object = attrs.field(repr=False)  # it may hold a password


@attrs.frozen
class Loaded:
    """The settings in force, and where each came from.

    Attributes:
        config: the settings.
        origins: by dotted key, as in `worker.queue-fetch.notify`; every key is there.
        project_folder: where pgtasks.toml or pyproject.toml was found, else the current folder.
        environment: the name given by PGTASKS_ENVIRONMENT or by hand.
        warnings: what is allowed but probably not meant; one sentence each.
    """

    config: Config
    origins: Mapping[str, Origin]
    project_folder: Path
    environment: str | None = None
    warnings: list[str] = attrs.Factory(list)


@attrs.frozen
class Setting:
    """One effective value as `pgtasks config show` lists it; never a secret."""

    path: str
    value: str
    default: str
    origin: Origin
    doc: str


def load(
    overrides: Mapping[str, object] | None = None,
    *,
    folder: Path | None = None,
    environment: str | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Loaded:
    """Read every source and build the configuration.

    Args:
        overrides: values of the command line by dotted key, as in `{"worker.concurrency": 8}`;
            text is read as in environment variables, None means not given, `Flag` names the flag.
        folder: the project folder; by default the nearest one upwards that is configured.
        environment: which `pgtasks.<environment>.toml` to read; by default PGTASKS_ENVIRONMENT.
        environ: the environment variables.

    Raises:
        ConfigError: with every problem of every source, one a line.

    Example:
        >>> load({"worker.concurrency": 8}).config.worker.concurrency
        8
    """
    folder = find_project_folder(Path.cwd()) if folder is None else folder.absolute()
    environment = _environment(environment, environ)
    merger = Merger()
    _add_files(merger, folder, environment)
    _add_variables(merger, environ)
    _add_overrides(merger, overrides or {})
    _add_shared_url(merger, environ)
    config = merger.build()
    return Loaded(config, merger.origins_by_key(), folder, environment, merger.warnings)


def describe(loaded: Loaded) -> list[Setting]:
    """Every effective value with its default, origin and meaning, in the reference's order."""
    settings: list[Setting] = []
    for field in fields():
        for path in field.paths(sorted(loaded.config.worker.queue_config)):
            key = ".".join(path)
            value = field.kind.show(_value_at(loaded.config, path))
            default = field.kind.show(field.default)
            settings.append(Setting(key, value, default, loaded.origins[key], field.doc))
    return settings


def set_value(file: Path, key: str, text: str) -> None:
    """Write one setting into a TOML file; everything else in it, comments too, stays.

    Args:
        file: pgtasks.toml; made when it does not exist.
        key: the dotted key, as in `worker.queue-config.emails.concurrency`.
        text: the value as in an environment variable: `8`, `30s`, `true`, `emails, default`.

    Raises:
        ConfigError: unknown key, wrong value, or a file that is not TOML.
    """
    path = tuple(key.split("."))
    merger = Merger()
    merger.add(Layer.of(path, text, Origin("command-line", key)))
    if merger.problems:
        raise ConfigError("\n".join(merger.problems))
    kind = next(field.kind for field in fields() if path in field.paths([path[-2]]))
    value = merger.values[path]
    secret = path == _DATABASE_URL and value is not None and has_password(value)
    toml_file.edit(file, path, kind.plain(value), secret=secret)


def find_project_folder(start: Path) -> Path:
    """The nearest folder from `start` upwards that configures pgtasks, else `start` itself."""
    start = start.absolute()
    for folder in (start, *start.parents):
        if (folder / "pgtasks.toml").is_file() or _is_ours(folder / "pyproject.toml"):
            return folder
    return start


def _value_at(value: Any, path: KeyPath) -> Any:
    for part in path:
        named = isinstance(value, Mapping)
        value = value[part] if named else getattr(value, part.replace("-", "_"))
    return value


# Files


def _add_files(merger: Merger, folder: Path, environment: str | None) -> None:
    if not folder.is_dir():
        raise ConfigError(f"{folder}: there is no such folder; name the project's folder")
    if _is_ours(folder / "pyproject.toml"):
        _add_file(merger, folder / "pyproject.toml", "pyproject", ("tool", "pgtasks"))
    if (folder / "pgtasks.toml").exists():
        _add_file(merger, folder / "pgtasks.toml", "file")
    if environment is None:
        return
    if (folder / f"pgtasks.{environment}.toml").exists():
        _add_file(merger, folder / f"pgtasks.{environment}.toml", "environment-file")
    else:
        merger.warnings += _misspelt_environment(folder, environment)


def _is_ours(pyproject: Path) -> bool:
    """Whether a pyproject.toml has a [tool.pgtasks] table; one that is broken but names it has."""
    try:
        text = pyproject.read_text("utf-8-sig")
        tool = tomllib.loads(text).get("tool") if "pgtasks" in text else None
    except (OSError, UnicodeDecodeError):
        return False
    except (tomllib.TOMLDecodeError, RecursionError):
        return "tool.pgtasks" in text
    return isinstance(tool, dict) and "pgtasks" in tool


def _add_file(merger: Merger, file: Path, name: LayerName, prefix: KeyPath = ()) -> None:
    """Add the settings of a file that stand in its table `prefix`."""
    try:
        text = toml_file.read(file)
        values = toml_file.parse(text, file.name)
    except ConfigError as error:
        merger.problems.append(str(error))
        return
    origins: dict[KeyPath, Origin] = {(): Origin(name, file.name, file)}
    for path, line in key_lines(text).items():
        if path[: len(prefix)] == prefix:
            origins[path[len(prefix) :]] = Origin(name, file.name, file, line)
    layer = Layer(toml_file.find(values, prefix), origins)
    merger.add(layer)
    merger.problems += _readable_password(layer, file)


def _readable_password(layer: Layer, file: Path) -> Iterator[str]:
    url = toml_file.find(layer.values, _DATABASE_URL)
    named = isinstance(url, str) and "://" in url  # else it is "none", or refused
    if named and has_password(url) and may_be_read_by_others(file.stat()):
        yield (
            f"{layer.origin(_DATABASE_URL)}: database.url holds a password that others on this "
            f"machine can read; run: chmod 600 {file.name} (or keep the URL out of it, in "
            "PGTASKS_DATABASE_URL)"
        )


def may_be_read_by_others(status: os.stat_result) -> bool:
    """Whether somebody else may read a file: by the rule that libpq has for keys.

    A group may read what belongs to root: that is how secrets are mounted for those who may.
    """
    readers = stat.S_IROTH if status.st_uid == 0 else stat.S_IROTH | stat.S_IRGRP
    return bool(status.st_mode & readers)


def _misspelt_environment(folder: Path, environment: str) -> Iterator[str]:
    """A named environment needs no file of its own, but one with nearly its name is suspicious."""
    present = [file.name[len("pgtasks.") : -len(".toml")] for file in folder.glob("pgtasks.*.toml")]
    if near := nearest(environment, present):
        file = f"pgtasks.{environment}.toml"
        yield f'there is no {file}; did you mean the environment "{near}"?'


# Variables


def _environment(given: str | None, environ: Mapping[str, str]) -> str | None:
    name, source = given, "environment"
    if given is None:
        name, source = environ.get("PGTASKS_ENVIRONMENT"), "PGTASKS_ENVIRONMENT"
    if name and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise ConfigError(f'{source}: "{name}" is not a name; write letters, digits, "_" and "-"')
    return name or None


def _add_variables(merger: Merger, environ: Mapping[str, str]) -> None:
    """PGTASKS__TABLE__KEY for every key, and PGTASKS_DATABASE_URL above them.

    An empty variable counts as one that is not set. Other names with one underscore are not ours.
    """
    for name in sorted(name for name in environ if name.startswith(_PREFIX)):
        path = _variable_path(name)
        if path is None:
            merger.problems.append(f"{name}: unknown variable; {_variable_hint(name)}")
        else:
            _add_variable(merger, environ, name, path)
    _add_variable(merger, environ, "PGTASKS_DATABASE_URL", _DATABASE_URL)


def _add_shared_url(merger: Merger, environ: Mapping[str, str]) -> None:
    """DATABASE_URL belongs to the whole application: asked last, and it may be another's.

    Last, so that nobody hears of mistakes in it who has set our own `database.url`.
    """
    url = environ.get("DATABASE_URL", "").strip()
    if not url or merger.knows(_DATABASE_URL):
        return
    if url.startswith("postgres"):
        _add_variable(merger, environ, "DATABASE_URL", _DATABASE_URL)
    else:
        text = "it is not a Postgres URL; for pgtasks set PGTASKS_DATABASE_URL"
        merger.warnings.append(f"DATABASE_URL is ignored: {text}")


def _add_variable(merger: Merger, environ: Mapping[str, str], name: str, path: KeyPath) -> None:
    if text := environ.get(name, "").strip():
        merger.add(Layer.of(path, text, Origin("variable", name)))


def _variable_path(name: str) -> KeyPath | None:
    """The key a variable stands for; a queue's name may itself hold double underscores."""
    for field in fields():
        before, placeholder, after = field.variable.partition(NAME.upper())
        queue = name[len(before) : len(name) - len(after)]
        fits = name == f"{before}{queue}{after}" and queue == queue.upper()
        if fits and bool(queue) == bool(placeholder):
            return field.paths([queue.lower()])[0]
    return None


def _variable_hint(name: str) -> str:
    known = [field.variable.replace(NAME.upper(), "EMAILS") for field in fields()]
    # Without the prefix that they share, which would make all of them alike.
    near = nearest(name.upper().removeprefix(_PREFIX), [one.removeprefix(_PREFIX) for one in known])
    return f"did you mean {_PREFIX}{near}?" if near else "`pgtasks config show` lists the keys"


# Command line


def _add_overrides(merger: Merger, overrides: Mapping[str, object]) -> None:
    for key, value in overrides.items():
        path = tuple(key.split("."))
        flag = value if isinstance(value, Flag) else Flag(f"--{path[-1]}", value)
        if flag.value is not None:
            merger.add(Layer.of(path, flag.value, Origin("command-line", flag.name)))
