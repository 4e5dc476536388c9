"""Report: what was found, as a table, on the terminal and in the documentation."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from chaos.case import Row

BEGIN = "<!-- figures: written by `make chaos WRITE=1` -->"
END = "<!-- end of figures -->"
_COLUMNS = (
    "times",
    "accepted",
    "lost",
    "stale settlements",
    "double effects",
    "run again / in flight",
    "measured",
    "target",
)
_HEAD = (f"| what was done | {' | '.join(_COLUMNS)} |", f"|---|{'--:|' * len(_COLUMNS)}")


def to_markdown(facts: Mapping[str, str], rows: Sequence[Row]) -> str:
    """Return the facts and the table."""
    listed = "\n".join(f"- {name}: {value}" for name, value in facts.items())
    return "\n".join((listed, "", *_HEAD, *map(_line, rows)))


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


def _line(row: Row) -> str:
    figures = row.verdict.figures
    cells = (
        row.name,
        str(row.strikes),
        f"{figures.accepted:,}",
        str(figures.lost),
        str(figures.stale),
        str(figures.double_effects),
        f"{figures.duplicates} / {figures.in_flight}",
        "" if row.measured is None else f"{row.measured:.1f} s",
        "" if row.target_seconds is None else f"{row.target_seconds:g} s",
    )
    return f"| {' | '.join(cells)} |"
