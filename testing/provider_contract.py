"""What every model provider must do, as tests that a provider's author runs on theirs.

Subclass `HttpProviderContract`, name the class `Test...`, and say how your API writes an answer and
an error; docs/providers.md has an example. A provider without HTTP takes `ProviderContract`. An
answer is judged as the model's step takes it: after `received`.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import Any, ClassVar
from uuid import uuid4

import pytest

from runward.activities.provider_answers import COUNTER_MAX, received
from runward.activities.providers import Closable
from runward.activities.retry_after import RETRY_AFTER_MAX_S
from runward.contracts.agents import MAX_CALLS_PER_TURN_DEFAULT
from runward.contracts.providers import (
    NO_ANSWER,
    ModelError,
    ModelResponse,
    OutputSpec,
    Provider,
    Stop,
)
from runward.contracts.transcript import (
    AssistantMessage,
    Message,
    Reasoning,
    ToolCall,
    ToolMessage,
    UserMessage,
    decode_message,
    encode_message,
)
from runward.contracts.usage import Usage
from runward.testing.provider_double import Check, Double, Refusal, Reply, accept, refuse_plainly
from runward.testing.provider_double import serving as serving_double
from runward.testing.provider_nonsense import changed, leaves
from runward.testing.provider_plays import (
    REQUEST,
    SECRET,
    WORDS,
    Answer,
    Cutting,
    Failing,
    Hanging,
    Play,
    call,
    error_of,
)

__all__ = [
    "REQUEST",
    "SECRET",
    "WORDS",
    "Answer",
    "Cutting",
    "Double",
    "Failing",
    "Hanging",
    "HttpProviderContract",
    "Play",
    "ProviderContract",
    "Reply",
    "call",
    "error_of",
]


class ProviderContract:
    """What holds for every provider, whatever it speaks."""

    pytestmark: ClassVar[Any] = pytest.mark.asyncio

    # The stops that the API can say; the others cannot be tested.
    stops: ClassVar[tuple[Stop, ...]] = ("end", "tools", "length", "refusal")
    # What the API can count apart; the counters of ours are disjoint, output holds the reasoning.
    usage: ClassVar[Usage] = Usage(input=12, cache_read=100, cache_write=30, output=5)
    # Whether a call's arguments come back as text exactly as the model wrote them.
    writes_text: ClassVar[bool] = True

    def playing(self, *plays: Play) -> AbstractAsyncContextManager[Provider]:
        """Returns a provider whose model plays this, one after the other, one for each call."""
        raise NotImplementedError

    async def until_asked(self) -> None:
        """Waits until the model that is played has been asked."""
        await asyncio.sleep(0)

    async def test_it_has_a_name(self) -> None:
        """It stands before the colon in an agent's `model`."""
        async with self.playing() as provider:
            assert re.fullmatch(r"[a-z][a-z0-9_-]{0,63}", provider.name)

    async def test_text_comes_back_with_its_usage(self) -> None:
        """No token is counted twice, none is lost."""
        async with self.playing(Answer("Hello, Ada.", usage=self.usage)) as provider:
            found = await self.ask(provider)

        assert replace(found, reasoning="") == ModelResponse(
            AssistantMessage(text="Hello, Ada."), self.usage, "end"
        )

    async def test_parallel_calls_come_back_in_order(self) -> None:
        """Each with arguments of its own."""
        wanted = (
            call(order_id="17", amount=19.99),
            call("refund", call_id="call_2", note="ü\n"),
            call(call_id="call_3"),
        )
        played = Answer("Looking.", wanted, "tools")
        async with self.playing(played) as provider:
            found = await self.ask(provider)

        assert (found.message.text, found.stop) == ("Looking.", "tools")
        assert [one.name for one in found.message.calls] == ["lookup", "refund", "lookup"]
        assert len({one.id for one in found.message.calls}) == 3
        given = [json.loads(one.arguments or "{}") for one in found.message.calls]
        assert given == [json.loads(one.arguments) for one in wanted]

    async def test_arguments_stay_as_the_model_wrote_them(self) -> None:
        """What is judged, approved and run is this text; also where it is no JSON."""
        texts = ['{"b": 1,  "a": 2}', '{"order_id": ', "[1]", ""] if self.writes_text else ["{}"]
        calls = tuple(ToolCall(id=f"c{i}", name="lookup", arguments=t) for i, t in enumerate(texts))
        async with self.playing(Answer(calls=calls, stop="tools")) as provider:
            found = await self.ask(provider)

        assert [one.arguments for one in found.message.calls] == texts

    async def test_a_number_beyond_64_bits_is_not_lost(self) -> None:
        """It comes back as it is, or rounded by nobody."""
        played = Answer(calls=(call(number=2**70),), stop="tools")
        async with self.playing(played) as provider:
            found = await self.ask(provider)

        assert json.loads(found.message.calls[0].arguments) == {"number": 2**70}

    async def test_every_conversation_can_be_sent(self) -> None:
        """Also one that another provider's model has had, with all that can be wrong in it."""
        texts = ('{"order_id": "17"}', '{"order_id": ', "[1]", '{"x": NaN}', '"\\ud800"', "")
        calls = tuple(ToolCall(id=f"c{i}", name="lookup", arguments=t) for i, t in enumerate(texts))
        results = [
            ToolMessage(call_id=one.id, name=one.name, text=" " * (i % 2), is_error=i == 2)
            for i, one in enumerate(calls)
        ]
        reasoning = Reasoning(provider="anybody", data='{"of": 17}')
        messages: tuple[Message, ...] = (
            UserMessage(text="One"),
            AssistantMessage(text=" "),
            UserMessage(text="Two"),
            # Such as another release of the provider wrote it.
            AssistantMessage(text="Looking.", calls=calls, reasoning=reasoning),
            *results[1:],
            UserMessage(text="Hurry."),
            results[0],
        )
        async with self.playing(Answer("Hi")) as provider:
            found = await self.ask(provider, messages=messages)

        assert found.message.text == "Hi"

    async def test_no_instructions_and_no_tools_are_no_obstacle(self) -> None:
        """An API may refuse an empty list or text."""
        async with self.playing(Answer("Hi")) as provider:
            found = await self.ask(provider, instructions="", tools=())

        assert found.message.text == "Hi"

    async def test_an_answer_to_any_schema_comes_back_as_it_is(self) -> None:
        """However an API is told of it. Whether the answer fits is not judged here."""
        schemas: tuple[dict[str, Any], ...] = (
            {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
            {"type": "object", "additionalProperties": {"type": "integer"}},
            {"type": "array", "items": {"type": "string", "minLength": 1}},
            {"$defs": {"x": {"type": "object", "properties": {"x": {"$ref": "#/$defs/x"}}}},
             "$ref": "#/$defs/x"},
            {"anyOf": [{"type": "integer"}, {"type": "null"}]},
            {},
        )  # fmt: skip
        text = '{"a": 1.10}'
        for schema in schemas:
            for tools in (REQUEST.tools, ()):
                async with self.playing(Answer(text)) as provider:
                    output = OutputSpec("answer", schema)
                    found = await self.ask(provider, output=output, tools=tools)

                assert (found.message.text, found.stop) == (text, "end")

    async def test_each_stop_is_told_apart_and_half_a_call_never_runs(self) -> None:
        """A refused, filtered or cut answer must not look like a normal one."""
        for stop in self.stops:
            calls = () if stop == "end" else (call(),)
            async with self.playing(Answer("So far", calls, stop)) as provider:
                found = await self.ask(provider)

            assert found.stop == stop
            assert bool(found.message.calls) == (stop == "tools")
            assert stop in NO_ANSWER or found.message.text == "So far"
            assert found.metered
            assert found.usage == Usage(input=12, output=5)

    async def test_an_empty_answer_is_one(self) -> None:
        """It is what the model said, and it is billed."""
        async with self.playing(Answer("")) as provider:
            found = await self.ask(provider)

        assert (found.message, found.stop) == (AssistantMessage(), "end")

    async def test_ten_megabytes_of_text_arrive(self) -> None:
        """In one piece."""
        async with self.playing(Answer("ü" * 5_000_000)) as provider:
            found = await self.ask(provider)

        assert found.message.text == "ü" * 5_000_000

    async def test_what_no_database_can_hold_is_made_storable(self) -> None:
        """NUL and lone surrogates, in text, names and arguments."""
        bad = "a\x00b\ud800c"
        calls = (call(bad, note=bad), call("", call_id=""), call("x" * 500, call_id=bad))
        async with self.playing(Answer(bad, calls, "tools")) as provider:
            found = await self.ask(provider)

        assert found.message == decode_message(encode_message(found.message))
        assert found.message.text == "a\ufffdb?c"
        assert not any(one.name in ("", "lookup") for one in found.message.calls)

    async def test_hundreds_of_calls_are_bounded_and_told_apart(self) -> None:
        """The model is told of those that did not run, also where it gave them one id."""
        calls = tuple(call(order_id=str(index)) for index in range(200))
        async with self.playing(Answer("All!", calls, "tools")) as provider:
            found = await self.ask(provider)

        assert len({one.id for one in found.message.calls}) == MAX_CALLS_PER_TURN_DEFAULT
        assert [json.loads(one.arguments)["order_id"] for one in found.message.calls] == [
            str(index) for index in range(MAX_CALLS_PER_TURN_DEFAULT)
        ]
        assert (
            f"{200 - MAX_CALLS_PER_TURN_DEFAULT} of these 200 tool calls were refused"
            in found.message.text
        )

    async def test_an_absurd_usage_breaks_nothing(self) -> None:
        """More than any model has is bounded; less than nothing is not believed."""
        absurd = (Usage(input=1, output=10**30), Usage(input=-1, output=5))
        async with self.playing(*(Answer("Hi", usage=one) for one in absurd)) as provider:
            much, negative = [await self.ask(provider) for _ in absurd]

        assert (much.usage, much.metered) == (Usage(input=1, output=COUNTER_MAX), True)
        assert (negative.message.text, negative.metered) == ("Hi", False)

    async def test_each_status_is_tried_again_or_not(self) -> None:
        """Busy, broken or overloaded passes; wrong stays wrong."""
        statuses = {400: False, 401: False, 403: False, 404: False, 413: False, 422: False} | {
            409: True, 429: True, 500: True, 503: True
        }  # fmt: skip
        async with self.playing(*map(Failing, statuses)) as provider:
            found = {status: await error_of(provider) for status in statuses}

        assert {status: one.retryable for status, one in found.items()} == statuses
        assert all(one.unbilled for one in found.values())
        assert all(str(status) in str(one) for status, one in found.items())

    async def test_a_wish_to_wait_is_handed_on(self) -> None:
        """Only where waiting can help."""
        async with self.playing(Failing(429, 30.0), Failing(400, 30.0)) as provider:
            busy, wrong = await error_of(provider), await error_of(provider)

        assert (busy.retry_after_s, wrong.retry_after_s) == (30.0, None)

    async def test_a_cut_connection_may_have_been_billed(self) -> None:
        """So its hold is not given back."""
        async with self.playing(Cutting()) as provider:
            found = await error_of(provider)

        assert (found.retryable, found.unbilled) == (True, False)

    async def test_cancellation_passes_through_and_the_provider_stays_usable(self) -> None:
        """An activity is cancelled with its run."""
        async with self.playing(Hanging(), Answer("Hi")) as provider:
            task = asyncio.create_task(self.ask(provider))
            await self.until_asked()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            found = await self.ask(provider)

        assert found.message.text == "Hi"

    async def test_calls_at_once_do_not_disturb_each_other(self) -> None:
        """One provider serves all runs of a worker."""
        async with self.playing(*(Answer(str(n)) for n in range(20))) as provider:
            found = await asyncio.gather(*(self.ask(provider) for _ in range(20)))

        assert sorted(int(one.message.text) for one in found) == list(range(20))

    async def ask(self, provider: Provider, **changes: Any) -> ModelResponse:
        """Returns the answer to a request, as the model's step takes it."""
        request = replace(REQUEST, **{"idempotency_key": uuid4().hex, **changes})
        return received(await provider.call(request), request)


class HttpProviderContract(ProviderContract):
    """What holds for every provider that speaks HTTP, besides: nonsense on the wire."""

    environment: ClassVar[Mapping[str, str]] = {}  # such as the key: give it SECRET
    usage_field: ClassVar[str] = "usage"  # of an answer's body
    _double: Double  # of the test that runs

    def provider(self, base_url: str) -> Provider:
        """Returns the provider, which calls this address."""
        raise NotImplementedError

    def answer(self, answer: Answer) -> Reply:
        """Returns what the API sends for an answer."""
        raise NotImplementedError

    def error(self, status: int) -> Reply:
        """Returns what the API sends for an error, with WORDS in the place of its message."""
        raise NotImplementedError

    def check(self) -> Check:
        """Returns what the API would refuse in a request; by default nothing."""
        return accept

    def refusal(self) -> Refusal:
        """Returns how the API writes such a refusal."""
        return refuse_plainly

    @asynccontextmanager
    async def playing(self, *plays: Play) -> AsyncIterator[Provider]:
        """Serves what is played over HTTP."""
        async with self.serving(*map(self._reply, plays)) as (provider, _):
            yield provider

    @asynccontextmanager
    async def serving(self, *replies: Reply) -> AsyncIterator[tuple[Provider, Double]]:
        """Serves these replies to the provider, in an environment without a proxy."""
        with pytest.MonkeyPatch.context() as patch:
            for name, value in {"NO_PROXY": "127.0.0.1", **self.environment}.items():
                patch.setenv(name, value)
            async with serving_double(self.check(), self.refusal()) as double:
                double.plays(*replies)
                self._double = double
                async with _closing(self.provider(double.url)) as provider:
                    yield provider, double
                assert double.refused == []

    async def until_asked(self) -> None:
        """Waits until a request has come in."""
        await self._double.came_in.wait()

    def _reply(self, play: Play) -> Reply:
        match play:
            case Answer():
                return self.answer(play)
            case Failing(status=status, retry_after_s=wait):
                headers = {} if wait is None else {"retry-after": f"{wait:g}"}
                reply = self.error(status)
                return replace(reply, headers={**reply.headers, **headers})
            case Cutting():
                return replace(self.answer(Answer("Hi")), cut=True)
            case Hanging():
                return Reply(hang=True)

    async def test_nonsense_in_the_place_of_an_answer(self) -> None:
        """It is paid for, so it is asked for again, but not for ever."""
        good = json.dumps(self.answer(Answer(WORDS, (call(),), "tools")).body).encode()
        bodies = (
            b"", b"<html>Bad gateway</html>", b"null", b"[]", b"{}", b"17", b'"text"',
            b"[" * 20_000, WORDS.encode(), good[:-20], b"\xff" + good,
            good.replace(WORDS.encode(), b"\xff\xfe\xc3"),
        )  # fmt: skip
        async with self.serving(*map(Reply, bodies)) as (provider, _):
            found = [await error_of(provider) for _ in bodies]

        assert [(one.retryable, one.unbilled, one.unreadable) for one in found] == [
            (True, False, True)
        ] * len(bodies)

    async def test_wrong_types_and_missing_fields_break_nothing(self) -> None:
        """Whatever is changed in an answer: it can be read and recorded, or it is a ModelError."""
        good = self.answer(Answer("Hi", (call(order_id="17"),), "tools", self.usage)).body
        replies = [Reply(one) for one in changed(good)]
        assert len(replies) > 50
        async with self.serving(*replies) as (provider, double):
            for _ in replies:
                try:
                    found = await self.ask(provider)
                except ModelError as error:
                    assert not error.unbilled
                else:
                    assert found.message == decode_message(encode_message(found.message))

        assert double.replies == []

    async def test_a_missing_usage_costs_no_answer(self) -> None:
        """It is charged at the call's bound, as nobody knows better."""
        good = self.answer(Answer("Hi")).body
        nothing: tuple[Any, ...] = (None, {}, [], "12", 12)
        replies = [Reply({**good, self.usage_field: one}) for one in nothing]
        async with self.serving(*replies) as (provider, _):
            found = [await self.ask(provider) for _ in replies]

        assert [(one.message.text, one.metered) for one in found] == [("Hi", False)] * len(replies)

    @pytest.mark.parametrize(
        ("headers", "expected"),
        [
            ({"Retry-After": "30"}, 30.0),
            ({"Retry-After": "1.5"}, 1.5),
            ({"Retry-After-Ms": "1500"}, 1.5),
            ({"Retry-After-Ms": "1500", "Retry-After": "30"}, 1.5),
            (
                {
                    "Retry-After": "Thu, 01 Jan 2026 12:00:42 GMT",
                    "Date": "Thu, 01 Jan 2026 12:00:00 GMT",
                },
                42.0,
            ),
            ({"Retry-After": "-5"}, None),
            ({"Retry-After": "86400"}, RETRY_AFTER_MAX_S),
            ({"Retry-After": "inf"}, None),
            ({"Retry-After": "nan"}, None),
            ({"Retry-After": "soon"}, None),
            ({}, None),
        ],
    )
    @pytest.mark.parametrize("status", [429, 503, 400])
    async def test_each_form_of_retry_after(
        self, headers: dict[str, str], expected: float | None, status: int
    ) -> None:
        """Every form that was seen in the wild; on a 400 waiting does not help."""
        async with self.serving(replace(self.error(status), headers=headers)) as (provider, _):
            found = await error_of(provider)

        assert found.retryable == (status != 400)
        assert found.retry_after_s == (expected if status != 400 else None)

    async def test_nothing_is_tried_again_inside(self) -> None:
        """A hidden retry is a call without a hold."""
        async with self.serving(self.error(500), self.error(429)) as (provider, double):
            await error_of(provider)
            assert len(double.seen) == 1
            await error_of(provider)

        assert len(double.seen) == 2

    async def test_a_gateways_error_page_proves_nothing(self) -> None:
        """The model behind it may have run."""
        page = Reply(b"<html>Bad gateway</html>", 502, {"content-type": "text/html"})
        async with self.serving(page) as (provider, _):
            found = await error_of(provider)

        assert (found.retryable, found.unbilled) == (True, False)

    async def test_a_refused_connection_was_not_billed(self) -> None:
        """Nothing was sent."""
        with socket.socket() as bound:  # but not listening
            bound.bind(("127.0.0.1", 0))
            with pytest.MonkeyPatch.context() as patch:
                for name, value in {"NO_PROXY": "127.0.0.1", **self.environment}.items():
                    patch.setenv(name, value)
                url = "http://{}:{}".format(*bound.getsockname())
                async with _closing(self.provider(url)) as provider:
                    found = await error_of(provider)

        assert (found.retryable, found.unbilled) == (True, True)

    async def test_the_bound_is_always_sent(self) -> None:
        """It is what the hold is for."""
        async with self.serving(self.answer(Answer("Hi"))) as (provider, double):
            await self.ask(provider, max_output_tokens=4321)

        assert 4321 in leaves(double.seen[0].body)


@asynccontextmanager
async def _closing(provider: Provider) -> AsyncIterator[Provider]:
    try:
        yield provider
    finally:
        if isinstance(provider, Closable):
            await provider.close()
