"""A user's own workflow and activities, governed without a change to them."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest
from temporalio.api.sdk.v1 import WorkflowMetadata
from temporalio.client import Client, WorkflowFailureError
from temporalio.common import RetryPolicy
from temporalio.converter import DataConverter
from temporalio.exceptions import ActivityError, ApplicationError
from temporalio.plugin import SimplePlugin
from temporalio.worker import (
    ActivityInboundInterceptor,
    ExecuteActivityInput,
    Interceptor,
    Replayer,
    Worker,
)

from runward.client.runward_client import RunwardClient
from runward.contracts.errors import DENIED, ConfigurationError
from runward.contracts.policy import StandardPermissions
from runward.contracts.tools import tool
from runward.testing.stack import Stack
from runward.workers.plugin import RunwardPlugin
from tests.users_code import Cards, Charges, ChargesTwice, Euros, Pays, UsersConverter

FREE = StandardPermissions(mode="bypassPermissions")


async def test_a_governed_charge_waits_for_an_approval_and_runs_once(stack: Stack) -> None:
    """Without a line of code in the workflow."""
    cards = Cards()
    plugin = stack.plugin(govern=[tool(cards.charge, effect="money")], approver_role="finance")
    async with stack.worker(plugin, workflows=[Charges], activities=[cards.charge]):
        ada, bob = await stack.acting_as("ada"), await stack.acting_as("bob", ["finance"])
        run = await ada.temporal.start_workflow(
            Charges.run, args=["17", False], id=uuid4().hex, task_queue=stack.task_queue
        )
        request = await ada.get(run.id).next_approval()
        assert (request.tool, request.arguments, cards.charged) == ("charge", '"17"', [])
        assert request.rule == "mode:default"
        waiting = await run.query("__temporal_workflow_metadata", result_type=WorkflowMetadata)
        await bob.approvals.approve(request.id)
        said = await run.result()
        ended = await run.query("__temporal_workflow_metadata", result_type=WorkflowMetadata)

    assert (said, cards.charged) == ("charged 17", ["17"])
    assert waiting.current_details.startswith("charges a card\n\n**Waiting for approval** until ")
    assert ended.current_details == "charges a card"


async def test_a_denied_charge_is_an_application_error(stack: Stack) -> None:
    """Which no retry policy retries."""
    cards = Cards()
    policy = StandardPermissions(denied_tools=["charge"])
    plugin = stack.plugin(govern=[tool(cards.charge, effect="money")], policy=policy)
    async with stack.worker(plugin, workflows=[Charges], activities=[cards.charge]):
        ada = await stack.acting_as("ada")
        with pytest.raises(WorkflowFailureError) as caught:
            await ada.temporal.execute_workflow(
                Charges.run, args=["17", False], id=uuid4().hex, task_queue=stack.task_queue
            )

    failed = caught.value.cause
    assert isinstance(failed, ActivityError) and isinstance(failed.cause, ApplicationError)
    assert (failed.cause.type, failed.cause.non_retryable) == (DENIED, True)
    assert cards.charged == []


async def test_a_charge_that_raises_is_retried_by_its_own_policy(stack: Stack) -> None:
    """It said that it ended, so nobody is asked whether it may have had its effect."""
    cards = Cards(refusals=1)
    governed = [tool(cards.charge, effect="money")]
    plugin = stack.plugin(govern=governed, policy=FREE, approver_role="finance")
    async with stack.worker(plugin, workflows=[Charges], activities=[cards.charge]):
        ada = await stack.acting_as("ada")
        said = await ada.temporal.execute_workflow(
            Charges.run, args=["17", False], id=uuid4().hex, task_queue=stack.task_queue
        )

    assert (said, cards.charged, cards.refusals) == ("charged 17", ["17"], 0)


async def test_activities_that_nobody_governs_are_listed_when_the_worker_starts(
    stack: Stack, caplog: pytest.LogCaptureFixture
) -> None:
    """Those of plugins behind ours too; ours and the governed ones are not among them."""
    cards = Cards()
    plugin = stack.plugin(govern=[tool(cards.charge, effect="money")], policy=FREE)
    behind = SimplePlugin("behind", activities=[cards.pay])
    client = await Client.connect(stack.temporal_address, plugins=[plugin, behind])
    with caplog.at_level("INFO", "runward.worker"):
        async with Worker(
            client, task_queue=stack.task_queue, workflows=[Charges], activities=[cards.charge]
        ):
            pass

    listed = [one.getMessage() for one in caplog.records if one.name == "runward.worker"]
    assert listed == ["not governed, passing untouched: pay"]


async def test_activities_that_nobody_governs_can_be_refused(stack: Stack) -> None:
    """When the worker is made, or at its start where a plugin behind ours added them."""
    cards = Cards()
    plugin = stack.plugin(govern=[tool(cards.charge, effect="money")], govern_unlisted="deny")
    behind = SimplePlugin("behind", activities=[cards.pay])
    alone = await Client.connect(stack.temporal_address, plugins=[plugin])
    client = await Client.connect(stack.temporal_address, plugins=[plugin, behind])

    with pytest.raises(ConfigurationError, match="not governed: pay"):
        Worker(alone, task_queue=stack.task_queue, activities=[cards.charge, cards.pay])
    with pytest.raises(ConfigurationError, match="not governed: pay"):
        await Worker(client, task_queue=stack.task_queue, activities=[cards.charge]).run()


async def test_a_workflow_retry_retries(stack: Stack) -> None:
    """Its second attempt is another round: what the first did is no answer to it."""
    cards = Cards()
    plugin = stack.plugin(govern=[tool(cards.charge, effect="money")], policy=FREE)
    async with stack.worker(plugin, workflows=[ChargesTwice], activities=[cards.charge]):
        ada = await stack.acting_as("ada")
        said = await ada.temporal.execute_workflow(
            ChargesTwice.run, "17", id=uuid4().hex, task_queue=stack.task_queue,
            retry_policy=RetryPolicy(maximum_attempts=2),
        )  # fmt: skip

    assert (said, cards.charged) == ("charged 17", ["17", "17"])


async def test_a_cron_acts_each_time(stack: Stack) -> None:
    """Every execution of the schedule is a round of its own."""
    cards = Cards()
    plugin = stack.plugin(govern=[tool(cards.charge, effect="money")], policy=FREE)
    async with stack.worker(plugin, workflows=[ChargesTwice], activities=[cards.charge]):
        ada = await stack.acting_as("ada")
        run = await ada.temporal.start_workflow(
            ChargesTwice.run, "17", id=uuid4().hex, task_queue=stack.task_queue,
            cron_schedule="@every 1s",
        )  # fmt: skip
        while len(cards.charged) < 3:  # noqa: ASYNC110  # Temporal's clock decides when
            await asyncio.sleep(0.05)
        await run.terminate()


async def test_a_history_from_before_adoption_replays_under_the_plugin(stack: Stack) -> None:
    """Nothing rides on executions that were started without a ticket."""
    cards = Cards()
    plain = await Client.connect(stack.temporal_address)
    async with Worker(
        plain, task_queue=stack.task_queue, workflows=[Charges], activities=[cards.charge]
    ):
        run = await plain.start_workflow(
            Charges.run, args=["17", False], id=uuid4().hex, task_queue=stack.task_queue
        )
        await run.result()
    plugin = RunwardPlugin(govern=[tool(cards.charge, effect="money")])
    replayer = Replayer(workflows=[Charges], plugins=[plugin])

    await replayer.replay_workflow(await run.fetch_history())


class _Changes(ActivityInboundInterceptor):
    async def execute_activity(self, input: ExecuteActivityInput) -> object:
        """Runs the activity with another argument than was judged."""
        input.args = ["another card"]
        return await super().execute_activity(input)


class _Changing(Interceptor):
    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        """Puts it around the activity."""
        return _Changes(next)


async def test_an_interceptor_nearer_to_the_body_is_refused(stack: Stack) -> None:
    """It could change the arguments after they were judged."""
    cards = Cards()
    plugin = stack.plugin(govern=[tool(cards.charge, effect="money")], policy=FREE)
    nearer = SimplePlugin("nearer", interceptors=[_Changing()])
    client = await Client.connect(stack.temporal_address, plugins=[plugin, nearer])
    worker = Worker(
        client, task_queue=stack.task_queue, workflows=[Charges], activities=[cards.charge]
    )
    with pytest.raises(ConfigurationError, match="between the governed step and the activity"):
        await worker.run()


async def test_a_users_data_converter_survives(stack: Stack) -> None:
    """Arguments and results cross as the user's converter writes them."""
    cards = Cards()
    plugin = stack.plugin(govern=[tool(cards.pay, effect="money")], policy=FREE)
    converter = DataConverter(payload_converter_class=UsersConverter)
    client = await Client.connect(
        stack.temporal_address, plugins=[plugin], data_converter=converter
    )
    ada = RunwardClient(client, issuer=stack.key).acting_as("ada", tenant=stack.tenant)
    async with Worker(
        client, task_queue=stack.task_queue, workflows=[Pays], activities=[cards.pay]
    ):
        run = await ada.temporal.start_workflow(
            Pays.run, Euros(500), id=uuid4().hex, task_queue=stack.task_queue
        )
        left = await run.result()

    assert (left, cards.charged) == (Euros(0), ["500"])
