"""Health server: answers `/livez` and `/readyz` over HTTP, and nothing else.

It runs in the supervisor, so that a supervisor that hangs answers nobody. Nothing a client does may
hold that one up: requests are small, few at a time, and over after some seconds, and no answer
names anything.
"""

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Final

import attrs

from pgtasks.health import Health
from pgtasks.setting_kind import Listen

REQUEST_SECONDS: Final = 5.0
MOST_CLIENTS: Final = 32
LONGEST_LINE: Final = 8192
MOST_LINES: Final = 100

_METHODS: Final = (b"GET", b"HEAD")


@attrs.define(eq=False)
class HealthServer:
    """Tells whoever asks whether a worker is live, and whether it is ready."""

    _health: Callable[[], Health]
    _clients: int = attrs.field(default=0, init=False)
    _server: asyncio.Server | None = attrs.field(default=None, init=False)

    async def listen(self, address: str) -> None:
        """Answer at an address, as `worker.health.listen` has it, until closed.

        Raises:
            OSError: somebody else has it, or this machine does not.
        """
        host, port = Listen.split(address)
        self._server = await asyncio.start_server(self._serve, host, port, limit=LONGEST_LINE)

    def close(self) -> None:
        """Answer no more."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._clients >= MOST_CLIENTS:
            writer.transport.abort()
            return
        self._clients += 1
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                if answer := self._answer(await _request_line(reader)):
                    writer.write(answer)
                    await writer.drain()
                writer.close()
                await writer.wait_closed()
        # Cancelled when the supervisor ends; asyncio would log that as an error before Python 3.12.
        except (TimeoutError, OSError, asyncio.CancelledError):
            pass
        finally:
            self._clients -= 1
            writer.transport.abort()

    def _answer(self, line: bytes) -> bytes:
        """The answer to a request; none to a client that only looks whether somebody listens."""
        if not line:
            return b""
        method, _, rest = line.partition(b" ")
        target, _, version = rest.strip().rpartition(b" ")
        if not version.startswith(b"HTTP/1.") or not target.startswith(b"/"):
            return _response(HTTPStatus.BAD_REQUEST)
        if method not in _METHODS:
            return _response(HTTPStatus.METHOD_NOT_ALLOWED)
        return _response(*self._found(target.partition(b"?")[0]), bodiless=method == b"HEAD")

    def _found(self, path: bytes) -> tuple[HTTPStatus, str]:
        if path not in {b"/livez", b"/readyz"}:
            return HTTPStatus.NOT_FOUND, "ask /livez or /readyz"
        reasons = self._health().reasons(ready=path == b"/readyz")
        if reasons:
            return HTTPStatus.SERVICE_UNAVAILABLE, "\n".join(reasons)
        return HTTPStatus.OK, "ok"


async def _request_line(reader: asyncio.StreamReader) -> bytes:
    """Read a request to the end of its head; return its first line, nothing if it is no request."""
    try:
        first = await reader.readline()
        for _ in range(MOST_LINES):
            if not (await reader.readline()).strip():
                return first
    except ValueError:  # a line without an end
        pass
    return b"?"


def _response(status: HTTPStatus, text: str = "", *, bodiless: bool = False) -> bytes:
    body = f"{text or status.phrase.lower()}\n".encode()
    allow = f"Allow: {b', '.join(_METHODS).decode()}\r\n" if status == 405 else ""
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\n"
        "Content-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\n"
        "Cache-Control: no-store\r\n"
        "X-Content-Type-Options: nosniff\r\n"
        f"{allow}"
        "Connection: close\r\n\r\n"
    ).encode()
    return head if bodiless else head + body
