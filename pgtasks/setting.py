"""How `pgtasks.config` declares its settings: single keys, tables, and tables by name."""

from collections.abc import Mapping
from typing import Any

import attrs

from pgtasks.duration import shown
from pgtasks.errors import ConfigError
from pgtasks.setting_kind import Kind, QueueName, Url


@attrs.frozen
class Section:
    """A table of settings: one of the classes in `pgtasks.config`."""

    cls: type[Any]


@attrs.frozen
class Tables:
    """One table of settings for each queue that somebody names."""

    cls: type[Any]

    def read(self, value: Mapping[str, object]) -> dict[str, Any]:
        """The tables by name; raises ConfigError when one is not what it should be."""
        for one in value.values():
            if not isinstance(one, self.cls):
                raise ConfigError(f"{shown(one)} is not a {self.cls.__name__}")
        return {QueueName().read(name): one for name, one in value.items()}


def setting(
    default: object,
    kind: Kind,
    doc: str,
    *,
    at_least: str | None = None,
    instead_of: str | None = None,
) -> Any:
    """One key.

    Args:
        default: its value when nobody sets it, as a file would spell it.
        kind: what it takes.
        doc: its meaning in one sentence.
        at_least: the attribute of the same class that it may not be below.
        instead_of: the attribute of the same class that may not be set together with it.
    """
    return attrs.field(
        default=kind.read(default),
        converter=attrs.Converter(_read, takes_field=True),
        validator=_check_beside if at_least or instead_of else None,
        repr=_masked if isinstance(kind, Url) else True,
        metadata={"kind": kind, "doc": doc, "at_least": at_least, "instead_of": instead_of},
    )


def section(cls: type[Any]) -> Any:
    """A table of settings."""
    return attrs.field(factory=cls, metadata={"kind": Section(cls)})


def tables(cls: type[Any]) -> Any:
    """One table of settings a queue."""
    converter = attrs.Converter(_read, takes_field=True)
    return attrs.field(
        factory=dict, converter=converter, hash=False, metadata={"kind": Tables(cls)}
    )


def order_problem(kind: Kind, value: Any, other: str, least: Any) -> str | None:
    """What is wrong with a value that may not be below that of the key `other`, if anything."""
    if value >= least:
        return None
    text = kind.show(least)
    return f"{kind.show(value)} is less than {kebab(other)} ({text}); write at least {text}"


def clash_problem(value: object, other: str, other_value: object, where: str = "") -> str | None:
    """What is wrong with two keys of which one may be set, if anything.

    Args:
        value: of the one that the problem is told of.
        other: the other key.
        other_value: its value.
        where: its place, if there is one.
    """
    if value is None or other_value is None:
        return None
    place = f" ({where})" if where else ""
    return f'not together with {kebab(other)}{place}; remove one of the two, or write "none"'


def kebab(name: str) -> str:
    """A Python name as files spell it."""
    return name.replace("_", "-")


def _read(value: object, field: "attrs.Attribute[Any]") -> Any:
    try:
        return field.metadata["kind"].read(value)
    except ConfigError as error:
        raise ConfigError(f"{kebab(field.name)}: {error}") from None


def _check_beside(instance: Any, field: "attrs.Attribute[Any]", value: Any) -> None:
    problem = None
    if other := field.metadata["at_least"]:
        problem = order_problem(field.metadata["kind"], value, other, getattr(instance, other))
    if other := field.metadata["instead_of"]:
        problem = clash_problem(value, other, getattr(instance, other))
    if problem:
        raise ConfigError(f"{kebab(field.name)}: {problem}")


def _masked(value: str | None) -> str:
    return repr(value and Url().show(value))
