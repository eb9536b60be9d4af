"""OpenAI's API as a provider, against a double that refuses what the API would refuse."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI
from pydantic import BaseModel, TypeAdapter

from runward.activities.provider_openai import OpenAIProvider
from runward.contracts.encoding import digest
from runward.contracts.providers import ModelRequest, OutputSpec, ToolSpec
from runward.contracts.transcript import (
    AssistantMessage,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from runward.contracts.usage import Usage
from runward.testing.provider_contract import REQUEST, SECRET, WORDS, error_of
from runward.testing.provider_double import Reply
from tests.openai_calls import calling
from tests.openai_double import (
    error,
    function_call,
    refused,
    response,
    said,
    text,
    used,
)


async def test_the_request_says_all_and_keeps_nothing_over_there() -> None:
    async with calling(response(said(text("Hi")))) as (provider, double):
        await provider.call(REQUEST)

    tool = REQUEST.tools[0]
    assert double.seen[0].body == {
        "model": "double",
        "max_output_tokens": 64_000,
        "instructions": "Be brief.",
        "input": [{"role": "user", "content": WORDS}],
        "store": False,
        "tools": [
            {
                "type": "function",
                "name": "lookup",
                "description": "Finds an order.",
                "parameters": tool.schema,
                "strict": False,
            }
        ],
    }
    assert double.seen[0].headers["idempotency-key"] == digest("case-ü/t1.model".encode())
    assert double.seen[0].headers["authorization"] == f"Bearer {SECRET}"


async def test_the_address_comes_from_the_sdks_own_variable() -> None:
    async with calling(response(said(text("Hi")))) as (_, double):
        provider = OpenAIProvider()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("OPENAI_BASE_URL", double.url)
            await provider.call(replace(REQUEST, instructions="", tools=()))
        await provider.close()

    assert double.seen[0].body.keys() == {"model", "max_output_tokens", "input", "store"}


async def test_the_counters_that_hold_each_other_become_disjoint() -> None:
    """Reasoning is output, and is counted there already."""
    usage = used(Usage(input=12, cache_read=100, cache_write=30, output=50), reasoning=45)
    async with calling(response(said(text("Hi")), usage=usage)) as (provider, _):
        found = (await provider.call(REQUEST)).usage

    assert (usage["input_tokens"], usage["output_tokens"]) == (142, 50)
    assert found == Usage(input=12, cache_read=100, cache_write=30, output=50)


@pytest.mark.parametrize("details", [None, {}, {"cached_tokens": None}])
async def test_absent_cache_counters_are_zero(details: Any) -> None:
    usage = {"input_tokens": 7, "output_tokens": 2, "input_tokens_details": details}
    async with calling(response(said(text("Hi")), usage=usage)) as (provider, _):
        assert (await provider.call(REQUEST)).usage == Usage(input=7, output=2)


async def test_more_from_the_cache_than_there_was_is_not_believed() -> None:
    usage = {**used(Usage(input=1)), "input_tokens_details": {"cached_tokens": 2}}
    async with calling(response(said(text("Hi")), usage=usage)) as (provider, _):
        assert not (await provider.call(REQUEST)).metered


async def test_calls_and_their_results_make_the_round_trip() -> None:
    """Without the API's own ids, which it takes only beside the reasoning that went before."""
    asked = response(
        said(text("Look"), text("ing.")),
        function_call("call_1", "lookup", '{"order_id":  "17"}'),
        function_call("call_2", "lookup", ""),
    )
    async with calling(asked, response(said(text("Both shipped.")))) as (provider, double):
        first = await provider.call(REQUEST)
        results = (
            ToolMessage(call_id="call_1", name="lookup", text=""),
            ToolMessage(call_id="call_2", name="lookup", text="DENIED: no", is_error=True),
            UserMessage(text="Hurry."),
        )
        messages = (*REQUEST.messages, first.message, *results)
        second = await provider.call(replace(REQUEST, messages=messages))

    assert second.message.text == "Both shipped."
    assert double.seen[1].body["input"] == [
        {"role": "user", "content": WORDS},
        {"role": "assistant", "content": "Looking."},
        {
            "type": "function_call",
            "call_id": "call_1",
            "name": "lookup",
            "arguments": '{"order_id":  "17"}',
        },
        {"type": "function_call", "call_id": "call_2", "name": "lookup", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "call_1", "output": ""},
        {"type": "function_call_output", "call_id": "call_2", "output": "DENIED: no"},
        {"role": "user", "content": "Hurry."},
    ]


