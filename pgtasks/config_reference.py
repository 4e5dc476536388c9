"""The keys of `pgtasks.config` as one list, and the reference in the documentation made from it.

`python -m pgtasks.config_reference` prints that reference.
"""

import sys
from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import attrgetter
from typing import Any, Final

import attrs

from pgtasks.config import Config
from pgtasks.setting import Section, Tables, kebab
from pgtasks.setting_kind import Kind

KeyPath = tuple[str, ...]

NAME: Final = "<name>"


@attrs.frozen
class Field:
    """One key of the list.

    Attributes:
        path: its tables and its name as files spell them; `<name>` stands for a queue's name.
        kind: what it takes.
        default: its value when nobody sets it.
        doc: one sentence.
        at_least: the path of the key that it may not be below, if there is one.
        instead_of: the path of the key that may not be set together with it, if there is one.
    """

    path: KeyPath
    kind: Kind
    default: Any
    doc: str
    at_least: KeyPath | None
    instead_of: KeyPath | None

    @property
    def name(self) -> str:
        """Its name in its table."""
        return self.path[-1]

    @property
    def table(self) -> str:
        """The dotted path of its table, as in `worker.queue-fetch`."""
        return ".".join(self.path[:-1])

    @property
    def key(self) -> str:
        """The dotted path, as in `worker.queue-fetch.notify`."""
        return ".".join(self.path)

    @property
    def variable(self) -> str:
        """The environment variable, as in `PGTASKS__WORKER__QUEUE_FETCH__NOTIFY`."""
        return "PGTASKS__" + "__".join(part.upper().replace("-", "_") for part in self.path)

    def paths(self, queues: Iterable[str]) -> list[KeyPath]:
        """Its path, or one for each of the queues when it is a key of their tables."""
        if NAME not in self.path:
            return [self.path]
        return [tuple(queue if part == NAME else part for part in self.path) for queue in queues]


def fields(cls: type[Any] = Config, prefix: KeyPath = ()) -> Iterator[Field]:
    """Every key of pgtasks in the order of the reference: a table's own keys first."""
    inner: list[Field] = []
    for field in attrs.fields(cls):
        path, kind = (*prefix, kebab(field.name)), field.metadata["kind"]
        match kind:
            case Section():
                inner += fields(kind.cls, path)
            case Tables():
                inner += fields(kind.cls, (*path, NAME))
            case _:
                at_least, instead_of = (
                    other and (*prefix, kebab(other))
                    for other in (field.metadata["at_least"], field.metadata["instead_of"])
                )
                yield Field(path, kind, field.default, field.metadata["doc"], at_least, instead_of)
    yield from inner


def members() -> dict[KeyPath, list[str]]:
    """What stands in each table, keys and tables, in the order of the reference."""
    found: dict[KeyPath, dict[str, None]] = {}
    for field in fields():
        for length, part in enumerate(field.path):
            found.setdefault(field.path[:length], {})[part] = None
    return {table: list(names) for table, names in found.items()}


def reference() -> str:
    """The reference of all keys as Markdown, one table a section."""
    lines: list[str] = []
    for table, keys in groupby(fields(), attrgetter("table")):
        lines += [f"### `[{table}]`", ""]
        lines += ["| key | type | unit | default | meaning |", "|---|---|---|---|---|"]
        lines += [*map(_row, keys), ""]
    return "\n".join(lines)


def _row(field: Field) -> str:
    kind = field.kind
    takes = f'{kind.description}, or "none"' if kind.optional else kind.description
    default = kind.show(field.default)
    default = f"`{default}`" if default else "empty"
    return f"| `{field.name}` | {takes} | {kind.unit} | {default} | {field.doc} |"


if __name__ == "__main__":
    sys.stdout.write(reference())
