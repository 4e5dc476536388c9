"""The benchmarks' own arithmetic: a wrong ratio would be believed for a long time."""

import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from benchmarks import arguments
from benchmarks.__main__ import BENCHMARKS
from benchmarks.report import (
    BEGIN,
    END,
    Result,
    amount,
    distribution,
    put_between_markers,
    times,
    to_json,
    to_markdown,
)
from benchmarks.rounds import Sample, compete
from benchmarks.stats import Series, percentile, ratio


def test_the_median_is_not_moved_by_one_bad_round() -> None:
    series = Series("worker", "messages/s", (90.0, 100.0, 5.0, 110.0, 101.0))
    assert (series.low, series.median, series.high) == (5.0, 100.0, 110.0)


def test_ratios_are_of_the_same_round() -> None:
    """Both sides ten times slower in the second round: that says nothing about either."""
    assert ratio((50.0, 5.0, 50.0), (100.0, 10.0, 200.0)) == 0.5


def test_ratios_of_different_rounds_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        ratio((1.0, 2.0), (1.0,))


@pytest.mark.parametrize(
    ("percent", "expected"), [(0, 1), (1, 1), (50, 50), (99, 99), (99.1, 100), (100, 100)]
)
def test_a_percentile_is_one_of_the_samples(percent: float, expected: int) -> None:
    assert percentile(list(range(100, 0, -1)), percent) == expected


def test_the_percentile_of_one_sample_is_that_sample() -> None:
    assert percentile([7.0], 50) == percentile([7.0], 99) == 7.0


async def test_rounds_begin_with_another_each_time_and_the_warm_up_is_not_counted() -> None:
    order: list[str] = []

    def contestant(label: str) -> Callable[[], Awaitable[Sample]]:
        async def turn() -> Sample:
            order.append(label)
            return {label: float(len(order))}

        return turn

    samples = await compete([contestant("a"), contestant("b")], rounds=2)
    assert order == ["a", "b", "a", "b", "b", "a"]
    assert samples == {"a": (3.0, 6.0), "b": (4.0, 5.0)}


@pytest.mark.parametrize(
    ("value", "text"), [(0.123, "0.12"), (45.67, "45.7"), (99.96, "100.0"), (12345.6, "12,346")]
)
def test_amounts(value: float, text: str) -> None:
    assert amount(value) == text


@pytest.mark.parametrize(("value", "text"), [(3.456, "3.46"), (0.375, "0.38"), (0.0032, "0.0032")])
def test_a_small_ratio_is_not_rounded_to_nothing(value: float, text: str) -> None:
    assert times(value) == text


def test_all_means_every_benchmark() -> None:
    assert arguments.read(["all"]).names == arguments.NAMES
    assert (*arguments.NAMES, arguments.PEERS) == tuple(BENCHMARKS)


def test_the_defaults_and_quick() -> None:
    full, quick = arguments.read(["drain"]), arguments.read(["drain", "drain", "--quick"])
    assert (full.names, full.rounds, full.messages) == (("drain",), 5, 50_000)
    assert (quick.names, quick.rounds, quick.messages) == (("drain",), 2, 5_000)


def test_numbers_given_count_more_than_quick() -> None:
    given = arguments.read(["pickup", "--quick", "--rounds", "3", "--messages", "1_000"])
    assert (given.rounds, given.messages) == (3, 1000)


@pytest.mark.parametrize(
    "argv", [[], ["drian"], ["drain", "--rounds", "0"], ["drain", "--messages", "many"]]
)
def test_a_wrong_command_line_is_refused(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        arguments.read(argv)
    assert ended.value.code == 2
    assert "usage: python -m benchmarks" in capsys.readouterr().err


RESULT = Result(
    "drain",
    "no-op tasks",
    (
        Series("worker", "messages/s", (10.0, 30.0), beside="bare loop"),
        Series("bare loop", "messages/s", (40.0, 60.0)),
    ),
    note="Read this.",
)


def test_a_table_names_medians_spread_and_the_paired_ratio() -> None:
    text = to_markdown({"cpu": "2 cores"}, [RESULT])
    assert text.startswith("- cpu: 2 cores\n\n### drain: no-op tasks\n\nRead this.\n\n| |")
    assert (
        "| worker | 20.0 messages/s | 10.0 … 30.0 | 0.38 times bare loop |\n"
        "| bare loop | 50.0 messages/s | 40.0 … 60.0 |  |"
    ) in text


def test_a_picture_stands_above_its_table() -> None:
    text = to_markdown({}, [RESULT], {"drain": "images/drain.svg"})
    assert "Read this.\n\n![no-op tasks](images/drain.svg)\n\n| |" in text


def test_a_distribution_rises_from_the_least_to_the_largest_sample() -> None:
    curve = distribution("worker", [3.0, 1.0, 2.0, 4.0])
    assert (curve.xs[0], curve.xs[100], curve.xs[-1]) == (1.0, 2.0, 4.0)
    assert (curve.ys[0], curve.ys[100], curve.ys[-1]) == (0.0, 50.0, 100.0)
    assert list(curve.xs) == sorted(curve.xs)


def test_json_keeps_every_sample() -> None:
    [found] = json.loads(to_json({}, [RESULT]))["results"]
    assert found["series"][0]["samples"] == [10.0, 30.0]
    assert found["series"][0]["ratio"] == 0.375


def test_only_what_is_between_the_markers_is_replaced(tmp_path: Path) -> None:
    file = tmp_path / "performance.md"
    file.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n", encoding="utf-8")
    for text in ("new", "newer"):
        put_between_markers(file, text)
    assert file.read_text(encoding="utf-8") == f"before\n{BEGIN}\n\nnewer\n\n{END}\nafter\n"


def test_a_file_without_markers_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "README.md"
    file.write_text("no markers", encoding="utf-8")
    with pytest.raises(ValueError, match="has no lines"):
        put_between_markers(file, "new")
    assert file.read_text(encoding="utf-8") == "no markers"
