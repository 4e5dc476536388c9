"""The one rule for the names of queues, as Python states it; tests/postgres asks SQL too."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgtasks.errors import QueueNameError
from pgtasks.queue_name import MAX_LENGTH, check_queue_name, is_queue_name


@pytest.mark.parametrize("name", ["a", "emails", "q_emails", "a_b", "pg_x", "x" * 47, "a0_9"])
def test_names_that_can_be(name: str):
    assert check_queue_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "", "Foo", "fOO", 'a"b', "'; drop", "$1", "%I", "x" * 48, "x" * 63, "x" * 64, "é" * 30,
        "é", "ſ", "ａ", "🙂", "שלום", "a\n", "\na", "a\nb", "a b", "a-b", "a.b", "_a", "0a",
        "periodic", "a\0", "a;b", "a--b", "١", "a١", "\ud800",
    ],
    ids=ascii,
)  # fmt: skip
def test_names_that_cannot_be(name: str):
    assert not is_queue_name(name)
    with pytest.raises(QueueNameError) as refused:
        check_queue_name(name)
    assert "cannot be the name of a queue" in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", [None, 5, b"emails", ["emails"]])
def test_what_is_no_text_is_refused(name: object):
    with pytest.raises(QueueNameError, match="is a string, not"):
        check_queue_name(name)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "near"), [("Foo-Bar", "foo_bar"), (" emails ", "emails"), ("1st", "st")]
)
def test_the_nearest_name_is_offered(name: str, near: str):
    with pytest.raises(QueueNameError, match=f"for example '{near}'"):
        check_queue_name(name)


@given(st.text(max_size=60))
def test_a_name_that_can_be_is_short_lower_case_ascii(name: str):
    if is_queue_name(name):
        assert 1 <= len(name.encode()) <= MAX_LENGTH
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789_")
        assert name[0].isalpha()
    else:
        with pytest.raises(QueueNameError) as refused:
            check_queue_name(name)
        assert len(str(refused.value)) < 400
