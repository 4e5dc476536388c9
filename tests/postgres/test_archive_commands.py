"""`pgtasks archive`: looking at what has ended, putting it back, pruning it."""

import asyncio
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import attrs
import pytest
from postgres.rows import Rows, seconds
from postgres.working import working

from pgtasks import Client, Config, Context, Registry, exit_codes, task
from pgtasks.cli import main
from pgtasks.config import DatabaseConfig
from pgtasks.connection import open_connection
from pgtasks.filter import Filter
from pgtasks.message import _COUNTS, State, new_id
from pgtasks.redrive import Redrive
from pgtasks.store import Store

Q = "emails"
OLD_ID = "01890a5d-ac96-774b-bcce-b302099a8057"
ERRORS = [{"attempt": 2, "at": "2027-01-01T00:00:01", "worker": "w", "error": "ValueError: Slow"}]
FAILED = {
    **{name: 1 for name in _COUNTS if name != "redrives"}, "outcome": "failed",
    "attempts": 2, "seconds": 0.5, "worker": "w", "errors": ERRORS, "options": {"retries": 7},
    "schedule": {"name": "s"}, "traceparent": "00-1",
}  # fmt: skip
DONE = {"outcome": "done", "attempts": 1, "seconds": 0.1, "worker": "w"}
CLI = pytest.CaptureFixture[str]


@attrs.define
class Archive:
    """The archive of queue `emails`, with statements of one connection each."""

    url: str
    numbers: int = 0

    def sql(self, *statements: str, values: tuple[object, ...] = ()) -> list[Any]:
        """Run statements, the last with values, and return what it answers."""

        async def execute() -> list[Any]:
            connection = await asyncpg.connect(self.url, timeout=10)
            try:
                for statement in statements[:-1]:
                    await connection.execute(statement)
                return await connection.fetch(statements[-1], *values)
            finally:
                await connection.close()

        return asyncio.run(execute())

    def put(
        self,
        state: object = None,
        *,
        task: str | None = "t",
        ago: str = "0",
        id_: str | None = None,
    ) -> int:
        """Put a message there that ended so long ago."""
        self.numbers += 1
        body = None if task is None else json.dumps(
            {"metadata": {"id": id_ or str(new_id()), "worker_name": task}, "args": {"x": 1}}
        )  # fmt: skip
        headers = None if state is None else json.dumps({"pgtasks": state, "x-pgmq-group": "g"})
        self.sql(
            "INSERT INTO pgmq.a_emails "
            "(msg_id, read_ct, enqueued_at, archived_at, vt, message, headers) VALUES "
            "($1, 9, '2027-01-01', clock_timestamp() - $2::text::interval, now(), $3, $4)",
            values=(self.numbers, ago, body, headers),
        )
        return self.numbers

    def left(self) -> list[int]:
        """The numbers of what is there."""
        return [row[0] for row in self.sql("SELECT msg_id FROM pgmq.a_emails ORDER BY 1")]

    def queued(self) -> list[dict[str, Any]]:
        """What is in the queue."""
        found = self.sql(
            "SELECT *, extract(epoch FROM vt - clock_timestamp())::float8 AS due_in, "
            "enqueued_at = '2027-01-01' AS is_old FROM pgmq.q_emails ORDER BY msg_id"
        )
        return [dict(row) for row in found]


@pytest.fixture(autouse=True)
def archive(database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Archive:
    """The database of this test is the configured one, and has a queue."""
    for name in os.environ:
        if name.startswith("PGTASKS") or name == "DATABASE_URL":
            monkeypatch.delenv(name)
    monkeypatch.setenv("PGTASKS_DATABASE_URL", database_url)
    monkeypatch.chdir(tmp_path)
    made = Archive(database_url)
    made.sql("SELECT pgtasks.create_queue('emails')")
    # The messages that ended have had numbers of this queue.
    made.sql("SELECT setval('pgmq.q_emails_msg_id_seq', 1000)")
    return made


def run(capsys: CLI, *arguments: str) -> str:
    """What a command prints."""
    assert main(["archive", *arguments]) == exit_codes.OK, capsys.readouterr().err
    return capsys.readouterr().out


def answer(capsys: CLI, *arguments: str) -> Any:
    """What a command prints as JSON."""
    return json.loads(run(capsys, *arguments, "--json"))


def refusal(capsys: CLI, *arguments: str, code: int = exit_codes.USAGE) -> str:
    """What a command says when it fails."""
    assert main(["archive", *arguments]) == code
    return capsys.readouterr().err


# Looking


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ([], [4, 3, 2, 1]),
        (["--outcome", "failed"], [2, 1]),
        (["--outcome", "DONE"], [3]),
        (["--outcome", "none"], [4]),
        (["--task", "b"], [2]),
        (["--since", "90m"], [4, 3]),
        (["--before", "90m"], [2, 1]),
        (["--since", "150m", "--before", "90m"], [2]),
        (["--error", "slow"], [2, 1]),
        (["--error", "no such"], []),
        (["--error", "disk"], []),
        (["--limit", "2"], [4, 3]),
    ],
)
def test_what_has_ended_is_listed_by_filter(
    archive: Archive, capsys: CLI, filters: list[str], expected: list[int]
) -> None:
    archive.put(FAILED, ago="3h")
    archive.put(FAILED, ago="2h", task="b")
    archive.put(DONE, ago="1h")
    archive.put(None, task=None)
    assert [one["message_id"] for one in answer(capsys, "list", Q, *filters)] == expected


