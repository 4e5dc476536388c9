"""Place: where one project's server keeps its data, its locks and its socket."""

import os
import stat
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Self

import attrs

from pgtasks.embedded import lock
from pgtasks.embedded.account import Account, name_of, root_folder
from pgtasks.errors import EmbeddedError

PORT = 5432  # only a part of the socket's file name
FOLDER = ".pgtasks"
SOCKET_PARENT = Path("/tmp")  # noqa: S108 - short, and the folder's owner and mode are checked


@attrs.frozen
class Home:
    """A project's `.pgtasks` folder and the account that owns what is in it."""

    folder: Path
    account: Account

    @classmethod
    def of(cls, project_folder: Path, environ: Mapping[str, str] = os.environ) -> Self:
        """The home of a project: `.pgtasks` in it.

        For root a folder of its own elsewhere, unless the account it steps down to can reach the
        project. Data that exists keeps its account, so that `sudo` does not take it over.
        """
        folder = project_folder / FOLDER
        if os.geteuid() != 0:
            return cls(folder, Account.current())
        if owner := _owner_of_data_in(folder):
            return cls(folder, Account.of_uid(owner))
        account = Account.for_root(environ)
        if account.can_enter(folder if folder.exists() else project_folder):
            return cls(folder, account)
        folder = root_folder() / sha256(os.fsencode(project_folder)).hexdigest()[:10]
        owner = _owner_of_data_in(folder)
        return cls(folder, Account.of_uid(owner) if owner else account)

    def make(self) -> None:
        """Make the folder, and keep it out of version control."""
        try:
            self.folder.mkdir()
        except FileExistsError:
            return
        if self.account.demoted:
            self.folder.chmod(0o755)  # ours alone, whatever the umask; no parent is touched
        (self.folder / ".gitignore").write_text("*\n")


@attrs.frozen
class Place:
    """Where one server is: everything about its paths."""

    home: Path
    name: str
    """pg18 for data that counts, pg18-scratch for data that need not survive a power cut."""
    account: Account

    @property
    def data(self) -> Path:
        """The data folder."""
        return self.home / self.name

    @property
    def log(self) -> Path:
        """What the server says."""
        return self.data / "server.log"

    @property
    def lock(self) -> Path:
        """Held shared by everybody who uses the server; the reaper waits to hold it alone."""
        return self.home / f"{self.name}.lock"

    @property
    def gate(self) -> Path:
        """Held by the one process that is making or starting the server."""
        return self.home / f"{self.name}.gate"

    @property
    def mark(self) -> Path:
        """Held by the reaper; the server's pid is in it."""
        return self.home / f"{self.name}.reaper"

    @property
    def identity(self) -> Path:
        """A file made with the data: data made anew at the same path is another server."""
        return self.data / "pgtasks.id"

    @property
    def socket_folder(self) -> Path:
        """A short name (a socket's path has 107 bytes at most) that is the same at every start."""
        key = f"{self.data}:{self.identity.read_text()}"
        return SOCKET_PARENT / f"pgt-{sha256(os.fsencode(key)).hexdigest()[:10]}"

    @property
    def socket(self) -> Path:
        """The socket itself, as libpq names it."""
        return self.socket_folder / f".s.PGSQL.{PORT}"

    def make_locks(self) -> None:
        """Make the lock files, the account's own even when root is first to need them."""
        for path in (self.lock, self.gate, self.mark):
            os.close(lock.opened(path))
            self.account.own(path)

    def check_socket_folder(self) -> None:
        """Refuse a socket folder that another account made: it could be a server that lies."""
        try:
            status = self.socket_folder.lstat()
        except FileNotFoundError:
            return  # the reaper makes it, and removes it
        if (
            not stat.S_ISDIR(status.st_mode)
            or status.st_uid != self.account.uid
            or status.st_mode & 0o077
        ):
            raise EmbeddedError(
                f"{self.socket_folder} is not a folder of the account {self.account.name} alone. "
                "Another account made it or opened it up: find out who, remove it, and try again."
            )

    def check_owner(self) -> None:
        """Refuse data of another account before anything fails half-way."""
        owner = self.data.stat().st_uid
        if owner != self.account.uid:
            raise EmbeddedError(
                f"The data in {self.data} belongs to the account {name_of(owner) or owner}, and "
                f"this is {self.account.name}. Run as that account (or as root), or remove "
                f"{self.home} if its data is not needed."
            )


def _owner_of_data_in(folder: Path) -> int | None:
    """Who owns the data folders in `folder`; None for nobody or root."""
    owners = (data.stat().st_uid for data in sorted(folder.glob("pg*/"), reverse=True))
    return next((owner for owner in owners if owner != 0), None)
