"""A worker killed in each window of a governed step, and answers of the store that get lost.

The refund and the letter run at once, and may share a statement. Whichever is inside at the kill
ends as its tool declares: a letter becomes a question to a person, a refund is tried once more. A
test that asserts otherwise of the other one waits for its record before the kill.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import asyncpg
import pytest

from bench.kill_ledgers import Ledger
from bench.kill_proxy import Function, Proxy, Side
from runward.contracts.policy import StandardPermissions
from runward.testing.scripts import FileLedger, ask, say
from runward.testing.stack import Stack
from runward.workers.child import Child, ChildOrder
from tests.support import App

BENCH = Path(__file__).parents[1] / "bench"
REACHED_S_MAX = 60.0
RESULT_S_MAX = 60.0  # a dead worker is noticed after 10 s
LOOK_EVERY_S = 0.05
REFUND, LETTER, PARCEL = "t1.tool.0", "t1.tool.1", "t2.tool.0"
PASSES_ALL = StandardPermissions(mode="bypassPermissions")
Owner: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


@dataclass
class Yard:
    """A stack, the world outside, and workers that run the agent of `bench/kill_app.py`."""

    stack: Stack
    ledger: Ledger
    proxy: Proxy
    owner: Owner
    folder: Path

    @property
    def effects(self) -> Counter[str]:
        """Returns how often each tool had its effect."""
        return Counter(one.tool for one in self.ledger.applied)

    @property
    def bills(self) -> Counter[str]:
        """Returns how often each model step was billed."""
        found = FileLedger(self.folder / "bills").bills()
        return Counter(one.idempotency_key.rpartition(":")[2] for one in found)

    async def worker(self) -> Child:
        """Starts a worker process; it ends with this one."""
        words = ["--app", "kill_app:app", "--task-queue", self.stack.task_queue]
        words += ["--database-url", self.proxy.dsn, "--address", self.stack.temporal_address]
        clean = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("RUNWARD_", "TEMPORAL_", "KILLS_"))
        }
        clean |= {"KILLS_LEDGER_PORT": str(self.ledger.port)}
        clean |= {"KILLS_BILLS": str(self.folder / "bills")}
        argv = [sys.executable, "-m", "runward.cli.main", "worker", *words]
        return await Child.start(
            ChildOrder(argv=argv, log=self.folder / "log", env=clean, cwd=BENCH)
        )

    async def done(self, step: str) -> None:
        """Returns once the store has recorded the step's outcome."""
        while True:
            found = await states(self.owner, self.stack.tenant)
            if step in found and found[step][0] == "done":
                return
            await asyncio.sleep(LOOK_EVERY_S)

    async def killed(self, reached: asyncio.Event, *, after: str | None = None) -> str:
        """Starts a run, kills its worker once it is in the window; returns the answer.

        A step named by `after` is recorded before the kill. What was held back is lost, and another
        worker takes the run over. If a person is asked, the answer is no.
        """
        ada, bob = await self.stack.acting_as("ada"), await self.stack.acting_as("bob", ["lead"])
        first = await self.worker()
        second: Child | None = None
        try:
            run = await ada.start("shop", "test/17")
            async with asyncio.timeout(REACHED_S_MAX):
                await reached.wait()
                if after is not None:
                    await self.done(after)
            os.kill(first.pid, signal.SIGKILL)
            assert await first.wait() == 128 + signal.SIGKILL
            self.proxy.release()
            self.ledger.release("test")
            second = await self.worker()
            result = asyncio.create_task(run.result(timeout=RESULT_S_MAX))
            while not result.done():
                for request in await bob.approvals.list():
                    await bob.approvals.reject(request.id)
                await asyncio.wait([result], timeout=0.2)
            return (await result).output
        finally:
            await first.stop()
            if second is not None:
                await second.stop()


@pytest.fixture
async def yard(stack: Stack, owner: Owner, tmp_path: Path) -> AsyncIterator[Yard]:
    async with Ledger() as ledger, Proxy(stack.database_url) as proxy:
        yield Yard(stack, ledger, proxy, owner, tmp_path)


async def states(owner: Owner, tenant: str) -> dict[str, tuple[str, int]]:
    """Returns each step's state, and how often it was admitted."""
    rows = await owner.fetch(
        "select step, state, tries from runward.step where tenant = $1", tenant
    )
    return {row["step"]: (row["state"], row["tries"]) for row in rows}


async def asked(owner: Owner, tenant: str) -> list[tuple[str, str]]:
    """Returns which steps a person was asked about, and why."""
    rows = await owner.fetch("select step, kind from runward.approval where tenant = $1", tenant)
    return [(row["step"], row["kind"]) for row in rows]


