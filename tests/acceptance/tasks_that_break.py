"""A task that breaks a part of the worker that runs it, as a mistake in pgtasks would."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from acceptance.history import VARIABLE, History, record

from pgtasks import task
from pgtasks.fetcher import Fetcher
from pgtasks.keeper import Keeper
from pgtasks.listener import Listener
from pgtasks.settler import Settler
from pgtasks.ticker import Ticker

PARTS: dict[str, tuple[type, str, type[BaseException]]] = {
    "scheduler": (Fetcher, "take_turns", RuntimeError),
    "settler": (Settler, "_write", RuntimeError),
    "ticker": (Ticker, "_look", RuntimeError),
    "listener": (Listener, "_listen", RuntimeError),
    "keeper": (Keeper, "_round", RuntimeError),
    "keeper-thread": (Keeper, "_round", SystemExit),
}


@task
async def breaks(part: str) -> None:
    """Break a part for good: its class, so that it is found broken at its next step."""
    record("start", part)
    if History(Path(os.environ[VARIABLE])).starts()[part] > 1:
        return  # by a part that could not be settled
    cls, method, error = PARTS[part]
    setattr(cls, method, _raising(error))


def _raising(error: type[BaseException]) -> Callable[..., Any]:
    def broken(*_: object) -> None:
        raise error("broken by the test")

    return broken
