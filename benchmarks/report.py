"""Report: results as Markdown and JSON."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from benchmarks.stats import Series, percentile, ratio

BEGIN = "<!-- results: written by `make bench WRITE=docs/performance.md` -->"
END = "<!-- end of results -->"


@attrs.frozen
class Curve:
    """What a picture shows as one line."""

    label: str
    xs: tuple[float, ...]
    ys: tuple[float, ...]


@attrs.frozen
class Result:
    """What one benchmark found."""

    name: str
    title: str
    series: tuple[Series, ...]
    note: str = ""
    curves: tuple[Curve, ...] = ()


def to_markdown(
    facts: Mapping[str, str], results: Sequence[Result], images: Mapping[str, str] | None = None
) -> str:
    """Return everything as a piece of Markdown, with the images of some results, by name."""
    lines = [f"- {name}: {value}" for name, value in facts.items()]
    images = images or {}
    parts = (_table(result, images.get(result.name)) for result in results)
    return "\n\n".join(("\n".join(lines), *parts))


def to_json(facts: Mapping[str, str], results: Sequence[Result]) -> str:
    """Return everything, with every sample, as JSON."""
    found = [
        {
            "name": result.name,
            "title": result.title,
            "note": result.note,
            "series": [_as_dict(series, result) for series in result.series],
            "curves": [attrs.asdict(curve) for curve in result.curves],
        }
        for result in results
    ]
    return json.dumps({"facts": dict(facts), "results": found}, indent=1, ensure_ascii=False)


def put_between_markers(file: Path, text: str) -> None:
    """Replace what stands between the markers of a file.

    Raises:
        ValueError: the file has no such markers.
    """
    before, begin, rest = file.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{file} has no lines {BEGIN} and {END} to write between")
    file.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}", encoding="utf-8")


def _table(result: Result, image: str | None) -> str:
    rows = [
        f"| {series.label} | {amount(series.median)} {series.unit} "
        f"| {amount(series.low)} … {amount(series.high)} | {_said_ratio(series, result)} |"
        for series in result.series
    ]
    head = ("| | median | min … max | in the same rounds |", "|---|--:|--:|---|")
    table = "\n".join((*head, *rows)) if rows else ""
    shown = "" if image is None else f"![{result.title}]({image})"
    parts = (f"### {result.name}: {result.title}", result.note, shown, table)
    return "\n\n".join(part for part in parts if part)


def _said_ratio(series: Series, result: Result) -> str:
    found = _ratio(series, result)
    return "" if found is None else f"{times(found)} times {series.beside}"


def _ratio(series: Series, result: Result) -> float | None:
    for other in result.series:
        if other.label == series.beside:
            return ratio(series.samples, other.samples)
    return None


def _as_dict(series: Series, result: Result) -> dict[str, Any]:
    return attrs.asdict(series) | {
        "median": series.median,
        "low": series.low,
        "high": series.high,
        "ratio": _ratio(series, result),
    }


def distribution(label: str, samples: Sequence[float]) -> Curve:
    """Return how many percent of the samples are not above each value."""
    percents = tuple(part / 2 for part in range(201))
    return Curve(label, tuple(percentile(samples, percent) for percent in percents), percents)


def times(value: float) -> str:
    """Return a ratio; one far below 1 is not rounded to nothing.

    Example:
        >>> times(3.456), times(0.0123)
        ('3.46', '0.012')
    """
    return f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"


def amount(value: float) -> str:
    """Return a number with as many digits as it deserves.

    Example:
        >>> amount(12345.6), amount(45.67), amount(0.1234)
        ('12,346', '45.7', '0.12')
    """
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
