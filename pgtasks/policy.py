"""Policy: everything that decides how a task's messages are run, with nothing left open."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, TypeAlias

import attrs

from pgtasks.config import Ending, TaskConfig
from pgtasks.duration import format_duration, parse_duration
from pgtasks.errors import TaskDefinitionError
from pgtasks.outcome import Delay
from pgtasks.queue_name import check_queue_name
from pgtasks.retry import Policy as RetryPolicy
from pgtasks.retry import Retry
from pgtasks.setting import kebab

Retries: TypeAlias = int | Retry | Callable[[int, BaseException], Delay | None]
SHORTEST_LEASE = timedelta(milliseconds=500)


class _Unset:
    """The default of a setting that may itself be None."""

    def __repr__(self) -> str:
        return "UNSET"


UNSET = _Unset()


def _check_action(_: object, attribute: "attrs.Attribute[Any]", value: object) -> None:
    if value not in (None, "delete", "archive"):
        raise TaskDefinitionError(f'{attribute.name} is "delete" or "archive", not {value!r}')


def _check_retries(_: object, __: object, value: Any) -> None:
    Retry.of(value, Retry())


def _to_timeout(value: Delay | _Unset | None) -> timedelta | _Unset | None:
    if value is None or isinstance(value, _Unset):
        return value
    timeout = parse_duration(value)
    if not timeout:
        raise TaskDefinitionError("a timeout of 0 would end every run; None switches it off")
    return timeout


def _to_lease(value: Delay | None) -> timedelta | None:
    lease = None if value is None else parse_duration(value)
    if lease is not None and lease < SHORTEST_LEASE:
        raise TaskDefinitionError(
            f"a lease of {format_duration(lease)} cannot be extended in time; "
            f"{format_duration(SHORTEST_LEASE)} is the shortest"
        )
    return lease


@attrs.frozen
class TaskSettings:
    """What a decorator or `.options()` says of a task; None or UNSET where it says nothing."""

    queue: str | None = attrs.field(
        default=None, validator=attrs.validators.optional(lambda *a: check_queue_name(a[2]))
    )
    retries: Retries | None = attrs.field(default=None, validator=_check_retries)
    timeout: timedelta | _Unset | None = attrs.field(default=UNSET, converter=_to_timeout)
    lease: timedelta | None = attrs.field(default=None, converter=_to_lease)
    on_success: Ending | None = attrs.field(default=None, validator=_check_action)
    on_failure: Ending | None = attrs.field(default=None, validator=_check_action)
    durable: bool | None = None

    @property
    def said(self) -> frozenset[str]:
        """The settings that are decided here and not by the configuration, by their names there.

        `retry-on` and `give-up-on` are among them, which only code can say.
        """
        fields = attrs.fields(TaskSettings)
        names = {field.name for field in fields if getattr(self, field.name) is not field.default}
        if isinstance(self.retries, Retry):
            names = names - {"retries"} | self.retries.given
        return frozenset(kebab(name).replace("max-retries", "retries") for name in names)


@attrs.frozen
class Policy:
    """The effective settings of a task: its decorator's, else the configuration's.

    Each field on its own, those of a `Retry` too.
    """

    queue: str
    retry: RetryPolicy
    timeout: timedelta | None
    lease: timedelta
    on_success: Ending
    on_failure: Ending
    durable: bool

    @property
    def timeout_seconds(self) -> float | None:
        """The timeout in seconds; None without one."""
        return None if self.timeout is None else self.timeout.total_seconds()

    @classmethod
    def of(cls, settings: TaskSettings, defaults: TaskConfig, *, durable: bool) -> "Policy":
        """Fill what the task leaves open from the configuration."""
        timeout = defaults.timeout if isinstance(settings.timeout, _Unset) else settings.timeout
        fallback = Retry(
            max_retries=defaults.retries,
            delay=defaults.delay,
            jitter=defaults.jitter,
            max_delay=defaults.max_delay,
            backoff=defaults.backoff,
        )
        return cls(
            queue=settings.queue or defaults.queue,
            retry=Retry.of(settings.retries, fallback),
            timeout=timeout,
            lease=settings.lease or defaults.lease,
            on_success=settings.on_success or defaults.on_success,
            on_failure=settings.on_failure or defaults.on_failure,
            durable=durable if settings.durable is None else settings.durable,
        )

    def overridden(self, said: Mapping[str, Any]) -> "Policy":
        """Return this policy with what one message's `.options()` said; nonsense is ignored."""
        changes: dict[str, Any] = {}
        if type(said.get("retries")) is int and isinstance(self.retry, Retry):
            changes["retry"] = attrs.evolve(self.retry, max_retries=max(0, said["retries"]))
        if "timeout" in said:
            changes["timeout"] = _stored_timeout(said["timeout"], self.timeout)
        for name in ("on_success", "on_failure"):
            if said.get(name) in ("delete", "archive"):
                changes[name] = said[name]
        return attrs.evolve(self, **changes)


def _stored_timeout(value: object, fallback: timedelta | None) -> timedelta | None:
    if value is None:
        return None
    if isinstance(value, int | float) and 0.001 <= value < 1e9:
        return timedelta(seconds=value)
    return fallback
