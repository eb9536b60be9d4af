"""A TCP proxy that an outage plays with: away, slow, silent, or without TLS."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit, urlunsplit

from runward.testing.local_server import HOST, LocalServer

CHUNK_BYTES = 64 * 1024
HANDSHAKE_FAILURE = bytes.fromhex("15030100020228")  # a fatal alert, as a TLS record


class Gate(LocalServer):
    """Passes bytes to the server on port `to` of this machine and back."""

    def __init__(self, to: int) -> None:
        super().__init__()
        self.to = to
        self.delay_s = 0.0  # before each packet, either way
        self.refuses_tls = False
        self._audible = _set()

    def hush(self) -> None:
        """Lets no byte pass any more, and no end of a connection; others are accepted."""
        self._audible.clear()

    def speak(self) -> None:
        """Lets new connections pass; those that were hushed stay silent until they are cut."""
        self._audible = _set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Leads one connection to the server and back."""
        if self.refuses_tls:
            await reader.read(CHUNK_BYTES)  # the client's hello
            writer.write(HANDSHAKE_FAILURE)
            return
        there = await asyncio.open_connection(HOST, self.to)
        audible = self._audible
        ways = [
            asyncio.ensure_future(self._pass(reader, there[1], audible)),
            asyncio.ensure_future(self._pass(there[0], writer, audible)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            there[1].close()

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, audible: asyncio.Event
    ) -> None:
        while data := await reader.read(CHUNK_BYTES):
            if self.delay_s:
                await asyncio.sleep(self.delay_s)
            await audible.wait()
            writer.write(data)
            await writer.drain()
        await audible.wait()


def _set() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event


def through(dsn: str, port: int, *, user: str = "", password: str = "") -> str:
    """Returns the DSN by way of that port of this machine, as another user if one is given."""
    parts = urlsplit(dsn)
    who = f"{user}:{password}" if user else parts.netloc.rpartition("@")[0]
    return urlunsplit(parts._replace(netloc=f"{who}@{HOST}:{port}", query=""))
