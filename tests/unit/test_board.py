"""Which leases a process holds, readable after it died."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from pgtasks.board import ROWS, Board, Entry
from pgtasks.lease import Lease
from pgtasks.message import Held, Message

STORED = 1_795_000_000.123456
QUEUES = ("emails", "x" * 47, "z")


@pytest.fixture
def board() -> Iterator[Board]:
    made = Board.create()
    made.name_queues(QUEUES)
    yield made
    made.close()


def lease(message_id: int, queue: str = "emails", delivery: int = 1) -> Lease:
    return Lease(Message(queue, message_id, delivery, STORED, None, None, 0.0), 30.0)


def test_an_empty_board_tells_nothing():
    board = Board.create()
    assert board.entries() == []
    board.close()


def test_a_lease_is_written_down_until_it_is_crossed_out(board: Board):
    one, other = lease(1), lease(2**53 + 1, "x" * 47, 2**31 - 1)
    board.add(one)
    board.add(other)
    board.mark_running(other)
    assert sorted(board.entries(), key=lambda entry: entry.message_id) == [
        Entry("emails", Held(1, STORED), 1, is_running=False),
        Entry("x" * 47, Held(2**53 + 1, STORED), 2**31 - 1, is_running=True),
    ]
    board.mark_ended(other)
    board.remove(one)
    assert board.entries() == [
        Entry("x" * 47, Held(2**53 + 1, STORED), 2**31 - 1, is_running=False)
    ]
    board.remove(other)
    assert board.entries() == []


def test_crossing_out_twice_frees_one_place(board: Board):
    one = lease(1)
    board.add(one)
    board.remove(one)
    board.remove(one)
    board.mark_running(one)
    assert board.entries() == []
    first, second = lease(2), lease(3)
    board.add(first)
    board.add(second)
    assert {entry.message_id for entry in board.entries()} == {2, 3}


def test_a_full_board_leaves_the_rest_out(board: Board):
    leases = [lease(number) for number in range(ROWS + 3)]
    for one in leases:
        board.add(one)
    assert len(board.entries()) == ROWS
    for one in leases[ROWS:]:
        board.mark_running(one)
        board.remove(one)
    assert not any(entry.is_running for entry in board.entries())
    board.remove(leases[0])
    again = lease(10**9)
    board.add(again)
    assert 10**9 in {entry.message_id for entry in board.entries()}


def test_ten_thousand_queues_have_names():
    board = Board.create()
    queues = [f"queue_{number:040}" for number in range(10_000)]
    board.name_queues(queues)
    board.add(lease(5, queues[-1]))
    assert board.entries() == [Entry(queues[-1], Held(5, STORED), 1, is_running=False)]
    board.close()


DYING = """
import os, signal, sys
from datetime import UTC, datetime
from pgtasks.board import Board
from pgtasks.lease import Lease
from pgtasks.message import Message
board = Board.attach(int(sys.argv[1]))
board.name_queues(["a", "b"])
for number, queue in ((1, "a"), (2, "b"), (3, "b")):
    lease = Lease(Message(queue, number, number, 1.5, None, None, 0.0), 30.0)
    board.add(lease)
    if number == 2:
        board.mark_running(lease)
    if number == 3:
        board.remove(lease)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_board_outlives_the_process_that_wrote_it():
    board = Board.create()
    os.set_inheritable(board.fd, True)
    ended = subprocess.run(
        [sys.executable, "-c", DYING, str(board.fd)], pass_fds=[board.fd], check=False, timeout=30
    )
    assert ended.returncode == -signal.SIGKILL
    assert sorted(board.entries(), key=lambda entry: entry.message_id) == [
        Entry("a", Held(1, 1.5), 1, is_running=False),
        Entry("b", Held(2, 1.5), 2, is_running=True),
    ]
    board.close()
