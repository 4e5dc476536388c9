"""How a call is bound, what is stored of it, and which call a message stands for."""

import dataclasses
import inspect
import json
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

import attrs
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgtasks.codec import MAX_RECEIVED_BYTES, encode_plain
from pgtasks.errors import ArgumentError, DecodeError, TaskDefinitionError
from pgtasks.signature import Signature


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


class Context:
    """Stands for the context of a run."""


def taking(annotation: Any) -> Signature:
    """The signature of a task with one parameter of this annotation."""

    def send(value: Any) -> None: ...

    send.__annotations__["value"] = annotation
    send.__qualname__ = "send"
    return Signature.of(send)


def stored(raw: bytes) -> str:
    """The call as jsonb keeps it: its members in another order."""
    return json.dumps(json.loads(raw), sort_keys=True)


unhurried = settings(deadline=None)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**63, -(2**64), 10**4299])
    | st.floats()
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def test_it_is_not_part_of_the_message() -> None:
    def pay(context: Context, order_id: int) -> None: ...

    signature = Signature.of(pay, context_type=Context)
    assert signature.context_parameter == "context"
    raw = signature.encode((7,), {})
    assert raw == b'{"order_id":7}'
    args, kwargs = signature.with_context("ctx", *signature.decode(raw))
    assert (args, kwargs) == (("ctx",), {"order_id": 7})


@pytest.mark.parametrize("annotation", [Context, Context | None, "Context | None",
                                        Annotated[Context, "x"]])  # fmt: skip
def test_its_forms(annotation: Any) -> None:
    def pay(order_id: int, *, about: Any = None) -> None: ...

    pay.__annotations__["about"] = annotation
    assert Signature.of(pay, context_type=Context).context_parameter == "about"


def test_there_is_none() -> None:
    def pay(order_id: int) -> None: ...

    signature = Signature.of(pay, context_type=Context)
    assert signature.context_parameter is None
    assert signature.with_context("ctx", (), {"order_id": 1}) == ((), {"order_id": 1})


def test_it_goes_where_the_function_wants_it() -> None:
    def first(c: Context, *numbers: int) -> None: ...
    def only_place(c: Context, /, a: int, *numbers: int) -> None: ...
    def second(a: int, c: Context, *numbers: int) -> None: ...
    def second_of_three(a: int, c: Context, b: int = 0) -> None: ...
    def named(*numbers: int, c: Context) -> None: ...
    def keyword(a: int, /, *, c: Context) -> None: ...

    for fn in (first, only_place, second, second_of_three, named, keyword):
        signature = Signature.of(fn, context_type=Context)
        for call in [(1,), (1, 2)][: 1 if fn is keyword else 2]:
            decoded = signature.decode(signature.encode(call, {}))
            args, kwargs = signature.with_context("ctx", *decoded)
            # Python itself is the judge.

            bound = inspect.signature(fn).bind(*args, **kwargs).arguments
            assert bound.pop("c") == "ctx"
            flat = [v for x in bound.values() for v in (x if type(x) is tuple else (x,))]
            assert flat == list(call)


def test_a_caller_cannot_give_it() -> None:
    def pay(c: Context, **more: int) -> None: ...

    signature = Signature.of(pay, context_type=Context)
    with pytest.raises(ArgumentError, match="filled in by the worker"):
        signature.encode((), {"c": 1})
    with pytest.raises(DecodeError, match="unexpected argument 'c'"):
        signature.decode(b'{"c":1}')


def test_one_is_enough_and_it_needs_a_place() -> None:
    def two(a: Context, b: Context) -> None: ...
    def late(a: int = 0, c: Context | None = None, /) -> None: ...

    for fn in (two, late):
        with pytest.raises(TaskDefinitionError):
            Signature.of(fn, context_type=Context)


def plain_call(user_id: int, note: str | None = None, *, locale: str = "en") -> None: ...
def every_kind(a: int, /, b: int, *more: int, c: int = 0, **rest: int) -> None: ...


def test_only_what_was_passed_is_stored() -> None:
    signature = Signature.of(plain_call)
    assert signature.encode((1,), {}) == b'{"user_id":1}'
    assert signature.encode((1, None), {"locale": "de"}) == (
        b'{"user_id":1,"note":null,"locale":"de"}'
    )
    assert signature.encode((), {"locale": "x", "user_id": 1}) == b'{"locale":"x","user_id":1}'


