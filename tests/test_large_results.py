"""Results of tools that are large: what the model sees, what history holds, what can be read."""

from __future__ import annotations

import os
from typing import Any

import asyncpg
import pytest
from temporalio.api.enums.v1 import EventType

from runward.activities.results import CUT_BYTES, RESULT_BYTES_MAX, RESULT_SHOWN_BYTES_MAX
from runward.activities.transcripts import Transcripts
from runward.client.run_handle import RunHandle
from runward.contracts.agents import Agent
from runward.contracts.encoding import digest
from runward.contracts.errors import AgentError, StoreUnavailable
from runward.contracts.outcomes import Failed, ToolDone, decode_outcome
from runward.contracts.policy import StandardPermissions
from runward.contracts.providers import ModelRequest
from runward.contracts.tools import tool
from runward.contracts.transcript import ToolMessage
from runward.store.content import ContentStore
from runward.testing.scripts import ScriptedProvider, Turn, ask, say
from runward.testing.stack import Stack

SEEN: dict[str, str] = {}


def text_of(size: int) -> str:
    """Text that no two sizes begin alike with."""
    return (f"{size} bytes of a report; " * (size // 20 + 1))[:size]


@tool
async def report(size: int) -> str:
    """Returns a report of that many bytes."""
    return text_of(size)


@tool
async def listing(size: int) -> list[str]:
    """Returns a list of that many bytes, in some hundred entries."""
    return [text_of(size // 100)] * 100


def script(request: ModelRequest) -> Turn:
    """Asks for what the prompt says, and notes what it saw of the result."""
    name, size = request.messages[0].text.split()[:2]
    last = request.messages[-1]
    if not isinstance(last, ToolMessage):
        return ask(name, size=int(size))
    SEEN[f"{name} {size}"] = last.text
    return say("read")


def app(stack: Stack) -> Any:
    agent: Agent[Any] = Agent("reader", model="scripted:reader", tools=[report, listing])
    return stack.plugin(agents=[agent], providers=[ScriptedProvider({"reader": script})])


async def run_of(stack: Stack, prompt: str) -> RunHandle[Any]:
    ada = await stack.acting_as("ada")
    run = await ada.start("reader", prompt)
    await run.result(timeout=60)
    return run


async def tool_step(stack: Stack, run: RunHandle[Any]) -> tuple[int, ToolDone | Failed]:
    """Returns the bytes of the tool's events in history, and its outcome."""
    size, found = 0, None
    scheduled: set[int] = set()
    for event in (await stack.history(run)).events:
        match event.event_type:
            case EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
                if ".tool." in event.activity_task_scheduled_event_attributes.activity_id:
                    scheduled.add(event.event_id)
                    size += event.ByteSize()
            case EventType.EVENT_TYPE_ACTIVITY_TASK_STARTED:
                if event.activity_task_started_event_attributes.scheduled_event_id in scheduled:
                    size += event.ByteSize()
            case EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED:
                done = event.activity_task_completed_event_attributes
                if done.scheduled_event_id in scheduled:
                    size += event.ByteSize()
                    found = decode_outcome(done.result.payloads[0].data)
    assert isinstance(found, ToolDone | Failed)
    return size, found


async def read(run: RunHandle[Any], name: str) -> bytes:
    return b"".join([chunk async for chunk in run.content(name)])


async def test_a_result_of_a_mebibyte_is_seen_as_a_whole(stack: Stack) -> None:
    size = RESULT_SHOWN_BYTES_MAX
    async with stack.worker(app(stack)):
        run = await run_of(stack, f"report {size}")

    bytes_of_history, done = await tool_step(stack, run)
    assert isinstance(done, ToolDone) and done.full is None and done.ref is not None
    assert SEEN[f"report {size}"] == text_of(size)
    assert bytes_of_history < 4096
    assert len(await read(run, done.ref.digest)) == done.ref.size


@pytest.mark.parametrize("name", ["report", "listing"])
async def test_a_longer_result_is_cut_and_stored_as_a_whole(stack: Stack, name: str) -> None:
    size = 8 * 1024 * 1024
    async with stack.worker(app(stack)):
        run = await run_of(stack, f"{name} {size}")

    bytes_of_history, done = await tool_step(stack, run)
    assert isinstance(done, ToolDone) and done.full is not None and done.ref is not None
    assert bytes_of_history < 4096
    assert [one.full for one in (await run.story()).steps] == ["", done.full.digest, ""]
    whole = await read(run, done.full.digest)
    assert (len(whole), digest(whole)) == (done.full.size, done.full.digest)
    seen = SEEN[f"{name} {size}"]
    assert seen.startswith(whole[:CUT_BYTES].decode() + "\n[CUT: ")
    assert str(done.full.size) in seen and done.full.digest in seen
    assert len(seen) < CUT_BYTES + 300
    if name == "report":
        assert whole.decode() == text_of(size)


async def test_a_result_that_nothing_can_hold_fails_the_call_and_not_the_run(stack: Stack) -> None:
    async with stack.worker(app(stack)):
        run = await run_of(stack, f"report {RESULT_BYTES_MAX + 1}")

    _, done = await tool_step(stack, run)
    assert isinstance(done, Failed) and str(RESULT_BYTES_MAX) in done.reason
    assert SEEN[f"report {RESULT_BYTES_MAX + 1}"] == f"FAILED: {done.reason}"


async def test_a_worker_without_a_cache_finds_large_messages(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Transcripts, "keep", lambda *_: None)
    monkeypatch.setattr(Transcripts, "remember", lambda *_: None)
    size = 600_000
    async with stack.worker(app(stack)):
        run = await run_of(stack, f"report {size} {'x' * 300_000}")

    assert SEEN[f"report {size}"] == text_of(size)
    _, done = await tool_step(stack, run)
    assert isinstance(done, ToolDone) and done.ref is not None


async def test_large_messages_are_in_no_statement_that_records_steps(
    stack: Stack, owner: asyncpg.Connection[asyncpg.Record]
) -> None:
    async with stack.worker(app(stack)):
        await run_of(stack, f"report 600000 {'x' * 300_000}")

    rows = await owner.fetch(
        "select octet_length(content) as size from runward.transcript where tenant = $1"
        " order by prefix_bytes",
        stack.tenant,
    )
    assert [one["size"] for one in rows[:3:2]] == [0, 0]
    assert not await owner.fetchval(
        "select count(*) from runward.content where tenant = $1", stack.tenant
    )
    sizes = await owner.fetch(
        "select size from runward.large_content where tenant = $1 order by size", stack.tenant
    )
    assert [one["size"] // 100_000 for one in sizes] == [3, 6]


async def test_content_of_another_run_and_changed_content_are_refused(
    stack: Stack, owner: asyncpg.Connection[asyncpg.Record]
) -> None:
    async with stack.worker(app(stack)):
        run = await run_of(stack, "report 3000000")
        other = await run_of(stack, "report 10")
    _, done = await tool_step(stack, run)
    assert isinstance(done, ToolDone) and done.full is not None
    name = done.full.digest
    with pytest.raises(AgentError, match="does not hold"):
        await read(other, name)

    await owner.execute(
        "update runward.content_chunk set data = $2 where tenant = $1 and n = 1",
        stack.tenant,
        os.urandom(1024 * 1024),
    )
    with pytest.raises(AgentError, match="not what its digest names"):
        await read(run, name)


async def test_a_store_that_is_away_while_a_result_is_stored_is_waited_for(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tool has acted by then, and must not act again."""
    acted, refused = [], iter(range(3))
    put = ContentStore.put_for

    async def sometimes(self: ContentStore, *given: Any) -> None:
        if next(refused, None) is not None:
            raise StoreUnavailable("the store", "It did not answer", "Try again")
        await put(self, *given)

    @tool(effect="external")
    async def send(size: int) -> str:
        """Sends something, and returns that many bytes."""
        acted.append(size)
        return text_of(size)

    monkeypatch.setattr(ContentStore, "put_for", sometimes)
    agent: Agent[Any] = Agent("reader", model="scripted:reader", tools=[send])
    policy = StandardPermissions(mode="bypassPermissions")
    plugin = stack.plugin(
        agents=[agent], providers=[ScriptedProvider({"reader": script})], policy=policy
    )
    async with stack.worker(plugin):
        await run_of(stack, "send 3000000")

    assert (acted, next(refused, None)) == ([3_000_000], None)
