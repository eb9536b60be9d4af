"""What whoever waits for a run's answer is told meanwhile."""

from __future__ import annotations

import asyncio

import pytest

from runward.cli import output
from runward.cli.results import tell_waits, told_result
from runward.testing.scripts import ask, say
from runward.testing.stack import Stack
from tests.support import App


async def test_a_request_that_was_decided_is_not_waited_for(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who asks for the result after the approval is not sent to approve again."""
    shop = App([ask("refund", order_id="17", amount="5.00"), say("Refunded.")])
    notes: asyncio.Queue[str] = asyncio.Queue()
    monkeypatch.setattr(output, "note", notes.put_nowait)
    async with stack.worker(stack.plugin(**shop.given)):
        run = await (await stack.acting_as("ada")).start("support", "Refund")
        before = asyncio.create_task(tell_waits(run))
        asked = await run.next_approval()
        told = await notes.get()
        await (await stack.acting_as("bob", ["finance"])).approvals.approve(asked.id)
        await before
        await tell_waits(run)

    assert told == f"refund waits for approval: `runward approvals show {asked.id}`"
    assert notes.empty()


async def test_an_answer_is_told_with_what_it_took(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    notes: list[str] = []
    monkeypatch.setattr(output, "note", notes.append)
    shop = App([say("Hello.")])
    async with stack.worker(stack.plugin(**shop.given)):
        run = await (await stack.acting_as("ada")).start("support", "Say hello")
        await told_result(run, None, "text")
    ended = await run.result()

    assert capsys.readouterr().out == "Hello.\n"
    assert notes == [f"1 turn, {ended.usage.tokens} tokens, ${ended.cost:f}"]
