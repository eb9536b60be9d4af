"""Rolling upgrades with runs in flight: workers with a version, and workers without one."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

import pytest
from temporalio.api.enums.v1 import VersionDrainageStatus
from temporalio.worker import (
    ContinueAsNewInput,
    Interceptor,
    WorkflowInboundInterceptor,
    WorkflowInterceptorClassInput,
    WorkflowOutboundInterceptor,
)
from temporalio.workflow import ContinueAsNewVersioningBehavior

from runward.cli.worker import checked
from runward.contracts.errors import WAITING, ConfigurationError
from runward.contracts.tools import ToolContext, tool
from runward.testing.scripts import Call as Ask
from runward.testing.scripts import ask_all, say
from runward.testing.stack import Stack
from runward.workers.temporal_binary import find_temporal
from runward.workers.temporal_dev_server import TemporalDevServer
from tests.app_folder import APP, Command, runward
from tests.attacker import FREE, LOOK_AGAIN_S, Attacker
from tests.child_processes import comes_true
from tests.releases import EARLY_DRAINAGE, Release, build, described, make_current
from tests.support import App, Shop, reset

SUGGEST_AFTER_EVENTS = 20


# --- workers with a version


async def test_runs_in_flight_end_on_their_build_and_new_ones_go_to_the_current(
    stack: Stack,
) -> None:
    """One waits for an approval, one is inside its model; tools and instructions have changed."""
    one, two = Release("1"), Release("2")
    two.gate.set()
    async with stack.worker(stack.plugin(**one.given), deployment_config=build(stack, "1")):
        await make_current(stack, "1")
        ada, bob = await stack.acting_as("ada"), await stack.acting_as("bob", ["finance"])
        asked, held = await ada.start("support", "Refund"), await ada.start("reader", "Read")
        request = await asked.next_approval()
        await one.inside.wait()
        async with stack.worker(stack.plugin(**two.given), deployment_config=build(stack, "2")):
            await make_current(stack, "2")
            new = await ada.execute("reader", "Read")
            one.gate.set()
            await bob.approvals.approve(request.id)
            ended = [(await run.result()).output for run in (asked, held)]

    assert (new.output, ended) == ("Read by 2.", ["Refunded by 1.", "Read by 1."])
    assert (len(one.shop.refunds), len(one.shop.lookups)) == (1, 3)
    assert (two.shop.refunds, len(two.shop.lookups)) == ([], 2)


async def test_a_pinned_run_waits_for_its_build_and_for_no_other(stack: Stack) -> None:
    """Its worker went before it had drained: nothing runs elsewhere, and a new one ends the run."""
    one, two, again = Release("1"), Release("2"), Release("1")
    two.gate.set()
    ada, bob = await stack.acting_as("ada"), await stack.acting_as("bob", ["finance"])
    async with stack.worker(stack.plugin(**one.given), deployment_config=build(stack, "1")):
        await make_current(stack, "1")
        asked = await ada.start("support", "Refund")
        request = await asked.next_approval()
    async with stack.worker(stack.plugin(**two.given), deployment_config=build(stack, "2")):
        await make_current(stack, "2")
        await bob.approvals.signal_decision(request.id, "approve")
        assert (await ada.execute("reader", "Read")).output == "Read by 2."
        assert (await bob.approvals.get(request.id)).state == "pending"
        async with stack.worker(stack.plugin(**again.given), deployment_config=build(stack, "1")):
            output = (await asked.result()).output

    assert output == "Refunded by 1."
    assert (one.shop.refunds, two.shop.refunds, len(again.shop.refunds)) == ([], [], 1)


@pytest.fixture
async def hurried(database_url: str, tmp_path: Path) -> AsyncIterator[Stack]:
    """A stack on a server that continues runs as new, and looks for drained builds, early."""
    binary = await find_temporal(None, progress=lambda _: None)
    early = f"limit.historyCount.suggestContinueAsNew={SUGGEST_AFTER_EVENTS}"
    settings = [early, *EARLY_DRAINAGE]
    async with (
        TemporalDevServer(binary, None, ui=False, dynamic_config=settings) as server,
        Stack.open(database_url, server.address, key_file=tmp_path / "key") as stack,
    ):
        yield stack


ASKED: list[object] = []  # of the server, by runs that continued as new


class Continued(Interceptor):
    def workflow_interceptor_class(
        self, input: WorkflowInterceptorClassInput
    ) -> type[WorkflowInboundInterceptor]:
        return Continuing


class Continuing(WorkflowInboundInterceptor):
    def init(self, outbound: WorkflowOutboundInterceptor) -> None:
        super().init(Noting(outbound))


class Noting(WorkflowOutboundInterceptor):
    def continue_as_new(self, input: ContinueAsNewInput) -> NoReturn:
        ASKED.append(input.initial_versioning_behavior)
        super().continue_as_new(input)


async def test_a_build_drains_once_its_last_run_has_ended(hurried: Stack) -> None:
    """A run that continues as new asks to move on. The server of these tests is too old for that.

    There it stays pinned over all its executions, and ends on the build that it began on.
    """
    one, two = Release("1", lookups=6), Release("2", lookups=6)
    two.gate.set()
    ASKED.clear()
    async with (
        hurried.worker(
            hurried.plugin(**one.given),
            deployment_config=build(hurried, "1"),
            interceptors=[Continued()],
        ),
        hurried.worker(hurried.plugin(**two.given), deployment_config=build(hurried, "2")),
    ):
        await make_current(hurried, "1")
        run = await (await hurried.acting_as("ada")).start("reader", "Read")
        await one.inside.wait()
        await make_current(hurried, "2")
        assert await drainage(hurried, "1") == DRAINING
        one.gate.set()
        result = await run.result()
        async with asyncio.timeout(60):
            while await drainage(hurried, "1") != DRAINED:  # noqa: ASYNC110
                await asyncio.sleep(LOOK_AGAIN_S)

    assert (result.output, result.turns) == ("Read by 1.", 7)
    assert (len(one.shop.lookups), two.shop.lookups) == (6, [])
    assert set(ASKED) == {ContinueAsNewVersioningBehavior.AUTO_UPGRADE}


DRAINING = VersionDrainageStatus.VERSION_DRAINAGE_STATUS_DRAINING
DRAINED = VersionDrainageStatus.VERSION_DRAINAGE_STATUS_DRAINED


async def drainage(stack: Stack, number: str) -> VersionDrainageStatus.ValueType:
    """Returns whether runs are left on the build, as the operator sees it."""
    said = await described(stack, number)
    return said.worker_deployment_version_info.drainage_info.status


async def test_runs_from_before_versions_go_to_the_first_current_build(stack: Stack) -> None:
    """Versioning is turned on with a run in flight: it is pinned from its next task on."""
    before, one = Release("1"), Release("1")
    ada, bob = await stack.acting_as("ada"), await stack.acting_as("bob", ["finance"])
    async with stack.worker(stack.plugin(**before.given)):
        asked = await ada.start("support", "Refund")
        request = await asked.next_approval()
    async with stack.worker(stack.plugin(**one.given), deployment_config=build(stack, "1")):
        await make_current(stack, "1")
        await bob.approvals.approve(request.id)
        output = (await asked.result()).output
        seen = await ada.temporal.get_workflow_handle(asked.id).describe()

    info = seen.raw_description.workflow_execution_info.versioning_info
    assert (output, info.deployment_version.build_id) == ("Refunded by 1.", "1")
    assert (before.shop.refunds, len(one.shop.refunds)) == ([], 1)


# --- workers without a version


async def test_without_versions_a_run_goes_on_with_the_next_releases_definition(
    stack: Stack,
) -> None:
    """The worker ends inside a model call: the next one asks its own model, with its own tools."""
    one, two = Release("1"), Release("2")
    two.gate.set()
    async with stack.worker(stack.plugin(**one.given)):
        run = await (await stack.acting_as("ada")).start("reader", "Read")
        await one.inside.wait()
    async with stack.worker(stack.plugin(**two.given)):
        result = await run.result()

    assert (result.output, result.turns) == ("Read by 2.", 3)
    assert (len(one.shop.lookups), len(two.shop.lookups)) == (1, 1)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({}, "refund: this worker defines the tool otherwise"),
        ({"without": ["refund"]}, "Activity function tool.refund for workflow"),
    ],
    ids=["another definition", "no such tool"],
)
async def test_without_versions_a_call_waits_for_the_release_it_was_shown_by(
    stack: Stack, changed: dict[str, Any], says: str
) -> None:
    """What was approved is the old release's call: the new one acts on nothing, and says why."""
    one, two, again = Release("1"), Release("2", **changed), Release("1")
    ada, bob = await stack.acting_as("ada"), await stack.acting_as("bob", ["finance"])
    async with stack.worker(stack.plugin(**one.given)):
        run = await ada.start("support", "Refund")
        request = await run.next_approval()
    async with stack.worker(stack.plugin(**two.given)):
        await bob.approvals.approve(request.id)
        _, reason = await (await Attacker.of(stack)).said(run.id, "t2.tool.0")
    async with stack.worker(stack.plugin(**again.given)):
        output = (await run.result()).output

    assert says in reason
    assert output == "Refunded by 1."
    assert (one.shop.refunds, two.shop.refunds, len(again.shop.refunds)) == ([], [], 1)


