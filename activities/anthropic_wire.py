"""Between our transcript and Anthropic's Messages API; pure, and without the SDK.

The API parses what the model wrote as a call's arguments and hands over the value. We keep that
value's canonical compact JSON (sorted keys) as the argument text, so that one value has one
digest; for this provider it stands for the text exactly as the model wrote it.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from runward.activities.output_schema import FORMATS, Dialect, fitted, instruction
from runward.activities.provider_answers import (
    arguments_object,
    arguments_text,
    counter,
    read_body,
    read_usage,
)
from runward.activities.provider_reasoning import Items, given_back, is_there, kept, proven
from runward.contracts.encoding import clean, digest
from runward.contracts.files import PDF
from runward.contracts.providers import ModelRequest, ModelResponse, Stop
from runward.contracts.transcript import (
    AssistantMessage,
    FileRef,
    Message,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from runward.contracts.usage import Usage

NO_FILES: Mapping[str, bytes] = MappingProxyType({})
# What is not here is new to us, and was no normal end so far (`refusal` came like that).
_STOPS: dict[object, Stop] = {
    "end_turn": "end",
    "stop_sequence": "end",
    "tool_use": "tools",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "refusal",
    "content_filter": "filtered",  # what gateways to other models say
}
# Blocks of reasoning, and what proves each: without it the API refuses them.
_PROOFS = {"thinking": "signature", "redacted_thinking": "data"}
# What `output_config.format` knows of JSON Schema.
OUTPUT = Dialect(
    bounds=frozenset(),
    formats=FORMATS | {"uri"},
    optional_max=24,
    unions_max=16,
    recursive=False,
)


def write_request(request: ModelRequest) -> dict[str, Any]:
    """Returns the call's parameters; `system` and `tools` only where there are any."""
    parameters = _definition(request)
    belongs_to = _name(parameters) if is_there(request.messages) else ""
    parameters["max_tokens"] = request.max_output_tokens
    parameters["messages"] = write_messages(request.messages, request.files, belongs_to)
    if request.tools:
        _cache(parameters)
    return parameters


def _definition(request: ModelRequest) -> dict[str, Any]:
    """Returns what stands before the messages."""
    parameters: dict[str, Any] = {"model": request.model}
    told = [clean(request.instructions)] if request.instructions else []
    if request.output is not None:
        schema = fitted(request.output, OUTPUT)
        if schema is None:
            told.append(instruction(request.output))
        else:
            parameters["output_config"] = {"format": {"type": "json_schema", "schema": schema}}
    if told:
        parameters["system"] = [{"type": "text", "text": one} for one in told]
    if request.tools:
        parameters["tools"] = [
            {"name": one.name, "description": one.description, "input_schema": one.schema}
            for one in request.tools
        ]
    return parameters


def _name(definition: dict[str, Any]) -> str:
    """Returns what reasoning belongs to: newer models refuse it where what stood before it changed.

    Messages do not change, but another release's prompt or tools may take a run over.
    """
    before = [definition.get(one) for one in ("model", "system", "tools")]
    return digest(json.dumps(before).encode())


def _cache(parameters: dict[str, Any]) -> None:
    """Marks what the next call of a loop will send again, so that it costs a tenth then.

    That is what never changes, and the conversation up to here. The end of the call before is
    marked too: the API looks back over 20 blocks only, and one turn can hold more.
    """
    ends = [turn["content"][-1] for turn in parameters["messages"] if turn["role"] == "user"]
    for block in (parameters.get("system", parameters["tools"])[-1], *ends[-2:]):
        block["cache_control"] = {"type": "ephemeral"}


def write_messages(
    messages: Iterable[Message], files: Mapping[str, bytes] = NO_FILES, belongs_to: str = ""
) -> list[dict[str, Any]]:
    """Returns the messages as turns of alternating roles.

    Results of parallel calls share one user turn, in front of what the user says: the API refuses
    anything between a call and its result. Blank text is left out, which the API refuses as well.
    """
    turns: list[dict[str, Any]] = []
    for message in messages:
        role = "assistant" if isinstance(message, AssistantMessage) else "user"
        blocks = _write_blocks(message, files, belongs_to)
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"].extend(blocks)
        elif blocks:
            turns.append({"role": role, "content": blocks})
    for turn in turns:
        turn["content"].sort(key=lambda block: block["type"] != "tool_result")
    return turns


