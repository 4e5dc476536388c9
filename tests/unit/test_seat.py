"""The places of a supervisor's children: since when one has been without a ready child."""

from types import SimpleNamespace
from typing import Any

import pytest

from pgtasks.pulse import Pulses
from pgtasks.supervisor import _Seat


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, to be set by the test."""
    now = [1000.0]
    monkeypatch.setattr("pgtasks.supervisor.monotonic", lambda: now[0])
    return now


def child(*, is_ready: bool = False, is_database: bool = False) -> Any:
    return SimpleNamespace(
        process=SimpleNamespace(pid=7),
        board=SimpleNamespace(pulses=Pulses()),
        is_ready=is_ready,
        is_database=is_database,
    )


def test_a_child_that_never_gets_ready_leaves_its_place_as_it_was(clock: list[float]):
    """Start after start that fails is one that takes too long."""
    seat = _Seat(0, vacant_since=clock[0])
    for _ in range(3):
        seat.child = failing = child()
        clock[0] += 10
        seat.leave(failing)
    assert (seat.health().pid, seat.health().is_ready) == (None, False)
    assert seat.health().vacant_seconds == 30
    seat.child = child()
    assert (seat.health().pid, seat.health().vacant_seconds) == (7, 30)


def test_a_child_that_worked_gives_the_next_one_all_its_time(clock: list[float]):
    seat = _Seat(0, vacant_since=clock[0])
    seat.child = working = child(is_ready=True)
    clock[0] += 9999
    assert seat.health().is_ready
    seat.leave(working)
    clock[0] += 2
    assert seat.health().vacant_seconds == 2


def test_a_child_that_the_database_kept_from_starting_is_not_late(clock: list[float]):
    """To start the worker anew would mend nothing."""
    seat = _Seat(0, vacant_since=clock[0])
    seat.child = refused = child(is_database=True)
    clock[0] += 9999
    seat.leave(refused)
    assert seat.health().vacant_seconds == 0
