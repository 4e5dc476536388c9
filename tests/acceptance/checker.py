"""Checker: what is called once at the end of every case, whatever was done in it.

It waits until all is drained, stops the workers, gathers the evidence, prints the figures, and
fails with every promise that was broken. A case that does not call it is judged by what it left.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic
from typing import TypedDict, Unpack
from urllib.parse import unquote, urlsplit

import asyncpg
import attrs
from acceptance.evidence import Evidence, Exit, Witness
from acceptance.history import History
from acceptance.judgement import EXIT_SECONDS, Figures, Rules, Verdict, judge
from acceptance.worker_process import WorkerProcess
from eventually import eventually_async

from pgtasks import exit_codes

LATE_SECONDS = 3.0
CLOSING_SECONDS = 8.0
"""How long the server may take to notice that the other end of a connection is gone: it may be in
a statement, or waiting for a lock of one that is ended later."""


class How(TypedDict, total=False):
    """What differs from case to case.

    Attributes:
        drained: False when messages are meant to be left; nothing is waited for then.
        codes: with which exit codes workers may end that nobody killed.
        may_overlap: for tasks that cannot be ended when their lease is lost, such as threads.
        knows_faults: False when the case has not written down what it did.
        shows_tracebacks: True where an error of the user's own code is to be shown.
        keeps_successes: False when successes are deleted instead of archived.
        lease_seconds: the longest lease of the case.
        within_seconds: how long draining may take.
    """

    drained: bool
    codes: Sequence[int]
    may_overlap: bool
    knows_faults: bool
    shows_tracebacks: bool
    keeps_successes: bool
    lease_seconds: float
    within_seconds: float


@attrs.define
class Checker:
    """The history, the database and the workers of one case."""

    history: History
    url: str
    """The database's own address, past any proxy."""
    workers: list[WorkerProcess] = attrs.field(factory=list)
    """All that were started, whatever has become of them."""
    lease_seconds: float = 3.0
    """The longest lease of the case, where it says no other."""
    has_judged: bool = attrs.field(default=False, init=False)

    async def check_what_is_left(self, **how: Unpack[How]) -> None:
        """Do what `check` does, for a case that has passed: it knows how its workers ended.

        What only a fault excuses is not asked: a case that writes down its faults calls `check`.

        Raises:
            AssertionError: as of `check`.
        """
        ended = [code for worker in self.workers if (code := worker.process.poll()) is not None]
        how.setdefault("codes", (exit_codes.OK, exit_codes.UNSETTLED, *ended))
        how.setdefault("drained", False)
        how.setdefault("knows_faults", False)
        await self.check(**how)

    async def check(self, **how: Unpack[How]) -> Figures:
        """Drain, stop all workers, and hold what happened against every promise.

        Raises:
            AssertionError: a promise was broken; the text says which, and by what.
        """
        verdict = await self.examine(**how)
        print(f"\n  {verdict.figures}")  # noqa: T201 - `pytest -s` and `-rP` show it
        assert not verdict.violations, "\n".join((str(verdict.figures), *verdict.violations))
        return verdict.figures

    async def examine(self, **how: Unpack[How]) -> Verdict:
        """Do the same, and return what was found."""
        self.has_judged = True
        drained = how.get("drained", True)
        connection = await asyncpg.connect(self.url, timeout=10)
        try:
            witness = Witness(connection)
            if drained:
                await self._drain(witness, how.get("within_seconds", 30.0))
            await self.stop()
            await self._closed(witness)
            evidence = await self._gather(witness)
        finally:
            await connection.close()
        rules = Rules(
            is_drained=drained,
            codes=tuple(how.get("codes", (exit_codes.OK,))),
            may_overlap=how.get("may_overlap", False),
            knows_faults=how.get("knows_faults", True),
            shows_tracebacks=how.get("shows_tracebacks", False),
            keeps_successes=how.get("keeps_successes", True),
            lease_seconds=how.get("lease_seconds", self.lease_seconds),
        )
        return judge(evidence, rules)

    async def stop(self) -> None:
        """Stop the workers that still run, all at once."""
        for worker in self.workers:
            if worker.process.poll() is None:
                worker.signal()
        await asyncio.gather(*(asyncio.to_thread(worker.wait, 45) for worker in self.workers))
        await asyncio.gather(*map(self._orphans_ended, self.workers))

    async def _orphans_ended(self, worker: WorkerProcess) -> None:
        """Wait for the children of a supervisor that was killed: they end what runs."""

        async def gone() -> None:
            assert not worker.leftovers()

        if worker.is_killed:
            longest = worker.grace_seconds + EXIT_SECONDS + LATE_SECONDS
            with suppress(AssertionError):  # evidence as well
                await eventually_async(gone, within_seconds=longest)

    async def _drain(self, witness: Witness, within_seconds: float) -> None:
        async def nothing_left() -> None:
            assert not await witness.unfinished()

        with suppress(AssertionError):  # what is left is evidence as well
            await eventually_async(nothing_left, within_seconds=within_seconds)

    async def _closed(self, witness: Witness) -> None:
        """Give the server time to end the connections of processes that were killed."""
        until = monotonic() + CLOSING_SECONDS
        while monotonic() < until:
            open_now = {backend.purpose for backend in await witness.backends()}
            if not open_now - {"pgtasks client", "pgtasks tests", ""}:
                return
            await asyncio.sleep(0.05)

    async def _gather(self, witness: Witness) -> Evidence:
        return Evidence(
            events=self.history.events(),
            notes=self.history.notes(),
            stored=await witness.stored(),
            effects=await witness.effects(),
            backends=await witness.backends(),
            advisory_locks=await witness.advisory_locks(),
            exits=[exit_of(worker) for worker in self.workers],
            logs="\n".join(worker.text() for worker in self.workers),
            secrets=[unquote(urlsplit(self.url).password or "")],
        )


def exit_of(worker: WorkerProcess) -> Exit:
    """How a worker ended."""
    return Exit(
        pid=worker.pid,
        code=worker.process.returncode,
        is_killed=worker.is_killed,
        took=worker.took_to_end,
        grace_seconds=worker.grace_seconds,
        leftovers=len(worker.leftovers()),
    )
