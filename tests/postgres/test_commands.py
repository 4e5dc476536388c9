"""The command line on a real database."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
import pytest
from eventually import eventually

from pgtasks import embedded, exit_codes, migrate
from pgtasks.cli import checks, main
from pgtasks.cli.finding import Patient

OLD_ID = "01890a5d-ac96-774b-bcce-b302099a8057"
FAILED = {
    "pgtasks": {
        "failures": 2, "attempts": 2, "outcome": "failed", "seconds": 0.5, "worker": "w:1",
        "errors": [
            {"attempt": 1, "at": "2027-01-01T00:00:00", "worker": "w:1", "error": "KeyError: 1",
             "traceback": "Traceback\n  line\nKeyError: 1"},
            {"attempt": 2, "at": "2027-01-01T00:00:01", "worker": "w:1",
             "error": "ValueError: \x1b[31mred", "traceback": "Traceback\nValueError: \x1b[31mred"},
        ],
    }
}  # fmt: skip
CLI = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def url(database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The database of this test is the configured one, and the folder is empty."""
    for name in os.environ:
        if name.startswith("PGTASKS") or name == "DATABASE_URL":
            monkeypatch.delenv(name)
    monkeypatch.setenv("PGTASKS_DATABASE_URL", database_url)
    monkeypatch.chdir(tmp_path)
    return database_url


def sql(url: str, *statements: str, values: tuple[object, ...] = ()) -> list[Any]:
    """Run statements, the last with values, and return what it answers."""

    async def execute() -> list[Any]:
        connection = await asyncpg.connect(url, timeout=10)
        try:
            for statement in statements[:-1]:
                await connection.execute(statement)
            return await connection.fetch(statements[-1], *values)
        finally:
            await connection.close()

    return asyncio.run(execute())


def put(  # noqa: PLR0917 - a row
    url: str, task: str | None = "t", vt: str = "now()", read_ct: int = 0,
    args: object = None, headers: object = None, *, id_: str = OLD_ID,
) -> int:  # fmt: skip
    """Put a row into queue `emails` and return its number."""
    body = "5" if task is None else json.dumps(
        {"metadata": {"id": id_, "worker_name": task}, "args": args})  # fmt: skip
    kept = None if headers is None else json.dumps(headers)
    [row] = sql(
        url,
        "SELECT pgtasks.create_queue('emails')",
        f"INSERT INTO pgmq.q_emails (vt, read_ct, message, headers) VALUES ({vt}, $1, $2, $3) "
        "RETURNING msg_id",
        values=(read_ct, body, kept),
    )
    return int(row[0])


def archive(url: str, message_id: int) -> None:
    sql(
        url,
        "INSERT INTO pgmq.a_emails (msg_id, read_ct, vt, message, headers) "
        "SELECT msg_id, read_ct, vt, message, headers FROM pgmq.q_emails WHERE msg_id = $1",
        values=(message_id,),
    )
    sql(url, "DELETE FROM pgmq.q_emails WHERE msg_id = $1", values=(message_id,))


def answer(capsys: CLI, *arguments: str) -> Any:
    """What a command prints as JSON."""
    assert main([*arguments, "--json"]) == exit_codes.OK
    return json.loads(capsys.readouterr().out)


@pytest.fixture
def stranger(url: str) -> Iterator[str]:
    """The address for a role without any right."""
    role = f"stranger_{uuid4().hex[:8]}"
    sql(url, f"CREATE ROLE {role} LOGIN")
    parts = urlsplit(url)
    yield urlunsplit(parts._replace(netloc=f"{role}@{parts.netloc.rpartition('@')[2]}"))
    sql(url, f"DROP OWNED BY {role}", f"DROP ROLE {role}")


