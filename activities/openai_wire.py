"""Between our transcript and OpenAI's Responses API; pure, and without the SDK.

Each call sends the whole conversation, and asks the API to keep none of it. Items with reasoning
among them go as they came, others without ids: under its id the API refuses half of such a pair.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable, Iterator
from typing import Any

from runward.activities.output_schema import FORMATS, NUMBER_BOUNDS, Dialect, enveloped, fitted
from runward.activities.provider_answers import (
    arguments_object,
    arguments_text,
    counter,
    read_body,
    read_usage,
)
from runward.activities.provider_errors import shown
from runward.activities.provider_reasoning import Items, given_back, kept, proven
from runward.contracts.encoding import clean
from runward.contracts.files import PDF
from runward.contracts.providers import (
    ModelError,
    ModelRequest,
    ModelResponse,
    OutputSpec,
    Stop,
)
from runward.contracts.transcript import (
    AssistantMessage,
    FileRef,
    Message,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from runward.contracts.usage import Usage

# Why an answer is incomplete; any other reason is one that we do not ask for.
_CUT: dict[object, Stop] = {"max_output_tokens": "length", "content_filter": "filtered"}
# What a failed response says: a policy cut it off, or the same call may succeed later.
FILTERS = frozenset(
    {
        "bio_policy",
        "content_filter",
        "content_policy_violation",
        "image_content_policy_violation",
        "misalignment_policy_violation",
    }
)
_PASSING = frozenset({"rate_limit_exceeded", "server_error", "vector_store_timeout"})
# Models whose names say that they reason. The API returns reasoning that can be sent again without
# being asked; what else speaks it may want to be asked, and it refuses to be for other models.
_REASONS = re.compile(r"o\d|gpt-5(?!-chat)")
# Without its encrypted content reasoning only names what the API was asked not to keep.
_PROOFS = {"reasoning": "encrypted_content"}
_CODE = re.compile(r"[a-z_]{1,64}")
# What `strict` knows of JSON Schema: every property is required, and roots are objects.
STRICT = Dialect(
    bounds=NUMBER_BOUNDS | {"maxItems", "minItems", "pattern"},
    formats=FORMATS,
    optional_max=0,
    unions_max=5_000,
)


def write_request(request: ModelRequest) -> dict[str, Any]:
    """Returns the call's parameters; `instructions` and `tools` only where there are any."""
    parameters: dict[str, Any] = {
        "model": request.model,
        "max_output_tokens": request.max_output_tokens,
        "input": [item for one in request.messages for item in _write_items(one, request)],
        "store": False,  # a copy that nobody governs
    }
    if _REASONS.match(request.model):
        parameters["include"] = ["reasoning.encrypted_content"]
    if request.instructions:
        parameters["instructions"] = clean(request.instructions)
    if request.tools:
        # `strict` is on where nothing is said, and makes every optional argument required.
        parameters["tools"] = [
            {
                "type": "function",
                "name": one.name,
                "description": one.description,
                "parameters": one.schema,
                "strict": False,
            }
            for one in request.tools
        ]
    if request.output is not None:
        parameters["text"] = {"format": _write_output(request.output)}
    return parameters


def _write_output(spec: OutputSpec) -> dict[str, Any]:
    strict = fitted(spec, STRICT)
    return {
        "type": "json_schema",
        "name": spec.name,
        "schema": enveloped(spec.schema) if strict is None else strict,
        "strict": strict is not None,
    }


def _write_items(message: Message, request: ModelRequest) -> Iterator[dict[str, Any]]:
    text = clean(message.text)
    if isinstance(message, ToolMessage):
        # There is no place for `is_error`; each of our error texts says that it is one.
        yield {"type": "function_call_output", "call_id": message.call_id, "output": text}
        return
    if isinstance(message, UserMessage) and message.files:
        parts = [_write_file(one, request.files[one.digest]) for one in message.files]
        said = [{"type": "input_text", "text": text}] if text.strip() else []
        yield {"role": "user", "content": [*parts, *said]}
        return
    reasoned = given_back(message, request.model, _fill)
    if reasoned is not None:
        yield from reasoned
        return
    if text.strip():
        yield {"role": message.kind, "content": text}
    if isinstance(message, AssistantMessage):
        yield from map(_write_call, message.calls)


def _fill(items: Any, texts: Iterator[str], calls: Iterator[ToolCall]) -> Items:
    return [_filled(one, texts, calls) for one in items]