async def test_without_versions_a_reset_lets_a_run_go_on_with_the_next_release(
    stack: Stack,
) -> None:
    """The model is asked anew, with the tools as they are now, and so is the person."""
    one, two = Release("1"), Release("2")
    ada, bob = await stack.acting_as("ada"), await stack.acting_as("bob", ["finance"])
    async with stack.worker(stack.plugin(**one.given)):
        run = await ada.start("support", "Refund")
        before = await run.next_approval()
    async with stack.worker(stack.plugin(**two.given)):
        await reset(stack, run.id, 3)  # to the model step that made the call
        request = await ada.get(run.id).next_approval()
        await bob.approvals.approve(request.id)
        result = await ada.get(run.id).result()

    assert request.id != before.id
    assert (result.output, one.shop.refunds) == ("Refunded by 2.", [])
    assert len(two.shop.refunds) == 1


async def test_without_versions_no_call_runs_otherwise_than_the_model_made_it(
    stack: Stack,
) -> None:
    """Two calls of one tool, one cut off inside and one never begun; both say why they wait."""
    began = asyncio.Event()
    paid: list[str] = []

    def paying(description: str, held: asyncio.Event | None) -> dict[str, Any]:
        @tool(effect="money", idempotent=True)
        async def pay(ctx: ToolContext[Shop], order_id: str) -> str:
            began.set()
            if held is not None:
                await held.wait()
            paid.append(f"{description} {order_id}")
            return "paid"

        object.__setattr__(pay, "description", description)
        calls = ask_all(Ask("pay", {"order_id": "1"}), Ask("pay", {"order_id": "2"}))
        app = App([calls, say("Paid.")], agent_options={"tools": [pay]})
        return {"policy": FREE, **app.given}

    one = stack.plugin(**paying("old", asyncio.Event()))
    async with stack.worker(
        one, max_concurrent_activities=1, graceful_shutdown_timeout=timedelta(0)
    ):
        run = await (await stack.acting_as("ada")).start("support", "Pay both")
        await began.wait()
    attacker = await Attacker.of(stack)
    async with stack.worker(stack.plugin(**paying("new", None))):
        said = {await waits(attacker, run.id, f"t1.tool.{index}") for index in (0, 1)}
    async with stack.worker(stack.plugin(**paying("old", None))):
        output = (await run.result()).output

    assert len(said) == 1 and "pay: this worker defines the tool otherwise" in said.pop()
    assert (output, sorted(paid)) == ("Paid.", ["old 1", "old 2"])


