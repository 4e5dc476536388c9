"""Alarm: one timer for many deadlines, most of which never come."""

import asyncio
import math
from collections.abc import Callable
from time import monotonic

import attrs


@attrs.define(eq=False)
class Alarm:
    """Calls back when a moment of `time.monotonic` has come, unless it was called off before.

    To start and stop a timer of the event loop takes 3 µs. Most runs end long before their time is
    up, and that of the next is up later: so the timer runs on, and what it was set to last is
    looked at when it rings.
    """

    _at: float = attrs.field(default=math.inf, init=False)
    _then: Callable[[], None] | None = attrs.field(default=None, init=False)
    _rings_at: float = attrs.field(default=math.inf, init=False)
    _timer: asyncio.TimerHandle | None = attrs.field(default=None, init=False)

    def set(self, at: float, then: Callable[[], None]) -> None:
        """Call back then, instead of what it was set to before."""
        self._at, self._then = at, then
        if at < self._rings_at:
            self._start()

    def call_off(self) -> None:
        """Call back never."""
        self._at, self._then = math.inf, None

    def close(self) -> None:
        """Call back never, and leave no timer behind."""
        self.call_off()
        if self._timer is not None:
            self._timer.cancel()

    def _start(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._rings_at = self._at
        seconds = max(0.0, self._at - monotonic())
        self._timer = asyncio.get_running_loop().call_later(seconds, self._ring)

    def _ring(self) -> None:
        self._timer, self._rings_at = None, math.inf
        if self._then is None:
            return
        if self._at > monotonic():
            self._start()
            return
        then = self._then
        self.call_off()
        then()
