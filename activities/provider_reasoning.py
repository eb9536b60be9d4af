"""A model's reasoning from one call to the next: opaque items, kept as they came and given back so.

A provider's file says which items these are, and what they belong to: the model, and whatever else
must not have changed. What the message holds anyway, text and calls, is not kept a second time; the
items leave places for it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

from runward.activities.provider_answers import UNREADABLE
from runward.contracts.encoding import clean, is_clean
from runward.contracts.providers import ModelResponse
from runward.contracts.transcript import AssistantMessage, Message, Reasoning, ToolCall

Items = list[dict[str, Any]]
# Returns the items with the message's texts and calls in the places that were left for them.
Fill = Callable[[Any, Iterator[str], Iterator[ToolCall]], Items]


def proven(items: Sequence[Any], proofs: Mapping[str, str]) -> bool:
    """Returns whether there is reasoning among the items, and all of it can be sent again.

    `proofs` names the kinds of items that are reasoning, and what each must have for that.
    """
    found = [one.get(proofs[one["type"]]) for one in items if one["type"] in proofs]
    return bool(found) and all(isinstance(one, str) and one for one in found)


def kept(belongs_to: str, items: Sequence[Any], texts: Sequence[str]) -> str:
    """Returns the items as text, to be found by `given_back`; "" where they cannot be sent again.

    `texts` are the message's, piece by piece.
    """
    if not all(map(is_clean, texts)):
        return ""  # the message will not say exactly what the model said
    found = {"of": belongs_to, "items": items, "texts": [len(one) for one in texts]}
    try:
        return json.dumps(found, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except UNREADABLE:  # Python reads NaN as JSON, APIs do not
        return ""


def given_back(message: Message, belongs_to: str, fill: Fill) -> Items | None:
    """Returns the message as the items that `kept` was given, None where it has to go without."""
    if not isinstance(message, AssistantMessage) or message.reasoning is None:
        return None
    try:
        found = json.loads(message.reasoning.data)
        if found["of"] != belongs_to:
            return None
        texts = _cut(clean(message.text), found["texts"])
        return fill(found["items"], iter(texts), iter(message.calls))
    except (*UNREADABLE, StopIteration):  # another release's
        return None


def _cut(text: str, sizes: list[int]) -> list[str]:
    if len(sizes) == 1:
        return [text]  # all of it, also where it came in an envelope and was taken out
    if sum(sizes) != len(text):
        raise ValueError("another text")
    return [text[end - size : end] for size, end in zip(sizes, accumulate(sizes), strict=True)]


def with_reasoning(response: ModelResponse, provider: str) -> AssistantMessage:
    """Returns the message with the reasoning that this provider is to get back with it."""
    reasoning = Reasoning(provider=provider, data=response.reasoning)
    return response.message.model_copy(update={"reasoning": reasoning})


def is_there(messages: Sequence[Message]) -> bool:
    """Returns whether any of the messages has reasoning."""
    return any(_is_of(one) for one in messages)


def without_foreign(messages: Sequence[Message], provider: str) -> tuple[Message, ...]:
    """Returns the messages without the reasoning of other providers' models."""
    return tuple([_bare(one) if _is_of(one) not in ("", provider) else one for one in messages])


def _is_of(message: Message) -> str:
    """Returns the provider whose reasoning the message has, "" where it has none."""
    found = message.reasoning if isinstance(message, AssistantMessage) else None
    return "" if found is None else found.provider


def _bare(message: Message) -> Message:
    return message.model_copy(update={"reasoning": None})
