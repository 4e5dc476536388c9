"""Other systems beside us: what is asked of them, and what is said when one cannot be had."""

import ast
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks import arguments, peers
from benchmarks.peers import side
from benchmarks.peers.catalogue import OURS, PEERS, Peer
from benchmarks.peers.environment import reason_in
from benchmarks.peers.run import ratios
from benchmarks.stats import Series

FOLDER = Path(peers.__file__).parent


def test_peers_are_measured_only_when_asked_for() -> None:
    """They are installed for it, which nobody expects of `all`."""
    assert arguments.PEERS not in arguments.read(["all"]).names
    assert arguments.read(["all", "peers"]).names == (*arguments.NAMES, arguments.PEERS)


@pytest.mark.parametrize("peer", [OURS, *PEERS], ids=lambda peer: peer.name)
def test_each_system_has_a_file_that_does_what_is_asked(peer: Peer) -> None:
    """Read and not imported: it is not installed here."""
    tree = ast.parse((FOLDER / f"{peer.name}.py").read_text(encoding="utf-8"))
    functions = {node.name for node in tree.body if isinstance(node, ast.AsyncFunctionDef)}
    assert {"prepare", "produce", "work"} <= functions


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_each_system_is_pinned(peer: Peer) -> None:
    """A figure is of a version."""
    assert peer.requirements[0].startswith(peer.package)
    assert "==" in peer.requirements[0]


def test_why_a_system_could_not_be_installed() -> None:
    text = (
        "ERROR: Ignored the following versions that require a different python version: "
        "0.5.0 Requires-Python >=3.12; 0.7.0 Requires-Python >=3.12\n"
        "ERROR: No matching distribution found for oban==0.7.*\n"
    )
    assert reason_in(text).startswith("it wants Python >=3.12, and this is 3.")
    offline = "WARNING: Retrying\nERROR: No matching distribution found for awa-pg==0.6.*\n"
    assert reason_in(offline) == "No matching distribution found for awa-pg==0.6.*"
    assert reason_in("") == "it did not say why"


def test_it_is_said_how_many_times_theirs_ours_is() -> None:
    series = (
        Series("pgtasks 0.1.0", "messages/s", (30.0, 40.0)),
        Series("other 2.0", "messages/s", (10.0, 10.0), beside="pgtasks 0.1.0"),
    )
    assert ratios(series, "pgtasks 0.1.0") == "pgtasks, in the same rounds: 3.50 times other 2.0."
    assert not ratios(series[1:], None)


async def test_a_producer_defers_many_of_which_the_first_and_the_last_are_stamped() -> None:
    deferred: list[int] = []

    async def many(numbers: Sequence[int]) -> None:
        deferred.extend(numbers)

    async def one(number: int) -> None:
        deferred.append(number)

    producer = side.Producer(many, one)
    assert await side.defer_many(producer, 5) > 0
    assert deferred == [1, 0, 0, 0, 2]
    deferred.clear()
    answered = await side.defer_paced(producer, 3, 0.001)
    assert deferred == [1, 2, 3]
    assert answered == sorted(answered)
    deferred.clear()
    rate = await side.defer_singly(producer, 2, 0.01)
    assert rate > 0
    assert set(deferred) == {0}