async def waits(attacker: Attacker, workflow_id: str, step: str) -> str:
    """Returns what a step waits for, once it says so."""
    while True:
        seen = (await attacker.handle(workflow_id).describe()).raw_description
        for one in seen.pending_activities:
            if (
                one.activity_id == step
                and one.last_failure.application_failure_info.type == WAITING
            ):
                return one.last_failure.message
        await asyncio.sleep(LOOK_AGAIN_S)


async def test_without_versions_a_run_waits_for_a_release_that_has_its_agent(
    stack: Stack,
) -> None:
    """Dropped with a run in flight: the run stands, it does not fail."""
    one, two, again = Release("1"), Release("2", without=["reader"]), Release("1")
    again.gate.set()
    async with stack.worker(stack.plugin(**one.given)):
        run = await (await stack.acting_as("ada")).start("reader", "Read")
        await one.inside.wait()
    async with stack.worker(stack.plugin(**two.given)):
        reason = await waits(await Attacker.of(stack), run.id, "t2.model")
    async with stack.worker(stack.plugin(**again.given)):
        output = (await run.result()).output

    assert "reader: this worker has no such agent" in reason
    assert output == "Read by 1."


# --- the command


@pytest.mark.timeout(170)  # four processes start, one after the other
async def test_a_worker_that_was_killed_is_followed_by_one_of_its_build(
    stack: Stack, tmp_path: Path
) -> None:
    """`runward worker --deployment` says how runs get to it; what it began stays its build's."""
    folders = {number: tmp_path / number for number in ("1", "2")}
    for number, folder in folders.items():
        folder.mkdir()
        (folder / "shop.py").write_text(APP.replace(" answer", f" answer of {number}"))
    ada = await stack.acting_as("ada")
    async with versioned_worker(stack, folders["1"], "1") as one:
        await one.says("new runs go to workers without a version. To send them here: temporal")
        await make_current(stack, "1")
        run = await ada.start("held", "hello")
        assert await comes_true((folders["1"] / "inside").exists)
        await one.kill()
    async with versioned_worker(stack, folders["2"], "2", "--processes", "2") as two:
        await two.says(f", as build '2' of {stack.task_queue!r}")
        await two.says("new runs go to build '1'. To send them here: temporal worker deployment")
        await make_current(stack, "2")
        new = await ada.execute("quick", "hello")
        (folders["1"] / "go").touch()
        async with versioned_worker(stack, folders["1"], "1"):
            result = await run.result()

    assert (new.output, result.output) == ("quick answer of 2", "held answer of 1")
    assert not (folders["2"] / "inside").exists()


