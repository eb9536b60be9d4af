"""What an agent may say of tries and fallback models, and what is refused before a run."""

from __future__ import annotations

from typing import Any

import pytest

from runward.contracts.agents import MODEL_RETRIES_DEFAULT
from runward.contracts.errors import ConfigurationError
from runward.testing.stack import Stack
from tests.test_model_tries import OWN, SECOND, Models, agent


@pytest.mark.parametrize(
    ("options", "says_what"),
    [
        ({"fallback": [OWN]}, "asked before already"),
        ({"fallback": [SECOND, SECOND]}, "asked before already"),
        ({"fallback": ["gpt"]}, "'provider:model'"),
        ({"fallback": [":x"]}, "'provider:model'"),
        ({"fallback": SECOND}, "a list of models"),
        ({"model_retries": -1}, "between 0 and"),
        ({"max_calls_per_turn": 0}, "between 1 and"),
        ({"max_calls_per_turn": 2_000}, "between 1 and"),
    ],
)
def test_what_cannot_work_is_refused_at_the_definition(
    options: dict[str, Any], says_what: str
) -> None:
    with pytest.raises(ConfigurationError, match=says_what):
        agent(**options)


async def test_a_provider_that_no_worker_has_is_found_at_the_start(stack: Stack) -> None:
    """Not by the first outage."""
    plugin = stack.plugin(agents=[agent(fallback=["acme:one"])], providers=[Models({})])

    with pytest.raises(ConfigurationError, match="acme"):
        async with stack.worker(plugin):
            pass


def test_the_snapshot_holds_what_was_set_and_no_more() -> None:
    """Runs are pinned to its digest: one from before must find the same."""
    plain = agent().snapshot

    assert plain.keys().isdisjoint({"fallback", "model_retries", "max_calls_per_turn"})
    assert agent(model_retries=MODEL_RETRIES_DEFAULT, fallback=()).snapshot == plain
    changed = agent(model_retries=3, fallback=[SECOND], max_calls_per_turn=2).snapshot
    assert changed == plain | {
        "model_retries": 3, "fallback": [SECOND], "max_calls_per_turn": 2
    }  # fmt: skip
