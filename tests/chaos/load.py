"""Load: messages of all sorts, deferred one after another while things go wrong."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from random import Random

import attrs
from acceptance.history import History
from acceptance.tasks_under_test import fails_at_first, quick, slow, takes_effect

from pgtasks import Handle
from pgtasks.errors import PgtasksError

PAUSE_SECONDS = 0.015


@attrs.define(eq=False)
class Load:
    """Defers until told to stop, and writes down what was accepted."""

    history: History
    random: Random
    _stopping: bool = False

    async def run(self) -> None:
        """Defer one message after another."""
        number = 0
        while not self._stopping:
            number += 1
            sort = self.random.choices(tuple(_SORTS), _SHARES)[0]
            key = f"{sort}-{number}"
            try:
                handle = await _SORTS[sort](key, self.random)
            except (PgtasksError, OSError):
                self.history.unsure(key)
            else:
                self.history.accepted(key, handle, has_effect=sort == "effect")
            await asyncio.sleep(PAUSE_SECONDS)

    def stop(self) -> None:
        """Defer no more."""
        self._stopping = True


_SORTS: Mapping[str, Callable[[str, Random], Awaitable[Handle]]] = {
    "quick": lambda key, _: quick.defer(key),
    "slow": lambda key, random: slow.defer(key, random.uniform(0.1, 0.8)),
    "effect": lambda key, _: takes_effect.defer(key),
    "failing": lambda key, random: fails_at_first.defer(key, random.randint(1, 2)),
}
_SHARES = (70, 12, 10, 8)
