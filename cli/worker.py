"""`runward worker`: one worker process, for servers that are there already."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated

import typer

from runward.cli.caller import Address, DatabaseUrl, finish

App = Annotated[
    str | None, typer.Option(help="Your RunwardPlugin, as module:name", metavar="MODULE:NAME")
]
TaskQueue = Annotated[
    str | None, typer.Option(help="The task queue to poll [RUNWARD_TASK_QUEUE]", metavar="NAME")
]


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """What `runward.workers.worker.run` is called with, as keywords."""

    app: str
    database_url: str
    temporal_address: str
    task_queue: str
    sweep_every_s: float


def worker(
    app: App = None,
    database_url: DatabaseUrl = None,
    address: Address = None,
    task_queue: TaskQueue = None,
) -> None:
    """Run one worker process until Ctrl-C or SIGTERM"""
    options = checked(app, database_url=database_url, address=address, task_queue=task_queue)
    from runward.workers.worker import run

    finish(run(**asdict(options)))


def checked(
    app: str | None, *, database_url: str | None, address: str | None, task_queue: str | None
) -> WorkerOptions:
    """Returns the options; refuses to guess where the store or Temporal are."""
    from runward.client.settings import Settings, temporal_connection
    from runward.contracts.errors import ConfigurationError

    if app is None or ":" not in app:
        raise typer.BadParameter("say which app to run: --app module:name")
    settings = Settings.load(database_url=database_url, task_queue=task_queue)
    if settings.dsn is None:
        raise ConfigurationError(
            "runward worker",
            "No setting names the store",
            "Set RUNWARD_DATABASE_URL or pass --database-url; `runward dev` brings its own",
        )
    connection = temporal_connection(address, default=None)
    return WorkerOptions(
        app=app,
        database_url=settings.dsn,
        temporal_address=connection["target_host"],
        task_queue=settings.task_queue,
        sweep_every_s=settings.sweep_every_s,
    )
