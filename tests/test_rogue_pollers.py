"""Forged completions, and pollers in a worker's place: what the namespace may do to a run."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest
from temporalio.api.common.v1 import Payload

from runward.contracts import names
from runward.contracts.encoding import digest
from runward.contracts.errors import REFUSED, WAITING, AgentError
from runward.contracts.outcomes import ModelDone, encode_outcome
from runward.contracts.runs import ToolStep
from runward.contracts.transcript import AssistantMessage, ToolCall
from runward.contracts.wire import JSON_PLAIN
from runward.testing.scripts import Hang, ask, failing, say
from runward.testing.stack import Stack
from tests.attacker import FREE, LOOK_AGAIN_S, Attacker, payload
from tests.support import App

ARGUMENTS = '{"amount":"5.00","order_id":"17"}'
FORGED = '{"amount":"9999.00","order_id":"66"}'
REFUND = ask("refund", order_id="17", amount="5.00")


def tool_step(arguments: str = FORGED, *, index: int = 0) -> Payload:
    """Returns the input of a refund as the loop would write it."""
    step = ToolStep(turn=1, index=index, call_id="call_0_0", name="refund", arguments=arguments,
                    digest=digest(arguments.encode()))  # fmt: skip
    return payload(step)


def answer(*calls: ToolCall, text: str = "") -> Payload:
    """Returns a model's outcome as a worker would write it."""
    done = ModelDone(message=AssistantMessage(text=text, calls=calls), stop="end")
    return Payload(metadata=JSON_PLAIN, data=encode_outcome(done))


async def test_a_forged_answer_of_the_model_runs_no_tool(stack: Stack) -> None:
    """The model step is answered in its worker's place: no recorded outcome leads to the refund."""
    app = App([failing(say("Never heard."), Hang())])
    async with stack.worker(stack.plugin(policy=FREE, **app.given)):
        attacker = await Attacker.of(stack)
        run = await (await stack.acting_as("ada")).start("support", "Refund order 17")
        await _inside(app)
        call = ToolCall(id="call_0_0", name="refund", arguments=FORGED)
        await attacker.complete(run.id, "t1.model", answer(call))
        said = await attacker.said(run.id, "t1.tool.0")
    await run.terminate("attack")

    assert said == (WAITING, "no recorded outcome leads to this step")
    assert app.shop.refunds == []


async def test_a_forged_last_answer_is_not_confirmed(stack: Stack) -> None:
    """The workflow ends with it, but the store does not know it, so the client does not believe."""
    app = App([failing(say("Never heard."), Hang())])
    async with stack.worker(stack.plugin(policy=FREE, **app.given)):
        attacker = await Attacker.of(stack)
        run = await (await stack.acting_as("ada")).start("support", "Is it safe?")
        await _inside(app)
        await attacker.complete(run.id, "t1.model", answer(text="It is safe."))
        with pytest.raises(AgentError, match="does not confirm"):
            await run.result()


async def _inside(app: App) -> None:
    """Returns once the provider has the call, which is after `step_open`."""
    while not app.bills.bills():  # noqa: ASYNC110  # a ledger has no event to wait for
        await asyncio.sleep(LOOK_AGAIN_S)


@pytest.mark.parametrize(("stolen", "answer"), [("bare", WAITING), ("ticket", REFUSED)])
async def test_a_rogue_poller_opens_no_run_with_a_tool(
    stack: Stack, stolen: str, answer: str
) -> None:
    """It takes the first workflow task and schedules the refund, with the run's own ticket too."""
    app = App([REFUND, say("Refunded.")])
    attacker = await Attacker.of(stack)
    run = await (await stack.acting_as("ada")).start("support", "Refund order 17")
    headers = (await attacker.started(run.id)).header.fields if stolen == "ticket" else {}
    assert run.id == await attacker.schedule(
        "tool.refund", tool_step(), step="t1.tool.0", headers=headers
    )
    async with stack.worker(stack.plugin(policy=FREE, **app.given)):
        said, _ = await attacker.said(run.id, "t1.tool.0")
    await run.terminate("attack")

    assert (said, app.shop.refunds) == (answer, [])


@pytest.mark.parametrize(
    ("step", "given", "answer"),
    [
        ("t1.tool.0", tool_step(), REFUSED),  # other arguments than the model's
        ("t1.tool.1", tool_step(ARGUMENTS, index=1), WAITING),  # the model's call once more
        ("t1.tool.1", tool_step(ARGUMENTS), REFUSED),
        ("other", tool_step(ARGUMENTS), REFUSED),
    ],
    ids=["arguments", "index", "step", "name"],
)
async def test_a_rogue_poller_steers_no_run(
    stack: Stack, step: str, given: Payload, answer: str
) -> None:
    """It takes a workflow task while a person is asked; what was approved is one call, once."""
    app = App([REFUND, say("Refunded.")])
    async with stack.worker(stack.plugin(**app.given), max_cached_workflows=0):
        run = await (await stack.acting_as("ada")).start("support", "Refund order 17")
        await run.next_approval()
    attacker = await Attacker.of(stack)
    await attacker.handle(run.id).signal(names.BUDGET_RAISED_SIGNAL)  # there is a task to steal
    await attacker.schedule("tool.refund", given, step=step)
    # Its own rules would let the refund pass: only what leads to the step can refuse it.
    async with stack.worker(stack.plugin(policy=FREE, **app.given)):
        said, _ = await attacker.said(run.id, step)
    await run.terminate("attack")

    assert (said, app.shop.refunds) == (answer, [])


async def test_a_rogue_poller_grants_no_approval(stack: Stack) -> None:
    """It names the pending request in the step's header: the row says that nobody approved."""
    app = App([REFUND, say("Refunded.")])
    async with stack.worker(stack.plugin(**app.given), max_cached_workflows=0):
        run = await (await stack.acting_as("ada")).start("support", "Refund order 17")
        request = await run.next_approval()
    attacker = await Attacker.of(stack)
    await attacker.handle(run.id).signal(names.BUDGET_RAISED_SIGNAL)
    claim = Payload(metadata=JSON_PLAIN, data=b'{"a":"%s"}' % request.id.encode())
    await attacker.schedule(
        "tool.refund", tool_step(ARGUMENTS), step="t1.tool.0", headers={names.STEP_HEADER: claim}
    )
    async with stack.worker(stack.plugin(**app.given)):
        while await attacker.completed(run.id, "tool.refund") < 2:  # noqa: ASYNC110
            await asyncio.sleep(LOOK_AGAIN_S)
    await run.terminate("attack")

    assert app.shop.refunds == []


async def test_a_rogue_poller_answers_no_run(
    stack: Stack, owner: asyncpg.Connection[asyncpg.Record]
) -> None:
    """Closing is no step: it may end a run, but what answers one only a model's step proves."""
    app = App([REFUND, say("Refunded.")])
    async with stack.worker(stack.plugin(**app.given), max_cached_workflows=0):
        run = await (await stack.acting_as("ada")).start("support", "Refund order 17")
        await run.next_approval()
    attacker = await Attacker.of(stack)
    await attacker.handle(run.id).signal(names.BUDGET_RAISED_SIGNAL)
    forged = Payload(metadata=JSON_PLAIN, data=b'{"s":"answered","r":"forged"}')
    await attacker.schedule(names.CLOSE_RUN, forged, step="x")
    async with stack.worker(stack.plugin(**app.given)):
        said, _ = await attacker.said(run.id, "x")
    await run.terminate("attack")

    state = await owner.fetchval("select state from runward.run where tenant = $1", stack.tenant)
    assert (said, state) == (REFUSED, "open")
