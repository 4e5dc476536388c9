"""Retry: when a failed message may be tried again, if at all. Pure: nothing waits here."""

import logging
import random as randomness
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, Final, Literal, Protocol, Self

import attrs

from pgtasks.duration import format_duration, parse_duration
from pgtasks.errors import ConfigError, TaskDefinitionError
from pgtasks.outcome import Delay

Backoff = Literal["exponential", "linear", "constant"]
Errors = type[BaseException] | tuple[type[BaseException], ...]
DelayFunction = Callable[[int, BaseException], Delay | None]
Random = Callable[[], float]

log = logging.getLogger("pgtasks.retry")

_BACKOFFS: Final = ("exponential", "linear", "constant")
_MICROSECOND: Final = timedelta(microseconds=1)
# 1 µs doubled so often is 146,000 years: longer than any cap, and never a huge number.
_MOST_DOUBLINGS: Final = 62


class Policy(Protocol):
    """What decides about retries: a `Retry`, or a function of the user's, wrapped."""

    def delay_after(
        self, failures: int, error: BaseException | None, *, random: Random = randomness.random
    ) -> timedelta | None:
        """Return the pause before the next attempt, or None to give up.

        Args:
            failures: how many attempts have failed, this one included: 1 after the first.
            error: what the attempt ended with, if it is known.
            random: where jitter comes from; from 0 to 1.
        """


def _duration(value: Delay, name: str) -> timedelta:
    try:
        return parse_duration(value)
    except ConfigError as error:
        raise TaskDefinitionError(f"Retry({name}=...): {error}") from None


def _to_delay(value: Delay) -> timedelta:
    return _duration(value, "delay")


def _to_jitter(value: Delay) -> timedelta:
    return _duration(value, "jitter")


def _to_max_delay(value: Delay) -> timedelta:
    return _duration(value, "max_delay")


def _to_errors(value: Errors) -> tuple[type[BaseException], ...]:
    return value if isinstance(value, tuple) else (value,)


def _check_errors(_: object, field: "attrs.Attribute[Any]", value: Errors) -> None:
    for error in _to_errors(value):
        if not (isinstance(error, type) and issubclass(error, BaseException)):
            raise TaskDefinitionError(
                f"Retry({field.name}=...) takes exception classes, not {error!r:.80}: "
                "for example (OSError, TimeoutError)"
            )


def _check_count(_: object, __: object, value: object) -> None:
    if type(value) is not int or value < 0:
        raise TaskDefinitionError(
            f"Retry(max_retries=...) is a whole number from 0, not {value!r:.80}: "
            "0 never tries again"
        )


def _check_backoff(_: object, __: object, value: object) -> None:
    if value not in _BACKOFFS:
        raise TaskDefinitionError(
            f'Retry(backoff=...) is "exponential", "linear" or "constant", not {value!r:.80}'
        )


def _check_cap(_: object, __: object, value: timedelta) -> None:
    if not value:
        raise TaskDefinitionError(
            'Retry(max_delay=...) is 0, which would cap every pause to nothing: write e.g. "24h"'
        )


