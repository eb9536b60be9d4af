"""The other side of every comparison: the same agent as a Temporal workflow written by hand.

The same model, tools, activity options and sizes of inputs and results; no identity, no permission,
no budget, no audit, no store. Like the governed run it hands digests to its activities, never the
conversation, so that its history does not grow with the square of the turns. `trace` stands for
what a governed payload holds beyond the content; nobody here reads it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Any

from stack import PROMPT, RESULT, asked
from temporalio import activity, workflow
from temporalio.common import RetryPolicy

from runward.activities.provider_scripted import ScriptedProvider
from runward.contracts.providers import ModelRequest
from runward.contracts.transcript import AssistantMessage, Message, ToolCall, ToolMessage
from runward.contracts.transcript import UserMessage as User

HEAD = "0" * 43  # as long as a digest
MODEL_TRACE = "0" * 22  # makes a model's result as long as the governed one
TOOL_TRACE = "0" * 30
OPTIONS: dict[str, Any] = {
    "heartbeat_timeout": timedelta(seconds=10),
    "retry_policy": RetryPolicy(
        initial_interval=timedelta(seconds=1), maximum_interval=timedelta(seconds=15)
    ),
    "cancellation_type": workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
}


@dataclass
class ModelInput:
    """The next turn, by digests."""

    turn: int
    turns: int
    head: str
    new: list[str]
    prompt: str = ""


@dataclass
class Asked:
    """A tool call as the model wrote it."""

    id: str
    name: str
    arguments: str


@dataclass
class ModelOutput:
    """What the model answered."""

    text: str
    calls: list[Asked]
    usage: list[int]
    stop: str
    trace: str = MODEL_TRACE


@dataclass
class ToolInput:
    """One tool call."""

    turn: int
    id: str
    name: str
    arguments: str
    trace: str = HEAD


@dataclass
class ToolOutput:
    """What the tool answered."""

    text: str
    trace: str = TOOL_TRACE


@workflow.defn(name="HandWritten", sandboxed=False)
class HandWritten:
    """N turns; in each the model is asked, and the tools that it asks for are called."""

    @workflow.run
    async def run(self, turns: int) -> str:
        """Returns the answer."""
        new = [HEAD]
        for turn in range(1, turns + 1):
            prompt = PROMPT if turn == 1 else ""
            answer = await workflow.execute_activity(
                "hand.model",
                ModelInput(turn, turns, HEAD, new, prompt),
                activity_id=f"t{turn}.model",
                summary=f"turn {turn}",
                result_type=ModelOutput,
                start_to_close_timeout=timedelta(minutes=10),
                **OPTIONS,
            )
            if not answer.calls:
                return str(answer.text)
            await asyncio.gather(*(_tool(turn, i, one) for i, one in enumerate(answer.calls)))
            new = [HEAD for _ in answer.calls]
        return ""


async def _tool(turn: int, index: int, call: Asked) -> ToolOutput:
    answer: ToolOutput = await workflow.execute_activity(
        "hand.lookup",
        ToolInput(turn, call.id, call.name, call.arguments),
        activity_id=f"t{turn}.tool.{index}",
        summary=f"turn {turn}",
        result_type=ToolOutput,
        start_to_close_timeout=timedelta(seconds=90),
        **OPTIONS,
    )
    return answer


@dataclass
class Bodies:
    """The activities: they call what the governed ones call."""

    model: ScriptedProvider
    lookup: Callable[..., Any]

    @activity.defn(name="hand.model")
    async def call_model(self, given: ModelInput) -> ModelOutput:
        """Returns the model's answer to a conversation as long as the governed one."""
        request = ModelRequest(
            model=f"turns-{given.turns}",
            instructions="",
            messages=conversation(given.turns, given.turn),
            tools=(),
            max_output_tokens=4096,
            idempotency_key=activity.info().activity_id,
        )
        answer = await self.model.call(request)
        calls = [Asked(one.id, one.name, one.arguments) for one in answer.message.calls]
        used = answer.usage
        return ModelOutput(
            text=answer.message.text,
            calls=calls,
            usage=[used.input, used.cache_read, used.cache_write, used.output],
            stop=answer.stop,
        )

    @activity.defn(name="hand.lookup")
    async def call_lookup(self, given: ToolInput) -> ToolOutput:
        """Returns the tool's text."""
        return ToolOutput(text=await self.lookup(**json.loads(given.arguments)))

    @property
    def activities(self) -> list[Callable[..., Any]]:
        """Returns what the worker registers."""
        return [self.call_model, self.call_lookup]


@lru_cache(maxsize=1024)
def conversation(turns: int, turn: int) -> tuple[Message, ...]:
    """Returns the messages before a turn; made once, as keeping them is the user's affair."""
    messages: list[Message] = [User(text=PROMPT)]
    for number, one in enumerate(asked(turns)[: turn - 1]):
        calls = tuple(
            ToolCall(id=f"call_{number}_{index}", name=call.name, arguments=call.text)
            for index, call in enumerate(one.calls)
        )
        messages.append(AssistantMessage(text=one.text, calls=calls))
        messages += [ToolMessage(call_id=c.id, name=c.name, text=RESULT) for c in calls]
    return tuple(messages)
