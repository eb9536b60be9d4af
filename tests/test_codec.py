"""A payload codec of the user's: runs go on as without it, and history shows nobody anything."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
from temporalio.api.common.v1 import Payload
from temporalio.api.enums.v1 import EventType
from temporalio.api.workflowservice.v1 import DescribeWorkflowExecutionResponse
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.converter import PayloadCodec
from temporalio.worker import Worker

from runward.client.reader import DirectReader
from runward.client.run_handle import RunHandle
from runward.client.runs import ActingClient
from runward.client.runward_client import RunwardClient
from runward.contracts import names
from runward.contracts.errors import AgentError, ConfigurationError
from runward.contracts.providers import ModelRequest, ModelResponse
from runward.contracts.transcript import AssistantMessage, ToolCall
from runward.contracts.usage import Usage
from runward.testing.scripts import ask, say
from runward.testing.stack import Stack
from runward.workers.worker import build, connect
from tests.support import App

ENCODING = b"tests/turned"


class Turned(PayloadCodec):
    """Turns every bit: what a cipher does, without one."""

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Returns payloads that nobody reads by accident."""
        return [
            Payload(metadata={"encoding": ENCODING}, data=_turned(one.SerializeToString()))
            for one in payloads
        ]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Returns what was encoded; others as they are."""
        return [
            Payload.FromString(_turned(one.data)) if one.metadata["encoding"] == ENCODING else one
            for one in payloads
        ]


@asynccontextmanager
async def worker(stack: Stack, app: App, **options: Any) -> AsyncIterator[None]:
    """A worker as `runward worker --codec` makes it."""
    temporal = await connect(stack.plugin(**app.given), stack.temporal_address, codec=Turned())
    async with build(temporal, task_queue=stack.task_queue, **options):
        yield


@asynccontextmanager
async def acting(stack: Stack, user: str, *roles: str) -> AsyncIterator[ActingClient]:
    """A user's client with the codec, connected as users connect."""
    door = await RunwardClient.connect(
        stack.temporal_address,
        issuer=stack.key,
        database_url=stack.database_url,
        task_queue=stack.task_queue,
        codec=Turned(),
    )
    async with door:
        yield door.acting_as(user, tenant=stack.tenant, roles=roles)


async def kept(client: ActingClient, run: RunHandle[str]) -> bytes:
    """Returns all that the server keeps of a run."""
    handle = client.temporal.get_workflow_handle(run.id)
    events = (await handle.fetch_history()).events
    said = await described(client, run)
    return b"".join(one.SerializeToString() for one in (*events, said))


async def described(client: ActingClient, run: RunHandle[str]) -> DescribeWorkflowExecutionResponse:
    """Returns what the server says of a run."""
    return (await client.temporal.get_workflow_handle(run.id).describe()).raw_description


def _turned(data: bytes) -> bytes:
    return bytes(255 - one for one in data)


async def test_a_run_under_a_codec_is_the_same_run(stack: Stack) -> None:
    """Question, arguments, approval, ticket and answer cross encoded."""
    app = App([ask("refund", order_id="17", amount="5.00"), say("It is paid back.")])
    client = await Client.connect(
        stack.temporal_address,
        plugins=[stack.plugin(**app.given)],
        data_converter=replace(pydantic_data_converter, payload_codec=Turned()),
    )
    door = RunwardClient(
        client,
        issuer=stack.key,
        reader=DirectReader(stack.database_url),
        task_queue=stack.task_queue,
    )
    async with door, Worker(client, task_queue=stack.task_queue):
        ada = door.acting_as("ada", tenant=stack.tenant)
        bob = door.acting_as("bob", tenant=stack.tenant, roles=["finance"])
        run = await ada.start("support", "Refund the parcel")
        await bob.approvals.approve((await run.next_approval()).id, reason="checked")
        result = await run.result()
        history = (await ada.temporal.get_workflow_handle(run.id).fetch_history()).events

    assert (result.output, len(app.shop.refunds)) == ("It is paid back.", 1)
    raw = b"".join(event.SerializeToString() for event in history)
    assert ENCODING in raw
    assert not [word for word in (b"parcel", b"5.00", b"paid back", b"eyJ") if word in raw]


async def test_the_server_keeps_no_word_of_a_run_whose_doors_have_a_codec(stack: Stack) -> None:
    """Those of ours: `connect(codec=)` and `runward worker --codec`."""
    app = App([ask("refund", order_id="17", amount="5.00"), say("It is paid back.")])
    async with (
        worker(stack, app),
        acting(stack, "ada") as ada,
        acting(stack, "bob", "finance") as b,
    ):
        run = await ada.start("support", "Refund the parcel")
        await b.approvals.approve((await run.next_approval()).id, reason="checked twice")
        result = await run.result()
        raw = await kept(ada, run)

    assert (result.output, len(app.shop.refunds)) == ("It is paid back.", 1)
    assert ENCODING in raw
    words = (b"parcel", b"5.00", b"refunded", b"paid back", b"checked twice", b"eyJ")
    assert not [word for word in words if word in raw]


