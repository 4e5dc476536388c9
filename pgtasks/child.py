"""Child: a worker process under a supervisor, told what to do over a socket.

The supervisor's end of the socket also says that the supervisor lives: when it closes, the child
stops as if it had been told to, whatever the user's code does.
"""

import asyncio
import logging
import os
import select
import signal
import socket
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import anyio

from pgtasks import embedded, exit_codes
from pgtasks.assignment import Assignment, read_assignment, read_line, to_line
from pgtasks.board import Board
from pgtasks.crew import Orders
from pgtasks.database import Database
from pgtasks.errors import (
    ConfigError,
    DatabaseError,
    PgtasksError,
    QueueNameError,
    UnknownQueueError,
)
from pgtasks.events import Events
from pgtasks.lease import Lease
from pgtasks.logs import configure
from pgtasks.short_traceback import short_traceback
from pgtasks.tasks_import import check_registered, import_tasks
from pgtasks.worker import Worker

log = Events("pgtasks.child")

SOCKET_VARIABLE = "PGTASKS_CHILD_SOCKET"
BOARD_VARIABLE = "PGTASKS_CHILD_BOARD"

_USAGE = (ConfigError, QueueNameError, UnknownQueueError)
STOP_SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
WATCHDOG_SECONDS = 2.5
"""How long after its grace a child ends itself, if nothing else could."""
FAULT_SECONDS = 1.5
"""How long a child whose worker failed by a mistake of ours may take to give back what it holds."""


def main() -> NoReturn:
    """Be the child of the supervisor whose socket and board stand in the environment."""
    stopping = threading.Event()
    # Before the first line of the user's code runs. Ctrl-C and a closed terminal reach the whole
    # process group; the supervisor alone decides what they mean.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    link = socket.socket(fileno=int(os.environ.pop(SOCKET_VARIABLE)))
    board = Board.attach(int(os.environ.pop(BOARD_VARIABLE)))
    assignment = read_assignment(_first_line(link))
    longest = assignment.config.worker.grace.total_seconds() + WATCHDOG_SECONDS
    _end_without_supervisor(link, longest)
    configure(assignment.config.log.level, assignment.config.log.format, everything=True)
    code = _work(assignment, link, board, stopping)
    logging.shutdown()
    sys.stdout.flush()
    # Not sys.exit: that waits for threads of the user's that nothing can end.
    os._exit(code)


def _work(
    assignment: Assignment, link: socket.socket, board: Board, stopping: threading.Event
) -> int:
    server = worker = None
    try:
        if assignment.embedded_folder is not None:
            server = embedded.start(Path(assignment.embedded_folder))
        import_tasks(assignment.tasks)
        check_registered(assignment.tasks)
        worker = Worker(
            config=assignment.config,
            queues=assignment.queues,
            database=Database(assignment.config.database, server=None),
            board=board,
            on_suspect=_hand_over(link),
            alone=assignment.alone,
            is_together=assignment.is_together,
            place=assignment.place,
            orders=Orders(lent=Counter(assignment.lent), on_fault=_faulted(link)),
        )
        options: dict[str, Any] = {"use_uvloop": _has_uvloop()}
        anyio.run(_run, worker, assignment, link, stopping, backend_options=options)
    except (Exception, BaseExceptionGroup) as error:
        leaves, has_started = _leaves(error), worker is not None and worker.has_started
        if not all(isinstance(leaf, PgtasksError if has_started else Exception) for leaf in leaves):
            raise
        _tell(link, {"is": "failed", "error": "\n".join(map(_explained, leaves)),
                     "is_usage": all(isinstance(leaf, _USAGE) for leaf in leaves),
                     "is_database": any(isinstance(leaf, DatabaseError) for leaf in leaves),
                     })  # fmt: skip
        return exit_codes.FAILED
    finally:
        if server is not None:
            server.close()
    # Without this line its end would be a crash, and what it ran a suspect: a task may have
    # called os._exit.
    _tell(link, {"is": "ending"})
    return exit_codes.UNSETTLED if worker.unsettled else exit_codes.OK


