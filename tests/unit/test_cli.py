"""The command line without a database: parsing, settings, errors, what is printed and how."""

import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cyclopts import App

import pgtasks
from pgtasks import exit_codes
from pgtasks.cli import app as cli_app
from pgtasks.cli import main
from pgtasks.cli.defer import read_arguments, read_moment
from pgtasks.cli.failure import report
from pgtasks.cli.output import painted, print_json, print_pairs, print_table, safe, span, when
from pgtasks.cli.pages import read_id
from pgtasks.cli.rows import ended, known_of, waiting
from pgtasks.cli.session import unknown_queue
from pgtasks.errors import (
    ArgumentError,
    ConfigError,
    DatabaseUnreachable,
    PgtasksError,
    QueueNameError,
    SchemaError,
)
from pgtasks.supervisor import Supervisor

NOW = datetime(2027, 1, 1, tzinfo=UTC)
COMMANDS = [
    "worker", "health", "demo", "init", "config show", "config check", "config set",
    "explain task", "defer", "queue list", "queue create", "message list", "message show",
    "archive list", "archive show", "archive retry", "archive prune",
    "schedule list", "schedule show", "schedule next", "schedule pause", "schedule resume",
    "schedule trigger", "schedule set", "schedule remove",
    "db upgrade", "db check", "db attach-pgmq", "db detach-pgmq", "db sql", "db roles", "doctor",
]  # fmt: skip


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to be in, and no setting from outside."""
    for name in os.environ:
        if name.startswith("PGTASKS") or name == "DATABASE_URL":
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A real process, in the current folder."""
    return subprocess.run(
        [sys.executable, "-m", "pgtasks", *arguments],
        capture_output=True, text=True, timeout=60, check=False, env=os.environ | environment,
    )  # fmt: skip


# Help


def test_help_fits_one_screen_and_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == exit_codes.OK
    text = capsys.readouterr().out
    assert len(text.splitlines()) <= 40
    assert max(map(len, text.splitlines())) <= 80
    for name in {command.split()[0] for command in COMMANDS}:
        assert re.search(rf"^  {name} +\S", text, re.MULTILINE), name
    assert text.index("Run:") < text.index("Project:") < text.index("Messages:")


def test_no_arguments_mean_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == exit_codes.OK
    assert "Examples:" in capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_an_example_that_is_a_command(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command.split(), "--help"]) == exit_codes.OK
    text = capsys.readouterr().out
    assert f"Usage: pgtasks {command}" in text
    assert re.search(rf"^  pgtasks {command}\b", text, re.MULTILINE)
    assert "InlineText" not in text
    assert "pgtasks demo  " not in text  # the examples of the first page
    assert max(map(len, text.splitlines())) <= 96


def test_every_parameter_says_what_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    """A parameter that nobody documented would be a bare name in the list."""
    for command in COMMANDS:
        main([*command.split(), "--help"])
        listed = capsys.readouterr().out.partition("\nArguments:")[2]
        assert not re.findall(r"^  \S+( [A-Z]+)?$", listed, re.MULTILINE), command


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == exit_codes.OK
    assert capsys.readouterr().out == f"pgtasks {pgtasks.__version__}\n"


# Wrong usage


