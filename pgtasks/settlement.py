"""Settlement: how a lease ends, decided from how the run went. Pure: nothing is written here."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import attrs
import msgspec

from pgtasks.codec import sanitize
from pgtasks.message import Message, State, write_state
from pgtasks.outcome import Discard, RetryLater, Snooze
from pgtasks.policy import Policy
from pgtasks.retry import Retry
from pgtasks.safe_text import bounded, text_of
from pgtasks.short_traceback import short_traceback

Outcome = Literal["done", "failed", "discarded", "undecodable", "crashed"]

Kind = Literal["done", "retried", "given up", "snoozed", "released", "put back"]
"""What became of the message, as counted and logged."""

MAX_ERROR_CHARS = 2_000
MAX_TRACEBACK_CHARS = 8_000
_LONGEST_UNKNOWN = 300.0
_NOW = timedelta(0)


@attrs.frozen
class Settlement:
    """What is to be done with one leased message: delete it, archive it, or run it again."""

    action: Literal["complete", "archive", "retry"]
    kind: Kind
    state: str | None = None
    delay: timedelta = _NOW
    durable: bool = False


_DONE = {durable: Settlement("complete", "done", durable=durable) for durable in (False, True)}
"""The same for all messages: making one takes 0.7 µs."""


@attrs.frozen
class Ended:
    """How one run of a message ended, for whoever watches a worker."""

    message: Message
    """As it was claimed."""
    task: str | None
    """The name of its task; None when the message says none."""
    kind: Kind
    error: BaseException | None = None
    """What it ended with, if not by returning."""


class Run(msgspec.Struct, frozen=True, gc=False):
    """The facts of a run that every record of it carries."""

    seconds: float
    worker: str


def succeeded(message: Message, policy: Policy, run: Run) -> Settlement:
    """Settle a message whose task returned."""
    if policy.on_success == "delete":
        return _DONE[policy.durable]
    state = message.state
    return _archived(state, "done", run, state.failures + 1, durable=policy.durable)


def failed(message: Message, policy: Policy, error: BaseException, run: Run) -> Settlement:
    """Settle a message whose task raised: try again by its policy, or give it up."""
    state = _counted(message, error, run)
    delay = policy.retry.delay_after(state.failures, error)
    if delay is None:
        return _given_up(policy, state, "failed", run)
    return _again("retried", state, delay, durable=policy.durable)


def asked_for_later(message: Message, policy: Policy, asked: RetryLater, run: Run) -> Settlement:
    """Settle a message whose task wants another attempt later."""
    state = _counted(message, asked, run)
    retry = policy.retry
    # A policy that only retries certain errors still retries what asked for it.
    spent = (
        state.failures > retry.max_retries
        if isinstance(retry, Retry)
        else retry.delay_after(state.failures, asked) is None
    )
    if spent:
        return _given_up(policy, state, "failed", run)
    return _again("retried", state, asked.delay, durable=policy.durable)


def snoozed(message: Message, asked: Snooze) -> Settlement:
    """Settle a message whose task wants to run later, at no cost."""
    state = message.state
    state = attrs.evolve(state, snoozes=state.snoozes + 1)
    return _again("snoozed", state, asked.delay)


def discarded(message: Message, policy: Policy, asked: Discard, run: Run) -> Settlement:
    """Settle a message whose task says that it is not worth another attempt."""
    return _given_up(policy, _counted(message, asked, run), "discarded", run)


def released(message: Message) -> Settlement:
    """Settle a message that was not run, or not to its end, because its worker stops."""
    state = message.state
    state = attrs.evolve(state, releases=state.releases + 1)
    return _again("released", state, _NOW)


def undecodable(message: Message, reason: str, run: Run) -> Settlement:
    """Settle a message that cannot become a call: no attempt would change that."""
    return _archived(message.state, "undecodable", run, 0, reason=reason)


def not_for_us(message: Message) -> Settlement:
    """Settle a message that this worker does not know how to run: another, newer one may."""
    state = message.state
    ceiling = min(_LONGEST_UNKNOWN, 2.0 ** min(state.unknown, 10))
    delay = timedelta(seconds=random.uniform(ceiling / 2, ceiling))
    state = attrs.evolve(state, unknown=state.unknown + 1)
    return _again("put back", state, delay)


def read_elsewhere(message: Message) -> Settlement:
    """Settle a message that was read so often, by other programs it seems, that we must run it.

    Its deliveries so far are put down to them: if it crashes its processes, more will follow.
    """
    state = message.state
    state = attrs.evolve(state, elsewhere=state.elsewhere + message.unexplained + 1)
    return _again("put back", state, _NOW)


def crashed(message: Message, reason: str, run: Run) -> Settlement:
    """Settle a message that brought its process down as often as is allowed."""
    return _archived(message.state, "crashed", run, 0, reason=reason)


def error_record(error: BaseException, attempt: int, worker: str) -> dict[str, Any]:
    """Return what is kept of an error: bounded, storable, without values of variables."""
    return {
        "attempt": attempt,
        "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "error": sanitize(bounded(describe_error(error), MAX_ERROR_CHARS), MAX_ERROR_CHARS),
        "traceback": sanitize(
            short_traceback(error, max_chars=MAX_TRACEBACK_CHARS), MAX_TRACEBACK_CHARS
        ),
        "worker": worker,
    }


def describe_error(error: BaseException) -> str:
    """Return an error's type and text in one line, whatever its `__str__` does."""
    text, name = text_of(error), type(error).__name__
    return f"{name}: {text}" if text else name


def _counted(message: Message, error: BaseException, run: Run) -> State:
    state = message.state
    failures = state.failures + 1
    record = error_record(error, failures, run.worker)
    return attrs.evolve(state, failures=failures).with_error(record)


def _given_up(policy: Policy, state: State, outcome: Outcome, run: Run) -> Settlement:
    if policy.on_failure == "delete":
        return Settlement("complete", "given up", durable=policy.durable)
    return _archived(state, outcome, run, state.failures, durable=policy.durable)


def _archived(
    state: State,
    outcome: Outcome,
    run: Run,
    attempts: int,
    *,
    reason: str = "",
    durable: bool = False,
) -> Settlement:
    more: dict[str, Any] = {
        "outcome": outcome,
        "attempts": attempts,
        "seconds": round(run.seconds, 6),
        "worker": run.worker,
    }
    if reason:
        more["reason"] = sanitize(bounded(reason, MAX_ERROR_CHARS), MAX_ERROR_CHARS)
    kind: Kind = "done" if outcome == "done" else "given up"
    stored = write_state(state.as_dict(**more))
    return Settlement("archive", kind, state=stored, durable=durable)


def _again(kind: Kind, state: State, delay: timedelta, *, durable: bool = False) -> Settlement:
    stored = write_state(state.as_dict())
    return Settlement("retry", kind, state=stored, delay=delay, durable=durable)
