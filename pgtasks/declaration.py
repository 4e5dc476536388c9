"""Declaration: a schedule together with the call that it makes."""

from uuid import UUID

import attrs

from pgtasks.message import write_envelope, write_state
from pgtasks.schedule import Schedule


@attrs.frozen
class Declaration:
    """When to send messages of a task, and with which arguments."""

    schedule: Schedule
    task: str
    args: str
    """The arguments as JSON, as messages carry them."""

    @property
    def name(self) -> str:
        """The schedule's name."""
        return self.schedule.name

    def body(self, message_id: UUID) -> str:
        """Return a message that makes the call."""
        return write_envelope(message_id, self.task, self.args.encode())

    def headers(self, scheduled_at: str) -> str:
        """Return the headers of a message for a tick, a moment in ISO 8601."""
        state = write_state({"schedule": {"name": self.name, "at": scheduled_at}})
        return f'{{"pgtasks":{state}}}'