@pytest.fixture
def read_only(url: str) -> Iterator[str]:
    """The address of the database, while it takes no writes."""
    name = urlsplit(url).path.lstrip("/")
    sql(url, f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    yield url
    sql(
        url,
        "SET default_transaction_read_only = off",
        f'ALTER DATABASE "{name}" RESET default_transaction_read_only',
    )


# db


def test_upgrade_installs_once(empty_database_url: str, capsys: CLI) -> None:
    place = ("--database-url", empty_database_url)
    assert main(["db", "check", *place]) == exit_codes.FAILED
    assert "pgtasks db upgrade" in capsys.readouterr().err
    assert main(["db", "upgrade", *place]) == exit_codes.OK
    assert capsys.readouterr().out.startswith("applied 0001 initial\n")
    assert main(["db", "upgrade", *place]) == exit_codes.OK
    newest = migrate.migrations()[-1].version
    assert capsys.readouterr().out == f"up to date (version {newest})\npgmq: our own\n"
    assert main(["db", "check", *place]) == exit_codes.OK
    assert capsys.readouterr().out == f"up to date (version {newest})\npgmq: our own\n"


def test_the_printed_sql_installs_what_check_wants(empty_database_url: str, capsys: CLI) -> None:
    main(["db", "sql"])
    script = capsys.readouterr().out
    sql(empty_database_url, script, "SELECT 1")
    assert main(["db", "check", "--database-url", empty_database_url]) == exit_codes.OK


def test_a_newer_schema_is_refused(url: str, capsys: CLI) -> None:
    sql(url, "INSERT INTO pgtasks.migration (version, name) VALUES (9999, 'later')")
    assert main(["db", "check"]) == exit_codes.FAILED
    assert "Upgrade the pgtasks package" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    [["queue", "list"], ["message", "list", "q"], ["defer", "t"], ["queue", "create", "q"]],
)
def test_a_database_without_schema_says_what_to_run(
    command: list[str], empty_database_url: str, capsys: CLI
) -> None:
    assert main([*command, "--database-url", empty_database_url]) == exit_codes.FAILED
    assert "Run `pgtasks db upgrade`" in capsys.readouterr().err


# defer


def test_defer_stores_a_message_for_a_task_it_never_imports(url: str, capsys: CLI) -> None:
    sql(url, "SELECT pgtasks.create_queue('default')")
    told = answer(capsys, "defer", "no.such.module.hello", "name=wörld", "times=2")
    [row] = sql(url, "SELECT *, vt <= clock_timestamp() AS is_due FROM pgmq.q_default")
    assert json.loads(row["message"]) == {
        "metadata": {"id": told["id"], "worker_name": "no.such.module.hello"},
        "args": {"name": "wörld", "times": 2},
    }
    assert (told["queue"], told["message_id"]) == ("default", row["msg_id"])
    assert row["is_due"]


def test_defer_later_and_elsewhere(url: str, capsys: CLI) -> None:
    sql(url, "SELECT pgtasks.create_queue('emails')")
    assert main(["defer", "t", "[1, 2]", "--queue", "emails", "--delay", "1h"]) == exit_codes.OK
    assert re.fullmatch(
        r"id +[0-9a-f-]{36}\nqueue +emails\nmessage_id +1\n", capsys.readouterr().out
    )
    main(["defer", "t", "--queue", "emails", "--at", "2099-01-01T00:00+01:00"])
    [first, second] = sql(
        url,
        "SELECT message, extract(epoch FROM vt - enqueued_at)::float8 AS delay, "
        "vt = '2098-12-31T23:00Z' AS at FROM pgmq.q_emails ORDER BY msg_id",
    )
    assert json.loads(first["message"])["args"] == [1, 2]
    assert first["delay"] == pytest.approx(3600, abs=5)
    assert second["at"]


def test_defer_refuses_a_queue_that_nobody_made(url: str, capsys: CLI) -> None:
    sql(url, "SELECT pgtasks.create_queue('emails')")
    assert main(["defer", "t", "--queue", "email"]) == exit_codes.FAILED
    err = capsys.readouterr().err
    assert "there is no queue 'email'; did you mean 'emails'?" in err
    assert "--create" in err
    assert main(["queue", "list", "--json"]) == exit_codes.OK
    assert [one["queue"] for one in json.loads(capsys.readouterr().out)] == ["emails"]


def test_defer_creates_a_queue_when_told_to(url: str) -> None:
    assert main(["defer", "t", "--queue", "new_one", "--create"]) == exit_codes.OK
    assert sql(url, "SELECT count(*) FROM pgmq.q_new_one")[0][0] == 1


# queue


def test_queues_with_what_is_in_them(url: str, capsys: CLI) -> None:
    put(url, vt="now() - interval '2 hours'")
    put(url, vt="now() + interval '1 hour'")
    put(url, vt="now() + interval '1 hour'", read_ct=1)
    archive(url, put(url))
    sql(url, "SELECT pgtasks.create_queue('default')")
    [default, emails] = answer(capsys, "queue", "list")
    assert default == {
        "queue": "default", "due": 0, "delayed": 0, "leased_or_retrying": 0, "archived": 0,
        "oldest_due_seconds": None, "differs": [],
    }  # fmt: skip
    assert emails["oldest_due_seconds"] == pytest.approx(7200, abs=30)
    assert list(emails.values())[1:5] == [1, 1, 1, 1]
    main(["queue", "list"])
    assert re.search(r"^emails +1 +1 +1 +1  2h$", capsys.readouterr().out, re.MULTILINE)


