"""Schedules: what they refuse, their ticks, and what is due after any rest."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from time import perf_counter
from zoneinfo import ZoneInfo

import attrs
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pgtasks.errors import QueueNameError, ScheduleError
from pgtasks.schedule import MOST_COUNTED, ON_TIME_SECONDS, Due, Schedule

unhurried = settings(deadline=None)
MICROSECOND = timedelta(microseconds=1)
SECOND = timedelta(seconds=1)
DAY = timedelta(days=1)
NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


# --- Ticks

rules = st.sampled_from(
    [
        Schedule("s", cron="*/5 * * * *", timezone="Australia/Lord_Howe"),
        Schedule("s", cron="0,20 1-3 * * *", timezone="Europe/Berlin"),
        Schedule("s", cron="30 2 * * *", timezone="America/New_York"),
        Schedule("s", cron="*/30 */2 * * * *"),
        Schedule("s", cron="0 0 L * *", timezone="America/Havana"),
        Schedule("s", every=7),
        Schedule("s", every="1.5s"),
        Schedule("s", every="1h30m"),
        Schedule("s", every="365d"),
    ]
)
# Often near a clock change, at which Berlin, New York, Lord Howe or Havana go wrong first.
moments = st.one_of(
    st.timedeltas(-60 * 365 * DAY, 100 * 365 * DAY).map(lambda passed: NEW_YEAR + passed),
    st.tuples(
        st.sampled_from([at("2026-03-29"), at("2026-10-25"), at("2026-03-08"), at("2026-11-01"),
                         at("2026-04-04T12:00"), at("2026-10-03T12:00")]),
        st.timedeltas(-DAY, DAY),
    ).map(lambda pair: pair[0] + pair[1]),
)  # fmt: skip


@unhurried
@given(rules, moments, st.integers(0, 20))
def test_upcoming_is_one_next_after_the_other(schedule, moment, count):
    ticks = schedule.upcoming(moment, count)
    assert len(ticks) == count
    for tick in ticks:
        assert schedule.next_after(moment) == tick > moment
        assert schedule.next_after(tick - MICROSECOND) == tick
        moment = tick


def test_an_interval_has_its_ticks_at_whole_multiples_since_1970():
    """Not since a start: workers agree, and a deploy postpones none."""
    every = Schedule("s", every="90m")
    assert every.upcoming(at("1970-01-01T00:00:01"), 2) == [
        at("1970-01-01T01:30"),
        at("1970-01-01T03:00"),
    ]
    assert every.next_after(at("1969-12-31T23:00")) == at("1970-01-01T00:00")
    assert Schedule("s", every="1d").next_after(at("2026-03-08T13:14")) == at("2026-03-09T00:00")


@pytest.mark.parametrize("every", [1, 1.000001, "1h", "7d", "365d"])
@given(moments)
def test_any_interval_divides_its_ticks(every, moment):
    schedule = Schedule("s", every=every)
    tick = schedule.next_after(moment)
    assert tick is not None
    assert schedule.every is not None
    assert moment < tick <= moment + schedule.every
    assert (tick - at("1970-01-01")) % schedule.every == timedelta(0)


def test_a_moment_in_any_zone_but_not_without():
    schedule = Schedule("s", cron="0 12 * * *", timezone="Europe/Berlin")
    for zone in (UTC, ZoneInfo("America/New_York"), timezone(timedelta(hours=5, minutes=45))):
        moment = at("2026-07-01T08:00").astimezone(zone)
        assert schedule.next_after(moment) == at("2026-07-01T10:00")
    without = at("2026-07-01T08:00").replace(tzinfo=None)
    with pytest.raises(ScheduleError, match=r"2026-07-01 08:00:00 has no zone: write e\.g\."):
        schedule.next_after(without)
    with pytest.raises(ScheduleError, match="has no zone"):
        schedule.due(without, at("2026-07-01T08:00"))
    with pytest.raises(ScheduleError, match="has no zone"):
        schedule.due(at("2026-07-01T08:00"), without)


def test_the_calendar_ends():
    last = datetime.max.replace(tzinfo=UTC)
    for schedule in (Schedule("s", every=1), Schedule("s", cron="* * * * *")):
        assert schedule.next_after(last) is None
        assert schedule.upcoming(last, 3) == []
        assert schedule.due(last, last).next_fire_at is None


# --- What is due


def naively_due(schedule: Schedule, next_fire_at: datetime, now: datetime) -> Due:
    """By going through all ticks, one by one, from the oldest."""
    ticks = []
    tick = schedule.next_after(next_fire_at - MICROSECOND)
    while tick is not None and tick <= now:
        ticks.append(tick)
        tick = schedule.next_after(tick)
    match schedule.misfire:
        case "coalesce":
            fired = ticks[-1:]
        case "catch_up":
            fired = ticks[-schedule.catch_up_limit :]
        case "skip":
            fired = [one for one in ticks[-1:] if now - one <= timedelta(seconds=5)]
    return Due(tuple(fired), tick, min(len(ticks) - len(fired), MOST_COUNTED))


@settings(deadline=None, max_examples=200)
@given(
    rules,
    moments,
    st.timedeltas(timedelta(minutes=-20), timedelta(hours=3)),
    st.sampled_from(["coalesce", "skip", "catch_up"]),
    st.integers(1, 30),
)
@example(Schedule("s", every=7), at("1970-01-01"), timedelta(0), "skip", 1)
@example(Schedule("s", every=7), at("1970-01-01"), timedelta(seconds=5), "skip", 1)
@example(Schedule("s", every=7), at("1970-01-01"), timedelta(seconds=5.000001), "skip", 1)
@example(Schedule("s", every=7), at("1970-01-01"), timedelta(seconds=6.999999), "skip", 1)
@example(Schedule("s", every=7), at("1970-01-01T00:00:01"), timedelta(hours=1), "catch_up", 1)
def test_due_is_what_a_patient_reckoner_finds(schedule, next_fire_at, passed, misfire, limit):
    """Also for a `next_fire_at` that is no tick, or lies ahead."""
    schedule = attrs.evolve(schedule, misfire=misfire, catch_up_limit=limit)
    now = next_fire_at + passed
    assert schedule.due(next_fire_at, now) == naively_due(schedule, next_fire_at, now)


@unhurried
@given(rules, moments, st.lists(st.timedeltas(MICROSECOND, timedelta(minutes=24)), max_size=8))
def test_whenever_one_looks_catching_up_fires_every_tick_once(schedule, moment, pauses):
    """Looks at any times, each from where the one before left off: no tick twice, none left out."""
    schedule = attrs.evolve(schedule, misfire="catch_up", catch_up_limit=1000)
    begin, stands = moment, schedule.next_after(moment)
    fired: list[datetime] = []
    for pause in pauses:
        moment += pause
        due = schedule.due(stands, moment)
        assert due.missed == 0
        assert due.next_fire_at > moment
        fired += due.ticks
        stands = due.next_fire_at
    expected = schedule.upcoming(begin, len(fired) + 1)
    assert [*fired, stands] == expected


@unhurried
@given(rules, moments, st.lists(st.timedeltas(MICROSECOND, timedelta(hours=9)), max_size=5))
def test_coalescing_fires_the_latest_and_never_one_twice(schedule, moment, pauses):
    stands = schedule.next_after(moment)
    fired: list[datetime] = []
    for pause in pauses:
        moment += pause
        due = schedule.due(stands, moment)
        assert len(due.ticks) == int(stands <= moment)
        fired += due.ticks
        stands = due.next_fire_at
        assert all(schedule.next_after(tick) == stands for tick in due.ticks)
    assert fired == sorted(set(fired))


def test_a_rest_by_each_policy():
    """The sole ticker was away for half a minute, and for two hours."""
    stands = at("2026-05-01T12:00")
    for rest, count in ((30, 31), (7200, 7201)):
        now = stands + timedelta(seconds=rest)
        coalesce = Schedule("s", cron="* * * * * *").due(stands, now)
        assert (len(coalesce.ticks), coalesce.missed) == (1, min(count - 1, MOST_COUNTED))
        caught = Schedule("s", every=1, misfire="catch_up").due(stands, now)
        assert caught.ticks == tuple(now - n * SECOND for n in reversed(range(min(count, 100))))
        assert caught.missed == min(max(count - 100, 0), MOST_COUNTED)
        hourly = Schedule("s", cron="@hourly", misfire="skip").due(stands, now + 6 * SECOND)
        assert hourly.ticks == ()
        assert hourly.missed == (1 if rest == 30 else 3)


def test_on_time_is_five_seconds():
    stands = at("2026-05-01T12:00")
    schedule = Schedule("s", cron="@hourly", misfire="skip")
    late = timedelta(seconds=ON_TIME_SECONDS)
    assert schedule.due(stands, stands + late).ticks == (stands,)
    assert schedule.due(stands, stands + late + MICROSECOND) == Due((), at("2026-05-01T13:00"), 1)


def test_nothing_is_due_before_its_time():
    schedule = Schedule("s", cron="@hourly")
    stands = at("2026-05-01T12:00")
    assert schedule.due(stands, stands - MICROSECOND) == Due((), stands, 0)
    assert schedule.due(stands, stands - 30 * DAY) == Due((), stands, 0)
    assert schedule.due(stands, stands) == Due((stands,), at("2026-05-01T13:00"), 0)


@pytest.mark.parametrize("misfire", ["coalesce", "skip", "catch_up"])
@pytest.mark.parametrize(
    "rule",
    [
        {"cron": "* * * * * *", "timezone": "Europe/Berlin"},
        {"cron": "0-59 0-59 0-23 * * *", "timezone": "Europe/Berlin"},
        {"cron": "* * 2 * JAN *", "timezone": "America/New_York"},
        {"every": 1},
    ],
)
def test_ten_years_of_rest_are_no_work(rule, misfire):
    """Up to 300 million ticks are due; some hundreds of times as long as measured is allowed."""
    schedule = Schedule("s", **rule, misfire=misfire, catch_up_limit=1000)
    begun = perf_counter()
    due = schedule.due(NEW_YEAR - 3650 * DAY, NEW_YEAR)
    assert perf_counter() - begun < 2
    assert len(due.ticks) == {"catch_up": 1000, "coalesce": 1}.get(misfire, len(due.ticks))
    assert due.missed == MOST_COUNTED
    assert due.next_fire_at == schedule.next_after(NEW_YEAR)
    if due.ticks:
        assert schedule.upcoming(due.ticks[0] - SECOND, len(due.ticks)) == list(due.ticks)
        assert schedule.next_after(due.ticks[-1]) == due.next_fire_at


# --- What a schedule is


def test_as_it_is_written():
    schedule = Schedule("nightly", cron="0 3 * * *", timezone="Europe/Berlin", args=[1, "a"])
    assert schedule.every is None
    assert schedule.zone == ZoneInfo("Europe/Berlin")
    assert schedule.jitter == timedelta(0)
    assert (schedule.misfire, schedule.catch_up_limit, schedule.overlap) == (
        "coalesce",
        100,
        "allow",
    )
    assert (schedule.queue, schedule.args, schedule.kwargs) == (None, [1, "a"], {})
    assert Schedule("s", every="15m", jitter=2.5).every == timedelta(minutes=15)
    assert Schedule("s", every="15m", jitter=2.5).jitter == timedelta(seconds=2.5)
    assert schedule == attrs.evolve(schedule)
    assert hash(schedule) == hash(attrs.evolve(schedule, args=[2]))
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        schedule.name = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, 'schedule "s" has neither cron=... nor every=...: give one, such as every="15m"'),
        ({"cron": "@daily", "every": 5}, 'schedule "s" has both cron=... and every=...'),
        ({"cron": "", "every": 5}, 'schedule "s" has both'),
        ({"cron": ""}, 'schedule "s": cron "": it has 0 fields'),
        ({"cron": "61 * * * *"}, 'schedule "s": cron "61 * * * *": "61" is wrong for the minute'),
        ({"every": 0}, 'schedule "s": every: "0s" is not from 1s to 365d'),
        ({"every": 0.999999}, "every: "),
        ({"every": "366d"}, 'every: "366d" is not from 1s to 365d'),
        ({"every": "5 parsecs"}, 'Schedule(every=...): "5 parsecs" is not a duration'),
        ({"every": -5}, "Schedule(every=...): -5 is negative"),
        ({"every": True}, "Schedule(every=...): true is not a duration"),
        ({"every": 5, "timezone": "Europe/Berlin"}, "an interval is real time in every zone"),
        ({"cron": "@daily", "timezone": "Europe/Berln"}, 'did you mean "Europe/Berlin"?'),
        ({"cron": "@daily", "timezone": None}, 'schedule "s": timezone: null is not a time zone'),
        ({"every": 5, "jitter": "25h"}, 'jitter: "25h" is longer than 1d'),
        ({"every": 5, "jitter": -1}, "Schedule(jitter=...): -1 is negative"),
        ({"every": 5, "jitter": None}, "Schedule(jitter=...): null is not a duration"),
        ({"every": 5, "misfire": "catchup"}, 'misfire: "catchup" is not known; did you mean'),
        ({"every": 5, "misfire": 1}, 'write "coalesce" or "skip" or "catch_up"'),
        ({"every": 5, "misfire": ["skip"]}, "misfire: a list is not known"),
        ({"every": 5, "overlap": "forbid"}, 'overlap: "forbid" is not known; write "allow" or'),
        ({"every": 5, "catch_up_limit": 0}, "catch_up_limit: 0 is not a whole number from 1"),
        ({"every": 5, "catch_up_limit": 1001}, "1001 is not a whole number from 1 to 1000"),
        ({"every": 5, "catch_up_limit": True}, "catch_up_limit: true"),
        ({"every": 5, "catch_up_limit": 5.0}, "catch_up_limit: 5.0"),
        ({"every": 5, "args": "eu"}, 'args: "eu" is not a list of arguments'),
        ({"every": 5, "args": {"region": "eu"}}, "args: a table is not a list of arguments"),
        ({"every": 5, "kwargs": ["eu"]}, "kwargs: a list is not a dict of arguments"),
        ({"every": 5, "kwargs": {1: "eu"}}, "kwargs: a table is not a dict of arguments"),
        ({"name": "", "every": 5}, '"" cannot be the name of a schedule'),
        ({"name": "a\nb", "every": 5}, "1 to 200 printable characters on one line"),
        ({"name": "x" * 201, "every": 5}, "1 to 200 printable characters"),
        ({"name": 5, "every": 5}, "5 cannot be the name of a schedule"),
        ({"name": None}, "schedule null has neither"),
    ],
)
def test_refuses(given, says):
    with pytest.raises(ScheduleError) as caught:
        Schedule(**{"name": "s", **given})
    assert says in str(caught.value)


def test_the_limits_themselves_are_fine():
    assert Schedule("x" * 200, every=1, jitter="1d", catch_up_limit=1000).every == SECOND
    assert Schedule("a b/ü", every="365d", catch_up_limit=1).every == 365 * DAY
    assert Schedule("s", every=5, timezone="UTC").zone is UTC


def test_refuses_a_name_that_no_queue_can_have():
    with pytest.raises(QueueNameError):
        Schedule("s", every=5, queue="No Queue")
    assert Schedule("s", every=5, queue="reports").queue == "reports"


anything = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.none())


@unhurried
@given(
    st.dictionaries(
        st.sampled_from([field.name for field in attrs.fields(Schedule) if field.init]), anything
    )
)
def test_rubbish_is_refused_with_one_kind_of_error(given):
    with suppress(ScheduleError, QueueNameError):
        Schedule(**{"name": "s", "every": 5, **given})
