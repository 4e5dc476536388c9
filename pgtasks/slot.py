"""Slot: room for one running message, and the means to end what runs in it."""

import asyncio
from contextlib import suppress
from importlib import import_module
from types import TracebackType
from typing import Any

import anyio
import attrs

from pgtasks.alarm import Alarm

# Which cancel scope a task of asyncio's is in: anyio tells nobody. Where an anyio has no such
# table, a scope that a run leaves open stays open.
_STATES: Any = getattr(import_module("anyio._backends._asyncio"), "_task_states", {})


@attrs.define(eq=False)
class Slot:
    """Where one message after another is run, each in a `with slot:` that `cancel` can end.

    To make, enter and leave a cancel scope takes 4 µs, as much as all else that a run costs at
    the least. So a slot enters one for many runs, and leaves it with the first that was cancelled.
    """

    alarm: Alarm = attrs.field(factory=Alarm, init=False)
    """Set to when the time of what runs is up; called off when that ends."""
    _task: "asyncio.Task[object] | None" = attrs.field(factory=asyncio.current_task, init=False)
    _scope: anyio.CancelScope | None = attrs.field(default=None, init=False)
    _state: Any = attrs.field(default=None, init=False)
    """What anyio knows of the task."""

    def __enter__(self) -> None:
        if self._scope is None:
            self._scope = anyio.CancelScope()
            self._scope.__enter__()
            self._state = _STATES.get(self._task)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        self.alarm.call_off()
        self.tidy_up()
        if error is None and self._scope is not None and not self._is_touched(self._scope):
            return False
        return self._leave(kind, error, traceback)

    def cancel(self) -> None:
        """End what runs in it."""
        if self._scope is not None:
            self._scope.cancel()

    def tidy_up(self) -> None:
        """Leave the scopes that a run has left open, as an async generator does after a `break`.

        When the deadline of one comes, or somebody cancels it, it would cancel the next runs.
        """
        state, scope = self._state, self._scope
        if state is None or scope is None:
            return
        while state.cancel_scope is not scope and state.cancel_scope is not None:
            state.cancel_scope.__exit__(None, None, None)

    def close(self) -> None:
        """Leave it for good, from the task that it was made in."""
        self.alarm.close()
        with suppress(RuntimeError):  # a scope may stand open that we know nothing of
            self._leave(None, None, None)

    def _is_touched(self, scope: anyio.CancelScope) -> bool:
        # Also by a run that cancelled itself, and went on: a scope has to know of it from its
        # beginning, or it takes its own cancellation for somebody else's.
        return scope.cancel_called or (self._task is not None and self._task.cancelling() > 0)

    def _leave(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        scope, self._scope = self._scope, None
        return scope is not None and bool(scope.__exit__(kind, error, traceback))