async def test_arguments_that_are_no_object_are_shown_to_the_model() -> None:
    """OpenAI takes any text, what else speaks its API does not."""
    asked = AssistantMessage(calls=(ToolCall(id="c1", name="lookup", arguments='{"order'),))
    result = ToolMessage(call_id="c1", name="lookup", text="malformed", is_error=True)
    async with calling(response(said(text("Sorry.")))) as (provider, double):
        await provider.call(replace(REQUEST, messages=(*REQUEST.messages, asked, result)))

    sent = double.seen[0].body["input"][1]["arguments"]
    assert sent == '{"malformed_arguments":"{\\"order"}'


@pytest.mark.parametrize(
    ("output", "fields", "expected"),
    [
        ([said(text("Hi"))], {}, "end"),
        ([said(refused("No."))], {}, "refusal"),
        ([said(refused("No.")), function_call("c", "lookup", "{}")], {}, "refusal"),
        ([function_call("c", "lookup", "{}")], {}, "tools"),
        ([function_call("c", "lookup", "{}", status="incomplete")], {}, "incomplete"),
        ([said(text("Hi"), status="in_progress")], {}, "incomplete"),
        ([said(text("Hi"))], {"incomplete_details": {"reason": "max_output_tokens"}}, "length"),
        ([said(text("Hi"))], {"incomplete_details": {"reason": "content_filter"}}, "filtered"),
        ([said(text("Hi"))], {"incomplete_details": {"reason": "steered"}}, "incomplete"),
        ([said(text("Hi"))], {"incomplete_details": None, "status": "incomplete"}, "incomplete"),
        ([], {"status": "failed", "error": {"code": "bio_policy"}}, "filtered"),
    ],
)
async def test_each_way_to_stop(
    output: list[dict[str, Any]], fields: dict[str, Any], expected: str
) -> None:
    if fields.get("incomplete_details"):
        fields = {"status": "incomplete", **fields}
    async with calling(response(*output, **fields)) as (provider, _):
        found = await provider.call(REQUEST)

    assert found.stop == expected
    assert bool(found.message.calls) == (expected == "tools")
    assert found.usage == Usage(input=12, output=5)


@pytest.mark.parametrize(
    ("told", "shown", "retryable"),
    [
        ({"code": "server_error", "message": WORDS}, "openai failed server_error", True),
        ({"code": "rate_limit_exceeded"}, "openai failed rate_limit_exceeded", True),
        ({"code": "invalid_prompt"}, "openai failed invalid_prompt", False),
        ({"code": WORDS}, "openai failed", False),
        (None, "openai failed", False),
    ],
)
async def test_a_failed_response_may_have_been_billed(
    told: dict[str, Any] | None, shown: str, retryable: bool
) -> None:
    async with calling(response(status="failed", error=told)) as (provider, _):
        found = await error_of(provider)

    assert (str(found), found.retryable, found.unbilled) == (shown, retryable, False)


@pytest.mark.parametrize("status", ["queued", "in_progress", "cancelled"])
async def test_a_response_that_has_not_ended_is_none(status: str) -> None:
    async with calling(response(status=status)) as (provider, _):
        assert (await error_of(provider)).unreadable


@pytest.mark.parametrize(
    ("status", "kind", "code", "retryable", "unbilled"),
    [
        (400, "invalid_request_error", "context_length_exceeded", False, True),
        (401, "invalid_request_error", "invalid_api_key", False, True),
        (403, "invalid_request_error", "unsupported_country", False, True),
        (404, "invalid_request_error", "model_not_found", False, True),
        (408, "timeout_error", None, True, False),
        (409, "conflict_error", None, True, True),
        (429, "tokens", "rate_limit_exceeded", True, True),
        (429, "insufficient_quota", "insufficient_quota", True, True),
        (500, "server_error", None, True, True),
        (503, "server_error", "slow_down", True, True),
        (504, "server_error", None, True, False),
    ],
)
async def test_each_error_status(
    status: int, kind: str, code: str | None, retryable: bool, unbilled: bool
) -> None:
    reply = Reply(error(kind, code, WORDS + SECRET), status, {"x-request-id": "req_7"})
    async with calling(reply) as (provider, double):
        found = await error_of(provider)

    words = " ".join(dict.fromkeys(one for one in (kind, code) if one))
    assert str(found) == f"openai answered {status} {words} req_7"
    assert (found.retryable, found.unbilled, len(double.seen)) == (retryable, unbilled, 1)


@pytest.mark.parametrize(
    "body", [b"<html>", [], {"error": "down"}, {"error": {"message": "down"}}, {"detail": "down"}]
)
async def test_a_5xx_proves_no_bill_only_in_the_apis_own_words(body: Any) -> None:
    async with calling(Reply(body, 502, {"x-request-id": SECRET})) as (provider, _):
        found = await error_of(provider)

    assert (str(found), found.unbilled) == ("openai answered 502", False)


