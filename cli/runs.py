"""`runward runs`: starting runs, and reading what became of them."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

import typer

from runward.cli import completion
from runward.cli import output as out
from runward.cli.asking import Files, Prompt, prompt_text, shown
from runward.cli.caller import Caller, Output, Streamed, Yes, acting
from runward.cli.calls import story_rows
from runward.cli.results import COUNTERS, told_result
from runward.cli.story import as_data, run_row, told, totals
from runward.cli.times import seconds

app = typer.Typer(no_args_is_help=True, help="Start runs and read their results")

# Spelled again, so that `--help` does not load the contracts; a test compares the two.
State = Literal["open", "answered", "interrupted", "cancelled", "failed", "ended"]

AgentName = Annotated[
    str,
    typer.Argument(help="The agent's name", metavar="AGENT", autocompletion=completion.agents),
]
Key = Annotated[str | None, typer.Option(help="Asking again under the same key finds the same run")]
Session = Annotated[str, typer.Option(help="The session that the run belongs to")]
_RUN_ID = "The run's id, as `runs start` printed it"
RunId = Annotated[
    str, typer.Argument(help=_RUN_ID, metavar="RUN_ID", autocompletion=completion.run_ids)
]
OpenRunId = Annotated[
    str, typer.Argument(help=_RUN_ID, metavar="RUN_ID", autocompletion=completion.open_run_ids)
]
Timeout = Annotated[
    float | None,
    typer.Option(
        "--timeout", help="Wait at most so long, such as 90s", metavar="SPAN", parser=seconds
    ),
]


@app.command()
@acting
async def start(
    caller: Caller,
    agent: AgentName,
    prompt: Prompt,
    key: Key = None,
    session: Session = "",
    files: Files = None,
    output: Output = "text",
) -> None:
    """Start a run and print its id"""
    text, given = prompt_text(prompt), shown(files)
    async with caller.client() as client:
        run = await client.start(agent, text, key=key, session_id=session, files=given)
    if output != "text":
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
    files: Files = None,
    wait_s: Timeout = None,
    output: Output = "text",
) -> None:
    """Start a run, wait for its end, and print its answer"""
    text, given = prompt_text(prompt), shown(files)
    async with caller.client() as client:
        run = await client.start(agent, text, key=key, session_id=session, files=given)
        out.note(f"Running {run.id}. Ctrl-C leaves it running: `runward runs result {run.id}`")
        await told_result(run, wait_s, output)


@app.command()
@acting
async def result(
    caller: Caller, run_id: RunId, wait_s: Timeout = None, output: Output = "text"
) -> None:
    """Wait for a run's end and print its answer"""
    async with caller.client() as client:
        await told_result(client.get(run_id), wait_s, output)


@app.command()
@acting
async def show(caller: Caller, run_id: RunId, output: Output = "text") -> None:
    """Print the story of a run: its calls, what they cost, who allowed them, how they ended"""
    async with caller.client() as client:
        story = await client.get(run_id).story()
        link = caller.link(client.temporal.namespace, run_id)
    if output != "text":
        out.data(as_data(story) | {"link": link}, output)
        return
    out.data(run_row(story.run), output)
    out.answer("")
    out.data(story_rows(story), output)
    sums = totals(story) if story.turns else ""  # a user's own workflow has no turns
    out.answer("\n".join(["", *filter(None, (sums, link))]))


@app.command()
@acting
async def describe(caller: Caller, run_id: RunId, output: Output = "text") -> None:
    """Print what Temporal says of a run: its execution, and what its workflow does now"""
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
            "ended_at": found.close_time,
        }
        try:
            said |= (await client.get(run_id).status()).model_dump()
        except RunwardError as error:
            out.note(f"What it does now is not known. {error}")
    if "cost" in said:
        said["cost_usd"] = _usd(said.pop("cost"))
        said["usage"] = dict(zip(COUNTERS, said["usage"], strict=True))
        said["reason"] = said["reason"] or None
    out.data(_readable(said, output), output)


