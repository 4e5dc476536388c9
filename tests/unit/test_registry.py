"""The tasks a program knows, by name."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from pgtasks import Registry, Task, task
from pgtasks.errors import DuplicateTaskError, TaskDefinitionError, UnknownTaskError


@pytest.fixture
def registry() -> Registry:
    return Registry()


def add(registry: Registry, name: str, *aliases: str) -> Task[Any, Any]:
    @task(name=name, aliases=aliases, registry=registry)
    def made() -> None: ...

    return made


def test_a_task_is_found_by_its_name_and_its_aliases(registry: Registry):
    made = add(registry, "new", "old", "older")
    assert [registry.get(name) for name in ("new", "old", "older", "none")] == [made] * 3 + [None]
    assert registry.resolve("old") is made


def test_aliases_do_not_count(registry: Registry):
    one, other = add(registry, "a", "b", "c"), add_other(registry)
    assert (list(registry), len(registry)) == ([one, other], 2)


def add_other(registry: Registry) -> Task[Any, Any]:
    @task(name="other", registry=registry)
    def other() -> None: ...

    return other


def test_an_unknown_name_is_refused_with_the_nearest(registry: Registry):
    add(registry, "app.send_welcome")
    with pytest.raises(UnknownTaskError, match="did you mean 'app.send_welcome'"):
        registry.resolve("app.send_welcom")
    with pytest.raises(UnknownTaskError, match=r"^no task is named 'zzz'$"):
        registry.resolve("zzz")


@pytest.mark.parametrize("aliases", [("taken",), ("x", "taken")])
def test_two_functions_cannot_have_one_name(registry: Registry, aliases: tuple[str, ...]):
    add(registry, "taken")
    with pytest.raises(DuplicateTaskError, match="two tasks are named 'taken'") as refused:
        task(name="fresh", aliases=aliases, registry=registry)(lambda: None)
    assert "test_registry" in str(refused.value)
    assert registry.get("fresh") is None
    assert registry.get("x") is None


def test_a_module_that_is_imported_again_registers_its_tasks_again(registry: Registry):
    first, second = add(registry, "same"), add(registry, "same")
    assert first is not second
    assert registry.get("same") is second
    assert len(registry) == 1


def test_registries_are_apart():
    one, other = Registry(), Registry()
    add(one, "same")
    task(name="same", registry=other)(lambda: None)
    assert one.resolve("same") is not other.resolve("same")


@asynccontextmanager
async def resources() -> AsyncIterator[int]:
    yield 1


@asynccontextmanager
async def other_resources() -> AsyncIterator[int]:
    yield 2


def test_there_is_one_lifespan(registry: Registry):
    assert registry.resources is None
    assert registry.lifespan(resources) is resources
    registry.lifespan(resources)
    assert registry.resources is resources
    with pytest.raises(TaskDefinitionError, match="one per registry"):
        registry.lifespan(other_resources)
