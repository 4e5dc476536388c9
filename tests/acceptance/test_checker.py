"""The checker itself: it passes what is as promised, and it finds each promise that is broken."""

from collections.abc import Callable
from typing import Any

import attrs
import pytest
from acceptance.checker import Checker
from acceptance.conftest import StartWorker
from acceptance.evidence import Backend, Evidence, Exit, Stored
from acceptance.history import Event, History
from acceptance.judgement import Figures, Rules, judge
from acceptance.tables import Tables
from acceptance.tasks_under_test import quick
from msgspec.structs import replace

from pgtasks import Client

FIRST, SECOND = 11, 22
"""Two worker processes."""


def told(what: str, key: str, at: float, *, pid: int = FIRST, delivery: int = 1) -> Event:
    note = "1" if what == "start" else ""
    return Event(what, key, pid, at, delivery, note)


def noted(what: str, key: str, at: float, note: str = "") -> Event:
    return Event(what, key, 1, at, 0, note)


def archived(key: str, message_id: int, *, pid: int = FIRST, delivery: int = 1, **state: Any):
    worker = f"host:{pid}:abc"
    more = {"outcome": "done", "attempts": 1, "worker": worker} | state
    return Stored("default", message_id, delivery, key, is_archived=True, state=more)


def waiting(key: str, message_id: int, *, delivery: int, due_in: float, **state: Any):
    return Stored("default", message_id, delivery, key, False, state, due_in)


def run(key: str, began: float, ended: float, **where: int) -> list[Event]:
    return [told("start", key, began, **where), told("end", key, ended, **where)]


ACCEPTED = [
    noted("accepted", "a", 0.1, "default 1 done effect"),
    noted("accepted", "b", 0.1, "default 2 done -"),
]
CALM = Evidence(
    events=[*run("a", 1.0, 1.5), *run("b", 1.0, 2.0)],
    notes=ACCEPTED,
    stored=[archived("a", 1), archived("b", 2)],
    effects={"a": 1},
    backends=[Backend("pgtasks client", "idle", 60.0)],
    exits=[Exit(pid=10, code=0, took=1.0, grace_seconds=5.0)],
    logs='{"event": "worker ready"}',
    secrets=["secret"],
)
"""Two messages, run once each, and nothing left."""
KILLED = attrs.evolve(
    CALM,
    events=[
        *run("a", 1.0, 1.5),
        told("start", "b", 1.0),
        *run("b", 3.0, 4.0, pid=SECOND, delivery=2),
    ],
    notes=[*ACCEPTED, noted("fault", "SIGKILL", 1.8, f"10 {FIRST}")],
    stored=[archived("a", 1), archived("b", 2, pid=SECOND, delivery=2)],
    exits=[Exit(pid=10, code=-9, is_killed=True), *CALM.exits],
)
"""The process that ran `b` was killed, and another one ran it again."""
FROZEN = attrs.evolve(
    KILLED,
    events=[
        *run("a", 1.0, 1.5),
        *run("b", 1.0, 3.5),
        *run("b", 3.0, 4.0, pid=SECOND, delivery=2),
    ],
    notes=[
        *ACCEPTED,
        noted("fault", "SIGSTOP", 1.2, str(FIRST)),
        noted("over", "SIGSTOP", 3.4, str(FIRST)),
    ],
)
"""It was frozen, and went on while another one ran it."""


def violations(evidence: Evidence, **rules: Any) -> set[str]:
    """Which promises the evidence breaks, by their names."""
    return {text.partition(":")[0] for text in judge(evidence, Rules(**rules)).violations}


@pytest.mark.parametrize("evidence", [CALM, KILLED, FROZEN], ids=["calm", "killed", "frozen"])
def test_what_is_as_promised_passes(evidence: Evidence) -> None:
    assert judge(evidence, Rules()).violations == ()


@pytest.mark.parametrize("place", [0, 2])
def test_what_a_test_says_of_a_message_wins(place: int) -> None:
    """Each is written down as one that may end in any way, before or after."""
    notes, anything = list(ACCEPTED), noted("accepted", "b", 0.1, "default 2 any -")
    notes.insert(place, anything)
    failed = attrs.evolve(CALM, stored=[archived("a", 1), archived("b", 2, outcome="failed")])

    assert violations(attrs.evolve(failed, notes=[ACCEPTED[0], anything])) == set()
    assert violations(attrs.evolve(failed, notes=notes)) == {"wrong outcome"}
    assert judge(attrs.evolve(CALM, notes=notes), Rules()).figures.accepted == 2


def test_a_lease_that_could_not_be_extended_may_run_out() -> None:
    left = [archived("a", 1), waiting("b", 2, delivery=1, due_in=2.0)]
    cut_off = attrs.evolve(
        CALM,
        events=[*run("a", 1.0, 1.5), told("start", "b", 1.0), told("cancelled", "b", 2.5)],
        stored=left,
    )
    locked = noted("fault", "locked-rows", 1.2), noted("over", "locked-rows", 2.6)

    assert violations(cut_off, is_drained=False) == {"stuck"}
    assert violations(attrs.evolve(cut_off, notes=[*ACCEPTED, *locked]), is_drained=False) == set()


