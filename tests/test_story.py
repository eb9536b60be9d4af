"""What a client reads of runs: lists, the story of one, and what a user has spent."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from io import StringIO

import pytest
from rich.console import Console
from rich.tree import Tree as Branch

from runward.cli import times
from runward.cli.calls import story_rows
from runward.cli.story import Newest
from runward.client.runs import ActingClient
from runward.contracts.budget import Budget, Cap
from runward.contracts.errors import RequestRefused
from runward.contracts.runs import usd
from runward.testing.scripts import ask, bill_as, say
from runward.testing.stack import Stack
from tests.support import App, reset

TURNS = [
    bill_as(ask("refund", order_id="17", amount="5.00"), input=100, output=20),
    bill_as(say("Refunded."), input=200, output=10),
]
NANO_USD_INPUT, NANO_USD_OUTPUT = 1_000, 5_000  # the scripted model's price per token


async def people(stack: Stack) -> tuple[ActingClient, ActingClient]:
    return await stack.acting_as("ada"), await stack.acting_as("bob", roles=["finance"])


async def test_after_a_reset_each_request_stands_with_the_call_that_it_is_for(stack: Stack) -> None:
    """What is void says nothing of the call that waits now, nor the new request of the old call."""
    ada, bob = await people(stack)
    async with stack.worker(stack.plugin(**App(TURNS).given)):
        run = await ada.start("support", "Refund 17")
        before = await run.next_approval()
        await reset(stack, run.id, 1)
        again = ada.get(run.id)
        anew = await again.next_approval()
        waiting = await again.story()
        await bob.approvals.approve(anew.id)
        await again.result()
        await reset(stack, run.id, 1)
        await ada.get(run.id).result()
        ended = await ada.get(run.id).story()

    asked = {one.epoch: one.approvals for one in waiting.steps if one.step == "t1.tool.0"}
    assert {epoch: [(one.id, one.state) for one in found] for epoch, found in asked.items()} == {
        0: [(before.id, "void")],
        1: [(anew.id, "pending")],
    }
    # The call of the second reset is not asked for again: who approved it before did so for this.
    assert [
        [one.id for one in step.approvals]
        for step in sorted(ended.steps, key=lambda one: one.epoch)
        if step.step == "t1.tool.0"
    ] == [[before.id], [anew.id], [anew.id]]


async def test_a_story_tells_calls_costs_rules_and_approvals(stack: Stack) -> None:
    ada, bob = await people(stack)
    async with stack.worker(stack.plugin(**App(TURNS).given)):
        run = await ada.start("support", "Refund 17", session_id="case-17")
        await bob.approvals.approve((await run.next_approval()).id, reason="checked")
        await run.result()
        story = await run.story()

    assert [(one.step, one.name, one.state, one.turn) for one in story.steps] == [
        ("t1.model", "scripted:support", "done", 1),
        ("t1.tool.0", "refund", "done", 1),
        ("t2.model", "scripted:support", "done", 2),
    ]
    (asked,) = story.steps[1].approvals
    assert (asked.state, asked.decided_by, asked.reason) == ("consumed", "bob", "checked")
    assert asked.decided_at is not None
    assert asked.created_at < asked.decided_at < asked.expires_at
    note = story_rows(story)[1]["note"]
    decided = f"approval consumed by bob at {times.text(asked.decided_at)}: checked"
    assert note == f"refund: money call requires approval; {decided}"
    # The wait for a person counts: the call began when it was asked for.
    assert story.steps[1].opened_at == asked.created_at
    assert story.steps[1].rule == "mode:default"
    assert story.usage.tokens == 330
    nano = 300 * NANO_USD_INPUT + 30 * NANO_USD_OUTPUT
    assert sum(one.cost for one in story.steps) == nano
    assert (story.run.workflow_id, story.run.session, story.run.state) == (
        run.id,
        "case-17",
        "answered",
    )


async def test_a_denied_call_says_why(stack: Stack) -> None:
    ada, _ = await people(stack)
    async with stack.worker(stack.plugin(**App([ask("drop_table"), say("No.")]).given)):
        run = await ada.start("support", "Drop it")
        await run.result()
        story = await run.story()

    denied = story.steps[1]
    assert (denied.state, denied.rule) == ("denied", "definition")
    assert denied.reason == "drop_table: no such tool"


async def test_a_test_asserts_what_a_run_did(stack: Stack) -> None:
    ada, bob = await people(stack)
    turns = [ask("drop_table"), ask("lookup_order", order_id="17"), *TURNS]
    async with stack.worker(stack.plugin(**App(turns).given)):
        run = await ada.start("support", "Refund 17")
        await bob.approvals.approve((await run.next_approval()).id)
        await run.result()
        ran = await stack.ran(run)

    assert ran.calls == ["lookup_order", "refund"]
    assert ran.verdicts == [
        ("drop_table", "deny", "drop_table: no such tool"),
        ("lookup_order", "allow", "mode:default"),
        ("refund", "ask", "consumed"),
    ]
    assert ran.spend.calls == 4
    assert ran.spend.usd == ran.story.cost > 0


async def test_runs_are_listed_by_what_they_are(stack: Stack) -> None:
    ada, bob = await people(stack)
    async with stack.worker(stack.plugin(**App([say("Hello.")]).given)):
        mine = await ada.start("support", "Hello")
        await mine.result()
        other = await bob.start("support", "Hello", session_id="s-1")
        await other.result()

    assert [one.workflow_id for one in await ada.list()] == [other.id, mine.id]
    assert [one.workflow_id for one in await ada.list(user="ada")] == [mine.id]
    assert [one.workflow_id for one in await ada.list(session_id="s-1")] == [other.id]
    assert await ada.list(state="open") == []
    assert await ada.list(agent="nobody") == []
    assert len(await ada.list(limit=1)) == 1


async def test_a_users_usage_is_what_its_models_answered(stack: Stack) -> None:
    ada, bob = await people(stack)
    budget = Budget(user=Cap(tokens=1_000_000, per="day"))
    app = App([bill_as(say("Hello."), input=50, output=5)], agent_options={"budget": budget})
    async with stack.worker(stack.plugin(**app.given)):
        for _ in range(2):
            await ada.execute("support", "Hello")

    found = await bob.usage_for("ada")
    assert (found.runs, found.calls, found.usage.input, found.usage.output) == (2, 2, 100, 10)
    assert found.cost == usd(100 * NANO_USD_INPUT + 10 * NANO_USD_OUTPUT)
    (window,) = found.windows
    assert (window.dimension, window.cap, window.spent, window.held) == ("tokens", 10**6, 110, 0)
    assert (await bob.usage_for("bob")).calls == 0
    with pytest.raises(RequestRefused, match="No user has such a name"):
        await bob.usage_for("a\x00")
    later = datetime.now(UTC) + timedelta(hours=1)
    assert (await bob.usage_for("ada", since=later)).calls == 0


def test_a_tree_taller_than_the_screen_shows_its_end() -> None:
    root, screen = Branch("run"), Console(file=StringIO(), height=6, width=40)
    for number in range(30):
        root.add(f"call {number}")
    with screen.capture() as shown:
        screen.print(Newest(root))

    assert [line[4:] for line in shown.get().splitlines()] == [f"call {n}" for n in range(25, 30)]
