"""Our providers against a double of the wire formats that is not ours."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from runward.activities.provider_answers import received
from runward.activities.provider_anthropic import AnthropicProvider
from runward.activities.provider_openai import OpenAIProvider
from runward.contracts.providers import Provider
from runward.contracts.transcript import ToolMessage, UserMessage
from runward.contracts.usage import Usage
from runward.testing.provider_contract import REQUEST, SECRET, error_of
from tests.provider_aimock import aimock

USED = {"input_tokens": 10, "output_tokens": 5}
NAMES = ["anthropic", "openai"]
pytestmark = pytest.mark.parametrize("name", NAMES)


@asynccontextmanager
async def answering(name: str, *responses: dict[str, Any]) -> AsyncIterator[Provider]:
    """Serves the responses, each to the conversation with so many calls."""
    fixtures = [{"match": {"turnIndex": n}, "response": one} for n, one in enumerate(responses)]
    async with aimock(*fixtures) as address:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("NO_PROXY", "127.0.0.1")
            patch.setenv(f"{name.upper()}_API_KEY", SECRET)
            provider: AnthropicProvider | OpenAIProvider = (
                AnthropicProvider(base_url=address)
                if name == "anthropic"
                else OpenAIProvider(base_url=f"{address}/v1")
            )
            try:
                yield provider
            finally:
                await provider.close()


async def test_text_and_usage(name: str) -> None:
    async with answering(name, {"content": "Hi there.", "usage": USED}) as provider:
        found = await provider.call(REQUEST)

    assert (found.message.text, found.stop) == ("Hi there.", "end")
    assert (found.usage, found.metered) == (Usage(input=10, output=5), True)


async def test_parallel_calls_make_the_round_trip(name: str) -> None:
    orders = ["17", "18"]
    asks = [{"name": "lookup", "arguments": {"order_id": one}} for one in orders]
    turns = ({"content": "Looking.", "toolCalls": asks, "usage": USED}, {"content": "Shipped."})
    async with answering(name, *turns) as provider:
        first = received(await provider.call(REQUEST), REQUEST)
        results = (
            ToolMessage(call_id=one.id, name=one.name, text="shipped")
            for one in first.message.calls
        )
        messages = (*REQUEST.messages, first.message, *results, UserMessage(text="Hurry."))
        second = await provider.call(replace(REQUEST, messages=messages))

    assert (first.message.text, first.stop) == ("Looking.", "tools")
    assert [json.loads(one.arguments)["order_id"] for one in first.message.calls] == orders
    assert (second.message.text, second.stop) == ("Shipped.", "end")


async def test_a_cut_answer_is_none(name: str) -> None:
    """aimock leaves out why a response of OpenAI's is incomplete."""
    async with answering(name, {"content": "So far", "finishReason": "length"}) as provider:
        found = await provider.call(REQUEST)

    expected = {"anthropic": "length", "openai": "incomplete"}
    assert found.stop == expected[name]


async def test_a_rate_limit_is_waited_for(name: str) -> None:
    busy = {"error": {"message": "Slow down", "type": "rate_limit_error"}, "status": 429}
    async with answering(name, {**busy, "retryAfter": 7}) as provider:
        found = await error_of(provider)

    assert str(found) == f"{name} answered 429 rate_limit_error"
    assert (found.retryable, found.unbilled, found.retry_after_s) == (True, True, 7.0)


async def test_an_unknown_model_is_final(name: str) -> None:
    wrong = {"error": {"message": "No such model", "type": "not_found_error"}, "status": 404}
    async with answering(name, wrong) as provider:
        found = await error_of(provider)

    assert (found.retryable, found.unbilled) == (False, True)
