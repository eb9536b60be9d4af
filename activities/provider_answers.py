"""What of a provider's answer may enter a run. Nothing that a model says breaks a run or a worker.

The first half serves the files that read a wire format. `received` goes over every answer of every
provider, a user's own included, before it is recorded: what is recorded is sent back with each
later call, and an id or a name that an API refuses would end the run there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from runward.contracts.agents import MAX_CALLS_PER_TURN_DEFAULT
from runward.contracts.encoding import canonical, clean, digest, is_clean
from runward.contracts.providers import NO_ANSWER, ModelRequest, ModelResponse, Stop
from runward.contracts.transcript import AssistantMessage, ToolCall
from runward.contracts.usage import Usage

ARGUMENTS_BYTES_MAX = 1024 * 1024  # what the store takes for a call that is judged
# Twice what the longest reasoning takes, encrypted. APIs bound what they take back as well, and
# refuse the whole request.
REASONING_BYTES_MAX = 2 * 1024 * 1024
COUNTER_MAX = 10**9  # a hundred times the largest context; its cost is far from the ledger's range

# What every provider takes back. Ids and names of another form would be refused on the next call.
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]+")
_NAME_SHOWN_CHARS = 40

UNREADABLE = (ValueError, TypeError, KeyError, AttributeError, RecursionError)


class NotAnAnswer(Exception):
    """A body that is no answer of the API. Says what is wrong, never what stands there."""


def read_body(body: bytes, read: Callable[[Any], ModelResponse]) -> ModelResponse:
    """Returns the answer that `read` finds in the JSON of a body; NotAnAnswer if it holds none."""
    try:
        return read(json.loads(body))
    except UNREADABLE as error:
        wrong = type(error).__name__
    # Outside, as the error that we caught holds the body.
    raise NotAnAnswer(f"{len(body)} bytes, {wrong}")


def read_usage(read: Callable[[Any], Usage], usage: Any) -> tuple[Usage, bool]:
    """Returns the counters that `read` finds, and whether they can be believed.

    The answer that they came with is paid for: unlike it, they can be replaced by the bound.
    """
    try:
        return read(usage), True
    except UNREADABLE:
        return Usage(), False


def counter(value: object) -> int:
    """Returns the count, at most COUNTER_MAX: an absurd one is overrun, never out of range."""
    if type(value) is not int or value < 0:
        raise ValueError("not a counter")
    return min(value, COUNTER_MAX)


def arguments_text(value: dict[str, Any]) -> str:
    """Returns a call's arguments as text: sorted and compact, so that one value has one digest."""
    json.dumps(value, allow_nan=False)  # or orjson writes null for it, which is another argument
    try:
        return canonical(value).decode()
    except TypeError:  # a number of more than 64 bits
        whole = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return clean(whole)


def arguments_object(arguments: str) -> dict[str, Any]:
    """Returns a call's arguments as the JSON object that APIs demand; what is none, in one."""
    try:
        value = json.loads(arguments or "{}")
        if isinstance(value, dict):
            # As text and back: an escape in clean text can still stand for a lone surrogate.
            found: dict[str, Any] = json.loads(arguments_text(value))
            return found
    except (ValueError, TypeError, RecursionError):
        pass
    return {"malformed_arguments": clean(arguments)}


def received(
    response: ModelResponse, request: ModelRequest, calls_max: int = MAX_CALLS_PER_TURN_DEFAULT
) -> ModelResponse:
    """Returns the answer as it is recorded: clean, bounded, with calls that can be told apart."""
    message = response.message
    ended = response.stop in ("end", "tools")
    calls = message.calls if ended else ()
    kept = _named_apart(calls[:calls_max], request)
    text = clean(message.text)
    if len(calls) > len(kept):
        # In the model's own message, as a call without a record can have no result.
        text = f"{text}\n\n{_refused(len(calls), calls_max)}".strip()
    stop: Stop = "tools" if kept else "end"
    if not ended:  # a word that is none of ours was no normal end either
        stop = response.stop if response.stop in NO_ANSWER else "incomplete"
    usage, metered = read_usage(_bounded, response.usage)
    reasoning = _reasoning(response.reasoning)
    if (kept, text, None) != (message.calls, message.text, message.reasoning):
        message, reasoning = AssistantMessage(text=text, calls=kept), ""  # it led to another one
    return ModelResponse(
        message=message,
        usage=usage,
        stop=stop,
        metered=response.metered and metered,
        reasoning=reasoning,
    )


def _reasoning(data: str) -> str:
    """Returns what the provider gets back, unchanged, or nothing of it."""
    good = is_clean(data) and len(data.encode()) <= REASONING_BYTES_MAX
    return data if good else ""


def _bounded(usage: Usage) -> Usage:
    return Usage(
        input=counter(usage.input),
        cache_read=counter(usage.cache_read),
        cache_write=counter(usage.cache_write),
        output=counter(usage.output),
    )


def _refused(count: int, most: int) -> str:
    return (
        f"[runward: {count - most} of these {count} tool calls were refused and did not run. "
        f"One turn may hold {most}; call again what is still needed]"
    )


def _named_apart(calls: tuple[ToolCall, ...], request: ModelRequest) -> tuple[ToolCall, ...]:
    """Returns the calls clean, and under ids that no other call of the conversation has."""
    if not calls:
        return ()  # as most answers are: nothing to look through the conversation for
    taken = {
        one.id
        for message in request.messages
        if isinstance(message, AssistantMessage)
        for one in message.calls
    }
    found: list[ToolCall] = []
    for index, one in enumerate(calls):
        key = one.id
        if key in taken or not _ID.fullmatch(key):
            # The same for a retry of this step, and for no other step.
            key = "call_" + digest(f"{request.idempotency_key}\x1f{index}".encode())[:32]
        taken.add(key)
        name, arguments = _name(one.name), _arguments(one.arguments)
        if (key, name, arguments) != (one.id, one.name, one.arguments):
            one = ToolCall(id=key, name=name, arguments=arguments)
        found.append(one)
    return tuple(found)


def _name(name: str) -> str:
    """Returns a name that can be sent back; one that no tool can have stays one that none has."""
    if _NAME.fullmatch(name):
        return name
    return "Invalid_name_" + _NOT_IN_NAMES.sub("_", name)[:_NAME_SHOWN_CHARS]


def _arguments(text: str) -> str:
    text = clean(text)
    size = len(text.encode())
    if size <= ARGUMENTS_BYTES_MAX:
        return text
    # No object, so the tool refuses it, and the model reads in its own call why.
    return json.dumps(f"refused: {size} bytes of arguments, at most {ARGUMENTS_BYTES_MAX}")
