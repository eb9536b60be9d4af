"""Runs that were recorded before replay today: without a database, sandboxed and not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer, UnsandboxedWorkflowRunner, WorkflowRunner
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions
from temporalio.workflow import NondeterminismError

from runward.workers.plugin import RunwardPlugin
from tests.record_histories import HISTORIES, RUNS

# The interceptors stand outside of the sandbox: what they hand in must be the same types inside.
RESTRICTIONS = SandboxRestrictions.default.with_passthrough_modules("runward.contracts")
RUNNERS: dict[str, WorkflowRunner] = {
    "sandboxed": SandboxedWorkflowRunner(restrictions=RESTRICTIONS),
    "not sandboxed": UnsandboxedWorkflowRunner(),
}


def replayer(runner: WorkflowRunner) -> Replayer:
    """Returns a replayer that runs `AgentRun`, which asks for no sandbox, in this runner."""
    return Replayer(workflows=[], plugins=[RunwardPlugin()], unsandboxed_workflow_runner=runner)


def recorded(name: str) -> dict[str, Any]:
    """Returns a recorded history."""
    found: dict[str, Any] = json.loads((HISTORIES / f"{name}.json").read_text(encoding="utf-8"))
    return found


def test_every_recorded_run_has_its_history() -> None:
    """And no file is left over."""
    assert {one.stem for one in HISTORIES.glob("*.json")} == set(RUNS)


@pytest.mark.parametrize("runner", RUNNERS)
@pytest.mark.parametrize("name", RUNS)
async def test_a_recorded_run_replays(name: str, runner: str) -> None:
    """The commands of today's code are those in the history."""
    history = WorkflowHistory.from_json(name, recorded(name))
    await replayer(RUNNERS[runner]).replay_workflow(history)


@pytest.mark.parametrize("runner", RUNNERS)
async def test_a_reordered_activity_makes_the_replay_fail(runner: str) -> None:
    """Two parallel tool calls whose order is another one."""
    history = recorded("tools")
    scheduled = [
        event["activityTaskScheduledEventAttributes"]
        for event in history["events"]
        if "activityTaskScheduledEventAttributes" in event
    ]
    first, second = (one for one in scheduled if one["activityId"].startswith("t1.tool."))
    for key in ("activityId", "input"):
        first[key], second[key] = second[key], first[key]
    with pytest.raises(NondeterminismError):
        await replayer(RUNNERS[runner]).replay_workflow(WorkflowHistory.from_json("x", history))
