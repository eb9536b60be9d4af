"""`runward health`: how the workers of this machine are, for the probes of an orchestrator."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runward.cli import output as out
from runward.cli.caller import Output
from runward.cli.times import text

if TYPE_CHECKING:
    from runward.workers.health_file import ServerState, WorkerHealth


def health(
    file: Annotated[
        Path | None,
        typer.Option(help="The workers' --health-file [RUNWARD_HEALTH_FILE]", metavar="PATH"),
    ] = None,
    alive: Annotated[
        bool, typer.Option("--alive", help="Only ask whether the processes themselves run")
    ] = False,
    output: Output = "text",
) -> None:
    """Print how workers are; exit code 1 unless all are ready

    A worker is ready when it takes work and both the store and Temporal answer it. A restart mends
    no server that is away: ask with --alive whether a worker has to be restarted.
    """
    from runward.client.settings import Settings
    from runward.contracts.errors import ConfigurationError
    from runward.workers.health_file import read

    path = Settings.load(health_file=file).health_file
    if path is None:
        raise ConfigurationError(
            "runward health", "No setting names the file", "Set RUNWARD_HEALTH_FILE or pass --file"
        )
    found = read(path)
    if not found:
        raise ConfigurationError(
            f"The health file {str(path)!r}",
            "No worker has written it",
            "Start one: `runward worker --health-file PATH`",
        )
    out.data([_row(one) for one in found], output)
    if not all(one.alive if alive else one.ready for one in found):
        raise typer.Exit(out.EXIT_FAILED)


def _row(one: WorkerHealth) -> dict[str, Any]:
    state = "working" if one.alive else "silent"
    return {
        "pid": one.pid,
        "state": "draining" if one.alive and one.draining else state,
        "store": _said(one.store),
        "temporal": _said(one.temporal),
    }


def _said(state: ServerState) -> str:
    since = text(datetime.fromisoformat(state.since))
    return f"up since {since}" if state.up else f"down since {since}: {state.reason}"
