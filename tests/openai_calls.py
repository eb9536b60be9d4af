"""Calls of the OpenAI provider against its double, in an environment of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from runward.activities.provider_openai import OpenAIProvider
from runward.testing.provider_contract import SECRET
from runward.testing.provider_double import Double, Reply
from tests.openai_double import serving

KEY = {"OPENAI_API_KEY": SECRET}
_FOREIGN = (
    "OPENAI_ADMIN_KEY",
    "OPENAI_BASE_URL",
    "OPENAI_CUSTOM_HEADERS",
    "OPENAI_ORG_ID",
    "OPENAI_PROJECT_ID",
)


@asynccontextmanager
async def calling(
    *replies: Reply | dict[str, Any],
    environment: Mapping[str, str] = KEY,
    base_url: str | None = None,
    **options: Any,
) -> AsyncIterator[tuple[OpenAIProvider, Double]]:
    """Serves the replies to a provider whose SDK sees only this environment, and no proxy."""
    with pytest.MonkeyPatch.context() as patch:
        for name in (*KEY, *_FOREIGN):
            patch.delenv(name, raising=False)
        for name, value in {"NO_PROXY": "127.0.0.1", **environment}.items():
            patch.setenv(name, value)
        async with serving() as double:
            double.plays(*replies)
            provider = OpenAIProvider(base_url=base_url or double.url, **options)
            try:
                yield provider, double
            finally:
                await provider.close()
