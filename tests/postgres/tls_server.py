"""A server that speaks TLS, or says that it does not: in front of one that listens on a socket."""

import socket
import ssl
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qs, urlsplit

import attrs

SSL_REQUEST = struct.pack("!ii", 8, 80877103)
SETTINGS = """
[ca]
default_ca = ours
[ours]
database = index.txt
serial = serial
new_certs_dir = .
default_md = sha256
policy = names
x509_extensions = extensions
[names]
commonName = supplied
[extensions]
subjectAltName = {names}
"""


@attrs.frozen
class Certificate:
    """A certificate that signs itself, and its key."""

    file: Path
    key: Path

    @classmethod
    def make(cls, folder: Path, names: str, *, is_expired: bool = False) -> "Certificate":
        """Make one with `openssl` for names such as `DNS:localhost,IP:127.0.0.1`."""
        folder.mkdir()
        (folder / "settings").write_text(SETTINGS.format(names=names))
        (folder / "index.txt").touch()
        (folder / "serial").write_text("01")
        made = cls(folder / "certificate.pem", folder / "key.pem")
        until = "20210101000000Z" if is_expired else "20990101000000Z"
        asked = (
            "req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=test "
            f"-keyout {made.key} -out request"
        )
        signed = (
            f"ca -batch -config settings -selfsign -keyfile {made.key} -in request -notext "
            f"-startdate 20200101000000Z -enddate {until} -out {made.file}"
        )
        for command in (asked, signed):
            arguments = ["openssl", *command.split()]
            subprocess.run(arguments, cwd=folder, check=True, capture_output=True, timeout=60)
        return made


@attrs.define(eq=False)
class TlsServer:
    """Passes on what it hears to a server's socket, and what that answers."""

    port: int
    heard: list[bytes] = attrs.field(factory=list)
    """What clients said in the clear, after they had asked for TLS."""
    secured: int = 0
    """How many connections were encrypted."""


@contextmanager
def serving(
    database_url: str,
    *,
    certificate: Certificate | None = None,
    refusing: Literal[b"N", b"E"] = b"N",
) -> Iterator[TlsServer]:
    """Listen on this machine; without a certificate, say that there is no TLS here."""
    query = {key: values[-1] for key, values in parse_qs(urlsplit(database_url).query).items()}
    behind = f"{query['host']}/.s.PGSQL.{query['port']}"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        made = TlsServer(listener.getsockname()[1])
        context = None
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate.file, certificate.key)

        def accept() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                serve = (made, client, behind, context, refusing)
                threading.Thread(target=_serve, args=serve, daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield made


def _serve(
    made: TlsServer,
    client: socket.socket,
    behind: str,
    context: ssl.SSLContext | None,
    refusing: bytes,
) -> None:
    with suppress(OSError), client:
        first = client.recv(8, socket.MSG_WAITALL)
        if first != SSL_REQUEST:
            made.heard.append(first)
        elif context is None:
            client.sendall(refusing)
            first = b""
        else:
            client.sendall(b"S")
            client = context.wrap_socket(client, server_side=True)
            made.secured += 1
            first = b""
        with client, socket.socket(socket.AF_UNIX) as server:
            server.connect(behind)
            server.sendall(first)
            answers = threading.Thread(target=_pass_on, args=(server, client), daemon=True)
            answers.start()
            while said := client.recv(65_536):
                if context is None:
                    made.heard.append(said)
                server.sendall(said)
            server.shutdown(socket.SHUT_RDWR)


def _pass_on(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while said := source.recv(65_536):
            sink.sendall(said)
        sink.shutdown(socket.SHUT_RDWR)
