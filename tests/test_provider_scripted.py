"""Scripts: the same turn for the same conversation, faults by attempt, and exact bills."""

from __future__ import annotations

import asyncio
import json

import pytest

from runward.activities.provider_scripted import Script, ScriptedProvider, Turn, measure
from runward.activities.scripted_ledger import Bill, Ledger, MemoryLedger, billed
from runward.contracts.providers import ModelError, ModelRequest, Provider
from runward.contracts.transcript import AssistantMessage, Message, ToolMessage, UserMessage
from runward.contracts.usage import Usage
from runward.testing.scripts import (
    Call,
    Cut,
    Fail,
    Hang,
    Slow,
    ask,
    ask_all,
    ask_badly,
    bill_as,
    failing,
    say,
)

HELLO = UserMessage(text="Hello")


def request(*messages: Message, key: str = "k1", script: str = "s", cap: int = 100) -> ModelRequest:
    return ModelRequest(
        model=script,
        instructions="Be brief.",
        messages=messages or (HELLO,),
        tools=(),
        max_output_tokens=cap,
        idempotency_key=key,
    )


def playing(*turns: Turn, ledger: Ledger | None = None) -> ScriptedProvider:
    return ScriptedProvider({"s": Script(turns)}, ledger=ledger)


async def error_of(provider: Provider, asked: ModelRequest) -> ModelError:
    with pytest.raises(ModelError) as caught:
        await provider.call(asked)
    return caught.value


async def test_the_conversation_decides_which_turn_plays() -> None:
    """Two workers that never met answer alike, and a retry gets what the first attempt got."""
    turns = (ask("lookup", order_id="17"), say("Done."))
    asked = await playing(*turns).call(request())
    result = ToolMessage(call_id=asked.message.calls[0].id, name="lookup", text="shipped")
    second = request(HELLO, asked.message, result)

    answers = [await playing(*turns).call(second) for _ in range(2)]

    assert asked.stop == "tools"
    assert [(one.message.text, one.stop) for one in answers] == [("Done.", "end")] * 2


async def test_parallel_calls_have_ids_of_their_own_in_every_turn() -> None:
    turn = ask_all(Call("a", {"y": 1, "x": "ü"}), Call("b"))
    provider = playing(turn, turn)

    first = await provider.call(request())
    second = await provider.call(request(HELLO, first.message))

    calls = first.message.calls + second.message.calls
    assert len({one.id for one in calls}) == 4
    assert calls[0].arguments == '{"x":"ü","y":1}'
    assert calls[1].arguments == "{}"


async def test_malformed_arguments_arrive_as_written() -> None:
    answer = await playing(ask_badly("refund")).call(request())

    assert answer.message.calls[0].arguments == '{"order_id": '
    with pytest.raises(json.JSONDecodeError):
        json.loads(answer.message.calls[0].arguments)


async def test_a_function_is_a_script() -> None:
    provider = ScriptedProvider({"echo": lambda asked: say(asked.messages[-1].text)})

    answer = await provider.call(request(script="echo"))

    assert answer.message.text == "Hello"


async def test_usage_is_measured_in_bytes_over_all_messages() -> None:
    messages = (
        UserMessage(text="123456"),
        AssistantMessage(text="ü", calls=()),
        ToolMessage(call_id="ignored", name="ignored", text="7"),
    )
    answer = await playing(say("unused"), say("five!")).call(request(*messages))

    assert Usage(input=3, output=2) == answer.usage
    assert measure(messages) == 3
    assert measure(()) == 0


async def test_a_call_costs_its_name_and_arguments() -> None:
    answer = await playing(ask("ab", c=1)).call(request())

    assert Usage(input=2, output=-(-len('ab{"c":1}') // 4)) == answer.usage


async def test_max_output_tokens_cuts_the_answer() -> None:
    """A request whose bound was shrunk gets what a real model would give: less."""
    text = await playing(say("a" + "ü" * 40)).call(request(cap=3))
    calls = await playing(ask("refund", order_id="17")).call(request(cap=3))

    assert (text.message.text, text.stop, text.usage.output) == ("a" + "ü" * 5, "length", 3)
    assert (calls.message.calls, calls.stop, calls.usage.output) == ((), "length", 3)


async def test_a_usage_of_its_own_is_billed_even_above_the_bound() -> None:
    ledger = MemoryLedger()
    turn = bill_as(say("Hello"), input=7, output=5_000)

    answer = await playing(turn, ledger=ledger).call(request(cap=3))

    assert (answer.message.text, answer.stop) == ("Hello", "end")
    assert (Bill("k1", "scripted:s", Usage(input=7, output=5_000)),) == ledger.bills()


async def test_faults_befall_the_first_attempts_of_a_key() -> None:
    ledger = MemoryLedger()
    provider = playing(
        failing(say("Hi"), Fail(429, retry_after_s=2.0), Fail(500), None, Fail(400)), ledger=ledger
    )

    busy = await error_of(provider, request())
    broken = await error_of(provider, request())
    answer = await provider.call(request())
    wrong = await error_of(provider, request())
    other_key = await error_of(provider, request(key="k2"))

    assert (busy.retryable, busy.unbilled, busy.retry_after_s) == (True, True, 2.0)
    assert (broken.retryable, broken.unbilled, broken.retry_after_s) == (True, True, None)
    assert (wrong.retryable, wrong.unbilled) == (False, True)
    assert str(busy) == str(other_key) == "scripted answered 429"
    assert answer.usage == billed(ledger)


async def test_a_gateways_error_page_proves_nothing() -> None:
    error = await error_of(playing(failing(say("Hi"), Fail(502, unbilled=False))), request())

    assert (error.retryable, error.unbilled) == (True, False)


async def test_a_turn_may_say_why_it_stops() -> None:
    answer = await playing(Turn(text="I will not.", stop="refusal")).call(request())

    assert answer.stop == "refusal"


@pytest.mark.parametrize("charged", [True, False])
async def test_a_cut_may_have_been_billed_and_nobody_knows(charged: bool) -> None:
    ledger = MemoryLedger()
    provider = playing(failing(say("Hi"), Cut(billed=charged)), ledger=ledger)

    error = await error_of(provider, request())

    assert (error.retryable, error.unbilled) == (True, False)
    assert len(ledger.bills()) == charged


async def test_a_slow_answer_is_billed_before_it_comes() -> None:
    ledger = MemoryLedger()
    waits: list[tuple[float, int]] = []

    async def sleep(seconds: float) -> None:
        waits.append((seconds, len(ledger.bills())))

    scripts = {"s": Script([failing(say("Hi"), Slow(30.0))])}
    answer = await ScriptedProvider(scripts, ledger=ledger, sleep=sleep).call(request())

    assert answer.message.text == "Hi"
    assert waits == [(30.0, 1)]


async def test_a_hanging_call_ends_only_by_cancellation() -> None:
    ledger = MemoryLedger()
    task = asyncio.create_task(playing(failing(say("Hi"), Hang()), ledger=ledger).call(request()))
    done, _ = await asyncio.wait({task}, timeout=0)
    assert (len(ledger.bills()), done) == (1, set())

    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_unknown_script_or_turn_is_final() -> None:
    unknown = await error_of(playing(say("Hi")), request(script="t"))
    past = await error_of(playing(say("Hi")), request(HELLO, AssistantMessage(text="Hi")))

    assert (unknown.retryable, unknown.unbilled) == (False, True)
    assert str(unknown) == "scripted: no script 't'; there are ['s']"
    assert str(past) == "scripted: script 's' has 1 turns, asked for 2"
