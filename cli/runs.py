"""`runward runs`: starting runs, and reading what became of them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runward.cli import output as out
from runward.cli.caller import Caller, Output, acting

if TYPE_CHECKING:
    from runward.client.run_handle import RunHandle
    from runward.contracts.runs import RunResult

app = typer.Typer(no_args_is_help=True, help="Start runs and read their results")

AgentName = Annotated[str, typer.Argument(help="The agent's name")]
Prompt = Annotated[str, typer.Argument(help="What to ask it; - reads it from stdin")]
Key = Annotated[str | None, typer.Option(help="Asking again under the same key finds the same run")]
Session = Annotated[str, typer.Option(help="The session that the run belongs to")]
RunId = Annotated[str, typer.Argument(help="The run's id, as `runs start` printed it")]
Timeout = Annotated[
    float | None, typer.Option("--timeout", help="Wait at most this long", metavar="SECONDS")
]


@app.command()
@acting
async def start(
    caller: Caller,
    agent: AgentName,
    prompt: Prompt,
    key: Key = None,
    session: Session = "",
    output: Output = "text",
) -> None:
    """Start a run and print its id"""
    async with caller.client() as client:
        run = await client.start(agent, _text(prompt), key=key, session_id=session)
    if output == "json":
        out.data({"id": run.id}, output)
    else:
        out.answer(run.id)


@app.command()
@acting
async def execute(
    caller: Caller,
    agent: AgentName,
    prompt: Prompt,
    key: Key = None,
    session: Session = "",
    wait_s: Timeout = None,
    output: Output = "text",
) -> None:
    """Start a run, wait for its end, and print its answer"""
    async with caller.client() as client:
        run = await client.start(agent, _text(prompt), key=key, session_id=session)
        out.note(f"Running {run.id}. Ctrl-C leaves it running: `runward runs result {run.id}`")
        await _result(run, wait_s, output)


@app.command()
@acting
async def result(
    caller: Caller, run_id: RunId, wait_s: Timeout = None, output: Output = "text"
) -> None:
    """Wait for a run's end and print its answer"""
    async with caller.client() as client:
        await _result(client.get(run_id), wait_s, output)


@app.command()
@acting
async def show(caller: Caller, run_id: RunId, output: Output = "text") -> None:
    """Print what a run is doing"""
    from temporalio.client import WorkflowExecutionStatus

    from runward.client.answering import answered
    from runward.contracts.errors import RunwardError

    async with caller.client() as client:
        await client.get(run_id).check()
        handle = client.temporal.get_workflow_handle(run_id)
        found = await answered(handle.describe(), f"The run {run_id!r}")
        said: dict[str, Any] = {
            "id": run_id,
            "agent": await found.static_summary(),
            "execution": found.status.name.lower() if found.status else None,
            "started_at": found.start_time,
            "closed_at": found.close_time,
        }
        if found.status is WorkflowExecutionStatus.RUNNING:
            try:
                said |= (await client.get(run_id).status()).model_dump(mode="json")
            except RunwardError as error:
                out.note(f"What it does now is not known. {error}")
    if "cost" in said:
        said["cost_usd"] = _usd(said.pop("cost"))
        said["usage"] = dict(zip(_COUNTERS, said["usage"], strict=True))
    out.data(_readable(said, output), output)


_COUNTERS = ("input", "cache_read", "cache_write", "output")


async def _result(run: RunHandle[str], wait_s: float | None, output: out.Format) -> None:
    from temporalio.client import WorkflowFailureError

    from runward.contracts.errors import AgentError

    try:
        ended = await run.result(wait_s)
    except WorkflowFailureError as error:
        raise AgentError(f"The run {run.id!r}", "It was cancelled") from error
    if output == "json":
        out.data(_as_data(run.id, ended), output)
    elif ended.output:
        out.answer(ended.output)
    out.note(f"{ended.turns} turns, {ended.usage.tokens} tokens, ${ended.cost:f}")
    if ended.interrupted:
        out.failure(AgentError(f"The run was interrupted: {ended.interruption_reason}"))
        raise typer.Exit(out.EXIT_INTERRUPTED_RUN)


def _as_data(run_id: str, ended: RunResult[str]) -> dict[str, Any]:
    return {
        "id": run_id,
        "output": ended.output,
        "turns": ended.turns,
        "usage": {one: getattr(ended.usage, one) for one in _COUNTERS},
        "cost_usd": f"{ended.cost:f}",
        "interrupted": ended.interrupted,
        "interruption_reason": ended.interruption_reason,
        "started_at": ended.started_at.isoformat(),
        "finished_at": ended.finished_at.isoformat(),
        "session_id": ended.session_id,
        "run_id": ended.run_id,
    }


def _readable(said: dict[str, Any], output: out.Format) -> dict[str, Any]:
    if output == "text" and "usage" in said:
        said["usage"] = [f"{count} {name}" for name, count in said["usage"].items() if count]
    return said


def _usd(nano: int) -> str:
    from runward.contracts.runs import usd

    return f"{usd(nano):f}"


def _text(prompt: str) -> str:
    return sys.stdin.read() if prompt == "-" else prompt
