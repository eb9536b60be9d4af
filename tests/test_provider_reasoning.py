"""A model's reasoning goes back in the next call as it came, or not at all; doubles check it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runward.activities import anthropic_wire, openai_wire
from runward.activities.provider_answers import REASONING_BYTES_MAX, received
from runward.activities.provider_reasoning import with_reasoning, without_foreign
from runward.contracts.providers import ModelRequest, ModelResponse, OutputSpec, Provider
from runward.contracts.transcript import (
    AssistantMessage,
    Message,
    Reasoning,
    ToolMessage,
    UserMessage,
    decode_message,
    encode_message,
)
from runward.contracts.usage import Usage
from runward.testing.provider_plays import REQUEST
from tests import anthropic_calls, openai_calls
from tests.anthropic_double import message, redacted, text, thinking, tool_use
from tests.openai_double import function_call, reasoning, refused, response, said
from tests.openai_double import text as words

Change = Callable[[ModelRequest], ModelRequest]
CALLING: dict[str, Callable[..., Any]] = {
    "anthropic": anthropic_calls.calling,
    "openai": openai_calls.calling,
}
INCLUDED = ["reasoning.encrypted_content"]


def claude(*content: dict[str, Any]) -> dict[str, Any]:
    return message(*content, stop="tool_use")


# Answers with calls: the usual one, reasoning between what is said, several calls.
ANSWERS = {
    "anthropic": [
        claude(thinking("An order."), text("Looking."), tool_use("c1", "lookup", order_id="1")),
        claude(thinking(""), redacted(), tool_use("c1", "lookup"), tool_use("c2", "lookup")),
        claude(
            thinking("Ü", "s1"), text("One."), thinking("", "s2"), text("Two."),
            tool_use("c1", "lookup"),
        ),
    ],
    "openai": [
        response(reasoning(), function_call("c1", "lookup", '{"order_id":  "17"}')),
        response(
            reasoning(), {**said(words("One."), words("Two.")), "phase": "commentary"},
            reasoning(2), function_call("c1", "lookup", "{}"), function_call("c2", "lookup", "{}"),
        ),
        response(said(words("")), reasoning(), function_call("c1", "lookup", "{}")),
    ],
}  # fmt: skip
FINAL = {"anthropic": message(text("Done.")), "openai": response(said(words("Done.")))}
CASES = [(name, one) for name, answers in ANSWERS.items() for one in answers]


def following(asked: ModelRequest, found: ModelResponse, provider: Provider) -> ModelRequest:
    """Returns the next request of the loop, as the model's step makes it."""
    said = with_reasoning(found, provider.name)
    heard = [ToolMessage(call_id=one.id, name=one.name, text="shipped") for one in said.calls]
    new: list[Message] = [*heard] if heard else [UserMessage(text="Answer once more.")]
    # Over the wire, as another worker reads it.
    messages = [decode_message(encode_message(one)) for one in (*asked.messages, said, *new)]
    return replace(asked, messages=tuple(messages))


async def loop(
    name: str,
    *answers: dict[str, Any],
    change: Change = lambda one: one,
    request: ModelRequest = REQUEST,
) -> tuple[list[ModelResponse], list[dict[str, Any]]]:
    """Returns what the provider read and sent; the first request changes before the second call.

    The double refuses a request whose reasoning is not what it said, or is missing.
    """
    found: list[ModelResponse] = []
    async with CALLING[name](*answers, FINAL[name]) as (provider, double):
        for number in range(len(answers) + 1):
            if number == 1:
                request = change(request)
            one = received(await provider.call(request), request)
            request = following(request, one, provider)
            found.append(one)

    assert double.refused == []
    return found, [one.body for one in double.seen]


