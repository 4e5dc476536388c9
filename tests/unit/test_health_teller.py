"""What a supervisor tells of its worker, also where there is no room for it."""

import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from eventually import eventually_async

from pgtasks import Config, health_teller
from pgtasks.config import HealthConfig, WorkerConfig
from pgtasks.errors import ConfigError
from pgtasks.health import Health
from pgtasks.health_file import HealthFile, Status, find_workers
from pgtasks.health_teller import HealthTeller
from pgtasks.layers import Loaded

WARNING = "`pgtasks health` cannot know of this worker"


def teller_of(folder: Path, listen: str | None = None) -> HealthTeller:
    config = Config(worker=WorkerConfig(health=HealthConfig(listen)))
    return HealthTeller(Loaded(config, origins={}, project_folder=folder), Health)


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The only place for files, which is not there yet."""
    known, make = [str(tmp_path / "place")], HealthFile.make
    monkeypatch.setattr(HealthFile, "make", lambda status: make(status, known))
    monkeypatch.setattr(health_teller, "TELL_SECONDS", 0.01)
    return known


@pytest.fixture
async def teller(tmp_path: Path, places: list[str]) -> AsyncIterator[HealthTeller]:
    made = teller_of(tmp_path)
    yield made
    made.close()


def _make(place: str) -> None:
    Path(place).mkdir()


async def test_without_a_place_it_says_so_once_and_tries_again(
    teller: HealthTeller, places: list[str], caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.WARNING, "pgtasks"):
        await teller.start()
        tried_at = teller._timer

        async def tried_again() -> None:
            assert teller._timer is not tried_at

        await eventually_async(tried_again)
        assert [record.getMessage() for record in caplog.records] == [WARNING]
    _make(places[0])

    async def found() -> Status:
        statuses = find_workers(places)
        assert statuses
        return statuses[0]

    first = await eventually_async(found)

    async def refreshed() -> None:
        assert (await found()).written_at > first.written_at

    await eventually_async(refreshed)
    teller.close()
    assert find_workers(places) == []


async def test_an_address_that_cannot_be_had_is_a_wrong_setting(tmp_path: Path, places: list[str]):
    """One that no machine has for its own."""
    with pytest.raises(ConfigError, match=r"worker.health.listen: cannot listen on 192.0.2.1:9464"):
        await teller_of(tmp_path, "192.0.2.1:9464").start()
