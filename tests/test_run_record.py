"""What a run leaves for people: Temporal's UI, the audit log, and what a tool is told."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import Any, TypeAlias

import asyncpg
from temporalio.api.enums.v1 import EventType
from temporalio.api.sdk.v1 import WorkflowMetadata
from temporalio.client import WorkflowHistory

from runward.client.run_handle import RunHandle
from runward.client.runs import ActingClient
from runward.contracts.agents import Agent
from runward.contracts.audit import leaf_hash
from runward.contracts.tools import ToolContext, tool
from runward.testing.scripts import Call, ask, ask_all, say, scripted
from runward.testing.stack import Stack
from tests.support import App

POLL_S = 0.05

Owner: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


def _results(history: WorkflowHistory) -> list[dict[str, Any]]:
    """Returns what each activity returned, as the history holds it."""
    return [
        json.loads(event.activity_task_completed_event_attributes.result.payloads[0].data)
        for event in history.events
        if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED
    ]


def _summaries(history: WorkflowHistory) -> list[str]:
    return [
        json.loads(event.user_metadata.summary.data)
        for event in history.events
        if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED
    ]


async def _shown(run: RunHandle[Any], ada: ActingClient) -> str:
    handle = ada.temporal.get_workflow_handle(run.id)
    said = await handle.query("__temporal_workflow_metadata", result_type=WorkflowMetadata)
    return str(said.current_details)


async def test_a_run_reads_like_a_story_in_temporals_ui(stack: Stack) -> None:
    """The agent's name, a summary at each step, what it has spent and what it waits for now."""
    calls = [Call("refund", f'{{"order_id": "{one}", "amount": "5.00"}}') for one in (17, 18)]
    app = App([ask_all(*calls, Call("x" * 500, "{}")), say("Refunded.")])
    async with stack.worker(stack.plugin(**app.given)):
        ada, bob = await stack.acting_as("ada"), await stack.acting_as("bob", ["finance"])
        run = await ada.start("support", "Refund orders 17 and 18")
        async with asyncio.timeout(30):
            while (both := await _shown(run, ada)).count("Waiting") < 2:  # noqa: ASYNC110
                await asyncio.sleep(POLL_S)
        first, second = await ada.approvals.list()
        await bob.approvals.approve(first.id)
        one = await _shown(run, ada)
        await bob.approvals.approve(second.id)
        await run.result()
        ended = await _shown(run, ada)
        found = await ada.temporal.get_workflow_handle(run.id).describe()

    tags = ada.tags.of(ada.principal, "support")
    assert await found.static_summary() == "support"
    assert (await found.static_details() or "").startswith(
        f"for user `{tags['RunwardUser']}` of tenant `{tags['RunwardTenant']}`"
    )
    spent = "turn 1 · 153 tokens · $0.000741"
    assert both.startswith(f"**support** calls refund, no such tool\n\n{spent}\n\n**Waiting")
    assert first.id in both and second.id in both
    assert first.id not in one and second.id in one
    assert ended.startswith("**support** answered\n\nturn 2 · ") and second.id not in ended
    told = _summaries(await stack.history(run))
    assert told[0] == "turn 1 · model" and told[-1] == "turn 2 · model"
    assert Counter(told[1:-1]) == {
        "turn 1 · refund": 2,
        "turn 1 · no such tool": 1,
        "decide approval": 2,
        "turn 1 · refund · again": 2,
    }


async def test_every_effect_is_attributed_before_and_after(stack: Stack, owner: Owner) -> None:
    """Intent, outcome and decision name who and what; the history holds the outcomes' leaves."""
    app = App([ask("refund", order_id="17", amount="5.00"), say("Refunded.")])
    async with stack.worker(stack.plugin(**app.given)):
        ada, bob = await stack.acting_as("ada"), await stack.acting_as("bob", ["finance"])
        run = await ada.start("support", "Refund order 17", session_id="s-1")
        request = await run.next_approval()
        await bob.approvals.approve(request.id)
        result = await run.result()
    rows = await owner.fetch(
        "select leaf from runward.audit_record where tenant = $1", stack.tenant
    )
    leaves = [json.loads(row["leaf"]) for row in rows]

    steps = ("0.0.t1.model", "0.0.t1.tool.0", "0.0.t2.model")
    assert Counter((one["kind"], one.get("step", "")) for one in leaves) == Counter(
        [
            ("run_started", ""),
            *((kind, step) for kind in ("intent", "outcome") for step in steps),
            ("approval", "t1.tool.0"),
            ("run_ended", ""),
        ]
    )
    decided = [one for one in leaves if one["kind"] == "approval"]
    assert [(one["tenant"], one["user"], one["action"], one["outcome"]) for one in decided] == [
        (stack.tenant, "bob", "approval.approve", request.id)
    ]
    whose = {(one["tenant"], one["session"], one["run"], one["agent"]) for one in leaves}
    assert whose == {(stack.tenant, "s-1", result.run_id, "support")}
    assert {one["user"] for one in leaves if one not in decided} == {"ada"}
    hashes = {leaf_hash(row["leaf"]) for row in rows}
    anchored = [one["l"] for one in _results(await stack.history(run)) if "l" in one]
    assert len(anchored) == 3 and set(anchored) <= hashes


async def test_a_tool_is_told_for_whom_it_acts(stack: Stack) -> None:
    """And the model is told its name, its docstring and its schema."""
    seen: list[ToolContext[list[str]]] = []

    @tool
    def look(ctx: ToolContext[list[str]], order_id: str, deep: bool = False) -> str:
        """Looks an order up."""
        ctx.heartbeat("looking")
        seen.append(ctx)
        return f"{order_id} {deep}"

    agent = Agent("support", model="scripted:x", tools=[look])
    model = scripted(agent, ask("look", order_id="17"), say("There."))
    plugin = stack.plugin(agents=[agent], providers=[model], deps=["ours"])
    async with stack.worker(plugin):
        run = await (await stack.acting_as("ada")).start("support", "Where?")
        result = await run.result()

    (ctx,) = seen
    assert (ctx.tenant, ctx.user, ctx.run_id, ctx.step, ctx.deps) == (
        stack.tenant, "ada", result.run_id, "t1.tool.0", ["ours"],
    )  # fmt: skip
    assert ctx.idempotency_key.endswith(":t1.tool.0")
    (told,) = model.requests[0].tools
    assert (told.name, told.description) == ("look", "Looks an order up.")
    assert set(told.schema["properties"]) == {"order_id", "deep"}
    assert told.schema["required"] == ["order_id"]