def test_queues_of_others_do_not_spoil_the_list(url: str, capsys: CLI) -> None:
    """A name that is none for us, and a queue whose tables somebody dropped."""
    sql(
        url,
        "INSERT INTO pgmq.meta VALUES ('Their-Queue', false, false)",
        "INSERT INTO pgmq.meta VALUES ('gone', false, false)",
    )
    listed = answer(capsys, "queue", "list")
    assert [(one["queue"], one["due"]) for one in listed] == [("Their-Queue", None), ("gone", None)]


def test_no_queue_at_all(capsys: CLI) -> None:
    assert answer(capsys, "queue", "list") == []
    main(["queue", "list"])
    assert "no queues yet" in capsys.readouterr().out


def test_create_says_whether_it_did(url: str, capsys: CLI) -> None:
    main(["queue", "create", "emails"])
    main(["queue", "create", "emails"])
    assert capsys.readouterr().out == "created emails\nemails exists already\n"
    assert main(["queue", "create", "E-mails"]) == exit_codes.USAGE


# message


def test_messages_with_their_states(url: str, capsys: CLI) -> None:
    put(url, "a.due", args={"x": 1})
    put(url, "a.delayed", vt="now() + interval '1 hour'")
    put(url, "a.leased", vt="now() + interval '2 hours'", read_ct=1)
    put(url, "a.retrying", "now() + interval '3 hours'", 1, None, {"pgtasks": {"failures": 1}})
    listed = answer(capsys, "message", "list", "emails")
    assert [(one["task"], one["state"]) for one in listed] == [
        ("a.due", "due"), ("a.delayed", "delayed"), ("a.leased", "leased"),
        ("a.retrying", "retrying"),
    ]  # fmt: skip
    assert (listed[0]["args"], listed[0]["id"]) == ({"x": 1}, OLD_ID)
    assert listed[3]["failures"] == 1
    main(["message", "list", "emails"])
    out = capsys.readouterr().out
    assert re.search(r'^ +1  due .* ago +a\.due +0  {"x": 1}$', out, re.MULTILINE)
    assert re.search(r"^ +4  retrying +in 2h 59m +a\.retrying +1  null$", out, re.MULTILINE)


def test_messages_of_one_task_and_no_more_than_asked_for(url: str, capsys: CLI) -> None:
    for task in ("a", "b", "b", "b"):
        put(url, task)
    listed = answer(capsys, "message", "list", "emails", "--task", "b", "--limit", "2")
    assert [one["message_id"] for one in listed] == [2, 3]
    assert main(["message", "list", "emails", "--limit", "0"]) == exit_codes.USAGE
    assert "--limit: 0 is too small" in capsys.readouterr().err


def test_archived_messages_by_outcome(url: str, capsys: CLI) -> None:
    archive(url, put(url, headers=FAILED))
    archive(url, put(url, headers={"pgtasks": {"outcome": "done", "attempts": 1}}))
    listed = answer(capsys, "message", "list", "emails", "--archived")
    assert [one["outcome"] for one in listed] == ["done", "failed"]
    [failed] = answer(capsys, "message", "list", "emails", "--outcome", "failed")
    assert (failed["attempts"], failed["error"]) == (2, "ValueError: \x1b[31mred")
    main(["message", "list", "emails", "--archived"])
    out = capsys.readouterr().out
    assert "ValueError: \\x1b[31mred" in out
    assert "\x1b" not in out


def test_what_a_message_says_cannot_steer_the_terminal(url: str, capsys: CLI) -> None:
    evil = "\x1b]0;title\x07\x9b2J\u202e"
    number = put(url, f"task{evil}", args={"key": evil}, headers=FAILED)
    for command in (["list", "emails"], ["show", "emails", str(number)]):
        assert main(["message", *command]) == exit_codes.OK
        out = capsys.readouterr().out
        assert not set(out) & set("\x1b\x07\x9b\u202e"), command
        assert "task\\x1b]0;title" in out


