"""Anthropic's Messages API on 127.0.0.1: plays what a test says, and refuses what the API would.

It reads raw HTTP by itself, so that a test can also have it answer half, or not at all.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

IDLE_WAIT_S = 5.0


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


def message(
    *content: dict[str, Any], stop: str = "end_turn", usage: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Returns an answer of the API."""
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-double",
        "content": list(content),
        "stop_reason": stop,
        "stop_sequence": None,
        "usage": usage or {"input_tokens": 12, "output_tokens": 5},
    }


def text(value: str) -> dict[str, Any]:
    """Returns a text block."""
    return {"type": "text", "text": value}


def tool_use(call_id: str, name: str, **arguments: Any) -> dict[str, Any]:
    """Returns a tool_use block."""
    return {"type": "tool_use", "id": call_id, "name": name, "input": arguments}


def error(kind: str, words: str = "as you wish") -> dict[str, Any]:
    """Returns the API's error object."""
    return {"type": "error", "error": {"type": kind, "message": words}, "request_id": "req_1"}


class Double:
    """The server; `replies` are played in order, `seen` is what came in."""

    def __init__(self) -> None:
        self.replies: list[Reply] = []
        self.seen: list[Seen] = []
        self.url = ""
        self.came_in = asyncio.Event()  # set with the first request
        self._tasks: set[asyncio.Task[None]] = set()

    def plays(self, *replies: Reply | dict[str, Any]) -> None:
        """Queues replies; a dict is the body of a 200."""
        self.replies += [one if isinstance(one, Reply) else Reply(one) for one in replies]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while await self._answer(reader, writer):
                pass  # the connection stays open for the client's next request
        except (asyncio.IncompleteReadError, ConnectionResetError):
            pass  # the client left
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answers one request; returns whether the connection lives on."""
        seen = await _read(reader)
        self.seen.append(seen)
        self.came_in.set()
        wrong = shape_error(seen)
        reply = Reply(error("invalid_request_error", wrong), 400) if wrong else self.replies.pop(0)
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
async def serving() -> AsyncIterator[Double]:
    """Serves a double on a free port."""
    double = Double()
    server = await asyncio.start_server(double._serve, "127.0.0.1", 0)
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


def shape_error(seen: Seen) -> str | None:
    """Returns what the API would refuse in the request, or None."""
    body = seen.body
    if not seen.path.startswith("POST /v1/messages "):
        return "path"
    if not (seen.headers.get("authorization") or seen.headers.get("x-api-key")):
        return "key"
    if "anthropic-version" not in seen.headers:
        return "version"
    if type(body.get("max_tokens")) is not int or body["max_tokens"] < 1:
        return "max_tokens"
    if body.keys() - {"model", "max_tokens", "messages", "system", "tools"} or not body["model"]:
        return "unknown field"
    if body.get("system") == "" or body.get("tools") == []:
        return "empty system or tools"
    if any(one.keys() != {"name", "description", "input_schema"} for one in body.get("tools", [])):
        return "tools"
    return _turns_error(body["messages"])


def _turns_error(turns: list[dict[str, Any]]) -> str | None:
    if not turns:
        return "no messages"
    asked: list[str] = []
    for number, turn in enumerate(turns):
        if turn["role"] != ("user", "assistant")[number % 2]:
            return f"messages.{number}: roles must alternate"
        if not turn["content"]:
            return f"messages.{number}: empty"
        kinds = [block["type"] for block in turn["content"]]
        answered = [b["tool_use_id"] for b in turn["content"] if b["type"] == "tool_result"]
        if sorted(answered) != sorted(asked) or "tool_result" in kinds[len(answered) :]:
            return f"messages.{number}: tool_use without its tool_result first in the next turn"
        asked = [block["id"] for block in turn["content"] if block["type"] == "tool_use"]
        if (asked and number % 2 == 0) or (answered and number % 2 == 1):
            return f"messages.{number}: block in the wrong role"
        wrong = next(filter(None, map(_block_error, turn["content"])), None)
        if wrong:
            return f"messages.{number}: {wrong}"
    return "the last turn calls tools" if asked else None


def _block_error(block: dict[str, Any]) -> str | None:
    kind = block["type"]
    if kind == "text":
        return None if block.keys() == {"type", "text"} and block["text"].strip() else "blank text"
    if kind == "tool_use":
        good = block.keys() == {"type", "id", "name", "input"} and isinstance(block["input"], dict)
        return None if good else "tool_use"
    if kind == "tool_result":
        good = block.keys() <= {"type", "tool_use_id", "content", "is_error"}
        return None if good and isinstance(block.get("content", ""), str) else "tool_result"
    return f"unknown block {kind}"
