"""A support agent with three tools, and the caps on it: what a user of runward writes."""

from __future__ import annotations

from decimal import Decimal

from ledgers import LedgerClient
from script import SCRIPTED_MODEL, support_script

from runward import Agent, Budget, Cap, RunwardPlugin, ToolContext, tool
from runward.testing.scripts import ScriptedProvider

# A real model counts more tokens for the same words.
TOKENS_PER_DAY, TOKENS_PER_DAY_SCRIPTED = 12_000, 5_000
APPROVER_ROLE = "support-lead"

INSTRUCTIONS = """\
You are the support agent of a shop. Do what the customer asks with the tools, one call at a time
and without asking back, then answer in one sentence. Repeat tracking numbers exactly. Call a tool
once per request: where it was denied, or its outcome is unknown, say so and do not call it again.
"""


@tool
async def lookup_order(ctx: ToolContext[LedgerClient], order_id: str) -> str:
    """Looks an order up and returns its tracking number."""
    number = await ctx.deps.ask("orders", order_id=order_id)
    return f"order {order_id} is on its way, tracking number {number}"


@tool(effect="money", idempotent=True)
async def refund(ctx: ToolContext[LedgerClient], order_id: str, amount: Decimal) -> str:
    """Pays an amount of EUR back for an order."""
    # The bank takes the key: the same request again changes nothing there.
    await ctx.deps.ask(
        "refunds", key=ctx.idempotency_key, order_id=order_id, amount=f"{amount:.2f}"
    )
    return f"EUR {amount:.2f} for order {order_id} paid back"


@tool(effect="external", on_unknown="ask")
async def send_letter(ctx: ToolContext[LedgerClient], to: str, text: str) -> str:
    """Sends a letter by post."""
    await ctx.deps.ask("letters", to=to, text=text)
    return f"letter to {to} posted"


def tokens_per_day(model: str) -> int:
    """Returns the cap of each user, which the third scene reaches within a few questions."""
    return TOKENS_PER_DAY_SCRIPTED if model == SCRIPTED_MODEL else TOKENS_PER_DAY


def build(model: str, ledgers: LedgerClient) -> RunwardPlugin:
    """Returns the app with this model and these ledgers."""
    support: Agent[str] = Agent(
        "support",
        model=model,
        instructions=INSTRUCTIONS,
        tools=[lookup_order, refund, send_letter],
        max_turns=8,
        max_output_tokens=500,
        approver_role=APPROVER_ROLE,
    )
    return RunwardPlugin(
        agents=[support],
        providers=[ScriptedProvider({"support": support_script})],
        deps=ledgers,
        budget=Budget(
            run=Cap(tokens=50_000, usd=1), user=Cap(tokens=tokens_per_day(model), per="day")
        ),
    )
