"""Where settings come from: defaults, files, the environment, the command line.

Each source is read as plain nested dicts and laid over the one before; only the result becomes a
`Config`. So a key that a source does not mention keeps what an earlier one said, and each value
knows its origin. Lowest first:

    defaults < DATABASE_URL < pyproject.toml [tool.pgtasks] < pgtasks.toml
             < pgtasks.<environment>.toml < PGTASKS__... < PGTASKS_DATABASE_URL < command line

Everything wrong in any of them is collected into one `ConfigError`.
"""

import json
import os
import re
import stat
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Literal

import attrs

from pgtasks.config import (
    Config,
    Field,
    Kind,
    Section,
    Tables,
    fields,
    has_password,
    kebab,
    nearest,
    order_problem,
)
from pgtasks.errors import ConfigError

KeyPath = tuple[str, ...]
LayerName = Literal["default", "pyproject", "file", "environment-file", "variable", "command-line"]

_DATABASE_URL: Final = ("database", "url")
_PREFIX: Final = "PGTASKS__"
_NAME: Final = "<name>"


@attrs.frozen
class Origin:
    """Where one value came from; as text it is `pgtasks.toml:12`, a variable's name or a flag.

    Attributes:
        layer: the kind of source.
        name: the file's name, the variable, the flag, or "default".
        file: the whole path of the file, if it is one.
        line: the line in that file, from 1.
    """

    layer: LayerName
    name: str
    file: Path | None = None
    line: int | None = None

    def __str__(self) -> str:
        return self.name if self.line is None else f"{self.name}:{self.line}"


DEFAULT: Final = Origin("default", "default")


@attrs.frozen
class Flag:
    """A value for `load(overrides=...)` that names its flag, when `--<key>` is not its name."""

    name: str
    value: object


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
    merger = _Merger()
    for file, layer, prefix in _files(folder, environment):
        _add_file(merger, file, layer, prefix)
    _add_variables(merger, environ)
    _add_overrides(merger, overrides or {})
    _add_shared_url(merger, environ)
    config = merger.build()
    warnings = [*merger.warnings, *_misspelt_environment(folder, environment)]
    return Loaded(config, merger.origins_by_key(), folder, environment, warnings)


def describe(loaded: Loaded) -> list[Setting]:
    """Every effective value with its default, origin and meaning, in the reference's order."""
    settings: list[Setting] = []
    for field in fields():
        for path in _instances(field, sorted(loaded.config.worker.queue_config)):
            key = ".".join(path)
            value = field.kind.show(_value_at(loaded.config, path))
            default = field.kind.show(field.default)
            settings.append(Setting(key, value, default, loaded.origins[key], field.doc))
    return settings


def find_project_folder(start: Path) -> Path:
    """The nearest folder from `start` upwards that configures pgtasks, else `start` itself."""
    start = start.absolute()
    for folder in (start, *start.parents):
        if (folder / "pgtasks.toml").is_file() or _is_ours(folder / "pyproject.toml"):
            return folder
    return start


# Merging


@attrs.frozen
class _Layer:
    """One source: plain nested dicts, and the origin of the keys in them.

    Attributes:
        values: nested dicts, spelt as in files.
        origins: by path; a path that is missing has the origin of the table it stands in.
        textual: whether text is to be parsed, as in variables, and not taken as it is.
    """

    values: Any
    origins: Mapping[KeyPath, Origin]
    textual: bool = False

    def origin(self, path: KeyPath) -> Origin:
        return next(
            self.origins[p] for n in range(len(path), -1, -1) if (p := path[:n]) in self.origins
        )


