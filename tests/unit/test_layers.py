"""Settings from many sources: the later wins, each knows its origin, all mistakes are named."""

import os
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from project import Project

from pgtasks.config import QueueConfig
from pgtasks.config_reference import fields
from pgtasks.errors import ConfigError
from pgtasks.layers import Flag, describe, find_project_folder, load, may_be_read_by_others

URL = "postgresql://me@db/app"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


# Layers


def test_nothing_configured_is_the_defaults(project: Project) -> None:
    loaded = project.load()
    assert loaded.config.worker.concurrency == 20
    assert loaded.environment is None
    assert loaded.warnings == []
    assert {str(origin) for origin in loaded.origins.values()} == {"default"}
    assert set(loaded.origins) == {f.key for f in fields() if "<name>" not in f.path}


def test_each_source_wins_over_those_before_it(project: Project) -> None:
    def seen(**environ: str) -> tuple[int, str]:
        loaded = project.load(overrides, **environ)
        return loaded.config.worker.concurrency, str(loaded.origins["worker.concurrency"])

    overrides: dict[str, object] = {}
    project.write("pyproject.toml", "[project]\nname = 'x'\n[tool.pgtasks]\nworker.concurrency=1\n")
    assert seen() == (1, "pyproject.toml:4")
    project.write("pgtasks.toml", "[worker]\n\nconcurrency = 2\n")
    assert seen() == (2, "pgtasks.toml:3")
    project.write("pgtasks.test.toml", "worker = { concurrency = 3 }")
    assert seen() == (2, "pgtasks.toml:3")
    assert seen(PGTASKS_ENVIRONMENT="test") == (3, "pgtasks.test.toml:1")
    variables = {"PGTASKS_ENVIRONMENT": "test", "PGTASKS__WORKER__CONCURRENCY": "4"}
    assert seen(**variables) == (4, "PGTASKS__WORKER__CONCURRENCY")
    overrides = {"worker.concurrency": 5}
    assert seen(**variables) == (5, "--concurrency")


def test_keys_that_a_later_source_does_not_mention_stay(project: Project) -> None:
    project.write("pyproject.toml", "[tool.pgtasks.worker]\nprocesses = 3\nconcurrency = 3\n")
    project.write("pgtasks.toml", "[worker]\nconcurrency = 4\n")
    worker = project.load(PGTASKS__WORKER__GRACE="5s").config.worker
    assert (worker.processes, worker.concurrency, worker.grace) == (3, 4, timedelta(seconds=5))


def test_lists_are_replaced_not_joined(project: Project) -> None:
    project.write("pgtasks.toml", "[worker]\nqueues = ['a', 'b']\n")
    assert project.load(PGTASKS__WORKER__QUEUES="c, d,").config.worker.queues == ("c", "d")


def test_none_takes_a_value_back(project: Project) -> None:
    project.write("pgtasks.toml", f"database.url = '{URL}'\nworker.queues = ['a']\n")
    project.write("pgtasks.dev.toml", "database.url = 'none'\ntask.timeout = 'none'\n")
    config = project.load(PGTASKS_ENVIRONMENT="dev", PGTASKS__WORKER__QUEUES="none").config
    assert (config.database.url, config.worker.queues, config.task.timeout) == (None, None, None)


def test_queue_tables(project: Project) -> None:
    project.write(
        "pgtasks.toml",
        "[worker.queue-config.emails]\nconcurrency = 2\n[worker.queue-config.a__b]\n",
    )
    loaded = project.load(
        PGTASKS__WORKER__QUEUE_CONFIG__EMAILS__CONCURRENCY="4",
        PGTASKS__WORKER__QUEUE_CONFIG__A__B__WEIGHT="7",
        PGTASKS__WORKER__QUEUE_CONFIG__NEW__CONCURRENCY="none",
    )
    assert loaded.config.worker.queue_config == {
        "emails": QueueConfig(concurrency=4),
        "a__b": QueueConfig(weight=7),
        "new": QueueConfig(),
    }
    origin = loaded.origins["worker.queue-config.emails.concurrency"]
    assert str(origin) == "PGTASKS__WORKER__QUEUE_CONFIG__EMAILS__CONCURRENCY"
    assert str(loaded.origins["worker.queue-config.a__b.concurrency"]) == "default"


