"""What a task may raise or return to say how its run ended, beside returning and failing."""

from datetime import timedelta

from pgtasks.duration import parse_duration

Delay = float | str | timedelta
"""Seconds, a text such as "250ms" or "5m", or a timedelta."""


class Signal(Exception):  # noqa: N818 - it says what to do next, it is no error
    """The root of what a task raises or returns to steer what becomes of its message."""


class RetryLater(Signal):
    """Try this message again after `delay`; the run counts as a failed attempt.

    Example:
        `raise RetryLater(30, "the mail server is busy")`
    """

    def __init__(self, delay: Delay, reason: str = "") -> None:
        super().__init__(reason)
        self.delay = parse_duration(delay)
        self.reason = reason


class Snooze(Signal):
    """Run this message again after `delay`; no attempt is counted.

    Example:
        `return Snooze(timedelta(minutes=5))`
    """

    def __init__(self, delay: Delay, reason: str = "") -> None:
        super().__init__(reason)
        self.delay = parse_duration(delay)
        self.reason = reason


class Discard(Signal):
    """Give this message up now, with a reason, whatever retries are left.

    Example:
        `raise Discard("the user closed the account")`
    """

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
