"""docs/coming-from-roadster.md leaves nothing out, and names nothing that is not there."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from pgtasks import DuplicateScheduleError, Registry, Schedule, task
from pgtasks.cli.app import _app
from pgtasks.config import TaskConfig
from pgtasks.config_reference import fields

TESTS = Path(__file__).parent.parent
TEXT = (TESTS.parent / "docs" / "coming-from-roadster.md").read_text("utf-8")

KEYS = """
enqueue-config.queue enqueue-config.*
worker-config.timeout worker-config.max-duration worker-config.max-retries worker-config.delay
worker-config.delay-offset worker-config.max-delay worker-config.backoff-strategy
worker-config.pg.success-action worker-config.pg.failure-action worker-config.*
worker-config.sidekiq.disable-argument-coercion
pg.enable pg.num-workers pg.balance-strategy pg.queues pg.queue-config.<name>.num-workers
pg.queue-fetch-config.empty-delay pg.queue-fetch-config.error-delay
pg.periodic.enable pg.periodic.stale-cleanup pg.install.enable
pg.database.uri pg.database.connect-lazy pg.database.acquire-timeout pg.database.idle-timeout
pg.database.max-lifetime pg.database.min-connections pg.database.max-connections
pg.database.test-on-checkout pg.database.connect-timeout pg.database.retry-connection
pg.database.enable-statement-logging pg.database.statement-log-level
pg.database.slow-statement-log-level pg.database.slow-statement-duration-threshold
pg.database.temporary-test-db pg.database.temporary-test-db-clean-up
health-check.worker-pg.enable health-check.max-duration.startup health-check.max-duration.api
health-check.max-duration.cli app.shutdown-on-error
"""
"""Every setting of Roadster's Postgres worker."""

BEHAVIOURS = [
    "Worker",
    "Enqueue",
    "Message",
    "Registration",
    "Start",
    "Run",
    "Loop",
    "Retry",
    "Periodic",
    "Stop",
    "Command line",
    "Benchmark",
]


def section(head: str) -> str:
    """What stands below a heading, up to the next of the same level."""
    _, _, rest = TEXT.partition(f"\n## {head}\n")
    assert rest, head
    return rest.partition("\n## ")[0]


def rows(head: str) -> list[list[str]]:
    """The cells of the tables in a section, without their heads."""
    lines = [line for line in section(head).splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in cells if row[0] not in ("Roadster", "#") and set(row[0]) != {"-"}]


TABLES = {"Settings": 4, "Behaviours": 3, "Known problems": 4}
"""How many columns each has; the last one names tests."""
ROWS = [(head, row) for head in TABLES for row in rows(head)]


@cache
def functions(file: Path) -> frozenset[str]:
    """The test functions of a file."""
    nodes = ast.parse(file.read_text("utf-8")).body
    return frozenset(
        node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )


def commands(text: str) -> Iterator[list[str]]:
    """The words of each `pgtasks ...` in a text, up to the first that is no command's."""
    for words in re.findall(r"`pgtasks ((?:[a-z-]+ ?)+)[^`]*`", text):
        yield words.split()


def test_every_setting_of_theirs_has_a_row() -> None:
    named = [row[0].strip("`") for row in rows("Settings")]
    assert [key for key in KEYS.split() if named.count(key) != 1] == []


def test_every_behaviour_of_theirs_has_rows() -> None:
    heads = [row[0].strip("*") for row in rows("Behaviours") if row[0].startswith("**")]
    assert heads == BEHAVIOURS


def test_every_known_problem_has_a_row() -> None:
    assert [row[0] for row in rows("Known problems")] == [str(n) for n in range(1, 26)]


@pytest.mark.parametrize(("head", "row"), ROWS, ids=lambda x: x if isinstance(x, str) else x[0])
def test_every_row_says_what_is_so_and_which_test_shows_it(head: str, row: list[str]) -> None:
    assert len(row) == TABLES[head], row
    if row[0].startswith("**"):
        return
    assert row[1], "what is ours?"
    if row[1] == "–":
        assert len(row[2]) > 20, "why not?"
    named = re.findall(r"`(\w+/test_\w+\.py)::(test_\w+)`", row[-1])
    assert named, "which test shows it?"
    for file, name in named:
        assert (TESTS / file).is_file(), file
        assert name in functions(TESTS / file), f"{file} has no {name}"


def test_every_key_of_ours_exists() -> None:
    known = {field.key for field in fields()}
    pattern = r"`((?:database|worker|task|log)\.[a-z<][a-z<>.-]*)(?: = [^`]*)?`"
    named = [key for key in re.findall(pattern, TEXT) if not key.endswith(".defer")]
    assert len(named) > 20
    assert sorted(set(named) - known) == []


def test_every_command_exists() -> None:
    found = 0
    for words in commands(TEXT):
        app = _app()
        assert words[0] in app, words
        if app[words[0]].default_command is None and len(words) > 1:
            assert words[1] in app[words[0]], words
        found += 1
    assert found > 10


def test_the_defaults_are_those_of_roadster() -> None:
    """What nobody has set is run as it was; but the pauses begin at one delay, not at two."""
    ours = TaskConfig()
    assert ours.retries == 25
    assert ours.timeout is not None
    assert ours.timeout.total_seconds() == 60
    assert ours.delay.total_seconds() == 1
    assert ours.max_delay.total_seconds() == 86_400
    assert ours.backoff == "exponential"
    assert (ours.on_success, ours.on_failure) == ("delete", "archive")


def test_a_schedules_name_is_its_own() -> None:
    registry = Registry()
    hourly = Schedule("hourly", every="1h")

    @task(name="one", schedules=[hourly], registry=registry)
    def one() -> None: ...

    def two() -> None: ...

    with pytest.raises(DuplicateScheduleError, match="'hourly'"):
        task(name="two", schedules=[hourly], registry=registry)(two)
