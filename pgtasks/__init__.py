"""Background tasks for Python on plain PostgreSQL."""

from pgtasks.client import Client, connect, current_client
from pgtasks.config import Config
from pgtasks.context import Context, current_message
from pgtasks.decorator import task
from pgtasks.errors import (
    ArgumentError,
    ConfigError,
    DatabaseError,
    DatabaseUnreachable,
    DecodeError,
    DuplicateScheduleError,
    DuplicateTaskError,
    EmbeddedError,
    LeaseLost,
    NotConnectedError,
    PgtasksError,
    QueueNameError,
    ScheduleError,
    SchemaError,
    TaskDefinitionError,
    TaskImportError,
    TaskTimeout,
    UnknownQueueError,
    UnknownScheduleError,
    UnknownTaskError,
    WorkerFault,
)
from pgtasks.message import Handle
from pgtasks.outcome import Discard, RetryLater, Snooze
from pgtasks.registry import Registry, lifespan
from pgtasks.retry import Retry
from pgtasks.schedule import Schedule
from pgtasks.schedules import Schedules
from pgtasks.stored_schedule import StoredSchedule
from pgtasks.task import NamedTask, Task
from pgtasks.worker import Worker

__version__ = "0.1.0"

__all__ = [
    "ArgumentError",
    "Client",
    "Config",
    "ConfigError",
    "Context",
    "DatabaseError",
    "DatabaseUnreachable",
    "DecodeError",
    "Discard",
    "DuplicateScheduleError",
    "DuplicateTaskError",
    "EmbeddedError",
    "Handle",
    "LeaseLost",
    "NamedTask",
    "NotConnectedError",
    "PgtasksError",
    "QueueNameError",
    "Registry",
    "Retry",
    "RetryLater",
    "Schedule",
    "ScheduleError",
    "Schedules",
    "SchemaError",
    "Snooze",
    "StoredSchedule",
    "Task",
    "TaskDefinitionError",
    "TaskImportError",
    "TaskTimeout",
    "UnknownQueueError",
    "UnknownScheduleError",
    "UnknownTaskError",
    "Worker",
    "WorkerFault",
    "connect",
    "current_client",
    "current_message",
    "lifespan",
    "task",
]
