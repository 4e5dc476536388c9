"""Codec: the values of one annotation to JSON and back, so that what arrives is what was sent."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final, Self

import attrs
import msgspec
from msgspec import inspect as shape

from pgtasks.difference import MAX_DEPTH, equal, find_difference, find_fault, is_oversized, is_same
from pgtasks.errors import ArgumentError, DecodeError, TaskDefinitionError

MAX_BYTES: Final = 1_000_000
"""How long the arguments of a call may be as JSON."""
MAX_RECEIVED_BYTES: Final = 64 * MAX_BYTES
"""How long they may be when they are read: jsonb writes each digit of 5e-324 out."""
MAX_TEXT: Final = 65_536
"""How many characters of a text `sanitize` keeps unless told otherwise."""

_write: Final = msgspec.json.Encoder().encode
_write_lines: Final = msgspec.json.Encoder().encode_lines
_SCALARS: Final = frozenset({int, float, bool, type(None)})
_LONG_NUMBER: Final = re.compile(rb"[0-9]{19}")
_NUL: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
_EXPONENT: Final = re.compile(rb"[0-9]e[0-9]")
_STRING_OR_EXPONENT: Final = re.compile(
    # None of it tried twice: a number may have thousands of digits.
    rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|(?<![0-9])(-?[0-9]++(?:\.[0-9]++)?+e[0-9]++)',
    re.DOTALL,
)
_NOT_STRUCTURE: Final = bytes(set(range(256)) - set(b'[]{}"'))
_ERROR_PLACE: Final = re.compile(r" - at `(?:(key)` in `)?\$(.*)`$", re.DOTALL)
_UNSTORABLE: Final = re.compile("[\0\ud800-\udfff]")
_NEVER: Final = (shape.CustomType, shape.RawType, shape.ExtType)
_KEYS: Final = (
    shape.AnyType, shape.StrType, shape.IntType, shape.FloatType, shape.EnumType,
    shape.LiteralType, shape.UUIDType, shape.DateType, shape.DateTimeType, shape.TimeType,
    shape.TimeDeltaType, shape.DecimalType, shape.BytesType, shape.UnionType,
)  # fmt: skip
_FAITHFUL: Final[Mapping[type[shape.Type], type]] = {
    shape.IntType: int, shape.StrType: str, shape.BoolType: bool, shape.NoneType: type(None),
}  # fmt: skip
_MODELS: Final = (shape.StructType, shape.DataclassType, shape.TypedDictType)


@attrs.frozen(eq=False)
class Codec:
    """The JSON form of the values of one annotation.

    `encode` reads what it wrote with the annotation's own decoder and compares: a value that
    would arrive as another is refused where it is sent, not where it is needed.
    """

    annotation: Any
    is_model: bool
    """Whether the annotation is one attrs class, dataclass, Struct or typed dict."""
    _exact: bool
    _widens: bool
    _read: Callable[[bytes | msgspec.Raw], Any]
    _faithful: frozenset[type]
    """Types whose values need no look at what would arrive of them."""

    @classmethod
    def of(cls, annotation: Any, label: str) -> Self:
        """Build the codec of an annotation; `label` says in errors whose it is.

        Raises:
            TaskDefinitionError: values of this annotation cannot travel as JSON.
        """
        try:
            read = msgspec.json.Decoder(annotation).decode
            form = shape.type_info(annotation)
        except Exception as error:
            raise TaskDefinitionError(
                f"{label} is annotated {_named(annotation)}, which cannot travel as JSON: {error}"
            ) from error
        parts = list(_parts(form))
        _check_parts(parts, annotation, label)
        return cls(
            annotation=annotation,
            is_model=_is_model(form),
            exact=any(isinstance(part, shape.AnyType) for part in parts),
            widens=any(_takes_int_and_float(part) for part in parts),
            read=read,
            faithful=_faithful(form),
        )

    def encode(self, value: Any, label: str) -> bytes:
        """Return a value as JSON.

        Raises:
            ArgumentError: it would not arrive as it is sent; begins with `label` and the place.
        """
        kind = type(value)
        if kind not in _SCALARS and is_oversized(value, MAX_BYTES):
            raise _refused(label, value, f"is longer than {MAX_BYTES:,} bytes as JSON")
        try:
            raw = _write(value)
        except Exception as error:
            raise _refused(label, value, _text_of(error)) from error
        if kind not in _SCALARS:
            self._check_written(raw, value, label)
        if self._widens and _EXPONENT.search(raw):
            raw = _STRING_OR_EXPONENT.sub(_widened, raw)
        self._check_arrival(raw, value, label)
        return raw

    def is_faithful(self, values: Iterable[Any]) -> bool:
        """Tell, by their types alone, whether all values arrive as they are once written."""
        return self._faithful.issuperset(map(type, values))

    def decode(self, raw: bytes | msgspec.Raw, label: str) -> Any:
        """Return the value of a JSON text.

        Raises:
            DecodeError: it is no value of the annotation; begins with `label` and the place.
        """
        try:
            return self._read(raw)
        except RecursionError:
            raise DecodeError(f"{label} is nested too deeply") from None
        except Exception as error:
            place, text = _place_and_text(error)
            raise DecodeError(f"{label}{place}: {text}") from error

    def _check_written(self, raw: bytes, value: Any, label: str) -> None:
        if b"\\u0000" in raw and _NUL.search(raw):
            raise _refused(label, value, "contains the character \\u0000")
        if raw.count(b"[") + raw.count(b"{") > MAX_DEPTH and _is_too_deep(raw):
            raise _refused(label, value, f"is nested deeper than {MAX_DEPTH} levels")

    def _check_arrival(self, raw: bytes, value: Any, label: str) -> None:
        try:
            arrived = self._read(raw)
        except Exception as error:
            raise _refused(label, value, *reversed(_place_and_text(error))) from error
        if is_same(value, arrived) if self._exact else equal(value, arrived):
            return
        found = find_difference(value, arrived, exact=self._exact)
        if found is None:
            return
        reason = _reason(found.sent, found.arrived, exact=self._exact)
        raise _refused(label, value, reason, found.path)


def encode_plain(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
    """Return the arguments of a task that is known only by its name; JSON types only.

    Named arguments become an object, positional ones an array, both an object with the array
    under the key "*", none the empty object.

    Raises:
        ArgumentError: an argument is no plain JSON value, or all together are too long.
    """
    array = write_array(_PLAIN.encode(arg, f"argument {i}") for i, arg in enumerate(args))
    members = [STAR + array] if args else []
    for name, value in kwargs.items():
        label = f"argument {name:.80}" if isinstance(name, str) else "an argument"
        members.append(write_key(name, label) + _PLAIN.encode(value, label))
    return checked_length(array if args and not kwargs else write_object(members), "the call")


def write_array(items: Iterable[bytes]) -> bytes:
    """Return an array of values that are JSON already."""
    return b"[" + b",".join(items) + b"]"


def write_object(members: Iterable[bytes]) -> bytes:
    """Return an object of members, each a key from `write_key` and its value."""
    return b"{" + b",".join(members) + b"}"


@lru_cache(maxsize=1024)
def row_type(names: tuple[str, ...]) -> type[msgspec.Struct]:
    """Return a type that is written as an object of these names: a tenth of a dict's time."""
    return msgspec.defstruct("Row", names, gc=False)


