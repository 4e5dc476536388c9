"""Plots: the pictures as SVG files, drawn from the JSON that a run wrote.

    python -m benchmarks.plots results.json docs/images

Needs matplotlib, which `pip install -e '.[bench]'` brings.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from benchmarks.picture import Picture, pictures

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#7f3c8d")
"""Told apart by those who see colours differently, too."""
STYLES = ("-", "--", "-.", ":")
OURS, OTHERS = COLOURS[0], "#9aa5b1"
SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: small, and searched for
    "svg.hashsalt": "pgtasks",  # the same figures give the same file
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial"],
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
}


def draw(found: Mapping[str, Any], folder: Path) -> dict[str, Path]:
    """Draw what there is to be drawn of a run; return the files by their results' names."""
    folder.mkdir(parents=True, exist_ok=True)
    facts = found["facts"]
    below = f"{facts['date'][:10]}, {facts['cpu'].partition(';')[0]}"
    with mpl.rc_context(SETTINGS):
        return {
            picture.result: _save(picture, below, folder) for picture in pictures(found["results"])
        }


def _save(picture: Picture, below: str, folder: Path) -> Path:
    height = 0.5 * len(picture.bars) + 1.5 if picture.bars else 3.8
    figure = Figure(figsize=(7.2, height), layout="constrained")
    axes = figure.add_subplot()
    if picture.bars:
        _draw_bars(axes, picture)
    else:
        _draw_curves(axes, picture)
    # Above the figure and not the axes: bars have long labels at the left.
    figure.suptitle(picture.title, x=0.01, ha="left", fontsize=11)
    figure.supxlabel(below, x=0.99, ha="right", fontsize=8, color="#666666")
    file = folder / f"{picture.name}.svg"
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return file


def _draw_bars(axes: Axes, picture: Picture) -> None:
    labels = [bar.label for bar in picture.bars]
    medians = [bar.median for bar in picture.bars]
    spread = (
        [bar.median - bar.low for bar in picture.bars],
        [bar.high - bar.median for bar in picture.bars],
    )
    is_ours = [label.startswith(("worker", "pgtasks")) for label in labels]
    colours = [OURS if ours else OTHERS for ours in is_ours]
    axes.barh(labels, medians, xerr=spread, color=colours, height=0.6, ecolor="#333333", capsize=3)
    for place, bar in enumerate(picture.bars):
        axes.annotate(
            f"{bar.median:,.0f}",
            (bar.high, place),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
        )
    axes.invert_yaxis()
    axes.set_xlim(0, 1.15 * max(bar.high for bar in picture.bars))
    axes.set_xlabel(f"{picture.x_label} (median; the lines: least and largest round)")
    axes.xaxis.set_major_formatter("{x:,.0f}")


def _draw_curves(axes: Axes, picture: Picture) -> None:
    for number, curve in enumerate(picture.curves):
        colour, style = COLOURS[number % len(COLOURS)], STYLES[number % len(STYLES)]
        axes.plot(curve.xs, curve.ys, style, color=colour, label=curve.label, linewidth=1.8)
    if picture.is_logarithmic:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
    else:
        axes.set_xlim(picture.x_min, picture.x_max)
        axes.xaxis.set_major_locator(
            MaxNLocator(10, steps=[1, 2, 5, 10], integer=picture.x_max is None)
        )
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlabel(picture.x_label)
    axes.set_ylabel(picture.y_label)
    axes.grid(visible=True, color="#e5e5e5", linewidth=0.8)
    axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)


if __name__ == "__main__":
    source, target = sys.argv[1:]
    files = draw(json.loads(Path(source).read_text(encoding="utf-8")), Path(target))
    print(*files.values(), sep="\n")
