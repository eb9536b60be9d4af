"""Tries of one model call: counted in the store, bounded by the agent, and visible."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, TypeAlias

import asyncpg
import pytest

from runward.activities import model as model_step
from runward.contracts import names
from runward.contracts.agents import MODEL_RETRIES_DEFAULT, Agent
from runward.contracts.budget import Budget, Cap
from runward.contracts.errors import AgentError
from runward.contracts.outcomes import ModelDone, decode_outcome
from runward.contracts.policy import StandardPermissions
from runward.contracts.providers import ModelError, ModelRequest, ModelResponse
from runward.contracts.runs import RunInput, RunRequest, usd
from runward.contracts.shapes import BodyFailed, Onward
from runward.contracts.transcript import AssistantMessage, ToolCall
from runward.contracts.tries import (
    UNREADABLE_TRIES_MAX,
    Again,
    Tried,
    after,
)
from runward.contracts.usage import Usage
from runward.contracts.wire import decode_wire, encode_wire
from runward.store import prices
from runward.testing.stack import Stack
from runward.workflows.conversation import Conversation
from tests import anthropic_calls, anthropic_double, openai_calls, openai_double
from tests.support import Shop, shop_tools

Owner: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
USED = Usage(input=7, output=11)
OWN, SECOND, THIRD = "scripted:own", "scripted:second", "scripted:third"


def says(text: str, *calls: ToolCall) -> ModelResponse:
    return ModelResponse(
        AssistantMessage(text=text, calls=calls), USED, "tools" if calls else "end"
    )


def busy(wait_s: float | None = 0.01, status: int = 429, **changes: Any) -> ModelError:
    """Returns an error that passes; a wait keeps the test from the real backoff."""
    given: dict[str, Any] = {"retryable": True, "unbilled": True, "retry_after_s": wait_s}
    return ModelError(f"scripted answered {status}", **given | changes)


def gone(**changes: Any) -> ModelError:
    given: dict[str, Any] = {"retryable": False, "unbilled": True, "elsewhere": True}
    return ModelError("scripted answered 404", **given | changes)


Play: TypeAlias = ModelResponse | Exception
LOOKUP = ToolCall(id="c1", name="lookup_order", arguments='{"order_id": "17"}')


@dataclass
class Models:
    """A provider whose models each play their own list, and which keeps what was asked."""

    plays: dict[str, list[Play]]
    name: str = "scripted"
    asked: list[ModelRequest] = field(default_factory=list)

    async def call(self, request: ModelRequest) -> ModelResponse:
        self.asked.append(request)
        play = self.plays[request.model].pop(0)
        if isinstance(play, Exception):
            raise play
        return play

    @property
    def models(self) -> list[str]:
        """Returns which models were asked, in order."""
        return [one.model for one in self.asked]


def agent(**options: Any) -> Agent[Any]:
    budget = Budget(user=Cap(tokens=10**12, usd=10**6, per="day"))
    return Agent("support", model=OWN, tools=shop_tools(), budget=budget, **options)


async def run(stack: Stack, models: Models, fails: str = "", **options: Any) -> Any:
    """Returns the result of a run, None where it fails as it should."""
    policy = options.pop("policy", None)
    plugin = stack.plugin(agents=[agent(**options)], providers=[models], deps=Shop(), policy=policy)
    async with stack.worker(plugin):
        ada = await stack.acting_as("ada")
        if not fails:
            return await ada.execute("support", "Where is order 17?")
        with pytest.raises(AgentError, match=fails):
            await ada.execute("support", "Where is order 17?")
    return None


async def done(owner: Owner, stack: Stack, step: str = "t1.model") -> ModelDone:
    """Returns what is recorded of a model's step, and is in Temporal's history."""
    outcome = await owner.fetchval(
        "select outcome from runward.step where tenant = $1 and step = $2", stack.tenant, step
    )
    found = decode_outcome(outcome)
    assert isinstance(found, ModelDone)
    return found


async def told(owner: Owner, stack: Stack) -> list[tuple[str, str, str]]:
    """Returns kind, model and outcome of the first step's audit records, in order."""
    rows = await owner.fetch(
        "select leaf from runward.audit_record where tenant = $1 and step = 't1.model'"
        " and kind in ('intent', 'outcome') order by seq",
        stack.tenant,
    )
    leaves = [json.loads(row["leaf"]) for row in rows]
    return [(one["kind"], one["action"], one.get("outcome", "")) for one in leaves]


