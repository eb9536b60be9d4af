"""`runward doctor`: what is wrong with this installation, and what mends it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from runward.cli import output as out
from runward.cli.caller import Caller, Output, acting
from runward.cli.worker import App


@acting
async def doctor(
    caller: Caller,
    app: App = None,
    fix: Annotated[
        bool, typer.Option("--fix", help="Register the search attributes that are missing")
    ] = False,
    output: Output = "text",
) -> None:
    """Check settings, servers and keys, and say what mends what is wrong; exit code 1 if one fails

    Changes nothing without --fix, and spends no tokens.
    """
    from runward.cli.checks import Patient, examine
    from runward.client.settings import temporal_connection

    settings, key_file = caller.settings()

    def connection() -> dict[str, Any]:
        return temporal_connection(
            caller.address, namespace=caller.namespace, profile=caller.profile
        )

    found = await examine(Patient(settings, connection, key_file, app, fix))
    out.data([asdict(one) | {"fix": one.fix or None} for one in found], output)
    if any(one.state == "fail" for one in found):
        raise typer.Exit(out.EXIT_FAILED)