@app.command("list")
@acting
async def list_(
    caller: Caller,
    of_user: Annotated[str | None, typer.Option("--user", help="Runs of this user")] = None,
    agent: Annotated[
        str | None,
        typer.Option(help="Runs of this agent", autocompletion=completion.agents),
    ] = None,
    state: Annotated[State | None, typer.Option(help="Runs in this state")] = None,
    limit: Annotated[int, typer.Option(help="At most so many", min=1, max=10_000)] = 100,
    output: Output = "text",
) -> None:
    """List the tenant's runs, newest first"""
    from runward.contracts.story import RunQuery

    async with caller.reader() as (reader, tenant):
        found = await reader.runs(tenant, RunQuery(of_user, agent, state, limit=limit))
    out.data([run_row(one) for one in found], output)
    if not found and output == "text":
        out.note(f"No such runs in tenant {tenant}")


@app.command()
@acting
async def watch(
    caller: Caller,
    run_id: RunId,
    after: Annotated[
        str, typer.Option(help="Go on behind this event's offset", metavar="OFFSET")
    ] = "",
    output: Streamed = "text",
) -> None:
    """Print what happens in a run until it ends

    Ctrl-C ends the watching, never the run. With -o jsonl each event is a line as it happens.
    """
    async with caller.client() as client:
        events = client.get(run_id).watch(after)
        last = after
        try:
            async for event in told(events, run_id, output):
                last = event.offset
        except asyncio.CancelledError:
            behind = f" --after {last}" if last else ""
            out.note(f"The run goes on. To watch it again: runward runs watch {run_id}{behind}")
            raise


@app.command()
@acting
async def cancel(caller: Caller, run_id: OpenRunId) -> None:
    """Ask a run to end; one that has answered keeps its answer"""
    async with caller.client() as client:
        await client.get(run_id).cancel()
    out.note(f"Asked {run_id} to end")


@app.command()
@acting
async def terminate(
    caller: Caller,
    run_id: OpenRunId,
    reason: Annotated[str, typer.Option(help="Why; shown in Temporal")] = "terminated by a person",
    yes: Yes = False,
) -> None:
    """End a run at once, without its cooperation

    A tool that is at work is not stopped by it. Holds are settled by the next sweep.
    """
    out.confirm(f"Terminate {run_id}?", yes)
    async with caller.client() as client:
        await client.get(run_id).terminate(reason)
    out.note(f"Terminated {run_id}")


@app.command()
@acting
async def reset(
    caller: Caller,
    run_id: RunId,
    before: Annotated[
        str, typer.Option(help="The call to begin again at, such as t3.model", metavar="CALL")
    ],
    reason: Annotated[str, typer.Option(help="Why; shown in Temporal")] = "reset by a person",
    yes: Yes = False,
) -> None:
    """Run a run again from one of its calls on, as a new epoch of it

    Models are asked anew. A tool's call that comes again with the same arguments has its recorded
    outcome; another call of a tool that acted before asks for approval.
    """
    out.confirm(f"Reset {run_id} to before {before}?", yes)
    async with caller.client() as client:
        await client.get(run_id).reset(before, reason)
    out.note(f"{run_id} runs again from {before} on")


@app.command()
@acting
async def history(caller: Caller, run_id: RunId) -> None:
    """Print a run's history as JSON, for a replay test

    It holds what was said, as far as no codec hides it.
    """
    async with caller.client() as client:
        out.answer((await client.get(run_id).history()).to_json())


def _readable(said: dict[str, Any], output: out.Format) -> dict[str, Any]:
    if output == "text" and "usage" in said:
        said["usage"] = [f"{count} {name}" for name, count in said["usage"].items() if count]
    return said


def _usd(nano: int) -> str:
    from runward.contracts.runs import usd

    return f"{usd(nano):f}"
