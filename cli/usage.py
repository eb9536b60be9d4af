"""`runward usage`: what users have spent."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runward.cli import output as out
from runward.cli.caller import Caller, Output, acting
from runward.cli.times import moment

if TYPE_CHECKING:
    from runward.contracts.story import CapWindow, UserUsage

app = typer.Typer(no_args_is_help=True, help="Print what users have spent")


@app.command()
@acting
async def show(
    caller: Caller,
    who: Annotated[str, typer.Argument(help="The user", metavar="USER")],
    since: Annotated[
        datetime | None,
        typer.Option(
            help="A date, a time or how long ago, such as 3d; this month if left out",
            metavar="TIME",
            parser=moment,
        ),
    ] = None,
    output: Output = "text",
) -> None:
    """Print what a user's models answered, what it cost, and the user's caps

    What was billed for calls that brought no answer counts in the caps only.
    """
    from runward.contracts.errors import NotFound
    from runward.contracts.story import RunQuery, month_begin

    begin = since or month_begin(datetime.now(UTC))
    async with caller.reader() as (reader, tenant):
        if not await reader.runs(tenant, RunQuery(user=who, limit=1)):  # a mistyped name, not $0
            raise NotFound(
                f"The user {who!r}",
                f"Tenant {tenant!r} has no run of that user",
                "`runward runs list` names the users of its runs",
            )
        found = await reader.usage(tenant, who, begin)
    if output == "text":
        out.data(_totals(found), output)
        out.data([_window(one) for one in found.windows], output)
    else:
        out.data(_totals(found) | {"caps": [_window(one) for one in found.windows]}, output)


def _totals(found: UserUsage) -> dict[str, Any]:
    return {
        "user": found.user,
        "since": found.since,
        "runs": found.runs,
        "model_calls": found.calls,
        "input_tokens": found.usage.input_total,
        "output_tokens": found.usage.output,
        "cost_usd": f"{found.cost:f}",
    }


def _window(one: CapWindow) -> dict[str, Any]:
    from runward.contracts.runs import usd

    def amount(number: int) -> Any:
        return f"${usd(number):f}" if one.dimension == "cost" else number

    return {
        "cap": f"{one.dimension} per {one.period}",
        "limit": amount(one.cap),
        "spent": amount(one.spent),
        "held": amount(one.held),
        "until": one.window_end,
    }
