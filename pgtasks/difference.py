"""Difference: where a value is not what would arrive of it, and why it cannot travel."""

import math
from collections.abc import Iterator, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from itertools import islice
from typing import Any, Final, NamedTuple
from uuid import UUID

import attrs
import msgspec

MAX_DEPTH: Final = 64
MAX_DIGITS: Final = 4_300

_JSON: Final = frozenset({str, int, float, bool, type(None), list, dict})
_ARRAYS: Final = (list, tuple, set, frozenset)
_TRAVELS: Final = _JSON | {
    tuple, set, frozenset, bytes, bytearray, memoryview, datetime, date, time, timedelta,
    Decimal, UUID,
}  # fmt: skip
_SMALL: Final = frozenset({int, float, bool, type(None)})
_SIZED: Final = frozenset({str, bytes, bytearray})
_TOO_LARGE: Final = 10**MAX_DIGITS
_TOO_LOW: Final = -(10 ** (MAX_DIGITS - 1))
_MOST_NODES: Final = 200_000


class Difference(NamedTuple):
    """A place in a value, what was sent there and what would arrive."""

    path: str
    sent: Any
    arrived: Any


@lru_cache(maxsize=1024)
def field_names(kind: Any) -> tuple[str, ...]:
    """Return the names of a class's fields: attrs, dataclass or msgspec.Struct; else none."""
    names = getattr(kind, "__struct_fields__", None) or getattr(kind, "__dataclass_fields__", None)
    if names is None and attrs.has(kind):
        names = (field.name for field in attrs.fields(kind))
    return tuple(names or ())


def is_oversized(value: object, limit: int) -> bool:
    """Tell, before a byte is written, whether a value needs more than `limit` bytes as JSON.

    Looks at no more than `limit` values: a list that contains itself counts as oversized too.
    """
    size, seen = 0, [value]
    for node in seen:
        kind: Any = type(node)
        if kind in _SMALL:
            continue
        if kind in _SIZED:
            size += len(node)  # type: ignore[arg-type]
        elif isinstance(node, dict):
            size += 4 * len(node)
            if size <= limit:
                seen += node
                seen += node.values()
        elif isinstance(node, _ARRAYS):
            size += 2 * len(node)
            if size <= limit:
                seen += node
        else:
            names = field_names(kind)
            size += 1 + len(names)
            seen += [getattr(node, name, None) for name in names]
        if size > limit:
            return True
    return False


def is_same(sent: Any, arrived: Any) -> bool:
    """Tell whether two values are equal, and of plain JSON types that agree all the way down.

    The quick answer to what `find_difference(..., exact=True)` asks, wherever it is yes.
    """
    kind = type(arrived)
    if type(sent) is not kind:
        return False
    if kind is list:
        return len(sent) == len(arrived) and all(map(is_same, sent, arrived))
    if kind is dict:
        if sent.keys() != arrived.keys() or not all(type(key) is str for key in sent):
            return False
        return all(is_same(value, arrived[key]) for key, value in sent.items())
    return kind in _JSON and bool(sent == arrived)


def find_fault(value: object) -> tuple[str, str] | None:
    """Return where in a value is something that cannot travel as JSON, and why; None: nowhere."""
    for path, node, depth in islice(_walk(value), _MOST_NODES):
        if depth > MAX_DEPTH:
            return "", f"is nested deeper than {MAX_DEPTH} levels, or contains itself"
        if (reason := _fault_of(node)) is not None:
            return path, reason
    return None


def find_difference(sent: Any, arrived: Any, *, exact: bool, path: str = "") -> Difference | None:
    """Return the first place where what would arrive is not what was sent; None: they are alike.

    Args:
        sent: the value as it was given.
        arrived: the value as it would arrive.
        exact: also the types of plain values have to agree: an `IntEnum` is no `int`.
        path: the place of these two in the whole.
    """
    kind: Any = type(arrived)
    if exact and kind in _JSON and not _same_type(sent, kind):
        return Difference(path, sent, arrived)
    if isinstance(arrived, dict) and isinstance(sent, dict):
        return _between_dicts(sent, arrived, exact, path)
    if isinstance(arrived, list | tuple) and isinstance(sent, list | tuple):
        return _between_arrays(sent, arrived, exact, path)
    names = field_names(kind)
    if names and type(sent) is kind:
        return _first_difference(
            ((f".{name}", getattr(sent, name, None), getattr(arrived, name, None))
             for name in names), exact, path,
        )  # fmt: skip
    return None if _equal(sent, arrived) else Difference(path, sent, arrived)


