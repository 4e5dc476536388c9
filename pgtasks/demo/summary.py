"""Summary: what the demo did, as the database tells it."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import asyncpg
import attrs

from pgtasks.demo.files import to_path
from pgtasks.demo.statement import statement
from pgtasks.safe_text import one_line
from pgtasks.store import Executor

ERRORS_SHOWN = 5


@attrs.frozen
class Summary:
    """The answers to the demo's questions; each is one statement in sql/."""

    files: asyncpg.Record
    longest: asyncpg.Record | None
    messages: asyncpg.Record
    given_up: Sequence[asyncpg.Record]
    rate: asyncpg.Record
    latency: asyncpg.Record

    @classmethod
    async def read(cls, on: Executor, last_of_bulk: int) -> "Summary":
        """Ask the database; `last_of_bulk` is the number of the last message sent in bulk."""
        return cls(
            files=await on.fetchrow(statement("files")),
            longest=await on.fetchrow(statement("longest")),
            messages=await on.fetchrow(statement("messages")),
            given_up=await on.fetch(statement("given_up"), ERRORS_SHOWN),
            rate=await on.fetchrow(statement("rate"), last_of_bulk),
            latency=await on.fetchrow(statement("latency"), last_of_bulk),
        )

    def is_complete(self, sent: int) -> bool:
        """Tell whether each message ended, and each that is done wrote its one row."""
        messages = self.messages
        return bool(
            messages["waiting"] == 0
            and messages["ended"] == sent
            and messages["done"] == self.files["files"]
        )

    def lines(self, sent: int, folders: Sequence[Path], columns: int) -> Iterator[str]:
        """Yield the summary for people."""
        yield "What the tasks found"
        yield from self._found(folders)
        yield ""
        yield "What became of the messages"
        yield from self._ended(sent, folders, columns)
        yield ""
        yield "How fast it was"
        yield from self._speed()

    def _found(self, folders: Sequence[Path]) -> Iterator[str]:
        for name in ("files", "lines", "functions"):
            yield f"  {name:<12}{self.files[name]:>10,}"
        if (longest := self.longest) is not None:
            place = f"{shown(longest['path'], folders)}:{longest['line']}"
            yield f"  longest     {longest['lines']:>10,} lines: {longest['name']} in {place}"

    def _ended(self, sent: int, folders: Sequence[Path], columns: int) -> Iterator[str]:
        messages = self.messages
        yield f"  done        {messages['done']:>10,}"
        if messages["retried"]:
            yield f"    of them   {messages['retried']:>10,} after a failed attempt and a retry"
        yield f"  given up    {messages['given_up']:>10,}"
        for row in self.given_up:
            yield _cut(
                f"    {shown(row['path'] or '?', folders)}: {one_line(_error(row))}", columns
            )
        if (more := messages["given_up"] - len(self.given_up)) > 0:
            yield f"    ... and {more:,} more"
        yield self._account(sent)

    def _account(self, sent: int) -> str:
        messages, rows = self.messages, self.files["files"]
        sums = (
            f"{sent:,} sent = {messages['done']:,} done + {messages['given_up']:,} given up"
            f" + {messages['waiting']:,} waiting; {rows:,} rows for {messages['done']:,} done"
        )
        said = "All accounted for" if self.is_complete(sent) else "NOT ALL ACCOUNTED FOR"
        return f"  {said}: {sums}."

    def _speed(self) -> Iterator[str]:
        rate, latency = self.rate, self.latency
        if rate["seconds"]:
            per_second = f"{rate['messages'] / rate['seconds']:>10,.0f}"
            yield f"  in bulk     {per_second} messages a second, each in a commit of its own"
        if latency["messages"]:
            yield (
                f"  one by one  {latency['picked_up']:>10,.1f} ms until picked up,"
                f" {latency['ended']:,.1f} ms until done (median of {latency['messages']}; longest"
                f" {latency['picked_up_max']:,.1f} and {latency['ended_max']:,.1f})"
            )


def shown(name: str, folders: Sequence[Path]) -> str:
    """Return a path of a message for people: as short as it goes, and on one line."""
    path = to_path(name)
    for folder in folders:
        if path.is_relative_to(folder):
            path = path.relative_to(folder)
            break
    return one_line(os.fsencode(path).decode(errors="backslashreplace"))


def _error(row: asyncpg.Record) -> str:
    return row["error"] or row["outcome"] or "archived by somebody else"


def _cut(line: str, columns: int) -> str:
    columns = max(40, columns)
    return line if len(line) <= columns else f"{line[: columns - 3]}..."
