"""StoredSchedule: a schedule as the database has it."""

from datetime import datetime
from typing import Any, Self

import attrs

from pgtasks.declaration import Declaration
from pgtasks.schedule import Schedule


@attrs.frozen
class StoredSchedule:
    """A schedule as it was read from the database, and the database's time when it was."""

    declaration: Declaration
    queue: str
    owner: str | None
    """The package whose code declares it; None when it was made at run time."""
    is_paused: bool
    next_fire_at: datetime | None
    """Its next tick; None when no tick is left, as for a date that has passed for good."""
    last_fire_at: datetime | None
    last_queue: str | None
    last_message_id: int | None
    revision: int
    seen_at: datetime | None
    """When a running worker last declared it; None when it was made at run time."""
    read_at: datetime
    """The database's time when it was read."""

    @classmethod
    def of(cls, row: Any) -> Self:
        """Read a row of `pgtasks.schedule`.

        Raises:
            ScheduleError: its rule is none that this version of pgtasks understands.
        """
        schedule = Schedule(
            row["name"],
            cron=row["cron"],
            every=row["every"],
            timezone=row["timezone"],
            jitter=row["jitter"],
            misfire=row["misfire"],
            catch_up_limit=row["catch_up_limit"],
            overlap=row["overlap"],
            queue=row["queue"],
        )
        return cls(
            Declaration(schedule, row["task"], row["args_text"]),
            queue=row["queue"],
            owner=row["owner"],
            is_paused=row["is_paused"],
            next_fire_at=row["next_fire_at"],
            last_fire_at=row["last_fire_at"],
            last_queue=row["last_queue"],
            last_message_id=row["last_message_id"],
            revision=row["revision"],
            seen_at=row["seen_at"],
            read_at=row["now"],
        )

    @property
    def name(self) -> str:
        """Its name."""
        return self.declaration.name

    @property
    def schedule(self) -> Schedule:
        """Its rule."""
        return self.declaration.schedule
