"""Records the histories that `test_replay.py` replays: `python -m tests.record_histories NAME...`

Without names it records what is missing. What is there was written by an earlier release: that it
can be read and replayed is the point. Record one again only for a change of workflow code that
running executions are allowed to notice.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from temporalio.client import WorkflowFailureError, WorkflowHistory

from runward.client.run_handle import RunHandle
from runward.contracts import names
from runward.contracts.budget import Budget, Cap
from runward.contracts.errors import AgentError
from runward.contracts.tools import Tool, ToolContext, tool
from runward.store.migrate import migrate
from runward.testing.scripts import Call, ask, ask_all, say
from runward.testing.servers import Servers
from runward.testing.stack import Stack
from runward.workers.temporal_binary import find_temporal
from runward.workers.temporal_dev_server import TemporalDevServer
from tests.support import App, reset
from tests.users_code import Cards, Charges

HISTORIES = Path(__file__).parent / "histories"
REFUND = ask("refund", order_id="17", amount="5.00")
LOOKUPS = ask_all(Call("lookup_order", {"order_id": "1"}), Call("lookup_order", {"order_id": "2"}))

FETCH = ask("fetch", what="17")
SUGGEST_AFTER_EVENTS = 20  # to continue as new

Play = Callable[[Stack, RunHandle[str]], Awaitable[None]]
Record = Callable[[Stack], Awaitable[dict[str, WorkflowHistory]]]


async def _finish(stack: Stack, run: RunHandle[str]) -> None:
    await run.result()


async def _fail(stack: Stack, run: RunHandle[str]) -> None:
    with suppress(AgentError):
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


async def _reset(stack: Stack, run: RunHandle[str]) -> None:
    await _approve(stack, run)
    await reset(stack, run.id, 2)
    await (await stack.acting_as("ada")).get(run.id).result()


def _flaky() -> Tool:
    tries: list[str] = []

    @tool(retries=1)
    async def fetch(ctx: ToolContext[object], what: str) -> str:
        """Fetches something, at the second try."""
        tries.append(what)
        if len(tries) == 1:
            raise ConnectionError("the shop is away")
        return f"{what} is here"

    return fetch


RUNS: dict[str, tuple[App, Play]] = {
    "tools": (App([LOOKUPS, ask("lookup_order", order_id="3"), say("Both.")]), _finish),
    "approved": (App([REFUND, say("Refunded.")]), _approve),
    "cancelled": (App([REFUND, say("Refunded.")]), _cancel),
    "repaired": (
        App([LOOKUPS, say("none"), say("[1]")], agent_options={"output_type": list[int]}),
        _finish,
    ),
    "unfit": (App([say("none"), say("one")], agent_options={"output_type": list[int]}), _fail),
    "interrupted": (App([LOOKUPS, say("Never.")], agent_options={"max_turns": 1}), _finish),
    "retried": (App([FETCH, say("Done.")], agent_options={"tools": [_flaky()]}), _finish),
    "reset": (App([REFUND, say("Refunded.")]), _reset),
}


async def _parked(stack: Stack) -> dict[str, WorkflowHistory]:
    app = App([say("Paid for.")])
    small, large = (
        Budget(user=Cap(tokens=one, per="day"), on_exceeded="park") for one in (10, 100_000)
    )
    async with stack.worker(stack.plugin(budget=small, **app.given)):
        run = await (await stack.acting_as("ada")).start("support", "Order 17")
        while (await run.status()).state != "parked":  # noqa: ASYNC110  # the run decides when
            await asyncio.sleep(0.05)
    async with stack.worker(stack.plugin(budget=large, **app.given)):
        temporal = (await stack.client()).temporal
        await temporal.get_workflow_handle(run.id).signal(names.BUDGET_RAISED_SIGNAL)
        await run.result()
        return {"parked": await stack.history(run)}


async def _continued(stack: Stack) -> dict[str, WorkflowHistory]:
    """Returns both executions of a run, from a server that suggests to continue as new early."""
    binary = await find_temporal(None, progress=lambda _: None)
    setting = f"limit.historyCount.suggestContinueAsNew={SUGGEST_AFTER_EVENTS}"
    turns = [ask("lookup_order", order_id="1"), ask("lookup_order", order_id="2"), say("Both.")]
    async with TemporalDevServer(binary, None, ui=False, dynamic_config=[setting]) as server:
        hurried = Stack(stack.database_url, server.address, stack.key)
        hurried.tenant = stack.tenant  # the issuer speaks for this one
        async with hurried.worker(hurried.plugin(**App(turns).given)):
            ada = await hurried.acting_as("ada")
            run = await ada.start("support", "Order 17")
            first = (await run.result()).run_id
            handle = ada.temporal.get_workflow_handle(run.id, run_id=first)
            return {
                "continued-1": await handle.fetch_history(),
                "continued-2": await hurried.history(run),
            }


async def _charged(stack: Stack) -> dict[str, WorkflowHistory]:
    """Returns a user's own workflow, whose governed activity a person approved."""
    cards = Cards()
    plugin = stack.plugin(govern=[tool(cards.charge, effect="money")], approver_role="finance")
    async with stack.worker(plugin, workflows=[Charges], activities=[cards.charge]):
        ada, bob = await stack.acting_as("ada"), await stack.acting_as("bob", ["finance"])
        run = await ada.temporal.start_workflow(
            Charges.run, args=["17", False], id=uuid4().hex, task_queue=stack.task_queue
        )
        await bob.approvals.approve((await ada.get(run.id).next_approval()).id)
        await run.result()
        return {"charged": await stack.history(run.id)}


FURTHER: dict[tuple[str, ...], Record] = {
    ("parked",): _parked,
    ("continued-1", "continued-2"): _continued,
    ("charged",): _charged,
}
OWN = (*RUNS, "parked", "continued-1", "continued-2")  # executions of `AgentRun`
EVERY = (*OWN, "charged")


async def record(stack: Stack, wanted: Collection[str]) -> None:
    """Writes these histories."""
    HISTORIES.mkdir(exist_ok=True)
    for name, (app, play) in RUNS.items():
        if name in wanted:
            async with stack.worker(stack.plugin(**app.given)):
                run = await (await stack.acting_as("ada")).start("support", "Order 17")
                await play(stack, run)
                _write({name: await stack.history(run)})
    for made, make in FURTHER.items():
        if set(made) & set(wanted):
            _write(await make(stack))


def _write(histories: dict[str, WorkflowHistory]) -> None:
    for name, history in histories.items():
        (HISTORIES / f"{name}.json").write_text(history.to_json() + "\n", encoding="utf-8")


async def main() -> None:
    """Records on servers of its own."""
    missing = [name for name in EVERY if not (HISTORIES / f"{name}.json").exists()]
    servers = await asyncio.to_thread(Servers)
    try:
        await migrate(servers.addresses.postgres)
        with tempfile.TemporaryDirectory() as folder:
            addresses = servers.addresses
            async with Stack.open(
                addresses.postgres, addresses.temporal, key_file=Path(folder) / "key"
            ) as stack:
                await record(stack, sys.argv[1:] or missing)
    finally:
        await asyncio.to_thread(servers.stop)


if __name__ == "__main__":
    asyncio.run(main())
