"""The pytest plugin of pgtasks: databases of a test's own.

Not registered by itself: pytest would import it, and with it all of pgtasks, in every test run of
whoever has pgtasks installed. A `conftest.py` says `pytest_plugins = ["pgtasks.pytest_plugin"]`.
"""

from collections.abc import Iterator

import pytest

from pgtasks.testing import TemporaryDatabase, temporary_database

VARIABLE = "PGTASKS_DATABASE_URL"


@pytest.fixture
def pgtasks_database(monkeypatch: pytest.MonkeyPatch) -> Iterator[TemporaryDatabase]:
    """A database for this test alone, with the schema of pgtasks in it, dropped at its end.

    While the test runs, `connect()` and worker processes find it.
    """
    with temporary_database() as database:
        monkeypatch.setenv(VARIABLE, database.url)
        yield database


@pytest.fixture(scope="session")
def pgtasks_session_database() -> Iterator[TemporaryDatabase]:
    """One database for all tests of the process, with the schema of pgtasks in it.

    While the tests run, `connect()` and worker processes find it.
    """
    with temporary_database() as database, pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, database.url)
        yield database
