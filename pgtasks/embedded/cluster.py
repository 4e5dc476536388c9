"""The cluster: make the data folder, and write the settings the server starts with."""

import os
import re
import secrets
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import mkdtemp

from pgtasks.embedded.binaries import Binaries, find_major, run_as
from pgtasks.embedded.place import Place
from pgtasks.errors import EmbeddedError

SUPERUSER = "postgres"
DATABASE = "pgtasks"
INITDB_SECONDS = 300.0
LOCALE = "C.UTF-8" if sys.platform == "linux" else "C"  # macOS has no C.UTF-8

SETTINGS = {
    "cluster_name": "pgtasks",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "max_wal_size": "512MB",
    "wal_buffers": "4MB",
    "checkpoint_timeout": "15min",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "unix_socket_permissions": "0700",
}
SCRATCH_SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
}


def check_version(
    place: Place, binaries: Binaries, *, durable: bool, environ: Mapping[str, str] = os.environ
) -> None:
    """Refuse to pass over data that another major version made; it is never made anew."""
    if place.data.exists():
        made_by = {place.data: _major_of(place.data)}
    elif durable:
        others = (
            folder for folder in place.home.glob("pg*") if re.fullmatch(r"pg\d+", folder.name)
        )
        made_by = {folder: int(folder.name[2:]) for folder in others}
    else:
        made_by = {}
    for folder, major in made_by.items():
        if major != binaries.major:
            raise _wrong_major(folder, major, binaries, place, environ)


def _major_of(data_folder: Path) -> int:
    try:
        return int((data_folder / "PG_VERSION").read_text())
    except (FileNotFoundError, ValueError) as error:
        raise EmbeddedError(
            f"{data_folder} is not the data of a Postgres server: its PG_VERSION is missing or "
            "unreadable. Move the folder away; a new one is made at the next start."
        ) from error


def _wrong_major(
    folder: Path, made_by: int, binaries: Binaries, place: Place, environ: Mapping[str, str]
) -> EmbeddedError:
    other = find_major(made_by, place.account, environ)
    where = f" ({other.folder})" if other else ""
    return EmbeddedError(
        f"The data in {folder} was made by Postgres {made_by}, but the server found is "
        f"{binaries.version} ({binaries.folder}), which cannot read it. Nothing was changed. "
        f"Set PGTASKS_PG_BIN to the bin folder of a Postgres {made_by}{where}, or move the "
        "folder away to begin with an empty database."
    )


def create(place: Place, binaries: Binaries, *, durable: bool) -> None:
    """Make the data folder, all of it or none: in a sibling that is renamed at the end."""
    for unfinished in place.home.glob(f"{place.name}.new-*"):
        shutil.rmtree(unfinished, ignore_errors=True)
    folder = Path(mkdtemp(prefix=f"{place.name}.new-", dir=place.home))
    try:
        place.account.own(folder)
        _initialise(folder, place, binaries, durable=durable)
        if durable:
            _run(place, (binaries.program("initdb"), "--sync-only", "-D", str(folder)))
        folder.rename(place.data)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _initialise(folder: Path, place: Place, binaries: Binaries, *, durable: bool) -> None:
    options = (
        *("-U", SUPERUSER, "--auth-local=trust", "--auth-host=reject"),
        *("-E", "UTF8", f"--locale={LOCALE}", "--wal-segsize=1"),
        *("--no-sync", "--no-instructions"),
    )
    _run(place, (binaries.program("initdb"), "-D", str(folder), *options))
    single = ("--single", "-D", str(folder), "-c", "fsync=off", "-c", "exit_on_error=on")
    _run(
        place,
        (binaries.program("postgres"), *single, SUPERUSER),
        f"create database {DATABASE}\n",
    )
    settings = SETTINGS | ({} if durable else SCRATCH_SETTINGS)
    with (folder / "postgresql.conf").open("a") as file:
        file.writelines(f"{name} = '{value}'\n" for name, value in settings.items())
    place.account.write(folder / place.identity.name, secrets.token_hex(8))


def _run(place: Place, command: tuple[str, ...], text: str = "") -> None:
    ran = run_as(place.account, command, timeout_seconds=INITDB_SECONDS, text=text)
    if ran.returncode == 0:
        return
    if not place.account.is_known:
        raise EmbeddedError(
            f"The user id {place.account.uid} has no name on this system, and Postgres's initdb "
            "refuses that. Run under an account that exists, or set PGTASKS_DATABASE_URL."
        )
    raise EmbeddedError(
        f"{Path(command[0]).name} could not make the data folder {place.data} as the account "
        f"{place.account.name}. {next_step((ran.stdout + ran.stderr)[-2000:])}"
    )


def next_step(output: str) -> str:
    """What to do about a failure, and the output it was read from."""
    step = "Mend what it says and try again, or set PGTASKS_DATABASE_URL."
    if "No space left on device" in output:
        step = "The disk is full: free some space and try again."
    elif "Permission denied" in output:
        step = "The account lacks a right: see which file, and whose it is."
    lines = "\n".join(f"  {line}" for line in output.strip().splitlines()[-15:])
    return f"{step} It said:\n{lines or '  (nothing)'}"
