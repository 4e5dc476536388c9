"""How pgtasks processes say by their exit code what happened."""

OK = 0
"""Done what was asked; a worker: stopped, and everything it held was settled or given back."""
FAILED = 1
"""Something outside went wrong: the database, a task module, the schema. The text says what."""
USAGE = 2
"""The command line or the configuration is wrong; nothing was done."""
UNSETTLED = 3
"""A worker stopped, but not all of it by itself: tasks that would not end were ended with their
process, or what was held could be neither settled nor given back."""
KILLED = 130
"""A third signal ended it at once."""