@attrs.define
class _Merger:
    """Lays sources over each other, lowest first, and collects what is wrong in them."""

    values: dict[KeyPath, Any] = attrs.Factory(dict)
    origins: dict[KeyPath, Origin] = attrs.Factory(dict)
    names: dict[KeyPath, None] = attrs.Factory(dict)
    refused: set[KeyPath] = attrs.Factory(set)
    problems: list[str] = attrs.Factory(list)
    warnings: list[str] = attrs.Factory(list)

    def add(self, layer: _Layer) -> None:
        """Lay one source over those before it."""
        self._add_table(layer, Config, layer.values, ())

    def build(self) -> Config:
        """The configuration; raises ConfigError with everything that was wrong."""
        self._check_order(Config, ())
        if self.problems:
            raise ConfigError("\n".join(self.problems))
        config: Config = self._build(Config, ())
        return config

    def origins_by_key(self) -> dict[str, Origin]:
        """The origin of every key, defaults included."""
        queues = [path[-1] for path in self.names]
        paths = (path for field in fields() for path in _instances(field, queues))
        return {".".join(path): self.origins.get(path, DEFAULT) for path in paths}

    def knows(self, path: KeyPath) -> bool:
        """Whether some source has set this key, rightly or wrongly."""
        return path in self.values or path in self.refused

    def problem(self, origin: Origin, path: KeyPath, text: str) -> None:
        """Note what is wrong; a variable or flag names its key already, a line does not."""
        key = f"{dotted(path)}: " if origin.file and path else ""
        self.problems.append(f"{origin}: {key}{text}")

    def _add_table(self, layer: _Layer, cls: type[Any], table: Any, path: KeyPath) -> None:
        if not isinstance(table, Mapping):
            place = dotted(path) or "tool.pgtasks"
            text = f"this is a table, not one value; write [{place}] and keys below it"
            return self.problem(layer.origin(path), path, text)
        known = {kebab(field.name): field.metadata["kind"] for field in attrs.fields(cls)}
        for key, value in table.items():
            where = (*path, key)
            if key in known:
                self._add_value(layer, known[key], value, where)
            else:
                self.problem(layer.origin(where), where, f"unknown key; {_hint(key, known, path)}")
        return None

    def _add_value(self, layer: _Layer, kind: Any, value: Any, path: KeyPath) -> None:
        match kind:
            case Section():
                self._add_table(layer, kind.cls, value, path)
            case Tables() if isinstance(value, Mapping):
                for name, table in value.items():
                    self._add_named(layer, kind, name, table, path)
            case Tables():
                text = f"write one table a name, as in [{dotted(path)}.emails]"
                self.problem(layer.origin(path), path, text)
            case _:
                self._add_leaf(layer, kind, value, path)

    def _add_named(self, layer: _Layer, kind: Tables, name: str, table: Any, path: KeyPath) -> None:
        where = (*path, name)
        try:
            kind.name.read(name)
        except ConfigError as error:
            return self.problem(layer.origin(where), path, str(error))
        self.names[where] = None
        return self._add_table(layer, kind.cls, table, where)

    def _add_leaf(self, layer: _Layer, kind: Kind, value: Any, path: KeyPath) -> None:
        origin = layer.origin(path)
        textual = layer.textual and isinstance(value, str)
        try:
            self.values[path] = kind.parse(value) if textual else kind.read(value)
        except ConfigError as error:
            self.refused.add(path)
            return self.problem(origin, path, str(error))
        self.origins[path] = origin
        return None

    def _check_order(self, cls: type[Any], path: KeyPath) -> None:
        """Refuse settings of one table that contradict each other."""
        values = {}
        for field in attrs.fields(cls):
            where, kind = (*path, kebab(field.name)), field.metadata["kind"]
            values[field.name] = self.values.get(where, field.default)
            if isinstance(kind, Section):
                self._check_order(kind.cls, where)
        if found := order_problem(cls, values):
            more, less, text = ((*path, kebab(found[0])), (*path, kebab(found[1])), found[2])
            if not {more, less} & self.refused:
                origin = self.origins.get(more) or self.origins[less]
                self.problems.append(f"{origin}: {dotted(more)}: {text}")

    def _build(self, cls: type[Any], path: KeyPath) -> Any:
        values: dict[str, Any] = {}
        for field in attrs.fields(cls):
            where, kind = (*path, kebab(field.name)), field.metadata["kind"]
            match kind:
                case Section():
                    values[field.name] = self._build(kind.cls, where)
                case Tables():
                    named = [one for one in self.names if one[:-1] == where]
                    values[field.name] = {one[-1]: self._build(kind.cls, one) for one in named}
                case _ if where in self.values:
                    values[field.name] = self.values[where]
        return cls(**values)


def _hint(key: str, known: Mapping[str, Any], path: KeyPath) -> str:
    """The nearest known key here, the same key elsewhere, or all keys here."""
    elsewhere = [field for field in fields() if field.path[-1] == kebab(key)]
    if kebab(key) not in known and elsewhere:
        return f'did you mean "{elsewhere[0].path[-1]}" in [{".".join(elsewhere[0].path[:-1])}]?'
    if near := nearest(key, list(known)):
        return f'did you mean "{near}"?'
    place = f"[{dotted(path)}] knows" if path else "the tables are"
    return f"{place} {', '.join(known)}"


