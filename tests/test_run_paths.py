"""Every end that a run can take, on a real Temporal server and a real PostgreSQL."""

from __future__ import annotations

from typing import TypeAlias

import asyncpg
import pytest

from runward.contracts.budget import Budget, Cap
from runward.contracts.errors import AgentError, ApprovalRefused
from runward.contracts.policy import PerUserPermissions, StandardPermissions
from runward.testing.scripts import Call as Ask
from runward.testing.scripts import ask, ask_all, ask_badly, say
from runward.testing.stack import Stack
from tests.support import App

Owner: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
REFUND = ask("refund", order_id="17", amount="5.00")


async def test_a_question_is_answered_with_a_tool_call(stack: Stack) -> None:
    """The happy path: model, tool, model."""
    app = App([ask("lookup_order", order_id="17"), say("It was shipped.")])
    async with stack.worker(stack.plugin(**app.given)):
        ada = await stack.acting_as("ada")
        result = await ada.execute("support", "Where is order 17?")

    assert (result.output, result.turns, result.interrupted) == ("It was shipped.", 2, False)
    assert app.shop.lookups == ["17"]
    assert result.usage.tokens == sum(bill.usage.tokens for bill in app.bills.bills())


async def test_parallel_tools_answer_in_the_order_of_their_calls(stack: Stack) -> None:
    """Two calls in one turn both run, once."""
    both = ask_all(Ask("lookup_order", {"order_id": "1"}), Ask("lookup_order", {"order_id": "2"}))
    app = App([both, say("Both.")])
    async with stack.worker(stack.plugin(**app.given)):
        result = await (await stack.acting_as("ada")).execute("support", "Where are they?")

    assert result.output == "Both."
    assert sorted(app.shop.lookups) == ["1", "2"]


@pytest.mark.parametrize("by", ["update", "signal"])
async def test_an_approved_call_runs_once(stack: Stack, by: str) -> None:
    """Money asks; its requester may not answer; another user's approval runs it, by both doors."""
    app = App([REFUND, say("Refunded.")])
    async with stack.worker(stack.plugin(**app.given)):
        ada, bob = await stack.acting_as("ada"), await stack.acting_as("bob", ["finance"])
        run = await ada.start("support", "Refund order 17")
        request = await run.next_approval()
        with pytest.raises(
            ApprovalRefused, match=r"The requester may not decide\. Let another user.*'finance'"
        ):
            await ada.approvals.approve(request.id)
        assert app.shop.refunds == []
        if by == "update":
            await bob.approvals.approve(request.id, reason="checked")
        else:
            await bob.approvals.signal_decision(request.id, "approve", reason="checked")
        result = await run.result()

    assert result.output == "Refunded."
    assert [order for order, _ in app.shop.refunds] == ["17"]


async def test_a_rejected_call_is_told_to_the_model(stack: Stack) -> None:
    """The run goes on with `DENIED: approval declined`."""
    app = App([REFUND, say("Not refunded.")])
    async with stack.worker(stack.plugin(**app.given)):
        ada, bob = await stack.acting_as("ada"), await stack.acting_as("bob", ["finance"])
        run = await ada.start("support", "Refund order 17")
        await bob.approvals.reject((await run.next_approval()).id, reason="too late")
        result = await run.result()

    assert (result.output, app.shop.refunds) == ("Not refunded.", [])


async def test_a_user_without_the_role_may_not_approve(stack: Stack) -> None:
    """The approver's role is checked when the decision is made."""
    app = App([REFUND, say("Refunded.")])
    async with stack.worker(stack.plugin(**app.given)):
        ada, eve = await stack.acting_as("ada"), await stack.acting_as("eve", ["sales"])
        run = await ada.start("support", "Refund order 17")
        request = await run.next_approval()
        with pytest.raises(ApprovalRefused):
            await eve.approvals.approve(request.id)
        assert app.shop.refunds == []
        await run.cancel()


async def test_money_without_an_approver_is_denied(stack: Stack) -> None:
    """No approver's role: the call is refused, not left waiting for nobody."""
    app = App([REFUND, say("I may not.")], agent_options={"approver_role": None})
    async with stack.worker(stack.plugin(**app.given)):
        result = await (await stack.acting_as("ada")).execute("support", "Refund order 17")

    assert (result.output, app.shop.refunds) == ("I may not.", [])


async def test_a_denied_tool_does_not_run(stack: Stack) -> None:
    """The deny-list holds."""
    app = App([ask("lookup_order", order_id="17"), say("I may not look.")])
    policy = StandardPermissions(denied_tools=["lookup_order"])
    async with stack.worker(stack.plugin(policy=policy, **app.given)):
        result = await (await stack.acting_as("ada")).execute("support", "Where is order 17?")

    assert (result.output, app.shop.lookups) == ("I may not look.", [])


