"""The lease as docs/spec/Lease.tla has it, action by action, and a walk through all its states.

    python tests/unit/lease_spec.py                 # walk, count, say what does not hold
    python tests/unit/lease_spec.py --broken "no fence"
    python tests/unit/lease_spec.py --mishaps 3 --slots 2

Workers and messages are numbers from 0; in words they are w1, w2, m1, m2, as in the other one.
"""

import argparse
import sys
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from time import perf_counter
from typing import Literal, NamedTuple, TypeAlias, TypeVar, cast, get_args

import attrs

T = TypeVar("T")

Broken = Literal[
    "nothing",
    "no fence",
    "read_ct lowered",
    "vt alone",
    "own clock",
    "count ignored",
    "insert alone",
    "delete alone",
    "claims leased",
    "extends put back",
]
SentPhase = Literal["complete", "retry", "release"]
Kind = Literal["complete", "retry", "release", "extend"]
Phase = Literal["claimed", "running", "complete", "retry", "release", "left", "suspect"]

SENT: Collection[Phase] = ("complete", "retry", "release")
LIVE: Collection[Phase] = ("claimed", "running", *SENT)


# Named tuples, not attrs classes: half a million of them are made and hashed.


class Row(NamedTuple):
    """A message's row."""

    queued: bool
    delivery: int
    turn: int
    due: bool
    back: bool


class Lease(NamedTuple):
    """What a worker process knows of a message that it holds, or held."""

    worker: int
    message: int
    delivery: int
    turn: int
    phase: Phase
    over: bool


class Statement(NamedTuple):
    """What was sent and has not arrived."""

    message: int
    delivery: int
    turn: int
    kind: Kind


class State(NamedTuple):
    """Everything there is, at one moment."""

    row: tuple[Row, ...]
    archived: tuple[int, ...]
    effects: tuple[int, ...]
    deleted: frozenset[int]
    leases: frozenset[Lease]
    wire: frozenset[Statement]
    paused: frozenset[int]
    mishaps: int
    wrongs: frozenset[str]


GONE = Row(queued=False, delivery=0, turn=0, due=False, back=False)

Subject: TypeAlias = int | Lease | Statement | tuple[int, int] | tuple[int, Statement]
"""Whom or what a step is about: a worker or a message, or what is known or sent of one."""


class Step(NamedTuple):
    """One thing that may happen, and what comes of it."""

    action: str
    subject: Subject
    state: State