def dotted(path: KeyPath) -> str:
    """A path as TOML writes it, quoted where it must be."""
    return ".".join(part if _BARE.fullmatch(part) else _quoted(part) for part in path)


def _quoted(part: str) -> str:
    return json.dumps(part, ensure_ascii=False)


def _instances(field: Field, queues: list[str]) -> Iterator[KeyPath]:
    """The paths of a key: one, or one for each queue that is configured."""
    if _NAME not in field.path:
        yield field.path
        return
    at = field.path.index(_NAME)
    for queue in queues:
        yield (*field.path[:at], queue, *field.path[at + 1 :])


def _value_at(config: Config, path: KeyPath) -> Any:
    value: Any = config
    for part in path:
        value = (
            value[part] if isinstance(value, Mapping) else getattr(value, part.replace("-", "_"))
        )
    return value


# Files


def _files(folder: Path, environment: str | None) -> Iterator[tuple[Path, LayerName, KeyPath]]:
    """The files to read, lowest first, each with the table that holds our settings."""
    if not folder.is_dir():
        raise ConfigError(f"{folder}: there is no such folder; name the project's folder")
    if _is_ours(folder / "pyproject.toml"):
        yield folder / "pyproject.toml", "pyproject", ("tool", "pgtasks")
    if (folder / "pgtasks.toml").exists():
        yield folder / "pgtasks.toml", "file", ()
    if environment and (folder / f"pgtasks.{environment}.toml").exists():
        yield folder / f"pgtasks.{environment}.toml", "environment-file", ()


def _is_ours(pyproject: Path) -> bool:
    """Whether a pyproject.toml has a [tool.pgtasks] table; one that is broken but names it has."""
    with suppress(OSError, UnicodeDecodeError):
        text = pyproject.read_text("utf-8-sig")
        if "pgtasks" not in text:
            return False
        try:
            tool = tomllib.loads(text).get("tool")
        except (tomllib.TOMLDecodeError, RecursionError):
            return "tool.pgtasks" in text
        return isinstance(tool, dict) and "pgtasks" in tool
    return False


def _add_file(merger: _Merger, file: Path, layer: LayerName, prefix: KeyPath) -> None:
    try:
        text = _read(file)
        values: Any = _parse(text, file.name)
    except ConfigError as error:
        merger.problems.append(str(error))
        return
    origins: dict[KeyPath, Origin] = {(): Origin(layer, file.name, file)}
    for path, line in key_lines(text).items():
        if path[: len(prefix)] == prefix:
            origins[path[len(prefix) :]] = Origin(layer, file.name, file, line)
    for part in prefix:
        values = values[part]
    source = _Layer(values, origins)
    merger.add(source)
    merger.warnings += _readable_password(source, file)


def _read(file: Path) -> str:
    try:
        return file.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{file.name}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{file.name}:{line}: this is not UTF-8; save it as UTF-8") from None


