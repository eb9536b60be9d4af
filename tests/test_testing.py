"""What users test with: the face, scripted models, replay, and servers shared by processes."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest
from temporalio.workflow import NondeterminismError

import runward.testing
from runward import Agent, Budget, Cap, RequestRefused, RunwardPlugin, tool
from runward.testing import Fail, Stack, bill_as, failing, replay, say, scripted
from runward.testing.sharing import NotShared, Sharing, ask_for
from tests.users_code import Cards, Charges

SUPPORT: Agent[str] = Agent("support", model="anthropic:claude-sonnet-5")


@pytest.mark.parametrize("name", runward.testing.__all__)
def test_each_name_is_there(name: str) -> None:
    assert getattr(runward.testing, name).__name__ == name


def test_names_come_in_any_order_of_imports() -> None:
    """`scripted` is a function, though a module has the same name."""
    code = (
        "import runward.testing.scripts; from runward.testing.scripts import say\n"
        "from runward.testing import scripted; scripted('a:b', say('c'))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_name_is_an_attribute_error() -> None:
    for module in (runward.testing, sys.modules["runward.testing.scripts"]):
        with pytest.raises(AttributeError, match="Nonsense"):
            _ = module.Nonsense


async def test_a_scripted_model_costs_what_the_real_one_costs(stack: Stack) -> None:
    """It speaks under the real model's name; what it was asked and billed can be looked at."""
    model = scripted(SUPPORT, failing(bill_as(say("Hello."), input=1000, output=10), Fail(503)))
    plugin = stack.plugin(
        agents=[SUPPORT], providers=[model], budget=Budget(user=Cap(usd=1, per="day"))
    )
    async with stack.worker(plugin):
        result = await (await stack.acting_as("ada")).execute(SUPPORT, "Hi")

    assert (result.output, model.bills[0].usage.tokens) == ("Hello.", 1010)
    assert result.cost > 0
    assert [one.model for one in model.requests] == ["claude-sonnet-5"] * 2, "503, and the answer"


@pytest.mark.parametrize("sandboxed", [True, False])
async def test_a_workflow_of_ones_own_replays(sandboxed: bool, stack: Stack) -> None:
    """With the approval that its activity waited for; without `govern` it is another workflow."""
    cards = Cards()
    govern = [tool(cards.charge, effect="money")]
    plugin = stack.plugin(govern=govern, approver_role="finance")
    async with stack.worker(plugin, workflows=[Charges], activities=[cards.charge]):
        ada, bob = await stack.acting_as("ada"), await stack.acting_as("bob", ["finance"])
        run = await ada.temporal.start_workflow(
            Charges.run, args=["17", False], id=uuid4().hex, task_queue=stack.task_queue
        )
        await bob.approvals.approve((await ada.get(run.id).next_approval()).id)
        await run.result()
    history = await stack.history(run.id)
    replayed = RunwardPlugin(govern=govern)

    await replay(history, plugin=replayed, workflows=[Charges], sandboxed=sandboxed)
    await replay(run, plugin=replayed, workflows=[Charges], sandboxed=sandboxed)
    with pytest.raises(NondeterminismError):
        await replay(history, workflows=[Charges], sandboxed=sandboxed)


async def test_a_history_is_read_from_a_file(stack: Stack, tmp_path: Path) -> None:
    model = scripted(SUPPORT, say("Hello."))
    async with stack.worker(stack.plugin(agents=[SUPPORT], providers=[model])):
        run = await (await stack.acting_as("ada")).start(SUPPORT, "Hi")
        await run.result()
    kept = tmp_path / "hello.json"
    kept.write_text((await stack.history(run)).to_json())

    await replay(kept, sandboxed=True)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"events": []}',
        '{"events": [{"eventId": "1"}]}',
        '{"events": [{"eventId": []}]}',
    ],
)
async def test_what_is_no_history_is_refused(text: str, tmp_path: Path) -> None:
    """Over some of it Temporal's replayer would wait for ever."""
    kept = tmp_path / "kept.json"
    kept.write_text(text)
    with pytest.raises(RequestRefused, match=r"A replay of .*kept.*to_json"):
        await replay(kept)


async def test_a_stack_reads_whatever_its_tenant_has(stack: Stack) -> None:
    """Lists, single requests and contents, each over a connection of its own."""
    model = scripted(SUPPORT, say("long " * 10_000))
    support: Agent[str] = Agent("support", model=SUPPORT.model, max_output_tokens=50_000)
    async with stack.worker(stack.plugin(agents=[support], providers=[model])):
        ada = await stack.acting_as("ada")
        result = await ada.execute(support, "Hi")

        assert len(result.output) == 50_000, "kept in the store, not in the history"
        assert await ada.approvals.list() == []


def test_servers_are_found_once_for_all_who_ask() -> None:
    """And only for those who know the secret."""
    asked: list[int] = []

    def find() -> dict[str, str]:
        asked.append(1)
        return {"postgres": "there"}

    sharing = Sharing(find)
    try:
        port, _, secret = sharing.address.partition(":")
        with pytest.raises(NotShared, match="does not answer"):
            ask_for(f"{port}:{'0' * len(secret)}")
        socket.create_connection(("127.0.0.1", int(port))).close()
        assert asked == []
        assert [ask_for(sharing.address) for _ in range(2)] == [{"postgres": "there"}] * 2
    finally:
        sharing.close()

    assert asked == [1]
    with pytest.raises(ConnectionError):
        ask_for(sharing.address)


def test_whoever_asks_is_told_why_there_are_none() -> None:
    """The first failure is everybody's: a start takes long."""

    def find() -> dict[str, str]:
        raise RuntimeError("no temporal here")

    sharing = Sharing(find)
    try:
        for _ in range(2):
            with pytest.raises(NotShared, match="RuntimeError: no temporal here"):
                ask_for(sharing.address)
    finally:
        sharing.close()
