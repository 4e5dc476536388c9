"""Judgement: does the evidence show what pgtasks promises, and how well did it do? Pure."""

from bisect import bisect
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

import attrs
from acceptance.evidence import Evidence, Stored
from acceptance.history import ANY, Event
from acceptance.runs import Fault, Run, faults_of, runs_of

EXIT_SECONDS = 3.0
"""How long after its grace a worker may take to be gone."""
IDLE_SECONDS = 5.0
"""How long a transaction may stand open with nobody using it."""
FREEZING = frozenset({"SIGSTOP", "blocked"})
"""Faults under which a run goes on after its lease is over, because it knows of nothing."""
FORGETTING = frozenset({"postgres-killed"})
"""Faults under which claims of the last moment are forgotten: whoever claims such a message next
has the same delivery as who runs it."""
LOSING = frozenset({"locked-rows", "locked-table"})
"""Faults under which a lease is lost to nobody, since it could not be extended: it runs out."""
GENTLE = frozenset({"SIGTERM", "SIGINT", "SIGHUP", "SIGCONT"})
"""They end runs, and cost no delivery."""
_WORKERS = ("scheduler", "settler", "keeper", "listener", "supervisor", "alone", "ticker", "pruner")
_FAILING = frozenset({"raised", "cancelled"})
"""How a run ends that may count as a failure: one that took too long was cancelled."""
_UNHANDLED = ("Traceback (most recent", "never retrieved", "destroyed but it is pending")
_CLASHES = ("40P01", "40001", "DeadlockDetected", "SerializationError")


@attrs.frozen
class Accepted:
    """A message whose `defer` had returned, and how it is to end."""

    key: str
    queue: str
    message_id: int
    becomes: str
    has_effect: bool


@attrs.frozen
class Rules:
    """What differs from case to case."""

    is_drained: bool = True
    """Nothing may be left waiting."""
    is_over: bool = True
    """All workers have ended."""
    codes: tuple[int, ...] = (0,)
    lease_seconds: float = 3.0
    keeps_successes: bool = True
    """They are archived, and not deleted."""
    may_overlap: bool = False
    """Threads cannot be ended when their lease is lost."""
    knows_faults: bool = True
    """All that was done to the worker and its database is written down."""
    shows_tracebacks: bool = False
    """An error of the user's own code is to be shown."""
    late_seconds: float = 3.0
    """What a busy machine may add to a time."""


@attrs.frozen
class Figures:
    """What is counted in every case."""

    accepted: int = 0
    starts: int = 0
    lost: int = 0
    duplicates: int = 0
    """Starts beyond the first that no outcome of the task explains."""
    in_flight: int = 0
    """Runs that were hit by a fault: there can be no more duplicates than these."""
    stale: int = 0
    """Settlements by a worker whose lease was over."""
    double_effects: int = 0
    overlaps: int = 0
    """Runs that began while an earlier one of the same message went on."""
    recovered_in: Mapping[str, float] = attrs.field(factory=dict)
    """By kind of fault: the longest time until a message that was hit ran again."""
    resumed_in: Mapping[str, float] = attrs.field(factory=dict)
    """By kind of fault: the longest time from its end until any run ended."""
    exited_in: float = 0.0
    """The longest time from a signal to the end of a worker."""

    def __str__(self) -> str:
        """In one line."""
        whole = {
            name: value
            for name, value in attrs.asdict(self).items()
            if name not in {"recovered_in", "resumed_in", "exited_in"}
        }
        times = {f"{kind} again in": seconds for kind, seconds in self.recovered_in.items()}
        times |= {f"{kind} over in": seconds for kind, seconds in self.resumed_in.items()}
        times |= {"exit in": self.exited_in} if self.exited_in else {}
        said = [f"{name.replace('_', ' ')} {value}" for name, value in whole.items()]
        return ", ".join(said + [f"{name} {seconds:.2f} s" for name, seconds in times.items()])


@attrs.frozen
class Verdict:
    """The figures of a case, and each broken promise in a sentence."""

    figures: Figures
    violations: tuple[str, ...]


