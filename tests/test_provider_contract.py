"""Our three providers do what every provider must do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import ClassVar

from runward.activities.provider_anthropic import AnthropicProvider
from runward.activities.provider_openai import OpenAIProvider
from runward.activities.provider_scripted import Call as Ask
from runward.activities.provider_scripted import Cut, Fail, Fault, Hang, ScriptedProvider, Turn
from runward.contracts.providers import ModelRequest, Provider
from runward.testing.provider_contract import (
    SECRET,
    WORDS,
    Answer,
    Cutting,
    Failing,
    Hanging,
    HttpProviderContract,
    Play,
    ProviderContract,
)
from runward.testing.provider_double import Check, Refusal, Reply
from tests import anthropic_double, openai_double


class TestAnthropic(HttpProviderContract):
    """Its API hands a call's arguments over as a value."""

    environment: ClassVar = {"ANTHROPIC_API_KEY": SECRET}
    stops = ("end", "tools", "length", "refusal", "filtered", "incomplete")
    writes_text = False

    def provider(self, base_url: str) -> Provider:
        return AnthropicProvider(base_url=base_url)

    def answer(self, answer: Answer) -> Reply:
        return anthropic_double.written(answer)

    def error(self, status: int) -> Reply:
        return Reply(anthropic_double.error("api_error", WORDS + SECRET), status)

    def check(self) -> Check:
        return anthropic_double.shape_error

    def refusal(self) -> Refusal:
        return anthropic_double.refusal


class TestOpenAI(HttpProviderContract):
    """It can say all there is."""

    environment: ClassVar = {"OPENAI_API_KEY": SECRET}
    stops = ("end", "tools", "length", "refusal", "filtered", "incomplete")

    def provider(self, base_url: str) -> Provider:
        return OpenAIProvider(base_url=base_url)

    def answer(self, answer: Answer) -> Reply:
        return openai_double.written(answer)

    def error(self, status: int) -> Reply:
        return Reply(openai_double.error("api_error", words=WORDS + SECRET), status)

    def check(self) -> Check:
        return openai_double.shape_error

    def refusal(self) -> Refusal:
        return openai_double.refusal


class TestScripted(ProviderContract):
    """It speaks no HTTP."""

    stops = ("end", "tools", "length", "refusal", "filtered", "incomplete")

    @asynccontextmanager
    async def playing(self, *plays: Play) -> AsyncIterator[Provider]:
        left = [_turn(one) for one in plays]

        def script(_: ModelRequest) -> Turn:
            return left.pop(0)

        yield ScriptedProvider({"double": script})


def _turn(play: Play) -> Turn:
    if isinstance(play, Answer):
        calls = [Ask(one.name, one.arguments) for one in play.calls]
        return Turn(play.text, calls, play.usage, play.stop)
    return Turn("Hi", faults=[_fault(play)])


def _fault(play: Failing | Cutting | Hanging) -> Fault:
    match play:
        case Failing(status=status, retry_after_s=wait):
            return Fail(status, wait)
        case Cutting():
            return Cut()
        case Hanging():
            return Hang()