async def test_a_user_who_may_not_run_an_agent_gets_its_reason(stack: Stack, owner: Owner) -> None:
    """The first step is recorded as denied, no model is called; another user's run goes on."""
    app = App([say("Hello.")])
    policy = PerUserPermissions(
        {(stack.tenant, "eve"): StandardPermissions(allowed_agents=["billing"])}
    )
    async with stack.worker(stack.plugin(policy=policy, **app.given)):
        ada, eve = await stack.acting_as("ada"), await stack.acting_as("eve")
        assert (await ada.execute("support", "Hello?")).output == "Hello."
        run = await eve.start("support", "Hello?")
        with pytest.raises(AgentError, match=r"support: not in allow-list \(allowed_agents\)"):
            await run.result()
        recorded = await owner.fetch(
            "select s.step, s.state, r.state as run from runward.run r"
            " join runward.step s using (tenant, run_id) where r.workflow_id = $1",
            run.id,
        )

    assert [tuple(one) for one in recorded] == [("t1.model", "denied", "failed")]
    assert len(app.bills.bills()) == 1


async def test_a_run_under_way_ends_where_a_newer_policy_no_longer_allows_it(stack: Stack) -> None:
    app = App([REFUND, say("Refunded.")])
    async with stack.worker(stack.plugin(**app.given)):
        ada, bob = await stack.acting_as("ada"), await stack.acting_as("bob", ["finance"])
        run = await ada.start("support", "Refund order 17")
        request = await run.next_approval()
    newer = StandardPermissions(allowed_models=["scripted:other"])
    async with stack.worker(stack.plugin(policy=newer, **app.given)):
        await bob.approvals.approve(request.id)
        with pytest.raises(AgentError, match=r"scripted:support: not in .* \(allowed_models\)"):
            await run.result()

    assert (len(app.shop.refunds), len(app.bills.bills())) == (1, 1)


async def test_an_unknown_tool_is_refused_and_the_run_goes_on(stack: Stack) -> None:
    """A model may name anything."""
    app = App([ask("rm_rf", path="/"), say("No such tool.")])
    async with stack.worker(stack.plugin(**app.given)):
        result = await (await stack.acting_as("ada")).execute("support", "Clean up")

    assert result.output == "No such tool."


async def test_invalid_arguments_go_back_to_the_model(stack: Stack) -> None:
    """They do not fail the run."""
    app = App([ask_badly("lookup_order"), ask("lookup_order", wrong="x"), say("Sorry.")])
    async with stack.worker(stack.plugin(**app.given)):
        result = await (await stack.acting_as("ada")).execute("support", "Where is it?")

    assert (result.output, result.turns, app.shop.lookups) == ("Sorry.", 3, [])


async def test_max_turns_interrupts(stack: Stack) -> None:
    """The limit ends the run with its reason."""
    turns = [ask("lookup_order", order_id=str(n)) for n in range(5)]
    app = App(turns, agent_options={"max_turns": 2})
    async with stack.worker(stack.plugin(**app.given)):
        result = await (await stack.acting_as("ada")).execute("support", "Loop")

    assert (result.interrupted, result.interruption_reason) == (True, "max_turns_exceeded")
    assert result.turns == 2


async def test_a_users_cap_interrupts_with_its_reason(stack: Stack) -> None:
    """Once a cap has no room for a call, no call is sent."""
    app = App([say("Hello.")])
    budget = Budget(user=Cap(tokens=10, per="day"))
    async with stack.worker(stack.plugin(budget=budget, **app.given)):
        result = await (await stack.acting_as("ada")).execute("support", "Hello?")

    assert result.interruption_reason == "budget:per_user_max_tokens"
    assert app.bills.bills() == ()


async def test_an_unknown_agent_fails_the_run(stack: Stack) -> None:
    """The error says what was asked."""
    app = App([say("Hello.")])
    async with stack.worker(stack.plugin(**app.given)):
        with pytest.raises(AgentError, match=r"nobody: unknown agent\. `runward agents list"):
            await (await stack.acting_as("ada")).execute("nobody", "Hello?")


async def test_the_same_key_is_the_same_run(stack: Stack) -> None:
    """Asking twice under one key starts once; another user has keys of their own."""
    app = App([say("Hello.")])
    async with stack.worker(stack.plugin(**app.given)):
        ada, eve = await stack.acting_as("ada"), await stack.acting_as("eve")
        first = await ada.start("support", "Hello?", key="k")
        again = await ada.start("support", "Hello?", key="k")
        other = await eve.start("support", "Hello?", key="k")
        assert (await first.result()).output == (await again.result()).output == "Hello."
        await other.result()

    assert first.id == again.id != other.id
    assert len(app.bills.bills()) == 2


async def test_every_task_replayed_from_the_start_gives_the_same_run(stack: Stack) -> None:
    """Without a workflow cache each task replays the whole history."""
    app = App([ask("lookup_order", order_id="17"), REFUND, say("Done.")])
    async with stack.worker(stack.plugin(**app.given), max_cached_workflows=0):
        ada, bob = await stack.acting_as("ada"), await stack.acting_as("bob", ["finance"])
        run = await ada.start("support", "Refund order 17")
        await bob.approvals.approve((await run.next_approval()).id)
        result = await run.result()

    assert (result.output, len(app.shop.refunds)) == ("Done.", 1)


async def test_what_utf8_cannot_hold_does_not_break_a_run(stack: Stack) -> None:
    """A lone surrogate and a NUL, in an answer and in a call's arguments."""
    app = App([ask_badly("lookup_order", '{"order_id": "\ud800\x00"}'), say("Done \ud800\x00.")])
    async with stack.worker(stack.plugin(**app.given)):
        result = await (await stack.acting_as("ada")).execute("support", "Where is it?")

    assert result.output == "Done ?\ufffd."
