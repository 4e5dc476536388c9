"""The `pgtasks` command.

```
app.py       the commands and their groups
help.py      how help looks
options.py   the options that many commands share
session.py   an open database, for the length of a command
failure.py   errors: what is printed, and the exit code
output.py    everything that is printed on purpose: tables, JSON
worker.py, demo.py, init.py, config.py, db.py, defer.py, queue.py, message.py, archive.py
rows.py      what a row says; pages.py: how that looks
doctor.py    the command; checks.py: what it checks
```
"""

from pgtasks.cli.app import main

__all__ = ["main"]
