"""What the values of an annotation become, what arrives of them, and what is refused."""

import dataclasses
import enum
import json
import math
import subprocess
import sys
import time as clock
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, TypedDict
from uuid import UUID
from zoneinfo import ZoneInfo

import attrs
import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pgtasks.codec import MAX_BYTES, Codec, encode_plain, sanitize
from pgtasks.errors import ArgumentError, DecodeError, TaskDefinitionError
from pgtasks.signature import Signature

if TYPE_CHECKING:
    from nowhere import Missing  # type: ignore[import-not-found]


class Color(enum.Enum):
    """Values of one type."""

    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    """Equal to ints."""

    LOW = 1
    HIGH = 2


class Word(enum.StrEnum):
    """Equal to strs."""

    YES = "yes"


class Point(NamedTuple):
    """A named tuple."""

    x: int
    y: float = 0.0


class Address(TypedDict, total=False):
    """A typed dict."""

    street: str
    number: int


@attrs.frozen
class Item:
    """A frozen attrs class."""

    sku: str
    price: Decimal
    tags: frozenset[str] = frozenset()


@attrs.define
class Order:
    """An attrs class that holds others."""

    id: int
    items: list[Item]
    placed_at: datetime | None = None


@dataclasses.dataclass
class Tree:
    """A dataclass that holds itself."""

    name: str
    children: list["Tree"] = dataclasses.field(default_factory=list)


class Event(msgspec.Struct):
    """A Struct with free-form data."""

    kind: Literal["a", "b"]
    data: dict[str, Any]


@attrs.define(eq=False)
class Identical:
    """Two of them are never equal."""

    value: int


@attrs.define
class Animal:
    """The declared class."""

    name: str


@attrs.define
class Dog(Animal):
    """A subclass of the declared class."""


@attrs.define
class Positive:
    """Has a validator."""

    number: int = attrs.field(validator=attrs.validators.gt(0))


@attrs.define
class Grumpy:
    """Raises what msgspec does not expect."""

    number: int

    def __attrs_post_init__(self) -> None:
        if self.number < 0:
            raise KeyError(self.number)


@attrs.define
class Private:
    """Has an attribute that does not travel."""

    seen: int
    _hidden: int = 0


class Context:
    """Stands for the context of a run."""


def taking(annotation: Any) -> Signature:
    """The signature of a task with one parameter of this annotation."""

    def send(value: Any) -> None: ...

    send.__annotations__["value"] = annotation
    send.__qualname__ = "send"
    return Signature.of(send)


def as_jsonb(raw: bytes) -> str:
    """What PostgreSQL gives back of a JSON text that it stored as jsonb."""

    def written(value: Any) -> str:
        match value:
            case dict():
                keys = sorted(value, key=lambda key: (len(key.encode()), key.encode()))
                return (
                    "{"
                    + ", ".join(
                        f"{json.dumps(k, ensure_ascii=False)}: {written(value[k])}" for k in keys
                    )
                    + "}"
                )
            case list():
                return "[" + ", ".join(map(written, value)) + "]"
            case Decimal():
                return f"{value:f}".removeprefix("-") if value == 0 else f"{value:f}"
            case _:
                return json.dumps(value, ensure_ascii=False)

    return written(json.loads(raw, parse_float=Decimal))


def through(annotation: Any, value: Any) -> Any:
    """The value as it arrives, having been stored."""
    signature = taking(annotation)
    args, kwargs = signature.decode(as_jsonb(signature.encode((value,), {})))
    assert args == ()
    return kwargs["value"]


def refusal(annotation: Any, value: Any) -> str:
    """The text of the error with which a value is refused where it is sent."""
    with pytest.raises(ArgumentError) as caught:
        taking(annotation).encode((value,), {})
    assert str(caught.value).startswith("send() argument value")
    return str(caught.value)