@dataclass
class Thinking(App):
    """An app whose model reasons."""

    @property
    def given(self) -> dict[str, Any]:
        """Returns what the plugin takes."""
        return {**super().given, "providers": [self]}

    name = "scripted"

    async def call(self, request: ModelRequest) -> ModelResponse:
        """Returns a call that was thought of, then the answer."""
        if len(request.messages) > 1:
            said = request.messages[1]
            assert isinstance(said, AssistantMessage) and said.reasoning is not None
            assert said.reasoning.data == "a parcel"
            return ModelResponse(AssistantMessage(text="Done."), Usage(), "end")
        call = ToolCall(id="c", name="lookup_order", arguments='{"order_id": "17"}')
        return ModelResponse(AssistantMessage(calls=(call,)), Usage(), "tools", True, "a parcel")


async def test_what_a_model_thought_is_encoded_too(stack: Stack) -> None:
    async with worker(stack, Thinking([])), acting(stack, "ada") as ada:
        run = await ada.start("support", "Where is it?")
        result = await run.result()
        raw = await kept(ada, run)

    assert result.output == "Done."
    assert ENCODING in raw and b"parcel" not in raw


async def test_what_a_failed_run_says_is_encoded_too(stack: Stack) -> None:
    async with worker(stack, App([])), acting(stack, "ada") as ada:
        run = await ada.start("nobody", "Refund the parcel")
        with pytest.raises(AgentError, match="nobody: unknown agent"):
            await run.result()
        raw = await kept(ada, run)

    assert b"unknown agent" not in raw


async def test_a_client_without_the_codec_says_so(stack: Stack) -> None:
    async with worker(stack, App([say("Done.")])), acting(stack, "ada") as ada:
        run = await ada.start("support", "Refund the parcel")
        await run.result()
        blind = (await stack.acting_as("ada")).get(run.id)
        with pytest.raises(ConfigurationError, match="has no codec that decodes it"):
            await blind.result(timeout=30)


async def test_a_client_without_the_codec_says_so_of_a_memo(stack: Stack) -> None:
    """There a run's key is compared; its tenant too, where the namespace lacks our attributes."""
    async with acting(stack, "ada") as ada:
        keyed = await ada.start("support", "Refund the parcel", key="k")
        tagged = await ada.temporal.start_workflow(
            "other", id=f"{keyed.id}-o", task_queue="empty", memo={names.TENANT_ATTRIBUTE: "t"}
        )
        blind = await stack.acting_as("ada")
        for door in (
            blind.start("support", "Refund the parcel", key="k"),
            blind.get(tagged.id).status(),
        ):
            with pytest.raises(
                ConfigurationError, match=r"no codec that decodes it.*RUNWARD_CODEC"
            ):
                await door


async def test_under_a_worker_without_the_codec_a_run_waits_and_says_why(stack: Stack) -> None:
    app = App([say("Done.")])
    async with acting(stack, "ada") as ada:
        run = await ada.start("support", "Refund the parcel")
        handle = ada.temporal.get_workflow_handle(run.id)
        async with stack.worker(stack.plugin(**app.given)):
            failed = EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED
            why = ""
            while not why:
                await asyncio.sleep(0.05)  # the server writes it
                async for event in handle.fetch_history_events():
                    if event.event_type == failed:
                        why = event.workflow_task_failed_event_attributes.failure.message
        async with worker(stack, app):
            result = await run.result(timeout=60)

    assert "encoding 'tests/turned'" in why and "has no codec that decodes it" in why
    assert result.output == "Done."


async def test_a_step_that_a_worker_without_the_codec_takes_is_left_to_others(stack: Stack) -> None:
    """It would be refused for good where the input were of nobody's making."""
    app = App([say("Done.")])
    async with acting(stack, "ada") as ada:
        async with worker(stack, app, no_remote_activities=True):
            run = await ada.start("support", "Refund the parcel")
            while not (await described(ada, run)).pending_activities:  # noqa: ASYNC110
                await asyncio.sleep(0.05)  # the worker schedules it
        async with stack.worker(stack.plugin(**app.given)):
            why = ""
            while not why:
                await asyncio.sleep(0.05)  # the worker fails it
                (step,) = (await described(ada, run)).pending_activities
                why = step.last_failure.message
        async with worker(stack, app):
            result = await run.result(timeout=60)

    assert "has no codec that decodes it" in why
    assert (result.output, len(app.bills.bills())) == ("Done.", 1)
