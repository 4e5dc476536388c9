"""No password of a database URL is ever shown; another database of the server has its own URL."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgtasks.database_url import has_password, masked_url, with_database
from pgtasks.setting_kind import Url


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:s3cret@db/app",
        "postgresql://:s3cret@db/app",
        "postgresql://me:s3cret@db:5432,db2:5433/app?sslmode=require",
        "postgresql://me:a/b?s3cret#x@y@db/app",
        "postgresql://me:a@s3cret@db/app",
        "postgresql://db/app?user=me&password=s3cret",
        "postgresql://db/app?user=me&pass%77ord=s3cret&x=1",
        "postgresql://db/app?sslpassword=s3cret",
        "postgresql://me:s3cret/app",
    ],
)
def test_no_password_is_shown(url: str) -> None:
    assert "s3cret" not in masked_url(url)
    assert has_password(url)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://db/app",
        "postgresql://me@db:5432/app",
        "postgresql:///app?host=/run/postgresql&user=me",
        "postgresql://[::1]:5432/app",
        "postgres://a:1,b:2/app",
    ],
)
def test_urls_without_password_stay_as_they_are(url: str) -> None:
    assert masked_url(url) == url
    assert not has_password(url)
    assert Url().read(url) == url


PART = st.text(max_size=20) | st.text("@:/?#&=%[] a", max_size=8)


@given(PART, PART, st.sampled_from(["db", "db:1/x", "[::1]/a?b=c"]))
def test_no_password_is_ever_shown(before: str, after: str, place: str) -> None:
    """Unescaped characters of every kind in a password do not make a part of it visible."""
    assert "S3CRET" not in masked_url(f"postgresql://me:{before}S3CRET{after}@{place}")


@pytest.mark.parametrize(
    ("url", "other"),
    [
        ("postgresql://db/app", "postgresql://db/other"),
        ("postgresql://db", "postgresql://db/other"),
        ("postgresql://db/", "postgresql://db/other"),
        ("postgresql:///app?host=/tmp&port=1", "postgresql:///other?host=/tmp&port=1"),
        ("postgres://me@/app?host=/a/b", "postgres://me@/other?host=/a/b"),
        ("postgresql://me:p@a:1,b:2/app?x=/y", "postgresql://me:p@a:1,b:2/other?x=/y"),
        ("postgresql://[::1]:5432/app", "postgresql://[::1]:5432/other"),
    ],
)
def test_another_database_of_the_same_server(url: str, other: str) -> None:
    assert with_database(url, "other") == other
    assert with_database(other, "other") == other


def test_whatever_its_name_is() -> None:
    assert (
        with_database("postgresql://db/app?x=1", "a/b?c\\1") == "postgresql://db/a%2Fb%3Fc%5C1?x=1"
    )