def test_the_reason_of_what_was_never_run_is_an_error_too(archive: Archive, capsys: CLI) -> None:
    number = archive.put({"outcome": "undecodable", "reason": "no such argument: 'x'"})
    archive.put(FAILED)
    [one] = answer(capsys, "list", Q, "--error", "SUCH argument")
    assert (one["message_id"], one["error"]) == (number, "no such argument: 'x'")
    out = run(capsys, "list", Q, "--outcome", "undecodable")
    assert re.search(r"^ +1  undecodable .* no such argument: 'x'$", out, re.MULTILINE)


def test_an_empty_archive_says_so(capsys: CLI) -> None:
    assert "no such message in the archive of queue emails" in run(capsys, "list", Q)
    assert answer(capsys, "list", Q) == []
    assert "did you mean 'emails'?" in refusal(capsys, "list", "email", code=exit_codes.FAILED)


def test_show_is_for_what_has_ended(archive: Archive, capsys: CLI) -> None:
    number = archive.put(FAILED, id_=OLD_ID)
    assert "archived as failed" in run(capsys, "show", Q, str(number))
    known = answer(capsys, "show", Q, OLD_ID)
    assert (known["message_id"], known["outcome"], known["redrives"]) == (number, "failed", 0)
    run(capsys, "retry", Q, OLD_ID)
    assert "has not ended yet" in refusal(capsys, "show", Q, OLD_ID, code=exit_codes.FAILED)
    assert "not archived" in refusal(capsys, "show", Q, "77", code=exit_codes.FAILED)


# Putting back


def test_a_message_comes_back_as_a_new_one(archive: Archive, capsys: CLI) -> None:
    """Nothing is counted against it; what it is, and what became of it last time, stays."""
    number = archive.put(FAILED, id_=OLD_ID)
    told = answer(capsys, "retry", Q, str(number))
    [row] = archive.queued()
    assert told["moved"] == [{"was": number, "message_id": row["msg_id"]}]
    assert told["kinds"] == [{"task": "t", "outcome": "failed", "messages": 1}]
    assert row["msg_id"] == 1001
    assert (row["read_ct"], row["last_read_at"], row["is_old"]) == (0, None, True)
    assert -60 < row["due_in"] <= 0
    assert json.loads(row["message"])["metadata"] == {"id": OLD_ID, "worker_name": "t"}
    assert json.loads(row["headers"]) == {
        "pgtasks": {
            "redrives": 1, "errors": ERRORS, "options": {"retries": 7}, "schedule": {"name": "s"},
            "traceparent": "00-1",
        },
        "x-pgmq-group": "g",
    }  # fmt: skip
    assert archive.left() == []


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (None, {"pgtasks": {"redrives": 1}}),
        ("5", {"pgtasks": {"redrives": 1}, "foreign": 5}),
        ('["pgtasks"]', {"pgtasks": {"redrives": 1}, "foreign": ["pgtasks"]}),
        ('{"pgtasks": [1], "a": 2}', {"pgtasks": {"redrives": 1}, "a": 2}),
        ('{"pgtasks": {"redrives": 4}}', {"pgtasks": {"redrives": 5}}),
        ('{"pgtasks": {"redrives": "x"}}', {"pgtasks": {"redrives": 1}}),
    ],
)
def test_messages_of_other_programs_come_back_too(
    archive: Archive, capsys: CLI, headers: str | None, expected: object
) -> None:
    number = archive.put(None, task=None)
    archive.sql(
        "UPDATE pgmq.a_emails SET headers = $1, archived_at = 'infinity'", values=(headers,)
    )
    run(capsys, "retry", Q, str(number))
    [row] = archive.queued()
    assert (json.loads(row["headers"]), row["message"]) == (expected, None)