@attrs.frozen
class _Case:
    """The evidence, ordered by what is asked of it."""

    evidence: Evidence
    rules: Rules
    accepted: Sequence[Accepted]
    runs: Mapping[str, Sequence[Run]]
    faults: Sequence[Fault]
    by_key: Mapping[str, Sequence[Stored]]

    @classmethod
    def of(cls, evidence: Evidence, rules: Rules) -> "_Case":
        by_key: dict[str, list[Stored]] = defaultdict(list)
        for one in evidence.stored:
            if one.key is not None:
                by_key[one.key].append(one)
        accepted = _all_accepted(evidence.notes)
        runs = runs_of(evidence.events)
        return cls(
            evidence, rules, accepted, runs, faults_of(evidence.events, evidence.notes), by_key
        )

    def noted(self, what: str) -> set[str]:
        return {note.key for note in self.evidence.notes if note.what == what}

    def has_ended(self, key: str) -> bool:
        """A run of it ended, or committed and was not told so."""
        ended = any(run.how == "end" for run in self.runs.get(key, ()))
        return ended or bool(self.evidence.effects.get(key))

    def has_lost_its_lease(self, key: str | None) -> bool:
        runs, losing = self.runs.get(key or "", ()), [f for f in self.faults if f.kind in LOSING]
        return any(fault.hit(run) for fault in losing for run in runs)

    def was_forgotten(self, run: Run) -> bool:
        return any(f.kind in FORGETTING and f.hit(run) for f in self.faults)

    @property
    def is_harmless(self) -> bool:
        """Nothing was done that could cost a delivery."""
        return all(fault.kind in GENTLE for fault in self.faults)


def judge(evidence: Evidence, rules: Rules) -> Verdict:
    """Hold the evidence against every promise."""
    case = _Case.of(evidence, rules)
    asked = [name for name in _CHECKS if rules.knows_faults or name not in _BY_FAULTS]
    found = {name: list(_CHECKS[name](case)) for name in asked}
    runs = [run for of_one in case.runs.values() for run in of_one]
    again = [pair for of_one in case.runs.values() for pair in _again(of_one)]
    figures = Figures(
        accepted=len(case.accepted),
        starts=len(runs),
        lost=len(found["lost"]),
        duplicates=sum(before.how in {"", "end"} for before, _ in again),
        in_flight=sum(any(fault.hit(run) for fault in case.faults) for run in runs),
        stale=len(found["stale settlement"]),
        double_effects=len(found["double effect"]),
        overlaps=sum(after.started_at < before.ended_at < float("inf") for before, after in again),
        recovered_in=_recovered_in(case, again),
        resumed_in=_resumed_in(case),
        exited_in=max((one.took for one in evidence.exits if one.took is not None), default=0.0),
    )
    said = (f"{name}: {text}" for name, texts in found.items() for text in texts)
    return Verdict(figures, tuple(said))


# What was accepted


def _lost(case: _Case) -> Iterator[str]:
    there = {(one.queue, one.message_id) for one in case.evidence.stored}
    for one in case.accepted:
        has_ended = case.has_ended(one.key)
        is_there = (one.queue, one.message_id) in there
        if not is_there and (case.rules.keeps_successes or not has_ended):
            yield f"{one.key} was accepted, and is neither in its queue nor in the archive"
        elif case.rules.is_drained and one.becomes == "done" and not has_ended:
            yield f"{one.key} was accepted, and no run of it ended"


def _doubled(case: _Case) -> Iterator[str]:
    rows = Counter((one.queue, one.message_id) for one in case.evidence.stored)
    yield from (
        f"message {id_} of {queue} is there twice" for (queue, id_), n in rows.items() if n > 1
    )
    asked = Counter(one.key for one in case.accepted)
    for key in asked.keys() | case.noted("unsure"):
        most = max(1, asked[key])
        if len(case.by_key.get(key, ())) > most:
            yield f"{key} was deferred {most} times at most, and stored more often"


def _rolled_back(case: _Case) -> Iterator[str]:
    for key in case.noted("rolled-back"):
        if key in case.runs or key in case.by_key:
            yield f"{key} was deferred in a transaction that was rolled back, and is there"


def _unfinished(case: _Case) -> Iterator[str]:
    waiting = [one for one in case.evidence.stored if not one.is_archived]
    if case.rules.is_drained and waiting:
        yield f"{len(waiting)} messages were left, such as {waiting[0]}"


def _outcome(case: _Case) -> Iterator[str]:
    expected = {(one.queue, one.message_id): one for one in case.accepted}
    for one in case.evidence.stored:
        wanted = expected.get((one.queue, one.message_id))
        became = one.state.get("outcome")
        if one.is_archived and wanted is not None and wanted.becomes not in {ANY, became}:
            yield f"{wanted.key} was to be {wanted.becomes}, and is {became}: {dict(one.state)}"


# Leases


