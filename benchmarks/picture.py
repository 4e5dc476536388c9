"""Picture: which of the results are shown as pictures, and what each shows."""

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from benchmarks.report import Curve

Found = Mapping[str, Any]
"""One result, as it stands in the JSON."""


@attrs.frozen
class Bar:
    """A median, with the least and the largest sample."""

    label: str
    median: float
    low: float
    high: float


@attrs.frozen
class Picture:
    """Bars, or curves."""

    name: str
    """Of its file."""
    result: str
    """The name of the result that it shows."""
    title: str
    x_label: str
    y_label: str = ""
    bars: tuple[Bar, ...] = ()
    curves: tuple[Curve, ...] = ()
    x_min: float | None = None
    x_max: float | None = None
    is_logarithmic: bool = False


def pictures(results: Sequence[Found]) -> list[Picture]:
    """Return a picture of each result that is shown as one."""
    by_name = {result["name"]: result for result in results}
    makers = {
        "drain": _drain,
        "peers-drain": _peers,
        "pickup": _pickup,
        "pinned": _pinned,
        "backlog": _backlog,
    }
    return [make(by_name[name]) for name, make in makers.items() if name in by_name]


def _drain(result: Found) -> Picture:
    return Picture("drain", result["name"], _title(result), "messages a second", bars=_bars(result))


def _peers(result: Found) -> Picture:
    bars = sorted(_bars(result), key=lambda bar: bar.median, reverse=True)
    return Picture("peers", result["name"], _title(result), "messages a second", bars=tuple(bars))


def _pickup(result: Found) -> Picture:
    curves = [curve for curve in _curves(result) if curve.label.endswith("from the commit")]
    # The first and the last percent would make all else a line at the left edge.
    return Picture(
        "pickup",
        result["name"],
        _title(result),
        "ms since the sender had the answer",
        "% of messages that had begun",
        curves=tuple(curves),
        x_min=min(_at(curve, 1) for curve in curves),
        x_max=1.2 * max(_at(curve, 99) for curve in curves),
    )


def _pinned(result: Found) -> Picture:
    return Picture(
        "pinned",
        result["name"],
        _title(result),
        "how often it was filled and emptied so far",
        "messages a second",
        curves=_curves(result),
    )


def _backlog(result: Found) -> Picture:
    return Picture(
        "backlog",
        result["name"],
        _title(result),
        "ms that a claim took",
        "% of claims that took no longer",
        curves=_curves(result),
        is_logarithmic=True,
    )


def _title(result: Found) -> str:
    title: str = result["title"]
    return title[0].upper() + title[1:]


def _bars(result: Found) -> tuple[Bar, ...]:
    return tuple(
        Bar(series["label"], series["median"], series["low"], series["high"])
        for series in result["series"]
    )


def _curves(result: Found) -> tuple[Curve, ...]:
    return tuple(
        Curve(curve["label"], tuple(curve["xs"]), tuple(curve["ys"])) for curve in result["curves"]
    )


def _at(curve: Curve, percent: float) -> float:
    """Return the least value of a distribution that so many percent do not exceed."""
    return next(x for x, y in zip(curve.xs, curve.ys, strict=True) if y >= percent)