async def shown(owner: Owner, stack: Stack) -> tuple[str, int]:
    """Returns model and tries as the step's row has them, for people who look at a run."""
    found = await owner.fetchrow(
        "select name, tries from runward.step where tenant = $1 and step = 't1.model'",
        stack.tenant,
    )
    assert found is not None
    return tuple(found)


async def holds(owner: Owner, stack: Stack) -> list[tuple[str, dict[str, int]]]:
    """Returns state and amounts of each attempt's hold, in order."""
    rows = await owner.fetch(
        "select state, dimensions, amounts from runward.hold where tenant = $1 order by created_at",
        stack.tenant,
    )
    return [(row[0], dict(zip(row[1], row[2], strict=True))) for row in rows]


async def test_an_ordinary_call_says_nothing_of_tries(stack: Stack, owner: Owner) -> None:
    """Its outcome has not one byte more, and the store is not asked what it has counted."""
    result = await run(stack, Models({"own": [says("Hi")]}), fallback=[SECOND])

    outcome = await owner.fetchval(
        "select outcome from runward.step where tenant = $1", stack.tenant
    )
    assert result.fallback_models == ()
    assert json.loads(outcome).keys() == {"k", "m", "u", "$", "l", "o"}


async def test_tries_are_in_the_outcome_and_the_row(stack: Stack, owner: Owner) -> None:
    """Two were refused as too many, the third answered; each has its intent and its outcome."""
    result = await run(stack, Models({"own": [busy(), busy(status=503), says("Hi")]}))

    found = await done(owner, stack)
    assert (result.output, result.fallback_models) == ("Hi", ())
    assert (found.model, found.tries, await shown(owner, stack)) == ("", 3, (OWN, 3))
    retry = [("intent", OWN, ""), ("outcome", OWN, "retry")]
    assert await told(owner, stack) == [
        *retry,
        *retry,
        ("intent", OWN, ""),
        ("outcome", OWN, "done"),
    ]
    assert [state for state, _ in await holds(owner, stack)] == ["R", "R", "S"]


async def test_spent_tries_fail_the_run_and_say_how_many(stack: Stack, owner: Owner) -> None:
    """No hold stays: what may have been billed is charged, the rest given back."""
    plays: list[Play] = [busy(), busy(status=504, unbilled=False), busy(status=529)]
    models = Models({"own": plays})
    await run(stack, models, r"scripted answered 529 \(gave up after 3 tries\)", model_retries=2)

    assert models.plays == {"own": []}
    assert [state for state, _ in await holds(owner, stack)] == ["R", "F", "R"]


async def test_without_retries_the_first_refusal_is_the_last(stack: Stack) -> None:
    """As the agent wants it."""
    models = Models({"own": [busy()]})
    await run(stack, models, "scripted answered 429\\. `runward", model_retries=0)

    assert len(models.asked) == 1


async def test_a_fallback_answers_where_the_own_model_is_down(stack: Stack, owner: Owner) -> None:
    """It is in the result, the outcome, the row, and every audit record names whom it asked."""
    models = Models({"own": [busy(status=503)] * 3, "second": [says("Hi")]})
    result = await run(stack, models, fallback=[SECOND])

    found = await done(owner, stack)
    assert (result.output, result.fallback_models) == ("Hi", (SECOND,))
    assert models.models == ["own", "own", "own", "second"]
    assert (found.model, found.tries, await shown(owner, stack)) == (SECOND, 4, (SECOND, 4))
    retry = [("intent", OWN, ""), ("outcome", OWN, "retry")]
    last = [("intent", SECOND, ""), ("outcome", SECOND, "done")]
    assert await told(owner, stack) == [*retry, *retry, *retry, *last]