unhurried = settings(deadline=None)
WRONG: Any = 3

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
floats = st.floats(allow_nan=False, allow_infinity=False)
offsets = st.integers(-23 * 60, 23 * 60).map(lambda m: timezone(timedelta(minutes=m)))
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | floats | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)
decimals = st.decimals(allow_nan=False, allow_infinity=False)
items = st.builds(Item, texts, decimals, st.frozensets(texts, max_size=3))
orders = st.builds(
    Order,
    st.integers(),
    st.lists(items, max_size=3),
    st.none() | st.datetimes(timezones=offsets),
)
TYPED: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (int, st.integers()),
    (int, st.integers(1 - 10**4299, 10**4300 - 1)),
    (float, floats),
    (bool, st.booleans()),
    (str, texts),
    (None, st.none()),
    (Any, plain),
    (list, st.lists(plain, max_size=3)),
    (dict, st.dictionaries(texts, plain, max_size=3)),
    (bytes, st.binary()),
    (date, st.dates()),
    (datetime, st.datetimes()),
    (datetime, st.datetimes(timezones=offsets)),
    (time, st.times()),
    (timedelta, st.timedeltas()),
    (UUID, st.uuids()),
    (Decimal, decimals),
    (Color, st.sampled_from(Color)),
    (Level, st.sampled_from(Level)),
    (Word, st.sampled_from(Word)),
    (tuple[int, str], st.tuples(st.integers(), texts)),
    (tuple[float, ...], st.lists(floats, max_size=4).map(tuple)),
    (set[int], st.sets(st.integers())),
    (frozenset[str], st.frozensets(texts)),
    (dict[int, str], st.dictionaries(st.integers(), texts)),
    (dict[UUID, date], st.dictionaries(st.uuids(), st.dates())),
    (list[dict[str, list[int | None]]],
     st.lists(st.dictionaries(texts, st.lists(st.none() | st.integers())), max_size=3)),
    (int | float, st.integers() | floats),
    (int | str | None, st.none() | st.integers() | texts),
    (Literal["a", "b"], st.sampled_from(["a", "b"])),
    (Point, st.builds(Point, st.integers(), floats)),
    (Address, st.fixed_dictionaries({}, optional={"street": texts, "number": st.integers()})),
    (Order, orders),
    (Tree, st.builds(Tree, texts, st.lists(st.builds(Tree, texts), max_size=3))),
    (Event, st.builds(Event, st.sampled_from("ab"), st.dictionaries(texts, plain, max_size=3))),
    (Sequence[int], st.lists(st.integers())),
    (Mapping[str, int], st.dictionaries(texts, st.integers())),
    (Annotated[int, msgspec.Meta(ge=0)], st.integers(0)),
]  # fmt: skip
typed = st.sampled_from(TYPED).flatmap(lambda pair: st.tuples(st.just(pair[0]), pair[1]))


def types_of(value: Any) -> Any:
    """The types of plain JSON all the way down."""
    match value:
        case dict():
            return {key: types_of(inner) for key, inner in value.items()}
        case list():
            return [types_of(inner) for inner in value]
        case _:
            return type(value)


@unhurried
@given(typed)
@example((Any, 1e22))
@example((int | float, 1e300))
@example((Any, ["1e22", 1e22, '"1e22', "\\", 1e22]))
@example((float, 5e-324))
@example((int, 2**64))
@example((Any, 2**200))
@example((Any, 10**4300 - 1))
@example((int, 1 - 10**4299))
@example((timedelta, timedelta.max))
@example((str, "\\u0000"))
@example((str, '\\"[{'))
def test_what_arrives_is_what_was_sent(case: Any) -> None:
    annotation, value = case
    arrived = through(annotation, value)
    assert arrived == value
    assert type(arrived) is type(value)
    assert types_of(arrived) == types_of(value)


def test_an_int_is_welcome_where_a_float_is_declared() -> None:
    assert type(through(float, 1)) is float


def test_a_declared_enum_arrives_as_the_enum() -> None:
    assert through(Level, Level.HIGH) is Level.HIGH
    assert through(dict[Color, int], {Color.RED: 1}) == {Color.RED: 1}


def test_what_is_equal_to_a_declared_type_arrives_as_that_type() -> None:
    assert type(through(str, Word.YES)) is str
    assert type(through(frozenset[int], {1})) is frozenset


def test_objects_without_equality_are_compared_by_their_fields() -> None:
    assert through(list[Identical], [Identical(3)])[0].value == 3