async def _run(
    worker: Worker, assignment: Assignment, link: socket.socket, stopping: threading.Event
) -> None:
    loop = asyncio.get_running_loop()
    stop = _stopper(worker, assignment.config.worker.grace.total_seconds())
    loop.add_signal_handler(signal.SIGTERM, stop)
    if stopping.is_set():
        stop()
    reader, writer = await asyncio.open_connection(sock=link.dup())
    async with anyio.create_task_group() as group:
        group.start_soon(_obey, reader, worker, stop)
        await group.start(worker.run)
        _tell(link, {"is": "ready"})
        await worker.ended.wait()
        group.cancel_scope.cancel()
    writer.close()


async def _obey(reader: asyncio.StreamReader, worker: Worker, stop: Callable[[], None]) -> None:
    while line := await reader.readline():
        match read_line(line):
            case {"do": "cancel"}:
                stop()
                worker.cancel()
            case {"do": "take back", "queue": str(queue)}:
                worker.take_back(queue)
            case _:
                stop()
    stop()  # the supervisor is gone


def _stopper(worker: Worker, grace_seconds: float) -> Callable[[], None]:
    """Return what stops the worker, and ends the process if the worker does not end itself."""

    def stop() -> None:
        if worker.is_stopping:
            return
        worker.stop()
        _end_after(grace_seconds + WATCHDOG_SECONDS, exit_codes.UNSETTLED)

    return stop


def _faulted(link: socket.socket) -> Callable[[], None]:
    """Return what is called when a part of the worker failed by a mistake of ours."""

    def faulted() -> None:
        # What runs has no part in it, and is no suspect.
        _tell(link, {"is": "ending"})
        _end_after(FAULT_SECONDS, exit_codes.FAILED)

    return faulted


def _end_without_supervisor(link: socket.socket, longest_seconds: float) -> None:
    """End this process some time after its supervisor, should nothing else have done it.

    From a thread: modules that hang while they are imported, and tasks that hold up the event
    loop, keep all else from noticing.
    """

    def watch() -> None:
        ended = select.poll()
        ended.register(link, 0)  # a hang-up is always told
        ended.poll()
        _end_after(longest_seconds, exit_codes.UNSETTLED)

    threading.Thread(target=watch, name="pgtasks-supervisor", daemon=True).start()


def _end_after(seconds: float, code: int) -> None:
    # A thread: code of a task that never returns to the loop would hold up a timer on it.
    watchdog = threading.Timer(seconds, os._exit, (code,))
    watchdog.daemon = True
    watchdog.start()


def _hand_over(link: socket.socket) -> Callable[[Lease], None]:
    def hand_over(lease: Lease) -> None:
        message = lease.message
        _tell(link, {"is": "suspect", "queue": message.queue, "held": message.held,
                     "delivery": message.delivery})  # fmt: skip

    return hand_over


def _tell(link: socket.socket, told: dict[str, Any]) -> None:
    try:
        link.sendall(to_line(told))
    except OSError:
        log.warning("the supervisor does not listen any more")


def _first_line(link: socket.socket) -> bytes:
    line = bytearray()
    while not line.endswith(b"\n"):
        received = link.recv(1)
        if not received:
            os._exit(exit_codes.OK)  # the supervisor is gone before there was anything to do
        line += received
    return bytes(line)


def _explained(error: BaseException) -> str:
    if isinstance(error, PgtasksError):
        return str(error)
    # The user's lifespan, most likely.
    return f"the worker could not start:\n{short_traceback(error)}"


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]


def _has_uvloop() -> bool:
    try:
        import uvloop  # noqa: F401, PLC0415 - an extra: there or not
    except ImportError:
        return False
    return True


if __name__ == "__main__":
    main()