async def test_each_turn_asks_the_own_model_first(stack: Stack, owner: Owner) -> None:
    """A fallback is for one call; models are named in the order of their first answers."""
    models = Models(
        {
            "own": [gone(), gone(), says("Found.")],
            "second": [says("", LOOKUP), gone()],
            "third": [says("", replace_id(LOOKUP, "c2"))],
        }
    )
    result = await run(stack, models, fallback=[SECOND, THIRD])

    assert models.models == ["own", "second", "own", "second", "third", "own"]
    assert (result.output, result.fallback_models) == ("Found.", (SECOND, THIRD))
    assert (await done(owner, stack, "t3.model")).model == ""


def replace_id(call: ToolCall, name: str) -> ToolCall:
    return call.model_copy(update={"id": name})


async def test_another_model_gets_a_key_of_its_own(stack: Stack) -> None:
    """A gateway that keeps answers by the key would give the one model's for the other's."""
    models = Models({"own": [busy(), gone()], "second": [busy(), says("Hi")]})
    await run(stack, models, fallback=[SECOND])

    keys = [one.idempotency_key for one in models.asked]
    assert (keys[0], keys[2]) == (keys[1], keys[3])
    assert keys[0] != keys[2]


async def test_a_request_that_is_wrong_stays_wrong_for_every_model(stack: Stack) -> None:
    """Nobody else is asked, and nobody billed."""
    wrong = gone(elsewhere=False)
    models = Models({"own": [wrong], "second": [says("Hi")]})
    await run(stack, models, "scripted answered 404\\. `runward", fallback=[SECOND])

    assert models.models == ["own"]


@pytest.mark.parametrize("stop", ["refusal", "filtered", "incomplete"])
async def test_a_refusal_is_an_answer(stack: Stack, stop: Any) -> None:
    """Another model is not asked until one complies."""
    refusal = replace(says("No."), stop=stop)
    models = Models({"own": [refusal], "second": [says("Hi")]})
    await run(stack, models, "model refused|content filtered|stopped early", fallback=[SECOND])

    assert models.models == ["own"]


async def test_a_long_wish_to_wait_moves_on_at_once(stack: Stack) -> None:
    """A quarter of an hour is no wait where another model stands ready."""
    models = Models({"own": [busy(900.0)], "second": [says("Hi")]})
    result = await run(stack, models, fallback=[SECOND])

    assert (result.output, models.models) == ("Hi", ["own", "second"])


async def test_the_last_model_has_all_retries(stack: Stack, owner: Owner) -> None:
    """Only what others stand behind moves on after three; when all have failed, no hold stays."""
    models = Models({"own": [busy()] * 3, "second": [busy()] * 3, "third": [busy()] * 5})
    reason = r"scripted answered 429 \(gave up after 11 tries\)"
    await run(stack, models, reason, fallback=[SECOND, THIRD], model_retries=4)

    assert models.plays == {"own": [], "second": [], "third": []}
    assert {state for state, _ in await holds(owner, stack)} == {"R"}
    assert await owner.fetchval(
        "select sum(held + settled + overrun) from runward.bucket where tenant = $1", stack.tenant
    ) == 0  # fmt: skip


