"""A user of the wheel tests agents with `runward.testing`; checkers read this only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, assert_type

from temporalio.client import WorkflowHistory
from temporalio.worker import Worker

from runward import Agent, Budget, Cap, KeyFile, RunwardClient, RunwardPlugin
from runward.client.run_handle import RunHandle
from runward.client.runs import ActingClient
from runward.contracts.providers import ModelRequest, ModelResponse, Stop
from runward.contracts.story import Story
from runward.contracts.usage import Usage
from runward.testing import (
    Addresses,
    Bill,
    Call,
    Cut,
    Fail,
    FileLedger,
    Hang,
    MemoryLedger,
    Ran,
    RanVerdict,
    Script,
    ScriptedModel,
    ScriptedProvider,
    Slow,
    Spend,
    Stack,
    Turn,
    ask,
    ask_all,
    ask_badly,
    bill_as,
    billed,
    failing,
    replay,
    say,
    scripted,
)

support = Agent("support", model="anthropic:m")


async def test_a_refund_waits_for_finance(runward_stack: Stack) -> None:
    """A test as docs/testing.md shows it: the fixture is a `Stack`."""
    model = scripted(support, ask("refund", order_id="17"), say("Refunded."))
    app = runward_stack.plugin(agents=[support], providers=[model], budget=Budget(run=Cap(calls=2)))
    assert_type(app, RunwardPlugin)
    ada = await runward_stack.acting_as("ada")
    bob = await runward_stack.acting_as("bob", roles=["finance"])
    assert_type(ada, ActingClient)

    async with runward_stack.worker(app, max_cached_workflows=0) as worker:
        assert_type(worker, Worker)
        run = await ada.start(support, "Refund order 17")
        await bob.approvals.approve((await run.next_approval()).id)
        assert (await run.result()).output == "Refunded."

    ran = await runward_stack.ran(run)
    assert_type(ran.verdicts, list[RanVerdict])
    assert ran.verdicts == [("refund", "ask", "consumed")]
    await replay(await runward_stack.history(run), plugin=app)
    await replay(Path("refund.json"), sandboxed=True)


async def stacks_are_typed(stack: Stack, run: RunHandle[Any], servers: Addresses) -> None:
    """A tenant of its own, on servers that are shared."""
    assert_type(stack.tenant, str)
    assert_type(stack.task_queue, str)
    assert_type(stack.key, KeyFile)
    assert_type(stack.database_url, str)
    assert_type(stack.temporal_address, str)
    assert_type(await stack.client(), RunwardClient)
    assert_type(await stack.acting_as("ada"), ActingClient)
    assert_type(await stack.history(run), WorkflowHistory)
    assert_type(await stack.history("id"), WorkflowHistory)
    assert_type(await stack.ran(run), Ran)
    assert_type(stack.plugin(approval_ttl=timedelta(hours=1)), RunwardPlugin)
    async with stack.worker(RunwardPlugin()) as worker:
        assert_type(worker, Worker)
    assert_type(servers.postgres, str)
    assert_type(servers.temporal, str)
    key = Path("issuer.key")
    assert_type(await Stack.create(servers.postgres, servers.temporal, key_file=key), Stack)
    async with Stack.open(servers.postgres, servers.temporal, key_file=key) as opened:
        assert_type(opened, Stack)


def what_ran_is_typed(ran: Ran, verdict: RanVerdict, spend: Spend) -> None:
    """What a run did, for assertions."""
    assert_type(ran.calls, list[str])
    assert_type(ran.verdicts, list[RanVerdict])
    assert_type(ran.spend, Spend)
    assert_type(ran.story, Story)
    assert_type(verdict.tool, str)
    assert_type(verdict.word, Literal["allow", "ask", "deny"])
    assert_type(verdict.why, str)
    assert_type(spend.calls, int)
    assert_type(spend.tokens, int)
    assert_type(spend.usd, Decimal)


def turns_are_typed(turn: Turn, call: Call, script: Script) -> None:
    """What a model is made to say."""
    assert_type(say("Refunded."), Turn)
    assert_type(ask("refund", order_id="17", amount=5), Turn)
    assert_type(ask_all(Call("refund", {"order_id": "17"}), Call("today")), Turn)
    assert_type(ask_badly("refund"), Turn)
    assert_type(failing(say("x"), Fail(429, 2.0), None, Slow(1), Hang(), Cut(billed=False)), Turn)
    assert_type(bill_as(say("x"), input=1, output=2), Turn)
    assert_type(turn.text, str)
    assert_type(turn.calls, Sequence[Call])
    assert_type(turn.usage, Usage | None)
    assert_type(turn.stop, Stop | None)
    assert_type(turn.faults, Sequence[Fail | Slow | Hang | Cut | None])
    assert_type(call.name, str)
    assert_type(call.arguments, Mapping[str, Any] | str)
    assert_type(call.text, str)
    assert_type(script.turns, Sequence[Turn])


def faults_are_typed(fail: Fail, slow: Slow, hang: Hang, cut: Cut) -> None:
    """What a provider is made to suffer."""
    assert_type(fail.status, int)
    assert_type(fail.retry_after_s, float | None)
    assert_type(fail.unbilled, bool)
    assert_type(slow.seconds, float)
    assert_type(hang.billed, bool)
    assert_type(cut.billed, bool)


async def models_are_typed(
    model: ScriptedModel, provider: ScriptedProvider, request: ModelRequest
) -> None:
    """Providers that play scripts."""
    assert_type(scripted("anthropic:m", say("Hello")), ScriptedModel)
    assert_type(model.name, str)
    assert_type(model.requests, list[ModelRequest])
    assert_type(model.bills, tuple[Bill, ...])
    assert_type(await model.call(request), ModelResponse)
    scripts = {"shop": Script([say("Hello")])}
    assert_type(ScriptedProvider(scripts), ScriptedProvider)
    assert_type(ScriptedProvider({"shop": lambda asked: say(asked.model)}), ScriptedProvider)
    assert_type(provider.name, str)
    assert_type(await provider.call(request), ModelResponse)


def bills_are_typed(file: FileLedger, memory: MemoryLedger, bill: Bill) -> None:
    """What was billed, by the provider's own books."""
    file = FileLedger("bills.jsonl")
    for ledger in (file, memory):
        assert_type(billed(ledger), Usage)
    file.bill(bill)
    memory.bill(bill)
    assert_type(file.bills(), tuple[Bill, ...])
    assert_type(memory.bills(), tuple[Bill, ...])
    assert_type(file.attempt("key"), int)
    assert_type(memory.attempt("key"), int)
    assert_type(bill.idempotency_key, str)
    assert_type(bill.model, str)
    assert_type(bill.usage, Usage)
