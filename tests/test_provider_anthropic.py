"""Anthropic's API as a provider, against a double that refuses what the API would refuse."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

import pytest
from anthropic import AsyncAnthropic
from pydantic import BaseModel, Field, TypeAdapter

from runward.activities.provider_anthropic import AnthropicProvider
from runward.contracts.encoding import digest
from runward.contracts.providers import ModelRequest, OutputSpec
from runward.contracts.transcript import (
    AssistantMessage,
    Message,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from runward.contracts.usage import Usage
from tests.anthropic_calls import REQUEST, SCHEMA, SECRET, WORDS, calling
from tests.anthropic_double import Reply, message, text, tool_use

CACHED = {"cache_control": {"type": "ephemeral"}}


def turn_of(messages: Sequence[Message]) -> ModelRequest:
    return replace(REQUEST, messages=tuple(messages))


async def test_text_comes_back_with_its_usage() -> None:
    usage = {
        "input_tokens": 12,
        "cache_read_input_tokens": 100,
        "cache_creation_input_tokens": 30,
        "output_tokens": 5,
    }
    answer = message(text("Hello, "), {"type": "thinking", "thinking": "?"}, text("Ada."))
    async with calling({**answer, "usage": usage}) as (provider, double):
        found = await provider.call(REQUEST)

    assert found.message == AssistantMessage(text="Hello, Ada.")
    assert found.usage == Usage(input=12, cache_read=100, cache_write=30, output=5)
    assert found.stop == "end"
    assert double.seen[0].body == {
        "model": "claude-double",
        "max_tokens": 64_000,
        "system": [{"type": "text", "text": "Be brief.", **CACHED}],
        "messages": [{"role": "user", "content": [{**text(WORDS), **CACHED}]}],
        "tools": [{"name": "lookup", "description": "Finds an order.", "input_schema": SCHEMA}],
    }
    assert double.seen[0].headers["idempotency-key"] == digest("case-ü/t1.model".encode())


async def test_the_address_comes_from_the_sdks_own_variable() -> None:
    bare = replace(REQUEST, instructions="", tools=())
    async with calling(message(text("Hi"))) as (_, double):
        provider = AnthropicProvider()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("ANTHROPIC_BASE_URL", double.url)
            await provider.call(bare)
        await provider.close()

    assert double.seen[0].body.keys() == {"model", "max_tokens", "messages"}
    assert SECRET in "".join(double.seen[0].headers.values())


async def test_absent_cache_counters_are_zero() -> None:
    usage = {"input_tokens": 1, "output_tokens": 2, "cache_read_input_tokens": None}
    async with calling(message(text("Hi"), usage=usage)) as (provider, _):
        assert (await provider.call(REQUEST)).usage == Usage(input=1, output=2)


async def test_parallel_tool_calls_and_their_results_make_the_round_trip() -> None:
    """Both results go into one user turn, in front of what the user said meanwhile."""
    asked = message(
        text("Looking."),
        tool_use("toolu_1", "lookup", order_id="17", amount=19.99, note="ü\ud800"),
        tool_use("toolu_2", "lookup"),
        stop="tool_use",
    )
    async with calling(asked, message(text("Both shipped."))) as (provider, double):
        first = await provider.call(REQUEST)
        results: list[Message] = [
            ToolMessage(call_id="toolu_2", name="lookup", text="DENIED: no", is_error=True),
            UserMessage(text="Hurry."),
            ToolMessage(call_id="toolu_1", name="lookup", text=" "),
        ]
        second = await provider.call(turn_of([*REQUEST.messages, first.message, *results]))

    assert first.stop == "tools"
    assert [(one.id, one.name, one.arguments) for one in first.message.calls] == [
        ("toolu_1", "lookup", '{"amount":19.99,"note":"ü?","order_id":"17"}'),
        ("toolu_2", "lookup", "{}"),
    ]
    assert second.message.text == "Both shipped."
    sent = double.seen[1].body["messages"][1:]
    assert sent[0]["content"] == [
        text("Looking."),
        tool_use("toolu_1", "lookup", amount=19.99, note="ü?", order_id="17"),
        tool_use("toolu_2", "lookup"),
    ]
    denied = {"content": "DENIED: no", "is_error": True}
    assert sent[1]["content"] == [
        {"type": "tool_result", "tool_use_id": "toolu_2", **denied},
        {"type": "tool_result", "tool_use_id": "toolu_1"},
        {**text("Hurry."), **CACHED},
    ]


@pytest.mark.parametrize(
    "arguments", ['{"order_id": ', "[1]", '{"x": NaN}', "[" * 20_000, '"\\ud800"']
)
async def test_arguments_that_are_no_object_are_shown_to_the_model(arguments: str) -> None:
    """Another provider's model wrote them; this API takes objects only."""
    asked = AssistantMessage(calls=(ToolCall(id="c1", name="lookup", arguments=arguments),))
    result = ToolMessage(call_id="c1", name="lookup", text="malformed", is_error=True)
    async with calling(message(text("Sorry."))) as (provider, double):
        await provider.call(turn_of([*REQUEST.messages, asked, result]))

    block = double.seen[0].body["messages"][1]["content"][0]
    assert block["input"] == {"malformed_arguments": arguments}


