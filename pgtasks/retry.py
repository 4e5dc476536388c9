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


@attrs.frozen
class _Open:
    """Stands in a field of a `Retry` that was not given; shown as the default it becomes."""

    default: Any

    def __repr__(self) -> str:
        return repr(self.default)


def _open(default: object) -> Any:
    return _Open(default)


def _duration(value: Any, name: str) -> Any:
    if isinstance(value, _Open):
        return value
    try:
        return parse_duration(value)
    except ConfigError as error:
        raise TaskDefinitionError(f"Retry({name}=...): {error}") from None


def _to_delay(value: Delay) -> timedelta:
    length: timedelta = _duration(value, "delay")
    return length


def _to_jitter(value: Delay) -> timedelta:
    length: timedelta = _duration(value, "jitter")
    return length


def _to_max_delay(value: Delay) -> timedelta:
    length: timedelta = _duration(value, "max_delay")
    return length


def _to_errors(value: Errors) -> tuple[type[BaseException], ...]:
    return value if isinstance(value, tuple | _Open) else (value,)


def _check_errors(_: object, field: "attrs.Attribute[Any]", value: Errors) -> None:
    for error in () if isinstance(value, _Open) else _to_errors(value):
        if not (isinstance(error, type) and issubclass(error, BaseException)):
            raise TaskDefinitionError(
                f"Retry({field.name}=...) takes exception classes, not {error!r:.80}: "
                "for example (OSError, TimeoutError)"
            )


def _check_count(_: object, __: object, value: object) -> None:
    if not isinstance(value, _Open) and (type(value) is not int or value < 0):
        raise TaskDefinitionError(
            f"Retry(max_retries=...) is a whole number from 0, not {value!r:.80}: "
            "0 never tries again"
        )


def _check_backoff(_: object, __: object, value: object) -> None:
    if not isinstance(value, _Open) and value not in _BACKOFFS:
        raise TaskDefinitionError(
            f'Retry(backoff=...) is "exponential", "linear" or "constant", not {value!r:.80}'
        )


def _check_cap(_: object, __: object, value: timedelta) -> None:
    if not value:
        raise TaskDefinitionError(
            'Retry(max_delay=...) is 0, which would cap every pause to nothing: write e.g. "24h"'
        )


@attrs.frozen(repr=False)
class Retry:
    """When a failed message is tried again.

    What is not given is as configured (`[task]`), else as said below. The pause after the n-th
    failure is `delay` doubled n - 1 times ("exponential"), `delay` times n ("linear") or `delay`
    ("constant"); then up to `jitter` is added, never multiplied; then the whole is cut at
    `max_delay`. Durations are seconds, texts such as "250ms", or timedeltas.

    Args:
        max_retries: how many failures are followed by another attempt; 25.
        delay: the pause after the first failure; 1 s.
        jitter: the most that is added at random, so that what failed together is not tried again
            in one moment; 1 s.
        max_delay: the longest pause; a day.
        backoff: how the pause grows; "exponential".
        retry_on: only these are tried again; a group of errors counts when it holds one.
        give_up_on: these never are, even when `retry_on` names them.

    Raises:
        TaskDefinitionError: one of these is not what it should be.

    Example:
        `@task(retries=Retry(max_retries=5, delay="250ms", give_up_on=ValueError))`
    """

    max_retries: int = attrs.field(default=_open(25), validator=_check_count)
    delay: timedelta = attrs.field(default=_open(timedelta(seconds=1)), converter=_to_delay)
    jitter: timedelta = attrs.field(default=_open(timedelta(seconds=1)), converter=_to_jitter)
    max_delay: timedelta = attrs.field(
        default=_open(timedelta(days=1)), converter=_to_max_delay, validator=_check_cap
    )
    backoff: Backoff = attrs.field(default=_open("exponential"), validator=_check_backoff)
    retry_on: Errors = attrs.field(
        default=_open((BaseException,)), converter=_to_errors, validator=_check_errors
    )
    give_up_on: Errors = attrs.field(
        default=_open(()), converter=_to_errors, validator=_check_errors
    )
    given: frozenset[str] = attrs.field(default=frozenset(), init=False, eq=False)
    """The names of the fields that were given."""

    def __attrs_post_init__(self) -> None:
        fields = {field.name: getattr(self, field.name) for field in attrs.fields(Retry)}
        left_open = {name: value for name, value in fields.items() if isinstance(value, _Open)}
        for name, value in left_open.items():
            object.__setattr__(self, name, value.default)
        object.__setattr__(self, "given", frozenset(fields) - {*left_open, "given"})

    def __repr__(self) -> str:
        names = [field.name for field in attrs.fields(Retry) if field.name in self.given]
        return f"Retry({', '.join(f'{name}={_shown(getattr(self, name))}' for name in names)})"

    @classmethod
    def of(cls, value: "int | Retry | DelayFunction | None", defaults: Self) -> Policy:
        """Return the policy that a decorator's `retries=` stands for.

        Args:
            value: a number of retries, a `Retry` that may leave fields open, a function of
                (failures, error) that returns a pause or None to give up, or None.
            defaults: what applies to everything left open.

        Raises:
            TaskDefinitionError: it is none of these.
        """
        if value is None:
            return defaults
        if isinstance(value, Retry):
            return value.filled(defaults)
        if isinstance(value, int):
            return attrs.evolve(defaults, max_retries=value)
        if callable(value):
            return CallableRetry(value, defaults)
        raise TaskDefinitionError(
            f"retries=... is a whole number, a Retry, or a function of (failures, error), "
            f"not {value!r:.80}"
        )

    def filled(self, defaults: "Retry") -> "Retry":
        """Return this policy with what is left open taken from another one."""
        return attrs.evolve(defaults, **{name: getattr(self, name) for name in self.given})

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

    def waited(self, failures: int) -> tuple[float, float]:
        """Return the seconds that the pauses after so many failures take together.

        At least and at most, as floats: a million pauses may be longer than a timedelta can be.
        """
        shortest, longest = (self._sum(failures, most) for most in (timedelta(0), self.jitter))
        return shortest / 1_000_000, longest / 1_000_000

    def _sum(self, failures: int, jitter: timedelta) -> int:
        """The microseconds of that many pauses, each with this much jitter."""
        each, more, cap = (one // _MICROSECOND for one in (self.delay, jitter, self.max_delay))
        match self.backoff:
            case "constant":
                return failures * min(each + more, cap)
            case "linear":
                if not each:
                    return failures * min(more, cap)
                below = max(0, min(failures, (cap - more) // each))
                return each * below * (below + 1) // 2 + more * below + (failures - below) * cap
            case "exponential":
                grows = min(failures, _MOST_DOUBLINGS)
                pauses = [min((each << count) + more, cap) for count in range(grows + 1)]
                return sum(pauses[:grows]) + (failures - grows) * pauses[grows]

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


def _shown(value: object) -> str:
    """A field's value as it could have been given."""
    match value:
        case timedelta():
            return f'"{format_duration(value)}"'
        case tuple():
            names = [error.__name__ for error in value]
            return names[0] if len(names) == 1 else f"({', '.join(names)})"
        case _:
            return repr(value)


def _within(error: BaseException) -> Iterator[BaseException]:
    """An error and, when it is a group, all that it holds."""
    left = [error]
    while left:
        one = left.pop()
        yield one
        if isinstance(one, BaseExceptionGroup):
            left.extend(one.exceptions)
