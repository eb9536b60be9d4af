"""Runs that were recorded before replay today: without a database, sandboxed and not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from temporalio.client import WorkflowHistory
from temporalio.workflow import NondeterminismError

from runward.contracts.tools import tool
from runward.testing import replay
from runward.workers.plugin import RunwardPlugin
from tests.record_histories import EVERY, HISTORIES
from tests.users_code import Cards, Charges

SANDBOXED = pytest.mark.parametrize("sandboxed", [True, False], ids=["sandboxed", "not sandboxed"])


def test_every_recorded_run_has_its_history() -> None:
    """And no file is left over."""
    assert {one.stem for one in HISTORIES.glob("*.json")} == set(EVERY)


@SANDBOXED
@pytest.mark.parametrize("name", EVERY)
async def test_a_recorded_run_replays(name: str, sandboxed: bool) -> None:
    """The commands of today's code are those in the history."""
    plugin = RunwardPlugin(govern=[tool(Cards().charge, effect="money")])
    path = HISTORIES / f"{name}.json"
    await replay(path, plugin=plugin, workflows=[Charges], sandboxed=sandboxed)


@SANDBOXED
async def test_a_reordered_activity_makes_the_replay_fail(sandboxed: bool) -> None:
    """Two parallel tool calls whose order is another one."""
    history: dict[str, Any] = json.loads((HISTORIES / "tools.json").read_text(encoding="utf-8"))
    scheduled = [
        event["activityTaskScheduledEventAttributes"]
        for event in history["events"]
        if "activityTaskScheduledEventAttributes" in event
    ]
    first, second = (one for one in scheduled if one["activityId"].startswith("t1.tool."))
    for key in ("activityId", "input"):
        first[key], second[key] = second[key], first[key]
    with pytest.raises(NondeterminismError):
        await replay(WorkflowHistory.from_json("x", history), sandboxed=sandboxed)
