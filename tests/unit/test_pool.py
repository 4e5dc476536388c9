"""Slots, the queues they are shared by, and whose turn it is."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgtasks.pool import Pool, Turns

FOR_EVER = 10**9
QUEUES = ("a", "b", "c", "d")


def turn(turns: Turns, waiting: dict[str, int], room: int = 1) -> list[str]:
    """What a scheduler does: offer the room to those that ask; return whose messages it took."""
    took: list[str] = []
    asking = turns.order([queue for queue, count in waiting.items() if count])
    while asking and room > 0:
        queue = asking.pop(0)
        limit = turns.share(queue, asking, room)
        assert 0 < limit <= room
        count = min(limit, waiting[queue])
        waiting[queue] -= count
        turns.took(queue, count)
        room -= count
        took += [queue] * count
    return took


def taken(pool: Pool, waiting: Mapping[str, int], rooms: Iterable[int]) -> list[str]:
    turns, left = pool.turns(), dict(waiting)
    return [queue for room in rooms for queue in turn(turns, left, room)]


# Priority


def test_priority_takes_everything_of_the_first_before_the_second():
    pool = Pool(1, ("b", "a", "c"), "priority")
    took = taken(pool, {"a": 3, "b": 2, "c": FOR_EVER}, [2] * 4)
    assert took == ["b", "b", "a", "a", "a", "c", "c", "c"]


def test_priority_goes_back_to_the_first_as_soon_as_it_asks():
    turns = Pool(1, ("a", "b"), "priority").turns()
    waiting = {"a": 0, "b": FOR_EVER}
    assert turn(turns, waiting, 5) == ["b"] * 5
    waiting["a"] = 2
    assert turn(turns, waiting, 5) == ["a", "a", "b", "b", "b"]


# Round-robin


@pytest.mark.parametrize("room", [1, 2, 3, 7, 100])
def test_full_queues_get_the_same_whatever_the_room(room: int):
    took = Counter(taken(Pool(1, ("a", "b", "c")), dict.fromkeys("abc", FOR_EVER), [room] * 300))
    assert max(took.values()) - min(took.values()) <= room
    assert took.total() == 300 * room


def test_an_idle_queue_passes_its_turn_to_each_of_the_others_alike():
    """Not always to the one behind it."""
    took = Counter(taken(Pool(1, ("a", "idle", "b")), {"a": FOR_EVER, "b": FOR_EVER}, [1] * 100))
    assert took == {"a": 50, "b": 50}


def test_one_busy_queue_has_all_the_room():
    assert taken(Pool(1, QUEUES), {"c": FOR_EVER}, [20, 20]) == ["c"] * 40


def test_what_a_short_queue_leaves_goes_to_those_behind_it():
    turns = Pool(1, ("a", "b", "c")).turns()
    took = Counter(turn(turns, {"a": 1, "b": FOR_EVER, "c": FOR_EVER}, 21))
    assert took == {"a": 1, "b": 10, "c": 10}


def test_an_idle_queue_saves_up_no_turns():
    """What it did not want it cannot have later: then the others would wait for it."""
    turns = Pool(1, ("a", "b")).turns()
    waiting = {"a": FOR_EVER, "b": 0}
    for _ in range(1000):
        turn(turns, waiting)
    waiting["b"] = FOR_EVER
    assert Counter(queue for _ in range(100) for queue in turn(turns, waiting))["a"] == 50


def test_a_queue_that_asks_and_has_nothing_saves_up_no_turns():
    """It is asked whenever somebody says that there is something, or others hold its messages."""
    turns = Pool(1, ("a", "b")).turns()
    for _ in range(1000):
        assert turns.order(["a", "b"])
        turns.took("b", 0)
        turns.took("a", 1)
    waiting = dict.fromkeys("ab", FOR_EVER)
    assert Counter(queue for _ in range(100) for queue in turn(turns, waiting))["a"] >= 49


# Weighted


@pytest.mark.parametrize("room", [1, 4, 50])
def test_full_queues_get_their_weight(room: int):
    pool = Pool(1, ("a", "b", "c"), "weighted", {"a": 8, "b": 3})
    took = Counter(taken(pool, dict.fromkeys("abc", FOR_EVER), [room] * 1200))
    for queue, weight in {"a": 8, "b": 3, "c": 1}.items():
        assert took[queue] == pytest.approx(1200 * room * weight / 12, abs=room)


def test_weights_count_only_among_those_that_ask():
    pool = Pool(1, ("a", "b", "c"), "weighted", {"a": 100, "b": 3})
    took = Counter(taken(pool, {"b": FOR_EVER, "c": FOR_EVER}, [1] * 400))
    assert took == {"b": 300, "c": 100}


def test_other_strategies_know_no_weights():
    took = Counter(taken(Pool(1, ("a", "b"), weights={"a": 9}), {"a": 99, "b": 99}, [1] * 60))
    assert took == {"a": 30, "b": 30}


# All of them


@pytest.mark.parametrize("strategy", ["round-robin", "priority", "weighted"])
def test_two_pools_keep_apart_accounts(strategy: Any):
    pool = Pool(1, ("a", "b"), strategy)
    one, other = pool.turns(), pool.turns()
    first = turn(one, {"a": 1, "b": 1})
    assert turn(other, {"a": 1, "b": 1}) == first == ["a"]


@given(
    weights=st.dictionaries(st.sampled_from(QUEUES), st.integers(1, 1000)),
    waiting=st.dictionaries(st.sampled_from(QUEUES), st.integers(0, 40), min_size=1),
    rooms=st.lists(st.integers(1, 30), max_size=30),
    strategy=st.sampled_from(["round-robin", "priority", "weighted"]),
)
def test_no_turn_passes_without_a_message_while_there_are_any(
    weights: dict[str, int], waiting: dict[str, int], rooms: list[int], strategy: Any
):
    turns, left = Pool(1, QUEUES, strategy, weights).turns(), dict(waiting)
    for room in rooms:
        before = sum(left.values())
        took = turn(turns, left, room)
        assert len(took) <= room
        assert sum(left.values()) == before - len(took)
        assert took or not before


@given(
    weights=st.dictionaries(st.sampled_from(QUEUES), st.integers(1, 20)),
    late=st.sampled_from(QUEUES),
    before=st.integers(0, 60),
    rooms=st.lists(st.integers(1, 8), min_size=60, max_size=60),
    strategy=st.sampled_from(["round-robin", "weighted"]),
)
def test_who_comes_late_waits_for_no_more_than_a_turn_of_each(
    weights: dict[str, int], late: str, before: int, rooms: list[int], strategy: Any
):
    """However long the others have been full, and however much room there was."""
    turns, full = Pool(1, QUEUES, strategy, weights).turns(), dict.fromkeys(QUEUES, FOR_EVER)
    full[late] = 0
    for room in rooms[:before]:
        turn(turns, full, room)
    full[late] = 1
    dispatched = 0
    while full[late]:
        dispatched += len(turn(turns, full, 1))
    assert dispatched <= len(QUEUES)
