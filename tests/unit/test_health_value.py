"""Whether a worker works, judged from what its parts say."""

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgtasks.health import TEXTS, Health, Problem, Process, judge
from pgtasks.pulse import Part, Reading

STALE, START = 60.0, 300.0
PARTS: list[Part] = ["loop", "claiming", "settling", "extending", "firing"]

seconds = st.floats(-1e6, 1e6) | st.just(-float("inf"))
readings = st.builds(
    Reading, st.sampled_from(PARTS), seconds, st.none() | st.floats(0, 1e6), st.booleans()
)
processes = st.builds(
    Process,
    st.none() | st.integers(1, 99_999),
    st.booleans(),
    st.floats(0, 1e6),
    st.lists(readings, max_size=6),
)


def kinds(*known: Process) -> list[str]:
    return [problem.kind for problem in judged(*known).problems]


def judged(*known: Process) -> Health:
    return judge(known, stale_after=STALE, start_within=START)


def ready(*known: Reading) -> Process:
    return Process(7, True, 1e6, known)


def test_a_process_whose_parts_keep_their_promises_is_well():
    known = ready(*(Reading(part, late) for part in PARTS for late in (-5.0, 0.0, STALE)))
    assert judged(known, known) == Health((), processes=2)
    assert judged(known).is_live
    assert judged(known).is_ready


@pytest.mark.parametrize(
    ("late", "kind"),
    [
        ({"loop": 61.0}, "held up"),
        ({"loop": 61.0, "claiming": 62.0, "settling": 70.0, "firing": 61.0}, "held up"),
        ({"loop": 61.0, "extending": 61.0, "claiming": 62.0}, "frozen"),
        ({"claiming": 61.0}, "claiming"),
        ({"settling": 61.0}, "settling"),
        ({"extending": 61.0}, "extending"),
        ({"firing": 61.0}, "firing"),
    ],
)
def test_a_part_that_is_stuck_is_named_and_ends_liveness(late: dict[Part, float], kind: str):
    known = ready(*(Reading(part, late.get(part, -1.0)) for part in PARTS))
    [problem] = judged(known).problems
    assert (problem.kind, problem.pid, problem.seconds) == (kind, 7, max(61.0, problem.seconds))
    assert not judged(known).is_live
    assert not judged(known).is_ready


def test_of_several_schedulers_the_one_that_is_stuck_counts():
    known = ready(Reading("claiming", -2.0), Reading("claiming", 99.0), Reading("claiming", 1.0))
    assert judged(known).problems == (Problem("claiming", 99.0, 7),)


def test_one_process_that_is_stuck_is_enough():
    assert not judged(ready(), ready(Reading("loop", 61.0)), ready()).is_live


def test_a_database_that_does_not_answer_ends_readiness_only():
    known = ready(Reading("claiming", -1.0, 3.0), Reading("claiming", -1.0, 5.0))
    assert judged(known).problems == (Problem("database", 5.0, 7),)
    assert (judged(known).is_live, judged(known).is_ready) == (True, False)


@pytest.mark.parametrize("part", ["settling", "extending"])
def test_parts_that_need_the_database_now_and_then_say_nothing_of_it(part: Part):
    """What they tried last may have been long ago."""
    assert judged(ready(Reading(part, -1.0, 99.0))).is_ready


def test_a_process_that_starts_is_live_as_long_as_it_may_take():
    starting = Process(7, False, START, (Reading("loop", 1e6),))
    assert kinds(starting) == ["starting"]
    assert judged(starting).is_live
    late = attrs.evolve(starting, vacant_seconds=START + 1)
    assert kinds(late) == ["slow start"]
    assert not judged(late).is_live


def test_a_process_that_fetches_no_more_is_not_ready():
    known = ready(Reading("claiming", -float("inf"), is_over=True))
    assert kinds(known) == ["draining"]
    assert judged(known).is_live


def test_a_worker_that_stops_is_live_and_not_ready():
    """Nobody may end it for that: what runs has its grace."""
    stopping = Health((Problem("stopping", 0.0),))
    assert (stopping.is_live, stopping.is_ready) == (True, False)


def test_each_reason_is_told_once_and_without_a_name():
    health = judged(*[ready(Reading("loop", 99.0))] * 3, ready(Reading("firing", -1.0, 2.0)))
    assert health.reasons(ready=False) == ["the event loop of a process is held up"]
    assert health.reasons(ready=True) == [
        "the event loop of a process is held up",
        "the database does not answer",
    ]


@given(st.lists(processes, max_size=4))
def test_ready_is_live_and_reasons_say_which(known: list[Process]):
    health = judged(*known)
    assert health.is_live or not health.is_ready
    assert health.is_live == (not health.reasons(ready=False))
    assert health.is_ready == (not health.reasons(ready=True))
    assert set(health.reasons(ready=True)) <= set(TEXTS.values())


@given(st.lists(processes, max_size=4))
def test_live_is_who_is_neither_stuck_nor_late_to_start(known: list[Process]):
    """And so, whatever the database does."""
    stuck = any(
        reading.late_seconds > STALE
        for process in known
        if process.is_ready
        for reading in process.readings
    )
    slow = any(not process.is_ready and process.vacant_seconds > START for process in known)
    assert judged(*known).is_live == (not (stuck or slow))


@given(processes, st.floats(0, 1e6))
def test_what_is_red_is_not_mended_by_time(process: Process, more: float):
    later = attrs.evolve(
        process,
        vacant_seconds=process.vacant_seconds + more,
        readings=[
            attrs.evolve(reading, late_seconds=reading.late_seconds + more)
            for reading in process.readings
        ],
    )
    assert judged(process).is_live or not judged(later).is_live