@attrs.frozen
class Rules:
    """The rules, and how far to look."""

    broken: Broken = "nothing"
    slots: int = 1
    max_mishaps: int = 2
    workers: int = 2
    messages: int = 2

    def beginning(self) -> State:
        """Both messages are due, and nobody knows of them."""
        row = GONE._replace(queued=True, due=True)
        nothing = (0,) * self.messages
        none: frozenset[int] = frozenset()
        return State(
            (row,) * self.messages,
            nothing,
            nothing,
            none,
            frozenset(),
            frozenset(),
            none,
            0,
            frozenset(),
        )

    def steps(self, at: State) -> Iterator[tuple[str, Subject, State | None]]:
        """All that may happen next; None is what comes of what may not."""
        yield from self._progress(at)
        if at.mishaps < self.max_mishaps:
            yield from self._mishaps(at)

    def _progress(self, at: State) -> Iterator[tuple[str, Subject, State | None]]:
        for worker in range(self.workers):
            yield "Resume", worker, self.resume(at, worker)
            for message in range(self.messages):
                yield "Claim", (worker, message), self.claim(at, worker, message)
        for lease in at.leases:
            for action, comes in PROGRESS_OF_LEASE.items():
                yield action, lease, comes(self, at, lease)
        for sent in at.wire:
            yield "Arrive", sent, self.arrive(at, sent)
        for message in range(self.messages):
            yield "Expire", message, self.expire(at, message)

    def _mishaps(self, at: State) -> Iterator[tuple[str, Subject, State | None]]:
        for lease in at.leases:
            for action, comes in MISHAPS_OF_LEASE.items():
                yield action, lease, comes(self, at, lease)
        for sent in at.wire:
            yield "AnswerLost", sent, self.answer_lost(at, sent)
        for message in range(self.messages):
            yield "Lapse", message, self.lapse(at, message)
            yield "ForeignRead", message, self.foreign_read(at, message)
            yield "ForeignDelete", message, self.foreign_delete(at, message)
        for worker in range(self.workers):
            yield "Crash", worker, self.crash(at, worker)
            yield "Pause", worker, self.pause(at, worker, frozenset())
            for lease in held_by(at, worker):
                if lease.phase not in SENT:
                    late = statement_of(lease, "extend")
                    yield "Pause", (worker, late), self.pause(at, worker, frozenset([late]))

    # What a statement does when it arrives

    def stands(self, at: State, it: Lease | Statement) -> bool:
        row = at.row[it.message]
        if not row.queued:
            return False
        if self.broken in {"no fence", "own clock"}:
            return True
        if self.broken == "vt alone":
            return not row.due
        return row.delivery == it.delivery

    def execute(self, at: State, it: Lease | Statement, kind: Kind) -> State:
        stands, completes = self.stands(at, it), kind == "complete"
        archived, effects = at.archived, at.effects
        if completes and stands and self.broken != "delete alone":
            archived = changed(archived, it.message, archived[it.message] + 1)
        if completes and (stands or self.broken == "count ignored"):
            effects = changed(effects, it.message, effects[it.message] + 1)
        if not stands:
            return at if effects is at.effects else at._replace(effects=effects)
        return at._replace(
            row=changed(at.row, it.message, self._row_after(at.row[it.message], kind)),
            archived=archived,
            effects=effects,
            wrongs=at.wrongs | wrongs_of(at.row[it.message], it, kind),
        )

    def _row_after(self, old: Row, kind: Kind) -> Row:
        match kind:
            case "complete":
                return old if self.broken == "insert alone" else GONE
            case "extend":
                return old._replace(due=False)
            case "retry":
                return old._replace(due=False, back=True)
            case "release":
                lowered = self.broken == "read_ct lowered"
                return old._replace(due=True, back=True, delivery=old.delivery - lowered)

    def extended(self, at: State, it: Lease | Statement) -> State:
        """What comes of an extension; what it found standing is not over."""
        after = self.execute(at, it, "extend")
        if not self.stands(at, it):
            return after
        turn = at.row[it.message].turn
        return after._replace(leases=with_over(at.leases, it.message, turn, over=False))

    # What workers do

    def claim(self, at: State, worker: int, message: int) -> State | None:
        row = at.row[message]
        if not (row.queued and (row.due or self.broken == "claims leased")):
            return None
        if not is_up(at, worker) or len(held_by(at, worker)) >= self.slots:
            return None
        new = read(row)
        lease = Lease(worker, message, new.delivery, new.turn, "claimed", over=False)
        return at._replace(row=changed(at.row, message, new), leases=at.leases | {lease})

    def start(self, at: State, lease: Lease) -> State | None:
        if lease.phase != "claimed" or not is_up(at, lease.worker):
            return None
        return at._replace(leases=in_phase(at, lease, "running"))

    def send(self, at: State, lease: Lease, kind: SentPhase) -> State | None:
        if not is_up(at, lease.worker) or (self.broken == "own clock" and lease.over):
            return None
        wire = at.wire | {statement_of(lease, kind)}
        return at._replace(leases=in_phase(at, lease, kind), wire=wire)

    def complete(self, at: State, lease: Lease) -> State | None:
        return self.send(at, lease, "complete") if lease.phase == "running" else None

    def retry(self, at: State, lease: Lease) -> State | None:
        if lease.phase != "running":
            return None
        return after_mishap(self.send(at, lease, "retry"))

    def release(self, at: State, lease: Lease) -> State | None:
        if lease.phase not in {"claimed", "running"}:
            return None
        return after_mishap(self.send(at, lease, "release"))

    def extend(self, at: State, lease: Lease) -> State | None:
        if lease.phase not in LIVE or not is_up(at, lease.worker) or not self.stands(at, lease):
            return None
        put_back = lease.phase in SENT and at.row[lease.message].back
        if put_back and self.broken != "extends put back":
            return None
        return self.extended(at, lease)

    def lose(self, at: State, lease: Lease) -> State | None:
        if lease.phase not in {"claimed", "running"} or not lease.over:
            return None
        return at._replace(leases=at.leases - {lease}) if is_up(at, lease.worker) else None

    def doubt(self, at: State, lease: Lease) -> State | None:
        if lease.phase != "complete" or not is_up(at, lease.worker):
            return None
        return after_mishap(at._replace(leases=in_phase(at, lease, "running")))

    # What arrives

    def arrive(self, at: State, sent: Statement) -> State:
        extends = sent.kind == "extend"
        after = self.extended(at, sent) if extends else self.execute(at, sent, sent.kind)
        leases = after.leases - waiting(after, sent)
        return after._replace(leases=leases, wire=at.wire - {sent})

    def answer_lost(self, at: State, sent: Statement) -> State | None:
        return after_mishap(self.execute(at, sent, sent.kind)) if waiting(at, sent) else None

    # What supervisors do for what their dead processes held

    def give_back(self, at: State, lease: Lease) -> State | None:
        if lease.phase not in {"left", "suspect"}:
            return None
        return self.execute(at, lease, "release")._replace(leases=at.leases - {lease})

    def take(self, at: State, lease: Lease) -> State | None:
        if lease.phase != "suspect" or not is_up(at, lease.worker):
            return None
        if not self.stands(at, lease):
            return at._replace(leases=at.leases - {lease})
        return self.extended(at._replace(leases=in_phase(at, lease, "claimed")), lease)

    # What happens to them

    def run_out(self, at: State, message: int) -> State | None:
        row = at.row[message]
        if not row.queued or row.due:
            return None
        return at._replace(
            row=changed(at.row, message, row._replace(due=True)),
            leases=with_over(at.leases, message, row.turn, over=True),
        )

    def expire(self, at: State, message: int) -> State | None:
        return None if is_kept(at, message) else self.run_out(at, message)

    def lapse(self, at: State, message: int) -> State | None:
        return after_mishap(self.run_out(at, message)) if is_kept(at, message) else None

    def foreign_read(self, at: State, message: int) -> State | None:
        row = at.row[message]
        if not row.queued:
            return None
        leases = with_over(at.leases, message, row.turn, over=True)
        return after_mishap(at._replace(row=changed(at.row, message, read(row)), leases=leases))

    def foreign_delete(self, at: State, message: int) -> State | None:
        row = at.row[message]
        if not row.queued:
            return None
        after = at._replace(
            row=changed(at.row, message, GONE),
            deleted=at.deleted | {message},
            leases=with_over(at.leases, message, row.turn, over=True),
        )
        return after_mishap(after)

    def pause(self, at: State, worker: int, late: frozenset[Statement]) -> State | None:
        if not is_up(at, worker) or not held_by(at, worker):
            return None
        return after_mishap(at._replace(paused=at.paused | {worker}, wire=at.wire | late))

    def resume(self, at: State, worker: int) -> State | None:
        return None if is_up(at, worker) else at._replace(paused=at.paused - {worker})

    def crash(self, at: State, worker: int) -> State | None:
        held = held_by(at, worker)
        if not held:
            return None
        left = {
            lease._replace(phase="suspect" if lease.phase in {"running", "complete"} else "left")
            for lease in held
        }
        leases = at.leases.difference(held) | left
        return after_mishap(at._replace(paused=at.paused - {worker}, leases=leases))


