"""What holds of the settings for every key there is, and whatever the sources say."""

import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kinds import proposed, right, takes, wrong, wrong_texts
from project import Project

from pgtasks.config_reference import Field, KeyPath, fields, members
from pgtasks.layers import Loaded, load

Source = Mapping[KeyPath, Any]

QUEUE = "emails"
ALL = {field.paths([QUEUE])[0]: field for field in fields()}
"""Every key; one queue stands for all."""
PAIRS = {
    path: (*path[:-1], other[-1])
    for path, field in ALL.items()
    if (other := field.at_least or field.instead_of)
}
"""Keys whose values another one bounds, and those others."""
FREE = {path: f for path, f in ALL.items() if path not in {*PAIRS, *PAIRS.values()}}
SOURCES = st.fixed_dictionaries(
    {}, optional={path: right(field.kind) for path, field in FREE.items()}
)
FILES = ("pyproject.toml", "pgtasks.toml", "pgtasks.test.toml")
BEGINNINGS = (*FILES, "PGTASKS__", "--")
"""Of the origins of the five sources, the weakest first."""

by_key = pytest.mark.parametrize("path", ALL, ids=".".join)
writes_files = settings(deadline=None)


def key(path: KeyPath) -> str:
    return ".".join(path)


def variable(field: Field) -> str:
    return field.variable.replace("<NAME>", QUEUE.upper())


def as_toml(path: KeyPath, value: Any) -> str:
    return json.dumps(ALL[path].kind.plain(value))


def as_text(path: KeyPath, value: Any) -> str:
    return value if isinstance(value, str) else ALL[path].kind.show(value)


def value_at(loaded: Loaded, path: KeyPath) -> Any:
    value: Any = loaded.config
    for part in path:
        named = isinstance(value, Mapping)
        value = value[part] if named else getattr(value, part.replace("-", "_"))
    return value


# How a file may be spelt


def dotted(source: Source, prefix: str = "") -> str:
    """The whole path before each value."""
    return "".join(f"{prefix}{key(path)} = {as_toml(path, v)}\n" for path, v in source.items())


def in_tables(source: Source) -> str:
    """A header above the keys of each table."""
    lines = []
    for table in {path[:-1]: None for path in source}:
        inside = {path: value for path, value in source.items() if path[:-1] == table}
        lines += [f"[{key(table)}]"]
        lines += [f"{path[-1]} = {as_toml(path, value)}" for path, value in inside.items()]
    return "\n".join(lines)


def inline(source: Source) -> str:
    """Everything of a table on one line."""
    tree: dict[str, Any] = {}
    for path, value in source.items():
        table = tree
        for part in path[:-1]:
            table = table.setdefault(part, {})
        table[path[-1]] = as_toml(path, value)
    return "\n".join(f"{name} = {_braced(table)}" for name, table in tree.items())


def _braced(table: Any) -> str:
    if isinstance(table, str):
        return table
    return "{ " + ", ".join(f"{name} = {_braced(one)}" for name, one in table.items()) + " }"


# Laying over each other


def loaded_from(sources: list[Source], folder: Path) -> Loaded:
    *files, variables, flags = sources
    for name, source in zip(FILES, files, strict=True):
        prefix = "tool.pgtasks." if name == "pyproject.toml" else ""
        Project(folder).write(name, dotted(source, prefix))
    return load(
        {key(path): "none" if value is None else value for path, value in flags.items()},
        folder=folder,
        environment="test",
        environ={variable(ALL[path]): as_text(path, value) for path, value in variables.items()},
    )


@writes_files
@given(st.lists(SOURCES, min_size=5, max_size=5))
def test_the_last_source_that_mentions_a_key_wins(sources: list[Source]) -> None:
    """For every key: the value and the origin are those of the last source, else the default."""
    with TemporaryDirectory() as folder:
        loaded = loaded_from(sources, Path(folder))
    queue_mentioned = any(QUEUE in path for source in sources for path in source)
    for path, field in FREE.items():
        if QUEUE in path and not queue_mentioned:
            continue
        winner = next((n for n in reversed(range(5)) if path in sources[n]), None)
        expected = field.default if winner is None else sources[winner][path]
        assert value_at(loaded, path) == expected, path
        origin = loaded.origins[key(path)]
        assert str(origin).startswith("default" if winner is None else BEGINNINGS[winner]), path
        if winner is not None and winner < len(FILES):
            assert origin.line == list(sources[winner]).index(path) + 1


@writes_files
@given(SOURCES, st.data())
def test_no_key_is_lost_however_they_are_spread_over_the_sources(
    source: Source, data: st.DataObject
) -> None:
    parts: list[dict[KeyPath, Any]] = [{} for _ in range(5)]
    for path, value in source.items():
        parts[data.draw(st.integers(0, 4))][path] = value
    with TemporaryDirectory() as one, TemporaryDirectory() as other:
        whole = loaded_from([{}, source, {}, {}, {}], Path(one)).config
        assert loaded_from([*parts], Path(other)).config == whole


@writes_files
@given(SOURCES)
def test_however_a_file_is_spelt_it_says_the_same(source: Source) -> None:
    found = []
    with TemporaryDirectory() as folder:
        for spelt in (dotted(source), in_tables(source), inline(source)):
            file = Project(Path(folder)).write("pgtasks.toml", spelt)
            loaded = Project(Path(folder)).load()
            found.append(loaded.config)
            lines = file.read_text("utf-8").splitlines()
            for path in source:
                line = loaded.origins[key(path)].line
                assert line is not None
                assert f"{path[-1]} =" in lines[line - 1]
    assert found[0] == found[1] == found[2]


