"""Replays histories against today's code: what a running execution would stumble over fails here.

Needs neither a server nor a database. Nothing here may wait for either.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from google.protobuf.json_format import ParseError
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import WorkflowHandle, WorkflowHistory
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.converter import DataConverter
from temporalio.worker import Plugin, Replayer, UnsandboxedWorkflowRunner
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

from runward.contracts.errors import RequestRefused
from runward.workers.plugin import RunwardPlugin

# The interceptors stand outside of the sandbox: what they hand in must be the same types inside.
_RESTRICTIONS = SandboxRestrictions.default.with_passthrough_modules("runward.contracts")


async def replay(
    history: WorkflowHistory | WorkflowHandle[Any, Any] | Path,
    *,
    plugin: RunwardPlugin | None = None,
    workflows: Sequence[type] = (),
    plugins: Sequence[Plugin] = (),
    data_converter: DataConverter = pydantic_data_converter,
    sandboxed: bool = False,
) -> None:
    """Replays one execution: a history, a handle whose history is fetched, or a file of its JSON.

    Agent runs need nothing else. For workflows of your own give them in `workflows`, and the plugin
    whose `govern` lists their activities. Workflows that ask for no sandbox get none, `AgentRun`
    among them, unless `sandboxed`: that finds code of theirs which is not deterministic.

    Raises Temporal's NondeterminismError where today's code would do something else, RequestRefused
    for what is no history from its beginning.
    """
    given = plugin or RunwardPlugin()
    sandbox = SandboxedWorkflowRunner(restrictions=_RESTRICTIONS)
    replayer = Replayer(
        workflows=workflows,
        plugins=[*plugins, given],
        data_converter=data_converter,
        workflow_runner=sandbox,
        unsandboxed_workflow_runner=sandbox if sandboxed else UnsandboxedWorkflowRunner(),
    )
    if isinstance(history, Path):
        history = _read(history)
    elif isinstance(history, WorkflowHandle):
        history = await history.fetch_history()
    if not _begins(history):  # over such a one the SDK's replayer waits for ever
        raise _no_history(f"A replay of {history.workflow_id!r}", "It does not begin with a start")
    await replayer.replay_workflow(history)


def _read(path: Path) -> WorkflowHistory:
    text = path.read_text(encoding="utf-8")
    try:
        return WorkflowHistory.from_json(path.stem, text)
    except (ValueError, AttributeError, ParseError) as error:
        raise _no_history(f"A replay of {str(path)!r}", f"It is no history: {error}") from error


def _begins(history: WorkflowHistory) -> bool:
    """Returns whether the first event is the start, with the run id that a replay needs."""
    first = history.events[0] if history.events else HistoryEvent()
    return bool(first.workflow_execution_started_event_attributes.original_execution_run_id)


def _no_history(asked: str, holds: str) -> RequestRefused:
    return RequestRefused(asked, holds, "Keep the whole of one: `(await run.history()).to_json()`")