def test_without_knowing_the_faults_what_they_excuse_is_not_asked() -> None:
    unexplained = attrs.evolve(KILLED, notes=ACCEPTED)
    assert violations(unexplained) == {"unexplained run", "miscounted"}
    assert violations(unexplained, knows_faults=False) == set()
    assert violations(attrs.evolve(CALM, stored=[]), knows_faults=False) == {"lost"}


def test_figures_of_a_kill() -> None:
    figures = judge(KILLED, Rules()).figures

    assert figures == Figures(
        accepted=2, starts=3, duplicates=1, in_flight=2,
        recovered_in={"SIGKILL": 3.0 - 1.8}, exited_in=1.0,
    )  # fmt: skip
    assert "duplicates 1" in str(figures)
    assert "SIGKILL again in 1.20 s" in str(figures)


def test_a_zombie_overlaps_and_is_counted() -> None:
    assert judge(FROZEN, Rules()).figures.overlaps == 1


BROKEN: dict[str, tuple[str, Callable[[], Evidence]]] = {
    "gone": ("lost", lambda: attrs.evolve(CALM, stored=[archived("a", 1)])),
    "gone, whatever was to become of it": (
        "lost",
        lambda: attrs.evolve(
            CALM,
            events=run("a", 1.0, 1.5),
            notes=[ACCEPTED[0], noted("accepted", "b", 0.1, "default 2 any -")],
            stored=[archived("a", 1)],
        ),
    ),
    "archived unrun": ("lost", lambda: attrs.evolve(CALM, events=run("a", 1.0, 1.5))),
    "left in the queue": (
        "unfinished",
        lambda: attrs.evolve(
            CALM, stored=[*CALM.stored, waiting("c", 3, delivery=0, due_in=-1.0)]
        ),
    ),
    "in queue and archive": (
        "doubled",
        lambda: attrs.evolve(
            CALM, stored=[*CALM.stored, waiting("b", 2, delivery=1, due_in=-1.0)]
        ),
    ),
    "deferred once, stored twice": (
        "doubled",
        lambda: attrs.evolve(CALM, stored=[*CALM.stored, archived("b", 3)]),
    ),
    "perhaps deferred, stored twice": (
        "doubled",
        lambda: attrs.evolve(
            CALM,
            notes=[*ACCEPTED, noted("unsure", "c", 0.2)],
            events=[*CALM.events, *run("c", 3.0, 4.0)],
            stored=[*CALM.stored, archived("c", 3), archived("c", 4)],
        ),
    ),
    "rolled back and run": (
        "rolled back",
        lambda: attrs.evolve(CALM, notes=[*ACCEPTED, noted("rolled-back", "b", 0.3)]),
    ),
    "failed instead of done": (
        "wrong outcome",
        lambda: attrs.evolve(CALM, stored=[archived("a", 1), archived("b", 2, outcome="crashed")]),
    ),
    "settled by the frozen one": (
        "stale settlement",
        lambda: attrs.evolve(FROZEN, stored=[archived("a", 1), archived("b", 2, delivery=2)]),
    ),
    "settled as an old delivery": (
        "stale settlement",
        lambda: attrs.evolve(FROZEN, stored=[archived("a", 1), archived("b", 2, delivery=1)]),
    ),
    "settled before its end": (
        "settled before its end",
        lambda: attrs.evolve(CALM, events=[*run("a", 1.0, 1.5), told("start", "b", 1.0)]),
    ),
    "ended more often than delivered": (
        "delivery lowered",
        lambda: attrs.evolve(CALM, stored=[archived("a", 1), archived("b", 2, releases=1)]),
    ),
    "given back, delivery taken back": (
        "delivery lowered",
        lambda: attrs.evolve(
            CALM, stored=[*CALM.stored, waiting("c", 3, delivery=0, due_in=-1.0, releases=1)]
        ),
    ),
    "two runs in one delivery": (
        "delivery lowered",
        lambda: attrs.evolve(CALM, events=[*CALM.events, *run("b", 3.0, 4.0)]),
    ),
    "held by nobody": (
        "stuck",
        lambda: attrs.evolve(
            CALM, stored=[*CALM.stored, waiting("c", 3, delivery=1, due_in=2.0)]
        ),
    ),
    "held for longer than a lease": (
        "stuck",
        lambda: attrs.evolve(
            KILLED, stored=[*KILLED.stored, waiting("c", 3, delivery=1, due_in=20.0)]
        ),
    ),
    "run again without a fault": (
        "unexplained run",
        lambda: attrs.evolve(KILLED, notes=ACCEPTED),
    ),
    "run again long after its end": (
        "unexplained run",
        lambda: attrs.evolve(
            KILLED, notes=[*ACCEPTED, noted("fault", "SIGKILL", 0.5, f"10 {FIRST}")]
        ),
    ),
    "run again for the fault of another": (
        "unexplained run",
        lambda: attrs.evolve(KILLED, notes=[*ACCEPTED, noted("fault", "SIGKILL", 1.8, "33")]),
    ),
    "begun while it ran": (
        "overlap",
        lambda: attrs.evolve(
            FROZEN, notes=[*ACCEPTED, noted("fault", "network", 1.2), noted("over", "network", 3.4)]
        ),
    ),
    "a failure that was none": (
        "miscounted",
        lambda: attrs.evolve(
            KILLED,
            stored=[archived("a", 1), archived("b", 2, pid=SECOND, delivery=2, failures=1)],
        ),
    ),
    "an attempt too many": (
        "miscounted",
        lambda: attrs.evolve(
            CALM,
            events=[*run("a", 1.0, 1.5), Event("start", "b", FIRST, 1.0, 1, "2"), CALM.events[-1]],
        ),
    ),
    "a delivery that nobody had": (
        "miscounted",
        lambda: attrs.evolve(
            CALM,
            events=[*run("a", 1.0, 1.5), *run("b", 1.0, 2.0, delivery=2)],
            stored=[archived("a", 1), archived("b", 2, delivery=2)],
        ),
    ),
    "two effects": ("double effect", lambda: attrs.evolve(CALM, effects={"a": 2})),
    "no effect": ("double effect", lambda: attrs.evolve(CALM, effects={})),
    "a backend": (
        "left open",
        lambda: attrs.evolve(CALM, backends=[Backend("pgtasks keeper", "idle", 1.0)]),
    ),
    "a transaction": (
        "left open",
        lambda: attrs.evolve(
            CALM, backends=[Backend("pgtasks client", "idle in transaction", 9.0)]
        ),
    ),
    "a lock": ("left open", lambda: attrs.evolve(CALM, advisory_locks=1)),
    "a process": ("exit", lambda: attrs.evolve(CALM, exits=[Exit(10, 0, leftovers=1)])),
    "the wrong code": ("exit", lambda: attrs.evolve(CALM, exits=[Exit(10, 3)])),
    "too long a stop": (
        "exit",
        lambda: attrs.evolve(CALM, exits=[Exit(10, 0, took=12.0, grace_seconds=5.0)]),
    ),
    "a password": ("log", lambda: attrs.evolve(CALM, logs='{"event": "at secret"}')),
    "a traceback": (
        "log",
        lambda: attrs.evolve(CALM, logs="Traceback (most recent call last):\n  ..."),
    ),
    "a forgotten coroutine": (
        "log",
        lambda: attrs.evolve(CALM, logs='{"event": "Task exception was never retrieved"}'),
    ),
    "a deadlock in the log": (
        "log",
        lambda: attrs.evolve(
            CALM, logs='{"event": "failed, trying again", "error": "DeadlockDetectedError: x"}'
        ),
    ),
    "a deadlock in a task": (
        "log",
        lambda: attrs.evolve(CALM, events=[*CALM.events, Event("error", "a", 1, 1.2, 1, "40P01")]),
    ),
}  # fmt: skip
"""What is wrong, the promise that it breaks, and what it looks like."""


