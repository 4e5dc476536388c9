"""Time zones by their names in the tz database, such as "Europe/Berlin"."""

from collections.abc import Iterable
from datetime import UTC, tzinfo
from typing import Final
from zoneinfo import ZoneInfo, available_timezones

from pgtasks.duration import shown
from pgtasks.errors import ScheduleError
from pgtasks.nearest import nearest

# Not the same zone on every machine, or clocks that count leap seconds, which nobody's wall has.
_LOCAL: Final = ("localtime", "posixrules", "Factory", "posix/", "right/")


def zone_named(name: str) -> tzinfo:
    """Return the time zone of this name.

    "UTC" needs no zone data on the machine; every other does.

    Raises:
        ScheduleError: there is none of this name; the text says which was probably meant.

    Example:
        >>> zone_named("Europe/Berlin")
        zoneinfo.ZoneInfo(key='Europe/Berlin')
    """
    if name == "UTC":
        return UTC
    if isinstance(name, str) and name and not name.startswith(_LOCAL):
        try:
            return ZoneInfo(name)
        except (LookupError, ValueError, OSError):  # unknown, no zone's name or file, a folder
            pass
    raise ScheduleError(f"{shown(name)} is not a time zone{_advice(name)}")


def _advice(name: object) -> str:
    known = sorted(zone for zone in available_timezones() if not zone.startswith(_LOCAL))
    if not known:
        return " that this machine knows, for it has no zone data: pip install tzdata"
    if isinstance(name, str) and name.startswith(_LOCAL):
        return ' that is the same on every machine; write its name, such as "Europe/Berlin"'
    meant = _meant(name, known) if isinstance(name, str) else None
    if meant:
        return f'; did you mean "{meant}"?'
    return '; write a name of the tz database, such as "Europe/Berlin" or "UTC"'


def _meant(name: str, known: Iterable[str]) -> str | None:
    """The zone probably meant: by its name in other letters, by its city, or by a slip."""
    asked = name.strip().replace(" ", "_").casefold()
    by_name = {zone.casefold(): zone for zone in known}
    by_city = {zone.rpartition("/")[2]: by_name[zone] for zone in by_name if "/" in zone}
    by_both = by_city | by_name
    if not 5 <= len(asked) <= 60 or any(map(str.isdigit, asked)):  # "PST" is not about "EST"
        return by_both.get(asked)
    return by_both.get(nearest(asked, [*by_both]) or "")
