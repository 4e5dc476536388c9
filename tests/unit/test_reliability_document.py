"""What the page on reliability names is there, and its figures are of all faults."""

import re
from pathlib import Path

from chaos.catalogue import FAULTS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/reliability.md").read_text("utf-8")
TABLE = PAGE.partition("<!-- figures")[2].partition("<!-- end of figures")[0]


def test_the_tests_that_are_named_are_there() -> None:
    named = set(re.findall(r"`(test_\w+\.py)`", PAGE))
    assert len(named) > 10
    assert named - {file.name for file in (ROOT / "tests").rglob("test_*.py")} == set()


def test_every_line_of_what_was_done_names_a_test() -> None:
    lines = PAGE.partition("## What was done")[2].partition("## What is not promised")[0]
    rows = [line for line in lines.splitlines() if line.startswith("| ") and "|---" not in line]
    assert len(rows) > 40
    assert [row for row in rows if not re.search(r"`test_\w+\.py`|\| test \|", row)] == []


def test_every_fault_has_its_figures() -> None:
    measured = {line.split(" | ")[0].removeprefix("| ") for line in TABLE.splitlines()}
    assert {fault.name for fault in FAULTS.values()} - measured == set()


def test_every_promise_of_the_figures_was_kept() -> None:
    """Accepted, lost, stale settlements, double effects: a table with losses is not published."""
    rows = [line.strip("| ").split(" | ") for line in TABLE.splitlines() if line.startswith("| ")]
    cases = [row for row in rows if row[1].isdigit()]
    assert len(cases) > len(FAULTS)
    assert {tuple(row[3:6]) for row in cases} == {("0", "0", "0")}
