"""A TCP proxy before PostgreSQL that holds back what the governed step asks, or what it is told.

It reads the wire protocol: the text of a statement is seen once, in its Parse message; each later
Bind only names the statement, so names are kept per connection. A statement that is held back as a
request has never reached the server; one whose reply is held back has been committed for sure, with
the step that is waited for: where its rows were locked, the reply passes, and it is sent again.
"""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import parse_qs, urlsplit, urlunsplit

from runward.testing.local_server import HOST, LocalServer

Function = Literal["step_open", "step_close"]
Side = Literal["request", "reply"]
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]

_CALLS: dict[bytes, Function] = {b".step_open(": "step_open", b".step_close(": "step_close"}
# What a step whose rows were locked is answered: store/steps.py reads the same.
_LOCKED: dict[Function, Callable[[list[bytes | None]], bool]] = {
    "step_open": lambda row: (row[0] or b"").endswith(b'{"a": "locked"}'),
    "step_close": lambda row: row[1] is None,
}
_STARTUP, _ENCRYPTION = 196608, (80877103, 80877104)  # protocol 3.0; asks for TLS or GSSAPI


@dataclass(frozen=True, slots=True)
class Item:
    """One step of a batch that was held back."""

    tenant: str
    run_id: str
    step: str
    nonce: str


@dataclass
class Trap:
    """Holds back every statement of one kind that is about one of these steps, until released.

    A released statement or reply is lost: its connection is cut.
    """

    function: Function
    side: Side
    steps: frozenset[str]
    items: list[Item] = field(default_factory=list)
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    released: asyncio.Event = field(default_factory=asyncio.Event)

    def wants(self, function: Function, items: list[Item]) -> bool:
        """Returns whether this statement is to be held back."""
        return (
            not self.released.is_set()
            and function == self.function
            and any(one.step in self.steps for one in items)
        )

    def committed(self, items: list[Item], rows: list[bytes]) -> bool:
        """Returns whether the reply, a row for each item, has one of these steps as committed."""
        return any(
            one.step in self.steps and not _LOCKED[self.function](_columns(row))
            for one, row in zip(items, rows, strict=True)
        )

    async def hold(self, items: list[Item]) -> None:
        """Returns when the trap is released."""
        self.items += items
        self.reached.set()
        await self.released.wait()


