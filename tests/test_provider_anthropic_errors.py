"""What each way of Anthropic's API to fail means: retried or not, billed or surely not."""

from __future__ import annotations

import json
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runward.activities.retry_after import RETRY_AFTER_MAX_S
from runward.contracts.providers import ToolSpec
from tests.anthropic_calls import REQUEST, SCHEMA, SECRET, WORDS, calling, error_of
from tests.anthropic_double import Reply, error, message, text


@pytest.mark.parametrize(
    ("status", "kind", "retryable", "unbilled"),
    [
        (400, "invalid_request_error", False, True),
        (401, "authentication_error", False, True),
        (402, "billing_error", False, True),
        (403, "permission_error", False, True),
        (404, "not_found_error", False, True),
        (408, "timeout_error", True, False),
        (409, "conflict_error", True, True),
        (413, "request_too_large", False, True),
        (422, "invalid_request_error", False, True),
        (429, "rate_limit_error", True, True),
        (500, "api_error", True, True),
        (503, "api_error", True, True),
        (504, "timeout_error", True, False),
        (529, "overloaded_error", True, True),
    ],
)
async def test_each_error_status(status: int, kind: str, retryable: bool, unbilled: bool) -> None:
    reply = Reply(error(kind, WORDS + SECRET), status, {"request-id": "req_7", "retry-after": "3"})
    async with calling(reply) as (provider, double):
        found = await error_of(provider)

    assert str(found) == f"anthropic answered {status} {kind} req_7"
    assert (found.retryable, found.unbilled) == (retryable, unbilled)
    assert found.retry_after_s == (3.0 if retryable else None)
    # Another model may have the key, the money, the right or the model that is missing here.
    assert found.elsewhere == (retryable or status in (401, 402, 403, 404))
    assert len(double.seen) == 1


@pytest.mark.parametrize(
    ("body", "unbilled"),
    [
        (b"<html>Bad gateway</html>", False),
        ({"error": {"type": WORDS}}, False),
        ([], False),
        ({**error("api_error"), "usage": {"input_tokens": 1}}, False),
        (error(WORDS), True),
    ],
)
async def test_a_5xx_proves_no_bill_only_in_the_apis_own_words(body: Any, unbilled: bool) -> None:
    """A gateway that lost its upstream answers 502 as well, and the model may have run."""
    async with calling(Reply(body, 502, {"request-id": SECRET})) as (provider, _):
        found = await error_of(provider)

    assert str(found).startswith("anthropic answered 502")
    assert (found.retryable, found.unbilled) == (True, unbilled)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Retry-After": "30"}, 30.0),
        ({"Retry-After-Ms": "1500", "Retry-After": "30"}, 1.5),
        (
            {
                "Retry-After": "Thu, 01 Jan 2026 12:00:42 GMT",
                "Date": "Thu, 01 Jan 2026 12:00:00 GMT",
            },
            42.0,
        ),
        ({"Retry-After": "86400"}, RETRY_AFTER_MAX_S),
        ({"Retry-After": "-5"}, None),
        ({"Retry-After": "nan"}, None),
        ({}, None),
    ],
)
async def test_retry_after_reaches_the_error(
    headers: dict[str, str], expected: float | None
) -> None:
    async with calling(Reply(error("rate_limit_error"), 429, headers)) as (provider, _):
        assert (await error_of(provider)).retry_after_s == expected


async def test_a_read_timeout_may_have_been_billed() -> None:
    async with calling(Reply(hang=True), timeout_s=0.05) as (provider, double):
        found = await error_of(provider)

    assert str(found) == "anthropic was not reached or did not answer (ReadTimeout)"
    assert (found.retryable, found.unbilled) == (True, False)
    assert len(double.seen) == 1


async def test_a_cut_connection_may_have_been_billed() -> None:
    async with calling(Reply(message(text("Hi")), cut=True)) as (provider, _):
        found = await error_of(provider)

    assert "RemoteProtocolError" in str(found)
    assert (found.retryable, found.unbilled) == (True, False)


async def test_a_refused_connection_was_not_billed() -> None:
    with socket.socket() as bound:  # but not listening
        bound.bind(("127.0.0.1", 0))
        url = "http://{}:{}".format(*bound.getsockname())
        async with calling(base_url=url) as (provider, _):
            found = await error_of(provider)

    assert str(found) == "anthropic was not reached or did not answer (ConnectError)"
    assert (found.retryable, found.unbilled) == (True, True)


