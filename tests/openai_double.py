"""OpenAI's Responses API on 127.0.0.1: plays what a test says, and refuses what the API would."""

from __future__ import annotations

import base64
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from runward.contracts.providers import Stop
from runward.contracts.usage import Usage
from runward.testing.provider_contract import Answer
from runward.testing.provider_double import Double, Reply, Seen
from tests.provider_memory import Responses, remembering
from tests.schema_shape import schema_error

REASONS: dict[Stop, str] = {
    "length": "max_output_tokens",
    "filtered": "content_filter",
    "incomplete": "max_messages",
}
FIELDS = {
    "model",
    "max_output_tokens",
    "input",
    "store",
    "instructions",
    "tools",
    "text",
    "include",
}
TOOL_FIELDS = {"type", "name", "description", "parameters", "strict"}
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


def response(
    *output: dict[str, Any], usage: dict[str, Any] | None = None, **fields: Any
) -> dict[str, Any]:
    """Returns an answer of the API."""
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1_767_268_800,
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "model": "gpt-double",
        "output": list(output),
        "usage": usage or used(Usage(input=12, output=5)),
        **fields,
    }


def used(usage: Usage, reasoning: int = 0) -> dict[str, Any]:
    """Returns the counters, which hold each other in this API."""
    return {
        "input_tokens": usage.input_total,
        "input_tokens_details": {
            "cached_tokens": usage.cache_read,
            "cache_write_tokens": usage.cache_write,
        },
        "output_tokens": usage.output,
        "output_tokens_details": {"reasoning_tokens": reasoning},
        "total_tokens": usage.tokens,
    }


def said(*parts: dict[str, Any], status: str = "completed") -> dict[str, Any]:
    """Returns an item with what the model says."""
    return {
        "type": "message",
        "id": "msg_1",
        "role": "assistant",
        "status": status,
        "content": list(parts),
    }


def text(value: str) -> dict[str, Any]:
    """Returns a part of text."""
    return {"type": "output_text", "text": value, "annotations": []}


def refused(value: str) -> dict[str, Any]:
    """Returns a part in which the model says no."""
    return {"type": "refusal", "refusal": value}


def function_call(
    call_id: str, name: str, arguments: str, status: str = "completed"
) -> dict[str, Any]:
    """Returns an item with a tool call."""
    return {
        "type": "function_call",
        "id": f"fc_{call_id}",
        "call_id": call_id,
        "name": name,
        "arguments": arguments,
        "status": status,
    }


def reasoning(number: int = 1, encrypted: str | None = "Z0FB") -> dict[str, Any]:
    """Returns what a reasoning model puts before the rest."""
    return {
        "type": "reasoning",
        "id": f"rs_{number}",
        "summary": [{"type": "summary_text", "text": "Ü, an order."}],
        "encrypted_content": encrypted,
    }


def error(kind: str, code: str | None = None, words: str = "as you wish") -> dict[str, Any]:
    """Returns the API's error object."""
    return {"error": {"message": words, "type": kind, "param": None, "code": code}}


def written(answer: Answer) -> Reply:
    """Returns how the API writes an answer."""
    output = [reasoning()]
    if answer.stop == "refusal":
        output.append(said(refused(answer.text)))
    elif answer.text:
        output.append(said(text(answer.text)))
    output += [function_call(one.id, one.name, one.arguments) for one in answer.calls]
    fields: dict[str, Any] = {"usage": used(answer.usage)}
    if answer.stop in REASONS:
        fields["status"] = "incomplete"
        fields["incomplete_details"] = {"reason": REASONS[answer.stop]}
    return Reply(response(*output, **fields))


def refusal(why: str) -> Reply:
    """Returns how the API refuses a request."""
    return Reply(error("invalid_request_error", words=why), 400)


@asynccontextmanager
async def serving() -> AsyncIterator[Double]:
    """Serves a double on a free port."""
    async with remembering(shape_error, Responses(), refusal) as double:
        yield double


def shape_error(seen: Seen) -> str | None:
    """Returns what the API would refuse in the request, or None."""
    body = seen.body
    if not seen.path.startswith("POST /responses "):
        return "path"
    if "authorization" not in seen.headers:
        return "key"
    if body.keys() - FIELDS or not body["model"] or body["store"] is not False:
        return "unknown field"
    if type(body["max_output_tokens"]) is not int or body["max_output_tokens"] < 1:
        return "max_output_tokens"
    if body.get("instructions") == "" or body.get("tools") == []:
        return "empty instructions or tools"
    for one in body.get("tools", []):
        if one.keys() != TOOL_FIELDS or one["type"] != "function" or one["strict"] is not False:
            return "tools"
    if "include" in body and not body["model"].startswith(("gpt-5", "o3")):
        return "Encrypted content is not supported with this model"
    wrong = None if "text" not in body else _format_error(body["text"])
    return wrong or _items_error(body["input"])


def _format_error(text: dict[str, Any]) -> str | None:
    match text:
        case {"format": {"type": "json_schema", "name": str(name), "schema": dict(schema),
                         "strict": bool(strict)} as form}:  # fmt: skip
            if len(form) != 4 or not NAME.fullmatch(name):
                return "text.format"
            if strict:
                return schema_error(schema, strict=True)
            return None if schema.get("type") == "object" else "the root is no object"
    return "text"


def _items_error(items: list[dict[str, Any]]) -> str | None:
    if not items:
        return "no input"
    wrong = next(filter(None, map(_item_error, items)), None)
    asked = [one["call_id"] for one in items if one.get("type") == "function_call"]
    answered = [one["call_id"] for one in items if one.get("type") == "function_call_output"]
    if len(set(asked)) != len(asked):
        return "a call twice"
    return wrong or (None if sorted(asked) == sorted(answered) else "No tool output found")


def _item_error(item: dict[str, Any]) -> str | None:
    match item:
        case {"role": "user" | "assistant", "content": str(words)}:
            return None if item.keys() == {"role", "content"} and words.strip() else "message"
        case {"type": "function_call", "call_id": str(call_id), "name": name, "arguments": str()}:
            good = len(item) in (4, 6) and NAME.fullmatch(name) and 0 < len(call_id) <= 64
            return None if good else "function_call"
        case {"type": "reasoning", "encrypted_content": str()}:
            return None  # what belongs to it stands in `provider_memory`
        case {"type": "message", "id": str(), "role": "assistant", "content": [*parts]}:
            good = all(one["type"] == "output_text" for one in parts)
            return None if good else "message"
        case {"type": "function_call_output", "call_id": str(), "output": str()}:
            return None if len(item) == 3 else "function_call_output"
        case {"role": "user", "content": [*parts]}:
            return next(filter(None, map(_part_error, parts)), None) if parts else "message"
    return f"unknown item {item.get('type')}"


def _part_error(part: dict[str, Any]) -> str | None:
    match part:
        case {"type": "input_text", "text": str(words)}:
            return None if len(part) == 2 and words.strip() else "input_text"
        case {"type": "input_image", "detail": "auto", "image_url": str(address)}:
            return None if len(part) == 3 and _is_data(address, "image/") else "input_image"
        case {"type": "input_file", "filename": str(), "file_data": str(address)}:
            good = len(part) == 3 and _is_data(address, "application/pdf")
            return None if good else "input_file"
    return f"unknown part {part.get('type')}"


def _is_data(address: str, kind: str) -> bool:
    head, _, data = address.partition(";base64,")
    return head.startswith(f"data:{kind}") and bool(base64.b64decode(data, validate=True))
