"""Context: what a running task may ask and do about its own message."""

import logging
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any, Protocol
from uuid import UUID

import attrs

from pgtasks.connection import Connection
from pgtasks.duration import parse_duration
from pgtasks.lease import Lease
from pgtasks.message import Message
from pgtasks.outcome import Delay
from pgtasks.policy import Policy

running: ContextVar["Context"] = ContextVar("pgtasks_context")


class Ties(Protocol):
    """What ties a running message to its worker."""

    @property
    def resources(self) -> Any:
        """What the application's lifespan yielded."""

    def transaction(self, context: "Context") -> Any:
        """Return the transaction that ends with the message's completion."""

    async def extend(self, context: "Context", length: timedelta) -> None:
        """Extend the message's lease now."""


@attrs.define(eq=False)
class Context:
    """One run of one message, as its task sees it.

    A task gets it by a first parameter annotated `Context`, which is not one of the message's
    arguments, or from `current_message()`.

    Example:
        ```python
        @task
        async def pay(context: Context, order_id: int) -> None:
            context.log.info("paying, attempt %d", context.attempt)
            async with context.transaction() as connection:
                await connection.execute("UPDATE orders SET paid = true WHERE id = $1", order_id)
        ```
    """

    lease: Lease
    task: str
    _own_id: UUID | int
    policy: Policy
    """How the message is run."""
    _ties: Ties
    started_at: float = attrs.field(factory=monotonic)
    cancelled: bool = False
    """The run is to end: it took too long, its lease is lost, or the worker stops."""
    lost: bool = False
    """The lease is lost: whatever this run still does, its outcome will not count."""
    settled: bool = False
    """The message is completed already, by `transaction()`."""
    _finished: threading.Event | None = None

    @property
    def message(self) -> Message:
        """The message as it was claimed."""
        return self.lease.message

    @property
    def id(self) -> str:
        """The message's own id, as `defer` returned it."""
        return str(self._own_id)

    @property
    def queue(self) -> str:
        """The queue the message came from."""
        return self.message.queue

    @property
    def message_id(self) -> int:
        """The row's number in its queue's table."""
        return self.message.message_id

    @property
    def attempt(self) -> int:
        """Which try this is, from 1; snoozes and crashes are not counted."""
        return self.message.state.failures + 1

    @property
    def enqueued_at(self) -> datetime:
        """When the message was stored, by the database's clock."""
        return self.message.enqueued_at

    @property
    def schedule(self) -> str | None:
        """The name of the schedule that sent the message; None for one that was deferred."""
        name = self.message.state.schedule.get("name")
        return name if isinstance(name, str) else None

    @property
    def scheduled_at(self) -> datetime | None:
        """The tick the message was sent for, in UTC; None for one that was deferred.

        Reckon with it rather than with the time now: a message may run late, or twice.
        """
        try:
            tick = datetime.fromisoformat(self.message.state.schedule["at"])
        except (KeyError, TypeError, ValueError):
            return None
        return None if tick.utcoffset() is None else tick

    @property
    def deadline(self) -> datetime | None:
        """When the run will be cancelled, by the local clock; None without a timeout."""
        if self.policy.timeout_seconds is None:
            return None
        left = self.started_at + self.policy.timeout_seconds - monotonic()
        return datetime.now(UTC) + timedelta(seconds=left)

    @property
    def resources(self) -> Any:
        """What the application's lifespan yielded; None without one."""
        return self._ties.resources

    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger whose lines carry the task, the queue and the message's id."""
        fields = {"task": self.task, "queue": self.queue, "id": self.id}
        return logging.LoggerAdapter(logging.getLogger("pgtasks.task"), {"fields": fields})

    async def extend(self, length: Delay) -> None:
        """Make sure the lease lasts at least `length` from now; seconds or a timedelta.

        Leases are extended by themselves while a task runs: this is for a task that is about to
        freeze its whole process for longer than its lease.

        Raises:
            LeaseLost: the message belongs to somebody else now.
        """
        await self._ties.extend(self, parse_duration(length))

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Open a transaction that commits the block's writes and this message's completion.

        Both happen or neither: the writes take effect exactly once, however often the message
        is delivered. Defer follow-ups on the same connection to make them part of it:
        `await other.options(connection=connection).defer(…)`.

        Raises:
            LeaseLost: the message belongs to somebody else now; everything is rolled back.
        """
        if self.settled:
            raise RuntimeError("this message was completed by an earlier transaction()")
        async with self._ties.transaction(self) as connection:
            yield connection
        self.settled = True


def current_message() -> Context:
    """Return the context of the message that is being run, from anywhere below the task.

    Raises:
        RuntimeError: called outside a running task.
    """
    try:
        return running.get()
    except LookupError:
        raise RuntimeError(
            "current_message() is only known inside a task that a worker runs"
        ) from None