async def test_a_filter_in_front_of_the_model_says_so() -> None:
    """Azure's is billed, also where it answers 400."""
    async with calling(Reply(error("None", "content_filter"), 400)) as (provider, _):
        found = await error_of(provider)

    assert str(found) == "content filtered: openai answered 400"
    assert (found.retryable, found.unbilled) == (False, False)


async def test_a_read_timeout_may_have_been_billed() -> None:
    async with calling(Reply(hang=True), timeout_s=0.05) as (provider, _):
        async with asyncio.timeout(2):
            found = await error_of(provider)

    assert str(found) == "openai was not reached or did not answer (ReadTimeout)"
    assert (found.retryable, found.unbilled) == (True, False)


async def test_a_missing_key_says_what_to_set(tmp_path: Path) -> None:
    async with calling(environment={"HOME": str(tmp_path)}) as (provider, double):
        found = await error_of(provider)

    assert "Set OPENAI_API_KEY" in str(found)
    assert found.elsewhere
    assert (found.retryable, found.unbilled, double.seen) == (False, True, [])


@pytest.mark.parametrize("url", ["http://127.0.0.1:port", "ftp://127.0.0.1"])
async def test_an_address_that_is_none_is_final(url: str) -> None:
    async with calling(base_url=url) as (provider, _):
        found = await error_of(provider)

    assert (found.retryable, found.unbilled) == (False, True)


async def test_what_the_sdk_cannot_encode_is_final_and_not_shown() -> None:
    """Python's own encoding error would carry the text."""
    request = replace(REQUEST, tools=(ToolSpec("lookup", WORDS + "\ud800", {}),))
    async with calling() as (provider, double):
        found = await error_of(provider, request)

    assert "(UnicodeEncodeError)" in str(found)
    assert (found.retryable, found.unbilled, double.seen) == (False, False, [])


async def test_first_calls_at_once_share_one_client_and_close_allows_more() -> None:
    built: list[AsyncOpenAI] = []

    def build(**options: Any) -> AsyncOpenAI:
        built.append(AsyncOpenAI(**options))
        return built[-1]

    async with calling(*[response(said(text("Hi")))] * 4) as (provider, double):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("openai.AsyncOpenAI", build)
            await asyncio.gather(*(provider.call(REQUEST) for _ in range(3)))
            await provider.close()
            await provider.call(REQUEST)

    assert len(double.seen) == 4
    assert [one.is_closed() for one in built] == [True, True]
    assert [one.max_retries for one in built] == [0, 0]


async def test_the_sdk_makes_no_spans_of_its_own() -> None:
    """Runward's telemetry tells of each call once."""
    asked: list[object] = []
    async with calling(response(said(text("Hi")))) as (provider, _):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("opentelemetry.trace.get_tracer", lambda *args, **_: asked.append(args))
            await provider.call(REQUEST)

    assert asked == []


class Cost(BaseModel):
    """What an order costs."""

    amount: int
    note: str | None = None


def asking(kind: Any) -> ModelRequest:
    return replace(REQUEST, output=OutputSpec("Cost", TypeAdapter(kind).json_schema()))


async def test_a_schema_that_fits_is_strict() -> None:
    """Objects are closed, and what may be null is required: `strict` knows nothing else."""
    answer = '{"amount": 5, "note": null}'
    async with calling(response(said(text(answer)))) as (provider, double):
        found = await provider.call(asking(Cost))

    assert found.message.text == answer
    assert double.seen[0].body["text"] == {
        "format": {
            "type": "json_schema",
            "name": "Cost",
            "strict": True,
            "schema": {
                "type": "object",
                "title": "Cost",
                "description": "What an order costs.",
                "additionalProperties": False,
                "properties": {
                    "amount": {"title": "Amount", "type": "integer"},
                    "note": {"title": "Note", "anyOf": [{"type": "string"}, {"type": "null"}]},
                },
                "required": ["amount", "note"],
            },
        }
    }


async def test_a_schema_that_does_not_fit_is_sent_as_it_is() -> None:
    async with calling(response(said(text('{"a": 1}')))) as (provider, double):
        await provider.call(asking(dict[str, int]))

    form = double.seen[0].body["text"]["format"]
    assert form["strict"] is False
    assert form["schema"] == TypeAdapter(dict[str, int]).json_schema()


async def test_an_answer_that_is_no_object_travels_in_one() -> None:
    """The API takes objects only at the root; not a digit of what is in it changes."""
    async with calling(response(said(text('{"response": [1.10, 2]}')))) as (provider, double):
        found = await provider.call(asking(list[float]))

    assert found.message.text == "[1.10, 2]"
    schema = double.seen[0].body["text"]["format"]["schema"]
    assert schema["properties"] == {"response": {"type": "array", "items": {"type": "number"}}}
