"""What the scripted model says: the part of a language model, without one.

It reads the customer's words and what the tools answered, as a model would, and bills what a
tokenizer of four bytes per token would count, instructions and tool definitions included.
"""

from __future__ import annotations

import re
from dataclasses import replace

from runward.activities.provider_scripted import BYTES_PER_TOKEN, measure
from runward.contracts.providers import ModelRequest
from runward.contracts.transcript import AssistantMessage, ToolCall, ToolMessage, UserMessage
from runward.contracts.usage import Usage
from runward.testing.scripts import Turn, ask, say

SCRIPTED_MODEL = "scripted:support"

_REFUND = re.compile(r"refund EUR ([\d.]+) for order (\d+)", re.IGNORECASE)
_LETTER = re.compile(r"send a letter to (\w+)", re.IGNORECASE)
_ORDER = re.compile(r"order (\d+)", re.IGNORECASE)


def support_script(request: ModelRequest) -> Turn:
    """Returns what the support agent says next in this conversation."""
    last = request.messages[-1]
    turn = say(_retold(last.text)) if isinstance(last, ToolMessage) else _first(request)
    return replace(turn, usage=_usage(request, turn))


def _first(request: ModelRequest) -> Turn:
    """Returns the tool call that the customer's words ask for."""
    words = next(one.text for one in request.messages if isinstance(one, UserMessage))
    if found := _REFUND.search(words):
        return ask("refund", order_id=found[2], amount=found[1])
    if found := _LETTER.search(words):
        return ask("send_letter", to=found[1], text="We are sorry for the delay.")
    if found := _ORDER.search(words):
        return ask("lookup_order", order_id=found[1])
    return say("How can I help?")


def _retold(heard: str) -> str:
    word, _, reason = heard.partition(": ")
    if word == "DENIED":
        return f"I may not do that: {reason}."
    if word == "UNKNOWN":
        return f"I cannot say whether that was done: {reason}."
    return f"{heard[:1].upper()}{heard[1:]}."


def _usage(request: ModelRequest, turn: Turn) -> Usage:
    fixed = len(request.instructions) + sum(len(repr(one)) for one in request.tools)
    calls = tuple(
        ToolCall(id=str(index), name=one.name, arguments=one.text)
        for index, one in enumerate(turn.calls)
    )
    return Usage(
        input=measure(request.messages) + fixed // BYTES_PER_TOKEN,
        output=measure([AssistantMessage(text=turn.text, calls=calls)]),
    )
