"""Slots, the queues they are shared by, and whose turn it is."""

from collections import Counter
from typing import Any

import pytest

from pgtasks.pool import Pool


def test_priority_always_begins_with_the_first():
    order = Pool(1, ("a", "b", "c"), "priority").order()
    assert [tuple(order()) for _ in range(3)] == [("a", "b", "c")] * 3


def test_round_robin_begins_one_further_each_time():
    order = Pool(1, ("a", "b", "c")).order()
    seen = [tuple(order()) for _ in range(4)]
    assert seen == [("a", "b", "c"), ("b", "c", "a"), ("c", "a", "b"), ("a", "b", "c")]


def test_two_pools_rotate_apart():
    pool = Pool(1, ("a", "b"))
    one, other = pool.order(), pool.order()
    one()
    assert tuple(other()) == ("a", "b")


def test_weights_say_how_often_a_queue_is_first():
    order = Pool(1, ("a", "b", "c"), "weighted", {"a": 8, "b": 1}).order()
    turns = [tuple(order()) for _ in range(5000)]
    assert all(sorted(turn) == ["a", "b", "c"] for turn in turns)
    first = Counter(turn[0] for turn in turns)
    # 8 : 1 : 1; the bounds are ten standard deviations away.
    assert 0.74 < first["a"] / 5000 < 0.86
    assert 0.05 < first["b"] / 5000 < 0.15
    second = Counter(turn[1] for turn in turns if turn[0] == "a")
    assert 0.4 < second["b"] / sum(second.values()) < 0.6


@pytest.mark.parametrize("strategy", ["round-robin", "priority", "weighted"])
def test_a_single_queue_is_always_there(strategy: Any):
    order = Pool(1, ("a",), strategy).order()
    assert [tuple(order()) for _ in range(3)] == [("a",)] * 3
