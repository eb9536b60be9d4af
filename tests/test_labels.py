"""What lists of workflows show of runs: tags and waits, and what that costs."""

from __future__ import annotations

import asyncio
from collections import Counter
from uuid import uuid4

import pytest
from google.protobuf.duration_pb2 import Duration
from temporalio.api.enums.v1 import EventType
from temporalio.api.operatorservice.v1 import ListSearchAttributesRequest
from temporalio.api.workflowservice.v1 import RegisterNamespaceRequest
from temporalio.client import Client, WorkflowExecutionDescription, WorkflowFailureError
from temporalio.common import TypedSearchAttributes
from temporalio.service import RPCError

from runward.client import labels
from runward.client.labels import Tags
from runward.client.run_handle import RunHandle
from runward.client.runs import ActingClient, run_workflow_id
from runward.client.runward_client import RunwardClient
from runward.contracts.budget import Budget, Cap
from runward.contracts.errors import ConfigurationError
from runward.contracts.identity import Principal
from runward.testing.scripts import Call as Ask
from runward.testing.scripts import ask, ask_all, say
from runward.testing.stack import Stack
from runward.workers.worker import serve
from tests.support import App

ADA = Principal("acme", "ada")
PAID = {"order_id": "17", "amount": "5.00"}
LOOKUP = ask("lookup_order", order_id="17")
UPSERT = EventType.EVENT_TYPE_UPSERT_WORKFLOW_SEARCH_ATTRIBUTES


async def test_a_run_is_labelled_with_tags_and_no_names(stack: Stack) -> None:
    """Whoever has the names finds it; the labels do not tell them."""
    app = App([say("Hello.")])
    async with stack.worker(stack.plugin(**app.given)):
        ada = await stack.acting_as("ada")
        run = await ada.start("support", "Hello?")
        await run.result()
    shown = shown_of(await described(ada, run))

    assert shown == ada.tags.of(ada.principal, "support")
    assert not set(shown.values()) & {"ada", stack.tenant, "support"}


async def test_a_run_that_waits_shows_it_and_then_no_longer(stack: Stack) -> None:
    """Two requests at once are one wait: two events, and none in a run that never waits."""
    both = ask_all(Ask("refund", PAID), Ask("refund", PAID))
    app, quick = App([both, say("Refunded.")]), App([LOOKUP, say("Shipped.")])
    async with stack.worker(stack.plugin(**app.given)):
        ada, bob = await stack.acting_as("ada"), await stack.acting_as("bob", ["finance"])
        run = await ada.start("support", "Refund order 17")
        await run.next_approval()
        waiting = shown_of(await described(ada, run)).get("RunwardState")
        await bob.approvals.approve((await run.next_approval()).id)
        between = shown_of(await described(ada, run)).get("RunwardState")
        await bob.approvals.approve((await run.next_approval()).id)
        await run.result()
    async with stack.worker(stack.plugin(**quick.given)):
        other = await ada.start("support", "Where is order 17?")
        await other.result()

    after = shown_of(await described(ada, run)).get("RunwardState")
    assert (waiting, between, after) == ("waiting", "waiting", None)
    assert ((await events(ada, run))[UPSERT], (await events(ada, other))[UPSERT]) == (2, 0)


async def test_a_parked_run_shows_it_until_it_is_cancelled(stack: Stack) -> None:
    """Nothing is shown of a run that is over."""
    app = App([say("Never.")])
    budget = Budget(user=Cap(tokens=10, per="day"), on_exceeded="park")
    async with stack.worker(stack.plugin(budget=budget, **app.given)):
        ada = await stack.acting_as("ada")
        run = await ada.start("support", "Hello?")
        while shown_of(await described(ada, run)).get("RunwardState") != "parked":  # noqa: ASYNC110  # the run decides when
            await asyncio.sleep(0.05)
        await run.cancel()
        with pytest.raises(WorkflowFailureError):
            await run.result()

    assert "RunwardState" not in shown_of(await described(ada, run))