def test_rows_of_another_program_are_listed_too(url: str, capsys: CLI) -> None:
    put(url, None, vt="'-infinity'")
    put(url, vt="'infinity'")
    sql(url, "INSERT INTO pgmq.q_emails (vt, enqueued_at) VALUES ('20000-01-01', '0044-03-15 BC')")
    sql(url, "INSERT INTO pgmq.q_emails (vt) VALUES (now())")
    assert main(["message", "list", "emails"]) == exit_codes.OK
    out = capsys.readouterr().out
    assert re.search(r"^ +1  due .* ago +- +0  5$", out, re.MULTILINE)
    assert re.search(r"^ +2  delayed +never ", out, re.MULTILINE)
    assert re.search(r"^ +4  due .* null$", out, re.MULTILINE)
    for number, text in (("1", "not a message of pgtasks\n  5"), ("3", "NULL"), ("4", "NULL")):
        assert main(["message", "show", "emails", number]) == exit_codes.OK
        assert text in capsys.readouterr().out


def test_show_one_message_by_number_or_id(url: str, capsys: CLI) -> None:
    number = put(url, "a.b", args={"x": [1]}, read_ct=3, headers=FAILED)
    assert main(["message", "show", "emails", str(number)]) == exit_codes.OK
    out = capsys.readouterr().out
    for expected in (
        f"message     {number} in queue emails\n", f"id          {OLD_ID}\n", "task        a.b\n",
        "deliveries  3\n", "failures    2\n", '"x": [\n', "attempt 1, 2027-01-01T00:00:00, w:1\n",
        "  Traceback\n    line\n  KeyError: 1\n",
    ):  # fmt: skip
        assert expected in out
    by_id = answer(capsys, "message", "show", "emails", OLD_ID.upper())
    assert (by_id["message_id"], by_id["args"], by_id["state"]) == (number, {"x": [1]}, "due")
    assert [error["attempt"] for error in by_id["errors"]] == [1, 2]


def test_show_an_archived_message(url: str, capsys: CLI) -> None:
    number = put(url, headers=FAILED)
    archive(url, number)
    main(["message", "show", "emails", str(number)])
    out = capsys.readouterr().out
    assert "archived as failed" in out
    assert "last run    took 0.5 s" in out
    known = answer(capsys, "message", "show", "emails", str(number))
    assert (known["state"], known["outcome"], known["attempts"]) == ("archived", "failed", 2)


def test_a_message_that_is_not_there(url: str, capsys: CLI) -> None:
    put(url)
    assert main(["message", "show", "emails", "99"]) == exit_codes.FAILED
    assert "there is no message 99 in queue emails" in capsys.readouterr().err
    assert main(["message", "list", "email"]) == exit_codes.FAILED
    assert "did you mean 'emails'?" in capsys.readouterr().err
    assert main(["message", "list", "E-mail"]) == exit_codes.USAGE


# Rights


def test_a_role_without_rights_hears_what_it_may_not(stranger: str, capsys: CLI) -> None:
    for command in (["queue", "list"], ["defer", "t", "--create"], ["db", "check"]):
        assert main([*command, "--database-url", stranger]) == exit_codes.FAILED
        err = capsys.readouterr().err
        assert "permission denied for schema pgtasks" in err, command
        assert "GRANT" in err
        assert "Traceback" not in err


def test_a_role_with_few_rights_hears_which_is_missing(
    url: str, stranger: str, capsys: CLI
) -> None:
    put(url)
    grant_looking(url, stranger)
    assert main(["queue", "list", "--database-url", stranger]) == exit_codes.FAILED
    err = capsys.readouterr().err
    assert err.startswith("pgtasks: this role may not do that: permission denied for table")
    assert "Give it rights" in err


def grant_looking(url: str, stranger: str) -> None:
    """Let a role see the schema and the names of the queues, and nothing in them."""
    role = urlsplit(stranger).username
    sql(
        url,
        f"GRANT USAGE ON SCHEMA pgtasks, pgmq TO {role}",
        f"GRANT SELECT ON ALL TABLES IN SCHEMA pgtasks TO {role}",
        f"GRANT SELECT ON pgmq.meta TO {role}",
    )


# doctor


def diagnosis(capsys: CLI, *arguments: str) -> dict[str, list[tuple[str, str]]]:
    """By check: the levels and texts that doctor gives, in order."""
    main(["doctor", "--json", *arguments])
    found: dict[str, list[tuple[str, str]]] = {}
    for finding in json.loads(capsys.readouterr().out):
        assert set(finding) == {"check", "level", "text", "next_step"}
        if finding["level"] != "ok":
            assert finding["next_step"], finding
        found.setdefault(finding["check"], []).append((finding["level"], finding["text"]))
    return found


