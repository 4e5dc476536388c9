"""Everything pgtasks raises.

```
PgtasksError
├── ConfigError (ValueError)            a setting is wrong: says file, line, nearest valid form
├── DatabaseError
│   ├── DatabaseUnreachable (ConnectionError)
│   ├── SchemaError                     schema missing, too old or too new: says the mend
│   └── EmbeddedError (RuntimeError)    the embedded server cannot be found or started
├── NotConnectedError (RuntimeError)    no client: says how to open one
├── QueueNameError (ValueError)         a name that cannot be a queue
├── UnknownQueueError (LookupError)     a queue that does not exist: says which do
├── TaskDefinitionError (TypeError)     a function that cannot be a task as it is written
│   └── ScheduleError (ValueError)      a schedule that cannot be: says what to write
├── DuplicateTaskError (ValueError)     two functions under one name
├── UnknownTaskError (LookupError)      a name no function is registered under
├── DuplicateScheduleError (ValueError) two schedules under one name
├── UnknownScheduleError (LookupError)  a schedule that does not exist: says which do
├── TaskImportError (ImportError)       a task module that does not import
├── ArgumentError (TypeError)           a call that cannot become a message: names the argument
├── DecodeError (ValueError)            a message that cannot become a call
├── LeaseLost                           the message belongs to somebody else now
├── TaskTimeout (TimeoutError)          a run that took longer than its timeout
└── WorkerFault (RuntimeError)          a part of a worker failed by a mistake in pgtasks
```
"""


class PgtasksError(Exception):
    """The root of everything pgtasks raises."""


class ConfigError(PgtasksError, ValueError):
    """A setting is wrong; the text says where, and the nearest valid form."""


class DatabaseError(PgtasksError):
    """The database is not as pgtasks needs it."""


class DatabaseUnreachable(DatabaseError, ConnectionError):  # noqa: N818 - reads as a state
    """No connection to the database could be opened in time."""


class SchemaError(DatabaseError):
    """The pgtasks schema is missing, too old or too new for this version."""


class EmbeddedError(DatabaseError, RuntimeError):
    """The embedded Postgres server cannot be found, started or used."""


class NotConnectedError(PgtasksError, RuntimeError):
    """There is no open client in this process."""


class QueueNameError(PgtasksError, ValueError):
    """A name that cannot be the name of a queue."""


class UnknownQueueError(PgtasksError, LookupError):
    """A queue that does not exist in this database."""


class TaskDefinitionError(PgtasksError, TypeError):
    """A function that cannot be a task as it is written."""


class ScheduleError(TaskDefinitionError, ValueError):
    """A schedule that cannot be; names what is wrong and says what to write instead."""


class DuplicateTaskError(PgtasksError, ValueError):
    """Two different functions are registered under one name."""


class UnknownTaskError(PgtasksError, LookupError):
    """No function is registered under this name."""


class DuplicateScheduleError(PgtasksError, ValueError):
    """There is a schedule of this name already, and it is somebody else's."""


class UnknownScheduleError(PgtasksError, LookupError):
    """No schedule has this name."""


class TaskImportError(PgtasksError, ImportError):
    """A task module cannot be imported."""


class ArgumentError(PgtasksError, TypeError):
    """A call that cannot become a message; names the argument."""


class DecodeError(PgtasksError, ValueError):
    """A message that cannot become a call."""


class LeaseLost(PgtasksError):  # noqa: N818 - reads as an event
    """The lease on a message has passed to somebody else, or the message is gone."""


class TaskTimeout(PgtasksError, TimeoutError):  # noqa: N818 - reads as an event
    """A run took longer than its task's timeout."""


class WorkerFault(PgtasksError, RuntimeError):  # noqa: N818 - reads as an event
    """A part of a worker failed by a mistake in pgtasks, and the worker has ended."""