def test_an_empty_variable_is_not_set(project: Project) -> None:
    config = project.load(
        PGTASKS__WORKER__CONCURRENCY="", PGTASKS_DATABASE_URL=" ", PGTASKS_ENVIRONMENT=""
    ).config
    assert (config.worker.concurrency, config.database.url) == (20, None)


def test_flags_name_themselves(project: Project) -> None:
    loaded = project.load({"worker.queues": Flag("--queue", ["a"]), "worker.processes": None})
    assert loaded.config.worker.queues == ("a",)
    assert str(loaded.origins["worker.queues"]) == "--queue"
    assert str(loaded.origins["worker.processes"]) == "default"


def test_flags_are_text_or_values(project: Project) -> None:
    config = project.load(
        {"worker.processes": "2", "task.lease": timedelta(seconds=5), "worker.tasks": ("a.b",)}
    ).config
    assert (config.worker.processes, config.task.lease) == (2, timedelta(seconds=5))
    assert config.worker.tasks == ("a.b",)


# The URL of the database


@pytest.mark.parametrize(
    ("text", "environ", "name"),
    [
        ("", {"DATABASE_URL": URL}, "DATABASE_URL"),
        ("database.url = 'postgres://f/d'", {"DATABASE_URL": URL}, "pgtasks.toml"),
        ("database.url = 'none'", {"DATABASE_URL": URL}, "pgtasks.toml"),
        (
            "database.url = 'postgres://f/d'",
            {"PGTASKS__DATABASE__URL": URL, "DATABASE_URL": "x"},
            "PGTASKS__DATABASE__URL",
        ),
        (
            "",
            {"PGTASKS_DATABASE_URL": URL, "PGTASKS__DATABASE__URL": "postgres://v/d"},
            "PGTASKS_DATABASE_URL",
        ),
        ("database.url = 'postgres://f/d'", {"DATABASE_URL": "postgresql+x://"}, "pgtasks.toml"),
    ],
)
def test_who_names_the_database(
    project: Project, text: str, environ: dict[str, str], name: str
) -> None:
    project.write("pgtasks.toml", text)
    loaded = project.load(None, **environ)
    assert loaded.origins["database.url"].name == name
    assert loaded.warnings == []


def test_a_database_url_of_another_kind_is_ignored_with_a_warning(project: Project) -> None:
    loaded = project.load(DATABASE_URL="mysql://me:s3cret@db/app")
    assert loaded.config.database.url is None
    assert loaded.warnings == [
        "DATABASE_URL is ignored: it is not a Postgres URL; for pgtasks set PGTASKS_DATABASE_URL"
    ]


def test_a_database_url_for_a_driver_is_refused(project: Project) -> None:
    """An embedded server must not start only because the URL is spelt for another library."""
    (problem,) = project.problems(DATABASE_URL="postgresql+asyncpg://me:s3cret@db/app")
    assert problem == (
        'DATABASE_URL: "postgresql+asyncpg://" is not a Postgres URL; write postgresql://...'
    )


SECRET_URL = "postgresql://me:s3cret@db/app"


@pytest.mark.parametrize("name", ["pgtasks.toml", "pgtasks.production.toml", "pyproject.toml"])
def test_a_password_that_others_can_read_is_refused(project: Project, name: str) -> None:
    """Also when another source names the database: it can be read all the same."""
    table = "tool.pgtasks.database" if name == "pyproject.toml" else "database"
    project.write(name, f"[{table}]\nurl = '{SECRET_URL}'\n", 0o604)
    (problem,) = project.problems(PGTASKS_ENVIRONMENT="production", PGTASKS_DATABASE_URL=URL)
    assert problem == (
        f"{name}:2: database.url holds a password that others on this machine can read; run: "
        f"chmod 600 {name} (or keep the URL out of it, in PGTASKS_DATABASE_URL)"
    )
    (project.folder / name).chmod(0o600)
    assert project.load(PGTASKS_ENVIRONMENT="production").config.database.url == SECRET_URL


@pytest.mark.parametrize("url", [URL, "postgresql://me@db/app?passfile=/run/secrets/pgpass"])
def test_a_file_without_a_password_may_be_read_by_everybody(project: Project, url: str) -> None:
    project.write("pgtasks.toml", f"[database]\nurl = '{url}'\n", 0o666)
    assert project.load().config.database.url == url


