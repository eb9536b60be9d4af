"""What both checkers must refuse: the line below each comment that says so, and no other line.

The comment names the error as mypy does, and as pyright does.
"""

from __future__ import annotations

from typing import assert_type

from pydantic import BaseModel

import runward
import runward.testing
from runward import (
    Agent,
    Cap,
    RunwardClient,
    RunwardPlugin,
    StandardPermissions,
    ToolContext,
    tool,
)
from runward.client.approvals import Approvals
from runward.client.run_handle import RunHandle
from runward.client.runs import ActingClient
from runward.contracts.approvals import Approval
from runward.contracts.providers import ModelRequest
from runward.contracts.transcript import ToolCall
from runward.testing import Stack, say, scripted


class Parcel(BaseModel):
    """Where an order is."""

    days_left: int


class Shop:
    """What tools work on."""


class Deaf:
    """No provider: its call is not asynchronous."""

    name = "deaf"

    def call(self, request: ModelRequest) -> str:
        """Returns the text, which is no answer."""
        return request.model


class Lax:
    """No policy: it judges nothing."""


shipping = Agent("shipping", model="anthropic:m", output_type=Parcel)


def definitions_that_cannot_be(ctx: ToolContext[Shop]) -> None:
    """Names and options that do not exist, and values of other types."""
    # refused: attr-defined, reportAttributeAccessIssue
    _ = runward.Agnet
    # refused: attr-defined, reportAttributeAccessIssue
    _ = runward.testing.scriptd
    # refused: assignment, reportAssignmentType
    text: Agent[str] = shipping
    # refused: arg-type, reportArgumentType
    Agent[int]("a", model="anthropic:m", output_type=Parcel)
    # refused: arg-type, reportArgumentType
    Agent("a", model="anthropic:m", output_type=3)
    # refused: call-arg, reportCallIssue
    Agent("a", model="anthropic:m", tool=[])
    # refused: list-item, reportArgumentType
    Agent("a", model="anthropic:m", tools=[print])
    # refused: call-overload, reportArgumentType
    tool(effect="payment")
    # refused: attr-defined, reportAttributeAccessIssue
    ctx.deps.pay("17")
    # refused: arg-type, reportArgumentType
    StandardPermissions("yolo")
    # refused: arg-type, reportArgumentType
    Cap(usd="5")
    # refused: list-item, reportArgumentType
    RunwardPlugin(agents=[text], providers=[Deaf()])
    # refused: arg-type, reportArgumentType
    RunwardPlugin(policy=Lax())
    # refused: call-arg, reportCallIssue
    ToolCall(i="1", n="refund", a="{}")


# refused: type-arg, reportMissingTypeArgument
def a_context_of_nothing(ctx: ToolContext) -> str:
    """Returns what only `--strict` and strict refuse: nobody says what `deps` is."""
    return ctx.user


async def runs_that_cannot_be(ada: ActingClient, rw: RunwardClient, run: RunHandle[Parcel]) -> None:
    """Outputs taken for other types, and calls that nobody waits for."""
    # refused: call-arg, reportCallIssue
    rw.acting_as("ada")
    # refused: attr-defined, reportAttributeAccessIssue
    ada.start(shipping, "Where?").result()
    # refused: unused-coroutine, reportUnusedCoroutine
    run.cancel()
    # refused: arg-type, reportAssignmentType
    handle: RunHandle[str] = await ada.start(shipping, "Where?")
    # refused: assignment, reportAssignmentType
    days: str = (await run.result()).parsed.days_left
    # refused: attr-defined, reportAttributeAccessIssue
    print((await run.result()).parsed.weight, handle, days)
    # refused: attr-defined, reportAttributeAccessIssue
    print((await ada.execute("shipping", "Where?")).parsed.days_left)
    # refused: assert-type, reportAssertTypeFailure
    assert_type(ada.get("id", shipping), RunHandle[str])
    # refused: arg-type, reportArgumentType
    await ada.list(state="closed")
    # refused: attr-defined, reportGeneralTypeIssues
    for _ in run.watch():
        break
    # refused: misc, reportGeneralTypeIssues
    await run.watch()


async def tests_that_cannot_be(approvals: Approvals, one: Approval, stack: Stack) -> None:
    """Requests taken for their ids, turns for text."""
    # refused: arg-type, reportArgumentType
    await approvals.approve(one)
    # refused: arg-type, reportArgumentType
    await approvals.list("open")
    # refused: arg-type, reportArgumentType
    scripted(shipping, "Hello", say("Hello"))
    # refused: attr-defined, reportAttributeAccessIssue
    stack.acting_as("ada").execute(shipping, "Where?")