def test_doctor_finds_nothing_wrong(url: str, capsys: CLI) -> None:
    put(url)
    assert main(["doctor"]) == exit_codes.OK
    out = capsys.readouterr().out
    assert not re.findall(r"^fail", out, re.MULTILINE)
    for check in ("settings", "connection", "server", "writable", "clock", "role", "schema",
                  "listen", "queues"):  # fmt: skip
        assert re.search(rf"^ok    {check} ", out, re.MULTILINE), check
    assert re.search(r"^ok    queues      emails: 1 due", out, re.MULTILINE)
    assert re.search(r"^warn  tasks       no modules named", out, re.MULTILINE)
    assert not re.search(r"^\w+ +unknown ", out, re.MULTILINE)


def test_doctor_without_schema(empty_database_url: str, capsys: CLI) -> None:
    assert main(["doctor", "--database-url", empty_database_url]) == exit_codes.FAILED
    out = capsys.readouterr().out
    assert re.search(r"^fail  schema .*\n +> Run `pgtasks db upgrade`", out, re.MULTILINE)
    assert "queues" not in out


def test_doctor_without_server(capsys: CLI) -> None:
    place = "postgresql://me:sekret@127.0.0.1:1/x"
    found = diagnosis(capsys, "--database-url", place)
    assert found["connection"][0][0] == "fail"
    assert [level for level, _ in found["settings"]] == ["ok", "warn"]
    assert "--database-url" in found["settings"][1][1]
    assert "sekret" not in str(found)


def test_doctor_with_wrong_settings(monkeypatch: pytest.MonkeyPatch, capsys: CLI) -> None:
    monkeypatch.setenv("PGTASKS__WORKER__PROCESSES", "two")
    assert main(["doctor"]) == exit_codes.FAILED
    assert 'PGTASKS__WORKER__PROCESSES: "two"' in capsys.readouterr().out


def test_doctor_warns_of_messages_that_nobody_runs(url: str, capsys: CLI) -> None:
    put(url, vt="now() - interval '2 hours'")
    [(level, text)] = diagnosis(capsys)["queues"]
    assert level == "warn"
    assert "emails: 1 due (the oldest for 2h)" in text


def test_doctor_warns_of_queues_it_cannot_read(url: str, capsys: CLI) -> None:
    sql(url, "INSERT INTO pgmq.meta VALUES ('Their-Queue', false, false)")
    [(level, text)] = diagnosis(capsys)["queues"]
    assert (level, text[:12]) == ("warn", "Their-Queue:")


def test_doctor_finds_a_database_that_takes_no_writes(read_only: str, capsys: CLI) -> None:
    assert main(["doctor", "--database-url", read_only]) == exit_codes.FAILED
    out = capsys.readouterr().out
    assert re.search(r"^fail  writable +transactions are read-only", out, re.MULTILINE)


def test_doctor_as_a_role_without_rights(stranger: str, capsys: CLI) -> None:
    found = diagnosis(capsys, "--database-url", stranger)
    assert found["schema"][0][0] == "fail"
    assert "permission denied" in found["schema"][0][1]
    assert "queues" not in found


def test_doctor_as_a_role_that_may_not_read_a_queue(url: str, stranger: str, capsys: CLI) -> None:
    """It may connect and read the schema: then the queues fail, and nothing is said of tasks."""
    put(url)
    grant_looking(url, stranger)
    found = diagnosis(capsys, "--database-url", stranger)
    assert found["role"][0][0] == "ok"
    assert found["queues"] == [("fail", found["queues"][0][1])]
    assert "unknown" not in found


def test_doctor_hears_when_notify_does_not_arrive(
    monkeypatch: pytest.MonkeyPatch, capsys: CLI
) -> None:
    monkeypatch.setattr(checks, "CHANNEL", "another")
    monkeypatch.setattr(checks, "LISTEN_SECONDS", 0.2)
    [(level, text)] = diagnosis(capsys)["listen"]
    assert level == "warn"
    assert "did not arrive within 0.2 s" in text


@pytest.mark.parametrize("variable", ["DATABASE__PGBOUNCER", "WORKER__QUEUE_FETCH__NOTIFY"])
def test_doctor_does_not_try_what_is_off(
    variable: str, monkeypatch: pytest.MonkeyPatch, capsys: CLI
) -> None:
    value = "true" if variable == "DATABASE__PGBOUNCER" else "false"
    monkeypatch.setenv(f"PGTASKS__{variable}", value)
    [(level, text)] = diagnosis(capsys)["listen"]
    assert (level, text[:8]) == ("ok", "not used")