OfLease: TypeAlias = Callable[[Rules, State, Lease], State | None]

PROGRESS_OF_LEASE: Mapping[str, OfLease] = {
    "Start": Rules.start,
    "Complete": Rules.complete,
    "Extend": Rules.extend,
    "Lose": Rules.lose,
    "GiveBack": Rules.give_back,
    "Take": Rules.take,
}
MISHAPS_OF_LEASE: Mapping[str, OfLease] = {
    "Retry": Rules.retry,
    "Release": Rules.release,
    "Doubt": Rules.doubt,
}


def read(row: Row) -> Row:
    return Row(True, row.delivery + 1, row.turn + 1, due=False, back=False)


def is_up(at: State, worker: int) -> bool:
    return worker not in at.paused


def held_by(at: State, worker: int) -> list[Lease]:
    return [one for one in at.leases if one.worker == worker and one.phase in LIVE]


def is_kept(at: State, message: int) -> bool:
    row = at.row[message]
    return not row.back and any(
        one.message == message
        and one.turn == row.turn
        and one.phase in LIVE
        and is_up(at, one.worker)
        for one in at.leases
    )


def statement_of(lease: Lease, kind: Kind) -> Statement:
    return Statement(lease.message, lease.delivery, lease.turn, kind)


def waiting(at: State, sent: Statement) -> set[Lease]:
    message, _, turn, kind = sent
    return {
        one
        for one in at.leases
        if one.message == message and one.turn == turn and one.phase == kind
    }


def in_phase(at: State, lease: Lease, phase: Phase) -> frozenset[Lease]:
    return at.leases - {lease} | {lease._replace(phase=phase)}


