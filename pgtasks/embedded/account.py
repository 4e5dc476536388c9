"""Account: who runs the server; root never may, Postgres refuses it."""

import os
import pwd
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import attrs

from pgtasks.errors import EmbeddedError

FALLBACKS = ("postgres", "nobody")


@attrs.frozen
class Account:
    """The system account that owns the data and runs the server."""

    name: str
    uid: int
    gid: int
    demoted: bool
    """True when this process is root and steps down to the account for everything it starts."""

    @classmethod
    def current(cls) -> Self:
        """The account of this process."""
        uid = os.geteuid()
        return cls(name_of(uid) or str(uid), uid, os.getegid(), demoted=False)

    @classmethod
    def of_uid(cls, uid: int) -> Self:
        """The account root steps down to when `uid` owns the data already."""
        try:
            entry = pwd.getpwuid(uid)
        except KeyError:
            return cls(str(uid), uid, uid, demoted=True)
        return cls(entry.pw_name, uid, entry.pw_gid, demoted=True)

    @classmethod
    def for_root(cls, environ: Mapping[str, str]) -> Self:
        """The account root steps down to: PGTASKS_PG_USER, else postgres, else nobody."""
        wanted = environ.get("PGTASKS_PG_USER")
        for name in (wanted,) if wanted else FALLBACKS:
            try:
                entry = pwd.getpwnam(name)
            except KeyError:
                continue
            if entry.pw_uid == 0:
                break
            return cls(name, entry.pw_uid, entry.pw_gid, demoted=True)
        raise EmbeddedError(
            f"Postgres refuses to run as root, and there is no account {wanted or FALLBACKS!r} "
            "it could run as. Set PGTASKS_PG_USER to an existing ordinary account, "
            "or PGTASKS_DATABASE_URL to a database that runs already."
        )

    @property
    def is_known(self) -> bool:
        """Whether the account is in the system's list; initdb refuses one that is not."""
        return name_of(self.uid) is not None

    def can_enter(self, folder: Path) -> bool:
        """Whether the account may pass through `folder` and all its parents."""
        if not self.demoted:
            return os.access(folder, os.X_OK)
        return all(self._may_pass(place.stat()) for place in (folder, *folder.parents))

    def _may_pass(self, status: os.stat_result) -> bool:
        if status.st_uid == self.uid:
            return bool(status.st_mode & stat.S_IXUSR)
        if status.st_gid == self.gid:
            return bool(status.st_mode & stat.S_IXGRP)
        return bool(status.st_mode & stat.S_IXOTH)

    def own(self, path: Path) -> None:
        """Give a file or folder to the account."""
        if self.demoted:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)

    def write(self, path: Path, text: str) -> None:
        """Write a new file the account can read and nobody else."""
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
        self.own(path)


def name_of(uid: int) -> str | None:
    """The name of a user id, None when the system has none for it."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return None


def root_folder() -> Path:
    """Where root keeps what its account must reach when the project is out of its sight."""
    for folder in (Path("/var/lib/pgtasks"), Path("/var/tmp/pgtasks")):  # noqa: S108 - checked below
        try:
            folder.mkdir(mode=0o755)
            folder.chmod(0o755)
        except FileExistsError:
            pass
        except OSError:
            continue
        status = folder.lstat()
        if stat.S_ISDIR(status.st_mode) and status.st_uid == 0 and not status.st_mode & 0o022:
            return folder
    raise EmbeddedError(
        "Neither /var/lib/pgtasks nor /var/tmp/pgtasks can be used: each is missing and cannot be "
        "made, or is not root's own, or others may write to it. Remove one of them, run in a "
        "folder that every account can enter, or set PGTASKS_DATABASE_URL."
    )