def patient(**facts: object) -> Patient:
    return Patient(None, facts, clock_difference=-9.0, round_trip=0.1)  # type: ignore[arg-type]


def test_doctor_refuses_an_old_server_and_a_standby() -> None:
    """Neither can be had here: these checks look at what the server said of itself."""
    for check, at in (
        (checks.server_version, patient(version="13.1", version_number=130001)),
        (checks.writable, patient(is_standby=True, is_read_only=True)),
        (checks.role, patient(role="r", database="d", may_create=False, is_installed=False)),
    ):
        [finding] = asyncio.run(check(at))
        assert finding.level == "fail"
    [finding] = asyncio.run(checks.clocks(patient()))
    assert (finding.level, finding.text) == ("warn", finding.text)
    assert "9.00 s" in finding.text


def test_with_nothing_configured_the_embedded_server_is_used_and_installed(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: CLI
) -> None:
    """Its start is tested elsewhere; here a server that runs already stands in for it."""
    monkeypatch.delenv("PGTASKS_DATABASE_URL")
    started: list[Path] = []

    def start(project_folder: Path) -> embedded.Server:
        started.append(project_folder)
        return embedded.Server(empty_database_url, "18.6", Path("/data"), Path("/bin"), None)

    monkeypatch.setattr(embedded, "start", start)
    found = diagnosis(capsys)
    assert started == [tmp_path]
    assert found["connection"][0][1].startswith("embedded Postgres 18.6")
    assert "data in /data" in found["connection"][0][1]
    assert found["schema"][0][0] == "ok"
    assert answer(capsys, "queue", "list") == []


MODULE = """
import pathlib
import pgtasks
print("imported")

@pgtasks.task(name="shop.hello", aliases=["shop.hi"])
def hello(file: str) -> None:
    pathlib.Path(file).write_text("hello")
"""


def process(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """A real process: it may import what it likes."""
    return subprocess.run(
        [sys.executable, "-m", "pgtasks", *arguments],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_doctor_names_the_tasks_that_nobody_knows(url: str, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(MODULE)
    for task in ("shop.hello", "shop.hi", "shop.helo", "shop.helo", None):
        put(url, task)
    done = process("doctor", "--json", "shop")
    assert done.returncode == exit_codes.OK
    found = json.loads(done.stdout)
    assert {"check": "tasks", "level": "ok", "text": "1 task in shop", "next_step": None} in found
    unknown = [finding for finding in found if finding["check"] == "unknown"]
    said = [re.sub(r"since \d\.\ds", "since now", finding["text"]) for finding in unknown]
    assert said == [
        "queue emails: 2 messages (the oldest since now) of the task 'shop.helo', not registered",
        "queue emails: 1 message (the oldest since now) of another program, with no task's name",
    ]
    assert "shop.hello" in unknown[0]["next_step"]


def test_doctor_names_the_module_that_does_not_import(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text("import pgtasks\nraise RuntimeError('broken')\n")
    done = process("doctor", "shop")
    assert done.returncode == exit_codes.FAILED
    assert re.search(r"^fail  tasks .*'shop' does not import", done.stdout, re.MULTILINE)
    assert "RuntimeError: broken" in done.stdout


# From the command line to a worker and back


def test_what_is_deferred_here_a_worker_runs(url: str, tmp_path: Path, capsys: CLI) -> None:
    (tmp_path / "shop.py").write_text(MODULE)
    file = tmp_path / "said"
    assert main(["defer", "shop.hello", f"file={file}", "--create"]) == exit_codes.OK
    worker = subprocess.Popen(
        [sys.executable, "-m", "pgtasks", "worker", "shop", "--grace", "5s"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        eventually(lambda: _assert_said(file), within_seconds=30)
        worker.send_signal(signal.SIGTERM)
        worker.communicate(timeout=30)
    finally:
        worker.kill()
        worker.communicate()
    assert worker.returncode == exit_codes.OK
    capsys.readouterr()
    assert answer(capsys, "queue", "list")[0]["due"] == 0


def _assert_said(file: Path) -> None:
    assert file.exists()
    assert file.read_text() == "hello"


def test_a_worker_whose_module_is_not_there(capsys: CLI) -> None:
    done = process("worker", "no_such_module")
    assert done.returncode == exit_codes.FAILED
    assert "no module named 'no_such_module'" in done.stderr
    assert "Traceback" not in done.stderr