@pytest.mark.parametrize(
    ("mode", "owner", "refused"),
    [
        (0o600, 1000, False), (0o400, 1000, False), (0o640, 1000, True), (0o644, 1000, True),
        (0o604, 1000, True), (0o640, 0, False), (0o440, 0, False), (0o444, 0, True),
        (0o604, 0, True), (0o777, 1000, True),
    ],
)  # fmt: skip
def test_who_may_read_a_password(mode: int, owner: int, refused: bool) -> None:
    """As libpq has it for keys: of root's files a group may read, as with mounted secrets."""
    status = os.stat_result((0o100000 | mode, 0, 0, 1, owner, 0, 0, 0, 0, 0))
    assert may_be_read_by_others(status) is refused


# Mistakes


def test_all_mistakes_at_once_each_with_its_place(project: Project) -> None:
    project.write("pyproject.toml", "[tool.pgtasks.worker]\nqueues = [\n  'a',\n  'periodic',\n]\n")
    project.write(
        "pgtasks.toml",
        '[worker]\nconcurency = 8\nprocesses = "2"\nqueue_fetch.notify = true\n\n'
        "[task]\n\"lease\" = '30 sec'\ntimeout = -1\n\n[wroker]\n",
    )
    project.write("pgtasks.prod.toml", "[database]\nurl = 'sqlite://'\nmin-connections = 11\n")
    problems = project.problems(
        {"worker.grace": "soon", "worker.nothing": 1},
        PGTASKS_ENVIRONMENT="prod",
        PGTASKS__WORKER__PROCESSES="two",
        PGTASKS__WORKER__CONCURENCY="2",
        PGTASKS_SOMETHING="left alone",
    )
    assert [re.sub(r"; .*", "", line) for line in problems] == [
        (
            "pyproject.toml:2: worker.queues: 'periodic' cannot be the name of a queue: "
            "Roadster keeps its schedules under it"
        ),
        "pgtasks.toml:2: worker.concurency: unknown key",
        'pgtasks.toml:3: worker.processes: "2" is not a whole number',
        "pgtasks.toml:4: worker.queue_fetch: unknown key",
        'pgtasks.toml:7: task.lease: "30 sec" is not a duration',
        "pgtasks.toml:8: task.timeout: -1 is negative",
        "pgtasks.toml:10: wroker: unknown key",
        'pgtasks.prod.toml:2: database.url: "sqlite://" is not a Postgres URL',
        "PGTASKS__WORKER__CONCURENCY: unknown variable",
        'PGTASKS__WORKER__PROCESSES: "two" is not a whole number',
        '--grace: "soon" is not a duration',
        "--nothing: unknown key",
        "pgtasks.prod.toml:3: database.max-connections: 10 is less than min-connections (11)",
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("worker.concurency = 1", 'worker.concurency: unknown key; did you mean "concurrency"?'),
        ("worker.queue_fetch = 1", 'unknown key; did you mean "queue-fetch"?'),
        ("worker.lease = 1", 'worker.lease: unknown key; did you mean "lease" in [task]?'),
        ("concurrency = 1", 'concurrency: unknown key; did you mean "concurrency" in [worker]?'),
        ("task.max_delay = 1", 'unknown key; did you mean "max-delay"?'),
        ("worker.max_delay = 1", 'unknown key; did you mean "max-delay" in [task]?'),
        ("task.xyz = 1", "task.xyz: unknown key; [task] knows queue, timeout"),
        ("xyz = 1", "xyz: unknown key; the tables are database, worker, task, log"),
        ("worker = 5", "worker: this is a table, not one value; write [worker] and keys below it"),
        ("[[worker]]\nconcurrency = 1", "worker: this is a table, not one value"),
        ("worker.concurrency = { a = 1 }", "a table is not a whole number"),
        ("worker.concurrency = 2020-01-01", "a date is not a whole number"),
        ("worker.durable = 'true'", '"true" is neither true nor false'),
        ("worker.queue-config = 3", "not one value; write [worker.queue-config.emails] and keys"),
        ("worker.queue-config.a = 3", "worker.queue-config.a: this is a table, not one value"),
        ("worker.queue-config.A-b.weight = 3", "worker.queue-config: 'A-b' cannot be the name"),
        ("worker.queue-config.a.wait = 3", 'unknown key; did you mean "weight"?'),
        ("task.lease = true", "true is not a duration"),
        ("task.lease = nan", "nan is not a duration"),
        ("'a\\nb'.\"x\\ny\" = 1", '"a\\\\nb": unknown key'),
    ],
)
def test_a_mistake_in_a_file(project: Project, text: str, says: str) -> None:
    project.write("pgtasks.toml", f"\n{text}")
    (problem,) = project.problems()
    assert problem.startswith("pgtasks.toml:2: ")
    assert says in problem


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("PGTASKS__WORKER__CONCURENCY", "did you mean PGTASKS__WORKER__CONCURRENCY?"),
        ("PGTASKS__worker__concurrency", "did you mean PGTASKS__WORKER__CONCURRENCY?"),
        ("PGTASKS__WORKER__CONCURRENCYX", "did you mean PGTASKS__WORKER__CONCURRENCY?"),
        ("PGTASKS__WORKER", "unknown variable"),
        ("PGTASKS__WORKER__QUEUE_CONFIG____WEIGHT", "unknown variable"),
        ("PGTASKS__", "unknown variable; `pgtasks config show` lists the keys"),
        (
            "PGTASKS__WORKER__QUEUE_CONFIG__EMAILS__WAIT",
            "did you mean PGTASKS__WORKER__QUEUE_CONFIG__EMAILS__WEIGHT?",
        ),
        ("PGTASKS__WORKER__QUEUE_CONFIG__WEIGHT", "unknown variable"),
        (
            "PGTASKS__WORKER__QUEUE_CONFIG__emails__WEIGHT",
            "did you mean PGTASKS__WORKER__QUEUE_CONFIG__EMAILS__WEIGHT?",
        ),
        ("PGTASKS__WORKER__QUEUE_CONFIG__9__WEIGHT", "'9' cannot be the name of a queue"),
    ],
)
def test_a_mistake_in_a_variable(project: Project, name: str, says: str) -> None:
    (problem,) = project.problems(None, **{name: "1"})
    assert problem.startswith(f"{name}: ")
    assert says in problem


