"""`runward config`: the settings as they hold now."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from runward.cli import output as out
from runward.cli.caller import Output

app = typer.Typer(no_args_is_help=True, help="Print the settings")


@app.command("list")
def list_(
    show_origin: Annotated[
        bool, typer.Option("--show-origin", help="Say where each value comes from")
    ] = False,
    output: Output = "text",
) -> None:
    """List all settings; a flag of a command wins over a variable, a variable over the file

    Secrets are not shown.
    """
    from runward.client.origins import origins

    rows = [asdict(one) for one in origins()]
    if not show_origin:
        rows = [{key: row[key] for key in ("name", "value")} for row in rows]
    out.data(rows, output)
