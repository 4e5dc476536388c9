"""Noting: what a test defers is written down in its history as soon as `defer` has returned."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from acceptance.history import ANY, History

from pgtasks import Client, Handle
from pgtasks.call import Call
from pgtasks.errors import DatabaseError


def note_defers(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the clients of this process write down what they store.

    Not what is deferred in a transaction of the test's own: the test knows what becomes of that.
    """
    send, send_many = Client.send, Client.send_many

    async def noted(client: Client, call: Call, many_args: Sequence[bytes]) -> list[Handle]:
        try:
            handles = await send(client, call, many_args)
        except DatabaseError:
            for key in map(_key, many_args):
                history.unsure(key)
            raise
        if call.connection is None:
            _note(history, many_args, handles)
        return handles

    async def many_noted(
        client: Client, call: Call, slices: Iterator[Sequence[bytes]]
    ) -> list[Handle]:
        listed = list(slices)
        handles = await send_many(client, call, iter(listed))
        if call.connection is None:
            _note(history, [args for one in listed for args in one], handles)
        return handles

    monkeypatch.setattr(Client, "send", noted)
    monkeypatch.setattr(Client, "send_many", many_noted)


def _note(history: History, many_args: Sequence[bytes], handles: Sequence[Handle]) -> None:
    for args, handle in zip(many_args, handles, strict=True):
        history.accepted(_key(args), handle, becomes=ANY)


def _key(args: bytes) -> str:
    """The first argument of a task under test; others have no key, and no history."""
    found: Any = json.loads(args)
    key = found.get("key", "-") if isinstance(found, dict) else "-"
    return str(key).replace(" ", "_")