@writes_files
@given(st.sampled_from(sorted(FREE)), st.data())
def test_every_key_has_its_variable_and_its_flag(path: KeyPath, data: st.DataObject) -> None:
    value = data.draw(right(FREE[path].kind))
    name, text = variable(FREE[path]), as_text(path, value)
    with TemporaryDirectory() as folder:
        by_variable = Project(Path(folder)).load(**{name: text})
        by_flag = Project(Path(folder)).load({key(path): text})
    assert value_at(by_variable, path) == value_at(by_flag, path) == value
    assert by_variable.origins[key(path)].name == name
    assert by_flag.origins[key(path)].name == f"--{path[-1]}"


# Keys that nobody knows

_WORDS = st.from_regex(r"[a-z][a-z-]{0,12}", fullmatch=True)


@st.composite
def unknown_keys(draw: st.DrawFn) -> KeyPath:
    """A key that is none, in any table; perhaps it looks like a table itself."""
    known = members()
    table = draw(st.sampled_from([table for table in known if table[-1:] != ("queue-config",)]))
    word = draw(_WORDS.filter(lambda word: word not in known[table]))
    path = tuple(QUEUE if part == "<name>" else part for part in table)
    return (*path, word, *draw(st.lists(_WORDS, max_size=2)))


@writes_files
@given(unknown_keys(), st.integers(0, 5), st.sampled_from(FILES))
def test_an_unknown_key_is_an_error_that_names_its_place(
    path: KeyPath, above: int, name: str
) -> None:
    prefix = "tool.pgtasks." if name == "pyproject.toml" else ""
    with TemporaryDirectory() as folder:
        project = Project(Path(folder))
        project.write(name, "# a comment\n" * above + f"{prefix}{key(path)} = 1\n")
        [problem] = project.problems(PGTASKS_ENVIRONMENT="test")
    assert problem.startswith(f"{name}:{above + 1}: ")
    assert "unknown key; " in problem


@writes_files
@given(
    st.lists(
        st.tuples(st.sampled_from(FILES), unknown_keys()),
        min_size=1,
        max_size=6,
        unique_by=lambda found: found[1],
    )
)
def test_unknown_keys_of_all_sources_are_named_together(
    found: list[tuple[str, KeyPath]],
) -> None:
    # One may not be a table in which another stands.
    found = [one for n, one in enumerate(found) if not any(_meet(one, o) for o in found[:n])]
    with TemporaryDirectory() as folder:
        project = Project(Path(folder))
        for name in FILES:
            prefix = "tool.pgtasks." if name == "pyproject.toml" else ""
            lines = [f"{prefix}{key(path)} = 1\n" for file, path in found if file == name]
            project.write(name, "".join(lines))
        problems = project.problems(PGTASKS_ENVIRONMENT="test")
    expected = [name for name in FILES for file, _ in found if file == name]
    assert [problem.split(":")[0] for problem in problems] == expected
    assert len(set(problems)) == len(found)


def _meet(one: tuple[str, KeyPath], other: tuple[str, KeyPath]) -> bool:
    length = min(len(one[1]), len(other[1]))
    return one[1][:length] == other[1][:length]


# Values that are wrong

NO_FORM = (
    "choose another name",
    "write postgresql://...",
    "name one, or remove the key",
)
"""What is said where what was meant cannot be guessed."""


@by_key
def test_a_wrong_value_of_any_key_is_refused_with_its_place_and_the_nearest_form(
    path: KeyPath, tmp_path: Path
) -> None:
    project, kind = Project(tmp_path), ALL[path].kind
    values = wrong(kind)
    assert len(values) >= 5
    for value in values:
        project.write("pgtasks.toml", f"# a comment\n\n[{key(path[:-1])}]\n{path[-1]} = {value}\n")
        [problem] = project.problems()
        assert problem.startswith(f"pgtasks.toml:4: {key(path)}: "), problem
        form = proposed(problem)
        if form is None:
            assert problem.endswith(NO_FORM), problem
        else:
            assert takes(kind, form), problem


@by_key
def test_a_wrong_value_of_any_variable_or_flag_is_refused_with_its_name(
    path: KeyPath, tmp_path: Path
) -> None:
    project, name = Project(tmp_path), variable(ALL[path])
    texts = wrong_texts(ALL[path].kind)
    assert texts
    for text in texts:
        [by_variable] = project.problems(None, **{name: text})
        assert by_variable.startswith(f"{name}: "), by_variable
        [by_flag] = project.problems({key(path): text})
        assert by_flag == by_variable.replace(name, f"--{path[-1]}", 1)


@writes_files
@given(st.data(), st.sampled_from(sorted(PAIRS)), st.sampled_from(FILES[1:]))
def test_keys_that_contradict_each_other_are_refused_in_whatever_files_they_are(
    data: st.DataObject, path: KeyPath, second: str
) -> None:
    field, other = ALL[path], PAIRS[path]
    mine, its = (data.draw(right(ALL[one].kind)) for one in (path, other))
    lines = {"pgtasks.toml": dotted({other: its})}
    lines[second] = lines.get(second, "") + dotted({path: mine})
    with TemporaryDirectory() as folder:
        project = Project(Path(folder))
        for name, text in lines.items():
            project.write(name, text)
        if mine < its if field.at_least else None not in (mine, its):
            [problem] = project.problems(PGTASKS_ENVIRONMENT="test")
            line = lines[second].count("\n")
            assert problem.startswith(f"{second}:{line}: {key(path)}: ")
            assert other[-1] in problem
        else:
            assert value_at(project.load(PGTASKS_ENVIRONMENT="test"), path) == mine