async def test_blank_messages_are_left_out_and_neighbours_joined() -> None:
    messages: list[Message] = [
        UserMessage(text="One"),
        AssistantMessage(text=" "),
        UserMessage(text="Two"),
    ]
    async with calling(message(text("Hi"))) as (provider, double):
        await provider.call(turn_of(messages))

    assert double.seen[0].body["messages"] == [
        {"role": "user", "content": [text("One"), {**text("Two"), **CACHED}]}
    ]


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("end_turn", "end"),
        ("stop_sequence", "end"),
        ("pause_turn", "incomplete"),
        ("content_filter", "filtered"),
        ("of next year", "incomplete"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("refusal", "refusal"),
    ],
)
async def test_each_stop_reason(reason: str, expected: str) -> None:
    async with calling(message(text("Hi"), stop=reason)) as (provider, _):
        assert (await provider.call(REQUEST)).stop == expected


@pytest.mark.parametrize("reason", ["tool_use", "end_turn"])
async def test_calls_count_and_not_the_reason_beside_them(reason: str) -> None:
    """`tool_use` without a call is an answer, a call behind `end_turn` is a call."""
    async with calling(
        message(tool_use("c", "lookup"), stop=reason), message(text("Hi"), stop=reason)
    ) as (provider, _):
        asked, answered = [(await provider.call(REQUEST)).stop for _ in range(2)]

    assert (asked, answered) == ("tools", "end")


async def test_what_a_loop_sends_again_is_marked_for_the_cache() -> None:
    """The definition, and the ends of this call and the last: one turn can hold many blocks."""
    asked = AssistantMessage(calls=(ToolCall(id="c1", name="lookup", arguments="{}"),))
    told = ToolMessage(call_id="c1", name="lookup", text="shipped")
    again = AssistantMessage(calls=(ToolCall(id="c2", name="lookup", arguments="{}"),))
    also = ToolMessage(call_id="c2", name="lookup", text="delivered")
    messages: list[Message] = [*REQUEST.messages, asked, told, again, also]
    async with calling(message(text("Hi"))) as (provider, double):
        await provider.call(replace(turn_of(messages), instructions=""))

    body = double.seen[0].body
    marked = [
        (number, "cache_control" in turn["content"][-1])
        for number, turn in enumerate(body["messages"])
    ]
    assert marked == [(0, False), (1, False), (2, True), (3, False), (4, True)]
    assert body["tools"][-1]["cache_control"] == {"type": "ephemeral"}


async def test_a_single_question_is_not_written_to_the_cache() -> None:
    """Writing costs more than input, and nothing would read it."""
    async with calling(message(text("Hi"))) as (provider, double):
        await provider.call(replace(REQUEST, tools=()))

    assert "cache_control" not in str(double.seen[0].body)


