"""Writing one setting into a file: everything else in it stays."""

import stat
from datetime import timedelta
from pathlib import Path

import pytest
from project import Project

from pgtasks.config import QueueConfig
from pgtasks.config_reference import Field, fields
from pgtasks.errors import ConfigError
from pgtasks.layers import set_value


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_set_value_keeps_everything_else(project: Project) -> None:
    file = project.write(
        "pgtasks.toml",
        "# mine\n[worker] # here\nconcurrency = 2 # two\n\n[worker.queue-config.emails]\n"
        "weight = 2\n\n[task]\nlease = '3s'\n",
    )
    set_value(file, "worker.concurrency", "8")
    set_value(file, "worker.processes", "2")
    set_value(file, "worker.queue-config.slow.concurrency", "4")
    set_value(file, "worker.queue-fetch.notify", "no")
    set_value(file, "worker.queues", "a, b")
    set_value(file, "task.timeout", "none")
    set_value(file, "task.delay", "90 s".replace(" ", ""))
    text = file.read_text()
    for kept in ["# mine", "[worker] # here", "concurrency = 8 # two", "lease = '3s'"]:
        assert kept in text
    config = project.load().config
    assert (config.worker.concurrency, config.worker.processes) == (8, 2)
    assert config.worker.queue_config == {
        "emails": QueueConfig(weight=2),
        "slow": QueueConfig(concurrency=4),
    }
    assert config.worker.queue_fetch.notify is False
    assert config.worker.queues == ("a", "b")
    assert (config.task.timeout, config.task.delay) == (None, timedelta(seconds=90))
    assert config.task.lease == timedelta(seconds=3)


@pytest.mark.parametrize("field", list(fields()), ids=lambda field: field.key)
def test_set_value_writes_every_key(project: Project, field: Field) -> None:
    file = project.folder / "pgtasks.toml"
    key = field.key.replace("<name>", "emails")
    text = field.kind.show(field.default) or "a.b"
    set_value(file, key, text)
    assert str(project.load().origins[key]).startswith("pgtasks.toml:")


@pytest.mark.parametrize(
    ("key", "text", "says"),
    [
        ("worker.concurency", "8", 'did you mean "concurrency"?'),
        ("worker.concurrency", "eight", '"eight" is not a whole number'),
        ("worker", "8", "this is a table"),
        ("worker.queue-config.No.weight", "8", "'No' cannot be the name of a queue"),
        ("", "8", "unknown key"),
        ("task.lease", "", '"" is not a duration'),
    ],
)
def test_set_value_refuses(project: Project, key: str, text: str, says: str) -> None:
    file = project.write("pgtasks.toml", "# mine\n")
    with pytest.raises(ConfigError) as caught:
        set_value(file, key, text)
    assert says in str(caught.value)
    assert file.read_text() == "# mine\n"


@pytest.mark.parametrize("text", ["worker = 5\n", "[[worker]]\na = 1\n", "[worker\n"])
def test_set_value_leaves_a_broken_file_alone(project: Project, text: str) -> None:
    file = project.write("pgtasks.toml", text)
    with pytest.raises(ConfigError):
        set_value(file, "worker.concurrency", "8")
    assert file.read_text() == text
    assert [one.name for one in project.folder.iterdir()] == ["pgtasks.toml"]


def test_set_value_keeps_the_mode_and_hides_a_new_password(project: Project) -> None:
    file = project.write("pgtasks.toml", "", 0o640)
    set_value(file, "worker.concurrency", "8")
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    new = project.folder / "pgtasks.prod.toml"
    set_value(new, "database.url", "postgresql://me:s3cret@db/app")
    assert stat.S_IMODE(new.stat().st_mode) == 0o600
    set_value(file, "database.url", "postgresql://me@db/app")
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    set_value(file, "database.url", "postgresql://me:s3cret@db/app")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_set_value_keeps_the_line_ends_of_windows(project: Project) -> None:
    file = project.folder / "pgtasks.toml"
    file.write_bytes(b"# mine\r\n[worker]\r\nconcurrency = 1\r\n")
    set_value(file, "worker.concurrency", "8")
    assert file.read_bytes() == b"# mine\r\n[worker]\r\nconcurrency = 8\r\n"


def test_set_value_follows_a_link(project: Project) -> None:
    file = project.write("real.toml", "")
    (project.folder / "pgtasks.toml").symlink_to(file)
    set_value(project.folder / "pgtasks.toml", "worker.concurrency", "8")
    assert (project.folder / "pgtasks.toml").is_symlink()
    assert "concurrency = 8" in file.read_text()


def test_set_value_in_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be written: No such file"):
        set_value(tmp_path / "no" / "pgtasks.toml", "worker.concurrency", "8")
