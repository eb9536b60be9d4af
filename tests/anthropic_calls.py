"""Calls of the Anthropic provider against its double, in an environment of their own."""

from __future__ import annotations

import traceback
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from runward.activities.provider_anthropic import AnthropicProvider
from runward.contracts.providers import ModelError, ModelRequest, ToolSpec
from runward.contracts.transcript import UserMessage
from tests.anthropic_double import Double, Reply, serving

SECRET = "sk-ant-secret"
WORDS = "the words of the user"
SCHEMA = {"type": "object", "properties": {"order_id": {"type": "string"}}}
REQUEST = ModelRequest(
    model="claude-double",
    instructions="Be brief.",
    messages=(UserMessage(text=WORDS),),
    tools=(ToolSpec("lookup", "Finds an order.", SCHEMA),),
    max_output_tokens=64_000,
    idempotency_key="case-ü/t1.model",
)
KEY = {"ANTHROPIC_API_KEY": SECRET}
_FOREIGN = ("ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL", "ANTHROPIC_CUSTOM_HEADERS")


@asynccontextmanager
async def calling(
    *replies: Reply | dict[str, Any],
    environment: Mapping[str, str] = KEY,
    base_url: str | None = None,
    **options: Any,
) -> AsyncIterator[tuple[AnthropicProvider, Double]]:
    """Serves the replies to a provider whose SDK sees only this environment, and no proxy."""
    with pytest.MonkeyPatch.context() as patch:
        for name in (*KEY, *_FOREIGN):
            patch.delenv(name, raising=False)
        for name, value in {"NO_PROXY": "127.0.0.1", **environment}.items():
            patch.setenv(name, value)
        async with serving() as double:
            double.plays(*replies)
            provider = AnthropicProvider(base_url=base_url or double.url, **options)
            try:
                yield provider, double
            finally:
                await provider.close()


async def error_of(provider: AnthropicProvider, request: ModelRequest = REQUEST) -> ModelError:
    """Returns the error of a call, and sees to it that no trace of it tells what must stay here."""
    with pytest.raises(ModelError) as caught:
        await provider.call(request)
    shown = "".join(traceback.format_exception(caught.value))
    assert SECRET not in shown
    assert WORDS not in shown
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    return caught.value
