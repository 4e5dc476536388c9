"""ThreadCall: a sync function's call in a thread, which nothing can end but itself."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import anyio
import anyio.to_thread
import attrs


@attrs.define(eq=False)
class ThreadCall:
    """One call, made in a thread of anyio's pool and in the context of who awaits it."""

    _function: Callable[[], Any]
    _loop: asyncio.AbstractEventLoop = attrs.field(factory=asyncio.get_running_loop, init=False)
    _ended: asyncio.Event = attrs.field(factory=asyncio.Event, init=False)
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False)
    _is_started: bool = attrs.field(default=False, init=False)
    _is_abandoned: bool = attrs.field(default=False, init=False)

    async def run(self, limiter: anyio.CapacityLimiter) -> Any:
        """Make the call; return what it returned, or the exception it raised, as a value.

        Raising it would break the bridge between the threads for a StopIteration, which no
        future can carry. When cancelled, this returns at once; the thread may go on.
        """
        return await anyio.to_thread.run_sync(self._call, limiter=limiter, abandon_on_cancel=True)

    def abandon(self) -> bool:
        """Let the call not start any more; tell whether its thread goes on."""
        with self._lock:
            self._is_abandoned = True
            return self._is_started and not self._ended.is_set()

    async def wait(self) -> None:
        """Wait until the thread has ended the call."""
        await self._ended.wait()

    def _call(self) -> Any:
        with self._lock:
            if self._is_abandoned:
                return None
            self._is_started = True
        try:
            return self._function()
        except BaseException as error:  # noqa: BLE001 - user code may also raise SystemExit
            return error
        finally:
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(self._ended.set)
