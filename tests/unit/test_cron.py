"""Cron: what is read, what is refused, and when it fires, against clocks walked step by step."""

import itertools
import zoneinfo
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from time import perf_counter
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pgtasks.cron import ALIASES, Cron
from pgtasks.errors import ScheduleError, TaskDefinitionError
from pgtasks.time_zone import zone_named

unhurried = settings(deadline=None)
moments = st.integers(-(70 * 366 * 86_400_000_000), 230 * 366 * 86_400_000_000).map(
    lambda microseconds: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
)
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
SECOND = timedelta(seconds=1)
MICROSECOND = timedelta(microseconds=1)

ZONES = (
    "UTC", "Europe/London", "Europe/Dublin", "Europe/Lisbon", "Europe/Berlin", "Europe/Paris",
    "Europe/Athens", "Europe/Kyiv", "Europe/Chisinau", "Europe/Istanbul", "Atlantic/Azores",
    "Africa/Casablanca", "Africa/El_Aaiun", "Africa/Cairo", "Africa/Lagos", "Asia/Beirut",
    "Asia/Jerusalem", "Asia/Gaza", "Asia/Kathmandu", "Asia/Kolkata", "Asia/Tehran", "Asia/Tokyo",
    "America/New_York", "America/Chicago", "America/Denver", "America/Los_Angeles",
    "America/St_Johns", "America/Halifax", "America/Havana", "America/Santiago",
    "America/Asuncion", "America/Sao_Paulo", "America/Nuuk", "America/Scoresbysund",
    "Pacific/Easter", "Pacific/Auckland", "Pacific/Chatham", "Pacific/Norfolk",
    "Australia/Sydney", "Australia/Adelaide", "Australia/Lord_Howe", "Antarctica/Troll",
)  # fmt: skip


Shown = tuple[datetime, datetime]


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def within(cron: Cron, begin: datetime, end: datetime, zone: tzinfo) -> list[datetime]:
    """The ticks in (begin, end]."""
    return list(itertools.takewhile(lambda tick: tick <= end, cron.after(begin, zone)))


def back(cron: Cron, begin: datetime, end: datetime, zone: tzinfo) -> list[datetime]:
    """The same, found from the end."""
    found = itertools.takewhile(lambda tick: tick > begin, cron.until(end, zone))
    return list(found)[::-1]


# --- Oracles, which know nothing but what a clock shows at an instant


