"""Declarer: keeps the schedules of a program's code in the database, and deletes stale ones."""

from collections.abc import Iterable
from datetime import timedelta
from time import monotonic

import attrs

from pgtasks.config import PeriodicConfig
from pgtasks.connection import Line
from pgtasks.declaration import Declaration
from pgtasks.events import Events
from pgtasks.plan import Plan
from pgtasks.registry import Registry
from pgtasks.store import Store

log = Events("pgtasks.declarer")

LONGEST_PAUSE_SECONDS = 60.0
"""How often, at least, a worker says that it still declares its schedules."""


@attrs.frozen
class _Declared:
    """A schedule of this program's code."""

    declaration: Declaration
    queue: str
    owner: str


@attrs.define(eq=False)
class Declarer:
    """The schedules of the registered tasks, in the database as their code says."""

    _registry: Registry
    _plan: Plan
    _config: PeriodicConfig
    _line: Line
    _declared: dict[str, _Declared] = attrs.field(init=False)
    _waiting: set[str] = attrs.field(factory=set, init=False)
    """Another owner has a schedule of this name."""
    _began_at: float = attrs.field(factory=monotonic, init=False)
    _next_at: float | None = attrs.field(default=None, init=False)
    """When to declare again; None before the first time."""

    def __attrs_post_init__(self) -> None:
        self._declared = {
            declaration.name: _Declared(
                declaration,
                declaration.schedule.queue or self._plan.policy(task).queue,
                self._owner(task.package),
            )
            for task in self._registry
            for declaration in task.schedules
        }

    @property
    def ours(self) -> list[str]:
        """The names of the schedules that are as this program's code says."""
        return [name for name in self._declared if name not in self._waiting]

    @property
    def seconds_left(self) -> float:
        """How long until they are to be declared again."""
        return 0.0 if self._next_at is None else max(0.0, self._next_at - monotonic())

    async def declare_in_time(self) -> None:
        """Declare everything at the start, and say now and then that it is still wanted.

        The rules are only said at the start: of two versions that run beside each other during a
        deploy the one that started last decides, and the other must not put its own back.
        """
        if self._next_at is None:
            await self._declare(self._declared)
            if self._config.stale_cleanup == "auto-clean-all":
                await self._clean(timedelta(0))
        elif monotonic() < self._next_at:
            return
        else:
            await self._see()
            await self._declare(sorted(self._waiting))
            await self._clean_stale()
        stale_seconds = self._config.stale_after.total_seconds()
        self._next_at = monotonic() + min(LONGEST_PAUSE_SECONDS, stale_seconds / 3)

    async def _declare(self, names: Iterable[str]) -> None:
        for name in names:
            if await self._is_ours(self._declared[name]):
                self._waiting.discard(name)
            elif name not in self._waiting:
                self._waiting.add(name)
                log.error(
                    "this schedule's name is taken, so that it does not fire; it is tried again "
                    "until the other is gone",
                    schedule=name,
                    see=f"pgtasks schedule show {name}",
                )

    async def _is_ours(self, one: _Declared) -> bool:
        now = await self._line.call(lambda on: Store(on).now())
        return await self._line.call(
            lambda on: Store(on).declare_schedule(
                one.declaration,
                one.queue,
                owner=one.owner,
                next_fire_at=one.declaration.schedule.next_after(now),
                stale_after=self._config.stale_after,
            )
        )

    async def _see(self) -> None:
        names = self.ours
        owners = [self._declared[name].owner for name in names]
        await self._line.call(lambda on: Store(on).see_schedules(names, owners))

    async def _clean_stale(self) -> None:
        """Delete what went stale while this worker was there to see it.

        Not at its start: after a night without any worker everything looks stale, and the others
        are starting just now.
        """
        lived = timedelta(seconds=monotonic() - self._began_at)
        if self._config.stale_cleanup == "auto-clean-stale" and lived > self._config.stale_after:
            await self._clean(self._config.stale_after)

    async def _clean(self, stale_after: timedelta) -> None:
        owners = sorted({self._owner(task.package) for task in self._registry})
        declared = list(self._declared)
        names = await self._line.call(
            lambda on: Store(on).clean_schedules(owners, declared, stale_after)
        )
        for name in names:
            log.info("schedule deleted: no worker declares it", schedule=name)

    def _owner(self, package: str) -> str:
        return self._config.owner or package
