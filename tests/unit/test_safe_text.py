"""Text that is safe to log, however long it is and whatever somebody has put into it."""

import re
from time import perf_counter

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pgtasks.safe_text import _MARGIN, MASK, bounded, one_line, text_of
from pgtasks.short_traceback import short_traceback

SECRET = "S3CRET"
URL = f"postgresql://me:{SECRET}@db/app"
PLAIN = st.text(st.characters(exclude_characters="S3CRET"), max_size=40)
AROUND = st.integers(0, 60_000)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (URL, f"postgresql://me:{MASK}@db/app"),
        (f"cannot reach {URL}: no", f"cannot reach postgresql://me:{MASK}@db/app: no"),
        (f"'{URL}'", f"'postgresql://me:{MASK}@db/app'"),
        ("a://:p@b c://u:q@d", f"a://:{MASK}@b c://u:{MASK}@d"),
        ("a://b@c:5/d", "a://b@c:5/d"),
        ("http://db:5432/app", "http://db:5432/app"),
        ("mail me@db:5", "mail me@db:5"),
        ("https://a/b:c@d", "https://a/b:c@d"),
        (f"x://a/y://me:{SECRET}@db", f"x://a/y://me:{MASK}@db"),
        (f"postgresql://me:{SECRET}@more:{SECRET}@db", f"postgresql://me:{MASK}@db"),
    ],
)  # fmt: skip
def test_only_the_password_of_a_url_is_left_out(text: str, shown: str):
    assert bounded(text) == shown


@given(PLAIN, PLAIN, AROUND, AROUND, st.integers(0, 20_000))
@example("", "", 24_000, 0, 200)
@example("", "", 16_200, 60_000, 200)
@example("", "", 0, 16_195, 200)
@example("", "", 60_000, 16_195, 200)
def test_wherever_a_text_is_cut_no_password_is_shown(
    before: str, after: str, left: int, right: int, limit: int
):
    text = f"{'x ' * (left // 2)}{before} {URL} {after}{'y ' * (right // 2)}"
    shown = bounded(text, limit)
    assert SECRET not in shown
    assert len(shown) <= limit


@pytest.mark.parametrize("length", [10, 5_000, _MARGIN, _MARGIN + 100, 3 * _MARGIN, 10**6])
@pytest.mark.parametrize("limit", [0, 50, 400, 8_000])
def test_a_password_of_any_length_is_not_shown(length: int, limit: int):
    """One that is longer than all that is looked at is cut in two, and both halves are left out."""
    shown = bounded(f"at postgresql://me:{'S3CRET' * length}@db/app it ended", limit)
    assert "S3" not in shown
    assert len(shown) <= limit


@given(st.text("ab:/@ '\"", max_size=60))
def test_it_hides_what_the_one_expression_hid_that_took_too_long(text: str):
    one = re.sub(r"(://[^\s:/@\"']*):[^\s\"']*@", rf"\1:{MASK}@", text)
    assert bounded(text) == one


ENDLESS = {
    "users without a password": "://a:", "users and passwords": "://a:b@", "words": "://a:b@ ",
    "slashes": "://", "at": "@", "colons": ":", "quotes": "'\"", "escapes": "\x1b[31m\n",
    "surrogates": "\ud800",
}  # fmt: skip


@pytest.mark.parametrize("part", ENDLESS.values(), ids=ENDLESS)
def test_no_text_takes_long(part: str):
    """It holds up everything else in the process: an error may say what a message brought."""
    text = part * (20_000_000 // len(part))
    began_at = perf_counter()
    assert len(one_line(text)) <= 8_000 * 6
    error = ValueError(text)
    error.add_note(text)
    assert len(short_traceback(error)) <= 8_000
    assert perf_counter() - began_at < 2


class OddError(Exception):
    """Its text cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


class OddTooError(Exception):
    """Nor can this one's: what it raises has none either."""

    def __str__(self) -> str:
        raise OddError


@pytest.mark.parametrize("error", [OddError(), OddTooError()])
def test_a_text_that_cannot_be_had(error: Exception):
    assert text_of(error).startswith(f"<str() of this {type(error).__name__} raised")
    assert type(error).__name__ in short_traceback(error)
