"""The specification of the lease holds, and each of its rules is needed."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import attrs
import pytest
from unit.lease_spec import (
    INVARIANTS,
    SENT,
    Broken,
    Found,
    Kind,
    Lease,
    Rules,
    State,
    Statement,
    Step,
    running,
    told,
    walk,
)

SPEC = Path(__file__).parents[2] / "docs" / "spec"

NEEDED: dict[tuple[Broken, str], int] = {
    ("no fence", "OnlyTheHolderSettles"): 4,
    ("no fence", "NobodyElsesLeaseIsEnded"): 4,
    ("no fence", "NobodyElsesLeaseIsExtended"): 3,
    ("no fence", "TogetherOnlyAfterExpiry"): 8,
    ("read_ct lowered", "OnlyTheHolderSettles"): 5,
    ("read_ct lowered", "NobodyElsesLeaseIsEnded"): 5,
    ("read_ct lowered", "NobodyElsesLeaseIsExtended"): 5,
    ("read_ct lowered", "DeliveryNeverFalls"): 3,
    ("vt alone", "OnlyTheHolderSettles"): 4,
    ("vt alone", "NobodyElsesLeaseIsEnded"): 4,
    ("vt alone", "NobodyElsesLeaseIsExtended"): 3,
    ("own clock", "OnlyTheHolderSettles"): 4,
    ("own clock", "NobodyElsesLeaseIsEnded"): 4,
    ("count ignored", "EffectsOnce"): 5,
    ("insert alone", "NeverInTwoPlaces"): 4,
    ("insert alone", "CompletedAtMostOnce"): 5,
    ("delete alone", "NeverLost"): 4,
    ("claims leased", "DeliveriesArePaidFor"): 2,
    ("claims leased", "TogetherOnlyAfterExpiry"): 4,
}
"""What each rule is needed for, and in how many steps things go wrong without it."""


@pytest.fixture(scope="module")
def seen() -> Found:
    """All states in which each worker holds one message at a time."""
    return walk(Rules())


@pytest.fixture(scope="module", params=["one slot", "two slots"])
def found(request: pytest.FixtureRequest, seen: Found) -> Found:
    """The same, or all states with fewer mishaps in which each worker may hold two."""
    return seen if request.param == "one slot" else walk(Rules(slots=2, max_mishaps=1))


def way(found: Found, wanted: Callable[[State], bool]) -> list[Step]:
    steps = found.reaching(wanted)
    assert steps is not None
    return steps


def happened(after: State | None) -> State:
    assert after is not None
    return after


def arrived(at: State, kind: Kind) -> State:
    [sent] = [one for one in at.wire if one.kind == kind]
    return Rules().arrive(at, sent)


def test_whatever_happens_all_of_it_holds(found: Found):
    assert found.violated is None, told(found.counterexample, Rules())


def test_without_more_mishaps_every_way_ends_with_all_done(found: Found):
    stuck = found.not_draining()
    assert not stuck, told(found.way_to(min(stuck)), Rules())


def test_what_was_put_back_and_is_extended_all_the_same_may_never_be_due_for_long():
    """Its delay is over, it is extended, its delay is over: for as long as the answer takes."""
    assert not walk(Rules(messages=1)).not_draining()
    found = walk(Rules("extends put back", messages=1))
    assert found.violated is None
    stuck = found.states[min(found.not_draining())]
    assert {lease.phase for lease in stuck.leases} <= {"retry", "release"}
    assert stuck.row[0].back


@pytest.mark.parametrize(("broken", "invariant"), NEEDED)
def test_each_rule_is_needed(broken: Broken, invariant: str):
    rules = Rules(broken)
    found = walk(rules, {invariant: INVARIANTS[invariant]})
    assert found.violated == invariant
    assert len(found.counterexample) == NEEDED[broken, invariant], told(found.counterexample, rules)
    *before, last = found.counterexample
    assert all(INVARIANTS[invariant](step.state) for step in before)
    assert not INVARIANTS[invariant](last.state)


def test_each_rule_and_each_invariant_is_tried():
    tried = {broken for broken, _ in NEEDED} | {"extends put back"}
    assert tried == {*get_args(Broken)} - {"nothing"}
    assert {invariant for _, invariant in NEEDED} == set(INVARIANTS)


@pytest.mark.parametrize("broken", ["no fence", "read_ct lowered", "vt alone", "own clock"])
def test_without_a_fence_a_late_settlement_ends_the_next_ones_lease(broken: Broken):
    invariant = "NobodyElsesLeaseIsEnded"
    *_, before, last = walk(Rules(broken), {invariant: INVARIANTS[invariant]}).counterexample
    late = last.subject
    assert isinstance(late, Statement)
    assert late.kind in SENT
    row = before.state.row[late.message]
    assert (row.turn > late.turn, row.due) == (True, False)
    assert last.state.row[late.message] != row


# Invariants are cheap where nothing goes wrong: these things do happen.


def is_stale(at: State, it: Lease | Statement) -> bool:
    row = at.row[it.message]
    return row.queued and it.turn < row.turn


@pytest.mark.parametrize("kind", [*SENT, "extend"])
def test_what_arrives_too_late_changes_nothing(seen: Found, kind: str):
    def stale(at: State) -> list[Statement]:
        return [sent for sent in at.wire if sent.kind == kind and is_stale(at, sent)]

    at = way(seen, lambda at: bool(stale(at)))[-1].state
    [late] = stale(at)
    after = Rules().arrive(at, late)
    assert late not in after.wire
    assert after._replace(wire=at.wire, leases=at.leases) == at


def test_a_message_is_run_by_two_at_a_time_after_its_lease_ran_out(seen: Found):
    steps = way(seen, lambda at: any(len(running(at, message)) == 2 for message in (0, 1)))
    assert any(step.action in {"Expire", "Lapse", "ForeignRead"} for step in steps)
    assert steps[-1].state.mishaps == 1


def test_a_paused_worker_wakes_up_and_sends_what_no_longer_counts(seen: Found):
    def zombies(at: State) -> list[Lease]:
        return [
            lease
            for lease in at.leases
            if lease.worker in at.paused and lease.phase == "running" and is_stale(at, lease)
        ]

    paused = way(seen, lambda at: bool(zombies(at)))[-1].state
    [zombie] = zombies(paused)
    sent = happened(Rules().complete(happened(Rules().resume(paused, zombie.worker)), zombie))
    after = arrived(sent, "complete")
    assert after == paused._replace(paused=frozenset(), leases=paused.leases - {zombie})


def test_a_commit_arrives_while_a_fresh_process_has_the_same_lease(seen: Found):
    """The one case of two processes with one delivery: whichever commits first is the one."""

    def has_both(at: State) -> bool:
        taken = {(lease.message, lease.turn) for lease in at.leases if lease.phase == "claimed"}
        sent = {(sent.message, sent.turn) for sent in at.wire if sent.kind == "complete"}
        return bool(taken & sent)

    steps = way(seen, has_both)
    assert [step.action for step in steps[-2:]] == ["Crash", "Take"]
    [lease] = steps[-1].state.leases
    committed = arrived(happened(Rules().start(steps[-1].state, lease)), "complete")
    [again] = committed.leases
    twice = arrived(happened(Rules().complete(committed, again)), "complete")
    assert twice.effects[lease.message] == twice.archived[lease.message] == 1
    assert not twice.leases


def test_a_late_extension_keeps_what_was_put_back_from_others_until_it_expires(seen: Found):
    def late(at: State) -> list[Statement]:
        return [
            sent
            for sent in at.wire
            if sent.kind == "extend" and at.row[sent.message].back and at.row[sent.message].due
        ]

    at = way(seen, lambda at: bool(late(at)))[-1].state
    [extension] = late(at)
    put_off = Rules().arrive(at, extension)
    assert not put_off.row[extension.message].due
    assert happened(Rules().expire(put_off, extension.message)).row == at.row


def test_each_action_changes_something(seen: Found):
    did = {action for _, action, _ in seen.ways[1:]}
    # An extension that comes in time changes nothing, as time is not counted; one that comes
    # late leads back to where a state was reached before.
    assert did | {"Extend"} == set(actions_of_the_spec())


# The other form


def spec() -> str:
    return (SPEC / "Lease.tla").read_text()


def config() -> str:
    return (SPEC / "Lease.cfg").read_text()


def actions_of_the_spec() -> list[str]:
    [text] = re.findall(r"^Progress ==$(.*?)^Next ==", spec(), re.DOTALL | re.MULTILINE)
    return re.findall(r"\b([A-Z]\w+)\(", text.replace("MayBeOnItsWay(w)", ""))


def test_both_forms_use_the_same_words():
    [variables] = re.findall(r"^VARIABLES$(.*?)^$", spec(), re.DOTALL | re.MULTILINE)
    assert re.findall(r"^ +(\w+),? +\\\*", variables, re.MULTILINE) == list(State._fields)
    [broken] = re.findall(r"ASSUME Broken \\in \{(.*?)\}", spec(), re.DOTALL)
    assert re.findall(r'^ +"([^"]+)"', broken, re.MULTILINE) == list(get_args(Broken))
    [invariants] = re.findall(r"INVARIANTS\n(.*?)PROPERTIES", config(), re.DOTALL)
    assert invariants.split() == ["TypeOK", *INVARIANTS]


def test_the_readme_has_the_figures(found: Found, request: pytest.FixtureRequest):
    slots, mishaps = (1, 2) if "one slot" in request.node.name else (2, 1)
    figures = (
        f"| {slots} | {mishaps} | {len(found.states):,} | {found.transitions:,} | {found.depth} |"
    )
    assert figures in (SPEC / "README.md").read_text()


@attrs.frozen
class Tlc:
    """The model checker of TLA+, and where it may work."""

    jar: str
    folder: Path

    def check(self, config: str) -> str:
        """Check the specification with this configuration; return what was said."""
        shutil.copy(SPEC / "Lease.tla", self.folder)
        (self.folder / "Lease.cfg").write_text(config)
        command = ["java", "-XX:+UseSerialGC", "-cp", self.jar, "tlc2.TLC", "-nowarning"]
        said = subprocess.run(
            [*command, "-deadlock", "-workers", "1", "-metadir", "states", "Lease.tla"],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        return said.stdout


@pytest.fixture
def tlc(tmp_path: Path) -> Tlc:
    jar = os.environ.get("PGTASKS_TLC_JAR")
    if jar is None or shutil.which("java") is None:
        pytest.skip("no PGTASKS_TLC_JAR that names a tla2tools.jar, or no java")
    return Tlc(str(Path(jar).absolute()), tmp_path)


@pytest.mark.timeout(300)
def test_tlc_visits_the_same_states(tlc: Tlc, found: Found, request: pytest.FixtureRequest):
    config = configured("nothing")
    if "two slots" in request.node.name:
        config = config.replace("Slots = 1", "Slots = 2").replace("Mishaps = 2", "Mishaps = 1")
    said = tlc.check(config)
    assert "No error has been found" in said, said
    # It counts the first state as generated too.
    generated, distinct = found.transitions + 1, len(found.states)
    assert f"{generated} states generated, {distinct} distinct states found" in said
    assert f"depth of the complete state graph search is {found.depth}." in said


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("broken", "invariant"), NEEDED)
def test_tlc_needs_each_rule_too(tlc: Tlc, broken: Broken, invariant: str):
    config = re.sub(
        r"INVARIANTS.*", f"INVARIANTS {invariant}\n", configured(broken), flags=re.DOTALL
    )
    said = tlc.check(config)
    assert f"Invariant {invariant} is violated" in said, said
    assert len(re.findall(r"^State \d+:", said, re.MULTILINE)) == 1 + NEEDED[broken, invariant]


@pytest.mark.timeout(300)
def test_tlc_needs_what_was_put_back_to_be_let_alone_too(tlc: Tlc):
    alone = configured("extends put back").replace("{m1, m2}", "{m1}")
    said = tlc.check(alone)
    assert "Temporal properties were violated" in said, said


def configured(broken: Broken) -> str:
    return config().replace('Broken = "nothing"', f'Broken = "{broken}"')