async def test_a_namespace_without_our_attributes_gets_a_memo(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing fails, a wait writes no event, the namespace is asked once per connection.

    The worker says so at its start.
    """
    asked: list[str] = []
    ask_server = labels.registered

    async def counted(temporal: Client) -> bool | None:
        asked.append(temporal.namespace)
        return await ask_server(temporal)

    monkeypatch.setattr(labels, "registered", counted)
    namespace = await namespace_without_attributes(stack)
    app = App([ask("refund", **PAID), say("Refunded.")])
    plugin = stack.plugin(**app.given)
    temporal = await Client.connect(stack.temporal_address, namespace=namespace, plugins=[plugin])
    plain = await Client.connect(stack.temporal_address, namespace=namespace)
    stop = asyncio.Event()
    serving = asyncio.create_task(serve(temporal, plugin, task_queue=stack.task_queue, stop=stop))
    usual = await stack.client()
    rw = RunwardClient(plain, issuer=stack.key, reader=usual._reader, task_queue=stack.task_queue)
    ada = rw.acting_as("ada", tenant=stack.tenant)
    bob = rw.acting_as("bob", tenant=stack.tenant, roles=["finance"])
    run, again = [await ada.start("support", "Refund order 17") for _ in range(2)]
    await bob.approvals.approve((await run.next_approval()).id)
    result = await run.result()
    await again.terminate("enough")
    stop.set()
    await serving
    found = await described(ada, run)

    assert (result.output, asked) == ("Refunded.", [namespace])
    memo = await found.memo()
    assert memo.items() >= ada.tags.of(ada.principal, "support").items()
    assert (shown_of(found), (await events(ada, run))[UPSERT]) == ({}, 0)
    assert f"{namespace!r} has no search attributes RunwardTenant" in caplog.text


def test_a_tag_tells_nothing_without_the_key() -> None:
    """Not in search attributes, and not in a workflow's id."""
    keyed, other, plain = Tags("k" * 16), Tags("l" * 16), Tags()

    found = [one.of(ADA, "support") for one in (keyed, other, plain)]
    ids = [run_workflow_id(ADA, "case-17", one) for one in (keyed, other, plain)]

    assert all(len({one[name] for one in found}) == 3 for name in found[0])
    assert len(set(ids)) == 3
    assert Tags("k" * 16).of(ADA, "support") == found[0]


def test_a_key_that_could_be_tried_is_refused() -> None:
    """With what to do instead."""
    with pytest.raises(ConfigurationError, match="at least 16"):
        Tags("short")


async def test_the_key_is_a_setting_of_the_client(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All processes of a service read the same one."""
    monkeypatch.setenv("RUNWARD_TAG_KEY", "k" * 16)
    rw = await RunwardClient.connect(stack.temporal_address, issuer=stack.key)
    ada = rw.acting_as("ada", tenant="acme")

    assert ada.tags.of(ADA, "support") == Tags("k" * 16).of(ADA, "support")
    assert (await ada.start("support", "Hello?", key="k")).id == run_workflow_id(
        ADA, "k", Tags("k" * 16)
    )


async def described(user: ActingClient, run: RunHandle[str]) -> WorkflowExecutionDescription:
    return await user.temporal.get_workflow_handle(run.id).describe()


def shown_of(found: WorkflowExecutionDescription) -> dict[str, str]:
    """Returns our search attributes of an execution."""
    attributes: TypedSearchAttributes = found.typed_search_attributes
    return {one.key.name: one.value for one in attributes if one.key.name.startswith("Runward")}


async def events(user: ActingClient, run: RunHandle[str]) -> Counter[int]:
    """Returns how many events of each type the run's history has."""
    history = await user.temporal.get_workflow_handle(run.id).fetch_history()
    return Counter(one.event_type for one in history.events)


async def namespace_without_attributes(stack: Stack) -> str:
    """Returns a namespace of the session's server that was made without any of ours."""
    temporal = await Client.connect(stack.temporal_address)
    namespace = f"plain-{uuid4().hex[:12]}"
    await temporal.workflow_service.register_namespace(
        RegisterNamespaceRequest(
            namespace=namespace, workflow_execution_retention_period=Duration(seconds=86_400)
        )
    )
    async with asyncio.timeout(30):
        while True:  # the server's parts learn of it one after the other
            try:
                await temporal.operator_service.list_search_attributes(
                    ListSearchAttributesRequest(namespace=namespace)
                )
                return namespace
            except RPCError:
                await asyncio.sleep(0.1)
