"""What the benchmarks' pictures show."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.picture import Bar, pictures
from benchmarks.report import Curve, Result, distribution, to_json
from benchmarks.stats import Series

RESULTS = (
    Result("memory", "not shown", (Series("child", "MB", (40.0,)),)),
    Result(
        "peers-drain",
        "no-op tasks",
        (
            Series("slow 1.0", "messages/s", (480.0, 500.0)),
            Series("pgtasks 0.1.0", "messages/s", (20_000.0, 30_000.0)),
        ),
    ),
    Result(
        "pickup",
        "an idle worker",
        (),
        curves=(
            distribution("worker, from the commit", [float(number) for number in range(1, 101)]),
            distribution("worker, from the call", [1000.0]),
        ),
    ),
    Result("pinned", "20 times", (), curves=(Curve("control", (1.0, 2.0), (5.0, 6.0)),)),
)


def found() -> dict[str, Any]:
    facts = {"date": "2026-11-27 14:00 UTC", "cpu": "2 cores, some; shared"}
    data: dict[str, Any] = json.loads(to_json(facts, RESULTS))
    return data


def test_only_what_matters_becomes_a_picture() -> None:
    assert [picture.name for picture in pictures(found()["results"])] == [
        "peers",
        "pickup",
        "pinned",
    ]


def test_bars_have_their_median_and_spread_and_the_fastest_stands_first() -> None:
    peers = pictures(found()["results"])[0]
    assert peers.title == "No-op tasks"
    assert peers.bars[0] == Bar("pgtasks 0.1.0", 25_000.0, 20_000.0, 30_000.0)
    assert peers.bars[1].label == "slow 1.0"


def test_the_last_percent_does_not_make_all_else_a_line() -> None:
    pickup = pictures(found()["results"])[1]
    assert [curve.label for curve in pickup.curves] == ["worker, from the commit"]
    assert pickup.x_max == pytest.approx(1.2 * 99)


def test_the_same_figures_give_the_same_small_files(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from benchmarks import plots

    first = plots.draw(found(), tmp_path / "first")
    second = plots.draw(found(), tmp_path / "second")
    assert {name: file.name for name, file in first.items()} == {
        "peers-drain": "peers.svg",
        "pickup": "pickup.svg",
        "pinned": "pinned.svg",
    }
    for one, other in zip(first.values(), second.values(), strict=True):
        assert one.read_bytes() == other.read_bytes()
        assert one.stat().st_size < 60_000