@pytest.mark.parametrize(
    ("arguments", "said", "see"),
    [
        (["wrker"], 'Did you mean "worker"?', "pgtasks --help"),
        (["worker", "--queu", "x"], "Did you mean --queue?", "pgtasks worker --help"),
        (["message", "show", "emails"], "requires an argument", "pgtasks message show --help"),
        (["queue", "lst"], 'Did you mean "list"?', "pgtasks queue --help"),
        (["queue", "list", "--no-json"], "Unknown option", "pgtasks queue list --help"),
    ],
)
def test_wrong_usage_is_one_line_and_where_to_look(
    arguments: list[str], said: str, see: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == exit_codes.USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("pgtasks: ")
    assert said in err
    assert err.endswith(f"\nSee `{see}`.\n")


def test_a_wrong_number_names_its_flag(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["worker", "tasks", "--concurrency", "many", "--grace", "1x"]) == exit_codes.USAGE
    err = capsys.readouterr().err
    assert '--concurrency: "many" is not a whole number' in err
    assert '--grace: "1x" is not a duration' in err


def test_a_wrong_queue_name_is_refused_before_anything_starts(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["worker", "tasks", "--queue", "Bad-Name"]) == exit_codes.USAGE
    assert "--queue: 'Bad-Name' cannot be the name of a queue" in capsys.readouterr().err


def test_a_file_is_no_module(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["worker", "app/tasks.py"]) == exit_codes.USAGE
    assert 'MODULES: "app/tasks.py"' in (err := capsys.readouterr().err)
    assert '"app.tasks"' in err


def test_a_worker_without_modules_says_the_next_step(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["worker"]) == exit_codes.USAGE
    err = capsys.readouterr().err
    assert "pgtasks worker shop.tasks" in err
    assert "pgtasks init shop" in err


# The worker


@pytest.fixture
def supervised(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Supervisor]]:
    """The supervisors that would have run."""
    made: list[Supervisor] = []

    async def run(self: Supervisor) -> int:
        made.append(self)
        return exit_codes.UNSETTLED

    monkeypatch.setattr(Supervisor, "run", run)
    logger = logging.getLogger("pgtasks")
    before = logger.handlers, logger.level, logger.propagate
    yield made
    logger.handlers, logger.level, logger.propagate = before


def test_worker_hands_its_flags_to_the_supervisor(supervised: list[Supervisor]) -> None:
    code = main([
        "worker", "shop.tasks", "shop.more", "--queue", "emails", "--queue", "reports",
        "--concurrency", "7", "--processes", "3", "--grace", "1m", "--log-level", "error",
        "--log-format", "json", "--database-url", "postgresql://db/x",
    ])  # fmt: skip
    assert code == exit_codes.UNSETTLED
    [supervisor] = supervised
    config = supervisor._loaded.config
    assert config.worker.tasks == ("shop.tasks", "shop.more")
    assert supervisor._queues == ("emails", "reports")
    assert (config.worker.concurrency, config.worker.processes) == (7, 3)
    assert config.worker.grace == timedelta(minutes=1)
    assert (config.log.level, config.log.format) == ("error", "json")
    assert config.database.url == "postgresql://db/x"
    assert str(supervisor._loaded.origins["worker.concurrency"]) == "--concurrency"


def test_worker_takes_from_the_settings_what_no_flag_says(
    supervised: list[Supervisor], project: Path
) -> None:
    (project / "pgtasks.toml").write_text('[worker]\ntasks = ["shop.tasks"]\nconcurrency = 9\n')
    (project / "pgtasks.live.toml").write_text("[worker]\nprocesses = 4\n")
    assert main(["worker", "--environment", "live"]) == exit_codes.UNSETTLED
    [supervisor] = supervised
    worker = supervisor._loaded.config.worker
    assert (worker.tasks, worker.concurrency, worker.processes) == (("shop.tasks",), 9, 4)
    assert supervisor._queues is None


def test_a_password_among_the_arguments_is_warned_of_and_not_repeated(
    supervised: list[Supervisor], capsys: pytest.CaptureFixture[str]
) -> None:
    main(["worker", "shop.tasks", "--database-url", "postgresql://me:sekret@db/x"])
    err = capsys.readouterr().err
    assert "PGTASKS_DATABASE_URL" in err
    assert "sekret" not in err


def test_an_address_without_password_is_not_warned_of(
    supervised: list[Supervisor], capsys: pytest.CaptureFixture[str]
) -> None:
    main(["worker", "shop.tasks", "--database-url", "postgresql://me@db/x"])
    assert "PGTASKS_DATABASE_URL" not in capsys.readouterr().err


# Projects and settings


