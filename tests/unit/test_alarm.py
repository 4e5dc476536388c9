"""One timer serves many deadlines, and each of them is kept."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from time import monotonic
from typing import Any

import pytest

from pgtasks.alarm import Alarm


@pytest.fixture
async def alarm() -> AsyncIterator[Alarm]:
    made = Alarm()
    yield made
    made.close()


@pytest.fixture
def timers(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long each timer of an alarm was to run that was started."""
    started = list[float]()
    call_later = asyncio.BaseEventLoop.call_later

    def counting(self: Any, delay: float, callback: Any, *args: Any, **more: Any) -> Any:
        if isinstance(getattr(callback, "__self__", None), Alarm):
            started.append(delay)
        return call_later(self, delay, callback, *args, **more)

    monkeypatch.setattr(asyncio.BaseEventLoop, "call_later", counting)
    return started


async def has_rung(rung: list[str]) -> None:
    async with asyncio.timeout(10):
        while not rung:
            await asyncio.sleep(0.001)


async def test_it_rings_once_when_the_moment_has_come(alarm: Alarm):
    rung = list[float]()
    at = monotonic() + 0.02
    alarm.set(at, lambda: rung.append(monotonic()))
    async with asyncio.timeout(10):
        while not rung:
            await asyncio.sleep(0.001)
    await asyncio.sleep(0.03)
    assert len(rung) == 1
    assert rung[0] >= at


async def test_what_is_called_off_does_not_ring(alarm: Alarm):
    rung = list[str]()
    alarm.set(monotonic() + 0.001, partial(rung.append, "called off"))
    alarm.call_off()
    await asyncio.sleep(0.02)
    assert rung == []


async def test_a_moment_that_is_past_rings_at_once_but_not_before_it_is_waited_for(alarm: Alarm):
    rung = list[str]()
    alarm.set(monotonic() - 5, partial(rung.append, "past"))
    assert rung == []
    await has_rung(rung)


async def test_later_ones_need_no_timer_of_their_own(alarm: Alarm, timers: list[float]):
    rung = list[str]()
    for _ in range(100):
        alarm.set(monotonic() + 0.05, partial(rung.append, "called off"))
        alarm.call_off()
    assert len(timers) == 1
    alarm.set(monotonic() + 0.1, partial(rung.append, "last"))
    assert len(timers) == 1
    await has_rung(rung)
    assert rung == ["last"]
    assert len(timers) <= 4  # it rang too early once, or a little


async def test_an_earlier_one_does_not_wait_for_a_later_one(alarm: Alarm):
    rung = list[str]()
    alarm.set(monotonic() + 60, partial(rung.append, "late"))
    alarm.call_off()
    alarm.set(monotonic() + 0.01, partial(rung.append, "early"))
    await has_rung(rung)
    assert rung == ["early"]


async def test_it_may_be_set_again_when_it_has_rung(alarm: Alarm):
    rung = list[str]()
    for name in ("one", "two"):
        alarm.set(monotonic() + 0.005, partial(rung.append, name))
        await has_rung(rung)
        assert rung.pop() == name


async def test_a_closed_one_leaves_no_timer_behind(timers: list[float]):
    rung = list[str]()
    alarm = Alarm()
    alarm.set(monotonic() + 0.001, partial(rung.append, "closed"))
    alarm.close()
    await asyncio.sleep(0.02)
    assert (rung, len(timers)) == ([], 1)