class Proxy(LocalServer):
    """Listens on a port of its own; `dsn` leads through it. Use it as `async with Proxy(dsn)`.

    The server may be given by its port or by its unix socket, clients always come by TCP.
    """

    def __init__(self, dsn: str) -> None:
        super().__init__()
        self._to = urlsplit(dsn)
        self._trap: Trap | None = None
        self.opens = asyncio.Event()  # set by each step_open that passes

    @property
    def dsn(self) -> str:
        """Returns the address of the database through this proxy."""
        user = self._to.netloc.rpartition("@")[0]
        return urlunsplit(self._to._replace(netloc=f"{user}@{HOST}:{self.port}", query=""))

    def hold(self, function: Function, side: Side, steps: frozenset[str]) -> Trap:
        """Returns the trap that is set from now on; the one before is released."""
        trap = Trap(function, side, steps)
        self.set(trap)
        return trap

    def set(self, trap: Trap) -> None:
        """Sets this trap from now on; the one before is released."""
        self.release()
        self._trap = trap

    def release(self) -> None:
        """Lets everything pass from now on; what was held back is lost."""
        if self._trap is not None:
            self._trap.released.set()
            self._trap = None

    def wants(self, side: Side, function: Function, items: list[Item]) -> Trap | None:
        """Returns the trap that takes this statement."""
        if function == "step_open":
            self.opens.set()
        trap = self._trap
        taken = trap is not None and trap.side == side and trap.wants(function, items)
        return trap if taken else None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Leads one connection to the server and back."""
        first = await _first(reader, writer)
        to_server = await self._connected()
        try:
            to_server[1].write(first)
            link = _Link(self, (reader, writer), to_server)
            ways = [asyncio.ensure_future(link.requests()), asyncio.ensure_future(link.replies())]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        finally:
            to_server[1].close()

    async def _connected(self) -> Stream:
        if self._to.hostname is not None:
            return await asyncio.open_connection(self._to.hostname, self._to.port)
        place = parse_qs(self._to.query)
        return await asyncio.open_unix_connection(f"{place['host'][0]}/.s.PGSQL.{place['port'][0]}")


class _Link:
    """One connection of a client with the server; each way ends when it is to be cut."""

    def __init__(self, proxy: Proxy, client: Stream, server: Stream) -> None:
        self._proxy = proxy
        self._client, self._server = client, server
        self._names: dict[bytes, Function] = {}
        self._reply: tuple[Trap, list[Item]] | None = None  # what the next reply is to be held for

    async def requests(self) -> None:
        """Passes what the client says."""
        async for kind, body in _messages(self._client[0]):
            if kind == b"P":
                self._parsed(body)
            elif kind == b"B" and (function := self._names.get(_words(body, 2)[1])):
                items = _items(body)
                if trap := self._proxy.wants("request", function, items):
                    await trap.hold(items)
                    return
                if trap := self._proxy.wants("reply", function, items):
                    self._reply = trap, items
            await _pass(self._server[1], kind, body)

    async def replies(self) -> None:
        """Passes what the server answers."""
        held: list[tuple[bytes, bytes]] = []
        async for kind, body in _messages(self._server[0]):
            if self._reply is None:
                await _pass(self._client[1], kind, body)
                continue
            held.append((kind, body))
            if kind != b"Z":
                continue
            trap, items = self._reply
            failed = any(one == b"E" for one, _ in held)
            if not failed and trap.committed(items, [row for one, row in held if one == b"D"]):
                await trap.hold(items)
                return
            for one in held:
                await _pass(self._client[1], *one)
            self._reply, held = None, []

    def _parsed(self, body: bytes) -> None:
        name, query = _words(body, 2)
        self._names.pop(name, None)
        for text, function in _CALLS.items():
            if text in query:
                self._names[name] = function


async def _first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """Returns the startup message; encryption is declined, since nobody could read through it."""
    while True:
        head = await reader.readexactly(8)
        size, code = struct.unpack("!II", head)
        rest = await reader.readexactly(size - 8)
        if code not in _ENCRYPTION:
            return head + rest
        writer.write(b"N")


async def _messages(reader: asyncio.StreamReader) -> AsyncIterator[tuple[bytes, bytes]]:
    """Yields the kind and the content of each message; raises IncompleteReadError at the end."""
    while True:
        kind, size = struct.unpack("!cI", await reader.readexactly(5))
        yield kind, await reader.readexactly(size - 4)


async def _pass(writer: asyncio.StreamWriter, kind: bytes, body: bytes) -> None:
    writer.write(struct.pack("!cI", kind, len(body) + 4) + body)
    await writer.drain()


def _words(body: bytes, count: int) -> list[bytes]:
    """Returns the strings that a message begins with."""
    return body.split(b"\0", count)[:count]


def _columns(row: bytes) -> list[bytes | None]:
    """Returns the values of a DataRow message."""
    (count,) = struct.unpack_from("!H", row)
    values: list[bytes | None] = []
    place = 2
    for _ in range(count):
        (size,) = struct.unpack_from("!i", row, place)
        values.append(None if size < 0 else row[place + 4 : place + 4 + size])
        place += 4 + max(size, 0)
    return values


def _items(body: bytes) -> list[Item]:
    """Returns the steps of a Bind message: its first value is the JSON of the whole batch."""
    rest = body.split(b"\0", 2)[2]
    (formats,) = struct.unpack_from("!H", rest)
    place = 2 + 2 * formats + 2
    (size,) = struct.unpack_from("!I", rest, place)
    value = rest[place + 4 : place + 4 + size].lstrip(b"\x01")  # the version of binary jsonb
    return [Item(*(one[name] for name in Item.__slots__)) for one in json.loads(value)]