def test_init_writes_a_project_and_says_how_to_go_on(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init", "my shop"]) == exit_codes.OK
    out = capsys.readouterr().out
    assert (project / "my shop" / "pgtasks.toml").exists()
    assert "wrote my shop/tasks.py" in out
    assert "cd 'my shop' && pgtasks worker" in out
    assert "cd 'my shop' && python tasks.py" in out


def test_init_does_not_overwrite_unless_forced(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "tasks.py").write_text("mine")
    assert main(["init"]) == exit_codes.USAGE
    assert "--force" in capsys.readouterr().err
    assert (project / "tasks.py").read_text() == "mine"
    assert main(["init", "--force"]) == exit_codes.OK
    assert "cd " not in capsys.readouterr().out


def test_config_show_says_where_values_come_from_and_no_password(
    monkeypatch: pytest.MonkeyPatch, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "pgtasks.toml").write_text("[worker]\nconcurrency = 9\n")
    monkeypatch.setenv("PGTASKS_DATABASE_URL", "postgresql://me:sekret@db/x")
    assert main(["config", "show"]) == exit_codes.OK
    out = capsys.readouterr().out
    assert re.search(r"^worker.concurrency +9 +pgtasks.toml:2$", out, re.MULTILINE)
    assert re.search(
        r"^database.url +postgresql://me:\*\*\*@db/x +PGTASKS_DATABASE_URL$", out, re.MULTILINE
    )
    assert "sekret" not in out


def test_config_show_as_json_has_every_key(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "show", "--json"]) == exit_codes.OK
    listed = {one["key"]: one for one in json.loads(capsys.readouterr().out)}
    assert listed["task.lease"] == {
        "key": "task.lease", "value": "30s", "default": "30s", "origin": "default",
        "meaning": listed["task.lease"]["meaning"],
    }  # fmt: skip
    assert len(listed) > 25


def test_config_check_is_one_line_when_all_is_well(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "pgtasks.toml").write_text("[worker]\nconcurrency = 9\n")
    assert main(["config", "check"]) == exit_codes.OK
    assert capsys.readouterr().out == "the settings are right: pgtasks.toml sets 1\n"


def test_config_check_names_every_problem(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "pgtasks.toml").write_text('[worker]\nconcurency = 9\n[task]\nlease = "x"\n')
    assert main(["config", "check"]) == exit_codes.USAGE
    err = capsys.readouterr().err
    assert "pgtasks.toml:2: worker.concurency: unknown key" in err
    assert "pgtasks.toml:4: task.lease:" in err


def test_config_set_writes_one_setting(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "pgtasks.toml").write_text("# mine\n[worker]\nconcurrency = 9\n")
    assert main(["config", "set", "worker.concurrency", "50"]) == exit_codes.OK
    assert (project / "pgtasks.toml").read_text() == "# mine\n[worker]\nconcurrency = 50\n"
    assert capsys.readouterr().out == "wrote worker.concurrency to pgtasks.toml\n"


def test_config_set_says_when_something_stronger_wins(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PGTASKS__WORKER__CONCURRENCY", "3")
    assert main(["config", "set", "worker.concurrency", "50"]) == exit_codes.OK
    assert "PGTASKS__WORKER__CONCURRENCY is stronger" in capsys.readouterr().err


def test_config_set_refuses_what_is_no_setting(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["config", "set", "worker.concurency", "50"]) == exit_codes.USAGE
    assert 'did you mean "concurrency"?' in capsys.readouterr().err
    assert not (project / "pgtasks.toml").exists()


def test_db_sql_needs_no_database(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["db", "sql"]) == exit_codes.OK
    out = capsys.readouterr().out
    assert out.startswith("BEGIN;")
    assert "CREATE TABLE pgtasks.migration" in out
    assert out.endswith("COMMIT;\n")


# Arguments of defer


@pytest.mark.parametrize(
    ("words", "positional", "named"),
    [
        ((), [], {}),
        (('{"a": 1, "b": [2]}',), [], {"a": 1, "b": [2]}),
        (('[1, "x", null]',), [1, "x", None], {}),
        (("a=1", "b=x", "c=true", "d=", 'e={"f": 2}', "g=1=2"), [],
         {"a": 1, "b": "x", "c": True, "d": "", "e": {"f": 2}, "g": "1=2"}),
        (("text=NaN",), [], {"text": "NaN"}),
        (("größe=ü",), [], {"größe": "ü"}),
    ],
)  # fmt: skip
def test_words_of_the_command_line_as_arguments(
    words: tuple[str, ...], positional: list[object], named: dict[str, object]
) -> None:
    assert read_arguments(words) == (positional, named)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("5",), "neither KEY=VALUE"),
        (("a b=1",), "neither KEY=VALUE"),
        (("1a=1",), "neither KEY=VALUE"),
        (("a=1", "a=2"), "a is given twice"),
        (('{"a": 1, "a": 2}',), "a name is given twice"),
        (('{"a": NaN}',), "NaN is no JSON value"),
        (('{"a": 1',), "not JSON"),
        (('{"a": 1}', "b=2"), "neither KEY=VALUE"),
    ],
)
def test_words_that_are_no_arguments_are_refused(words: tuple[str, ...], said: str) -> None:
    with pytest.raises(ArgumentError, match=said):
        read_arguments(words)