@attrs.frozen
class Retry:
    """When a failed message is tried again.

    The pause after the n-th failure is `delay` doubled n - 1 times ("exponential"), `delay` times
    n ("linear") or `delay` ("constant"); then up to `jitter` is added, never multiplied; then the
    whole is cut at `max_delay`. Durations are seconds, texts such as "250ms", or timedeltas.

    Args:
        max_retries: how many failures are followed by another attempt.
        delay: the pause after the first failure.
        jitter: the most that is added at random, so that what failed together is not tried again
            in one moment.
        max_delay: the longest pause.
        backoff: how the pause grows.
        retry_on: only these are tried again; a group of errors counts when it holds one.
        give_up_on: these never are, even when `retry_on` names them.

    Raises:
        TaskDefinitionError: one of these is not what it should be.

    Example:
        `@task(retries=Retry(max_retries=5, delay="250ms", give_up_on=ValueError))`
    """

    max_retries: int = attrs.field(default=25, validator=_check_count)
    delay: timedelta = attrs.field(default=timedelta(seconds=1), converter=_to_delay)
    jitter: timedelta = attrs.field(default=timedelta(seconds=1), converter=_to_jitter)
    max_delay: timedelta = attrs.field(
        default=timedelta(days=1), converter=_to_max_delay, validator=_check_cap
    )
    backoff: Backoff = attrs.field(default="exponential", validator=_check_backoff)
    retry_on: Errors = attrs.field(
        default=BaseException, converter=_to_errors, validator=_check_errors
    )
    give_up_on: Errors = attrs.field(default=(), converter=_to_errors, validator=_check_errors)

    @classmethod
    def of(cls, value: "int | Retry | DelayFunction | None", defaults: Self) -> Policy:
        """Return the policy that a decorator's `retries=` stands for.

        Args:
            value: a number of retries, a `Retry`, a function of (failures, error) that returns a
                pause or None to give up, or None for the defaults.
            defaults: what applies to everything left open.

        Raises:
            TaskDefinitionError: it is none of these.
        """
        if value is None:
            return defaults
        if isinstance(value, Retry):
            return value
        if isinstance(value, int):
            return attrs.evolve(defaults, max_retries=value)
        if callable(value):
            return CallableRetry(value, defaults)
        raise TaskDefinitionError(
            f"retries=... is a whole number, a Retry, or a function of (failures, error), "
            f"not {value!r:.80}"
        )

    def delay_after(
        self, failures: int, error: BaseException | None, *, random: Random = randomness.random
    ) -> timedelta | None:
        """Return the pause before the next attempt, or None to give up; see `Policy`."""
        if failures > self.max_retries or not self._is_worth_retrying(error):
            return None
        jitter = int(self.jitter // _MICROSECOND * random())
        return min(self._pause(failures) + jitter * _MICROSECOND, self.max_delay)

    def bounds(self, failures: int) -> tuple[timedelta, timedelta]:
        """Return the shortest and the longest pause there can be after so many failures."""
        pause = self._pause(failures)
        return min(pause, self.max_delay), min(pause + self.jitter, self.max_delay)

    def _pause(self, failures: int) -> timedelta:
        """The pause without jitter, cut at the cap already: no sum can overflow."""
        count = max(failures, 1)
        match self.backoff:
            case "exponential":
                factor = 1 << min(count - 1, _MOST_DOUBLINGS)
            case "linear":
                factor = count
            case "constant":
                factor = 1
        microseconds = self.delay // _MICROSECOND * factor
        return timedelta(microseconds=min(microseconds, self.max_delay // _MICROSECOND))

    def _is_worth_retrying(self, error: BaseException | None) -> bool:
        if error is None:
            return True
        errors = tuple(_within(error))
        if any(isinstance(one, self.give_up_on) for one in errors):
            return False
        return any(isinstance(one, self.retry_on) for one in errors)


@attrs.frozen
class CallableRetry:
    """A user's function of (failures, error) as a policy.

    When the function raises or returns what is no pause, the defaults decide, so that no message
    is lost by it; the first time, the logger `pgtasks.retry` says so.
    """

    function: DelayFunction
    defaults: Retry
    _told: list[str] = attrs.field(factory=list, init=False, eq=False, repr=False)

    def delay_after(
        self, failures: int, error: BaseException | None, *, random: Random = randomness.random
    ) -> timedelta | None:
        """Return the pause before the next attempt, or None to give up; see `Policy`."""
        given = RuntimeError("the attempt's error is not known") if error is None else error
        try:
            pause = self.function(failures, given)
            return None if pause is None else parse_duration(pause)
        except Exception as broken:  # noqa: BLE001 - user code
            self._tell(broken)
        return self.defaults.delay_after(failures, error, random=random)

    def _tell(self, broken: Exception) -> None:
        if self._told:
            return
        name = getattr(self.function, "__qualname__", type(self.function).__name__)
        self._told.append(name)
        log.error(
            "the retry function %s gave no pause; the defaults decide, the first one is %s",
            name, format_duration(self.defaults.bounds(1)[0]), exc_info=broken,
        )  # fmt: skip


def _within(error: BaseException) -> Iterator[BaseException]:
    """An error and, when it is a group, all that it holds."""
    left = [error]
    while left:
        one = left.pop()
        yield one
        if isinstance(one, BaseExceptionGroup):
            left.extend(one.exceptions)
