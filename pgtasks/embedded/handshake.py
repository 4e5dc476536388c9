"""Does a server answer? A pid, a pid file and `pg_ctl status` all lie; a connection does not.

(A killed postmaster whose parent never waits for it stays "running" for all three.)
"""

import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

PROTOCOL_3 = 196608
NOT_ACCEPTING = b"57P03"  # starting up, recovering or shutting down
TIMEOUT_SECONDS = 2.0


def answered_version(socket_path: Path, user: str, database: str) -> str | None:
    """The version of the server at `socket_path`, None when nobody there accepts connections.

    An empty string when it is up but refused this connection (too many clients, say).
    """
    with suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(TIMEOUT_SECONDS)
        connection.connect(str(socket_path))
        connection.sendall(_startup_packet(user, database))
        return _version_in(connection)
    return None


def _startup_packet(user: str, database: str) -> bytes:
    fields = ("user", user, "database", database, "application_name", "pgtasks start")
    body = struct.pack("!i", PROTOCOL_3) + b"".join(f.encode() + b"\0" for f in fields) + b"\0"
    return struct.pack("!i", len(body) + 4) + body


def _version_in(connection: socket.socket) -> str | None:
    version = ""
    for kind, body in _messages(connection):
        if kind == b"E":
            return None if NOT_ACCEPTING in body else ""
        if kind == b"S" and body.startswith(b"server_version\0"):
            version = body.split(b"\0")[1].decode().split()[0]
        if kind == b"Z":
            connection.sendall(b"X" + struct.pack("!i", 4))
            return version
    return None


def _messages(connection: socket.socket) -> Iterator[tuple[bytes, bytes]]:
    with connection.makefile("rb") as stream:
        while len(head := stream.read(5)) == 5:
            kind, length = struct.unpack("!ci", head)
            yield kind, stream.read(length - 4)
