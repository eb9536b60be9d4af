"""Between our transcript and Anthropic's Messages API; pure, and without the SDK.

The API parses what the model wrote as a call's arguments and hands over the value. We keep that
value's canonical compact JSON (sorted keys) as the argument text, so that one value has one
digest; for this provider it stands for the text exactly as the model wrote it.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Mapping
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
from runward.contracts.encoding import clean
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
    parameters: dict[str, Any] = {
        "model": request.model,
        "max_tokens": request.max_output_tokens,
        "messages": write_messages(request.messages, request.files),
    }
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
        _cache(parameters)
    return parameters


def _cache(parameters: dict[str, Any]) -> None:
    """Marks what the next call of a loop will send again, so that it costs a tenth then.

    That is what never changes, and the conversation up to here. The end of the call before is
    marked too: the API looks back over 20 blocks only, and one turn can hold more.
    """
    ends = [turn["content"][-1] for turn in parameters["messages"] if turn["role"] == "user"]
    for block in (parameters.get("system", parameters["tools"])[-1], *ends[-2:]):
        block["cache_control"] = {"type": "ephemeral"}


def write_messages(
    messages: Iterable[Message], files: Mapping[str, bytes] = NO_FILES
) -> list[dict[str, Any]]:
    """Returns the messages as turns of alternating roles.

    Results of parallel calls share one user turn, in front of what the user says: the API refuses
    anything between a call and its result. Blank text is left out, which the API refuses as well.
    """
    turns: list[dict[str, Any]] = []
    for message in messages:
        role = "assistant" if isinstance(message, AssistantMessage) else "user"
        blocks = _write_blocks(message, files)
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"].extend(blocks)
        elif blocks:
            turns.append({"role": role, "content": blocks})
    for turn in turns:
        turn["content"].sort(key=lambda block: block["type"] != "tool_result")
    return turns


def _write_blocks(message: Message, files: Mapping[str, bytes]) -> list[dict[str, Any]]:
    text = clean(message.text)
    if isinstance(message, ToolMessage):
        block: dict[str, Any] = {"type": "tool_result", "tool_use_id": message.call_id}
        if text.strip():
            block["content"] = text
        if message.is_error:
            block["is_error"] = True
        return [block]
    blocks: list[dict[str, Any]] = [{"type": "text", "text": text}] if text.strip() else []
    if isinstance(message, UserMessage):
        return [*(_write_file(one, files[one.digest]) for one in message.files), *blocks]
    if isinstance(message, AssistantMessage):
        blocks += [
            {
                "type": "tool_use",
                "id": one.id,
                "name": one.name,
                "input": arguments_object(one.arguments),
            }
            for one in message.calls
        ]
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


def read_answer(body: bytes) -> ModelResponse:
    """Returns the answer that a body holds; NotAnAnswer if it holds none."""
    return read_body(body, _read)


def _read(answer: Any) -> ModelResponse:
    if answer["type"] != "message":
        raise ValueError("not a message")
    stop = _STOPS.get(answer["stop_reason"], "incomplete")
    text = "".join(clean(block["text"]) for block in answer["content"] if block["type"] == "text")
    calls: tuple[ToolCall, ...] = ()
    if stop in ("end", "tools"):  # else the last call may be cut in its middle
        calls = tuple(_read_call(one) for one in answer["content"] if one["type"] == "tool_use")
        stop = "tools" if calls else "end"
    usage, metered = read_usage(_read_usage, answer.get("usage"))
    return ModelResponse(AssistantMessage(text=text, calls=calls), usage, stop, metered)


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