def _write_blocks(message: Message, files: Mapping[str, bytes], belongs_to: str) -> Items:
    if isinstance(message, ToolMessage):
        block: dict[str, Any] = {"type": "tool_result", "tool_use_id": message.call_id}
        if message.text.strip():
            block["content"] = clean(message.text)
        if message.is_error:
            block["is_error"] = True
        return [block]
    said = _write_text(clean(message.text))
    if isinstance(message, UserMessage):
        return [*(_write_file(one, files[one.digest]) for one in message.files), *said]
    reasoned = given_back(message, belongs_to, _fill)
    return [*said, *map(_write_call, message.calls)] if reasoned is None else reasoned


def _write_text(text: str) -> Items:
    return [{"type": "text", "text": text}] if text.strip() else []


def _write_call(call: ToolCall) -> dict[str, Any]:
    arguments = arguments_object(call.arguments)
    return {"type": "tool_use", "id": call.id, "name": call.name, "input": arguments}


def _fill(items: Any, texts: Iterator[str], calls: Iterator[ToolCall]) -> Items:
    blocks: Items = []
    for item in items:
        if item == "text":
            blocks += _write_text(next(texts))
        else:
            blocks.append(_write_call(next(calls)) if item == "tool_use" else item)
    return blocks


def _write_file(file: FileRef, data: bytes) -> dict[str, Any]:
    source = {
        "type": "base64",
        "media_type": file.media_type,
        "data": b64encode(data).decode(),
    }
    if file.media_type != PDF:
        return {"type": "image", "source": source}
    return {"type": "document", "source": source} | ({"title": file.name} if file.name else {})


def read_answer(body: bytes, request: ModelRequest) -> ModelResponse:
    """Returns the answer that a body holds; NotAnAnswer if it holds none."""
    return read_body(body, lambda answer: _read(answer, request))


def _read(answer: Any, request: ModelRequest) -> ModelResponse:
    if answer["type"] != "message":
        raise ValueError("not a message")
    stop = _STOPS.get(answer["stop_reason"], "incomplete")
    text = "".join(clean(block["text"]) for block in answer["content"] if block["type"] == "text")
    calls: tuple[ToolCall, ...] = ()
    if stop in ("end", "tools"):  # else the last call may be cut in its middle
        calls = tuple(_read_call(one) for one in answer["content"] if one["type"] == "tool_use")
        stop = "tools" if calls else "end"
    usage, metered = read_usage(_read_usage, answer.get("usage"))
    reasoning = _read_reasoning(answer["content"], request)
    message = AssistantMessage(text=text, calls=calls)
    return ModelResponse(message, usage, stop, metered, reasoning)


def _read_reasoning(content: Items, request: ModelRequest) -> str:
    """Returns the blocks of reasoning in their places, "" where there are none to send again."""
    if not proven(content, _PROOFS):
        return ""
    last = max(index for index, one in enumerate(content) if one["type"] in _PROOFS)
    # Blank text is not sent, and the API takes no reasoning that stands behind something else then,
    # or before nothing.
    sent = [one["type"] != "text" or bool(one["text"].strip()) for one in content]
    if not all(sent[:last]) or not any(sent[last + 1 :]):
        return ""
    places = [one["type"] if one["type"] in ("text", "tool_use") else one for one in content]
    texts = [one["text"] for one in content if one["type"] == "text"]
    return kept(_name(_definition(request)), places, texts)


def _read_call(block: dict[str, Any]) -> ToolCall:
    if not isinstance(block["input"], dict):
        raise TypeError("input is no object")
    return ToolCall(id=block["id"], name=block["name"], arguments=arguments_text(block["input"]))


def _read_usage(usage: Any) -> Usage:
    """Returns the counters, which are disjoint in this API: `input_tokens` is without the cache."""
    return Usage(
        input=counter(usage["input_tokens"]),
        cache_read=counter(usage.get("cache_read_input_tokens") or 0),
        cache_write=counter(usage.get("cache_creation_input_tokens") or 0),
        output=counter(usage["output_tokens"]),
    )
