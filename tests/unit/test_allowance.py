"""What is asked for in vain is done so many times in a row, and then one a pause."""

import pytest

from pgtasks import allowance
from pgtasks.allowance import Allowance


class Clock:
    """A monotonic clock that is set by hand."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(allowance, "monotonic", made)
    return made


def test_so_many_at_once_and_then_one_a_pause(clock: Clock):
    calls = Allowance(3, 0.125)
    for _ in range(3):
        assert calls.next_at() == 0.0
        calls.spend()
    assert calls.next_at() == 1000.125
    clock.now = 1000.125
    assert calls.next_at() == 0.0
    calls.spend()
    assert calls.next_at() == 1000.25


def test_a_success_gives_all_of_them_back(clock: Clock):
    calls = Allowance(2, 0.125)
    for _ in range(50):
        calls.spend()
    assert calls.next_at() > 1005
    calls.restore()
    for _ in range(2):
        assert calls.next_at() == 0.0
        calls.spend()
    assert calls.next_at() == 1000.125


def test_rest_gives_them_back_one_by_one_and_no_more_than_there_were(clock: Clock):
    calls = Allowance(3, 0.125)
    for _ in range(3):
        calls.spend()
    clock.now = 5000.0
    for _ in range(3):
        assert calls.next_at() == 0.0
        calls.spend()
    assert calls.next_at() == 5000.125


def test_however_often_it_is_asked_the_rate_is_the_same(clock: Clock):
    calls, done = Allowance(10, 0.1), 0
    for _ in range(100_000):  # ten seconds, ten thousand a second
        if calls.next_at() == 0.0:
            calls.spend()
            done += 1
        clock.now += 0.0001
    assert 100 <= done <= 110
