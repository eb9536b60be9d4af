"""The agent that most tests of runs use, what its tools did, and a reset."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from uuid import uuid4

from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import EventType
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.client import Client

from runward.contracts.agents import Agent
from runward.contracts.tools import Tool, ToolContext, tool
from runward.testing.scripts import MemoryLedger, Script, ScriptedProvider, Turn
from runward.testing.stack import Stack


@dataclass
class Shop:
    """What the tools did, in order."""

    refunds: list[tuple[str, str]] = field(default_factory=list)  # (order, idempotency key)
    letters: list[str] = field(default_factory=list)
    lookups: list[str] = field(default_factory=list)


def shop_tools() -> list[Tool]:
    """Returns the tools of a support agent."""

    @tool
    async def lookup_order(ctx: ToolContext[Shop], order_id: str) -> str:
        """Returns where an order is."""
        ctx.deps.lookups.append(order_id)
        return f"order {order_id} was shipped"

    @tool(effect="money", idempotent=True)
    async def refund(ctx: ToolContext[Shop], order_id: str, amount: Decimal) -> str:
        """Pays an order back."""
        ctx.deps.refunds.append((order_id, ctx.idempotency_key))
        return f"refunded {amount} for {order_id}"

    @tool(effect="external")
    def send_letter(ctx: ToolContext[Shop], text: str) -> str:
        """Sends a letter."""
        ctx.deps.letters.append(text)
        return "sent"

    return [lookup_order, refund, send_letter]


@dataclass
class App:
    """A support agent with a script, ready for `stack.plugin(**app.given)`."""

    turns: list[Turn]
    shop: Shop = field(default_factory=Shop)
    bills: MemoryLedger = field(default_factory=MemoryLedger)
    agent_options: dict[str, Any] = field(default_factory=dict)

    @property
    def given(self) -> dict[str, Any]:
        """Returns what the plugin takes."""
        options = {"tools": shop_tools(), "approver_role": "finance", **self.agent_options}
        agent: Agent[Any] = Agent("support", model="scripted:support", **options)
        provider = ScriptedProvider({"support": Script(self.turns)}, ledger=self.bills)
        return {"agents": [agent], "providers": [provider], "deps": self.shop}


async def reset(stack: Stack, workflow_id: str, task: int) -> None:
    """Begins the workflow again from its workflow task number `task`, from 1 on; 0 is the last."""
    temporal = await Client.connect(stack.temporal_address)
    tasks = [
        event.event_id
        async for event in temporal.get_workflow_handle(workflow_id).fetch_history_events()
        if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED
    ]
    await temporal.workflow_service.reset_workflow_execution(
        ResetWorkflowExecutionRequest(
            namespace=temporal.namespace,
            workflow_execution=WorkflowExecution(workflow_id=workflow_id),
            reason="test",
            workflow_task_finish_event_id=tasks[task - 1],
            request_id=uuid4().hex,
        )
    )
