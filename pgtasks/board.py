"""Board: which leases a worker process holds, readable by its supervisor after it died.

Its pulses stand there too.

A table in shared memory, one row a lease. Writing a row costs a quarter of a microsecond, and it
needs no cooperation of the dead: a pipe would lose what was still in its buffer, a table in the
database would cost a statement a message.
"""

import json
import mmap
import os
import struct
import sys
import tempfile
from collections.abc import Sequence

import attrs

from pgtasks import pulse
from pgtasks.lease import Lease
from pgtasks.message import Held
from pgtasks.pulse import Pulses

_ROW = struct.Struct("<BxHiqd")  # state, queue, delivery, message id, when it was stored
_NAMES_BYTES = 1 << 20
_FREE, _WAITING, _RUNNING = 0, 1, 2
ROWS = 16_384
_ROWS_AT = range(_NAMES_BYTES, _NAMES_BYTES + ROWS * _ROW.size, _ROW.size)
_PULSES_AT = _ROWS_AT.stop
_BYTES = _PULSES_AT + pulse.BYTES


@attrs.frozen
class Entry:
    """A lease that a dead process held."""

    queue: str
    held: Held
    delivery: int
    is_running: bool
    """Its task had been started: it may be what brought the process down."""

    @property
    def message_id(self) -> int:
        """The number of its message."""
        return self.held.message_id


@attrs.define(eq=False)
class Board:
    """The leases of one worker process."""

    fd: int
    _memory: mmap.mmap
    pulses: Pulses = attrs.field(init=False)
    _queues: dict[str, int] = attrs.field(factory=dict, init=False)
    _free: list[int] = attrs.field(factory=lambda: list(_ROWS_AT), init=False)
    """The places that are free: where in the memory their rows begin."""

    @pulses.default
    def _begun(self) -> Pulses:
        return Pulses(self._memory, _PULSES_AT)

    @classmethod
    def create(cls) -> "Board":
        """Make an empty board, to be handed to a child by its descriptor."""
        if sys.platform == "linux":
            fd = os.memfd_create("pgtasks-board", 0)
        else:
            with tempfile.TemporaryFile() as file:
                fd = os.dup(file.fileno())
        os.ftruncate(fd, _BYTES)
        return cls.attach(fd)

    @classmethod
    def attach(cls, fd: int) -> "Board":
        """Open the board behind a descriptor."""
        return cls(fd, mmap.mmap(fd, _BYTES))

    def name_queues(self, queues: Sequence[str]) -> None:
        """Say which queues there are, before the first lease."""
        self._queues = {queue: place for place, queue in enumerate(queues)}
        names = json.dumps(list(queues)).encode()
        self._memory[: len(names) + 1] = names + b"\0"

    def add(self, *leases: Lease) -> None:
        """Write leases down; without room one is left out, and just runs out after a crash."""
        for lease in leases[: len(self._free)]:
            lease.place, message = self._free.pop(), lease.message
            queue = self._queues[message.queue]
            _ROW.pack_into(
                self._memory, lease.place, _WAITING, queue, message.delivery,
                message.message_id, message.enqueued_epoch,
            )  # fmt: skip

    def mark_running(self, lease: Lease) -> None:
        """Note that a lease's task is being started."""
        if lease.place >= 0:
            self._memory[lease.place] = _RUNNING

    def mark_ended(self, lease: Lease) -> None:
        """Note that a lease's task has ended, whatever becomes of its settlement."""
        if lease.place >= 0:
            self._memory[lease.place] = _WAITING

    def remove(self, *leases: Lease) -> None:
        """Cross leases out."""
        for lease in leases:
            if lease.place >= 0:
                self._memory[lease.place] = _FREE
                self._free.append(lease.place)
                lease.place = -1

    def entries(self) -> list[Entry]:
        """Return the leases on the board."""
        names = self._memory[:_NAMES_BYTES].split(b"\0", 1)[0]
        queues = json.loads(names) if names else []
        rows = _ROW.iter_unpack(self._memory[_NAMES_BYTES:_PULSES_AT])
        return [
            Entry(queues[queue], Held(message_id, enqueued_epoch), delivery, state == _RUNNING)
            for state, queue, delivery, message_id, enqueued_epoch in rows
            if state != _FREE
        ]

    def close(self) -> None:
        """Give the memory back."""
        self._memory.close()
        os.close(self.fd)
