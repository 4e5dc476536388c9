"""Short runs beside long ones, and long ones after short: nobody waits who need not, no lease ends.

What is claimed ahead is bounded by how fast the slots have been; here they change their pace.
"""

import asyncio
from collections import Counter
from typing import Any

import anyio
import attrs
import pytest
from postgres.rows import Rows
from postgres.working import working

from pgtasks import Config, Registry, current_message, task

QUICK = 400
"""So many that the worker claims hundreds ahead."""


def with_slots(config: Config, slots: int) -> Config:
    return attrs.evolve(config, worker=attrs.evolve(config.worker, concurrency=slots))


async def test_a_long_run_does_not_hold_back_short_ones_behind_it(
    config: Config, registry: Registry, rows: Rows
):
    ran = list[int]()
    started, go_on = anyio.Event(), anyio.Event()

    @task(name="long", registry=registry)
    async def long() -> None:
        started.set()
        await go_on.wait()

    @task(name="short", registry=registry)
    async def short(number: int) -> None:
        ran.append(number)
        if number % 2:
            await asyncio.sleep(0)

    async with working(with_slots(config, 2), registry):
        await long.defer()
        await started.wait()
        await short.defer_many([(number,) for number in range(QUICK)])
        async with asyncio.timeout(15):
            while len(await rows.all()) > 1:  # all but the long one are settled, too
                await asyncio.sleep(0.01)
        assert Counter(ran) == Counter(range(QUICK))
        go_on.set()
        await rows.empty()


@pytest.mark.parametrize("lease", ["500ms", "2s"])
async def test_slow_ones_after_quick_ones_are_each_run_once_and_never_late(
    config: Config, registry: Registry, rows: Rows, heard: Any, lease: str
):
    """Many were claimed ahead when they began to be slow; more than can be run within a lease."""
    starts, late = Counter[int](), list[int]()

    @task(name="quick", registry=registry, lease=lease)
    async def quick() -> None: ...

    @task(name="slow", registry=registry, lease=lease)
    async def slow(number: int) -> None:
        starts[number] += 1
        held = current_message().lease
        if held.is_over() or held.lost:
            late.append(number)
        await asyncio.sleep(0.1)

    slow_ones = range(30)
    async with working(with_slots(config, 1), registry):
        await quick.defer_many([()] * QUICK)
        await rows.empty()
        await slow.defer_many([(number,) for number in slow_ones])
        await rows.empty(within_seconds=15)
    assert (starts, late) == (Counter(slow_ones), [])
    done = heard.fields("worker stopped")
    assert done["done"] == QUICK + len(slow_ones)
    assert done["released"] > 0  # claimed ahead, not reached, given back at no cost
    assert "lost" not in done
