"""How help looks: plain columns, alike on a terminal and in a pipe."""

from textwrap import wrap
from typing import TYPE_CHECKING, Any

import attrs
from cyclopts import Group
from cyclopts.help import HelpEntry, HelpPanel

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions

RUN = Group("Run", sort_key=1)
PROJECT = Group("Project", sort_key=2)
MESSAGES = Group("Messages", sort_key=3)
DATABASE = Group("Database", sort_key=4)
OTHER = Group("Other", sort_key=5)

_WIDEST = 96
_WIDEST_LABEL = 30


@attrs.frozen
class HelpPage:
    """Prints one page of help; what cyclopts calls a help formatter."""

    def render_usage(self, console: "Console", options: "ConsoleOptions", usage: Any) -> None:  # noqa: ARG002 - cyclopts's
        """Print the first line."""
        text = _plain(usage)
        console.out(text if text.startswith("Usage: ") else f"Usage: {text}", highlight=False)
        console.out("")

    def render_description(
        self,
        console: "Console",
        options: "ConsoleOptions",  # noqa: ARG002 - cyclopts's
        description: Any,
    ) -> None:
        """Print what the docstring says; its indented lines, the examples, stay as they are."""
        for paragraph in _plain(description).split("\n\n"):
            is_prose = "\n " not in paragraph
            lines = wrap(paragraph, _width(console)) if is_prose else [paragraph]
            console.out("\n".join(lines), highlight=False)
            console.out("")

    def __call__(self, console: "Console", options: "ConsoleOptions", panel: HelpPanel) -> None:  # noqa: ARG002 - cyclopts's
        """Print one group of commands or options."""
        if not panel.entries:
            return
        rows = [(_label(entry), _text(entry)) for entry in panel.entries]
        column = min(max(len(label) for label, _ in rows), _WIDEST_LABEL) + 2
        lines = [f"{panel.title}:"]
        for label, text in rows:
            lines += _row(label, text, column, _width(console) - 2)
        console.out("\n".join(lines), highlight=False)
        console.out("")


def _width(console: "Console") -> int:
    return min(_WIDEST, console.width)


def _row(label: str, text: str, column: int, width: int) -> list[str]:
    first, *rest = wrap(text, max(20, width - column)) or [""]
    if len(label) + 2 > column:
        return [f"  {label}", *(f"  {'':{column}}{line}" for line in (first, *rest))]
    return [f"  {label:{column}}{first}".rstrip(), *(f"  {'':{column}}{line}" for line in rest)]


def _label(entry: HelpEntry) -> str:
    return ", ".join(entry.display_labels_with_metavar)


def _text(entry: HelpEntry) -> str:
    text = " ".join(_plain(entry.description).split())
    return f"{text} (required)" if entry.required else text


def _plain(rendered: Any) -> str:
    """The text of what cyclopts would have rich render."""
    inner = getattr(rendered, "primary_renderable", rendered)
    return str(getattr(inner, "plain", inner) or "").strip()
