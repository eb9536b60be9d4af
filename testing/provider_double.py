"""An HTTP server on 127.0.0.1 that plays a provider's API: what a test says, byte by byte.

It reads raw HTTP by itself, so that a test can also have it answer half, or not at all.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

IDLE_WAIT_S = 5.0
HEAD_BYTES_MAX = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer. Bytes are sent as they are; `cut` closes too early, `hang` says nothing."""

    body: Any = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: bool = False
    hang: bool = False


@dataclass(frozen=True, slots=True)
class Seen:
    """One request as it came in."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]


# Returns what the API would refuse in a request, None where it would take it.
Check = Callable[[Seen], str | None]
Refusal = Callable[[str], Reply]


def accept(_: Seen) -> None:
    """Takes every request."""


def refuse_plainly(why: str) -> Reply:
    """Returns a 400 that says why; give `serving` the API's own form."""
    return Reply({"error": {"type": "invalid_request_error", "message": why}}, 400)


class Double:
    """The server; `replies` are played in order, `seen` is what came in."""

    def __init__(self, check: Check, refusal: Refusal) -> None:
        self._check, self._refusal = check, refusal
        self.replies: list[Reply] = []
        self.seen: list[Seen] = []
        self.refused: list[str] = []
        self.url = ""
        self.came_in = asyncio.Event()  # set with the first request
        self._tasks: set[asyncio.Task[None]] = set()

    def plays(self, *replies: Reply | dict[str, Any]) -> None:
        """Queues replies; a dict is the body of a 200."""
        self.replies += [one if isinstance(one, Reply) else Reply(one) for one in replies]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers the requests of one connection."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while await self._answer(reader, writer):
                pass  # the connection stays open for the client's next request
        except (asyncio.IncompleteReadError, ConnectionResetError, BrokenPipeError):
            pass  # the client left
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answers one request; returns whether the connection lives on."""
        seen = await _read(reader)
        self.seen.append(seen)
        self.came_in.set()
        wrong = self._check(seen)
        if wrong:
            self.refused.append(wrong)
        reply = self._refusal(wrong) if wrong else self.replies.pop(0)
        if reply.hang:
            await reader.readexactly(1)  # which the client never sends: it leaves
        data = _bytes_of(reply)
        writer.write(data[: len(data) - 10] if reply.cut else data)
        await writer.drain()
        return not reply.cut

    async def wait_idle(self) -> None:
        """Waits until the client has closed every connection, as it must."""
        if self._tasks:
            _, left = await asyncio.wait(set(self._tasks), timeout=IDLE_WAIT_S)
            for task in left:
                task.cancel()
            assert not left, f"{len(left)} connections were left open"


@asynccontextmanager
async def serving(
    check: Check = accept, refusal: Refusal = refuse_plainly
) -> AsyncIterator[Double]:
    """Serves a double on a free port; on leaving, the client must have closed its connections."""
    double = Double(check, refusal)
    server = await asyncio.start_server(double.serve, "127.0.0.1", 0, limit=HEAD_BYTES_MAX)
    double.url = "http://{}:{}".format(*server.sockets[0].getsockname())
    try:
        yield double
    finally:
        server.close()
        await double.wait_idle()
        await server.wait_closed()


async def _read(reader: asyncio.StreamReader) -> Seen:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("ascii").split("\r\n")
    pairs = (line.partition(":") for line in head[1:] if line)
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    body = await reader.readexactly(int(headers["content-length"]))
    return Seen(head[0], headers, json.loads(body))


def _bytes_of(reply: Reply) -> bytes:
    body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
    headers = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        **reply.headers,
    }
    lines = [f"HTTP/1.1 {reply.status} Played", *(f"{k}: {v}" for k, v in headers.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