def sent(name: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the items of the first answer in a request."""
    if name == "anthropic":
        return [*body["messages"][1]["content"]]
    return [one for one in body["input"][1:] if one.get("type") != "function_call_output"]


@pytest.mark.parametrize(("name", "answer"), CASES)
async def test_reasoning_goes_back_as_it_came(name: str, answer: dict[str, Any]) -> None:
    """In its place among texts and calls, which are not kept twice, and in each later call."""
    later = {
        "anthropic": claude(thinking("More.", "s3"), tool_use("c3", "lookup")),
        "openai": response(reasoning(3), function_call("c3", "lookup", "{}")),
    }[name]
    found, bodies = await loop(name, answer, later)

    came = answer["content" if name == "anthropic" else "output"]
    assert sent(name, bodies[1]) == came
    assert sent(name, bodies[2])[: len(came)] == came
    assert all(one.reasoning for one in found[:2])
    assert not any(one in found[0].reasoning for one in ("Looking", "One", "order_id"))
    assert found[2].message.text == "Done."


@pytest.mark.parametrize("name", ["anthropic", "openai"])
async def test_another_model_goes_without(name: str) -> None:
    """It may be unable to read it, and its API then refuses the call."""
    _, bodies = await loop(name, ANSWERS[name][0], change=lambda one: replace(one, model="gpt-4o"))

    assert not any("thinking" in str(one) or "reasoning" in str(one) for one in bodies[1:])


@pytest.mark.parametrize(
    "changes",
    [{"instructions": "Be kind."}, {"tools": ()}, {"output": OutputSpec("any", {})}],
)
async def test_thinking_stays_behind_what_it_came_after(changes: dict[str, Any]) -> None:
    """A release with another prompt may take the run over: newer models refuse thinking then."""
    _, bodies = await loop(
        "anthropic", ANSWERS["anthropic"][0], change=lambda one: replace(one, **changes)
    )

    assert [one["type"] for one in sent("anthropic", bodies[1])] == ["text", "tool_use"]


async def test_openais_reasoning_is_not_bound_to_the_prompt() -> None:
    _, bodies = await loop(
        "openai", ANSWERS["openai"][0], change=lambda one: replace(one, instructions="Be kind.")
    )

    assert sent("openai", bodies[1])[0] == reasoning()


ENVELOPED = '{"response": [1]}'


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("anthropic", message(thinking("A list."), text(ENVELOPED))),
        ("openai", response(reasoning(), said(words(ENVELOPED)))),
    ],
)
async def test_an_answer_that_is_repaired_keeps_its_reasoning(
    name: str, answer: dict[str, Any]
) -> None:
    """Also where its text was taken out of an envelope: what the model said, it is shown again."""
    asked = replace(REQUEST, output=OutputSpec("numbers", {"type": "array"}))
    found, bodies = await loop(name, answer, request=asked)

    assert found[0].message.text == "[1]"
    first, last = sent(name, bodies[1])[:2]
    assert first == (answer.get("content") or answer["output"])[0]
    assert last.get("text", last.get("content", [{}])[0].get("text")) == "[1]"


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("anthropic", message(thinking("?"), text(ENVELOPED[:5]), text(ENVELOPED[5:]))),
        ("openai", response(reasoning(), said(words(ENVELOPED[:5]), words(ENVELOPED[5:])))),
    ],
)
async def test_nobody_guesses_where_a_text_that_changed_was_cut(
    name: str, answer: dict[str, Any]
) -> None:
    asked = replace(REQUEST, output=OutputSpec("numbers", {"type": "array"}))
    found, bodies = await loop(name, answer, request=asked)

    assert found[0].message.text == "[1]"
    [only] = sent(name, bodies[1])[:1]
    assert only.get("text", only.get("content")) == "[1]"


NOT_KEPT = [
    ("anthropic", claude(thinking("?", ""), tool_use("c1", "lookup"))),
    ("anthropic", claude({"type": "thinking", "thinking": "?"}, tool_use("c1", "lookup"))),
    ("anthropic", claude(thinking("?", "s"), redacted(""), tool_use("c1", "lookup"))),
    ("anthropic", claude({**thinking("?"), "signature": 7}, tool_use("c1", "lookup"))),
    ("anthropic", claude(thinking("?\ud800"), tool_use("c1", "lookup"))),
    ("anthropic", claude({**thinking("?"), "cost": float("nan")}, tool_use("c1", "lookup"))),
    ("anthropic", claude(thinking("?"), text("a\x00b"), tool_use("c1", "lookup"))),
    ("anthropic", claude(text(" "), thinking("?"), tool_use("c1", "lookup"))),
    ("anthropic", claude(text("Hi"), thinking("?"))),
    ("anthropic", claude(thinking("?"), text(" "))),
    ("anthropic", claude(thinking("?"), tool_use("c 1", "lookup"))),
    ("openai", response(reasoning(encrypted=None), function_call("c1", "lookup", "{}"))),
    ("openai", response(reasoning(encrypted=""), function_call("c1", "lookup", "{}"))),
    ("openai", response(reasoning(), reasoning(2, None), function_call("c1", "lookup", "{}"))),
    ("openai", response(reasoning(), function_call("c1", "lookup", "{}"), reasoning(2))),
    ("openai", response(reasoning())),
    ("openai", response(reasoning(), said(refused("No.")))),
    ("openai", response(reasoning(), said(words("a\ud800")), function_call("c", "l", "{}"))),
    ("openai", response(reasoning(), function_call("c1", "lookup", "a\x00"))),
]


@pytest.mark.parametrize(("name", "answer"), NOT_KEPT)
async def test_what_cannot_be_sent_again_is_not_kept(name: str, answer: dict[str, Any]) -> None:
    """It is lost, and the answer is not: it can be recorded and sent like any other."""
    async with CALLING[name](answer, FINAL[name]) as (provider, double):
        found = received(await provider.call(REQUEST), REQUEST)
        double.refused.clear()

    assert found.reasoning == ""
    assert found.stop in ("end", "tools", "refusal")


@pytest.mark.parametrize(
    ("model", "included"),
    [("gpt-5", True), ("gpt-5.6-sol", True), ("o3", True), ("gpt-5-chat-latest", False),
     ("gpt-4o", False), ("openai/gpt-5", False), ("double", False)],
)  # fmt: skip
async def test_openai_is_asked_only_where_the_name_says_that_the_model_reasons(
    model: str, *, included: bool
) -> None:
    """Others refuse to be asked; the API gives it unasked."""
    async with openai_calls.calling(FINAL["openai"]) as (provider, double):
        await provider.call(replace(REQUEST, model=model))

    assert double.seen[0].body.get("include") == (INCLUDED if included else None)


@pytest.mark.parametrize(("model", "line"), [("gpt-5", 2), ("double", 3)], ids=["openai", "claude"])
def test_what_an_earlier_release_kept_is_given_back(model: str, line: int) -> None:
    """The items' form is as frozen as the message around them: runs in flight have it."""
    kept = (Path(__file__).parent / "wire" / "AssistantMessage.jsonl").read_bytes().splitlines()
    messages = (*REQUEST.messages, decode_message(kept[line]))
    request = replace(REQUEST, model=model, messages=messages)
    if model == "gpt-5":
        sent = openai_wire.write_request(request)["input"][1:]
    else:
        sent = anthropic_wire.write_request(request)["messages"][1]["content"]

    expected = {
        "gpt-5": [
            {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "Z0FB"},
            function_call("call_0_0", "refund", '{"amount":"5.00","order_id":"17"}')
            | {"id": "fc_1"},
        ],
        "double": [
            thinking("An order."),
            text("One moment."),
            tool_use("call_0_0", "refund", amount="5.00", order_id="17"),
        ],
    }
    assert sent == expected[model]


@pytest.mark.parametrize(
    "data",
    [
        "",
        "[]",
        '{"of": "double"}',
        '{"of": "double", "items": [7], "texts": []}',
        '{"of": "double", "items": [{"type": "function_call"}], "texts": [2]}',
        '{"of": "double", "items": [{"type": "message"}], "texts": [1]}',
    ],
)
def test_what_another_release_kept_and_this_one_cannot_read_is_left_out(data: str) -> None:
    """Runs go on while workers are replaced."""
    said = AssistantMessage(text="Hi", reasoning=Reasoning(provider="openai", data=data))
    request = replace(REQUEST, messages=(*REQUEST.messages, said))

    plain = {"role": "assistant", "content": "Hi"}
    assert openai_wire.write_request(request)["input"][1:] == [plain]


def answered(reasoning: str, text: str = "Hi") -> ModelResponse:
    return ModelResponse(AssistantMessage(text=text), Usage(), "end", reasoning=reasoning)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (answered("x" * REASONING_BYTES_MAX), "x" * REASONING_BYTES_MAX),
        (answered("ü" * (REASONING_BYTES_MAX // 2 + 1)), ""),
        (answered("a\x00b"), ""),
        (answered("a\ud800b"), ""),
        (answered("it led to", text="a\x00b"), ""),
    ],
    ids=["the longest", "too long", "NUL", "surrogate", "to another text"],
)
def test_reasoning_is_recorded_as_it_is_or_not_at_all(given: ModelResponse, expected: str) -> None:
    """Whoever's provider returned it."""
    assert received(given, REQUEST).reasoning == expected


def test_reasoning_in_the_place_of_the_models_step_is_not_recorded() -> None:
    """That step names it with the provider that it belongs to."""
    message = AssistantMessage(text="Hi", reasoning=Reasoning(provider="openai", data="mine"))
    found = received(replace(answered("mine"), message=message), REQUEST)

    assert (found.message, found.reasoning) == (AssistantMessage(text="Hi"), "")


def test_no_provider_gets_the_reasoning_of_another() -> None:
    own, other = (
        AssistantMessage(text="Hi", reasoning=Reasoning(provider=name, data="{}"))
        for name in ("acme", "openai")
    )
    user = UserMessage(text="Hello?")

    assert without_foreign((user, own, other), "acme") == (user, own, AssistantMessage(text="Hi"))


def test_reasoning_does_not_show_where_a_value_is_printed() -> None:
    secret = answered("what it thought")

    assert "thought" not in f"{secret!r} {with_reasoning(secret, 'openai')!r}"
