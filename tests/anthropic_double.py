"""Anthropic's Messages API on 127.0.0.1: plays what a test says, and refuses what the API would."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from runward.contracts.providers import Stop
from runward.contracts.usage import Usage
from runward.testing.provider_contract import Answer
from runward.testing.provider_double import Double, Reply, Seen
from tests.provider_memory import Messages, remembering
from tests.schema_shape import schema_error

__all__ = ["Double", "Reply", "Seen"]

FIELDS = {"model", "max_tokens", "messages", "system", "tools", "output_config"}
IMAGES = {"image/png", "image/jpeg", "image/gif", "image/webp"}
STOPS: dict[Stop, str] = {
    "end": "end_turn",
    "tools": "tool_use",
    "length": "max_tokens",
    "refusal": "refusal",
    "filtered": "content_filter",
    "incomplete": "pause_turn",
}


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


def thinking(words: str, signature: str = "EqQBCkYI") -> dict[str, Any]:
    """Returns a block of reasoning."""
    return {"type": "thinking", "thinking": words, "signature": signature}


def redacted(data: str = "EmwKAhgB") -> dict[str, Any]:
    """Returns a block of reasoning that nobody may read."""
    return {"type": "redacted_thinking", "data": data}


def error(kind: str, words: str = "as you wish") -> dict[str, Any]:
    """Returns the API's error object."""
    return {"type": "error", "error": {"type": kind, "message": words}, "request_id": "req_1"}


def written(answer: Answer) -> Reply:
    """Returns how the API writes an answer; it parses the model's arguments by itself."""
    blocks = [text(answer.text)] if answer.text else []
    blocks += [
        tool_use(one.id, one.name, **json.loads(one.arguments or "{}")) for one in answer.calls
    ]
    return Reply(message(*blocks, stop=STOPS[answer.stop], usage=_usage(answer.usage)))


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.input,
        "cache_read_input_tokens": usage.cache_read,
        "cache_creation_input_tokens": usage.cache_write,
        "output_tokens": usage.output,
    }


def refusal(why: str) -> Reply:
    """Returns how the API refuses a request."""
    return Reply(error("invalid_request_error", why), 400)


@asynccontextmanager
async def serving() -> AsyncIterator[Double]:
    """Serves a double on a free port."""
    async with remembering(shape_error, Messages(), refusal) as double:
        yield double


def shape_error(seen: Seen) -> str | None:
    """Returns what the API would refuse in the request, or None."""
    body = copy.deepcopy(seen.body)
    if not seen.path.startswith("POST /v1/messages "):
        return "path"
    if not (seen.headers.get("authorization") or seen.headers.get("x-api-key")):
        return "key"
    if "anthropic-version" not in seen.headers:
        return "version"
    if type(body.get("max_tokens")) is not int or body["max_tokens"] < 1:
        return "max_tokens"
    if body.keys() - FIELDS or not body["model"]:
        return "unknown field"
    if body.get("system") in ("", []) or body.get("tools") == []:
        return "empty system or tools"
    marks = _take_marks(body)
    if marks > 4:
        return "cache_control"
    if any(one.keys() != {"name", "description", "input_schema"} for one in body.get("tools", [])):
        return "tools"
    wrong = None if "output_config" not in body else _format_error(body["output_config"])
    return wrong or _turns_error(body["messages"])


def _format_error(config: dict[str, Any]) -> str | None:
    match config:
        case {"format": {"type": "json_schema", "schema": dict(schema)}}:
            good = len(config) == 1 and len(config["format"]) == 2
            return schema_error(schema, strict=False) if good else "output_config"
    return "output_config"


def _take_marks(value: Any) -> int:
    """Takes the cache's marks off, and returns how many there were: the API allows four."""
    if isinstance(value, list):
        return sum(map(_take_marks, value))
    if not isinstance(value, dict):
        return 0
    mark = value.pop("cache_control", None)
    assert mark in (None, {"type": "ephemeral"})
    return (mark is not None) + sum(map(_take_marks, value.values()))


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
        if "thinking" in kinds[-1]:
            return f"messages.{number}: The final block cannot be `thinking`"
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
    if kind in ("thinking", "redacted_thinking"):
        return None  # whether it is the API's own, `provider_memory` knows
    if kind == "tool_result":
        good = block.keys() <= {"type", "tool_use_id", "content", "is_error"}
        return None if good and isinstance(block.get("content", ""), str) else "tool_result"
    if kind in ("image", "document"):
        source = block["source"]
        known = block.keys() <= {"type", "source"} | ({"title"} if kind == "document" else set())
        types = IMAGES if kind == "image" else {"application/pdf"}
        good = known and source.keys() == {"type", "media_type", "data"}
        good = good and source["type"] == "base64" and source["media_type"] in types
        return None if good and base64.b64decode(source["data"], validate=True) else kind
    return f"unknown block {kind}"