async def test_each_try_holds_what_its_model_can_cost(
    stack: Stack, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the answer is charged at the price of the model that gave it."""
    dear = replace(prices.SCRIPTED, input=9_000, output=50_000, cache_write=9_000)
    known = prices.price
    monkeypatch.setattr(
        "runward.workers.governance.price", lambda name: dear if name == SECOND else known(name)
    )
    result = await run(stack, Models({"own": [gone()], "second": [says("Hi")]}), fallback=[SECOND])

    (first, own), (second, other) = await holds(owner, stack)
    assert (first, second) == ("R", "S")
    assert own["tokens"] == other["tokens"]
    assert other["cost"] > 7 * own["cost"]
    assert (await done(owner, stack)).cost == dear.cost(USED)
    assert result.cost * 10**9 == dear.cost(USED)


async def test_a_fallback_without_a_price_is_passed_over(stack: Stack) -> None:
    """Nobody could say what to hold for it."""
    models = Models({"own": [gone()], "third": [says("Hi")]})
    result = await run(stack, models, fallback=["openai:nobody-knows", THIRD])

    assert result.fallback_models == (THIRD,)


async def test_where_no_fallback_has_a_price_the_reason_says_so(stack: Stack) -> None:
    models = Models({"own": [gone()]})
    reason = "404; openai:nobody-knows is not asked: price_unknown"
    await run(stack, models, reason, fallback=["openai:nobody-knows"])

    assert models.models == ["own"]


async def test_a_provider_that_breaks_is_passed_over(stack: Stack) -> None:
    """As a key that is missing, its bug is no other model's."""
    models = Models({"own": [MemoryError("no")], "second": [says("Hi")]})
    result = await run(stack, models, fallback=[SECOND])

    assert result.fallback_models == (SECOND,)


async def test_another_worker_goes_on_counting(stack: Stack, owner: Owner) -> None:
    """The first one ends inside the second model's try: that counts, and it is asked again."""
    inside = asyncio.Event()

    class Holding(Models):
        async def call(self, request: ModelRequest) -> ModelResponse:
            if request.model == "second" and not inside.is_set():
                self.asked.append(request)
                inside.set()
                await asyncio.Event().wait()
            return await super().call(request)

    models = Holding({"own": [gone()], "second": [busy(), busy(), busy()]})
    given = {
        "agents": [agent(fallback=[SECOND], model_retries=3)],
        "providers": [models],
        "deps": Shop(),
    }
    ada = await stack.acting_as("ada")
    async with stack.worker(stack.plugin(**given), max_cached_workflows=0):
        ran = await ada.start("support", "Where is order 17?")
        await inside.wait()
    async with stack.worker(stack.plugin(**given)):
        with pytest.raises(AgentError, match="gave up after 5 tries"):
            await ran.result()

    assert models.models == ["own", *["second"] * 4]
    assert await shown(owner, stack) == (SECOND, 5)
    assert [state for state, _ in await holds(owner, stack)] == ["R", "F", "R", "R", "R"]


async def test_unreadable_answers_are_counted_by_the_store(stack: Stack, owner: Owner) -> None:
    """Whatever passes between them: each may have been billed."""
    html = ModelError("x sent no answer", retryable=True, unbilled=False, retry_after_s=0.01,
                      unreadable=True)  # fmt: skip
    models = Models({"own": [html, busy(), html, busy(), busy(), html]})
    await run(stack, models, r"x sent no answer \(gave up after 6 tries\)")

    states = [state for state, _ in await holds(owner, stack)]
    assert states == ["F", "R", "F", "R", "R", "F"]


async def test_unreadable_answers_move_on_to_a_fallback(stack: Stack) -> None:
    """Which has a count of its own."""
    html = ModelError("x sent no answer", retryable=True, unbilled=False, retry_after_s=0.01,
                      unreadable=True)  # fmt: skip
    models = Models({"own": [html] * UNREADABLE_TRIES_MAX, "second": [html, html, says("Hi")]})
    result = await run(stack, models, fallback=[SECOND])

    assert (result.output, result.fallback_models) == ("Hi", (SECOND,))


async def test_a_call_that_hangs_is_a_try(
    stack: Stack, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends before its attempt does, so the store counts it; what it billed is open."""
    monkeypatch.setattr(model_step, "ANSWER_S_MAX", 0.2)

    class Hanging(Models):
        async def call(self, request: ModelRequest) -> ModelResponse:
            if request.model == "own":
                await asyncio.Event().wait()
            return await super().call(request)

    models = Hanging({"second": [says("Hi")]})
    result = await run(stack, models, fallback=[SECOND], model_retries=0)

    assert result.fallback_models == (SECOND,)
    assert [state for state, _ in await holds(owner, stack)] == ["F", "S"]


async def test_a_run_that_was_parked_goes_on_with_the_model_it_had_come_to(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its step is called anew, as a first attempt: the store knows better."""
    dear = replace(prices.SCRIPTED, output=10**9)
    known = prices.price
    monkeypatch.setattr(
        "runward.workers.governance.price", lambda name: dear if name == SECOND else known(name)
    )
    models = Models({"own": [gone()], "second": [says("Hi")]})
    small, large = (Budget(user=Cap(usd=one, per="day"), on_exceeded="park") for one in (1, 10**6))
    ada = await stack.acting_as("ada")
    for budget in (small, large):
        one = Agent("support", model=OWN, fallback=[SECOND], budget=budget)
        async with stack.worker(stack.plugin(agents=[one], providers=[models])):
            if budget is small:
                ran = await ada.start("support", "Where is order 17?")
                while (await ran.status()).state != "parked":  # noqa: ASYNC110  # the run decides
                    await asyncio.sleep(0.05)
            else:
                handle = ada.temporal.get_workflow_handle(ran.id)
                await handle.signal(names.BUDGET_RAISED_SIGNAL)
                assert (await ran.result()).fallback_models == (SECOND,)

    assert models.models == ["own", "second"]


async def test_a_fallback_that_the_policy_forbids_is_denied(stack: Stack) -> None:
    """The policy judges the model that is asked, not the agent's own."""
    policy = StandardPermissions(allowed_models=[OWN])
    models = Models({"own": [gone()], "second": [says("Hi")]})
    await run(stack, models, "allowed_models", policy=policy, fallback=[SECOND])

    assert models.models == ["own"]


async def test_an_outage_of_one_api_is_mended_by_the_other(stack: Stack) -> None:
    """Over HTTP, in the words of both APIs, at the price of the one that answered."""
    down = anthropic_double.Reply(
        anthropic_double.error("overloaded_error"), 529, {"retry-after-ms": "10"}
    )
    answer = openai_double.response(openai_double.said(openai_double.text("Hi")))
    own, second = "anthropic:claude-sonnet-5", "openai:gpt-5"
    one = Agent("support", model=own, fallback=[second])
    async with (
        anthropic_calls.calling(down, down, down) as (anthropic, asked),
        openai_calls.calling(answer) as (openai, answered),
        stack.worker(stack.plugin(agents=[one], providers=[anthropic, openai])),
    ):
        result = await (await stack.acting_as("ada")).execute("support", "Where is order 17?")

    price, used = prices.price(second), Usage(input=12, output=5)
    assert price is not None
    assert (result.output, result.fallback_models) == ("Hi", (second,))
    assert (len(asked.seen), len(answered.seen)) == (3, 1)
    assert (result.usage, result.cost) == (used, usd(price.cost(used)))


def test_the_models_that_answered_go_on_over_continue_as_new() -> None:
    """Each once."""
    talk = Conversation(RunRequest(agent="support", prompt="Hi"), datetime.now(UTC))
    for model in (SECOND, "", THIRD, SECOND):
        talk.answered(ModelDone(message=AssistantMessage(text="Hi"), model=model))
    carried = decode_wire(RunInput, encode_wire(talk.carry()))

    later = Conversation.begin(carried, datetime.now(UTC))
    assert later.end(datetime.now(UTC)).fallback_models == (SECOND, THIRD)


async def test_more_calls_than_the_agent_takes_are_refused(stack: Stack) -> None:
    """The bound is the agent's own."""
    asked = [replace_id(LOOKUP, f"c{n}") for n in range(5)]
    models = Models({"own": [says("", *asked), says("Done.")]})
    await run(stack, models, max_calls_per_turn=2)

    said = models.asked[1].messages[1]
    assert isinstance(said, AssistantMessage)
    assert len(said.calls) == 2
    assert "3 of these 5 tool calls were refused" in said.text


def test_the_waits_cover_an_outage_of_some_minutes() -> None:
    """They double up to 15 s."""
    failed = BodyFailed("", retryable=True, unbilled=True)
    waits = [
        found.wait_s
        for tries in range(1, MODEL_RETRIES_DEFAULT + 2)
        if isinstance(found := after(failed, "model", MODEL_RETRIES_DEFAULT, Tried(tries)), Again)
    ]

    assert waits[:6] == [1, 2, 4, 8, 15, 15]
    assert (len(waits), 400 < sum(waits) < 420) == (30, True)


def test_what_failed_for_good_moves_on_at_its_first_try() -> None:
    """And where there is nowhere to go, it ends."""
    onward = Onward(1, SECOND)
    failed = BodyFailed("", retryable=False, unbilled=True, onward=onward)

    assert after(failed, "model", 30, Tried(1)) == onward
    assert after(BodyFailed("", retryable=False, unbilled=True), "model", 30, Tried(1)) is None