def test_switches_in_variables(project: Project) -> None:
    for text, value in {"true": True, "1": True, "Yes": True, "off": False, "0": False}.items():
        assert project.load(PGTASKS__WORKER__DURABLE=text).config.worker.durable is value
    assert project.problems(PGTASKS__WORKER__DURABLE="maybe") == [
        'PGTASKS__WORKER__DURABLE: "maybe" is neither true nor false; write true or false'
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[worker]\nconcurrency = \n", "pgtasks.toml:2:15: this is not TOML: Invalid value"),
        ("[worker\n", "pgtasks.toml:1:8: this is not TOML: Expected ']' at the end of a table"),
        ("a = 1\nb = [1,\n", "pgtasks.toml:2:"),
        ("a = 1\na = 2\n", "pgtasks.toml:2:6: this is not TOML: Cannot overwrite a value"),
        ("a = " + "[" * 5000, "pgtasks.toml"),
        ("\na = " + "1" * 5000, "pgtasks.toml:2: this number is too long; write a smaller one"),
    ],
)
def test_broken_toml(project: Project, text: str, says: str) -> None:
    project.write("pgtasks.toml", text)
    problems = project.problems(PGTASKS__WORKER__PROCESSES="0")
    assert len(problems) == 2
    assert problems[0].startswith(says)


def test_a_file_that_is_not_utf8(project: Project) -> None:
    (project.folder / "pgtasks.toml").write_bytes(b"[worker]\n# \xff\n")
    assert project.problems() == ["pgtasks.toml:2: this is not UTF-8; save it as UTF-8"]


def test_a_file_from_windows(project: Project) -> None:
    (project.folder / "pgtasks.toml").write_bytes(
        b"\xef\xbb\xbf[worker]\r\n\r\ngrace = '''5s'''\r\nx = 1\r\n"
    )
    assert project.problems()[0].startswith("pgtasks.toml:4: worker.x: unknown key")


def test_a_file_that_cannot_be_read(project: Project) -> None:
    (project.folder / "pgtasks.toml").mkdir()
    assert project.problems() == ["pgtasks.toml: cannot be read: Is a directory"]


def test_a_refused_value_is_not_compared_with_others(project: Project) -> None:
    project.write("pgtasks.toml", "[database]\nmin-connections = 20\nmax-connections = 'x'\n")
    assert len(project.problems()) == 1


