"""How `runs execute` and `runs result` wait for a run, and tell how it ended."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import typer

from runward.cli import output as out
from runward.cli.story import totals

if TYPE_CHECKING:
    from runward.client.run_handle import RunHandle
    from runward.contracts.runs import RunResult

COUNTERS = ("input", "cache_read", "cache_write", "output")


async def told_result(run: RunHandle[str], wait_s: float | None, output: out.Format) -> None:
    """Prints a run's answer once it has ended; meanwhile tells what it waits for."""
    from temporalio.client import WorkflowFailureError

    from runward.client.confirmation import SEE_STORY
    from runward.contracts.errors import AgentError

    telling = asyncio.create_task(tell_waits(run))
    try:
        ended = await run.result(wait_s)
    except TimeoutError:
        again = f"The run goes on; `runward runs result {run.id}` waits for it again"
        said = f"The answer of {run.id!r}. The time given with --timeout is over. {again}"
        raise TimeoutError(said) from None
    except WorkflowFailureError as error:
        raise AgentError(f"The run {run.id!r}", "It was cancelled", SEE_STORY) from error
    finally:
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)
    if output != "text":
        out.data(_as_data(run.id, ended), output)
    elif ended.output:
        out.answer(ended.output)
    out.note(totals(ended))
    if ended.interrupted:
        why = ended.interruption_reason or ""
        out.failure(AgentError("The run was interrupted", why, SEE_STORY))
        raise typer.Exit(out.EXIT_INTERRUPTED_RUN)


def _as_data(run_id: str, ended: RunResult[str]) -> dict[str, Any]:
    return {
        "id": run_id,
        "output": ended.output,
        "turns": ended.turns,
        "usage": {one: getattr(ended.usage, one) for one in COUNTERS},
        "cost_usd": f"{ended.cost:f}",
        "interrupted": ended.interrupted,
        "interruption_reason": ended.interruption_reason,
        "started_at": ended.started_at,
        "finished_at": ended.finished_at,
        "session_id": ended.session_id,
        "run_id": ended.run_id,
        "fallback_models": list(ended.fallback_models),
    }


async def tell_waits(run: RunHandle[str]) -> None:
    """Says which approvals the run waits for; without a store to read from, nothing."""
    from runward.contracts.errors import RunwardError

    with suppress(RunwardError):
        async for event in run.watch():
            if event.kind == "approval_requested" and await _pending(run, event.approval_id):
                out.note(
                    f"{event.name} waits for approval: `runward approvals show {event.approval_id}`"
                )


async def _pending(run: RunHandle[str], approval_id: str) -> bool:
    """Returns whether nobody has decided it yet: a watcher is told of all that ever happened."""
    asked = [one for step in (await run.story()).steps for one in step.approvals]
    return any((one.id, one.state) == (approval_id, "pending") for one in asked)