def write_objects(objects: Sequence[object]) -> list[bytes] | None:
    """Return the JSON of each of many plain objects; None when one cannot be stored."""
    try:
        raw = _write_lines(objects)
    except Exception:  # noqa: BLE001 - which one it is, and why, is found out elsewhere
        return None
    lines = raw.split(b"\n")[:-1]
    too_long = len(raw) > MAX_BYTES and max(map(len, lines)) > MAX_BYTES
    return None if too_long or b"\\u0000" in raw or _LONG_NUMBER.search(raw) else lines


def write_key(name: object, label: str) -> bytes:
    """Return the name of an argument as the key of a member, with its colon.

    Raises:
        ArgumentError: this cannot be the name of an argument.
    """
    if not isinstance(name, str):
        raise ArgumentError(f"{label}: its name is of type {type(name).__name__}, not str")
    if name == "*":
        raise ArgumentError(f'{label}: the name "*" is kept for positional arguments; rename it')
    return _NAME.encode(name, f"{label}: its name") + b":"


def checked_length(raw: bytes, label: str) -> bytes:
    """Return the JSON unchanged.

    Raises:
        ArgumentError: it is longer than `MAX_BYTES`.
    """
    if len(raw) > MAX_BYTES:
        raise ArgumentError(
            f"{label} is {len(raw):,} bytes long as JSON, and {MAX_BYTES:,} at most are stored: "
            "store the data elsewhere and send where it is"
        )
    return raw


def sanitize(value: str, limit: int = MAX_TEXT) -> str:
    """Return a text as PostgreSQL can store it in JSON, at most `limit` characters long.

    The character U+0000 is left out and a lone surrogate becomes U+FFFD. A text that is too long
    loses its middle: a traceback says most at its beginning and its end.
    """
    if len(value) > limit:
        note = f"\n... {len(value):,} characters, shortened ...\n"
        kept = max(limit - len(note), 0)
        head = (kept + 1) // 2
        tail = value[len(value) - (kept - head) :]
        value = (value[:head] + note + tail)[:limit]
    return _UNSTORABLE.sub(lambda found: "" if found[0] == "\0" else "\ufffd", value)