def walk(begin: datetime, end: datetime, step: timedelta, zone: tzinfo) -> list[Shown]:
    """Each step in (begin, end], and what the clock shows then."""
    instants = [begin + n * step for n in range(1, (end - begin) // step + 1)]
    return [(instant, instant.astimezone(zone).replace(tzinfo=None)) for instant in instants]


def ticks_shown(walked: Iterable[Shown], times: frozenset[time]) -> list[datetime]:
    """The instants at which the clock shows one of the times of day."""
    return [instant for instant, wall in walked if wall.time() in times]


def ticks_reached(walked: Sequence[Shown], times: frozenset[time]) -> list[datetime]:
    """The instants at which the clock first shows a time of day, or what is past it.

    The walk has to begin outside a fold.
    """
    step = walked[1][0] - walked[0][0]
    highest = walked[0][1] - step
    found = []
    for instant, wall in walked:
        reached = False
        while highest < wall:
            highest += step
            reached = reached or highest.time() in times
        if reached:
            found.append(instant)
    return found


def clock_changes(name: str, begin: datetime, end: datetime) -> list[datetime]:
    """The hours before which the zone's clocks were put forward or back."""
    zone = zone_named(name)
    hours = [begin + timedelta(hours=n) for n in range(0, (end - begin) // HOUR, 6)]
    offsets = [hour.astimezone(zone).utcoffset() for hour in hours]
    pairs = itertools.pairwise(offsets)
    return [hours[n + 1] for n, (one, other) in enumerate(pairs) if one != other]


# --- Clock changes


def brief(tick: datetime) -> str:
    return tick.strftime("%d %H:%M:%S %z").replace(":00 ", " ")


@pytest.mark.parametrize(
    ("text", "zone", "after", "ticks"),
    [
        # The eight cases: gap, fold, half hours, day of the month or of the week
        ("30 2 * * *", "America/New_York", "2026-03-07 12:00", "08 03:00 -0400, 09 02:30 -0400"),
        ("30 1 * * *", "America/New_York", "2026-10-31 12:00", "01 01:30 -0400, 02 01:30 -0500"),
        ("0 * * * *", "America/New_York", "2026-03-08 01:30", "08 03:00 -0400, 08 04:00 -0400"),
        ("0 * * * *", "America/New_York", "2026-11-01 00:30", "01 01:00 -0400, 01 01:00 -0500"),
        ("*/15 * * * *", "America/New_York", "2026-11-01 01:30",
         "01 01:45 -0400, 01 01:00 -0500, 01 01:15 -0500"),
        ("*/15 * * * *", "Australia/Lord_Howe", "2026-04-05 01:30",
         "05 01:45 +1100, 05 01:30 +1030, 05 01:45 +1030, 05 02:00 +1030"),
        ("*/20 1-3 * * *", "Europe/Berlin", "2026-03-29 01:30",
         "29 01:40 +0100, 29 03:00 +0200, 29 03:20 +0200, 29 03:40 +0200, 30 01:00 +0200"),
        ("0 0 13 * 5", "UTC", "2026-02-07 00:00", "13 00:00 +0000, 20 00:00 +0000"),
        # Half an hour is left out, and comes twice
        ("15 2 * * *", "Australia/Lord_Howe", "2026-10-03 12:00", "04 02:30 +1100, 05 02:15 +1100"),
        ("* 3 * * *", "Australia/Lord_Howe", "2026-10-04 01:00", "04 03:00 +1100, 04 03:01 +1100"),
        ("45 1 * * *", "Australia/Lord_Howe", "2026-04-04 12:00", "05 01:45 +1100, 06 01:45 +1030"),
        # A day is left out, and the next has its own tick
        ("0 2 * * *", "Pacific/Apia", "2011-12-29 00:00",
         "29 02:00 -1000, 31 00:00 +1400, 31 02:00 +1400"),
        ("0 0 30 12 *", "Pacific/Apia", "2011-01-01 00:00", "31 00:00 +1400, 30 00:00 +1400"),
        ("0 * * * *", "Pacific/Apia", "2011-12-29 22:30", "29 23:00 -1000, 31 00:00 +1400"),
        ("0 2 * * *", "Pacific/Kwajalein", "1993-08-20 12:00", "22 00:00 +1200, 22 02:00 +1200"),
        # Odd parts of an hour are left out
        ("10 0 * * *", "Asia/Kathmandu", "1985-12-31 12:00", "01 00:15 +0545, 02 00:10 +0545"),
        ("*/30 * * * *", "Asia/Kathmandu", "2026-05-01 00:00", "01 00:30 +0545, 01 01:00 +0545"),
        ("20 0 * * *", "Africa/Monrovia", "1972-01-06 12:00", "07 00:44:30 +0000, 08 00:20 +0000"),
        ("*/30 * * * *", "Africa/Monrovia", "1972-01-06 23:30", "07 01:00 +0000, 07 01:30 +0000"),
        # Ramadan
        ("30 2 * * *", "Africa/Casablanca", "2026-02-14 12:00", "15 02:30 +0100, 16 02:30 +0000"),
        ("30 2 * * *", "Africa/Casablanca", "2026-03-21 12:00", "22 03:00 +0100, 23 02:30 +0100"),
        ("30 2 * * *", "Africa/El_Aaiun", "2026-03-21 12:00", "22 03:00 +0100, 23 02:30 +0100"),
        # A minute after midnight
        ("30 0 * * *", "America/St_Johns", "2006-04-01 12:00", "02 01:01 -0230, 03 00:30 -0230"),
        ("30 23 * * *", "America/St_Johns", "2006-10-28 12:00", "28 23:30 -0230, 29 23:30 -0330"),
        ("0 0 * * *", "America/St_Johns", "2006-10-28 12:00", "29 00:00 -0230, 30 00:00 -0330"),
        # Midnight is left out, or comes twice
        ("@daily", "America/Santiago", "2026-09-05 12:00", "06 01:00 -0300, 07 00:00 -0300"),
        ("@daily", "Asia/Beirut", "2026-03-28 12:00", "29 01:00 +0300, 30 00:00 +0300"),
        ("@daily", "America/Havana", "2026-03-07 12:00", "08 01:00 -0400, 09 00:00 -0400"),
        ("*/15 0 * * *", "America/Havana", "2026-03-07 12:00", "09 00:00 -0400, 09 00:15 -0400"),
        ("@daily", "America/Santiago", "2026-04-03 12:00", "04 00:00 -0300, 05 00:00 -0400"),
        ("30 23 * * *", "America/Santiago", "2026-04-04 12:00", "04 23:30 -0300, 05 23:30 -0400"),
        # The last hour of a day is left out
        ("30 23 * * SAT", "America/Nuuk", "2026-03-25 12:00", "29 00:00 -0100, 04 23:30 -0100"),
        # Several times in one gap, and its end
        ("*/10 0-59/10 2 * * *", "Europe/Berlin", "2026-03-29 01:00",
         "29 03:00 +0200, 30 02:00 +0200, 30 02:00:10 +0200"),
        ("0 2,3 * * *", "Europe/Berlin", "2026-03-29 01:00", "29 03:00 +0200, 30 02:00 +0200"),
        ("30 2,3 * * *", "Europe/Berlin", "2026-03-29 01:00", "29 03:00 +0200, 29 03:30 +0200"),
        # From within a fold, on either pass
        ("0,30 2 * * *", "Europe/Berlin", "2026-10-25 02:10", "25 02:30 +0200, 26 02:00 +0100"),
        ("0,30 2 * * *", "Europe/Berlin", "2026-10-25 02:10+01:00", "26 02:00 +0100"),
        ("0 2,3 * * *", "Europe/Berlin", "2026-10-25 02:10+01:00", "25 03:00 +0100"),
        ("59 59 2 * * *", "Europe/Berlin", "2026-10-25 02:10+01:00", "26 02:59:59 +0100"),
        ("*/30 * * * * *", "Europe/Berlin", "2026-10-25 02:59:40", "25 02:00 +0100"),
        # With two changes on the way, the second near the tick
        ("*/30 2 25 10 *", "Europe/Berlin", "2025-11-01 00:00",
         "25 02:00 +0200, 25 02:30 +0200, 25 02:00 +0100, 25 02:30 +0100"),
    ],
)  # fmt: skip
def test_where_clocks_are_changed(text, zone, after, ticks):
    place = ZoneInfo(zone)
    begin = datetime.fromisoformat(after)
    begin = begin.replace(tzinfo=begin.tzinfo or place)
    found = Cron.parse(text).after(begin, place)
    shown = [brief(tick.astimezone(place)) for tick in itertools.islice(found, 5)]
    assert ", ".join(shown).startswith(ticks)


def test_a_gap_full_of_times_is_one_tick_and_little_work():
    """Either way: a day of 86,400 times was left out in Apia."""
    cron, place = Cron.parse("0-59 0-59 0-23 * * *"), ZoneInfo("Pacific/Apia")
    end_of_gap = at("2011-12-30T10:00+00:00")
    begun = perf_counter()
    ticks = [end_of_gap - SECOND, end_of_gap, end_of_gap + SECOND]
    assert within(cron, end_of_gap - 2 * SECOND, end_of_gap + SECOND, place) == ticks
    assert back(cron, end_of_gap - 2 * SECOND, end_of_gap + SECOND, place) == ticks
    assert perf_counter() - begun < 0.5


def test_each_local_day_has_its_one_tick():
    """Whatever the state did to the clocks, for sixty years."""
    for zone in ("America/Havana", "Asia/Gaza"):
        place = ZoneInfo(zone)
        begin = datetime(1980, 1, 1, 12, tzinfo=place)
        ticks = within(Cron.parse("30 0 * * *"), begin, begin.replace(year=2040), place)
        days = (date(2040, 1, 1) - date(1980, 1, 1)).days
        assert len({tick.astimezone(place).date() for tick in ticks}) == len(ticks) == days


def times(hours: Iterable[int], minutes: Iterable[int], seconds: Iterable[int] = (0,)):
    return frozenset(time(*one) for one in itertools.product(hours, minutes, seconds))


FIXED = {
    "15 0,1,2,3,22,23 * * *": times((0, 1, 2, 3, 22, 23), (15,)),
    "0 0 * * *": times((0,), (0,)),
    "0,30,45 1-3 * * *": times((1, 2, 3), (0, 30, 45)),
}
WILD = {
    "*/30 * * * *": times(range(24), (0, 30)),
    "*/10 0-3 * * *": times(range(4), range(0, 60, 10)),
    "5 */2 * * *": times(range(0, 24, 2), (5,)),
}
SIX_YEARS = (at("2025-01-01T00:00+00:00"), at("2031-01-01T00:00+00:00"))


@pytest.mark.parametrize("name", ZONES)
def test_every_clock_change_until_2030(name):
    """Fixed times, every half hour and wildcards, against the zone walked minute by minute."""
    zone = zone_named(name)
    for change in clock_changes(name, *SIX_YEARS) or SIX_YEARS:
        begin, end = change - timedelta(hours=15), change + timedelta(hours=9)
        walked = walk(begin, end, MINUTE, zone)
        expected = {text: ticks_reached(walked, few) for text, few in FIXED.items()}
        expected |= {text: ticks_shown(walked, few) for text, few in WILD.items()}
        for text, ticks in expected.items():
            assert within(Cron.parse(text), begin, end, zone) == ticks, (text, change)
            assert back(Cron.parse(text), begin, end, zone) == ticks, (text, change)


changes_of_2026 = st.sampled_from([
    (zone_named(name), change)
    for name in ("Europe/Berlin", "Australia/Lord_Howe", "America/Havana", "Pacific/Chatham")
    for change in clock_changes(name, at("2026-01-01T00:00+00:00"), at("2027-01-01T00:00+00:00"))
])  # fmt: skip
some = st.frozensets(st.integers(0, 59), min_size=1, max_size=3)
near = st.timedeltas(timedelta(hours=-8), timedelta(hours=2))


@settings(deadline=None, max_examples=50)
@given(changes_of_2026, near, some, some, st.frozensets(st.integers(0, 4), min_size=1, max_size=3))
def test_to_the_second_from_any_moment_near_a_change(at_change, shift, seconds, minutes, hours):
    """Six fields, moments within gaps and folds: against the zone walked second by second.

    The walk begins earlier, outside any fold; what is not after the moment is cut off.
    """
    zone, hour = at_change
    moment = hour + shift
    end = moment.replace(microsecond=0) + timedelta(minutes=80)
    walked = walk(hour - timedelta(hours=9), end, SECOND, zone)
    front = " ".join(",".join(map(str, sorted(field))) for field in (seconds, minutes))
    fixed = f"{front} {','.join(map(str, sorted(hours)))} * * *"
    for text, ticks in {
        fixed: ticks_reached(walked, times(hours, minutes, seconds)),
        f"{front} * * * *": ticks_shown(walked, times(range(24), minutes, seconds)),
    }.items():
        expected = [tick for tick in ticks if tick > moment]
        assert within(Cron.parse(text), moment, end, zone) == expected
        assert back(Cron.parse(text), moment, end, zone) == expected


# --- Fields, months and weeks, against a calendar

FIELD_RANGES = ((0, 59), (0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
WORDS = {
    4: ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"],
    5: ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"],
}


def spelt(index: int, number: int) -> st.SearchStrategy[str]:
    words = WORDS.get(index, [])
    place = number - FIELD_RANGES[index][0]
    known = [words[place], words[place].lower()] if place < len(words) else []
    return st.sampled_from([str(number), f"{number:02}", *known])


@st.composite
def terms(draw: st.DrawFn, index: int) -> tuple[str, frozenset[int]]:
    low, high = FIELD_RANGES[index]
    begin = draw(st.integers(low, high))
    end = draw(st.integers(begin, high))
    step = draw(st.integers(1, high - low))
    first_text, last_text = draw(spelt(index, begin)), draw(spelt(index, end))
    kinds = {
        f"{first_text}": range(begin, begin + 1),
        f"{first_text}-{last_text}": range(begin, end + 1),
        f"{first_text}/{step}": range(begin, high + 1, step),
        f"*/{step}": range(low, high + 1, step),
        "*": range(low, high + 1),
    }
    if begin < end:
        kinds[f"{first_text}-{last_text}/{step}"] = range(begin, end + 1, step)
    text, numbers = draw(st.sampled_from([*kinds.items()]))
    return text, frozenset(numbers)


@st.composite
def fields(draw: st.DrawFn, index: int) -> tuple[str, frozenset[int]]:
    chosen = draw(st.lists(terms(index), min_size=1, max_size=3))
    return ",".join(text for text, _ in chosen), frozenset().union(*(few for _, few in chosen))


expressions = st.tuples(*(fields(index) for index in range(6)))


def matches(day: date, read: tuple[tuple[str, frozenset[int]], ...]) -> bool:
    (month_day, month_days), (_, months), (week_day, week_days) = read[3:]
    by_date = day.day in month_days
    by_week = bool({day.isoweekday(), day.isoweekday() % 7} & week_days)
    both = month_day.startswith("*") or week_day.startswith("*")
    return day.month in months and ((by_date and by_week) if both else (by_date or by_week))


@settings(deadline=None, max_examples=200)
@given(expressions, moments)
def test_what_matches_is_what_the_calendar_says(read, begin):
    """The first ticks within two years, from the sets that the fields were written from."""
    text = " ".join(field for field, _ in read)
    try:
        cron = Cron.parse(text)
    except ScheduleError:
        days = (date(2000, 1, 1) + n * DAY for n in range(366 * 28))
        assert not any(matches(day, read) for day in days)
        return
    days = (begin.date() + n * DAY for n in range(731))
    expected = (
        moment
        for day in days
        if matches(day, read)
        for hour, minute, second in itertools.product(*(sorted(read[i][1]) for i in (2, 1, 0)))
        if (moment := datetime(day.year, day.month, day.day, hour, minute, second, tzinfo=UTC))
        > begin
    )
    ticks = list(itertools.islice(expected, 5))
    assert list(itertools.islice(cron.after(begin), len(ticks))) == ticks
    if ticks:
        assert back(cron, begin, ticks[-1], UTC) == ticks


@pytest.mark.parametrize(
    ("text", "ticks"),
    [
        ("0 0 L * *", ["2026-01-31", "2026-02-28", "2026-03-31"]),
        ("0 0 LW * *", ["2026-01-30", "2026-02-27", "2026-03-31"]),
        ("0 0 1,L * *", ["2026-01-31", "2026-02-01", "2026-02-28"]),
        ("0 0 * * 5L", ["2026-01-30", "2026-02-27", "2026-03-27"]),
        ("0 0 * * FRI#2", ["2026-01-09", "2026-02-13", "2026-03-13"]),
        ("0 0 * * mon#1,5L", ["2026-01-05", "2026-01-30", "2026-02-02"]),
        ("0 0 29 2 *", ["2028-02-29", "2032-02-29", "2036-02-29"]),
        ("0 0 * 2 MON#5", ["2044-02-29", "2072-02-29", "2112-02-29"]),
        ("0 0 30 2 MON", ["2026-02-02", "2026-02-09", "2026-02-16"]),
        ("0 0 * * 7", ["2026-01-04", "2026-01-11", "2026-01-18"]),
        ("@weekly", ["2026-01-04", "2026-01-11", "2026-01-18"]),
        ("@monthly", ["2026-02-01", "2026-03-01", "2026-04-01"]),
        ("@yearly", ["2027-01-01", "2028-01-01", "2029-01-01"]),
        ("@Annually ", ["2027-01-01", "2028-01-01", "2029-01-01"]),
        ("@midnight", ["2026-01-02", "2026-01-03", "2026-01-04"]),
    ],
)
def test_days(text, ticks):
    found = itertools.islice(Cron.parse(text).after(at("2026-01-01T00:00+00:00")), 3)
    assert [tick.isoformat() for tick in found] == [f"{day}T00:00:00+00:00" for day in ticks]


def test_aliases_are_what_they_stand_for():
    for alias, text in ALIASES.items():
        assert Cron.parse(alias) == Cron.parse(text) == Cron.parse(f" 0  {text}\n")


# --- Moments

crons = st.sampled_from(
    [
        "* * * * * *",
        "*/7 * * * *",
        "30 2 * * *",
        "0 0-5 * * *",
        "0 0 L * *",
        "15 1 * * 0",
        "@hourly",
    ]
).map(Cron.parse)
zones = st.sampled_from(ZONES).map(zone_named)


@unhurried
@given(crons, zones, moments)
def test_the_next_tick_is_after_the_moment_and_none_is_between(cron, zone, moment):
    tick = cron.next_after(moment, zone)
    assert tick is not None
    assert tick > moment
    assert tick.tzinfo is UTC
    assert next(cron.until(tick - MICROSECOND, zone)) <= moment
    assert next(cron.until(tick, zone)) == tick


@unhurried
@given(crons, zones, moments, st.integers(1, 20))
def test_starting_again_after_each_tick_is_as_going_on(cron, zone, moment, count):
    on = list(itertools.islice(cron.after(moment, zone), count))
    again: list[datetime] = []
    while len(again) < count:
        moment = cron.next_after(moment, zone)
        again.append(moment)
    assert again == on == sorted(set(on))


@given(crons, moments, st.timedeltas(-DAY + SECOND, DAY - SECOND))
def test_a_moment_is_the_same_in_any_zone(cron, moment, offset):
    elsewhere = moment.astimezone(timezone(offset))
    assert cron.next_after(elsewhere) == cron.next_after(moment)
    assert cron.next_after(moment.replace(fold=1)) == cron.next_after(moment)


@pytest.mark.parametrize("text", ["* * * * * *", "0 0 1 1 *", "30 2 29 2 *", "*/5 * * * *"])
@pytest.mark.parametrize("zone", ["UTC", "Pacific/Apia", "Pacific/Pago_Pago", "Europe/Berlin"])
def test_the_calendar_ends_quietly(text, zone):
    cron, place = Cron.parse(text), zone_named(zone)
    begin, end = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
    for moment in (begin, begin.replace(month=6), end, end.replace(month=5)):
        assert all(tick > moment for tick in itertools.islice(cron.after(moment, place), 3))
        assert all(tick <= moment for tick in itertools.islice(cron.until(moment, place), 3))
    assert cron.next_after(end, place) is None


# --- What is refused


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("61 * * * *", '"61" is wrong for the minute (0-59): write a number'),
        ("60 * * * * *", '"60" is wrong for the second (0-59)'),
        ("* 24 * * *", '"24" is wrong for the hour (0-23)'),
        ("* * 0 * *", '"0" is wrong for the day of the month (1-31)'),
        ("* * * 13 *", '"13" is wrong for the month (1-12 or JAN-DEC)'),
        ("* * * * 8", '"8" is wrong for the day of the week (0-7 or SUN-SAT)'),
        ("* * * * MOON", '"MOON" is wrong for the day of the week'),
        ("* * * FRI *", '"FRI" is wrong for the month'),
        ("? * * * *", "write * for any"),
        ("0 0 ? * MON", "write * for any"),
        ("1,,2 * * * *", "something is missing beside a comma"),
        ("-5 * * * *", '"-5" is wrong for the minute'),
        ("1-2-3 * * * *", '"1-2-3" is wrong for the minute'),
        ("5-1 * * * *", "write 5-59,0-1"),
        ("0 22-2 * * *", "write 22-23,0-2"),
        ("0 0 * * FRI-MON", "write FRI-7,1-MON"),
        ("0 0 * * FRI-SUN", "write FRI-7"),
        ("*/0 * * * *", "a step is a number from 1 to 60"),
        ("*/90 * * * *", "a step is a number from 1 to 60"),
        ("0 */25 * * *", "a step is a number from 1 to 24"),
        ("5-5/10 * * * *", "a range of one has no steps: write 5"),
        ("*/x * * * *", "a step is a number"),
        ("*/ * * * *", "a step is a number"),
        ("0 0 L-3 * *", "write L for the last day"),
        ("0 0 L/2 * *", "write L for the last day"),
        ("0 0 15W * *", "write L for the last day"),
        ("0 0 * * FRIL", "write the last Friday of the month as 5L"),
        ("0 0 * * L", "write the last Friday of the month as 5L"),
        ("0 0 * * 9L", '"9L" is wrong for the day of the week'),
        ("0 0 * * FRI#6", "after # stands which one of the month, 1 to 5"),
        ("0 0 * * 9#1", '"9#1" is wrong for the day of the week'),
        ("0 0 1#1 * *", '"1#1" is wrong for the day of the month'),
        ("", "it has 0 fields; write five"),
        ("* * * *", "it has 4 fields; write five"),
        ("* * * * * * * *", "it has 8 fields; write five"),
        ("0 0 0 1 1 * 2027", "a year cannot be given: leave the seventh field out"),
        ("@reboot", "send the message where the program starts"),
        ("@dayly", "did you mean @daily?"),
        ("@x", "there are @yearly"),
        ("0 0 * * fr\u0131", "only digits, A-Z"),  # its capital is FRI
        ("\u0663 * * * *", "only digits, A-Z"),
        ("9" * 201, "it is longer than 200 characters"),
        ("0 0 30 2 *", "it never fires: there is no such day"),
        ("0 0 31 4,6,9,11 *", "it never fires"),
        ("* * */20 * 1L", "it never fires"),
        ("0 0 */31 2 MON#5", "it never fires"),
        (None, "an expression is a text"),
        (b"* * * * *", "an expression is a text"),
    ],
)  # fmt: skip
def test_refuses(wrong, says):
    with pytest.raises(ScheduleError) as caught:
        Cron.parse(wrong)
    assert says in str(caught.value)
    assert str(caught.value).startswith("cron ")
    assert isinstance(caught.value, TaskDefinitionError | ValueError)


near_cron = st.text("0123456789*/,-#LWSUNMOJA? @", max_size=40)


@unhurried
@given(st.text(max_size=60) | near_cron | st.lists(near_cron, max_size=7).map(" ".join))
@example("0 0 * * 1L/2")
@example("\x1c\x1d * * * * *")
@example("0 0 * * \u00b2L")
def test_rubbish_is_refused_with_one_kind_of_error(text):
    try:
        cron = Cron.parse(text)
    except ScheduleError:
        return
    assert cron.next_after(at("2026-01-01T00:00+00:00")) is not None


# --- Zones


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("Europe/Berln", 'did you mean "Europe/Berlin"?'),
        ("europe/berlin", 'did you mean "Europe/Berlin"?'),
        ("Berlin", 'did you mean "Europe/Berlin"?'),
        ("New York", 'did you mean "America/New_York"?'),
        ("PST", 'write a name of the tz database, such as "Europe/Berlin"'),
        ("UTC+2", 'write a name of the tz database, such as "Europe/Berlin"'),
        ("", "write a name of the tz database"),
        ("../etc/passwd", "write a name of the tz database"),
        ("/etc/localtime", "write a name of the tz database"),
        ("\0", "write a name of the tz database"),
        ("\ud800", "write a name of the tz database"),
        ("zone.tab", "write a name of the tz database"),
        ("x" * 5000, "write a name of the tz database"),
        (None, "null is not a time zone"),
        (ZoneInfo("Europe/Berlin"), "a ZoneInfo is not a time zone"),
        ("Europe", "is not a time zone; did you mean"),
        ("localtime", "the same on every machine"),
        ("right/Europe/Berlin", "the same on every machine"),
    ],
)
def test_refuses_what_is_no_zone(wrong, says):
    with pytest.raises(ScheduleError) as caught:
        zone_named(wrong)
    assert says in str(caught.value)


@settings(max_examples=30)
@given(st.text(max_size=20))
def test_a_zone_is_known_or_refused(name):
    try:
        zone = zone_named(name)
    except ScheduleError:
        return
    assert zone is UTC or name in zoneinfo.available_timezones()


def test_a_machine_without_zone_data(monkeypatch):
    """UTC needs none; anything else says how to get it."""
    monkeypatch.setitem(__import__("sys").modules, "tzdata", None)
    zoneinfo.reset_tzpath(to=["/nowhere"])
    zoneinfo.ZoneInfo.clear_cache()
    try:
        assert zone_named("UTC") is UTC
        with pytest.raises(ScheduleError, match="no zone data: pip install tzdata"):
            zone_named("Europe/Berlin")
    finally:
        zoneinfo.reset_tzpath()
