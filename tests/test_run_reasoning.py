"""Runs of models that reason: what they thought goes back to them, and is shown to nobody else."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import asyncpg
import pytest

from runward.client.run_handle import RunHandle
from runward.contracts.agents import Agent
from runward.contracts.budget import Budget, Cap
from runward.contracts.errors import AgentError
from runward.contracts.outcomes import MESSAGE_INLINE_BYTES_MAX, MESSAGE_RECORDED_BYTES_MAX
from runward.contracts.providers import ModelError, ModelRequest, ModelResponse
from runward.contracts.transcript import AssistantMessage, ToolCall, decode_message
from runward.contracts.usage import Usage
from runward.testing.stack import Stack
from runward.workers.plugin import RunwardPlugin
from tests import anthropic_calls, anthropic_double, openai_calls, openai_double
from tests.anthropic_double import Reply
from tests.support import Shop, shop_tools

Owner: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
THOUGHT = "What-the-model-thought"
CALLS: list[tuple[str, dict[str, str]]] = [
    ("lookup_order", {"order_id": "17"}),
    ("refund", {"order_id": "17", "amount": "5.00"}),
]
Lose: TypeAlias = Callable[["RunwardPlugin", Any, Owner, str], Awaitable[None]]


@dataclass(frozen=True)
class Vendor:
    """A model behind one of the doubles."""

    model: str
    calling: Callable[..., Any]
    thinks: Callable[[int, str], dict[str, Any]]
    says: Callable[[str], dict[str, Any]]
    broken: Reply


def claude(turn: int, thought: str) -> dict[str, Any]:
    name, arguments = CALLS[turn]
    blocks = anthropic_double.thinking("", f"{thought}{turn}"), anthropic_double.redacted(thought)
    called = anthropic_double.tool_use(f"c{turn}", name, **arguments)
    return anthropic_double.message(*blocks, called, stop="tool_use")


def gpt(turn: int, thought: str) -> dict[str, Any]:
    name, arguments = CALLS[turn]
    called = openai_double.function_call(f"c{turn}", name, json.dumps(arguments))
    return openai_double.response(openai_double.reasoning(turn, thought), called)


VENDORS = [
    Vendor(
        "anthropic:claude-sonnet-5",
        anthropic_calls.calling,
        claude,
        lambda words: anthropic_double.message(
            anthropic_double.thinking("", THOUGHT), anthropic_double.text(words)
        ),
        Reply(anthropic_double.error("invalid_request_error", THOUGHT), 400),
    ),
    Vendor(
        "openai:gpt-5",
        openai_calls.calling,
        gpt,
        lambda words: openai_double.response(
            openai_double.reasoning(9, THOUGHT), openai_double.said(openai_double.text(words))
        ),
        Reply(openai_double.error("invalid_request_error", words=THOUGHT), 400),
    ),
]
EACH = pytest.mark.parametrize("vendor", VENDORS, ids=["anthropic", "openai"])


def agent(model: str, **options: Any) -> Agent[Any]:
    budget = Budget(user=Cap(tokens=10**12, usd=10**6, per="day"))
    given = {"tools": shop_tools(), "approver_role": "finance", "budget": budget, **options}
    return Agent("support", model=model, instructions="Be brief.", **given)


async def _nothing(app: RunwardPlugin, worker: Any, owner: Owner, tenant: str) -> None: ...


async def _caches(app: RunwardPlugin, worker: Any, owner: Owner, tenant: str) -> None:
    app.assembly_of(worker).transcripts.forget()
    app.assembly_of(worker).governance.identity.forget()


async def _all(app: RunwardPlugin, worker: Any, owner: Owner, tenant: str) -> None:
    await _caches(app, worker, owner, tenant)
    found = await owner.execute("delete from runward.transcript where tenant = $1", tenant)
    assert found != "DELETE 0"


async def refunded(
    stack: Stack, owner: Owner, vendor: Vendor, thought: str, lose: Lose = _nothing
) -> tuple[RunHandle[Any], list[dict[str, Any]]]:
    """Returns a run that looked an order up and refunded it, and the requests of its model.

    The double refuses a request whose reasoning is not what it said, or is missing.
    """
    replies = [vendor.thinks(0, thought), vendor.thinks(1, thought), vendor.says("Done.")]
    async with vendor.calling(*replies) as (provider, double):
        app = stack.plugin(agents=[agent(vendor.model)], providers=[provider], deps=Shop())
        async with stack.worker(app) as worker:
            ada, bob = await stack.acting_as("ada"), await stack.acting_as("bob", ["finance"])
            run = await ada.start("support", "Refund order 17")
            request = await run.next_approval()
            await lose(app, worker, owner, stack.tenant)
            await bob.approvals.approve(request.id)
            assert (await run.result()).output == "Done."
    assert double.refused == []
    return run, [one.body for one in double.seen]


@EACH
@pytest.mark.parametrize("lose", [_nothing, _caches, _all], ids=["cache", "store", "history"])
async def test_reasoning_goes_back_with_each_later_call(
    stack: Stack, owner: Owner, vendor: Vendor, lose: Lose
) -> None:
    """Wherever the conversation is read from."""
    _, bodies = await refunded(stack, owner, vendor, THOUGHT, lose)

    assert [str(one).count(THOUGHT) > 0 for one in bodies] == [False, True, True]
    assert str(bodies[2]).count(THOUGHT) == 2 * str(bodies[1]).count(THOUGHT)


@EACH
async def test_what_a_model_thought_is_shown_to_nobody(
    stack: Stack, owner: Owner, vendor: Vendor, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor is it kept of the answer, which nothing follows."""
    caplog.set_level("INFO")  # below it, Temporal's SDK prints whole payloads
    run, _ = await refunded(stack, owner, vendor, THOUGHT)
    story, result = await run.story(), await run.result()
    events = [one async for one in run.watch()]
    described = await (await stack.client()).temporal.get_workflow_handle(run.id).describe()
    records = await owner.fetch(
        "select leaf from runward.audit_record where tenant = $1", stack.tenant
    )
    kept = await owner.fetch(
        "select content from runward.transcript where tenant = $1", stack.tenant
    )
    said = [decode_message(one["content"]) for one in kept]
    of_model = [one for one in said if isinstance(one, AssistantMessage)]

    shown = f"{story} {result} {events} {described.raw_description} {records} {caplog.text} {said}"
    assert len(events) > 3
    assert THOUGHT not in shown
    assert sorted((one.text, one.reasoning is not None) for one in of_model) == [
        ("", True), ("", True), ("Done.", False)
    ]  # fmt: skip


