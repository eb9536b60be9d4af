"""`runward approvals`: what waits for a person, and that person's answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from runward.cli import output as out
from runward.cli.caller import Caller, Output, acting
from runward.cli.completion import approval_ids

if TYPE_CHECKING:
    from runward.contracts.approvals import Approval, DecisionWord

app = typer.Typer(no_args_is_help=True, help="List and decide approval requests")

# Spelled again, so that `--help` does not load the contracts; a test compares the two.
State = Literal["pending", "approved", "rejected", "expired", "consumed", "void"]

ApprovalId = Annotated[
    str,
    typer.Argument(
        help="The request's id, as `approvals list` prints it",
        metavar="APPROVAL_ID",
        autocompletion=approval_ids,
    ),
]
Reason = Annotated[str, typer.Option(help="Why; recorded, and on reject told to the model")]


@app.command("list")
@acting
async def list_(
    caller: Caller,
    state: Annotated[State, typer.Option(help="Requests in this state")] = "pending",
    output: Output = "text",
) -> None:
    """List the tenant's approval requests"""
    async with caller.reader() as (reader, tenant):
        found = await reader.approvals(tenant, state)
    if output != "text":
        out.data([one.model_dump() for one in found], output)
    else:
        out.data([_row(one) for one in found], output)
        if not found:
            out.note(f"No {state} approval requests")


@app.command()
@acting
async def show(caller: Caller, approval_id: ApprovalId, output: Output = "text") -> None:
    """Print one request: exactly what would run, for whom, and what became of it"""
    from runward.client.reader import approval_of

    async with caller.reader() as (reader, tenant):
        found = await approval_of(reader, tenant, approval_id)
    out.data(found.model_dump(), output)


@app.command()
@acting
async def approve(
    caller: Caller, approval_id: ApprovalId, reason: Reason = "", output: Output = "text"
) -> None:
    """Let the call run, once, exactly as it was shown"""
    await _decide(caller, approval_id, "approve", reason, output)


@app.command()
@acting
async def reject(
    caller: Caller, approval_id: ApprovalId, reason: Reason = "", output: Output = "text"
) -> None:
    """Refuse the call"""
    await _decide(caller, approval_id, "reject", reason, output)


async def _decide(
    caller: Caller, approval_id: str, word: DecisionWord, reason: str, output: out.Format
) -> None:
    async with caller.client() as client:
        decide = client.approvals.approve if word == "approve" else client.approvals.reject
        result = await decide(approval_id, reason)
    out.data({"id": approval_id, "state": result.state, "reason": result.reason}, output)


def _row(one: Approval) -> dict[str, Any]:
    return {
        "id": one.id,
        "tool": one.tool,
        "arguments": one.arguments,
        "requester": one.requester,
        "approver_role": one.approver_role,
        "run": one.workflow_id,
        "expires_at": one.expires_at,
        "title": one.title or None,
    }