def versioned_worker(
    stack: Stack, folder: Path, number: str, *more: str
) -> contextlib.AbstractAsyncContextManager[Command]:
    """Runs a worker process of this build, on the stack's queue and as its deployment."""
    return runward(
        folder,
        *("worker", "--app", "shop:app", "--address", stack.temporal_address),
        *("--task-queue", stack.task_queue, "--deployment", stack.task_queue, *more),
        RUNWARD_BUILD_ID=number,
        RUNWARD_DATABASE_URL=stack.database_url,
    )


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"deployment": "shop"}, "a deployment, 'shop', and not the other"),
        ({"build_id": "1"}, "a build, '1', and not the other"),
        ({"deployment": "sh.op", "build_id": "1"}, "'deployment'"),
        ({"deployment": "shop", "build_id": "a b"}, "'build_id'"),
    ],
    ids=["no build", "no deployment", "deployment's name", "build's name"],
)
def test_a_version_is_a_deployment_and_a_build(
    given: dict[str, Any], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both or neither, in names that Temporal's server takes."""
    monkeypatch.setenv("TEMPORAL_ADDRESS", "127.0.0.1:1")
    known: dict[str, Any] = {"database_url": "postgresql://a@b/c", "address": None}
    known["task_queue"] = None
    assert checked("shop:app", **known).version is None
    both = checked("shop:app", **known, deployment="shop", build_id="1.2+3")
    assert both.version == ("shop", "1.2+3")
    with pytest.raises(ConfigurationError, match=re.escape(says)):
        checked("shop:app", **known, **given)