@pytest.mark.parametrize(
    ("arguments", "moved"),
    [
        (["--all"], [1, 2, 3, 5]),
        (["--all", "--outcome", "done"], [4]),
        (["--outcome", "done", "--task", "t"], [4]),
        (["--outcome", "failed"], [1, 2]),
        (["--outcome", "none"], [5]),
        (["--task", "b"], [2]),
        (["--error", "slow"], [1, 2]),
        (["--before", "150m"], [1]),
        (["--since", "90m"], [5]),
        (["--all", "--limit", "2"], [1, 2]),
        (["2", "3"], [2, 3]),
        (["2", "3", "--outcome", "discarded", "--limit", "1"], [3]),
    ],
)
@pytest.mark.parametrize("dry", [True, False])
def test_what_is_meant_is_put_back_and_a_dry_run_says_the_same(
    archive: Archive, capsys: CLI, arguments: list[str], moved: list[int], dry: bool
) -> None:
    archive.put(FAILED, ago="3h")
    archive.put(FAILED, ago="2h", task="b")
    archive.put({"outcome": "discarded"}, ago="2h")
    archive.put(DONE, ago="1h")
    archive.put(None, task=None)
    before = archive.sql("SELECT * FROM pgmq.a_emails ORDER BY 1")
    options = [*arguments, *(["--dry-run"] if dry else [])]
    if moved == [3]:  # one of the two that were named is not discarded
        assert "not put back: 2:" in refusal(capsys, "retry", Q, *options, code=exit_codes.FAILED)
    else:
        told = answer(capsys, "retry", Q, *options)
        assert (told["messages"], told["dry_run"]) == (len(moved), dry)
        assert [one["was"] for one in told["moved"]] == ([] if dry else moved)
    if dry:
        assert archive.sql("SELECT * FROM pgmq.a_emails ORDER BY 1") == before
        assert archive.queued() == []
    else:
        assert archive.left() == sorted({1, 2, 3, 4, 5} - set(moved))
        assert len(archive.queued()) == len(moved)


def test_the_first_that_ended_are_the_first_to_come_back(archive: Archive, capsys: CLI) -> None:
    for ago in ("1h", "3h", "2h"):
        archive.put(FAILED, ago=ago, task=ago)
    told = answer(capsys, "retry", Q, "--all", "--delay", "5m")
    back = archive.queued()
    assert told["moved"] == [
        {"was": was, "message_id": row["msg_id"]} for was, row in zip((2, 3, 1), back, strict=True)
    ]
    assert [json.loads(row["message"])["metadata"]["worker_name"] for row in back] == [
        "3h", "2h", "1h",
    ]  # fmt: skip
    assert all(240 < row["due_in"] <= 300 for row in back)


def test_what_is_printed_for_people(archive: Archive, capsys: CLI) -> None:
    for _ in range(3):
        archive.put(FAILED)
    archive.put(FAILED, task="evil\x1b[2J")
    out = run(capsys, "retry", Q, "--outcome", "failed", "--dry-run", "--limit", "4")
    assert out.startswith("would put back 4 messages of queue emails\n")
    assert re.search(r"^t +failed +3$", out, re.MULTILINE)
    assert "evil\\x1b[2J" in out
    assert "as many as --limit allows" in out
    out = run(capsys, "retry", Q, "2")
    assert out.startswith("put back 1 message of queue emails\n")
    assert out.endswith("message 2 is message 1001 now\n")
    assert "put back 0 messages" in run(capsys, "retry", Q, "--task", "unknown")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "this would put back all that failed in this queue"),
        (["--outcome", "done"], "this would put back all that is done in this queue"),
        (["--dry-run"], "--all"),
        (["--error", ""], "--error: an empty text"),
        (["x1"], "'x1' is neither the number of a message nor its id"),
        (["--task", "t", "--limit", "0"], "--limit: 0 is too small"),
        (["--task", "t", "--delay", "soon"], '--delay: "soon" is not a duration'),
    ],
)
def test_a_retry_of_everything_has_to_be_said(
    archive: Archive, capsys: CLI, arguments: list[str], says: str
) -> None:
    archive.put(FAILED)
    archive.put(DONE)
    assert says in refusal(capsys, "retry", Q, *arguments)
    assert archive.left() == [1, 2]


