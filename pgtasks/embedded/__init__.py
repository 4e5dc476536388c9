"""A real Postgres server in the project's folder, for when no database is configured.

```
account.py     who runs the server (root never may)
binaries.py    where a Postgres is, and which
place.py       where this project's data, locks and socket are
cluster.py     make the data folder, write the settings
lock.py        flock: the reference count
handshake.py   does the server answer?
postmaster.py  what is left of a server that died
reaper.py      the process that starts the server and stops it after the last user
server.py      start: all of the above in order
```
"""

import sys

from pgtasks.errors import EmbeddedError

if sys.platform == "win32":
    raise EmbeddedError(
        "There is no embedded Postgres on Windows yet: set PGTASKS_DATABASE_URL to a database."
    )

from pgtasks.embedded.server import Server, start

__all__ = ["Server", "start"]
