"""What waits to be stored: nothing is lost, doubled or mixed up, and no queue waits for ever."""

import asyncio
import concurrent.futures
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgtasks import backlog
from pgtasks.backlog import Backlog
from pgtasks.call import Call
from pgtasks.message import Handle
from pgtasks.parcel import Parcel

QUEUES = ("a", "b", "c")


def parcel(queue: str = "a", messages: int = 1, length: int = 1) -> Parcel:
    answer = concurrent.futures.Future[list[Handle]]()
    return Parcel.of(Call("task", queue), [b"1" * length] * messages, answer)


def answer_of(one: Parcel) -> Any:
    assert isinstance(one.answer, concurrent.futures.Future)
    return one.answer


STEPS = st.one_of(
    st.tuples(st.just("put"), st.sampled_from(QUEUES), st.integers(1, 4)),
    st.tuples(st.just("take"), st.just(""), st.just(0)),
    st.tuples(st.just("cancel"), st.just(""), st.integers(0, 100)),
    st.tuples(st.just("spoil"), st.just(""), st.just(0)),
)


@given(st.lists(STEPS, max_size=80))
def test_each_parcel_goes_once_and_in_its_turn(steps: list[tuple[str, str, int]]):
    """Whatever is put, taken back, taken and refused, in whatever order."""
    waits, put, taken = Backlog(), list[Parcel](), list[Parcel]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backlog, "MAX_MESSAGES", 6)
        for step, queue, number in [*steps, *[("take", "", 0)] * (2 * len(steps))]:
            match step:
                case "put":
                    put.append(parcel(queue, number))
                    waits.put(put[-1])
                case "cancel" if put:
                    answer_of(put[number % len(put)]).cancel()
                case "take" | "spoil":
                    batch = waits.take()
                    assert len({one.call.queue for one in batch}) <= 1
                    assert sum(len(one.bodies) for one in batch) <= 6
                    if step == "spoil" and len(batch) > 1:
                        waits.put_apart(batch)
                    else:
                        taken += batch
    assert not waits
    assert len(taken) == len(set(taken))
    # A caller may give up until its parcel goes, and no longer.
    assert set(put) - set(taken) == {one for one in put if answer_of(one).cancelled()} - set(taken)
    assert not any(answer_of(one).cancelled() for one in taken)


def test_a_batch_is_bounded_by_messages_and_length(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(backlog, "MAX_CHARACTERS", 1000)
    waits = Backlog()
    for length in (1, 2000, 1, 1):
        waits.put(parcel(length=length))
    assert [len(waits.take()) for _ in range(3)] == [1, 1, 2]


def test_queues_take_turns(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(backlog, "MAX_MESSAGES", 2)
    waits = Backlog()
    for queue in "aaaaabc":
        waits.put(parcel(queue))
    order = []
    while batch := waits.take():
        order.append(batch[0].call.queue)
    assert order == ["a", "b", "c", "a", "a"]


def test_what_was_refused_together_goes_alone():
    waits = Backlog()
    for _ in range(3):
        waits.put(parcel())
    spoiled = waits.take()
    waits.put(parcel())
    waits.put_apart(spoiled)
    assert [waits.take() for _ in range(3)] == [[one] for one in spoiled]
    assert len(waits.take()) == 1


def test_only_those_are_refused_who_have_waited_long():
    waits, old, new = Backlog(), parcel(), parcel()
    old.put_at, new.put_at = 1.0, 2.0
    waits.put(old)
    waits.put(new)
    waits.refuse(lambda: ValueError("no"), put_before=2.0)
    with pytest.raises(ValueError, match="no"):
        answer_of(old).result(0)
    assert waits.take() == [new]


async def test_an_answer_to_nobody_is_not_given():
    """The caller may have been cancelled at any moment, on any loop."""
    answer: asyncio.Future[list[Handle]] = asyncio.get_running_loop().create_future()
    own, other = Parcel.of(Call("task", "a"), [b"1"], answer), parcel()
    for one in (own, other):
        assert one.is_wanted()
        assert one.is_wanted()
    answer.cancel()
    assert not answer_of(other).cancel()
    for one in (own, other):
        one.stored([7])
        one.stored([8])
        one.refused(ValueError())
        assert not one.is_wanted()
    assert [handle.message_id for handle in answer_of(other).result(0)] == [7]