def with_over(leases: frozenset[Lease], message: int, turn: int, *, over: bool) -> frozenset[Lease]:
    return frozenset(
        one._replace(over=over) if one.message == message and one.turn == turn else one
        for one in leases
    )


def wrongs_of(row: Row, it: Lease | Statement, kind: Kind) -> frozenset[str]:
    if it.turn == row.turn:
        return frozenset()
    if kind == "extend":
        return frozenset(["stale extension"])
    if row.due:
        return frozenset(["stale settlement"])
    return frozenset(["stale settlement", "another's lease ended"])


def after_mishap(at: State | None) -> State | None:
    return None if at is None else at._replace(mishaps=at.mishaps + 1)


def changed(values: tuple[T, ...], place: int, value: T) -> tuple[T, ...]:
    return (*values[:place], value, *values[place + 1 :])


# What always holds


def running(at: State, message: int) -> list[Lease]:
    return [one for one in at.leases if one.message == message and one.phase == "running"]


def completed_at_most_once(at: State) -> bool:
    return max(at.archived) <= 1


def never_in_two_places(at: State) -> bool:
    return not any(
        archived and (row.queued or message in at.deleted)
        for message, (row, archived) in enumerate(zip(at.row, at.archived, strict=True))
    )


def never_lost(at: State) -> bool:
    return all(
        row.queued or archived or message in at.deleted
        for message, (row, archived) in enumerate(zip(at.row, at.archived, strict=True))
    )


def effects_once(at: State) -> bool:
    return all(
        effects == 0 or (effects == 1 and not row.queued)
        for row, effects in zip(at.row, at.effects, strict=True)
    )


def delivery_never_falls(at: State) -> bool:
    return all(row.delivery == row.turn for row in at.row)


def together_only_after_expiry(at: State) -> bool:
    ran = [one for one in at.leases if one.phase == "running"]
    return all(
        one.over
        for one in ran
        for other in ran
        if one.message == other.message and one.turn < other.turn
    )


def deliveries_are_paid_for(at: State) -> bool:
    return all(
        row.turn <= 1 + 2 * at.mishaps and len(running(at, message)) <= 1 + at.mishaps
        for message, row in enumerate(at.row)
    )


Invariant: TypeAlias = Callable[[State], bool]

INVARIANTS: Mapping[str, Invariant] = {
    "OnlyTheHolderSettles": lambda at: "stale settlement" not in at.wrongs,
    "NobodyElsesLeaseIsEnded": lambda at: "another's lease ended" not in at.wrongs,
    "NobodyElsesLeaseIsExtended": lambda at: "stale extension" not in at.wrongs,
    "CompletedAtMostOnce": completed_at_most_once,
    "NeverInTwoPlaces": never_in_two_places,
    "NeverLost": never_lost,
    "EffectsOnce": effects_once,
    "DeliveryNeverFalls": delivery_never_falls,
    "TogetherOnlyAfterExpiry": together_only_after_expiry,
    "DeliveriesArePaidFor": deliveries_are_paid_for,
}


def is_drained(at: State) -> bool:
    return all(
        archived == 1 or message in at.deleted for message, archived in enumerate(at.archived)
    )


# The walk


@attrs.frozen
class Found:
    """What was seen on a walk, breadth first: whatever is found is found by a shortest way."""

    states: list[State]
    ways: list[tuple[int, str, Subject]]
    """Of each state: from which it was reached first, and how."""
    following: list[list[int]]
    """Of each state: to where it goes by itself, without a mishap."""
    transitions: int
    depth: int
    violated: str | None = None
    """The invariant that does not hold in the last state."""

    def way_to(self, place: int) -> list[Step]:
        """How a state comes about, from the beginning."""
        steps = []
        while place:
            before, action, subject = self.ways[place]
            steps.append(Step(action, subject, self.states[place]))
            place = before
        return steps[::-1]

    @property
    def counterexample(self) -> list[Step]:
        """How the invariant comes to be violated."""
        return [] if self.violated is None else self.way_to(len(self.states) - 1)

    def reaching(self, wanted: Callable[[State], bool]) -> list[Step] | None:
        """How a state like this comes about; None when it does not."""
        for place, state in enumerate(self.states):
            if wanted(state):
                return self.way_to(place)
        return None

    def not_draining(self) -> set[int]:
        """The states from which, without any mishap more, not every way ends with all drained."""
        before: list[list[int]] = [[] for _ in self.states]
        for place, after in enumerate(self.following):
            for one in after:
                before[one].append(place)
        open_ways = [len(after) for after in self.following]
        good = {place for place, state in enumerate(self.states) if is_drained(state)}
        waiting_places = deque(good)
        while waiting_places:
            for one in before[waiting_places.popleft()]:
                open_ways[one] -= 1
                if open_ways[one] == 0 and one not in good:
                    good.add(one)
                    waiting_places.append(one)
        return set(range(len(self.states))) - good


