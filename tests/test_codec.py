"""A payload codec of the user's: runs go on as without it, and history shows nobody anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from temporalio.api.common.v1 import Payload
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.converter import PayloadCodec
from temporalio.worker import Worker

from runward.client.reader import DirectReader
from runward.client.runward_client import RunwardClient
from runward.testing.scripts import ask, say
from runward.testing.stack import Stack
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
