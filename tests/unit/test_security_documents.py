"""What the pages on security promise is what the code does, and the tests they name are there."""

import re
from pathlib import Path

import pytest

from pgtasks import (
    codec,
    difference,
    logs,
    message,
    queue_name,
    roles,
    safe_text,
    schedule,
    settlement,
)
from pgtasks.fetcher import CALL_PAUSE_SECONDS

ROOT = Path(__file__).parent.parent.parent
SECURITY = (ROOT / "docs/SECURITY.md").read_text("utf-8")
THREATS = (ROOT / "docs/threat-model.md").read_text("utf-8")
ROLES = (ROOT / "docs/roles.md").read_text("utf-8")


def test_the_tests_that_the_threat_model_names_are_there():
    named = set(re.findall(r"`(test_\w+)`", THREATS))
    assert len(named) > 8
    assert named - {file.stem for file in (ROOT / "tests").rglob("test_*.py")} == set()


def test_the_limits_that_are_promised_are_those_of_the_code():
    limits = next(line for line in SECURITY.splitlines() if line.startswith("| limits |"))
    assert codec.MAX_BYTES == 1_000_000
    assert "arguments 1 MB" in limits
    assert f"{difference.MAX_DEPTH} levels deep" in limits
    assert f"numbers {difference.MAX_DIGITS:,} digits" in limits
    assert f"names of queues {queue_name.MAX_LENGTH}" in limits
    assert f"of tasks and schedules {schedule.LONGEST_NAME} characters" in limits
    assert f"of an error {settlement.MAX_ERROR_CHARS:,} characters" in limits
    assert f"of its traceback {settlement.MAX_TRACEBACK_CHARS:,} are kept" in limits
    assert message.MAX_ERRORS == 5
    assert "five of each message" in limits
    assert f"a field of the log {safe_text._LONGEST:,} characters" in limits
    assert logs._MAX_ITEMS >= 1
    assert 1 / CALL_PAUSE_SECONDS == 10
    assert "costs ten looks a second" in SECURITY


def test_the_roles_that_are_described_are_those_of_the_script():
    assert set(re.findall(r"^\| `shop_(\w+)` \|", ROLES, re.MULTILINE)) == set(roles.ROLES)
    script = roles.script("shop")
    for right in ("GRANT USAGE ON SCHEMA pgtasks, pgmq TO", "GRANT SELECT ON pgtasks.migration, "):
        assert right in script
        assert right in ROLES


@pytest.mark.parametrize("name", ["SECURITY.md", "threat-model.md", "roles.md"])
def test_links_between_the_pages_lead_somewhere(name: str):
    text = (ROOT / "docs" / name).read_text("utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert (ROOT / "docs" / target).exists(), target
