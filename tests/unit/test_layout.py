"""Layouts: statements fit the tables of queues that another program made."""

from collections.abc import Iterator

import pytest

from pgtasks import SchemaError
from pgtasks.layout import (
    EVERY_QUEUE,
    Layout,
    _noted,
    check_layout,
    laid_out,
    layout_of,
    note_layouts,
)

TEXT = "SET {wide: last_read_at = 1,} SELECT {wide: last_read_at|NULL}{partitioned: , part}"


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    before = dict(_noted)
    _noted.clear()
    yield
    _noted.clear()
    _noted.update(before)


@pytest.mark.parametrize(
    ("layout", "text"),
    [
        (Layout(), "SET last_read_at = 1, SELECT last_read_at"),
        (Layout(is_wide=False), "SET  SELECT NULL"),
        (Layout(is_partitioned=True), "SET last_read_at = 1, SELECT last_read_at, part"),
    ],
)
def test_a_statement_is_laid_out(layout: Layout, text: str):
    assert laid_out(TEXT, layout) == text


def test_other_braces_are_left_alone():
    text = "'{pgtasks,outcome}'::text[] {q} {widest: x}"
    assert laid_out(text, Layout(is_wide=False)) == text


def test_differences_are_said_in_words():
    assert Layout().differences == []
    every = Layout(is_wide=False, is_partitioned=True, has_headers=False)
    assert every.differences == ["partitioned", "without last_read_at", "without headers"]


def test_what_is_not_noted_is_as_ours():
    assert layout_of("emails") == Layout()


def test_one_queue_may_differ_from_the_rest():
    assert note_layouts([("emails", Layout(is_partitioned=True))])
    assert layout_of("emails").is_partitioned
    assert layout_of("other") == Layout()


def test_what_holds_for_every_queue_holds_for_each():
    note_layouts([(EVERY_QUEUE, Layout(is_wide=False)), ("emails", Layout(is_partitioned=True))])
    assert layout_of("emails") == Layout(is_wide=False, is_partitioned=True)
    assert layout_of("fresh") == Layout(is_wide=False)


def test_of_two_databases_what_is_true_of_both_is_kept():
    assert note_layouts([("emails", Layout(is_wide=False))])
    assert note_layouts([("emails", Layout(is_partitioned=True))])
    assert not note_layouts([("emails", Layout(is_partitioned=True))])
    assert layout_of("emails") == Layout(is_wide=False, is_partitioned=True)


def test_a_queue_without_headers_cannot_be_served():
    check_layout("emails")
    note_layouts([("emails", Layout(has_headers=False))])
    with pytest.raises(SchemaError, match="no column headers(.|\n)*ADD COLUMN headers jsonb"):
        check_layout("emails")