@pytest.mark.parametrize("wrong", BROKEN)
def test_each_broken_promise_is_found(wrong: str) -> None:
    promise, evidence = BROKEN[wrong]

    assert promise in violations(evidence())


def test_every_promise_is_broken_by_some_example() -> None:
    from acceptance import judgement

    assert {promise for promise, _ in BROKEN.values()} == set(judgement._CHECKS)


async def test_a_case_without_faults(
    start_worker: StartWorker, client: Client, tables: Tables, history: History, checker: Checker
) -> None:
    """From a real worker and a real database."""
    start_worker("--concurrency", "4").wait_until_ready()
    for n in range(20):
        history.accepted(f"m{n}", await quick.defer(f"m{n}"))

    figures = await checker.check()

    assert (figures.accepted, figures.starts, figures.duplicates) == (20, 20, 0)
    assert [note.key for note in history.notes() if note.what == "accepted"] == [
        f"m{n}" for n in range(20) for _ in ("by itself", "by this test")
    ]
    history.accepted("never", replace(await quick.defer("other"), message_id=10**6))
    with pytest.raises(AssertionError, match="never was accepted") as caught:
        await checker.check(drained=False)
    assert "lost 1" in str(caught.value)


async def test_a_case_that_asks_for_nothing_is_judged_by_what_it_left(
    start_worker: StartWorker, client: Client, tables: Tables, checker: Checker
) -> None:
    start_worker().wait_until_ready()
    for key in ("left", "gone"):
        await quick.options(delay=60).defer(key)
    await checker.check_what_is_left()

    await tables.connection.execute("DELETE FROM pgmq.q_default WHERE msg_id = 2")
    with pytest.raises(AssertionError, match="gone was accepted, and is neither"):
        await checker.check_what_is_left()
