"""Options: what is said of single messages, beside what their task says of all of them."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Self

import attrs

from pgtasks.call import Call
from pgtasks.client import current_client
from pgtasks.config import Ending
from pgtasks.duration import parse_duration
from pgtasks.errors import ArgumentError
from pgtasks.message import write_state
from pgtasks.outcome import Delay
from pgtasks.policy import UNSET, TaskSettings, _Unset
from pgtasks.store import Executor


@attrs.frozen
class Options:
    """When messages become due, in which queue, on whose connection, and what differs for them."""

    queue: str | None = None
    delay: timedelta = timedelta(0)
    at: datetime | None = None
    connection: Executor | None = None
    overrides: Mapping[str, Any] = attrs.field(factory=dict)
    """What travels with the message: its own retries, timeout and ending."""

    def changed(
        self,
        *,
        queue: str | None,
        delay: Delay | None,
        at: datetime | None,
        connection: Executor | None,
        retries: int | None = None,
        timeout: Delay | _Unset | None = UNSET,
        on_success: Ending | None = None,
        on_failure: Ending | None = None,
    ) -> Self:
        """Return these options with others in place of some.

        Raises:
            ArgumentError: one of them is not what it should be, or two exclude each other.
        """
        _check(delay, at, connection, retries)
        said = TaskSettings(
            queue=queue,
            retries=retries,
            timeout=timeout,
            on_success=on_success,
            on_failure=on_failure,
        )
        moment = at if at is None else at.astimezone(UTC)
        return attrs.evolve(
            self,
            queue=queue or self.queue,
            delay=self.delay if delay is None else parse_duration(delay),
            at=moment if delay is not None or at is not None else self.at,
            connection=connection or self.connection,
            overrides={**self.overrides, **_overrides(said)},
        )

    def call(self, task: str, queue: str | None) -> Call:
        """Return what is stored of calls of a task, by default in its queue."""
        state = write_state({"options": dict(self.overrides)}) if self.overrides else None
        return Call(
            task=task,
            queue=self.queue or queue or current_client().config.task.queue,
            headers=None if state is None else f'{{"pgtasks":{state}}}',
            delay=self.delay,
            at=self.at,
            connection=self.connection,
        )


def _check(
    delay: Delay | None, at: datetime | None, connection: Executor | None, retries: int | None
) -> None:
    if delay is not None and at is not None:
        raise ArgumentError("options() takes a delay or a moment (at), not both")
    if at is not None and (not isinstance(at, datetime) or at.utcoffset() is None):
        raise ArgumentError(
            f"options(at=...) is a datetime with a zone, not {at!r}: "
            "for example datetime(2027, 1, 1, tzinfo=ZoneInfo('Europe/Berlin'))"
        )
    if connection is not None and not hasattr(connection, "fetchval"):
        raise ArgumentError(
            f"options(connection=...) is an asyncpg connection, not {type(connection).__name__}"
        )
    if retries is not None and type(retries) is not int:
        raise ArgumentError(
            "options(retries=...) is a whole number: it travels with the message; "
            "a Retry or a function belongs in the decorator"
        )


def _overrides(said: TaskSettings) -> dict[str, Any]:
    named = {
        "retries": said.retries,
        "on_success": said.on_success,
        "on_failure": said.on_failure,
    }
    kept: dict[str, Any] = {name: value for name, value in named.items() if value is not None}
    if not isinstance(said.timeout, _Unset):
        kept["timeout"] = None if said.timeout is None else said.timeout.total_seconds()
    return kept