async def test_a_call_cut_by_the_length_never_runs() -> None:
    answer = message(text("I will"), tool_use("toolu_1", "refund"), stop="max_tokens")
    async with calling(answer) as (provider, _):
        found = await provider.call(REQUEST)

    assert found.message == AssistantMessage(text="I will")
    assert found.stop == "length"


async def test_the_sdk_makes_no_spans_of_its_own() -> None:
    """Runward's telemetry tells of each call once; the SDK's would tell of it again."""
    asked: list[object] = []
    async with calling(message(text("Hi"))) as (provider, _):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("opentelemetry.trace.get_tracer", lambda *args, **_: asked.append(args))
            await provider.call(REQUEST)

    assert asked == []


async def test_cancellation_passes_through_and_the_provider_stays_usable() -> None:
    async with calling(Reply(hang=True), message(text("Hi"))) as (provider, double):
        task = asyncio.create_task(provider.call(REQUEST))
        await double.came_in.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        found = await provider.call(REQUEST)

    assert found.message.text == "Hi"


async def test_first_calls_at_once_share_one_client_and_close_allows_more() -> None:
    built: list[AsyncAnthropic] = []

    def build(**options: Any) -> AsyncAnthropic:
        built.append(AsyncAnthropic(**options))
        return built[-1]

    replies = [message(text("Hi"))] * 4
    async with calling(*replies) as (provider, double):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("anthropic.AsyncAnthropic", build)
            await asyncio.gather(*(provider.call(REQUEST) for _ in range(3)))
            await provider.close()
            await provider.call(REQUEST)

    assert len(double.seen) == 4
    assert [one.is_closed() for one in built] == [True, True]


class Cost(BaseModel):
    """What an order costs."""

    amount: Annotated[int, Field(ge=0)]
    note: str = ""


def asking(kind: Any) -> ModelRequest:
    return replace(REQUEST, output=OutputSpec("Cost", TypeAdapter(kind).json_schema()))


async def test_a_schema_that_fits_is_the_outputs_format() -> None:
    """Objects are closed, and bounds are said in words: the API knows nothing else."""
    async with calling(message(text('{"amount": 5}'))) as (provider, double):
        found = await provider.call(asking(Cost))

    assert found.message.text == '{"amount": 5}'
    body = double.seen[0].body
    assert body["system"] == [{"type": "text", "text": "Be brief.", **CACHED}]
    assert body["output_config"] == {
        "format": {
            "type": "json_schema",
            "schema": {
                "type": "object",
                "title": "Cost",
                "description": "What an order costs.",
                "additionalProperties": False,
                "properties": {
                    "amount": {
                        "title": "Amount",
                        "type": "integer",
                        "description": "{minimum: 0}",
                    },
                    "note": {"title": "Note", "type": "string"},
                },
                "required": ["amount"],
            },
        }
    }


async def test_a_schema_that_does_not_fit_is_told_in_words() -> None:
    """After the instructions, where it is cached with them."""
    async with calling(message(text('{"a": 1}'))) as (provider, double):
        await provider.call(asking(dict[str, int]))

    body = double.seen[0].body
    brief, told = body["system"]
    assert "output_config" not in body
    assert brief == {"type": "text", "text": "Be brief."}
    assert '{"additionalProperties":{"type":"integer"},"type":"object"}' in told["text"]
    assert told["cache_control"] == CACHED["cache_control"]


async def test_an_answer_that_is_no_object_travels_in_one() -> None:
    """Not a digit of what is in it changes."""
    async with calling(message(text('{"response": [1.10, 2]}'))) as (provider, double):
        found = await provider.call(asking(list[float]))

    assert found.message.text == "[1.10, 2]"
    schema = double.seen[0].body["output_config"]["format"]["schema"]
    assert schema["properties"] == {"response": {"type": "array", "items": {"type": "number"}}}
