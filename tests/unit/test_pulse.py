"""By when the parts of a process are heard of again, and who can read it."""

import math
import os
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgtasks.board import ROWS, Board
from pgtasks.lease import Lease
from pgtasks.message import Message
from pgtasks.pulse import MOST_PARTS, Part, Pulse, Pulses


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, to be set by the test."""
    now = [1000.0]
    monkeypatch.setattr("pgtasks.pulse.monotonic", lambda: now[0])
    return now


def late(pulses: Pulses) -> list[float]:
    return [reading.late_seconds for reading in pulses.read()]


def test_a_part_is_late_when_its_promise_is_broken(clock: list[float]):
    pulses = Pulses()
    pulse = pulses.of("claiming")
    assert late(pulses) == [0.0]
    pulse.promise(5.0)
    clock[0] += 3
    assert late(pulses) == [-2.0]
    clock[0] += 4
    assert late(pulses) == [2.0]
    pulse.promise(0.5)
    assert late(pulses) == [-0.5]


def test_a_part_that_waits_for_what_may_never_come_is_never_late(clock: list[float]):
    pulses = Pulses()
    pulses.of("settling").rest()
    clock[0] += 1e9
    assert late(pulses) == [-math.inf]


def test_a_failing_database_is_counted_from_the_first_failure_in_a_row(clock: list[float]):
    pulses = Pulses()
    pulse = pulses.of("claiming")

    def failing() -> float | None:
        [reading] = pulses.read()
        return reading.failing_seconds

    assert failing() is None
    for _ in range(3):
        pulse.failed()
        clock[0] += 2
    assert failing() == 6.0
    pulse.answered()
    assert failing() is None
    pulse.failed()
    assert failing() == 0.0


def test_a_part_that_ended_as_it_should_is_neither_late_nor_failing(clock: list[float]):
    pulses = Pulses()
    pulse = pulses.of("firing")
    pulse.failed()
    pulse.end()
    pulse.end()
    clock[0] += 100
    [reading] = pulses.read()
    assert (reading.part, reading.is_over, reading.failing_seconds) == ("firing", True, None)
    assert reading.late_seconds == -math.inf


def test_a_pulse_that_nobody_reads_may_be_used_all_the_same():
    pulse = Pulse()
    pulse.promise(1)
    pulse.failed()
    pulse.answered()
    pulse.rest()
    pulse.end()


def test_beyond_the_most_parts_pulses_are_left_out():
    pulses = Pulses()
    for _ in range(MOST_PARTS + 3):
        pulses.of("claiming").promise(1)
    assert len(pulses.read()) == MOST_PARTS


@given(st.lists(st.sampled_from(["loop", "claiming", "settling", "extending", "firing"])))
def test_each_part_has_a_pulse_of_its_own(parts: list[Part]):
    pulses = Pulses()
    own = [pulses.of(part) for part in parts]
    for number, pulse in enumerate(own):
        pulse.promise(1000.0 * (number + 1))
    readings = pulses.read()
    assert [reading.part for reading in readings] == parts
    assert [round(-reading.late_seconds / 1000) for reading in readings] == [
        number + 1 for number in range(len(parts))
    ]


def test_pulses_and_leases_on_a_board_leave_each_other_alone():
    board = Board.create()
    board.name_queues(["q" * 47] * 10)
    beats = [board.pulses.of("claiming") for _ in range(MOST_PARTS)]
    at = Message("q" * 47, 2**62, 2**30, 0.0, None, None, 0.0)
    for _ in range(ROWS):
        board.add(Lease(at, 30.0))
    for beat in beats:
        beat.promise(-7)
        beat.failed()
    assert len(board.entries()) == ROWS
    assert {entry.message_id for entry in board.entries()} == {2**62}
    assert all(7 <= reading.late_seconds < 60 for reading in board.pulses.read())
    board.close()


BEATING = """
import sys, time
from pgtasks.board import Board
board = Board.attach(int(sys.argv[1]))
loop = board.pulses.of("loop")
while True:
    loop.promise(0.05)
    time.sleep(0.01)
"""


def test_the_pulses_of_another_process_tell_by_one_clock_and_outlive_it():
    board = Board.create()
    os.set_inheritable(board.fd, True)
    beating = subprocess.Popen([sys.executable, "-c", BEATING, str(board.fd)], pass_fds=[board.fd])
    try:
        deadline = time.monotonic() + 30
        while not board.pulses.read():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert -0.06 < board.pulses.read()[0].late_seconds < 10
    finally:
        beating.kill()
        beating.wait()
    before = board.pulses.read()[0].late_seconds
    time.sleep(0.1)
    assert board.pulses.read()[0].late_seconds >= before + 0.1
    board.close()