def test_a_decimal_that_is_no_number_arrives() -> None:
    assert str(through(Decimal, Decimal("NaN"))) == "NaN"
    assert str(through(list[Decimal], [Decimal("sNaN")])[0]) == "sNaN"


def test_the_sign_of_zero_is_lost_and_that_is_all() -> None:
    assert through(float, -0.0) == 0.0
    assert type(through(Any, -0.0)) is float


def test_a_datetime_in_the_hour_that_its_zone_repeats() -> None:
    """Python calls it unequal to the same moment in a fixed offset."""
    for fold in (0, 1):
        moment = datetime(2026, 10, 25, 2, 30, fold=fold, tzinfo=ZoneInfo("Europe/Berlin"))
        assert moment != datetime.fromisoformat(moment.isoformat())
        assert through(datetime, moment).timestamp() == moment.timestamp()


def test_jsonb_sorts_the_keys() -> None:
    assert list(through(dict[str, int], {"bb": 1, "a": 2})) == ["a", "bb"]


@pytest.mark.parametrize(
    ("annotation", "value", "said"),
    [
        (int, True, "Expected `int`, got `bool`"),
        (int, 1.0, "Expected `int`, got `float`"),
        (int, "1", "Expected `int`, got `str`"),
        (bool, 1, "Expected `bool`, got `int`"),
        (str, 1, "Expected `str`, got `int`"),
        (float, 2**53 + 1, "is of type int and would arrive as float"),
        (float, True, "Expected `float`, got `bool`"),
        (str, UUID(int=1), "is of type UUID and would arrive as str"),
        (UUID, str(UUID(int=1)), "is of type str and would arrive as UUID"),
        (datetime, "2026-01-01T00:00:00", "is of type str and would arrive as datetime"),
        (bytes, "YWI=", "is of type str and would arrive as bytes"),
        (list[int], (1, 2), "is of type tuple and would arrive as list"),
        (tuple[int, int], [1, 2], "is of type list and would arrive as tuple"),
        (Sequence[int], (1, 2), "is of type tuple and would arrive as list"),
        (Color, "red", "is of type str and would arrive as Color"),
        (Literal["a"], "b", "Invalid enum value 'b'"),
        (Animal, Dog("Rex"), "is of type Dog and would arrive as Animal"),
        (list[Animal], [Animal("a"), Dog("b")], "value[1] is of type Dog"),
        (dict[str, int], {1: 1}, "would not arrive as it is sent"),
        (dict[int, int], {"1": 1}, "would not arrive as it is sent"),
        (Address, {"street": "a", "flat": 3}, "would not arrive as it is sent"),
        (Order, Order(1, [Item(WRONG, Decimal(1))]), "value.items[0].sku Expected `str`"),
        (Positive, None, "Expected `object`, got `null`"),
        (Private, Private(1, 2), "value._hidden would not arrive as it is sent"),
        (Annotated[int, msgspec.Meta(ge=0)], -1, "Expected `int` >= 0"),
        (Decimal, 0.1, "is of type float and would arrive as Decimal"),
        (datetime, datetime(2026, 1, 1, tzinfo=timezone(timedelta(seconds=30))),
         "would not arrive as it is sent"),
    ],
)  # fmt: skip
def test_a_value_that_would_arrive_as_another(annotation: Any, value: Any, said: str) -> None:
    assert said in refusal(annotation, value)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ((1, 2), "is of type tuple and would arrive as list: annotate"),
        ([{"a": (1,)}], "value[0]['a'] is of type tuple"),
        (datetime(2026, 1, 1, tzinfo=UTC), "is of type datetime and would arrive as str"),
        ({"at": date(2026, 1, 1)}, "value['at'] is of type date"),
        (UUID(int=1), "is of type UUID"),
        (Decimal("1.5"), "is of type Decimal"),
        (b"ab", "is of type bytes"),
        ({1}, "is of type set"),
        (Level.LOW, "is of type Level and would arrive as int"),
        ([Word.YES], "value[0] is of type Word and would arrive as str"),
        ({Word.YES: 1}, "(the key) is of type Word"),
        (Point(1), "is of type Point"),
        (Animal("a"), "is of type Animal and would arrive as dict"),
        (OrderedDict(a=1), "is of type OrderedDict"),
        ({1: 2}, "would not arrive as it is sent"),
        ({1: 2, "1": 3}, "would not arrive as it is sent"),
        ({None: 1}, "TypeError"),
        ({(1, 2): 1}, "TypeError"),
        (object(), "is a object, which cannot travel"),
        (1j, "is a complex, which cannot travel"),
        (deque([1]), "is a deque, which cannot travel"),
        (type("Name", (str,), {})("x"), "a subclass of str: pass str(...)"),
        (type("Count", (int,), {})(1), "a subclass of int: pass int(...)"),
    ],
)
def test_more_than_json_without_an_annotation(value: Any, said: str) -> None:
    assert said in refusal(Any, value)
    with pytest.raises(ArgumentError, match="argument 0"):
        encode_plain((value,), {})


