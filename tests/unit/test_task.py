"""A function that can be deferred, and its decorator; what needs a database is elsewhere."""

import functools
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import attrs
import pytest

from pgtasks import Context, NamedTask, NotConnectedError, Registry, Retry, Task, task
from pgtasks.errors import (
    ArgumentError,
    ConfigError,
    QueueNameError,
    TaskDefinitionError,
)

registry = Registry()


@task(registry=registry)
async def greet(name: str, *, loudly: bool = False) -> str:
    """Greet somebody."""
    return name.upper() if loudly else name


@task(registry=registry, queue="emails", retries=3, timeout="5s")
def add(a: int, b: int = 1) -> int:
    return a + b


@task(registry=registry)
def options_are_apart(queue: str, delay: int, at: int, connection: int, retries: int) -> None: ...


class Holder:
    """A class with a static task."""

    @staticmethod
    @task(registry=registry)
    def inside(x: int) -> int:
        return x


# Decorating


def test_a_task_is_still_its_function():
    assert add(2, b=3) == 5
    assert add.fn(1) == 2
    assert Holder.inside(4) == 4


async def test_an_async_task_is_still_its_function():
    assert await greet("ada", loudly=True) == "ADA"


def test_the_name_says_where_the_function_is():
    assert greet.name == "test_task.greet"
    assert Holder.inside.name == "test_task.Holder.inside"
    assert registry.resolve("test_task.add") is add


def test_with_and_without_settings():
    own = Registry()

    def plain() -> None: ...

    @task(name="named", aliases=("old",), registry=own)
    def named() -> None: ...

    assert isinstance(named, Task)
    assert (named.name, named.aliases) == ("named", ("old",))
    with pytest.raises(TaskDefinitionError, match="inside a function"):
        task(plain)


def test_settings_are_kept_as_said():
    assert add.settings.queue == "emails"
    assert add.settings.retries == 3
    assert add.settings.timeout == timedelta(seconds=5)
    assert greet.settings.queue is None
    assert (greet.is_async, add.is_async) == (True, False)


def test_a_program_and_the_module_it_is_run_from_agree_on_names(monkeypatch: pytest.MonkeyPatch):
    import sys
    import types

    main = types.ModuleType("__main__")
    main.__file__ = "/srv/app/tasks.py"
    monkeypatch.setitem(sys.modules, "__main__", main)

    def work() -> None: ...

    work.__module__, work.__qualname__ = "__main__", "work"
    assert task(registry=Registry())(work).name == "tasks.work"
    main.__spec__ = types.SimpleNamespace(name="app.tasks")  # type: ignore[assignment]
    assert task(registry=Registry())(work).name == "app.tasks.work"
    main.__spec__ = types.SimpleNamespace(name="app.__main__")  # type: ignore[assignment]
    assert task(registry=Registry())(work).name == "app.work"


class Callable_:  # noqa: N801
    def __call__(self) -> None: ...


async def generate() -> AsyncIterator[int]:
    yield 1


def generate_sync() -> Iterator[int]:
    yield 1


@pytest.mark.parametrize(
    "function", [5, None, "x", Callable_(), Callable_, functools.partial(print), print, generate,
                 generate_sync, greet],
    ids=lambda function: type(function).__name__,
)  # fmt: skip
def test_what_is_no_function_is_refused(function: Any):
    with pytest.raises(TaskDefinitionError):
        task(name="x", registry=Registry())(function)


@pytest.mark.parametrize("name", ["", "x" * 201, "a\nb", "a\0", "\u202e", 5, "a\x1b[31m"])
def test_a_name_that_cannot_be_shown_is_refused(name: Any):
    with pytest.raises(TaskDefinitionError, match="printable"):
        task(name=name or "\n", registry=Registry())(lambda: None)
    with pytest.raises(TaskDefinitionError, match="printable"):
        task(name="fine", aliases=[name], registry=Registry())(lambda: None)


@pytest.mark.parametrize("name", ["é", "🙂 send", "a b", "os.system", "x" * 200])
def test_any_other_name_is_fine(name: str):
    assert task(name=name, registry=Registry())(lambda: None).name == name


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"queue": "No"}, QueueNameError),
        ({"timeout": 0}, TaskDefinitionError),
        ({"lease": "1ms"}, TaskDefinitionError),
        *(({"retries": retries}, TaskDefinitionError) for retries in (-1, "3", True)),
        ({"on_success": "keep"}, TaskDefinitionError),
    ],
)
def test_a_wrong_setting_is_refused_where_it_is_written(
    settings: dict[str, Any], error: type[Exception]
):
    with pytest.raises(error):
        task(name="x", registry=Registry(), **settings)(lambda: None)


def test_an_unknown_setting_is_refused():
    with pytest.raises(TypeError, match="retires"):
        task(retires=3)  # type: ignore[call-overload]


def test_a_task_is_never_changed():
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        add.name = "x"  # type: ignore[misc]


# Options


