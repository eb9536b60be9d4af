"""Between our transcript and Anthropic's Messages API; pure, and without the SDK.

The API parses what the model wrote as a call's arguments and hands over the value. We keep that
value's canonical compact JSON (sorted keys) as the argument text, so that one value has one
digest; for this provider it stands for the text exactly as the model wrote it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from runward.contracts.encoding import canonical, clean
from runward.contracts.providers import ModelRequest, ModelResponse, Stop
from runward.contracts.transcript import AssistantMessage, Message, ToolCall, ToolMessage
from runward.contracts.usage import Usage

_STOPS: dict[str, Stop] = {
    "end_turn": "end",
    "stop_sequence": "end",
    "tool_use": "tools",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "refusal",
}


class NotAnAnswer(Exception):
    """A body that is no answer of the Messages API. Says where, never what stands there."""


def write_request(request: ModelRequest) -> dict[str, Any]:
    """Returns the call's parameters; `system` and `tools` only where there are any."""
    parameters: dict[str, Any] = {
        "model": request.model,
        "max_tokens": request.max_output_tokens,
        "messages": write_messages(request.messages),
    }
    if request.instructions:
        parameters["system"] = clean(request.instructions)
    if request.tools:
        parameters["tools"] = [
            {"name": one.name, "description": one.description, "input_schema": one.schema}
            for one in request.tools
        ]
    return parameters


def write_messages(messages: Iterable[Message]) -> list[dict[str, Any]]:
    """Returns the messages as turns of alternating roles.

    Results of parallel calls share one user turn, in front of what the user says: the API refuses
    anything between a call and its result. Blank text is left out, which the API refuses as well.
    """
    turns: list[dict[str, Any]] = []
    for message in messages:
        role = "assistant" if isinstance(message, AssistantMessage) else "user"
        blocks = _write_blocks(message)
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"].extend(blocks)
        elif blocks:
            turns.append({"role": role, "content": blocks})
    for turn in turns:
        turn["content"].sort(key=lambda block: block["type"] != "tool_result")
    return turns


def _write_blocks(message: Message) -> list[dict[str, Any]]:
    text = clean(message.text)
    if isinstance(message, ToolMessage):
        block: dict[str, Any] = {"type": "tool_result", "tool_use_id": message.call_id}
        if text.strip():
            block["content"] = text
        if message.is_error:
            block["is_error"] = True
        return [block]
    blocks: list[dict[str, Any]] = [{"type": "text", "text": text}] if text.strip() else []
    if isinstance(message, AssistantMessage):
        blocks += [
            {"type": "tool_use", "id": one.id, "name": one.name, "input": _write_arguments(one)}
            for one in message.calls
        ]
    return blocks


def _write_arguments(call: ToolCall) -> dict[str, Any]:
    """Returns the arguments as the object that the API demands; what is none, wrapped in one."""
    try:
        # Through `canonical`, since an escape in clean text can still stand for a lone surrogate.
        value = json.loads(canonical(json.loads(call.arguments)))
    except (ValueError, RecursionError):
        value = None
    return value if isinstance(value, dict) else {"malformed_arguments": clean(call.arguments)}


def read_answer(body: bytes) -> ModelResponse:
    """Returns the answer that a body holds; NotAnAnswer if it holds none."""
    wrong: str
    try:
        return _read(json.loads(body))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        wrong = type(error).__name__
    # Outside, as the error that we caught holds the body.
    raise NotAnAnswer(f"{len(body)} bytes, {wrong}")


def _read(answer: dict[str, Any]) -> ModelResponse:
    if answer["type"] != "message":
        raise ValueError("not a message")
    calls = tuple(_read_call(block) for block in answer["content"] if block["type"] == "tool_use")
    text = "".join(clean(block["text"]) for block in answer["content"] if block["type"] == "text")
    stop = _STOPS.get(answer["stop_reason"], "tools" if calls else "end")
    if stop in ("length", "refusal"):
        # The last call may be cut in its middle, and half a call must never run.
        calls = ()
    return ModelResponse(
        AssistantMessage(text=text, calls=calls), read_usage(answer["usage"]), stop
    )


def _read_call(block: dict[str, Any]) -> ToolCall:
    if not isinstance(block["input"], dict):
        raise TypeError("input is no object")
    return ToolCall(
        id=block["id"], name=block["name"], arguments=canonical(block["input"]).decode()
    )


def read_usage(usage: dict[str, Any]) -> Usage:
    """Returns the counters, which are disjoint in this API: `input_tokens` is without the cache."""
    return Usage(
        input=_count(usage["input_tokens"]),
        cache_read=_count(usage.get("cache_read_input_tokens") or 0),
        cache_write=_count(usage.get("cache_creation_input_tokens") or 0),
        output=_count(usage["output_tokens"]),
    )


def _count(value: object) -> int:
    if type(value) is not int or value < 0:
        raise ValueError("not a counter")
    return value