@pytest.mark.parametrize(
    ("annotation", "value", "said"),
    [
        (float, math.nan, "value is NaN or infinite"),
        (float | None, math.inf, "value is NaN or infinite"),
        (Any, {"a": [1, {"b": -math.inf}]}, "value['a'][1]['b'] is NaN or infinite"),
        (list[tuple[int, float]], [(1, math.nan)], "value[0][1] is NaN"),
        (str, "a\0", "value contains the character \\u0000"),
        (Any, [{"a\0": 1}], "(the key) contains the character \\u0000"),
        (Order, Order(1, [Item("\\\0", Decimal(1))]), "value.items[0].sku contains"),
        (str, "\ud800", "value contains a lone surrogate"),
        (Any, {"\udfff": 1}, "(the key) contains a lone surrogate"),
        (int, 10**4300, "is a number of more than 4,300 digits"),
        (Any, [-(10**4299)], "value[0] is a number of more than 4,300 digits and sign"),
        (Any, [-(10**5000)], "value[0] is a number of more than 4,300 digits"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_jsonb_cannot_hold(annotation: Any, value: Any, said: str) -> None:
    assert said in refusal(annotation, value)


def test_depth() -> None:
    def nested(depth: int) -> Any:
        value: Any = 1
        for _ in range(depth):
            value = [value]
        return value

    assert through(Any, nested(64)) == nested(64)
    for depth in (65, 500, 100_000):
        assert "nested deeper than 64 levels" in refusal(Any, nested(depth))
    assert through(Any, ["[" * 99, '"' + "[" * 99, "\\"]) == ["[" * 99, '"' + "[" * 99, "\\"]


def test_wide_is_not_deep() -> None:
    wide: list[Any] = [[[], {}]] * 500
    assert through(Any, wide) == wide


def test_what_contains_itself() -> None:
    loop: list[Any] = []
    loop.append({"a": loop})
    assert "contains itself" in refusal(Any, loop)
    tree = Tree("a")
    tree.children.append(tree)
    assert "contains itself" in refusal(Tree, tree)


def test_a_list_of_lists_of_the_same_lists_is_refused_at_once() -> None:
    """Fifty levels that share their parts would be 2 ** 50 values."""
    value: list[Any] = []
    for _ in range(50):
        value = [value, value]
    started = clock.monotonic()
    assert "longer than" in refusal(Any, value)
    assert clock.monotonic() - started < 5


def test_size() -> None:
    room = MAX_BYTES - len(b'{"value":""}')
    assert len(taking(str).encode(("x" * room,), {})) == MAX_BYTES
    with pytest.raises(ArgumentError, match=r"1,000,001 bytes long .* 1,000,000 at most"):
        taking(str).encode(("x" * (room + 1),), {})


@pytest.mark.parametrize(
    ("annotation", "wrapped"),
    [(str, lambda v: v), (Any, lambda v: {"a": [v]}), (Animal, Animal)],
)
def test_a_huge_value_is_refused_without_being_written(
    annotation: Any, wrapped: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gigabyte would take seconds, and as much memory again."""
    signature = taking(annotation)
    monkeypatch.setattr("pgtasks.codec._write", lambda _: pytest.fail("it was written"))
    with pytest.raises(ArgumentError, match="longer than 1,000,000 bytes"):
        signature.encode((wrapped("x" * 1_000_001),), {})


def test_a_validator_refuses_where_it_is_sent() -> None:
    wrong = Positive(1)
    object.__setattr__(wrong, "number", -1)
    assert "'number' must be > 0" in refusal(Positive, wrong)


def test_whatever_a_class_raises_is_an_argument_error() -> None:
    wrong = Grumpy(1)
    wrong.number = -1
    assert "KeyError" in refusal(Grumpy, wrong)


def test_no_value_is_quoted() -> None:
    for annotation, value in [(int, "hunter2"), (Any, ("hunter2",)), (Animal, Dog("hunter2"))]:
        assert "hunter2" not in refusal(annotation, value)


@pytest.mark.parametrize(
    "annotation",
    [
        object, complex, type, Callable, Callable[[int], int], deque, OrderedDict[str, int],
        range, Context, list[complex], dict[str, Context], msgspec.Raw, int | Context,
        list[int] | tuple[int, int], UUID | str, datetime | str, Animal | Dog,
        dict[tuple[int, int], str], dict[bool, int], type[int],
    ],
)  # fmt: skip
def test_what_cannot_travel_is_no_annotation(annotation: Any) -> None:
    with pytest.raises(TaskDefinitionError, match=r"send\(\) parameter value is annotated"):
        taking(annotation)


def test_an_annotation_that_cannot_be_resolved() -> None:
    def send(a: int, b: "Missing") -> None: ...

    with pytest.raises(TaskDefinitionError, match=r"parameter b has .* 'Missing'.* import"):
        Signature.of(send)


def test_a_field_that_cannot_be_resolved() -> None:
    @attrs.define
    class Broken:
        field: "Missing"

    with pytest.raises(TaskDefinitionError, match="Missing"):
        taking(Broken)


def test_the_return_annotation_is_nobodys_business() -> None:
    def send(a: "int") -> "Missing": ...

    assert Signature.of(send).encode((1,), {}) == b'{"a":1}'


def test_codec_names_its_owner() -> None:
    with pytest.raises(TaskDefinitionError, match=r"^the result is annotated complex"):
        Codec.of(complex, "the result")


def test_our_longest_messages_are_not_too_long_to_be_read() -> None:
    """Of all that we send, jsonb makes the smallest floats grow most."""
    smallest = [5e-324] * 140_000
    raw = taking(list[float]).encode((smallest,), {})
    assert 900_000 < len(raw) <= MAX_BYTES
    assert taking(list[float]).decode(as_jsonb(raw)) == ((), {"value": smallest})


@unhurried
@given(annotation=st.sampled_from([pair[0] for pair in TYPED]), value=plain)
def test_nothing_but_a_decode_error_escapes(annotation: Any, value: Any) -> None:
    try:
        taking(annotation).decode(json.dumps(value))
    except DecodeError as error:
        said = str(error)
    else:
        return
    assert said.startswith(("send() ", "the call of send() "))


@unhurried
@given(st.text(st.characters()), st.integers(0, 200))
@example("\0\ud800" * 99, 50)
def test_every_text_becomes_storable_and_short_enough(text: str, limit: int) -> None:
    clean = sanitize(text, limit)
    assert len(clean) <= limit
    assert "\0" not in clean
    clean.encode()


def test_good_text_is_left_alone() -> None:
    assert sanitize("Größe 🎉\n") == "Größe 🎉\n"
    assert sanitize("a\0b\ud800") == "ab\ufffd"


def test_both_ends_of_a_long_text_stay() -> None:
    clean = sanitize("start" + "x" * 10_000_000 + "end", 1000)
    assert clean.startswith("start")
    assert clean.endswith("end")
    assert "10,000,008 characters" in clean


def test_python_without_a_limit_for_digits() -> None:
    """The limit is ours, whatever `sys.set_int_max_str_digits` says."""
    program = (
        "from pgtasks.codec import encode_plain\n"
        "from pgtasks.errors import ArgumentError\n"
        "try: encode_plain((10**4300,), {})\n"
        "except ArgumentError as error: print(error)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-X", "int_max_str_digits=0", "-c", program],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "more than 4,300 digits" in ran.stdout
