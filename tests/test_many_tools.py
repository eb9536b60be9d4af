"""An agent of 1,000 tools: its runs hold what was called, and nothing of the other 999."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from temporalio.api.enums.v1 import EventType

from runward.activities.provider_scripted import ScriptedProvider
from runward.contracts.agents import Agent
from runward.contracts.outcomes import ModelDone, Opened
from runward.contracts.runs import RunInput, RunRequest
from runward.contracts.tools import tool
from runward.contracts.transcript import AssistantMessage, ToolCall
from runward.contracts.wire import decode_wire, encode_wire
from runward.testing.scripts import Script, ask, say
from runward.testing.stack import Stack
from runward.workflows.agent_run import TOOL_GRACE
from runward.workflows.conversation import Conversation

TOOLS = 1_000
NOW = datetime(2026, 1, 1, tzinfo=UTC)


async def _body(order_id: str) -> str:
    """Look an order up."""
    return f"{order_id} was shipped"


async def test_a_run_of_many_tools_answers_with_a_small_history(stack: Stack) -> None:
    """Each call has its own tool's time; an unknown one is refused, as ever."""
    tools = [tool(_body, name=f"tool_{n}", timeout=n + 1) for n in range(TOOLS)]
    agent: Agent[Any] = Agent("many", model="scripted:many", tools=tools)
    turns = [ask("tool_776", order_id="17"), ask("tool_1000", order_id="17"), say("Shipped.")]
    plugin = stack.plugin(agents=[agent], providers=[ScriptedProvider({"many": Script(turns)})])
    async with stack.worker(plugin):
        run = await (await stack.acting_as("ada")).start("many", "Where is order 17?")
        result = await run.result()
    events = (await stack.history(run)).events

    assert result.output == "Shipped."
    scheduled = [
        one.activity_task_scheduled_event_attributes
        for one in events
        if one.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED
    ]
    known, unknown = (one for one in scheduled if one.activity_type.name.startswith("tool."))
    assert (known.activity_type.name, unknown.activity_type.name) == (
        "tool.tool_776",
        "tool.refused",
    )
    assert known.start_to_close_timeout.ToTimedelta() == timedelta(seconds=777) + TOOL_GRACE
    assert max(one.ByteSize() for one in events) < 2_048


def _asks(*names: str, **more: Any) -> ModelDone:
    calls = tuple(ToolCall(id=name, name=name, arguments="{}") for name in names)
    return ModelDone(message=AssistantMessage(calls=calls), **more)


def _begun() -> Conversation:
    return Conversation.begin(RunInput(request=RunRequest(agent="many", prompt="?")), NOW)


def test_the_outcome_says_how_long_each_call_may_take() -> None:
    """And which of them no tool answers to."""
    talk = _begun()
    calls = talk.answered(_asks("a", "none", "b", limits=(5, -1, 7)))

    assert [talk.timeout_s(one) for one in calls] == [5, None, 7]


def test_an_older_outcome_without_times_has_those_of_its_opening() -> None:
    """Its workers told them once, for all tools; the next execution knows them as well."""
    talk = _begun()
    first = talk.answered(_asks("a", "none", opened=Opened(max_turns=9, tools={"a": (5, 0)})))
    carried = decode_wire(RunInput, encode_wire(talk.carry()))
    after = Conversation.begin(carried, NOW)
    again = after.answered(_asks("none", "a"))

    assert [talk.timeout_s(one) for one in first] == [5, None]
    assert [after.timeout_s(one) for one in again] == [None, 5]


def test_what_continues_as_new_does_not_hold_the_tools() -> None:
    """They are in no run's input."""
    talk = _begun()
    talk.answered(_asks("a", limits=(5,), opened=Opened(max_turns=9)))

    assert b'"o"' not in encode_wire(talk.carry())