def test_a_moment_has_a_zone() -> None:
    assert read_moment("2027-01-01T01:00+01:00") == NOW
    assert read_moment("2027-01-01T00:00:00Z") == NOW
    with pytest.raises(ArgumentError, match="has no zone"):
        read_moment("2027-01-01T00:00")
    with pytest.raises(ArgumentError, match="is no moment"):
        read_moment("tomorrow")


def test_delay_and_moment_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["defer", "x", "--delay", "5s", "--at", "2027-01-01T00:00Z"])
    assert code == exit_codes.USAGE
    assert "--delay and --at" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("42", (42, None)),
        (str(2**63 - 1), (2**63 - 1, None)),
        (str(2**63), (None, str(2**63))),
        ("01890A5D-AC96-774B-BCCE-B302099A8057", (None, "01890a5d-ac96-774b-bcce-b302099a8057")),
    ],
)
def test_a_message_is_named_by_its_number_or_its_id(
    text: str, known: tuple[int | None, str | None]
) -> None:
    assert read_id(text) == known


@pytest.mark.parametrize("text", ["", "-1", "4.2", "zz", "٣", str(2**64)])
def test_what_names_no_message_is_refused(text: str) -> None:
    with pytest.raises(ArgumentError, match="neither the number"):
        read_id(text)


# Errors


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> list[BaseException]:
    """A command line of one command, `fail`, that raises what is put here."""
    errors: list[BaseException] = []

    def app() -> App:
        made = App(name="pgtasks", suppress_keyboard_interrupt=False)

        @made.command
        async def fail() -> None:
            raise errors[0]

        return made

    monkeypatch.setattr(cli_app, "_app", app)
    return errors


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("x"), exit_codes.USAGE),
        (ArgumentError("x"), exit_codes.USAGE),
        (QueueNameError("x"), exit_codes.USAGE),
        (SchemaError("x"), exit_codes.FAILED),
        (DatabaseUnreachable("x"), exit_codes.FAILED),
        (PgtasksError("x"), exit_codes.FAILED),
        (ExceptionGroup("g", [ExceptionGroup("h", [ConfigError("x")])]), exit_codes.USAGE),
        (ExceptionGroup("g", [ConfigError("x"), SchemaError("x")]), exit_codes.FAILED),
    ],
)
def test_our_errors_are_text_and_an_exit_code(
    error: BaseException,
    code: int,
    failing: list[BaseException],
    capsys: pytest.CaptureFixture[str],
) -> None:
    failing.append(error)
    assert main(["fail"]) == code
    assert capsys.readouterr() == ("", "pgtasks: x\n")


@pytest.mark.parametrize(
    "error", [KeyError("x"), ExceptionGroup("g", [SchemaError("y"), OSError()])]
)
def test_a_mistake_of_ours_shows_where_and_asks_for_a_report(
    error: BaseException, failing: list[BaseException], capsys: pytest.CaptureFixture[str]
) -> None:
    failing.append(error)
    assert main(["fail"]) == exit_codes.FAILED
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.splitlines()[-1].endswith("please report it together with the lines above")


def test_ctrl_c_is_quiet(failing: list[BaseException], capsys: pytest.CaptureFixture[str]) -> None:
    failing.append(KeyboardInterrupt())
    assert main(["fail"]) == 130
    assert capsys.readouterr() == ("", "")