def _stale(case: _Case) -> Iterator[str]:
    """The archive is written by whoever has the highest delivery, and nobody else."""
    for one in case.evidence.stored:
        runs = case.runs.get(one.key or "", ())
        if not (one.is_archived and runs and one.state.get("outcome") in {"done", "failed"}):
            continue
        if len(case.by_key[one.key or ""]) > 1:
            continue  # several messages of one key cannot be told apart
        latest = max(run.delivery for run in runs)
        by = str(one.state.get("worker", "")).split(":")
        # One that committed may have been killed before it could say so.
        told = bool(case.evidence.effects.get(one.key or ""))
        holders = {str(run.pid) for run in runs if run.delivery == latest and (run.how or told)}
        if one.delivery < latest:
            yield f"{one.key} was settled as delivery {one.delivery}, and {latest} had started"
        elif len(by) == 3 and by[1] not in holders:
            yield f"{one.key} was settled by {by[1]}, and delivery {latest} ran in {holders}"


def _unrun(case: _Case) -> Iterator[str]:
    """What is done has been run to its end, in the delivery that says so."""
    for one in case.evidence.stored:
        runs = case.runs.get(one.key or "")
        if not (one.is_archived and runs and one.state.get("outcome") == "done"):
            continue
        if not case.has_ended(one.key or ""):
            yield f"{one.key} is done, and no run of it has ended"


def _lowered(case: _Case) -> Iterator[str]:
    for one in case.evidence.stored:
        final = one.is_archived and one.state.get("outcome") == "done"
        if one.ended + final > one.delivery:
            yield f"{one.key} was delivered {one.delivery} times, and has ended more often: {one}"
        starts = [run.delivery for run in case.runs.get(one.key or "", ())]
        if len(case.by_key.get(one.key or "", ())) == 1 and max(starts, default=0) > one.delivery:
            yield f"{one.key} is delivery {one.delivery}, and ran as {max(starts)}"
    for key, runs in case.runs.items():
        kept = (run for run in runs if run.delivery and not case.was_forgotten(run))
        again = Counter((run.pid, run.delivery) for run in kept)
        if len(case.by_key.get(key, ())) == 1 and max(again.values(), default=0) > 1:
            yield f"{key} was run twice in one delivery by one process"


def _stuck(case: _Case) -> Iterator[str]:
    """Nothing is held by a worker that is gone for longer than its lease."""
    longest = case.rules.lease_seconds if not all(map(_was_clean, case.evidence.exits)) else 0.0
    for one in case.evidence.stored:
        is_leased = not one.is_archived and one.delivery > one.ended
        allowed = case.rules.lease_seconds if case.has_lost_its_lease(one.key) else longest
        if case.rules.is_over and is_leased and one.due_in > allowed:
            yield f"{one.key} is held for {one.due_in:.1f} s more, and no worker is left: {one}"


def _was_clean(exit_: object) -> bool:
    return getattr(exit_, "code", None) == 0


# Runs


def _unexplained(case: _Case) -> Iterator[str]:
    """Each start beyond the first has its reason in how the run before it ended, or in a fault."""
    for key, runs in case.runs.items():
        spare = len(case.by_key.get(key, ())) or 1
        for before, after in _again(runs):
            if before.how in {"raised", "snoozed"} or any(f.hit(before) for f in case.faults):
                continue
            spare -= 1  # as many first starts as there are messages of that key
            if spare < 1:
                yield f"{key} ran again without a reason: {before}, then {after}"


def _overlapping(case: _Case) -> Iterator[str]:
    if case.rules.may_overlap:
        return
    for key, runs in case.runs.items():
        for before, after in _again(runs):
            is_over = before.ended_at == float("inf") or before.ended_at <= after.started_at
            frozen = any(f.kind in FREEZING and f.hit(before) for f in case.faults)
            excused = frozen or case.was_forgotten(before)
            if not is_over and not excused and len(case.by_key.get(key, ())) < 2:
                yield f"{key} began in {after.pid} while it still ran in {before.pid}"


def _miscounted(case: _Case) -> Iterator[str]:
    for one in case.evidence.stored:
        runs = case.runs.get(one.key or "", ())
        failed = sum(run.how in _FAILING for run in runs)
        failures = one.state.get("failures", 0)
        if runs and failures > failed and one.state.get("outcome") not in {None, "discarded"}:
            yield f"{one.key} failed {failed} times, and {failures} failures are counted"
        if case.is_harmless and one.is_archived and one.delivery - 1 > one.ended:
            yield f"{one.key} has lost a delivery without a fault: {one}"
    for key, runs in case.runs.items():
        for number, run in enumerate(runs):
            before = sum(earlier.how in _FAILING for earlier in runs[:number])
            if run.attempt is not None and run.attempt > before + 1:
                yield f"{key} was in attempt {run.attempt} after {before} failures"