async def test_killed_before_the_open(yard: Yard, owner: Owner) -> None:
    """The store has never heard of the attempt: the letter is sent, and nobody is asked."""
    trap = yard.proxy.hold("step_open", "request", frozenset({LETTER}))
    assert await yard.killed(trap.reached) == "Everything is on its way."

    assert yard.effects == {"refund": 1, "letter": 1, "parcel": 1}
    found = await states(owner, yard.stack.tenant)
    assert found[LETTER] == ("done", 1)
    assert await asked(owner, yard.stack.tenant) == []


async def test_killed_after_the_open(yard: Yard, owner: Owner) -> None:
    """The intent is all there is: nobody can know, so a person is asked."""
    trap = yard.proxy.hold("step_open", "reply", frozenset({LETTER}))
    await yard.killed(trap.reached)

    assert yard.effects == {"refund": 1, "parcel": 1}
    found = await states(owner, yard.stack.tenant)
    assert found[LETTER][0] == "unknown"
    assert await asked(owner, yard.stack.tenant) == [(LETTER, "unknown")]


@pytest.mark.parametrize(
    ("tool", "step", "state", "after"),
    [
        ("refund", REFUND, "done", LETTER),
        ("letter", LETTER, "unknown", None),
        ("parcel", PARCEL, "unknown", None),
    ],
)
async def test_killed_after_the_effect(
    yard: Yard, owner: Owner, tool: str, step: str, state: str, after: str | None
) -> None:
    """The world has acted: the refund is finished under its key, nothing else comes twice."""
    await yard.killed(yard.ledger.withhold("test", tool).reached, after=after)

    assert yard.effects == {"refund": 1, "letter": 1, "parcel": 1}
    found = await states(owner, yard.stack.tenant)
    assert found[step][0] == state
    questions = [(LETTER, "unknown")] if tool == "letter" else []
    assert await asked(owner, yard.stack.tenant) == questions


async def test_killed_before_the_close(yard: Yard, owner: Owner) -> None:
    """A model call that was billed and never recorded is made again, and both are charged."""
    trap = yard.proxy.hold("step_close", "request", frozenset({"t2.model"}))
    await yard.killed(trap.reached)

    assert yard.effects == {"refund": 1, "letter": 1, "parcel": 1}
    assert yard.bills == {"t1.model": 1, "t2.model": 2, "t3.model": 1}
    holds = await owner.fetch(
        "select state from runward.hold where tenant = $1 and step = 't2.model'"
        " order by created_at",
        yard.stack.tenant,
    )
    assert [one["state"] for one in holds] == ["F", "S"]


@pytest.mark.parametrize(("step", "after"), [(LETTER, REFUND), ("t3.model", None)])
async def test_killed_after_the_close(
    yard: Yard, owner: Owner, step: str, after: str | None
) -> None:
    """What is recorded is returned to the next attempt: nothing runs or is billed twice."""
    trap = yard.proxy.hold("step_close", "reply", frozenset({step}))
    assert await yard.killed(trap.reached, after=after) == "Everything is on its way."

    assert yard.effects == {"refund": 1, "letter": 1, "parcel": 1}
    assert yard.bills == {"t1.model": 1, "t2.model": 1, "t3.model": 1}
    found = await states(owner, yard.stack.tenant)
    assert {one: how for one, how in found.items() if how != ("done", 1)} == {}


@pytest.mark.parametrize("tool", ["refund", "send_letter"])
@pytest.mark.parametrize("side", ["request", "reply"])
@pytest.mark.parametrize("function", ["step_open", "step_close"])
async def test_a_lost_ack_changes_nothing(
    stack: Stack, owner: Owner, function: Function, side: Side, tool: str
) -> None:
    """The connection breaks, the worker lives: it sends the same again, and the effect is one."""
    arguments = {"order_id": "17", "amount": "5.00"} if tool == "refund" else {"text": "17"}
    app = App([ask(tool, **arguments), say("Done.")])
    async with Proxy(stack.database_url) as proxy:
        plugin = stack.plugin(policy=PASSES_ALL, **app.given)
        plugin.database_url = proxy.dsn
        async with stack.worker(plugin):
            trap = proxy.hold(function, side, frozenset({"t1.tool.0"}))
            run = await (await stack.acting_as("ada")).start("support", "Please")
            async with asyncio.timeout(REACHED_S_MAX):
                await trap.reached.wait()
            proxy.release()
            result = await run.result(timeout=RESULT_S_MAX)

    assert result.output == "Done."
    assert (len(app.shop.refunds), len(app.shop.letters)) == (
        (1, 0) if tool == "refund" else (0, 1)
    )
    assert await states(owner, stack.tenant) == dict.fromkeys(
        ("t1.model", "t1.tool.0", "t2.model"), ("done", 1)
    )
    assert await asked(owner, stack.tenant) == []
    late = await owner.fetchval(
        "select count(*) from runward.audit_record where tenant = $1 and late", stack.tenant
    )
    assert late == 0