def _same_type(sent: object, kind: type) -> bool:
    # 1 is welcome where a float is declared: the type checker says so too.
    return type(sent) is kind or (kind is float and type(sent) is int)


def _between_dicts(
    sent: Mapping[Any, Any], arrived: Mapping[Any, Any], exact: bool, path: str
) -> Difference | None:
    if len(sent) != len(arrived) or not all(key in arrived for key in sent):
        return Difference(path, sent, arrived)
    if exact:
        own = {key: key for key in arrived}
        for key in sent:
            if type(own[key]) is str and type(key) is not str:
                return Difference(f"{path}{_step(key)} (the key)", key, own[key])
    return _first_difference(
        ((_step(key), value, arrived[key]) for key, value in sent.items()), exact, path
    )


def _between_arrays(
    sent: list[Any] | tuple[Any, ...], arrived: list[Any] | tuple[Any, ...], exact: bool, path: str
) -> Difference | None:
    if isinstance(sent, list) is not isinstance(arrived, list) or len(sent) != len(arrived):
        return Difference(path, sent, arrived)
    pairs = enumerate(zip(sent, arrived, strict=True))
    return _first_difference(((f"[{i}]", *pair) for i, pair in pairs), exact, path)


def _first_difference(
    pairs: Iterator[tuple[str, Any, Any]], exact: bool, path: str
) -> Difference | None:
    for step, sent, arrived in pairs:
        found = find_difference(sent, arrived, exact=exact, path=path + step)
        if found is not None:
            return found
    return None


def _equal(sent: object, arrived: object) -> bool:
    if isinstance(sent, Decimal) and isinstance(arrived, Decimal):
        return str(sent) == str(arrived)  # a NaN is unequal to itself, and sNaN raises
    if isinstance(sent, datetime) and isinstance(arrived, datetime) and sent.tzinfo:
        # In the hour that a zone repeats, Python calls datetimes of two zones unequal (PEP 495).
        same_clock = sent.replace(tzinfo=None) == arrived.replace(tzinfo=None)
        return same_clock and sent.utcoffset() == arrived.utcoffset()
    return equal(sent, arrived)


def equal(sent: object, arrived: object) -> bool:
    """Tell whether two values are equal; what cannot be compared is not."""
    try:
        return bool(sent == arrived)
    except Exception:  # noqa: BLE001 - `__eq__` is user code
        return False


def _walk(value: object) -> Iterator[tuple[str, object, int]]:
    """Yield each place in a value: its path, what is there, and in how many containers."""
    yield "", value, 0
    open_places = [("", _children(value))]
    while open_places:
        path, children = open_places[-1]
        step = next(children, None)
        if step is None:
            open_places.pop()
            continue
        path += step[0]
        yield path, step[1], len(open_places) + isinstance(step[1], (*_ARRAYS, dict))
        if len(open_places) <= MAX_DEPTH:
            open_places.append((path, _children(step[1])))


def _children(value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        for key, child in value.items():
            yield f"{_step(key)} (the key)", key
            yield _step(key), child
    elif isinstance(value, _ARRAYS):
        for place, child in enumerate(value):
            yield f"[{place}]", child
    else:
        kind: Any = type(value)
        for name in field_names(kind):
            yield f".{name}", getattr(value, name, None)


def _step(key: object) -> str:
    return f"[{key[:40]!r}]" if isinstance(key, str) else f"[<{type(key).__name__}>]"


def _fault_of(node: object) -> str | None:
    match node:
        case str():
            return _fault_of_text(node) or _fault_of_type(node)
        case float() if not math.isfinite(node):
            return "is NaN or infinite, which JSON cannot hold: send None or a text"
        case int() if not _TOO_LOW < node < _TOO_LARGE:
            return f"is a number of more than {MAX_DIGITS:,} digits and sign: send it as a text"
        case _:
            return _fault_of_type(node)


def _fault_of_text(text: str) -> str | None:
    if "\0" in text:
        return "contains the character \\u0000, which PostgreSQL cannot store in JSON: remove it"
    try:
        text[:_MOST_NODES].encode()
    except UnicodeEncodeError:
        return "contains a lone surrogate, which is no text: decode with errors='replace'"
    return None


def _fault_of_type(node: object) -> str | None:
    kind: Any = type(node)
    if kind in _TRAVELS or isinstance(node, Enum | dict | list | tuple | set | frozenset):
        return None
    if field_names(kind) or isinstance(node, msgspec.Struct) or attrs.has(kind):
        return None
    for base in (str, float, int):
        if isinstance(node, base):
            name = base.__name__
            return f"is a {kind.__name__}, a subclass of {name}: pass {name}(...) of it"
    return f"is a {kind.__name__}, which cannot travel as JSON"
