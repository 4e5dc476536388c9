"""Schedules: those in the database, to look at, and to make and change at run time."""

from datetime import timedelta
from typing import Any

import attrs

from pgtasks.declaration import Declaration
from pgtasks.errors import DuplicateScheduleError, PgtasksError, UnknownScheduleError
from pgtasks.message import Handle, new_id
from pgtasks.nearest import nearest
from pgtasks.store import Executor, Record, Store
from pgtasks.stored_schedule import StoredSchedule

CHANGED = "@schedules"
"""What listening workers are told when a schedule was changed; no queue can have this name."""


@attrs.frozen
class Schedules:
    """The schedules of a database, whoever made them.

    Example:
        ```python
        async with connect() as client:
            await client.schedules.pause("nightly-report")
            for one in await client.schedules.all():
                print(one.name, one.next_fire_at)
        ```
    """

    _on: Executor
    _notify: bool = True
    _stale_after: timedelta = timedelta(minutes=10)

    @property
    def _store(self) -> Store:
        return Store(self._on)

    async def all(self) -> list[StoredSchedule]:
        """Return all schedules by name.

        Raises:
            ScheduleError: one of them is from a newer version of pgtasks, or was made by hand.
        """
        return [StoredSchedule.of(row) for row in await self._store.list_schedules()]

    async def get(self, name: str) -> StoredSchedule:
        """Return one schedule.

        Raises:
            UnknownScheduleError: there is none of this name; the text names the nearest.
        """
        return StoredSchedule.of(await self.find(name))

    async def set(
        self, declared: Declaration, queue: str, *, paused: bool | None = None
    ) -> StoredSchedule:
        """Make a schedule, or change the one of its name; `Task.schedule` is the easy way.

        Args:
            declared: the rule and the call.
            queue: where its messages go; created when it does not exist.
            paused: whether it waits for `resume`; None leaves that as it is.

        Raises:
            DuplicateScheduleError: the code of a program declares a schedule of this name.
        """
        store = self._store
        if not await store.queue_exists(queue):
            await store.create_queue(queue)
        next_fire_at = declared.schedule.next_after(await store.now())
        if not await store.declare_schedule(
            declared, queue, owner=None, next_fire_at=next_fire_at, paused=paused
        ):
            owner = (await self.get(declared.name)).owner
            raise DuplicateScheduleError(
                f"the code of {owner!r} declares the schedule {declared.name!r}; change it there, "
                "or choose another name"
            )
        await self._tell()
        return await self.get(declared.name)

    async def pause(self, name: str) -> None:
        """Let a schedule fire no more until it is resumed.

        Raises:
            UnknownScheduleError: there is none of this name.
        """
        await self.find(name)
        await self._store.pause_schedule(name)

    async def resume(self, name: str) -> StoredSchedule:
        """Let a paused schedule fire again, from its next tick on: what it missed stays missed.

        Raises:
            UnknownScheduleError: there is none of this name.
        """
        known = await self.get(name)
        await self._store.resume_schedule(known, known.schedule.next_after(known.read_at))
        await self._tell()
        return await self.get(name)

    async def trigger(self, name: str, *, force: bool = False) -> Handle:
        """Send a schedule's message now, beside its ticks, also while it is paused.

        Args:
            name: the schedule.
            force: also when it may not overlap and its last message is still queued or running.

        Raises:
            UnknownScheduleError: there is none of this name.
            PgtasksError: its last message is still there, and it may not overlap.
        """
        known = await self.get(name)
        if not force and known.schedule.overlap == "skip" and await self.is_busy(known):
            raise PgtasksError(
                f"message {known.last_message_id} of the schedule {name!r} is still queued or "
                'running, and its overlap is "skip"; wait for it, or force it'
            )
        message_id, made = new_id(), known.declaration
        number = await self._store.trigger_schedule(
            known,
            made.body(message_id),
            made.headers(known.read_at.isoformat()),
            notify=self._notify,
        )
        if number is None:
            raise await self._unknown(name)
        return Handle(str(message_id), known.queue, number)

    async def remove(self, name: str) -> None:
        """Delete a schedule that was made at run time, or that no worker declares any more.

        Raises:
            UnknownScheduleError: there is none of this name.
            PgtasksError: the code of running workers declares it.
        """
        row = await self.find(name)
        if not await self._store.remove_schedule(name, self._stale_after):
            raise PgtasksError(
                f"the code of {row['owner']!r} declares the schedule {name!r}, and its workers "
                "would declare it again; pause it, or remove it there"
            )

    async def is_busy(self, known: StoredSchedule) -> bool:
        """Tell whether the last message of a schedule is still queued or running."""
        if known.last_queue is None or known.last_message_id is None:
            return False
        if not await self._store.queue_exists(known.last_queue):
            return False
        return await self._store.is_waiting(known.last_queue, known.last_message_id)

    async def find(self, name: str) -> Record:
        """Return the row of a schedule, also of one that this version cannot read.

        Raises:
            UnknownScheduleError: there is none of this name.
        """
        row = await self._store.find_schedule(name)
        if row is None:
            raise await self._unknown(name)
        return row

    async def _tell(self) -> None:
        if self._notify:
            await self._store.notify(CHANGED)

    async def _unknown(self, name: str) -> UnknownScheduleError:
        names: list[Any] = [row["name"] for row in await self._store.list_schedules()]
        near = nearest(name, names)
        hint = f"; did you mean {near!r}?" if near else ""
        known = f" There are: {', '.join(names[:20])}" if names and not near else ""
        return UnknownScheduleError(f"there is no schedule {name!r}{hint}{known}")