def test_no_password_in_errors(project: Project) -> None:
    project.write("pgtasks.toml", "database.url = 'postgresql://me:s3cret@[db/app'")
    problems = project.problems(PGTASKS_DATABASE_URL="me:s3cret@db")
    assert len(problems) == 2
    assert "s3cret" not in "\n".join(problems)


# Folders and environments


def test_the_nearest_configured_folder(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    assert find_project_folder(inner) == inner
    (tmp_path / "pgtasks.toml").write_text("")
    assert find_project_folder(inner) == tmp_path
    (tmp_path / "a" / "pyproject.toml").write_text("[project]\nname = 'pgtasks'\n")
    assert find_project_folder(inner) == tmp_path
    (tmp_path / "a" / "pyproject.toml").write_text("[tool.pgtasks]\n")
    assert find_project_folder(inner) == tmp_path / "a"


def test_a_broken_pyproject_of_others_is_not_our_business(project: Project) -> None:
    project.write("pyproject.toml", "[project\nname = 'pgtasks'\n")
    assert project.load().config.worker.concurrency == 20
    project.write("pyproject.toml", "[tool.pgtasks]\nworker = \n")
    assert project.problems()[0].startswith("pyproject.toml:2:10: this is not TOML")


def test_pgtasks_in_pyproject_is_a_table(project: Project) -> None:
    project.write("pyproject.toml", "[tool]\npgtasks = 5\n")
    assert project.problems() == [
        "pyproject.toml:2: this is a table, not one value; write [tool.pgtasks] and keys below it"
    ]


def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such folder"):
        load(folder=tmp_path / "nowhere", environ={})


def test_the_current_folder_is_where_the_search_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pgtasks.toml").write_text("worker.concurrency = 3")
    (tmp_path / "src").mkdir()
    monkeypatch.chdir(tmp_path / "src")
    loaded = load(environ={})
    assert loaded.project_folder == tmp_path
    assert loaded.config.worker.concurrency == 3


def test_an_environment_needs_no_file(project: Project) -> None:
    project.write("pgtasks.production.toml", "worker.concurrency = 50")
    loaded = project.load(PGTASKS_ENVIRONMENT="staging")
    assert (loaded.environment, loaded.warnings) == ("staging", [])


def test_an_environment_that_is_nearly_one_with_a_file(project: Project) -> None:
    project.write("pgtasks.production.toml", "worker.concurrency = 50")
    assert project.load(PGTASKS_ENVIRONMENT="prodution").warnings == [
        'there is no pgtasks.prodution.toml; did you mean the environment "production"?'
    ]


def test_the_environment_given_by_hand_wins(project: Project) -> None:
    project.write("pgtasks.a.toml", "worker.concurrency = 1")
    project.write("pgtasks.b.toml", "worker.concurrency = 2")
    environ = {"PGTASKS_ENVIRONMENT": "a"}
    loaded = load(folder=project.folder, environment="b", environ=environ)
    assert (loaded.environment, loaded.config.worker.concurrency) == ("b", 2)


def test_an_environment_is_not_a_path(project: Project) -> None:
    (problem,) = project.problems(PGTASKS_ENVIRONMENT="../x")
    assert problem.startswith('PGTASKS_ENVIRONMENT: "../x" is not a name')


# What is shown


def test_describe(project: Project) -> None:
    project.write("pgtasks.toml", "[worker.queue-config.emails]\nweight = 3\n[task]\nlease = 90\n")
    settings = {
        setting.path: setting
        for setting in describe(project.load(PGTASKS_DATABASE_URL="postgresql://me:s3cret@db/app"))
    }
    url = settings["database.url"]
    assert (url.value, url.default) == ("postgresql://me:***@db/app", "none")
    assert str(url.origin) == "PGTASKS_DATABASE_URL"
    lease = settings["task.lease"]
    assert (lease.value, lease.default, str(lease.origin)) == ("90s", "30s", "pgtasks.toml:4")
    assert settings["worker.queue-config.emails.weight"].value == "3"
    assert settings["worker.queue-config.emails.concurrency"].value == "none"
    assert settings["worker.durable"].value == "false"
    assert settings["worker.tasks"].value == ""
    assert "s3cret" not in repr(settings)
    assert all(setting.doc for setting in settings.values())


def test_reading_does_not_wait_for_tomlkit() -> None:
    """It takes 80 ms to import, which every start of a worker would pay."""
    code = "import sys, pgtasks.layers as l; l.load(environ={}); sys.exit('tomlkit' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