@pytest.mark.parametrize(
    ("args", "kwargs", "said"),
    [
        ((), {}, "plain_call() missing a required argument: 'user_id'"),
        ((1, None, "de"), {}, "plain_call() too many positional arguments"),
        ((1,), {"user_id": 2}, "plain_call() multiple values for argument 'user_id'"),
        ((1,), {"local": "x"}, "plain_call() got an unexpected keyword argument 'local'"),
        ((), {"local": "x"}, "plain_call() missing a required argument: 'user_id'"),
        ((1,), {3: 4}, "plain_call() keywords must be strings"),
    ],
)
def test_a_call_that_python_would_refuse(args: Any, kwargs: Any, said: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        Signature.of(plain_call).encode(args, kwargs)
    assert str(caught.value) == f"{said}; it takes (user_id, note=..., *, locale=...)"
    assert isinstance(caught.value, TypeError)


def test_what_has_no_name_is_a_list_under_the_star() -> None:
    signature = Signature.of(every_kind)
    raw = signature.encode((1, 2, 3, 4), {"c": 5, "x": 6})
    assert json.loads(raw) == {"*": [1, 3, 4], "b": 2, "c": 5, "x": 6}
    assert signature.decode(raw) == ((1, 2, 3, 4), {"c": 5, "x": 6})
    assert signature.decode(signature.encode((1,), {"b": 2})) == ((1,), {"b": 2})
    assert signature.decode(signature.encode((1, 2), {"a": 9})) == ((1,), {"b": 2, "a": 9})


@unhurried
@given(st.data())
def test_every_call_arrives_as_the_same_call(data: st.DataObject) -> None:
    def no_more(a: int = -1, /, b: int = -2, c: int = -3, *, d: int = -4) -> Any:
        return a, b, c, d

    def all_kinds(a: int = -1, /, b: int = -2, *m: int, d: int = -4, **rest: int) -> Any:
        return a, b, m, d, rest

    fn = data.draw(st.sampled_from([no_more, all_kinds]))
    args = tuple(data.draw(st.lists(st.integers(), max_size=5)))
    kwargs = data.draw(st.dictionaries(st.sampled_from("bcdexyz"), st.integers(), max_size=4))
    signature = Signature.of(fn)
    try:
        expected = fn(*args, **kwargs)
    except TypeError:
        with pytest.raises(ArgumentError):
            signature.encode(args, kwargs)
        return
    args, kwargs = signature.decode(stored(signature.encode(args, kwargs)))
    assert fn(*args, **kwargs) == expected


anything = (
    st.none() | st.booleans() | st.integers() | st.sampled_from([2**63, -(2**64), 10**4299])
    | st.floats() | st.text() | st.just("a\0")
    | st.text(alphabet='\ud800\n\u2028"\\') | st.lists(st.integers(), max_size=2)
)  # fmt: skip


@unhurried
@given(st.lists(st.tuples(anything, anything) | st.tuples(anything), min_size=1, max_size=6))
def test_many_calls_are_encoded_as_each_alone(calls: list[tuple[Any, ...]]) -> None:
    def plain(a: int, b: str | None = None) -> None: ...
    def limited(a: Annotated[int, msgspec.Meta(ge=0)], b: bool = False) -> None: ...
    def open_(a: Any, b: float = 0) -> None: ...

    for fn in (plain, limited, open_):
        signature = Signature.of(fn)
        together = signature.encode_alike(calls)
        if together is not None:
            assert together == [signature.encode(call, {}) for call in calls]


def test_calls_that_are_alike_are_encoded_together() -> None:
    def plain(a: int, b: str | None = None, *, c: int = 0) -> None: ...

    def counted(first: int, /) -> None: ...

    def required(a: int, *, c: int) -> None: ...

    signature = Signature.of(plain)
    assert signature.encode_alike([(1, "x\n"), (2, None)]) == [
        b'{"a":1,"b":"x\\n"}', b'{"a":2,"b":null}',
    ]  # fmt: skip
    assert Signature.of(lambda: None).encode_alike([(), ()]) == [b"{}", b"{}"]
    for calls in ([(1,), (1, "x")], [[1]], [{"a": 1}], [(True,)], [()], [(1, "x", 3)], ["a"],
                  [(2**64,)], [(1, "x" * 1_000_001)], [(1, "\0")], [(1, "\ud800")]):  # fmt: skip
        assert signature.encode_alike(calls) is None
    assert Signature.of(counted).encode_alike([(1,)]) is None
    assert Signature.of(required).encode_alike([(1,)]) is None


def test_names_that_cannot_be_stored() -> None:
    def send(**rest: int) -> None: ...

    for name in ("*", "a\0", "\ud800"):
        with pytest.raises(ArgumentError):
            Signature.of(send).encode((), {name: 1})
        with pytest.raises(ArgumentError):
            encode_plain((), {name: 1})


def test_an_argument_among_many_is_named() -> None:
    def send(*numbers: int, **named: str) -> None: ...

    signature = Signature.of(send)
    with pytest.raises(ArgumentError, match=r"argument \*numbers\[1\] Expected `int`"):
        signature.encode((1, "2"), {})
    with pytest.raises(ArgumentError, match=r"send\(\) argument x Expected `str`"):
        signature.encode((), {"x": 1})


@pytest.mark.parametrize(
    ("raw", "call"),
    [
        ("[1]", ((), {"user_id": 1})),
        (' [1, "x"] ', ((), {"user_id": 1, "note": "x"})),
        ("7", ((), {"user_id": 7})),
        ('{"locale": "de", "user_id": 7}', ((), {"locale": "de", "user_id": 7})),
        ('{"*": [7], "locale": "de"}', ((), {"user_id": 7, "locale": "de"})),
        ('{"*": [null], "user_id": 7}', ((), {"user_id": 7, "note": None})),
        (b'{"user_id": 7}', ((), {"user_id": 7})),
        (msgspec.Raw(b'{"user_id": 7}'), ((), {"user_id": 7})),
    ],
)
def test_each_form(raw: Any, call: Any) -> None:
    assert Signature.of(plain_call).decode(raw) == call


@pytest.mark.parametrize("raw", ["null", "[]", "{}", '{"*": []}'])
def test_no_arguments(raw: Any) -> None:
    def tick(n: int = 1) -> None: ...

    assert Signature.of(tick).decode(raw) == ((), {})


def test_what_encode_plain_writes_is_understood() -> None:
    signature = Signature.of(plain_call)
    calls: list[tuple[tuple[Any, ...], dict[str, Any], bytes]] = [
        ((1,), {}, b"[1]"),
        ((), {"user_id": 1}, b'{"user_id":1}'),
        ((1,), {"locale": "x"}, b'{"*":[1],"locale":"x"}'),
    ]
    for args, kwargs, raw in calls:
        assert encode_plain(args, kwargs) == raw
        assert signature.decode(raw)[1]["user_id"] == 1
    assert encode_plain((), {}) == b"{}"
    with pytest.raises(ArgumentError, match="bytes long"):
        encode_plain(("x" * 999_000,), {"a": "x" * 2000})


@pytest.mark.parametrize("annotation", [Order, Order | None, Tree, Event])
def test_a_single_model_takes_the_whole_object(annotation: Any) -> None:
    raw = {Tree: '{"name": "a"}', Event: '{"kind": "a", "data": {}}'}.get(
        annotation, '{"id": 1, "items": []}'
    )
    _, kwargs = taking(annotation).decode(raw)
    assert dataclasses.is_dataclass(kwargs["value"]) or type(kwargs["value"]) in {Order, Event}
    assert taking(annotation).decode(f'{{"value": {raw}}}')[1].keys() == {"value"}


def test_two_parameters_are_never_a_model() -> None:
    def send(order: Order, n: int = 0) -> None: ...

    with pytest.raises(DecodeError, match="unexpected argument 'id'"):
        Signature.of(send).decode('{"id": 1, "items": []}')


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ("null", "misses the argument user_id; it takes (user_id, note=..., *, locale=...)"),
        ('{"x": 1}', "got an unexpected argument 'x'"),
        ('{"user_id": 1, "x": 1}', "got an unexpected argument 'x'"),
        ('["1"]', "argument user_id: Expected `int`, got `str`"),
        ('{"user_id": 1.5}', "argument user_id: Expected `int`, got `float`"),
        ('"x"', "argument user_id: Expected `int`, got `str`"),
        ("[1, null, 3]", "got 3 positional arguments, too many"),
        ('{"*": 1, "user_id": 1}', "cannot be read"),
        ("{", "cannot be read"),
        ("", "cannot be read"),
        ("nul", "cannot be read"),
        ('"\ud800"', "cannot be read"),
        ("1e100000", "argument user_id: "),
    ],
)
def test_what_is_no_call(raw: Any, said: str) -> None:
    with pytest.raises(DecodeError) as caught:
        Signature.of(plain_call).decode(raw)
    assert said in str(caught.value)