def test_options_give_another_task():
    later = add.options(delay="250ms", queue="other")
    assert later is not add
    assert (later._call().queue, add._call().queue) == ("other", "emails")
    assert later._call().delay == timedelta(milliseconds=250)
    assert add._call().delay == timedelta(0)
    assert later.options(retries=1)._call().delay == timedelta(milliseconds=250)
    assert later(1) == 2


def test_only_what_was_said_of_the_message_travels_with_it():
    assert add.options(queue="other", delay=5)._call().headers is None
    said = add.options(retries=0, timeout=None, on_success="archive").options(timeout="2s")
    assert said._call().headers == (
        '{"pgtasks":{"options":{"retries":0,"on_success":"archive","timeout":2.0}}}'
    )


def test_a_moment_is_kept_whatever_its_zone():
    at = datetime(2027, 7, 1, 12, tzinfo=ZoneInfo("Europe/Berlin"))
    assert add.options(at=at)._call().at == datetime(2027, 7, 1, 10, tzinfo=UTC)
    fold = datetime(2027, 10, 31, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1)
    assert add.options(at=fold)._call().at == datetime(2027, 10, 31, 1, 30, tzinfo=UTC)
    odd = datetime(2027, 1, 1, tzinfo=timezone(timedelta(hours=-9, minutes=-30)))
    assert add.options(at=odd)._call().at == datetime(2027, 1, 1, 9, 30, tzinfo=UTC)


def test_the_later_word_on_when_wins():
    at = datetime(2027, 7, 1, tzinfo=UTC)
    assert add.options(at=at).options(delay=5)._call().at is None
    assert add.options(delay=5).options(at=at)._call().at == at


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"delay": 1, "at": datetime(2027, 1, 1, tzinfo=UTC)}, ArgumentError),
        ({"at": datetime(2027, 1, 1)}, ArgumentError),  # noqa: DTZ001
        ({"at": "tomorrow"}, ArgumentError),
        ({"at": 5}, ArgumentError),
        ({"delay": -1}, ConfigError),
        ({"delay": "soon"}, ConfigError),
        ({"delay": float("nan")}, ConfigError),
        ({"retries": True}, ArgumentError),
        ({"retries": Retry()}, ArgumentError),
        ({"retries": "3"}, ArgumentError),
        ({"retries": -1}, (ArgumentError, TaskDefinitionError)),
        ({"timeout": 0}, TaskDefinitionError),
        ({"on_failure": "keep"}, TaskDefinitionError),
        ({"queue": "No"}, QueueNameError),
        ({"connection": "postgresql://"}, ArgumentError),
        ({"loudly": True}, TypeError),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_wrong_option_is_refused(options: dict[str, Any], error: type[Exception]):
    with pytest.raises(error):
        add.options(**options)


def test_options_never_share_the_names_of_arguments():
    encoded = options_are_apart.signature.encode(
        (), {"queue": "q", "delay": 1, "at": 2, "connection": 3, "retries": 4}
    )
    assert encoded == b'{"queue":"q","delay":1,"at":2,"connection":3,"retries":4}'


# Calls


def test_each_call_of_many_is_positional_or_named():
    assert list(add._encoded_slices([(1,), [2, 3], {"a": 4}])) == [
        [b'{"a":1}', b'{"a":2,"b":3}', b'{"a":4}']
    ]


@pytest.mark.parametrize("wrong", ["text", b"bytes", 5, None, {1}, iter([1])])
def test_what_is_no_call_is_refused_with_its_place(wrong: Any):
    with pytest.raises(ArgumentError, match="^call 1 of defer_many: "):
        list(add._encoded_slices([(1,), wrong]))


async def test_without_a_client_the_text_says_how_to_open_one():
    with pytest.raises(NotConnectedError, match=r"async with pgtasks\.connect\(\)"):
        await greet.defer("ada")
    with pytest.raises(NotConnectedError, match=r"with connect\(\)"):
        add.defer_sync(1)
    with pytest.raises(NotConnectedError):
        await NamedTask("elsewhere").defer()
    assert await add.defer_many([]) == []


# The context


@task(registry=registry)
def asks(context: Context, x: int) -> int:
    return x


def test_a_task_that_wants_its_context_is_only_called_within_a_run():
    with pytest.raises(RuntimeError, match="only known inside a task"):
        asks(1)
    assert asks.signature.context_parameter == "context"
    assert asks.signature.encode((1,), {}) == b'{"x":1}'


@pytest.mark.parametrize("function", [lambda a=1, /: a, lambda *a: a, lambda **k: k])
def test_any_parameters_will_do(function: Any):
    assert task(name="x", registry=Registry())(function).signature.encode((), {}) == b"{}"


def test_a_named_task_keeps_its_options():
    named = NamedTask("billing.charge", queue="billing").options(delay=2)
    call = named.options(queue="other")._call()
    assert (call.task, call.queue, call.delay) == (
        "billing.charge", "other", timedelta(seconds=2),
    )  # fmt: skip
