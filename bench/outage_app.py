"""The app whose worker meets the outages: a run is a model call, a refund, and another model call.

`runward worker --app outage_app:app` in this folder; the environment says where the world is.
"""

from __future__ import annotations

import os
from secrets import token_hex

from kill_ledgers import Effect, LedgerClient

from runward import Agent, Budget, Cap, RunwardPlugin, StandardPermissions, ToolContext, tool
from runward.activities.provider_anthropic import AnthropicProvider

LEDGER_PORT, MODEL_PORT = "OUTAGES_LEDGER_PORT", "OUTAGES_MODEL_PORT"
CLOCK, SABOTAGE = "OUTAGES_CLOCK", "OUTAGES_SABOTAGE"
AGENT, TOOL, ANSWER = "shop", "refund", "It is paid back."
MODEL_TIMEOUT_S = 2.0
Context = ToolContext[LedgerClient]


@tool(effect="money", idempotent=True)
async def refund(ctx: Context, order: str) -> str:
    """Pays an order back; the bank knows the key."""
    lane = order.partition("/")[0]
    # Sabotaged, a payment that is made twice under new keys: the judge has to see it.
    keys = [token_hex(8), token_hex(8)] if SABOTAGE in os.environ else [ctx.idempotency_key]
    for key in keys:
        await ctx.deps.ask(Effect(lane, TOOL, order, key, ctx.run_id, ctx.step))
    return "paid back"


def plugin(*, ledger_port: int, model_port: int) -> RunwardPlugin:
    """Returns the app on a ledger of effects and a provider."""
    agent = Agent(AGENT, model="anthropic:claude-sonnet-4-5", tools=[refund], max_output_tokens=64)
    url = f"https://127.0.0.1:{model_port}"
    return RunwardPlugin(
        agents=[agent],
        providers=[AnthropicProvider(base_url=url, timeout_s=MODEL_TIMEOUT_S)],
        deps=LedgerClient(ledger_port),
        policy=StandardPermissions(mode="bypassPermissions"),
        budget=Budget(run=Cap(tokens=10**9), user=Cap(tokens=10**12, per="day")),
    )


if LEDGER_PORT in os.environ:
    import outage_clock

    outage_clock.install(os.environ[CLOCK])
    app = plugin(ledger_port=int(os.environ[LEDGER_PORT]), model_port=int(os.environ[MODEL_PORT]))