def test_named_messages_that_are_not_there_are_named(archive: Archive, capsys: CLI) -> None:
    """The others are put back all the same."""
    archive.put(FAILED)
    archive.put(DONE)
    said = refusal(capsys, "retry", Q, "1", "2", "99", OLD_ID, code=exit_codes.FAILED)
    assert f"not put back: 2, 99, {OLD_ID}: not in the archive of queue emails" in said
    assert archive.left() == [2]


def test_more_than_a_batch_is_put_back_in_batches(archive: Archive, capsys: CLI) -> None:
    """Among many that are not meant, each once."""
    archive.sql(
        "INSERT INTO pgmq.a_emails (msg_id, vt, archived_at, message, headers) SELECT n, now(), "
        "now() - n % 50 * interval '1 s', jsonb_build_object('metadata', jsonb_build_object("
        "'id', n::text, 'worker_name', CASE WHEN n % 2 = 0 THEN 'even' ELSE 'odd' END)), "
        'CASE WHEN n > 6000 THEN \'{"pgtasks":{"outcome":"done"}}\'::jsonb END '
        "FROM generate_series(1, 9000) AS n"
    )
    told = answer(capsys, "retry", Q, "--task", "even", "--dry-run")
    assert told["messages"] == sum(kind["messages"] for kind in told["kinds"]) == 3000
    told = answer(capsys, "retry", Q, "--task", "even")
    assert told["messages"] == sum(kind["messages"] for kind in told["kinds"]) == 3000
    assert sorted(one["was"] for one in told["moved"]) == list(range(2, 6001, 2))
    kept = archive.sql("SELECT count(DISTINCT message #>> '{metadata,id}') FROM pgmq.q_emails")
    assert kept[0][0] == 3000
    assert len(archive.left()) == 6000


async def test_two_who_put_back_at_once_move_each_message_once(
    archive: Archive, database: DatabaseConfig
):
    connections = [await open_connection(database, "tests") for _ in range(4)]
    await connections[0].execute(
        "INSERT INTO pgmq.a_emails (msg_id, vt, message) SELECT n, now(), to_jsonb(n) "
        "FROM generate_series(1, 4000) AS n"
    )

    async def put_back(store: Store) -> list[int]:
        redrive = Redrive(Q, Filter(outcome="none"), store)
        moved = [
            await redrive.put_back(found, seconds(0), notify=False)
            async for found in redrive.find(10_000)
        ]
        return [was for some in moved for was in some]

    moved = await asyncio.gather(*(put_back(Store(on)) for on in connections))
    assert sorted(was for some in moved for was in some) == list(range(1, 4001))
    kept = await connections[0].fetch("SELECT message::text::int FROM pgmq.q_emails")
    assert sorted(row[0] for row in kept) == list(range(1, 4001))
    for connection in connections:
        await connection.close()


# ... and running it again


async def test_what_was_put_back_runs_again_at_once(
    config: Config, client: Client, registry: Registry, rows: Rows
):
    """The worker would look by itself in 30 seconds only: it is told."""
    broken, attempts = [True], list[int]()

    @task(name="work", registry=registry, retries=1, on_success="archive")
    async def work(context: Context) -> None:
        attempts.append(context.attempt)
        if broken:
            raise ValueError("broken")

    async with working(config, registry):
        handle = await work.options(retries=2).defer()
        ended = await rows.outcome(handle.message_id)
        assert (ended["outcome"], ended["failures"], attempts) == ("failed", 3, [1, 2, 3])
        broken.clear()
        redrive = Redrive("default", Filter(outcome="failed"), Store(rows.connection))
        [moved] = [
            await redrive.put_back(found, seconds(0), notify=True)
            async for found in redrive.find(10)
        ]
        ended = await rows.outcome(moved[handle.message_id])
    assert attempts == [1, 2, 3, 1]
    assert (ended["outcome"], ended["attempts"], ended["redrives"]) == ("done", 1, 1)
    assert ended["options"] == {"retries": 2}
    assert len(ended["errors"]) == 3
    assert "failures" not in ended