@EACH
async def test_an_error_tells_nothing_of_it(
    stack: Stack, vendor: Vendor, caplog: pytest.LogCaptureFixture
) -> None:
    """Although the API repeats it."""
    async with vendor.calling(vendor.thinks(0, THOUGHT), vendor.broken) as (provider, _):
        app = stack.plugin(agents=[agent(vendor.model)], providers=[provider], deps=Shop())
        async with stack.worker(app):
            run = await (await stack.acting_as("ada")).start("support", "Where is order 17?")
            with pytest.raises(AgentError) as caught:
                await run.result()

    assert "answered 400" in str(caught.value)
    assert THOUGHT not in f"{caught.value!r} {await run.story()} {caplog.text}"


@EACH
@pytest.mark.parametrize("size", [MESSAGE_INLINE_BYTES_MAX, MESSAGE_RECORDED_BYTES_MAX])
async def test_long_reasoning_goes_by_reference(
    stack: Stack, owner: Owner, vendor: Vendor, size: int
) -> None:
    """Like a long text: history holds the digest, the model gets all of it."""
    run, bodies = await refunded(stack, owner, vendor, "x" * size, _caches)

    assert str(bodies[2]).count("x" * size) >= 2
    assert len((await stack.history(run)).to_json()) < 3 * MESSAGE_INLINE_BYTES_MAX


@EACH
async def test_an_answer_that_is_repaired_goes_back_with_its_reasoning(
    stack: Stack, vendor: Vendor
) -> None:
    async with vendor.calling(vendor.says("[1, null]"), vendor.says("[1]")) as (provider, double):
        one = agent(vendor.model, output_type=list[int])
        app = stack.plugin(agents=[one], providers=[provider], deps=Shop())
        async with stack.worker(app):
            result = await (await stack.acting_as("ada")).execute("support", "Which numbers?")

    assert (result.output, double.refused) == ("[1]", [])
    assert THOUGHT in str(double.seen[1].body)


@dataclass
class Playing:
    """A provider that answers in order, and keeps what was asked."""

    name: str
    plays: list[ModelResponse | ModelError]
    asked: list[ModelRequest] = field(default_factory=list)

    async def call(self, request: ModelRequest) -> ModelResponse:
        self.asked.append(request)
        play = self.plays.pop(0)
        if isinstance(play, ModelError):
            raise play
        return play


def calls(order: str, reasoning: str) -> ModelResponse:
    asked = ToolCall(id=f"c{order}", name="lookup_order", arguments=f'{{"order_id": "{order}"}}')
    return ModelResponse(AssistantMessage(calls=(asked,)), Usage(), "tools", reasoning=reasoning)


def thoughts(request: ModelRequest) -> list[str]:
    said = (one for one in request.messages if isinstance(one, AssistantMessage))
    return ["" if one.reasoning is None else one.reasoning.data for one in said]


async def test_a_provider_never_sees_what_anothers_model_thought(stack: Stack) -> None:
    """Whatever it makes of messages."""
    gone = ModelError("away", retryable=False, unbilled=True, elsewhere=True)
    done = ModelResponse(AssistantMessage(text="Done."), Usage(), "end")
    own = Playing("anthropic", [calls("17", "of its own"), gone, done])
    other = Playing("openai", [calls("18", "of the other")])
    one = agent(VENDORS[0].model, fallback=[VENDORS[1].model])
    async with stack.worker(stack.plugin(agents=[one], providers=[own, other], deps=Shop())):
        await (await stack.acting_as("ada")).execute("support", "Where are they?")

    assert thoughts(other.asked[0]) == [""]
    assert thoughts(own.asked[-1]) == ["of its own", ""]


async def test_another_vendors_model_goes_without(stack: Stack) -> None:
    """It answers one call; the agent's own model gets its own reasoning again in the next."""
    own, other = VENDORS
    down = Reply(anthropic_double.error("overloaded_error"), 529, {"retry-after-ms": "10"})
    called = openai_double.function_call("g1", "lookup_order", '{"order_id": "18"}')
    answer = openai_double.response(openai_double.reasoning(1, "Of-the-other"), called)
    async with (
        own.calling(own.thinks(0, THOUGHT), *[down] * 3, own.says("Done.")) as (anthropic, asked),
        other.calling(answer) as (openai, answered),
    ):
        one = agent(own.model, fallback=[other.model])
        app = stack.plugin(agents=[one], providers=[anthropic, openai], deps=Shop())
        async with stack.worker(app):
            result = await (await stack.acting_as("ada")).execute("support", "Where are they?")

    assert (result.output, result.fallback_models) == ("Done.", (other.model,))
    assert (asked.refused, answered.refused) == ([], [])
    last = str(asked.seen[-1].body)
    assert THOUGHT not in str(answered.seen[0].body)
    assert THOUGHT in last and "Of-the-other" not in last
