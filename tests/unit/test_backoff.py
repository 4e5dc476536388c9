"""Pauses before the database is tried again."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgtasks.backoff import Backoff


def test_pauses_grow_to_their_bound_and_are_drawn_anew():
    backoff = Backoff(longest_seconds=2.0)
    pauses = [backoff.next_seconds() for _ in range(40)]
    for place, pause in enumerate(pauses):
        bound = min(2.0, 0.1 * 2**place)
        assert bound / 10 <= pause <= bound
    assert len(set(pauses)) > 30


def test_it_starts_over_when_the_trouble_has_ended():
    backoff = Backoff(longest_seconds=60.0, first_seconds=0.5)
    for _ in range(20):
        backoff.next_seconds()
    backoff.reset()
    assert backoff.next_seconds() <= 0.5


@given(
    longest=st.floats(0.001, 3600),
    first=st.floats(0.001, 60),
    rounds=st.integers(0, 10**6),
)
def test_after_any_number_of_rounds_a_pause_is_within_its_bounds(
    longest: float, first: float, rounds: int
):
    backoff = Backoff(longest, first)
    backoff._rounds = rounds
    pause = backoff.next_seconds()
    bound = min(longest, first * 2 ** min(rounds, 32))
    assert math.isfinite(pause)
    assert bound / 10 <= pause <= bound <= longest


@pytest.mark.parametrize("longest", [0.01, 5.0])
def test_no_number_of_rounds_is_too_many(longest: float):
    backoff = Backoff(longest_seconds=longest)
    assert all(0 < backoff.next_seconds() <= longest for _ in range(5000))