@pytest.mark.parametrize("depth", [6000, 100_000])
@pytest.mark.parametrize("frame", ["{}", '{{"user_id":{}}}'])
def test_what_is_nested_without_end_is_no_call(depth: int, frame: str) -> None:
    """How deep Python reads before it gives up is another in each version."""
    raw = frame.format("[" * depth + "]" * depth)
    with pytest.raises(DecodeError, match="nested too deeply|Expected `int`"):
        Signature.of(plain_call).decode(raw)


def test_the_place_inside_an_argument_is_named() -> None:
    with pytest.raises(DecodeError, match=r"argument value\.items\[0\]\.sku: Expected `str`"):
        taking(Order).decode('{"value": {"id": 1, "items": [{"sku": 1, "price": 1}]}}')


def test_a_message_that_is_too_long_is_not_read() -> None:
    with pytest.raises(DecodeError, match="longer than 64,000,000 bytes"):
        taking(str).decode('"' + "x" * MAX_RECEIVED_BYTES + '"')


def test_whatever_a_class_raises_is_a_decode_error() -> None:
    with pytest.raises(DecodeError, match="KeyError"):
        taking(Grumpy).decode('{"number": -1}')
    with pytest.raises(DecodeError, match="must be > 0"):
        taking(Positive).decode('{"number": -1}')


@unhurried
@given(
    fn=st.sampled_from([plain_call, every_kind]),
    raw=json_values.map(json.dumps)
    | st.dictionaries(st.sampled_from(["*", "user_id", "locale", "a", "b"]), json_values).map(
        json.dumps
    )
    | st.text()
    | st.binary(),
)
def test_nothing_but_a_decode_error_escapes(fn: Any, raw: Any) -> None:
    try:
        args, kwargs = Signature.of(fn).decode(raw)
    except DecodeError:
        return
    fn(*args, **kwargs)