def _parse(text: str, name: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.fullmatch(r"(.*) \(at line (\d+), column (\d+)\)", str(error), re.DOTALL)
        if found is None:  # "(at end of document)"
            message, _, _ = str(error).partition(" (at ")
            last = text.rstrip("\n").rpartition("\n")[2]
            line, column = text.rstrip("\n").count("\n") + 1, len(last) + 1
        else:
            message, line, column = found[1], int(found[2]), int(found[3])
        raise ConfigError(f"{name}:{line}:{column}: this is not TOML: {message}") from None
    except RecursionError:
        raise ConfigError(f"{name}: values are nested too deep; write fewer brackets") from None


def _readable_password(layer: _Layer, file: Path) -> Iterator[str]:
    url = _find(layer.values, _DATABASE_URL)
    if not isinstance(url, str) or not has_password(url) or os.name != "posix":
        return
    if file.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
        yield (
            f"{layer.origin(_DATABASE_URL)}: database.url holds a password that others on this "
            f"machine can read; run: chmod 600 {file.name}"
        )


# Environment


def _environment(given: str | None, environ: Mapping[str, str]) -> str | None:
    name, source = given, "environment"
    if given is None:
        name, source = environ.get("PGTASKS_ENVIRONMENT"), "PGTASKS_ENVIRONMENT"
    if name and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise ConfigError(f'{source}: "{name}" is not a name; write letters, digits, "_" and "-"')
    return name or None


def _misspelt_environment(folder: Path, environment: str | None) -> Iterator[str]:
    """A named environment needs no file of its own, but one with nearly its name is suspicious."""
    if environment is None or (folder / f"pgtasks.{environment}.toml").exists():
        return
    present = [file.name[len("pgtasks.") : -len(".toml")] for file in folder.glob("pgtasks.*.toml")]
    if near := nearest(environment, present):
        file = f"pgtasks.{environment}.toml"
        yield f'there is no {file}; did you mean the environment "{near}"?'


def _add_shared_url(merger: _Merger, environ: Mapping[str, str]) -> None:
    """DATABASE_URL belongs to the whole application: asked last, and it may be another's.

    Last, so that nobody hears of mistakes in it who has set our own `database.url`.
    """
    url = environ.get("DATABASE_URL", "").strip()
    if not url or merger.knows(_DATABASE_URL):
        return
    if not url.startswith("postgres"):
        text = "it is not a Postgres URL; for pgtasks set PGTASKS_DATABASE_URL"
        merger.warnings.append(f"DATABASE_URL is ignored: {text}")
        return
    _add_variable(merger, "DATABASE_URL", _DATABASE_URL, url)


def _add_variables(merger: _Merger, environ: Mapping[str, str]) -> None:
    """PGTASKS__TABLE__KEY for every key, and PGTASKS_DATABASE_URL above them.

    An empty variable counts as one that is not set. Other names with one underscore are not ours.
    """
    for name in sorted(environ):
        if not name.startswith(_PREFIX):
            continue
        path = _variable_path(name)
        if path is None:
            merger.problems.append(f"{name}: unknown variable; {_variable_hint(name)}")
        elif environ[name].strip():
            _add_variable(merger, name, path, environ[name])
    if url := environ.get("PGTASKS_DATABASE_URL", "").strip():
        _add_variable(merger, "PGTASKS_DATABASE_URL", _DATABASE_URL, url)


def _add_variable(merger: _Merger, name: str, path: KeyPath, text: str) -> None:
    merger.add(_Layer(_nested(path, text), {(): Origin("variable", name)}, textual=True))


def _variable_path(name: str) -> KeyPath | None:
    """The key a variable stands for; a queue's name may itself hold double underscores."""
    for field in fields():
        if field.variable == name:
            return None if _NAME in field.path else field.path
        before, placeholder, after = field.variable.partition(_NAME.upper())
        if placeholder and name.startswith(before) and name.endswith(after):
            queue = name[len(before) : -len(after)]
            if queue and queue == queue.upper():
                return tuple(queue.lower() if part == _NAME else part for part in field.path)
    return None


def _variable_hint(name: str) -> str:
    known = [field.variable.replace(_NAME.upper(), "EMAILS") for field in fields()]
    # Without the prefix that they share, which would make all of them alike.
    near = nearest(name.upper().removeprefix(_PREFIX), [one.removeprefix(_PREFIX) for one in known])
    return f"did you mean {_PREFIX}{near}?" if near else "`pgtasks config show` lists the keys"


# Command line


def _add_overrides(merger: _Merger, overrides: Mapping[str, object]) -> None:
    for key, value in overrides.items():
        path = tuple(key.split("."))
        flag = value if isinstance(value, Flag) else Flag(f"--{path[-1]}", value)
        if flag.value is not None:
            origin = Origin("command-line", flag.name)
            merger.add(_Layer(_nested(path, flag.value), {(): origin}, textual=True))


def _nested(path: KeyPath, value: object) -> dict[str, Any]:
    for part in reversed(path):
        value = {part: value}
    return value  # type: ignore[return-value]


# The lines of a TOML file


def key_lines(text: str) -> dict[KeyPath, int]:
    """The line on which each key and table of a TOML text first stands, from 1.

    Args:
        text: TOML that `tomllib` has read; on anything else the answer has no meaning.

    Returns:
        lines by path; the items of an array have the path of the array.

    Example:
        >>> key_lines("task = { lease = 5 }")
        {('task',): 1, ('task', 'lease'): 1}
    """
    return _Scanner(text).scan()


_BLANK: Final = re.compile(r"(?:[ \t\r\n,]|#[^\n]*)*")
_SPACE: Final = re.compile(r"[ \t]*")
_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")
_SCALAR: Final = re.compile(r"[^,\]}#\n]*")
_STRING: Final = re.compile(
    r"'''.*?'''(?:'{0,2})"
    r'|"""(?:\\.|[^\\])*?"""(?:"{0,2})'
    r"|'[^'\n]*'"
    r'|"(?:\\.|[^"\\\n])*"',
    re.DOTALL,
)


@attrs.define
class _Scanner:
    """Walks valid TOML once. tomllib keeps no lines, and tomlkit takes 80 ms to import."""

    text: str
    at: int = 0
    lines: dict[KeyPath, int] = attrs.Factory(dict)

    def scan(self) -> dict[KeyPath, int]:
        table: KeyPath = ()
        self._skip(_BLANK)
        while self.at < len(self.text):
            if self.text[self.at] == "[":
                table = self._header()
            else:
                self._pair(table)
            self._skip(_BLANK)
        return self.lines

    def _header(self) -> KeyPath:
        start = self.at
        self.at += 2 if self.text.startswith("[[", self.at) else 1
        path = self._key()
        self._note(path, start)
        self.at += 2 if self.text.startswith("]]", self.at) else 1
        return path

    def _pair(self, table: KeyPath) -> None:
        start = self.at
        path = (*table, *self._key())
        self._note(path, start)
        self.at += 1  # the equals sign
        self._skip(_SPACE)
        self._value(path)

    def _key(self) -> KeyPath:
        parts: list[str] = []
        while True:
            self._skip(_SPACE)
            parts.append(self._part())
            self._skip(_SPACE)
            if self.text[self.at] != ".":
                return tuple(parts)
            self.at += 1

    def _part(self) -> str:
        quoted = self.text[self.at] in "\"'"
        part = self._skip(_STRING if quoted else _BARE)
        return str(tomllib.loads(f"part = {part}")["part"]) if quoted else part

    def _value(self, path: KeyPath) -> None:
        match self.text[self.at]:
            case "'" | '"':
                self._skip(_STRING)
            case "[":
                self._inside("]", lambda: self._value(path))
            case "{":
                self._inside("}", lambda: self._pair(path))
            case _:
                self._skip(_SCALAR)

    def _inside(self, end: str, item: Callable[[], None]) -> None:
        self.at += 1
        self._skip(_BLANK)
        while self.text[self.at] != end:
            item()
            self._skip(_BLANK)
        self.at += 1

    def _note(self, path: KeyPath, start: int) -> None:
        line = self.text.count("\n", 0, start) + 1
        for length in range(1, len(path) + 1):
            self.lines.setdefault(path[:length], line)

    def _skip(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self.text, self.at)
        taken = match[0] if match else ""
        self.at += len(taken)
        return taken


# Writing


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
    value = _checked(path, text)
    old = _read(file) if file.exists() else ""
    _parse(old, file.name)
    new = _with_value(old, path, value)
    if _find(_parse(new, file.name), path) != value:
        raise ConfigError(f"{file.name}: {key} cannot be changed from here; change it by hand")
    _replace(file, new, secret=path == _DATABASE_URL)


def _checked(path: KeyPath, text: str) -> Any:
    """The value as TOML holds it, checked as if a file had held it."""
    merger = _Merger()
    merger.add(
        _Layer(_nested(path, text), {(): Origin("command-line", ".".join(path))}, textual=True)
    )
    if merger.problems:
        raise ConfigError("\n".join(merger.problems))
    kinds = {one: field.kind for field in fields() for one in _instances(field, [*path[-2:-1]])}
    return kinds[path].plain(merger.values[path])


def _with_value(text: str, path: KeyPath, value: Any) -> str:
    import tomlkit  # noqa: PLC0415 - 80 ms that only writing has to wait for

    document = tomlkit.parse(text)
    table: Any = document
    for part in path[:-1]:
        if part not in table:
            table[part] = tomlkit.table()
        table = table[part]
        if not isinstance(table, Mapping):
            raise ConfigError(f"{dotted(path)}: the file has one value for {part}; write a table")
    table[path[-1]] = value
    return tomlkit.dumps(document)


def _find(values: Any, path: KeyPath) -> Any:
    for part in path:
        values = values.get(part) if isinstance(values, dict) else None
    return values


def _replace(file: Path, text: str, *, secret: bool) -> None:
    """Put the new text in the file's place at once, so that no crash leaves half of it."""
    file = file.resolve()
    mode = stat.S_IMODE(file.stat().st_mode) if file.exists() else 0o600 if secret else 0o644
    new = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        new.touch(mode=0o600)
        new.write_text(text, "utf-8", newline="\n")
        new.chmod(mode)
        new.replace(file)
    except OSError as error:
        raise ConfigError(f"{file.name}: cannot be written: {error.strerror}") from error
    finally:
        new.unlink(missing_ok=True)