def _parts(form: shape.Type) -> Iterator[shape.Type]:
    """Yield a type and all that it is made of, each once."""
    seen, open_forms = set(), [form]
    while open_forms:
        part = open_forms.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        yield part
        for name in part.__struct_fields__:
            value = getattr(part, name)
            for child in value if isinstance(value, tuple) else (value,):
                inner = child.type if isinstance(child, shape.Field) else child
                if isinstance(inner, shape.Type):
                    open_forms.append(inner)


def _check_parts(parts: list[shape.Type], annotation: Any, label: str) -> None:
    for part in parts:
        if isinstance(part, _NEVER):
            inner = _named(getattr(part, "cls", None) or type(part))
            raise TaskDefinitionError(
                f"{label} is annotated {_named(annotation)}, and a value of {inner} cannot travel "
                "as JSON: use JSON types, an attrs class, a dataclass, or a type listed in the "
                "documentation of arguments"
            )
        if isinstance(part, shape.DictType) and not isinstance(part.key_type, _KEYS):
            key = type(part.key_type).__name__.removesuffix("Type").lower()
            raise TaskDefinitionError(
                f"{label} is annotated {_named(annotation)}, and a {key} cannot be a key in JSON: "
                "use str keys, or a list of pairs"
            )


def _is_model(form: shape.Type) -> bool:
    if isinstance(form, shape.UnionType):
        inner = [part for part in form.types if not isinstance(part, shape.NoneType)]
        return len(inner) == 1 and isinstance(inner[0], _MODELS)
    return isinstance(form, _MODELS)


def _faithful(form: shape.Type) -> frozenset[type]:
    """The types whose values this annotation takes and gives back, unless they are unwritable."""
    parts = form.types if isinstance(form, shape.UnionType) else (form,)
    if any(isinstance(part, shape.AnyType) for part in parts):
        return frozenset(_FAITHFUL.values())
    # With limits, such as `Meta(ge=0)`, or another type in the union, each value is looked at.
    if not all(type(part) in _FAITHFUL and part == type(part)() for part in parts):
        return frozenset()
    return frozenset(_FAITHFUL[type(part)] for part in parts)


def _takes_int_and_float(part: shape.Type) -> bool:
    if not isinstance(part, shape.UnionType):
        return isinstance(part, shape.AnyType)
    kinds = {type(inner) for inner in part.types}
    return {shape.IntType, shape.FloatType} <= kinds


def _widened(found: re.Match[bytes]) -> bytes:
    # jsonb writes 1e22 out as 10000000000000000000000, which would be read as an int.
    if found[1] is None:
        return found[0]
    return f"{Decimal(found[1].decode()):f}.0".encode()


def _is_too_deep(raw: bytes) -> bool:
    """Tell whether JSON is nested too deeply, without a Python step for each of its bytes."""
    bare = raw.replace(b"\\\\", b"").replace(b'\\"', b"").translate(None, _NOT_STRUCTURE)
    brackets = b"".join(bare.replace(b'""', b"").split(b'"')[::2])
    for _ in range(MAX_DEPTH):
        if not brackets:
            return False
        brackets = _without_innermost(brackets)
    return bool(brackets)


def _without_innermost(brackets: bytes) -> bytes:
    return _INNERMOST.sub(b"", brackets)


def _refused(label: str, value: Any, reason: str, place: str = "") -> ArgumentError:
    place, reason = find_fault(value) or (place, reason)
    return ArgumentError(f"{label}{place} {reason}")


def _reason(sent: Any, arrived: Any, *, exact: bool) -> str:
    kind, other = type(sent).__name__, type(arrived).__name__
    if type(sent) is type(arrived):
        return "would not arrive as it is sent"
    text = f"is of type {kind} and would arrive as {other}"
    if exact:
        return f"{text}: annotate the parameter so that it says {kind}, or pass plain JSON"
    return f"{text}: pass {other}, or annotate {kind}"


def _place_and_text(error: Exception) -> tuple[str, str]:
    text = _text_of(error)
    found = _ERROR_PLACE.search(text)
    if found is None:
        return "", text
    return found[2] + (" (a key)" if found[1] else ""), text[: found.start()]


def _text_of(error: Exception) -> str:
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - a validator's error is user code
        text = ""
    known = isinstance(error, msgspec.MsgspecError)
    return sanitize(text if known else f"{type(error).__name__}: {text}", 400)


def _named(annotation: Any) -> str:
    return annotation.__qualname__ if isinstance(annotation, type) else str(annotation)


STAR: Final = b'"*":'
_INNERMOST: Final = re.compile(rb"(?:\[\]|\{\})+")
_PLAIN: Final = Codec.of(Any, "a plain argument")
_NAME: Final = Codec.of(str, "a name")
