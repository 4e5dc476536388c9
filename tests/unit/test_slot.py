"""One scope serves many runs, and none of them notices."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import closing
from functools import partial
from time import monotonic

import anyio
import pytest

from pgtasks.slot import Slot

ENDED = "ended by the slot"


async def run(slot: Slot, body: Callable[[], Awaitable[object]]) -> object:
    """Run something in a slot, as a runner does."""
    with slot:
        return await body()
    return ENDED


async def nothing() -> str:
    return "nothing"


async def test_what_is_cancelled_ends_and_the_next_run_does_not_notice():
    with closing(Slot()) as slot:

        async def cancelled() -> None:
            slot.cancel()
            await anyio.sleep_forever()

        for _ in range(3):
            assert await run(slot, cancelled) == ENDED
            assert await run(slot, nothing) == "nothing"
            await asyncio.sleep(0)


async def test_a_run_that_is_over_before_it_is_cancelled_leaves_nothing_to_the_next():
    with closing(Slot()) as slot:

        async def cancelled_too_late() -> str:
            slot.cancel()
            return "done"

        async def waits() -> str:
            await anyio.sleep(0.001)
            return "waited"

        assert await run(slot, cancelled_too_late) == "done"
        assert await run(slot, waits) == "waited"


async def test_to_cancel_while_nothing_runs_is_to_cancel_nothing():
    with closing(Slot()) as slot:
        slot.cancel()
        assert await run(slot, nothing) == "nothing"


async def test_a_cancellation_comes_again_to_what_does_not_heed_it():
    tries = list[int]()
    with closing(Slot()) as slot:

        async def stubborn() -> None:
            slot.cancel()
            for number in range(3):
                try:
                    await anyio.sleep_forever()
                except asyncio.CancelledError:
                    tries.append(number)
            await anyio.sleep_forever()

        assert await run(slot, stubborn) == ENDED
    assert tries == [0, 1, 2]


async def test_a_shield_holds():
    with closing(Slot()) as slot:
        done = list[str]()

        async def shielded() -> None:
            slot.cancel()
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.001)
                done.append("shielded")
            await anyio.sleep_forever()

        assert await run(slot, shielded) == ENDED
    assert done == ["shielded"]


async def test_a_run_that_cancelled_itself_and_went_on_does_not_spoil_the_next():
    """What counts its cancellations must not take the next one for one of those."""

    async def cancels_itself() -> str:
        current = asyncio.current_task()
        assert current is not None
        current.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.sleep(1)
        return "went on"

    with closing(Slot()) as slot:

        async def cancelled() -> None:
            slot.cancel()
            await anyio.sleep_forever()

        assert await run(slot, cancels_itself) == "went on"
        assert await run(slot, cancelled) == ENDED
        assert await run(slot, nothing) == "nothing"
        current = asyncio.current_task()
        assert current is not None
        current.uncancel()


async def test_it_does_not_take_the_cancellation_of_others_for_its_own():
    with anyio.move_on_after(0.001) as outer, closing(Slot()) as slot:
        assert await run(slot, nothing) == "nothing"
        await run(slot, anyio.sleep_forever)
        pytest.fail("it went on")
    assert outer.cancelled_caught


async def test_a_run_whose_time_is_up_is_ended_and_no_other():
    with closing(Slot()) as slot:

        async def waits(seconds: float) -> str:
            slot.alarm.set(monotonic() + 0.02, slot.cancel)
            await anyio.sleep(seconds)
            return "in time"

        async def waits_without_a_limit() -> str:
            await anyio.sleep(0.05)
            return "as long as it likes"

        assert await run(slot, partial(waits, 0.001)) == "in time"
        assert await run(slot, waits_without_a_limit) == "as long as it likes"
        assert await run(slot, partial(waits, 20)) == ENDED
        assert await run(slot, waits_without_a_limit) == "as long as it likes"


async def test_children_of_a_run_are_ended_with_it():
    ended = list[int]()

    async def child(number: int) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.append(number)

    with closing(Slot()) as slot:

        async def parent() -> None:
            async with anyio.create_task_group() as children:
                for number in range(3):
                    children.start_soon(child, number)
                await asyncio.sleep(0)
                slot.cancel()

        assert await run(slot, nothing) == "nothing"
        assert await run(slot, parent) == ENDED
    assert sorted(ended) == [0, 1, 2]


async def test_a_scope_that_a_run_left_open_does_not_keep_it_from_being_closed():
    async def leaks() -> None:
        anyio.CancelScope().__enter__()

    async def use() -> None:
        with closing(Slot()) as slot:
            await run(slot, leaks)
            assert await run(slot, nothing) == "nothing"

    await asyncio.create_task(use())


@pytest.mark.parametrize("is_shielded", [False, True])
async def test_what_a_run_left_open_cancels_and_shields_no_other(is_shielded: bool):
    with closing(Slot()) as slot:

        async def leaves_two_open() -> None:
            for deadline in (anyio.current_time() + 60, anyio.current_time()):
                anyio.CancelScope(deadline=deadline, shield=is_shielded).__enter__()

        async def waits() -> str:
            await anyio.sleep(0.01)
            return "waited"

        async def cancelled() -> None:
            slot.cancel()
            await anyio.sleep_forever()

        for _ in range(2):
            await run(slot, leaves_two_open)
            assert await run(slot, waits) == "waited"
            await run(slot, leaves_two_open)
            assert await run(slot, cancelled) == ENDED
