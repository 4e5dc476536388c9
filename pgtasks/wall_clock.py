"""What the clocks on the walls of a time zone show, and when.

A *wall time* is a datetime without a zone, an *instant* one in UTC. Where a zone's clocks are put
forward, wall times are left out (a *gap*); where they are put back, wall times come twice (a
*fold*). The standard library tells what a clock shows at an instant, but not when it is next
changed; so that is searched for here.
"""

from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final

ONE_SECOND: Final = timedelta(seconds=1)

# Two changes of one zone are never nearer than four days in any release of the zone data so far.
_STRIDE: Final = timedelta(days=1)


def offset_at(instant: datetime, zone: tzinfo) -> timedelta:
    """How far ahead of UTC the zone's clocks are at this instant."""
    return instant.astimezone(zone).utcoffset() or timedelta(0)


def shown_at(instant: datetime, zone: tzinfo) -> datetime:
    """The wall time at this instant."""
    return instant.astimezone(zone).replace(tzinfo=None, fold=0)


def first_instant(wall: datetime, zone: tzinfo) -> datetime:
    """When a clock first shows this wall time, or the end of the gap that leaves it out."""
    before = _offset_of(wall.replace(fold=0), zone)
    after = _offset_of(wall.replace(fold=1), zone)
    instant = wall.replace(tzinfo=UTC) - before
    if before >= after:
        return instant
    return _bisected(instant - (after - before), instant, zone)


def latest_begun(instant: datetime, zone: tzinfo) -> datetime:
    """The latest wall time whose `first_instant` is not after this instant, a whole second.

    It is what the clock shows; but on the second pass through a fold it is the fold's last second,
    for all of the fold has been shown once by then.
    """
    shown = shown_at(instant, zone)
    if instant.astimezone(zone).fold == 0:
        return shown
    before = _offset_of(shown.replace(fold=0), zone)
    lost = before - _offset_of(shown.replace(fold=1), zone)
    change = _bisected(instant - lost, instant, zone)
    return change.replace(tzinfo=None) + before - ONE_SECOND


def first_change(after: datetime, until: datetime, zone: tzinfo) -> datetime | None:
    """The first instant in (after, until] at which the zone's clocks are put forward or back."""
    while after < until:
        step = min(after + _STRIDE, until)
        if offset_at(step, zone) != offset_at(after, zone):
            return _bisected(after, step, zone)
        after = step
    return None


def last_change(after: datetime, until: datetime, zone: tzinfo) -> datetime | None:
    """The last instant in (after, until] at which the zone's clocks are put forward or back."""
    while after < until:
        step = max(until - _STRIDE, after)
        if offset_at(step, zone) != offset_at(until, zone):
            return _bisected(step, until, zone)
        until = step
    return None


def _offset_of(wall: datetime, zone: tzinfo) -> timedelta:
    return wall.replace(tzinfo=zone).utcoffset() or timedelta(0)


def _bisected(low: datetime, high: datetime, zone: tzinfo) -> datetime:
    """The second in (low, high] from which the offset is no longer that at `low`."""
    before = offset_at(low, zone)
    span = (high - low) // ONE_SECOND
    found, too_early = span, 0
    while found - too_early > 1:
        middle = (found + too_early) // 2
        if offset_at(low + middle * ONE_SECOND, zone) == before:
            too_early = middle
        else:
            found = middle
    return low + found * ONE_SECOND
