"""Merger: lays sources of settings over each other; each value knows its origin."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

import attrs

from pgtasks.config import Config
from pgtasks.config_reference import NAME, Field, KeyPath, fields, members
from pgtasks.errors import ConfigError
from pgtasks.nearest import nearest
from pgtasks.setting import Section, Tables, clash_problem, kebab, order_problem
from pgtasks.setting_kind import Kind, QueueName
from pgtasks.toml_file import dotted

LayerName = Literal["default", "pyproject", "file", "environment-file", "variable", "command-line"]

_KEYS: Final[dict[KeyPath, Field]] = {field.path: field for field in fields()}
_TABLES: Final = members()


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
class Layer:
    """One source: plain nested dicts, and the origin of the keys in them.

    Attributes:
        values: nested dicts, spelt as in files.
        origins: by path; a path that is missing has the origin of the table it stands in.
    """

    values: Any = attrs.field(repr=False)  # a password may be among them, here and below
    origins: Mapping[KeyPath, Origin]

    @classmethod
    def of(cls, path: KeyPath, value: object, origin: Origin) -> "Layer":
        """A source of one value, such as a variable; text is parsed, not taken as it is."""
        for part in reversed(path):
            value = {part: value}
        return cls(value, {(): origin})

    def origin(self, path: KeyPath) -> Origin:
        """Where the value at a path came from."""
        while path not in self.origins:
            path = path[:-1]
        return self.origins[path]


@attrs.define
class Merger:
    """Lays sources over each other, lowest first, and collects what is wrong in them."""

    values: dict[KeyPath, Any] = attrs.field(factory=dict, repr=False)
    origins: dict[KeyPath, Origin] = attrs.Factory(dict)
    problems: list[str] = attrs.Factory(list)
    warnings: list[str] = attrs.Factory(list)
    _queues: dict[str, None] = attrs.Factory(dict)
    _refused: set[KeyPath] = attrs.Factory(set)

    def add(self, layer: Layer) -> None:
        """Lay one source over those before it."""
        self._add(layer, layer.values, ())

    def knows(self, path: KeyPath) -> bool:
        """Whether some source has set this key, rightly or wrongly."""
        return path in self.values or path in self._refused

    def build(self) -> Config:
        """The configuration; raises ConfigError with everything that was wrong."""
        self._check_pairs()
        if self.problems:
            raise ConfigError("\n".join(self.problems))
        config: Config = self._build(Config, ())
        return config

    def origins_by_key(self) -> dict[str, Origin]:
        """The origin of every key, defaults included."""
        paths = (path for field in fields() for path in field.paths(self._queues))
        return {".".join(path): self.origins.get(path, DEFAULT) for path in paths}

    def _problem(self, origin: Origin, path: KeyPath, text: str) -> None:
        """Note what is wrong; a variable or flag names its key already, a line does not."""
        key = f"{dotted(path)}: " if origin.file and path else ""
        self.problems.append(f"{origin}: {key}{text}")

    def _add(self, layer: Layer, value: Any, path: KeyPath) -> None:
        """Add a key, or a table and all that is in it."""
        origin, place = layer.origin(path), _place(path)
        if place in _KEYS:
            self._add_key(origin, _KEYS[place].kind, value, path)
        elif place not in _TABLES:
            self._problem(origin, path, f"unknown key; {_hint(path)}")
        elif not isinstance(value, Mapping):
            text = dotted(path) or "tool.pgtasks"
            example = f"{text}.emails" if NAME in _TABLES[place] else text
            text = f"this is a table, not one value; write [{example}] and keys below it"
            self._problem(origin, path, text)
        elif place[-1:] != (NAME,) or self._is_named(origin, path):
            for key, one in value.items():
                self._add(layer, one, (*path, key))

    def _is_named(self, origin: Origin, path: KeyPath) -> bool:
        """Note the table of a queue, unless no queue can have its name."""
        try:
            QueueName().read(path[-1])
        except ConfigError as error:
            self._problem(origin, path[:-1], str(error))
            return False
        self._queues[path[-1]] = None
        return True

    def _add_key(self, origin: Origin, kind: Kind, value: Any, path: KeyPath) -> None:
        textual = origin.file is None and isinstance(value, str)
        try:
            self.values[path] = kind.parse(value) if textual else kind.read(value)
        except ConfigError as error:
            self._refused.add(path)
            return self._problem(origin, path, str(error))
        self.origins[path] = origin
        return None

    def _check_pairs(self) -> None:
        """Refuse settings that contradict each other."""
        for field in _KEYS.values():
            for path in field.paths(self._queues):
                for beside in filter(None, (field.at_least, field.instead_of)):
                    self._check_pair(field, path, (*path[:-1], beside[-1]))

    def _check_pair(self, field: Field, path: KeyPath, other: KeyPath) -> None:
        if not self._refused.isdisjoint((path, other)):
            return
        mine, its = (self.values.get(one, _KEYS[_place(one)].default) for one in (path, other))
        if field.at_least:
            text = order_problem(field.kind, mine, other[-1], its)
        else:
            text = clash_problem(mine, other[-1], its, str(self.origins.get(other, "")))
        if text:
            origin = self.origins.get(path) or self.origins[other]
            self.problems.append(f"{origin}: {dotted(path)}: {text}")

    def _build(self, cls: type[Any], path: KeyPath) -> Any:
        values: dict[str, Any] = {}
        for field in attrs.fields(cls):
            where, kind = (*path, kebab(field.name)), field.metadata["kind"]
            match kind:
                case Section():
                    values[field.name] = self._build(kind.cls, where)
                case Tables():
                    named = ((one, (*where, one)) for one in self._queues)
                    values[field.name] = {one: self._build(kind.cls, path) for one, path in named}
                case _ if where in self.values:
                    values[field.name] = self.values[where]
        return cls(**values)


def _place(path: KeyPath) -> KeyPath:
    """A path as the list of keys has it, where `<name>` stands for a queue's name."""
    place: KeyPath = ()
    for part in path:
        place = (*place, NAME if NAME in _TABLES.get(place, ()) else part)
    return place


def _hint(path: KeyPath) -> str:
    """The same key elsewhere, the nearest known key here, or all keys here."""
    key, table = path[-1], path[:-1]
    known = _TABLES[_place(table)]
    elsewhere = [field for field in _KEYS.values() if field.name == kebab(key)]
    if kebab(key) not in known and elsewhere:
        return f'did you mean "{elsewhere[0].name}" in [{elsewhere[0].table}]?'
    if near := nearest(key, known):
        return f'did you mean "{near}"?'
    return f"{f'[{dotted(table)}] knows' if table else 'the tables are'} {', '.join(known)}"
