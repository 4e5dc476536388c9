"""A proxy between workers and Postgres that fails as networks do."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from random import Random
from typing import Self
from urllib.parse import parse_qs, urlsplit, urlunsplit

import attrs

LARGEST_PIECE = 65_536


@attrs.define(eq=False)
class Faults:
    """What goes wrong now; changed by the test at any time, for all connections at once."""

    stalled: asyncio.Event = attrs.field(factory=asyncio.Event)
    """Set: nothing passes, and nobody is told; connections can be opened, and stay silent."""
    delay_seconds: float = 0.0
    reset_share: float = 0.0
    """The share of pieces that are not passed on, but end their connection instead."""
    on_answer: Callable[["Link", bytes], bool] = lambda _link, _piece: True
    """Asked before each piece of the server is passed on; False ends the connection."""
    holds: Callable[["Link", bool], bool] = lambda _link, _is_answer: False
    """Asked before each piece is passed on, and again and again while it says so: whether nothing
    more may pass on this connection, from the server (`is_answer`) or to it."""
    random: Random = attrs.field(factory=lambda: Random(11))


@attrs.define(eq=False)
class Link:
    """One connection that runs through the proxy."""

    asked: bytearray = attrs.field(factory=bytearray)
    """The end of what the client has sent."""
    answered: int = 0
    """How many bytes the server has answered with."""
    is_half_open: bool = False
    """The server's end is gone, and the client has not been told."""

    def sees(self, text: bytes) -> bool:
        """Tell whether the client has lately sent this."""
        return text in self.asked


@attrs.define(eq=False)
class Proxy:
    """Listens on the loopback interface and passes everything on to one server."""

    _server_url: str
    faults: Faults = attrs.field(factory=Faults)
    links: set[Link] = attrs.field(factory=set)
    port: int = 0

    @classmethod
    @asynccontextmanager
    async def to(cls, server_url: str) -> AsyncIterator[Self]:
        """Run a proxy to the server of a URL for the length of a block."""
        proxy = cls(server_url)
        listener = await asyncio.start_server(proxy._connected, "127.0.0.1", 0)
        proxy.port = listener.sockets[0].getsockname()[1]
        try:
            yield proxy
        finally:
            listener.close()
            for link in proxy.links:
                link.is_half_open = False
            for task in list(_pumps):
                task.cancel()
            while proxy.links:
                await asyncio.sleep(0.01)

    @property
    def url(self) -> str:
        """The address of the same database through the proxy."""
        parts = urlsplit(self._server_url)
        user = parts.username or "postgres"
        password = f":{parts.password}" if parts.password else ""
        return urlunsplit(
            ("postgresql", f"{user}{password}@127.0.0.1:{self.port}", parts.path, "", "")
        )

    async def _connected(
        self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter
    ) -> None:
        link = Link()
        try:
            server, to_server = await self._open()
        except OSError:
            to_client.close()
            return
        self.links.add(link)
        both = [
            asyncio.create_task(self._pass(link, client, to_server, is_answer=False)),
            asyncio.create_task(self._pass(link, server, to_client, is_answer=True)),
        ]
        _pumps.update(both)
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            while link.is_half_open:
                await asyncio.sleep(0.05)
        finally:
            self.links.discard(link)
            for task in both:
                task.cancel()
                _pumps.discard(task)
            for writer in (to_client, to_server):
                writer.transport.abort()

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        parts = urlsplit(self._server_url)
        query = parse_qs(parts.query)
        if host := query.get("host"):
            port = query.get("port", ["5432"])[0]
            return await asyncio.open_unix_connection(f"{host[0]}/.s.PGSQL.{port}")
        return await asyncio.open_connection(parts.hostname, parts.port or 5432)

    async def _pass(
        self,
        link: Link,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        is_answer: bool,
    ) -> None:
        with suppress(ConnectionError):
            while piece := await reader.read(LARGEST_PIECE):
                if not is_answer:
                    link.asked += piece
                    del link.asked[:-LARGEST_PIECE]
                await self._trouble(link, is_answer=is_answer)
                if self.faults.random.random() < self.faults.reset_share:
                    return
                if is_answer:
                    link.answered += len(piece)
                    if not self.faults.on_answer(link, piece):
                        return
                writer.write(piece)
                await writer.drain()

    async def _trouble(self, link: Link, *, is_answer: bool) -> None:
        if self.faults.delay_seconds:
            await asyncio.sleep(self.faults.delay_seconds)
        while self.faults.stalled.is_set() or self.faults.holds(link, is_answer):
            await asyncio.sleep(0.01)


_pumps: set["asyncio.Task[None]"] = set()
