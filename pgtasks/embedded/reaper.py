"""The reaper: starts the server, and stops it when the last process that uses it is gone.

Run as a script in an interpreter without site-packages (about 7 MB), in a session of its own, so
that neither Ctrl-C nor a closed terminal reaches it or the server. It imports the standard
library only, and as little of it as possible.

It is the server's parent rather than a bystander who calls `pg_ctl`: the server cannot outlive a
starter that is killed half-way, a server that dies is waited for and leaves no zombie, and the
reaper ends together with it. Should the reaper itself be killed, the next `start` in the folder
finds its mark unlocked and sends another one to watch over the same server.
"""

import _thread
import fcntl
import os
import signal
import sys
import time
from contextlib import suppress

FAST, IMMEDIATE, AT_ONCE = signal.SIGINT, signal.SIGQUIT, signal.SIGKILL
PATIENCE_SECONDS = ((FAST, 30), (IMMEDIATE, 5), (AT_ONCE, 5))
ADOPTED_POLL_SECONDS = 0.5


def main(arguments: list[str]) -> None:
    """Watch over one server: `LOCK_FD MARK_FD UID GID SOCKET_FOLDER LOG (PID | COMMAND ...)`."""
    lock, mark, uid, gid = (int(argument) for argument in arguments[:4])
    socket_folder, log, *server = arguments[4:]
    for descriptor in (lock, mark):
        os.set_inheritable(descriptor, False)  # the server must not hold them
    if os.fork():
        os._exit(0)  # the starter waits for this one and is left without a child
    adopted = server[0].isdigit()
    pid = int(server[0]) if adopted else launched(server, log, socket_folder, uid, gid)
    os.ftruncate(mark, 0)
    os.pwrite(mark, b"%d\n" % pid, 0)
    _thread.start_new_thread(stop_when_unused, (lock, pid))
    if adopted:
        wait_for_stranger(pid)
    else:
        os.waitpid(pid, 0)
    remove(socket_folder)
    # The mark first: whoever gets the lock next must find the mark free. Unlocked by name, because
    # a child that the starter forked meanwhile may have copies of both.
    fcntl.flock(mark, fcntl.LOCK_UN)
    fcntl.flock(lock, fcntl.LOCK_UN)
    os._exit(0)


def launched(command: list[str], log: str, socket_folder: str, uid: int, gid: int) -> int:
    """Start the server as the given account, its output going to the log; gives its pid."""
    if pid := os.fork():
        return pid
    try:
        if os.geteuid() == 0:
            os.setgroups([])
            os.setgid(gid)
            os.setuid(uid)
        os.umask(0o077)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        os.dup2(output, 1)
        os.dup2(output, 2)
        with suppress(FileExistsError):  # the starter has checked whose it is
            os.mkdir(socket_folder, 0o700)  # noqa: PTH102 - imports pathlib
        os.execv(command[0], command)  # noqa: S606 - a path of our own finding
    except OSError as error:
        os.write(2, f"{command[0]}: {error}\n".encode())
    finally:
        os._exit(127)


def stop_when_unused(lock: int, pid: int) -> None:
    """Stop the server once nobody holds the lock; this process ends as soon as it has ended.

    While it is stopping the lock stays here, so whoever wants the server then waits at the lock
    and starts a new one afterwards.
    """
    fcntl.flock(lock, fcntl.LOCK_EX)
    for how, patience in PATIENCE_SECONDS:
        with suppress(ProcessLookupError):
            os.kill(pid, how)
        time.sleep(patience)


def wait_for_stranger(pid: int) -> None:
    """Wait for a server that is not our child."""
    while is_running(pid):
        time.sleep(ADOPTED_POLL_SECONDS)


def is_running(pid: int) -> bool:
    """Whether a process lives; a zombie does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    with suppress(OSError), open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 - imports pathlib
        return file.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    return sys.platform != "linux"


def remove(socket_folder: str) -> None:
    """Remove the socket folder and what a killed server left in it."""
    with suppress(OSError):
        for name in os.listdir(socket_folder):  # noqa: PTH208 - imports pathlib
            os.unlink(f"{socket_folder}/{name}")  # noqa: PTH108
        os.rmdir(socket_folder)  # noqa: PTH106


if __name__ == "__main__":
    main(sys.argv[1:])