def walk(rules: Rules, invariants: Mapping[str, Invariant] = INVARIANTS) -> Found:
    """Visit every state, or as many as it takes to violate an invariant."""
    states, ways = [rules.beginning()], [(0, "", cast("Subject", 0))]
    places, depths = {states[0]: 0}, [1]
    following: list[list[int]] = []
    transitions = 0
    while len(following) < len(states):
        place = len(following)
        at = states[place]
        following.append([])
        for action, subject, after in rules.steps(at):
            if after is None:
                continue
            transitions += 1
            there = places.setdefault(after, len(states))
            if there == len(states):
                states.append(after)
                ways.append((place, action, subject))
                depths.append(depths[place] + 1)
                for name, holds in invariants.items():
                    if not holds(after):
                        return Found(states, ways, following, transitions, depths[-1], name)
            if after.mishaps == at.mishaps and there != place:
                following[place].append(there)
    return Found(states, ways, following, transitions, depths[-1])


# In words


def told(steps: list[Step], rules: Rules) -> str:
    """A trace to read: what happened, and what was there then."""
    lines = ["0  the beginning", f"     {in_words(rules.beginning())}"]
    for number, step in enumerate(steps, 1):
        lines += [f"{number}  {step.action}({named(step)})", f"     {in_words(step.state)}"]
    return "\n".join(lines)


def named(step: Step) -> str:
    match step.subject:
        case Lease() | Statement() as known:
            return one_in_words(known)
        case (int() as worker, Statement() as late):
            return f"w{worker + 1}, {one_in_words(late)} late"
        case (int() as worker, int() as message):
            return f"w{worker + 1}, m{message + 1}"
        case int() as number:
            return f"{'w' if step.action in {'Pause', 'Resume', 'Crash'} else 'm'}{number + 1}"


def one_in_words(it: Lease | Statement) -> str:
    of = f"m{it.message + 1}/{it.delivery}"
    if isinstance(it, Statement):
        return f"{it.kind} {of}"
    return f"w{it.worker + 1} {it.phase} {of}{' over' if it.over else ''}"


def in_words(at: State) -> str:
    parts = [f"m{message + 1} {_row_in_words(at, message)}" for message in range(len(at.row))]
    parts += sorted(map(one_in_words, at.leases))
    parts += [f"on its way: {one_in_words(sent)}" for sent in sorted(at.wire)]
    parts += [f"w{worker + 1} paused" for worker in sorted(at.paused)]
    return "; ".join([*parts, *sorted(at.wrongs)])


def _row_in_words(at: State, message: int) -> str:
    row, words = at.row[message], []
    if row.queued:
        words.append(f"delivery {row.delivery} {'due' if row.due else 'not due'}")
    words += ["completed"] * at.archived[message] + ["effect"] * at.effects[message]
    words += ["deleted"] * (message in at.deleted)
    return " ".join(words) or "lost"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--broken", choices=get_args(Broken), default="nothing")
    parser.add_argument("--invariant", choices=INVARIANTS, help="look at this one only")
    parser.add_argument("--mishaps", type=int, default=2)
    parser.add_argument("--slots", type=int, default=1)
    said = parser.parse_args()
    rules = Rules(said.broken, said.slots, said.mishaps)
    began_at = perf_counter()
    wanted = INVARIANTS if said.invariant is None else {said.invariant: INVARIANTS[said.invariant]}
    found = walk(rules, wanted)
    seconds = perf_counter() - began_at
    if found.violated is not None:
        sys.stdout.write(f"{told(found.counterexample, rules)}\n\n{found.violated} is violated.\n")
    else:
        stuck = len(found.not_draining())
        sys.stdout.write(f"All invariants hold; from {stuck} states it may not drain.\n")
    sys.stdout.write(
        f"{len(found.states):,} states, {found.transitions:,} transitions, "
        f"{found.depth} deep, {seconds:.1f} s\n"
    )


if __name__ == "__main__":
    main()