def _filled(item: dict[str, Any], texts: Iterator[str], calls: Iterator[ToolCall]) -> Any:
    if item["type"] == "function_call":
        return {**item, **_write_call(next(calls))}
    if item["type"] != "message":
        return item
    return {**item, "content": [{**part, "text": next(texts)} for part in item["content"]]}


def _write_file(file: FileRef, data: bytes) -> dict[str, Any]:
    address = f"data:{file.media_type};base64,{b64encode(data).decode()}"
    if file.media_type == PDF:
        return {"type": "input_file", "filename": file.name or "file.pdf", "file_data": address}
    return {"type": "input_image", "detail": "auto", "image_url": address}


def _write_call(call: ToolCall) -> dict[str, Any]:
    arguments = arguments_object(call.arguments)
    # As the model wrote them, which is what the API has cached, unless they are no object.
    malformed = "malformed_arguments" in arguments or not call.arguments
    return {
        "type": "function_call",
        "call_id": call.id,
        "name": call.name,
        "arguments": arguments_text(arguments) if malformed else clean(call.arguments),
    }


def read_answer(body: bytes, request: ModelRequest) -> ModelResponse:
    """Returns the answer that a body holds; NotAnAnswer if none, ModelError if the model failed."""
    return read_body(body, lambda answer: _read(answer, request))


def _read(answer: Any, request: ModelRequest) -> ModelResponse:
    if answer["object"] != "response":
        raise ValueError("not a response")
    if answer["status"] == "failed":
        return _read_failed(answer)
    if answer["status"] not in ("completed", "incomplete"):
        raise ValueError("not ended")
    parts = list(_parts(answer["output"]))
    text = "".join(clean(one["text"]) for one in parts if one["type"] == "output_text")
    stop, calls = _stop(answer, parts), tuple[ToolCall, ...]()
    if stop == "end":
        calls = tuple(_calls(answer["output"]))
        stop = "tools" if calls else "end"
    reasoning = _read_reasoning(answer["output"], parts, request)
    return _response(answer, AssistantMessage(text=text, calls=calls), stop, reasoning)


def _read_reasoning(output: Items, parts: Items, request: ModelRequest) -> str:
    """Returns the items with reasoning among them, "" where there is none to send again."""
    if not proven(output, _PROOFS) or output[-1]["type"] in _PROOFS:  # which something must follow
        return ""
    if any(one["type"] != "output_text" for one in parts):
        return ""
    return kept(request.model, list(map(_place, output)), [one["text"] for one in parts])


def _place(item: dict[str, Any]) -> dict[str, Any]:
    """Returns the item without what the message holds."""
    if item["type"] == "message":
        return {**item, "content": [{**part, "text": ""} for part in item["content"]]}
    return {**item, "arguments": ""} if item["type"] == "function_call" else item


def _stop(answer: Any, parts: list[dict[str, Any]]) -> Stop:
    """Returns why the model stopped; "end" also before calls."""
    if answer["status"] == "incomplete":
        return _CUT.get((answer.get("incomplete_details") or {}).get("reason"), "incomplete")
    if any(one["type"] == "refusal" for one in parts):
        return "refusal"
    cut = any(one.get("status", "completed") != "completed" for one in answer["output"])
    return "incomplete" if cut else "end"


def _read_failed(answer: Any) -> ModelResponse:
    code = shown(_CODE, (answer.get("error") or {}).get("code"))
    if code in FILTERS:
        return _response(answer, AssistantMessage(), "filtered")
    # What it consumed until then is not said.
    raise ModelError(f"openai failed {code}".strip(), retryable=code in _PASSING, unbilled=False)


def _response(
    answer: Any, message: AssistantMessage, stop: Stop, reasoning: str = ""
) -> ModelResponse:
    usage, metered = read_usage(_read_usage, answer.get("usage"))
    return ModelResponse(message, usage, stop, metered, reasoning)


def _parts(output: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for item in output:
        if item["type"] == "message":
            yield from item["content"]


def _calls(output: Iterable[dict[str, Any]]) -> Iterator[ToolCall]:
    for item in output:
        if item["type"] == "function_call":
            yield ToolCall(id=item["call_id"], name=item["name"], arguments=item["arguments"])


def _read_usage(usage: Any) -> Usage:
    """Returns disjoint counters: here `input_tokens` holds what was read from and written to the
    cache, and `output_tokens` holds the reasoning."""
    total = counter(usage["input_tokens"])
    details = usage.get("input_tokens_details") or {}
    read = counter(details.get("cached_tokens") or 0)
    write = counter(details.get("cache_write_tokens") or 0)
    return Usage(
        input=counter(total - read - write),
        cache_read=read,
        cache_write=write,
        output=counter(usage["output_tokens"]),
    )
