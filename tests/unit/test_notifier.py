"""When workers are told: of everything, soon, and not too often."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from pgtasks.notifier import SPACING_SECONDS, Notifier

STEP = SPACING_SECONDS / 10

stored = st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 30), st.booleans()), max_size=60)


@given(stored)
def test_everything_is_told_soon_and_nothing_too_often(stored: list[tuple[str, int, bool]]):
    """Each message by itself or later; the time between two is a number of steps."""
    notifier, now, told = Notifier(), 100.0, dict[str, list[float]](a=[], b=[])
    committed = list[tuple[str, float]]()

    def pass_until(moment: float) -> None:
        # What is owed since long ago is told at once.
        while (at := notifier.next_at()) is not None and max(at, now) <= moment:
            for queue in notifier.take_owed(max(at, now)):
                told[queue].append(max(at, now))

    for queue, pause, is_alone in stored:
        pass_until(now + pause * STEP)
        now += pause * STEP
        committed.append((queue, now))
        if is_alone and notifier.may_tell(queue, now):
            told[queue].append(now)
        else:
            notifier.stored_silently(queue)
    pass_until(now + 1)
    assert notifier.next_at() is None
    for queue, at in committed:
        assert any(at <= moment <= at + SPACING_SECONDS + 1e-9 for moment in told[queue])
    for moments in told.values():
        assert all(b - a >= SPACING_SECONDS - 1e-9 for a, b in pairwise(moments))


def test_the_first_is_told_at_once():
    notifier = Notifier()
    assert notifier.may_tell("a", 0.0)
    assert not notifier.may_tell("a", SPACING_SECONDS / 2)
    assert notifier.may_tell("b", SPACING_SECONDS / 2)
    assert notifier.may_tell("a", SPACING_SECONDS)


def test_what_tells_of_itself_tells_of_what_is_owed():
    notifier = Notifier()
    assert notifier.stored_silently("a")
    assert not notifier.stored_silently("a")
    assert notifier.may_tell("a", 5.0)
    assert notifier.next_at() is None


def test_before_it_ends_it_tells_of_all():
    notifier = Notifier()
    notifier.told("a", 5.0)
    notifier.stored_silently("a")
    assert notifier.take_owed(5.0) == []
    assert notifier.take_owed(9.0, but="a") == []
    assert notifier.take_owed(5.0, early=True) == ["a"]


def test_switched_off_it_tells_of_nothing():
    notifier = Notifier(is_on=False)
    assert not notifier.may_tell("a", 0.0)
    assert not notifier.stored_silently("a")
    assert notifier.next_at() is None
