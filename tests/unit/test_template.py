"""What `pgtasks init` writes is valid, complete and never overwrites by surprise."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

from pgtasks.config import Config, WorkerConfig
from pgtasks.config_reference import fields
from pgtasks.errors import ConfigError
from pgtasks.layers import load
from pgtasks.template import TASKS, settings_text, write_project

DEFAULTS = Config(worker=WorkerConfig(tasks=("tasks",)))


def _load(folder: Path) -> Config:
    return load(folder=folder, environ={}).config


def test_the_new_project_loads(tmp_path: Path) -> None:
    assert write_project(tmp_path) == [tmp_path / "pgtasks.toml", tmp_path / "tasks.py"]
    assert _load(tmp_path) == DEFAULTS


def test_every_commented_key_stands_at_its_default(tmp_path: Path) -> None:
    text, count = re.subn(r"^#(?=[a-z])", "", settings_text(), flags=re.MULTILINE)
    (tmp_path / "pgtasks.toml").write_text(text)
    loaded = load(folder=tmp_path, environ={})
    assert loaded.config == DEFAULTS
    keys = [field.key for field in fields() if "<name>" not in field.path]
    assert count == len(keys) - 1  # worker.tasks is not commented out
    assert all(loaded.origins[key].name == "pgtasks.toml" for key in keys)


def test_every_key_has_its_sentence() -> None:
    lines = settings_text().splitlines()
    for field in fields():
        assert any(line.endswith(f"# {field.doc}") for line in lines), field.key


def test_the_examples_are_valid_too(tmp_path: Path) -> None:
    """A reader who removes the comment from an example gets what it says."""
    text = settings_text()
    text = re.sub(r"^#\w.*\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"^# For example: ", "", text, flags=re.MULTILINE)
    text = re.sub(r"^# (?=\[worker|[a-z-]+ = |# )", "", text, flags=re.MULTILINE)
    (tmp_path / "pgtasks.toml").write_text(text)
    config = _load(tmp_path)
    assert config.worker.queues == ("default", "emails")
    assert config.worker.queue_config["emails"].concurrency == 4
    assert config.worker.queue_config["emails"].failed_for is None
    assert config.database.url is not None


@pytest.mark.parametrize("name", ["pgtasks.toml", "tasks.py"])
def test_a_file_that_is_there_is_kept(tmp_path: Path, name: str) -> None:
    """Neither file is written when one of them exists."""
    (tmp_path / name).write_text("mine")
    with pytest.raises(ConfigError, match=re.escape(f"{name} exists already; use --force")):
        write_project(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"


def test_force_overwrites(tmp_path: Path) -> None:
    (tmp_path / "tasks.py").write_text("mine")
    write_project(tmp_path, force=True)
    assert (tmp_path / "tasks.py").read_text() == TASKS


def test_the_folder_is_made(tmp_path: Path) -> None:
    write_project(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b" / "tasks.py").exists()


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        write_project(tmp_path / "file" / "project")


def test_the_tasks_are_python_that_uses_the_public_names_only() -> None:
    tree = ast.parse(TASKS)
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert [(one.module, [name.name for name in one.names]) for one in imports] == [
        ("pgtasks", ["connect", "task"])
    ]
    functions = {
        node.name: type(node)
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert functions == {
        "hello": ast.AsyncFunctionDef,
        "count_primes": ast.FunctionDef,
        "main": ast.AsyncFunctionDef,
    }


def test_the_settings_are_toml() -> None:
    assert tomllib.loads(settings_text())["worker"]["tasks"] == ["tasks"]
