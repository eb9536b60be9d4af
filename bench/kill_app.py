"""The app that the killed workers run: one run has three model calls and three effects.

`runward worker --app kill_app:app` in this folder; the environment says where the world is.
"""

from __future__ import annotations

import os
from typing import Any

from kill_ledgers import Effect, LedgerClient

from runward import Agent, Budget, Cap, RunwardPlugin, StandardPermissions, ToolContext, tool
from runward.contracts.providers import ModelRequest
from runward.contracts.transcript import AssistantMessage, UserMessage
from runward.testing.scripts import (
    Call,
    FileLedger,
    ScriptedProvider,
    Slow,
    Turn,
    ask,
    ask_all,
    failing,
    say,
)

PORT, BILLS = "KILLS_LEDGER_PORT", "KILLS_BILLS"
SABOTAGE = "KILLS_SABOTAGE"
AGENT, ROLE, ANSWER = "shop", "lead", "Everything is on its way."
MODEL_S = 0.02  # after it was billed
Context = ToolContext[LedgerClient]


@tool(effect="money", idempotent=True)
async def refund(ctx: Context, order: str) -> str:
    """Pays an order back; the bank knows the key."""
    await _ask(ctx, "refund", order)
    return "paid back"


@tool(effect="external", on_unknown="ask")
async def letter(ctx: Context, order: str) -> str:
    """Sends a letter; if nobody knows whether it was sent, a person is asked."""
    await _ask(ctx, "letter", order)
    return "sent"


@tool(effect="external", on_unknown="tell")
async def parcel(ctx: Context, order: str) -> str:
    """Sends a parcel; if nobody knows whether it was sent, the model is told."""
    await _ask(ctx, "parcel", order)
    return "sent"


async def _ask(ctx: Context, name: str, order: str) -> None:
    lane = order.partition("/")[0]
    await ctx.deps.ask(Effect(lane, name, order, ctx.idempotency_key, ctx.run_id, ctx.step))


def script(request: ModelRequest) -> Turn:
    """Returns the next turn: a refund and a letter at once, then a parcel, then the answer."""
    order = next(one.text for one in request.messages if isinstance(one, UserMessage))
    turns = (
        ask_all(Call("refund", {"order": order}), Call("letter", {"order": order})),
        ask("parcel", order=order),
        say(ANSWER),
    )
    number = sum(isinstance(one, AssistantMessage) for one in request.messages)
    return failing(turns[number], *[Slow(MODEL_S)] * 3)


def plugin(*, port: int, bills: str, **given: Any) -> RunwardPlugin:
    """Returns the app on a ledger of effects and a provider's ledger of bills."""
    agent = Agent(
        AGENT,
        model=f"scripted:{AGENT}",
        tools=[refund, letter, parcel],
        max_output_tokens=64,
        approver_role=ROLE,
    )
    return RunwardPlugin(
        agents=[agent],
        providers=[ScriptedProvider({AGENT: script}, ledger=FileLedger(bills))],
        deps=LedgerClient(port),
        policy=StandardPermissions(mode="bypassPermissions"),
        budget=Budget(run=Cap(tokens=10**9), user=Cap(tokens=10**12, per="day")),
        **given,
    )


if PORT in os.environ:
    if os.environ.get(SABOTAGE):
        import kill_sabotage  # noqa: F401  it changes the governed step of this process
    app = plugin(port=int(os.environ[PORT]), bills=os.environ[BILLS])
