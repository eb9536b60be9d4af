"""A user of the wheel defines agents, tools, rules and providers; checkers read this only."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict, assert_type

from pydantic import BaseModel, Field
from temporalio import activity
from typing_extensions import TypeForm

from runward import (
    Agent,
    Budget,
    Cap,
    File,
    ToolContext,
    tool,
)
from runward.contracts.budget import Dimension, Period
from runward.contracts.tools import Effect, OnUnknown, Tool


class Parcel(BaseModel):
    """Where an order is."""

    order_id: str
    days_left: Annotated[int, Field(ge=0)]


class Lost(BaseModel):
    """What became of an order that is nowhere."""

    why: str


class Row(TypedDict):
    """A row of a list."""

    order_id: str


class Shop:
    """What tools work on."""

    async def pay(self, order_id: str, amount: Decimal, key: str) -> None:
        """Pays back."""


# Tools: plain and with options, asynchronous and not, with what they work on and without.


@tool
def lookup_order(order_id: str) -> str:
    """Looks an order up."""
    return order_id


@tool
async def lookup_customer(ctx: ToolContext[Shop], name: str) -> Row:
    """Looks a customer up."""
    assert_type(ctx.deps, Shop)
    return Row(order_id=name)


@tool()
def today() -> str:
    """Tells the date."""
    return "Monday"


@tool(effect="money", idempotent=True, on_unknown="tell", timeout=5, retries=2)
async def refund(ctx: ToolContext[Shop], order_id: str, amount: Decimal) -> str:
    """Pays an order back."""
    await ctx.deps.pay(order_id, amount, ctx.idempotency_key)
    ctx.heartbeat("paid")
    return "paid"


@activity.defn
async def charge_card(card: str) -> str:
    """Charges a card, in a workflow of the user's own."""
    return card


charging = tool(charge_card, name="charge", effect="money", timeout=timedelta(seconds=5))


def tools_are_typed(ctx: ToolContext[Shop]) -> None:
    """A tool is a `Tool`, whatever it was made of; its body is called with these."""
    for one in (lookup_order, lookup_customer, today, refund, charging):
        assert_type(one, Tool)
    assert_type(tool(effect="write")(charge_card), Tool)
    assert_type(refund.name, str)
    assert_type(refund.effect, Effect)
    assert_type(refund.on_unknown, OnUnknown)
    assert_type(refund.timeout, timedelta)
    assert_type(refund.schema, dict[str, Any])
    assert_type(ctx.tenant, str)
    assert_type(ctx.user, str)
    assert_type(ctx.run_id, str)
    assert_type(ctx.step, str)
    assert_type(ctx.idempotency_key, str)
    assert_type(ctx.deps, Shop)
    assert_type(ctx.heartbeat(1, "two"), None)


# Agents: what they answer with is known by `output_type`, whatever kind of type that is.

assert_type(Agent("text", model="anthropic:m"), Agent[str])
assert_type(Agent("text", model="anthropic:m", output_type=str), Agent[str])
assert_type(Agent("a", model="anthropic:m", output_type=Parcel), Agent[Parcel])
assert_type(Agent[Parcel]("a", model="anthropic:m", output_type=Parcel), Agent[Parcel])
assert_type(Agent("a", model="anthropic:m", output_type=Parcel | Lost), Agent[Parcel | Lost])
assert_type(Agent("a", model="anthropic:m", output_type=Parcel | None), Agent[Parcel | None])
assert_type(Agent("a", model="anthropic:m", output_type=list[Parcel]), Agent[list[Parcel]])
assert_type(Agent("a", model="anthropic:m", output_type=dict[str, int]), Agent[dict[str, int]])
assert_type(Agent("a", model="anthropic:m", output_type=Annotated[int, Field(ge=0)]), Agent[int])
assert_type(
    Agent("a", model="anthropic:m", output_type=Literal["yes", "no"]), Agent[Literal["yes", "no"]]
)
assert_type(Agent("a", model="anthropic:m", output_type=Row), Agent[Row])

shipping = Agent(
    "shipping",
    model="anthropic:claude-sonnet-4-5",
    instructions="Say where an order is.",
    tools=[lookup_order, refund],
    output_type=Parcel,
    max_turns=5,
    max_output_tokens=1000,
    max_calls_per_turn=8,
    model_retries=3,
    fallback=["openai:gpt-5"],
    budget=Budget(run=Cap(tokens=1000)),
    approver_role="finance",
)


def agents_are_typed(one: Agent[Parcel]) -> None:
    """What an agent says of itself."""
    assert_type(shipping, Agent[Parcel])
    assert_type(one.name, str)
    assert_type(one.model, str)
    assert_type(one.models, tuple[str, ...])
    assert_type(one.instructions, str)
    assert_type(one.tools, tuple[Tool, ...])
    assert_type(one.tool("refund"), Tool | None)
    assert_type(one.output_type, TypeForm[Parcel])
    assert_type(one.max_turns, int)
    assert_type(one.budget, Budget | None)
    assert_type(one.approver_role, str | None)
    assert_type(one.snapshot, dict[str, Any])
    assert_type(one.snapshot_digest, str)
    assert_type(one.parse("{}"), Parcel)


def budgets_are_typed(budget: Budget, cap: Cap, file: File) -> None:
    """Caps, and files that go with a prompt."""
    assert_type(budget.run, Cap | None)
    assert_type(budget.user, Cap | None)
    assert_type(budget.on_exceeded, Literal["interrupt", "park"])
    assert_type(cap.tokens, int | None)
    assert_type(cap.input_tokens, int | None)
    assert_type(cap.output_tokens, int | None)
    assert_type(cap.usd, Decimal | float | int | None)
    assert_type(cap.calls, int | None)
    assert_type(cap.per, Period)
    assert_type(cap.limits(), Mapping[Dimension, int])
    assert_type(file.data, bytes)
    assert_type(file.media_type, str)
    assert_type(file.name, str)
    assert_type(File.from_path("photo.png", media_type="image/png"), File)
    assert_type(File.from_path(Path("photo.png")), File)