def test_ctrl_c_in_a_group_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(BaseExceptionGroup("g", [KeyboardInterrupt(), ValueError()])) == 130
    assert capsys.readouterr() == ("", "")


def test_an_error_text_cannot_steer_the_terminal(
    failing: list[BaseException], capsys: pytest.CaptureFixture[str]
) -> None:
    failing.append(PgtasksError("bad \x1b[31m\nnext"))
    main(["fail"])
    assert capsys.readouterr().err == "pgtasks: bad \\x1b[31m\nnext\n"


@pytest.mark.parametrize("command", [["db", "sql"], ["config", "check"]])
def test_a_reader_that_went_away_is_no_error(command: list[str]) -> None:
    """As in `pgtasks db sql | head -1`: no word, exit code 0; however short the output is."""
    reader, writer = os.pipe()
    os.close(reader)
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        [sys.executable, "-m", "pgtasks", *command],
        stdout=writer, stderr=subprocess.PIPE, timeout=60, check=False, env=buffered,
    )  # fmt: skip
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


def test_real_ctrl_c(project: Path) -> None:
    """A command that waits for a server that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://me@127.0.0.1:{silent.getsockname()[1]}/x"
        process = subprocess.Popen(
            [sys.executable, "-m", "pgtasks", "queue", "list", "--database-url", url],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        silent.settimeout(30)
        connection, _ = silent.accept()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
        connection.close()
    assert (process.returncode, out, err) == (130, b"", b"")


def test_an_unreachable_database_is_text_without_the_password() -> None:
    done = run("queue", "list", PGTASKS_DATABASE_URL="postgresql://me:sekret@127.0.0.1:1/x")
    assert done.returncode == exit_codes.FAILED
    assert done.stdout == ""
    assert done.stderr.startswith("pgtasks: cannot connect to postgresql://me:***@127.0.0.1:1/x")
    assert done.stderr.count("cannot connect") == 1
    assert "Traceback" not in done.stderr
    assert "sekret" not in done.stderr


def test_any_encoding_will_do() -> None:
    done = run("init", "größe", PYTHONIOENCODING="ascii")
    assert done.returncode == exit_codes.OK, done.stderr
    assert "wrote gr\\xf6\\xdfe/tasks.py" in done.stdout


# What is printed


def test_tables_are_aligned_and_harmless(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("A", "NUMBER", "TEXT"), [("x", 5, "a\nb"), ("longer", None, "\x1b]0;x\x07")])
    assert capsys.readouterr().out == (
        "A       NUMBER  TEXT\n"
        "x            5  a\\nb\n"
        "longer       -  \\x1b]0;x\\x07\n"
    )  # fmt: skip


def test_long_cells_are_cut_where_that_is_allowed(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("A", "B", "C"), [("x" * 60, 1, "y" * 200)], cut=True)
    [_, line] = capsys.readouterr().out.splitlines()
    assert line.startswith("x" * 45 + "...  1  yyy")
    assert len(line) == 100
    print_table(("A", "B"), [("x" * 60, "y" * 200)])
    assert "..." not in capsys.readouterr().out


def test_pairs_leave_out_what_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    print_pairs({"id": None, "reason": "", "count": 0, "longer": "x"})
    assert capsys.readouterr().out == "count   0\nlonger  x\n"


def test_json_is_ascii_with_moments(capsys: pytest.CaptureFixture[str]) -> None:
    print_json([{"at": NOW, "text": "ü\x1b"}])
    out = capsys.readouterr().out
    assert out.isascii()
    assert json.loads(out) == [{"at": "2027-01-01T00:00:00+00:00", "text": "ü\x1b"}]
    assert "\x1b" not in out


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0.0s"), (0.04, "0.0s"), (9.94, "9.9s"), (10, "10s"), (59.9, "59s"), (60, "1m"),
        (61, "1m 1s"), (3600, "1h"), (3601, "1h"), (7384, "2h 3m"), (86_400, "1d"),
        (90_000, "1d 1h"), (1e9, "11574d 1h"),
    ],
)  # fmt: skip
def test_spans(seconds: float, text: str) -> None:
    assert span(seconds) == text


def test_moments_are_told_from_the_servers_clock() -> None:
    assert when(NOW + timedelta(minutes=5), NOW) == "in 5m"
    assert when(NOW - timedelta(minutes=5), NOW) == "5m ago"
    assert when(datetime(9999, 12, 31, tzinfo=UTC), NOW) == "never"


def test_colours_are_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert painted("fail") == "fail"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert painted("fail") == "\x1b[31mfail\x1b[0m"
    monkeypatch.setenv("NO_COLOR", "1")
    assert painted("fail") == "fail"


def test_safe_text_keeps_its_lines() -> None:
    assert safe("a\n\tb\r\x9b") == "a\n\\tb\\r\\x9b"


def test_an_unknown_queue_names_the_nearest() -> None:
    assert "did you mean 'emails'?" in unknown_queue("email", ["default", "emails"])
    assert "did you mean" not in unknown_queue("zzz", ["default", "emails"])
    assert "nor any other" in unknown_queue("zzz", [])


# Rows


def row(**more: object) -> Any:
    """A row as the driver gives it: whatever can be asked by name."""
    id_ = "01890a5d-ac96-774b-bcce-b302099a8057"
    body = {"args": {"x": 1}, "metadata": {"id": id_, "worker_name": "t"}}
    return {
        "place": "queue", "msg_id": 1, "read_ct": 0, "enqueued_at": NOW, "last_read_at": None,
        "vt": NOW, "archived_at": None, "is_due": False, "outcome": None, "task": "t", "id": id_,
        "message": json.dumps(body), "headers": None,
    } | more  # fmt: skip


@pytest.mark.parametrize(
    ("is_due", "delivery", "headers", "state"),
    [
        (True, 0, None, "due"),
        (True, 3, None, "due"),
        (False, 0, None, "delayed"),
        (False, 1, None, "leased"),
        (False, 1, '{"pgtasks": {"failures": 1}}', "retrying"),
        (False, 2, '{"pgtasks": {"failures": 1}}', "leased"),
        (False, 3, '{"pgtasks": {"failures": 1, "snoozes": 1, "releases": 1}}', "retrying"),
        (False, 1, "[1]", "leased"),
    ],
)
def test_the_state_of_a_message(
    is_due: bool, delivery: int, headers: str | None, state: str
) -> None:
    known = waiting(row(is_due=is_due, read_ct=delivery, headers=headers))
    assert known["state"] == state


@pytest.mark.parametrize(
    ("body", "args"),
    [
        ('{"args": [1], "metadata": {}}', [1]),
        ('{"args": {"long": "xxx', '{"long": "xxx...'),
        (None, None),
        ("5", 5),
        ('{"args": ' + "[" * 3000 + "]" * 3000 + "}", None),
        ('{"args": [' + "9" * 5000 + "]}", None),
    ],
)
def test_the_arguments_in_a_listing(body: str | None, args: object) -> None:
    """Whatever is stored can be listed: cut, too deep or too long for Python, or not ours."""
    found = waiting(row(message=body))["args"]
    assert found == args if args is not None or body is None else found.startswith("[")


def test_an_archived_message_with_its_last_error() -> None:
    headers = {"pgtasks": {"attempts": 2, "errors": [{"error": "first"}, {"error": "last"}]}}
    known = ended(row(outcome="failed", headers=json.dumps(headers)))
    assert (known["attempts"], known["error"]) == (2, "last")
    for headers_text in (None, "5", '{"pgtasks": 5}', '{"pgtasks": {"errors": 5}}', '{"pgta'):
        assert ended(row(headers=headers_text))["error"] is None


def test_a_foreign_message_is_shown_as_it_is() -> None:
    known = known_of("q", row(message='{"job": 1}'))
    assert known["foreign"] == '{"job": 1}'
    assert known["task"] is None


def test_a_message_too_deep_for_python_is_shown_as_text() -> None:
    deep = "[" * 900 + "]" * 900
    body = f'{{"args": {deep}, "metadata": {{"id": 5, "worker_name": "t"}}}}'
    assert known_of("q", row(message=body))["args"] == deep
