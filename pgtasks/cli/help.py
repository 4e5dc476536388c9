"""How help looks: plain columns, alike on a terminal and in a pipe."""

from textwrap import wrap
from typing import Any

from cyclopts.help import HelpEntry, HelpPanel

_WIDTH = 98
_MOST_LABEL = 30


def print_panel(console: Any, _options: Any, panel: HelpPanel) -> None:
    """Print one group of commands or options; what cyclopts calls a help formatter."""
    if not panel.entries:
        return
    rows = [(_label(entry), _text(entry)) for entry in panel.entries]
    column = min(max(len(label) for label, _ in rows), _MOST_LABEL) + 2
    lines = [f"{panel.title}:"]
    for label, text in rows:
        lines += _row(label, text, column, min(_WIDTH, console.width) - 2)
    console.out("\n".join(lines), highlight=False)
    console.out("")


def _row(label: str, text: str, column: int, width: int) -> list[str]:
    first, *rest = wrap(text, max(20, width - column)) or [""]
    if len(label) + 2 > column:
        return [f"  {label}", *(f"  {'':{column}}{line}" for line in (first, *rest))]
    return [f"  {label:{column}}{first}".rstrip(), *(f"  {'':{column}}{line}" for line in rest)]


def _label(entry: HelpEntry) -> str:
    # A positional argument that can be given by its name too is known by its place here.
    labels = entry.display_labels_with_metavar
    return labels[0] if entry.positional_label else ", ".join(labels)


def _text(entry: HelpEntry) -> str:
    text = str(getattr(entry.description, "plain", entry.description) or "")
    text = " ".join(text.split())
    if entry.choices:
        text = f"{text} One of {', '.join(entry.choices)}."
    return f"{text} (required)" if entry.required else text
