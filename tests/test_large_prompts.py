"""Prompts and instructions of every size: inline, by reference, or refused at the door."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest

from runward.activities.transcripts import Transcripts
from runward.client.run_handle import RunHandle
from runward.client.runs import ActingClient
from runward.client.runward_client import RunwardClient
from runward.contracts.agents import INSTRUCTIONS_BYTES_MAX, Agent
from runward.contracts.content import Content
from runward.contracts.errors import AgentError, ConfigurationError, RequestRefused
from runward.contracts.outcomes import Ref
from runward.contracts.providers import ModelRequest
from runward.contracts.runs import PROMPT_BYTES_MAX, REQUEST_INLINE_BYTES_MAX
from runward.contracts.tools import tool
from runward.contracts.transcript import AssistantMessage, encode_message
from runward.testing.scripts import ScriptedProvider, Turn, ask, say
from runward.testing.stack import Stack


class Reading:
    """An agent that reads its prompt twice, with a call in between."""

    def __init__(self, instructions: str = "") -> None:
        self.seen: list[ModelRequest] = []
        self.instructions = instructions

    def __call__(self, request: ModelRequest) -> Turn:
        self.seen.append(request)
        return say("read") if len(request.messages) > 1 else ask("note")

    def app(self, stack: Stack) -> Any:
        @tool
        async def note() -> str:
            """Notes something."""
            return "noted"

        agent: Agent[Any] = Agent(
            "reader", model="scripted:reader", tools=[note], instructions=self.instructions
        )
        return stack.plugin(agents=[agent], providers=[ScriptedProvider({"reader": self})])


async def without_a_store(stack: Stack) -> ActingClient:
    """Returns ada's client as a process has it that may not hold the store's address."""
    temporal = (await stack.client()).temporal
    rw = RunwardClient(temporal, issuer=stack.key, task_queue=stack.task_queue)
    return rw.acting_as("ada", tenant=stack.tenant)


async def history_bytes(stack: Stack, run: RunHandle[Any]) -> int:
    return sum(event.ByteSize() for event in (await stack.history(run)).events)


async def test_a_prompt_of_two_megabytes_is_read_in_every_call_and_is_not_in_history(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Transcripts, "remember", lambda *_: None)
    agent, ada = Reading(), await stack.acting_as("ada")
    prompt = "two megabytes of a story; é\x01" * 75_000
    async with stack.worker(agent.app(stack)):
        run = await ada.start("reader", prompt)
        assert (await run.result(timeout=60)).output == "read"

    assert [one.messages[0].text for one in agent.seen] == [prompt, prompt]
    assert await history_bytes(stack, run) < 16_384


async def test_the_same_prompt_is_stored_once_for_a_tenant(
    stack: Stack, owner: asyncpg.Connection[asyncpg.Record]
) -> None:
    agent, ada = Reading(), await stack.acting_as("ada")
    async with stack.worker(agent.app(stack)):
        for user in ("ada", "bob"):
            ada = await stack.acting_as(user)
            await ada.execute("reader", "x" * 300_000)

    rows = await owner.fetch(
        "select c.complete, (select count(*) from runward.content_use u"
        " where u.tenant = c.tenant and u.digest = c.digest) as uses"
        " from runward.large_content c where c.tenant = $1",
        stack.tenant,
    )
    assert [tuple(one) for one in rows] == [(True, 2)]


@pytest.mark.parametrize("size", [REQUEST_INLINE_BYTES_MAX, 900_000])
async def test_a_key_names_one_run_whether_or_not_a_client_has_a_store(
    stack: Stack, size: int
) -> None:
    agent, ada, poor = Reading(), await stack.acting_as("ada"), await without_a_store(stack)
    async with stack.worker(agent.app(stack)):
        first = await poor.start("reader", "x" * size, key="a")
        again = await ada.start("reader", "x" * size, key="a")
        with pytest.raises(RequestRefused, match="something else"):
            await ada.start("reader", "y" * size, key="a")
        await first.result(timeout=60)

    assert first.id == again.id
    assert [len(one.messages[0].text) for one in agent.seen] == [size, size]


async def test_past_the_limits_the_door_says_what_to_do(stack: Stack) -> None:
    ada, poor = await stack.acting_as("ada"), await without_a_store(stack)

    with pytest.raises(RequestRefused, match=f"At most {PROMPT_BYTES_MAX} bytes fit.*Put large"):
        await ada.start("reader", "x" * 60_000_000)
    with pytest.raises(ConfigurationError, match=r"go through the store.*database_url="):
        await poor.start("reader", "x" * 2_000_000)
    with pytest.raises(RequestRefused, match=r"The prompt is empty.*Say what"):
        await ada.start("reader", "")


async def test_a_request_that_refers_to_no_users_words_is_refused(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody with a key may name any content of the tenant; it must be a prompt."""
    agent, ada = Reading(), await stack.acting_as("ada")
    other = Content(encode_message(AssistantMessage(text="x" * 100_000)))
    reader = (await stack.client())._reader
    assert reader is not None
    await reader.put(stack.tenant, other)
    monkeypatch.setattr(
        "runward.client.requests.Ref",
        lambda **_: Ref(digest=other.digest, size=other.size),
    )
    async with stack.worker(agent.app(stack)):
        run = await ada.start("reader", "y" * 100_000)
        with pytest.raises(AgentError, match="refers to what no user said"):
            await run.result(timeout=30)

    assert agent.seen == []


async def test_long_instructions_are_in_every_call_and_in_no_payload(stack: Stack) -> None:
    agent, ada = Reading("Be kind. " * 55_000), await stack.acting_as("ada")
    async with stack.worker(agent.app(stack)):
        run = await ada.start("reader", "hello")
        await run.result(timeout=60)

    assert [len(one.instructions) for one in agent.seen] == [495_000, 495_000]
    assert await history_bytes(stack, run) < 16_384


def test_instructions_have_a_limit() -> None:
    Agent("a", model="scripted:a", instructions="é" * (INSTRUCTIONS_BYTES_MAX // 2))
    with pytest.raises(ConfigurationError, match=f"At most {INSTRUCTIONS_BYTES_MAX} fit"):
        Agent("a", model="scripted:a", instructions="é" * (INSTRUCTIONS_BYTES_MAX // 2) + "x")
