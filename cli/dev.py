"""`runward dev`: everything on this machine, with nothing to set up."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from runward.cli.caller import DatabaseUrl, finish
from runward.cli.worker import App, TaskQueue, app_name


@dataclass(frozen=True, slots=True)
class DevOptions:
    """What `runward.workers.dev.run` is called with, as keywords."""

    app: str | None
    database_url: str | None
    temporal_address: str | None
    temporal_binary: Path | None
    state_dir: Path
    ephemeral: bool
    task_queue: str


def dev(
    app: App = None,
    database_url: DatabaseUrl = None,
    temporal_address: Annotated[
        str | None, typer.Option(help="Use this Temporal server", metavar="HOST:PORT")
    ] = None,
    state_dir: Annotated[
        Path | None, typer.Option(help="Where databases and the key file are kept")
    ] = None,
    ephemeral: Annotated[bool, typer.Option(help="Keep nothing once it ends")] = False,
    task_queue: TaskQueue = None,
) -> None:
    """Run a Temporal server, a database and a worker until Ctrl-C"""
    from runward.client.settings import Settings
    from runward.workers.dev import run

    settings = Settings.load(database_url=database_url, state_dir=state_dir, task_queue=task_queue)
    options = DevOptions(
        app=None if app is None else app_name(app),
        database_url=settings.dsn,
        temporal_address=temporal_address,
        temporal_binary=settings.temporal_binary,
        state_dir=settings.state_dir,
        ephemeral=ephemeral,
        task_queue=settings.task_queue,
    )
    finish(run(**asdict(options)))