def _effects(case: _Case) -> Iterator[str]:
    for key, count in case.evidence.effects.items():
        if count > 1:
            yield f"{key} took effect {count} times"
    archived = {one.key for one in case.evidence.stored if one.is_archived}
    for one in case.accepted:
        if one.has_effect and one.key in archived and not case.evidence.effects.get(one.key):
            yield f"{one.key} is done, and its effect is missing"


# Processes and connections


def _left_open(case: _Case) -> Iterator[str]:
    for backend in case.evidence.backends:
        purpose = backend.purpose.removeprefix("pgtasks ")
        if case.rules.is_over and purpose in _WORKERS:
            yield f"a connection of the {purpose} has outlived its worker: {backend}"
        if backend.state.startswith("idle in transaction") and backend.seconds > IDLE_SECONDS:
            yield f"a transaction stands open and idle: {backend}"
    if case.evidence.advisory_locks and case.rules.is_over:
        yield f"{case.evidence.advisory_locks} advisory locks are held"


def _exits(case: _Case) -> Iterator[str]:
    for one in case.evidence.exits:
        if one.leftovers:
            yield f"{one.leftovers} processes of worker {one.pid} have outlived it"
        if not one.is_killed and one.code not in case.rules.codes:
            yield f"worker {one.pid} ended with code {one.code}, not {case.rules.codes}"
        longest = one.grace_seconds + EXIT_SECONDS + case.rules.late_seconds
        if not one.is_killed and one.took is not None and one.took > longest:
            yield f"worker {one.pid} took {one.took:.1f} s to end, {longest:.1f} s were allowed"


def _said(case: _Case) -> Iterator[str]:
    for line in case.evidence.logs.splitlines():
        if any(secret in line for secret in case.evidence.secrets if secret):
            yield "a password stands in the log of a worker"
        is_unhandled = not line.startswith("{") and line.startswith(_UNHANDLED)
        if is_unhandled and not case.rules.shows_tracebacks:
            yield f"an unhandled error: {line}"
        if any(text in line for text in _UNHANDLED[1:]):
            yield f"a coroutine was left alone: {line}"
        if '"failed, ' in line and any(text in line for text in _CLASHES):
            yield f"a clash of ours reached a task: {line}"
    for event in case.evidence.events:
        if event.what == "error" and any(text in event.note for text in _CLASHES):
            yield f"a clash of ours reached {event.key}: {event.note}"


_CHECKS: Mapping[str, Callable[[_Case], Iterable[str]]] = {
    "lost": _lost,
    "doubled": _doubled,
    "rolled back": _rolled_back,
    "unfinished": _unfinished,
    "wrong outcome": _outcome,
    "stale settlement": _stale,
    "settled before its end": _unrun,
    "delivery lowered": _lowered,
    "stuck": _stuck,
    "unexplained run": _unexplained,
    "overlap": _overlapping,
    "miscounted": _miscounted,
    "double effect": _effects,
    "left open": _left_open,
    "exit": _exits,
    "log": _said,
}


_BY_FAULTS = frozenset({"stuck", "unexplained run", "miscounted"})
"""Promises that hold but for certain faults."""


def _again(runs: Sequence[Run]) -> Iterator[tuple[Run, Run]]:
    return pairwise(runs)


def _recovered_in(case: _Case, again: Iterable[tuple[Run, Run]]) -> dict[str, float]:
    longest: dict[str, float] = {}
    for before, after in again:
        for fault in case.faults:
            # A freeze also hits what began at its end, which has nothing to recover from.
            if fault.hit(before) and before.started_at <= fault.at <= after.started_at:
                seconds = after.started_at - fault.at
                longest[fault.kind] = max(seconds, longest.get(fault.kind, 0.0))
    return longest


def _resumed_in(case: _Case) -> dict[str, float]:
    ends = sorted(run.ended_at for of_one in case.runs.values() for run in of_one)
    longest: dict[str, float] = {}
    for fault in case.faults:
        place = bisect(ends, fault.until)
        if fault.until > fault.at and place < len(ends) and ends[place] < float("inf"):
            seconds = ends[place] - fault.until
            longest[fault.kind] = max(seconds, longest.get(fault.kind, 0.0))
    return longest


def _all_accepted(notes: Sequence[Event]) -> list[Accepted]:
    """Return each message once: what its test said of it counts, before or after."""
    said = [_accepted(note) for note in notes if note.what == "accepted"]
    said.sort(key=lambda one: one.becomes != ANY)  # and stay in order otherwise
    return list({(one.queue, one.message_id): one for one in said}.values())


def _accepted(note: Event) -> Accepted:
    queue, message_id, becomes, effect = note.note.split(" ")
    return Accepted(note.key, queue, int(message_id), becomes, effect == "effect")
