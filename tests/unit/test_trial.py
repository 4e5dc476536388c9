"""How often a message may end its process, and in which company."""

from pgtasks.board import Entry
from pgtasks.message import Held
from pgtasks.trial import Trial

ONE, OTHER = Entry("default", Held(1, 0.0), 1, True), Entry("default", Held(2, 0.0), 1, True)


def test_what_ran_side_by_side_is_first_run_together() -> None:
    assert Trial.first([ONE, OTHER]) == Trial((ONE, OTHER), is_together=True, crashes=2)


def test_what_ran_by_itself_is_alone_at_once() -> None:
    assert not Trial.first([ONE]).is_together


def test_three_deaths_are_a_proof_whichever_way() -> None:
    """The first, one together and one alone; or the first and two alone."""
    alone = Trial.first([ONE, OTHER]).then([ONE, OTHER])
    assert (alone.is_together, alone.crashes) == (False, 1)
    assert alone.then([ONE]).crashes == 1
    assert Trial.first([ONE]).then([ONE]).crashes == 2
