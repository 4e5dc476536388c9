"""How far back a claim has to look."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from pgtasks import watermark
from pgtasks.store import BEGINNING
from pgtasks.watermark import FULL_LOOK_SECONDS, LAG_SECONDS, LONGEST_WITHOUT_SECONDS, Watermark

START = datetime(2027, 1, 1, tzinfo=UTC)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Set the local monotonic clock."""
    now = [1000.0]
    monkeypatch.setattr(watermark, "monotonic", lambda: now[0])

    def set_to(seconds: float) -> None:
        now[0] = 1000.0 + seconds

    return set_to


def made() -> Watermark:
    return Watermark(moved_at=1000.0)  # its default is bound to the real clock


def due(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def test_the_first_look_is_a_full_one(clock: Callable[[float], None]):
    mark = made()
    assert mark.since() == BEGINNING
    assert mark.since() == BEGINNING  # nothing was claimed: there is no mark yet


def test_the_mark_follows_the_claims(clock: Callable[[float], None]):
    mark = made()
    mark.since()
    seen = []
    for step in range(20):
        clock(step * LAG_SECONDS / 4)
        mark.passed(due(step))
        mark.since()
        seen.append(mark.since())
    moved = [one for one in seen if one != BEGINNING]
    assert moved == sorted(moved)
    assert len(set(moved)) >= 3
    assert due(20) - moved[-1] <= timedelta(seconds=10)


def test_the_mark_never_passes_what_was_claimed(clock: Callable[[float], None]):
    mark = made()
    for step in range(40):
        clock(step * LAG_SECONDS / 3)
        mark.passed(due(-step))
        assert mark.since() <= due(0)


def test_the_mark_lags_behind_the_claims(clock: Callable[[float], None]):
    mark = made()
    mark.since()
    claims = []
    for step in range(40):
        seconds = step * LAG_SECONDS / 4
        clock(seconds)
        mark.passed(due(seconds))
        claims.append(seconds)
        mark.since()
        old = [one for one in claims if one <= seconds - LAG_SECONDS]
        assert mark.since() <= (due(max(old)) if old else BEGINNING)


def test_a_full_look_comes_every_two_seconds(clock: Callable[[float], None]):
    mark = made()
    mark.since()
    for step in range(3):
        clock(step * LAG_SECONDS)
        mark.passed(due(5))
    assert mark.since() == due(5)
    clock(FULL_LOOK_SECONDS - 0.01)
    assert mark.since() == due(5)
    clock(FULL_LOOK_SECONDS)
    assert mark.since() == BEGINNING
    assert mark.since() == due(5)


def test_a_full_look_can_be_asked_for(clock: Callable[[float], None]):
    mark = made()
    mark.since()
    clock(LAG_SECONDS)
    mark.passed(due(5))
    mark.hurry()
    assert mark.since() == BEGINNING


def with_a_mark(clock: Callable[[float], None]) -> Watermark:
    """One that has looked fully, a moment ago."""
    mark = made()
    for step in range(3):
        clock(step * LAG_SECONDS)
        mark.passed(due(5))
    clock(0)
    mark.since()
    return mark


def test_full_looks_are_rarer_where_they_take_long(clock: Callable[[float], None]):
    """Even when they are asked for: they must not take up the time of claims."""
    mark = with_a_mark(clock)
    mark.looked_fully(0.2)
    clock(3.9)
    assert mark.hurry() == pytest.approx(1004)
    assert mark.since() == due(5)
    clock(4)
    assert mark.since() == BEGINNING


def test_a_full_look_comes_in_the_end_however_long_they_take(clock: Callable[[float], None]):
    mark = with_a_mark(clock)
    mark.looked_fully(1000)
    clock(LONGEST_WITHOUT_SECONDS - 0.1)
    assert mark.since() == due(5)
    clock(LONGEST_WITHOUT_SECONDS)
    assert mark.since() == BEGINNING
