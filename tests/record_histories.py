"""Records the histories that `test_replay.py` replays: `python -m tests.record_histories`.

Do it again only for a change of workflow code that running executions are allowed to notice.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from temporalio.client import WorkflowFailureError

from runward.client.run_handle import RunHandle
from runward.store.migrate import migrate
from runward.testing.scripts import Call, ask, ask_all, say
from runward.testing.servers import Servers
from runward.testing.stack import Stack
from tests.support import App

HISTORIES = Path(__file__).parent / "histories"
REFUND = ask("refund", order_id="17", amount="5.00")
LOOKUPS = ask_all(Call("lookup_order", {"order_id": "1"}), Call("lookup_order", {"order_id": "2"}))

Play = Callable[[Stack, RunHandle[str]], Awaitable[None]]


async def _finish(stack: Stack, run: RunHandle[str]) -> None:
    await run.result()


async def _approve(stack: Stack, run: RunHandle[str]) -> None:
    bob = await stack.acting_as("bob", ["finance"])
    await bob.approvals.approve((await run.next_approval()).id)
    await run.result()


async def _cancel(stack: Stack, run: RunHandle[str]) -> None:
    await run.next_approval()
    await run.cancel()
    with suppress(WorkflowFailureError):
        await run.result()


RUNS: dict[str, tuple[App, Play]] = {
    "tools": (App([LOOKUPS, ask("lookup_order", order_id="3"), say("Both.")]), _finish),
    "approved": (App([REFUND, say("Refunded.")]), _approve),
    "cancelled": (App([REFUND, say("Refunded.")]), _cancel),
    "interrupted": (App([LOOKUPS, say("Never.")], agent_options={"max_turns": 1}), _finish),
}


async def record(stack: Stack) -> None:
    """Writes one history per run."""
    HISTORIES.mkdir(exist_ok=True)
    for name, (app, play) in RUNS.items():
        async with stack.worker(stack.plugin(**app.given)):
            ada = await stack.acting_as("ada")
            run = await ada.start("support", "Order 17")
            await play(stack, run)
            history = await ada.temporal.get_workflow_handle(run.id).fetch_history()
        (HISTORIES / f"{name}.json").write_text(history.to_json() + "\n", encoding="utf-8")


async def main() -> None:
    """Records on servers of its own."""
    servers = await asyncio.to_thread(Servers)
    try:
        await migrate(servers.addresses.postgres)
        with tempfile.TemporaryDirectory() as folder:
            addresses = servers.addresses
            async with Stack.open(
                addresses.postgres, addresses.temporal, key_file=Path(folder) / "key"
            ) as stack:
                await record(stack)
    finally:
        await asyncio.to_thread(servers.stop)


if __name__ == "__main__":
    asyncio.run(main())