async def test_what_fails_again_meanwhile_is_not_put_back_twice(
    config: Config, client: Client, registry: Registry, rows: Rows, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("pgtasks.redrive.BATCH", 2)
    runs = list[int]()

    @task(name="work", registry=registry, retries=0)
    async def work(number: int) -> None:
        runs.append(number)
        raise ValueError(number)

    async with working(config, registry):
        handles = await work.defer_many([(number,) for number in range(5)])
        for handle in handles:
            await rows.outcome(handle.message_id)
        redrive = Redrive("default", Filter(task="work"), Store(rows.connection))
        moved = 0
        async for found in redrive.find(100):
            for number in (await redrive.put_back(found, seconds(0), notify=True)).values():
                await rows.outcome(number)  # it has failed again, and is archived behind us
                moved += 1
    assert (moved, sorted(runs)) == (5, sorted([*range(5), *range(5)]))


def test_the_count_of_redrives_is_part_of_what_is_remembered() -> None:
    assert State(redrives=2).as_dict() == {"redrives": 2}
    assert State(redrives=2).ended == 0


# Pruning


def test_prune_goes_by_the_settings_of_the_queue(archive: Archive, capsys: CLI) -> None:
    Path("pgtasks.toml").write_text(
        "[worker.retention]\nenable = false\nfailed-for = '3d'\n"
        "[worker.queue-config.emails]\ndone-count = 1\n"
    )
    archive.put(DONE, ago="1h")
    archive.put(DONE, ago="2h")
    archive.put(FAILED, ago="4d")
    archive.put(None, ago="2d")
    told = {"queue": Q, "dry_run": True, "done": 1, "failed": 1}
    assert answer(capsys, "prune", Q, "--dry-run") == told
    assert archive.left() == [1, 2, 3, 4]
    assert run(capsys, "prune", Q) == "deleted 1 done and 1 failed messages of queue emails\n"
    assert archive.left() == [1, 4]


def test_prune_goes_by_what_it_is_told(archive: Archive, capsys: CLI) -> None:
    for ago in ("1h", "30d", "400d"):
        archive.put(DONE, ago=ago)
        archive.put(FAILED, ago=ago)
    limits = ["--done-for", "none", "--done-count", "2", "--failed-for", "365d"]
    out = run(capsys, "prune", Q, *limits, "--dry-run")
    assert out == "would delete 1 done and 1 failed messages of queue emails\n"
    assert answer(capsys, "prune", Q, *limits)["done"] == 1
    assert archive.left() == [1, 2, 3, 4]
    run(capsys, "prune", Q, "--done-count", "0", "--failed-for", "0s")
    assert archive.left() == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["prune", Q, "--done-for", "1 fortnight"], "--done-for:"),
        (["prune", Q, "--failed-count", "many"], '--failed-count: "many" is not a whole number'),
        (["prune", "E-mails"], "cannot be the name of a queue"),
        (["prune", Q, "--done-fro", "1d"], "Did you mean --done-for?"),
    ],
)
def test_prune_refuses_wrong_limits(
    archive: Archive, capsys: CLI, arguments: list[str], says: str
) -> None:
    archive.put(DONE, ago="400d")
    assert says in refusal(capsys, *arguments)
    assert archive.left() == [1]


@pytest.fixture
def held(archive: Archive) -> Iterator[None]:
    """Somebody prunes the archive, and is slow at it."""
    loop = asyncio.new_event_loop()
    connection = loop.run_until_complete(asyncpg.connect(archive.url))
    lock = "SELECT pg_advisory_xact_lock(hashtextextended('pgtasks prune emails', 0))"
    loop.run_until_complete(connection.execute("BEGIN"))
    loop.run_until_complete(connection.execute(lock))
    yield
    loop.run_until_complete(connection.close())
    loop.close()


@pytest.mark.usefixtures("held")
def test_prune_says_when_somebody_else_is_at_it(archive: Archive, capsys: CLI) -> None:
    archive.put(DONE, ago="400d")
    assert "somebody else prunes" in refusal(capsys, "prune", Q, code=exit_codes.FAILED)
    assert archive.left() == [1]


def test_a_dry_run_needs_no_right_to_delete(archive: Archive, capsys: CLI) -> None:
    archive.put(DONE, ago="400d")
    name = archive.sql("SELECT current_database()")[0][0]
    archive.sql(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    try:
        assert answer(capsys, "prune", Q, "--dry-run")["done"] == 1
        assert (
            answer(capsys, "retry", Q, "--all", "--outcome", "done", "--dry-run")["messages"] == 1
        )
        assert "read-only" in refusal(capsys, "prune", Q, code=exit_codes.FAILED)
    finally:
        archive.sql(
            "SET default_transaction_read_only = off",
            f'ALTER DATABASE "{name}" RESET default_transaction_read_only',
        )