USAGE = {"input_tokens": 1, "output_tokens": 2}


@pytest.mark.parametrize(
    "body",
    [
        b'{"type": "message", "content": [{"text": "the words of the user"',
        b"the words of the user",
        b"",
        b"[" * 20_000,
        json.dumps("the words of the user").encode(),
        error("api_error"),
        {**message(text("Hi")), "type": "error"},
        message({"type": "text"}),
        message({"type": "tool_use", "id": "c", "name": "n", "input": "{}"}),
        message({"type": "tool_use", "id": 1, "name": "n", "input": {}}),
        b'{"type":"message","stop_reason":"tool_use","usage":{"input_tokens":1,"output_tokens":1},'
        b'"content":[{"type":"tool_use","id":"c","name":"n","input":{"x":1e999}}]}',
    ],
)
async def test_a_malformed_answer_is_asked_for_again_and_counts_as_billed(body: Any) -> None:
    async with calling(Reply(body)) as (provider, _):
        found = await error_of(provider)

    assert str(found).startswith("anthropic sent no answer: ")
    assert (found.retryable, found.unbilled) == (True, False)


@pytest.mark.parametrize(
    "usage",
    [{"input_tokens": 1}, {**USAGE, "output_tokens": -2}, {**USAGE, "output_tokens": True}],
)
async def test_a_usage_that_is_none_does_not_cost_the_answer(usage: dict[str, Any]) -> None:
    async with calling(message(text("Hi"), usage=usage)) as (provider, _):
        found = await provider.call(REQUEST)

    assert (found.message.text, found.metered) == ("Hi", False)


async def test_a_filter_behind_the_model_says_so() -> None:
    """The API gives it no type of its own; its tokens may have been billed."""
    words = "Output blocked by content filtering policy"
    async with calling(Reply(error("invalid_request_error", words), 400)) as (provider, _):
        found = await error_of(provider)

    assert str(found) == "content filtered: anthropic answered 400"
    assert (found.retryable, found.unbilled) == (False, False)


@pytest.mark.parametrize(
    ("status", "says", "retryable"),
    [(429, "false", False), (400, "true", True), (429, "maybe", True)],
)
async def test_the_api_may_say_itself_what_is_tried_again(
    status: int, says: str, retryable: bool
) -> None:
    reply = Reply(error("api_error"), status, {"x-should-retry": says})
    async with calling(reply) as (provider, _):
        found = await error_of(provider)

    assert found.retryable == retryable
    assert found.elsewhere == (status != 400)  # it says so of this model only


async def test_a_missing_key_says_what_to_set(tmp_path: Path) -> None:
    async with calling(environment={"HOME": str(tmp_path)}) as (provider, double):
        found = await error_of(provider)

    assert "Set ANTHROPIC_API_KEY" in str(found)
    assert (found.retryable, found.unbilled, double.seen) == (False, True, [])
    assert found.elsewhere


async def test_credentials_that_are_not_there_yet_are_waited_for(tmp_path: Path) -> None:
    environment = {"ANTHROPIC_CONFIG_DIR": str(tmp_path)}
    async with calling(message(text("Hi")), environment=environment) as (provider, _):
        found = await error_of(provider)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("ANTHROPIC_API_KEY", SECRET)
            await provider.call(REQUEST)

    assert str(found) == "anthropic got no credentials (CredentialsError)"
    assert (found.retryable, found.unbilled) == (True, True)


@pytest.mark.parametrize("url", ["http://127.0.0.1:port", "ftp://127.0.0.1"])
async def test_an_address_that_is_none_is_final(url: str) -> None:
    async with calling(base_url=url) as (provider, _):
        found = await error_of(provider)

    assert (found.retryable, found.unbilled) == (False, True)


async def test_what_the_sdk_cannot_encode_is_final_and_not_shown() -> None:
    """Python's own encoding error would carry the text."""
    request = replace(REQUEST, tools=(ToolSpec("lookup", WORDS + "\ud800", SCHEMA),))
    async with calling() as (provider, double):
        found = await error_of(provider, request)

    assert "(UnicodeEncodeError)" in str(found)
    assert (found.retryable, found.unbilled, double.seen) == (False, False, [])
