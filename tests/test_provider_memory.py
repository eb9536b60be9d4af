"""The doubles refuse reasoning that is not what they said, or other tests would show nothing."""

from __future__ import annotations

from typing import Any

import pytest

from tests.anthropic_double import text, thinking, tool_use
from tests.openai_double import function_call, reasoning, said
from tests.openai_double import text as words
from tests.provider_memory import Memory, Messages, Responses

MEMORIES: list[tuple[Memory, dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]] = [
    (
        Messages(),
        {"model": "m", "messages": [{"role": "user", "content": [text("Where is it?")]}]},
        [thinking("An order.", "s1"), text("Looking."), thinking("", "s2"), tool_use("c1", "look")],
        [{"type": "tool_result", "tool_use_id": "c1"}],
    ),
    (
        Responses(),
        {"model": "m", "input": [{"role": "user", "content": "Where is it?"}]},
        [reasoning(), said(words("Looking.")), reasoning(2), function_call("c1", "look", "{}")],
        [{"type": "function_call_output", "call_id": "c1", "output": ""}],
    ),
]


@pytest.mark.parametrize(("memory", "asked", "came", "result"), MEMORIES, ids=["claude", "openai"])
def test_the_doubles_refuse_reasoning_that_is_not_what_they_said(
    memory: Memory,
    asked: dict[str, Any],
    came: list[dict[str, Any]],
    result: list[dict[str, Any]],
) -> None:
    def error(*items: dict[str, Any], **changes: Any) -> str | None:
        if "messages" not in asked:
            return memory.error({**asked, "input": [*asked["input"], *items, *result]} | changes)
        turns = ({"role": "assistant", "content": [*items]}, {"role": "user", "content": result})
        return memory.error({**asked, "messages": [*asked["messages"], *turns]} | changes)

    first, second, third, call = came
    memory.hear(asked, came)
    changed = {**third, "signature": "x", "encrypted_content": "x"}

    assert error(*came) is None
    assert error(call, model="n") is None
    assert all(
        [
            error(call),  # without any
            error(first, second, call),  # without one
            error(first, second, changed, call),
            error(third, second, first, call),
            error(first, third, second, call),
            error(*came, model="n"),
        ]
    )
