"""Outage: says that the database fails us when it begins, now and then, and when it is over."""

import logging
from time import monotonic
from typing import Any

import attrs

from pgtasks.connection import is_transient
from pgtasks.events import Events
from pgtasks.settlement import describe_error

REPEAT_SECONDS = 30.0


@attrs.define(eq=False)
class Outage:
    """The failures of one part of a worker, in few lines however many there are."""

    _log: Events
    _event: str
    _began_at: float | None = attrs.field(default=None, init=False)
    _said_at: float = attrs.field(default=0.0, init=False)
    _failures: int = attrs.field(default=0, init=False)

    def report(self, error: BaseException, **fields: Any) -> None:
        """Note a failure; the first is said at once."""
        now = monotonic()
        self._failures += 1
        if self._began_at is None:
            self._began_at = now
        elif now - self._said_at < REPEAT_SECONDS:
            return
        self._said_at = now
        level = logging.WARNING if is_transient(error) else logging.ERROR
        first_line = describe_error(error).splitlines()[0]
        self._log.say(level, self._event, **fields, failures=self._failures, error=first_line)

    def over(self) -> None:
        """Note that it works; said when it had not."""
        if self._began_at is None:
            return
        seconds = round(monotonic() - self._began_at, 1)
        self._log.info("the database answers again", after_seconds=seconds, failures=self._failures)
        self._began_at, self._failures = None, 0
