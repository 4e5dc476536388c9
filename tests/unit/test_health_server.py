"""What is answered over HTTP, and that no client holds anything up."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import suppress

import attrs
import pytest
from eventually import eventually_async

from pgtasks import health_server
from pgtasks.health import TEXTS, Health, Kind, Problem
from pgtasks.health_server import (
    LONGEST_LINE,
    MOST_CLIENTS,
    MOST_LINES,
    REQUEST_SECONDS,
    HealthServer,
)


@attrs.define(eq=False)
class Served:
    """A server, what it tells, and where it is."""

    server: HealthServer
    port: int
    health: Health = attrs.field(factory=Health)

    async def ask(self, request: bytes, *, host: str = "127.0.0.1") -> bytes:
        """All that is answered, until the server closes the connection."""
        async with asyncio.timeout(10):
            reader, writer = await asyncio.open_connection(host, self.port)
            writer.write(request)
            answer = await reader.read()
            writer.close()
            return answer

    async def get(self, path: str) -> tuple[int, str]:
        """The status and the body that a path has."""
        answer = await self.ask(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        head, _, body = answer.decode().partition("\r\n\r\n")
        return int(head.split()[1]), body


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    """A server that tells what its test says."""
    port = free_port()
    known = Served(HealthServer(lambda: known.health), port)
    await known.server.listen(f"127.0.0.1:{port}")
    yield known
    known.server.close()


async def test_live_and_ready_are_told_by_the_status(served: Served):
    assert await served.get("/livez") == (200, "ok\n")
    assert await served.get("/readyz?verbose=1") == (200, "ok\n")
    served.health = Health((Problem("database", 3.0, 7), Problem("database", 1.0, 8)))
    assert await served.get("/livez") == (200, "ok\n")
    assert await served.get("/readyz") == (503, "the database does not answer\n")
    served.health = Health((Problem("held up", 70.0, 7), Problem("database", 3.0, 8)))
    assert await served.get("/livez") == (503, "the event loop of a process is held up\n")
    assert (await served.get("/readyz"))[1].splitlines() == [
        "the event loop of a process is held up",
        "the database does not answer",
    ]


@pytest.mark.parametrize("kind", TEXTS)
async def test_answers_tell_nothing_but_fixed_words(kind: Kind, served: Served):
    """No process id, no name, no version."""
    served.health = Health((Problem(kind, 123.0, 4567),))
    answer = await served.ask(b"GET /readyz HTTP/1.1\r\n\r\n")
    head, _, body = answer.decode().partition("\r\n\r\n")
    assert body == f"{TEXTS[kind]}\n"
    names = {line.partition(":")[0] for line in head.split("\r\n")[1:]}
    assert names == {
        "Content-Type", "Content-Length", "Cache-Control", "X-Content-Type-Options", "Connection",
    }  # fmt: skip
    assert not any(word in head.lower() for word in ("server", "python", "pgtasks", "4567"))


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        ("GET / HTTP/1.1", 404),
        ("GET /metrics HTTP/1.1", 404),
        ("GET /livez/ HTTP/1.1", 404),
        ("GET /../livez HTTP/1.1", 404),
        ("GET /livez%00 HTTP/1.1", 404),
        ("GET /livez HTTP/1.0", 200),
        ("POST /livez HTTP/1.1", 405),
        ("get /livez HTTP/1.1", 405),
        ("DELETE /readyz HTTP/1.1", 405),
        ("OPTIONS * HTTP/1.1", 400),
        ("GET http://x/livez HTTP/1.1", 400),
        ("GET /livez HTTP/2.0", 400),
        ("GET /livez", 400),
        ("GET", 400),
        ("\x16\x03\x01\x02", 400),
        ("GET /livez\x00 HTTP/1.1", 404),
        ("GET /" + "x" * 9000 + " HTTP/1.1", 400),
    ],
)
async def test_other_requests_are_refused(request_line: str, status: int, served: Served):
    answer = await served.ask(request_line.encode("latin-1") + b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert b"Connection: close" in answer
    assert (b"Allow: GET, HEAD" in answer) == (status == 405)


async def test_head_is_get_without_a_body(served: Served):
    got = await served.ask(b"GET /livez HTTP/1.1\r\n\r\n")
    assert await served.ask(b"HEAD /livez HTTP/1.1\r\n\r\n") == got.removesuffix(b"ok\n")
    assert b"Content-Length: 3\r\n" in got


async def test_a_probe_that_only_connects_is_answered_nothing(served: Served):
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write_eof()
    assert await reader.read() == b""
    writer.close()
    assert await served.get("/livez") == (200, "ok\n")


@pytest.mark.parametrize("sent", [b"", b"GET /livez HTTP/1.1\r\n", b"GET /livez HT", b"\r"])
async def test_a_client_that_does_not_finish_is_dropped(
    sent: bytes, served: Served, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(health_server, "REQUEST_SECONDS", 0.2)
    began_at = time.monotonic()
    with suppress(ConnectionError):
        assert await served.ask(sent) == b""
    assert time.monotonic() - began_at < 3


async def test_endless_headers_end(served: Served):
    """More lines than any client has, or one longer than any is."""
    for more in (b"X: y\r\n" * (MOST_LINES + 1), b"X: " + b"y" * LONGEST_LINE):
        answer = await served.ask(b"GET /livez HTTP/1.1\r\n" + more)
        assert answer.startswith(b"HTTP/1.1 400 ")
    for more in (b"X: y\r\n" * 100_000, b"X: " + b"y" * 1_000_000):
        with suppress(ConnectionError):  # what it does not read ends the connection
            await served.ask(b"GET /livez HTTP/1.1\r\n" + more)
    assert await served.get("/livez") == (200, "ok\n")


async def test_slow_clients_do_not_hold_each_other_up(served: Served):
    slow = [
        await asyncio.open_connection("127.0.0.1", served.port) for _ in range(MOST_CLIENTS - 1)
    ]
    for _, writer in slow:
        writer.write(b"GET /liv")
    began_at = time.monotonic()
    for _ in range(20):
        assert await served.get("/livez") == (200, "ok\n")
    assert time.monotonic() - began_at < 2
    for _, writer in slow:
        writer.close()


async def test_more_clients_than_it_takes_are_sent_away_until_there_is_room(served: Served):
    opened = [
        await asyncio.open_connection("127.0.0.1", served.port) for _ in range(MOST_CLIENTS * 3)
    ]
    async with asyncio.timeout(REQUEST_SECONDS / 2):
        for reader, _ in opened[MOST_CLIENTS:]:
            with suppress(ConnectionError):
                assert await reader.read() == b""
    for _, writer in opened:
        writer.close()

    async def answered() -> None:
        with suppress(ConnectionError, IndexError):
            assert await served.get("/livez") == (200, "ok\n")
            return
        raise AssertionError

    await eventually_async(answered)
    assert await served.get("/livez") == (200, "ok\n")


async def test_it_answers_no_more_once_it_is_closed(served: Served):
    served.server.close()
    with pytest.raises(ConnectionError):
        await served.get("/livez")
    served.server.close()


async def test_an_address_of_version_6():
    server, port = HealthServer(Health), free_port()
    try:
        await server.listen(f"[::1]:{port}")
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")
    known = Served(server, port)
    answer = await known.ask(b"GET /livez HTTP/1.1\r\n\r\n", host="::1")
    assert answer.endswith(b"\r\n\r\nok\n")
    with pytest.raises(ConnectionError):
        await known.ask(b"GET /livez HTTP/1.1\r\n\r\n")
    server.close()


async def test_an_address_that_is_taken_is_refused(served: Served):
    with pytest.raises(OSError, match="in use"):
        await HealthServer(Health).listen(f"127.0.0.1:{served.port}")
