"""`runward worker`: worker processes, for servers that are there already."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runward.cli.caller import Address, DatabaseUrl, finish

if TYPE_CHECKING:  # --help loads no settings
    from runward.client.settings import Deployment

App = Annotated[
    str | None, typer.Option(help="Your RunwardPlugin, as module:name", metavar="MODULE:NAME")
]
TaskQueue = Annotated[
    str | None, typer.Option(help="The task queue to poll [RUNWARD_TASK_QUEUE]", metavar="NAME")
]

Codec = Annotated[
    str | None,
    typer.Option(help="Your PayloadCodec, as module:name [RUNWARD_CODEC]", metavar="MODULE:NAME"),
]

Processes = Annotated[
    str, typer.Option(help="How many processes to run; auto is one per core", metavar="N|auto")
]
DeploymentName = Annotated[
    str | None,
    typer.Option(help="The deployment to belong to [RUNWARD_DEPLOYMENT]", metavar="NAME"),
]
BuildId = Annotated[
    str | None, typer.Option(help="Its build, with --deployment [RUNWARD_BUILD_ID]", metavar="ID")
]
HealthFile = Annotated[
    Path | None, typer.Option(help="Where to say how it is [RUNWARD_HEALTH_FILE]", metavar="PATH")
]

PROCESSES_MAX = 128  # each opens a dozen connections to the store


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """What `runward.workers.worker.run` is called with, as keywords."""

    app: str
    database_url: str
    temporal_address: str
    task_queue: str
    sweep_every_s: float
    retention_content_days: int | None
    retention_steps_days: int | None
    health_file: Path | None
    version: Deployment | None
    codec: str | None


def worker(
    app: App = None,
    database_url: DatabaseUrl = None,
    address: Address = None,
    task_queue: TaskQueue = None,
    processes: Processes = "1",
    deployment: DeploymentName = None,
    build_id: BuildId = None,
    health_file: HealthFile = None,
    codec: Codec = None,
    of: Annotated[int, typer.Option(hidden=True)] = 0,
) -> None:
    """Run worker processes until Ctrl-C or SIGTERM

    With --processes above 1, a parent starts each again that dies. Workers also sweep: every
    RUNWARD_SWEEP_EVERY_S seconds they close runs whose workflow ended without a word, and delete
    what ended runs left after RUNWARD_RETENTION_CONTENT_DAYS (what was said) and
    RUNWARD_RETENTION_STEPS_DAYS (their steps, too). Unset, everything is kept.

    With --health-file the worker says there whether the store and Temporal answer, for
    `runward health`. Servers that are away are waited for.

    With --deployment and --build-id runs end on the build that they began on. New runs come to this
    one after: temporal worker deployment set-current-version --deployment-name NAME --build-id ID
    """
    count = number_of(processes)
    options = checked(
        app,
        database_url=database_url,
        address=address,
        task_queue=task_queue,
        deployment=deployment,
        build_id=build_id,
        health_file=health_file,
        codec=codec,
    )
    if count == 1 or of:
        one_process(options, of or 1)
    else:
        several_processes(options, count)


def one_process(options: WorkerOptions, of: int) -> None:
    """Runs this process as a worker, one of so many on this machine, until it is told to stop."""
    from uvloop import new_event_loop

    from runward.workers.worker import run

    finish(run(**asdict(options), processes=of), new_event_loop)


def several_processes(options: WorkerOptions, count: int) -> None:
    """Runs this process as the parent of so many workers, until it is told to stop."""
    from runward.workers.processes import run

    finish(
        run(
            processes=count,
            app=options.app,
            database_url=options.database_url,
            temporal_address=options.temporal_address,
            task_queue=options.task_queue,
            version=options.version,
            health_file=options.health_file,
            codec=options.codec,
        )
    )


def checked(app: str | None, *, address: str | None, **given: Any) -> WorkerOptions:
    """Returns the options; refuses to guess where the store or Temporal are.

    `given` are settings as `Settings.load` takes them.
    """
    from runward.client.settings import Settings, temporal_connection
    from runward.contracts.errors import ConfigurationError

    app = app_name(app)
    settings = Settings.load(**given)
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
        retention_content_days=settings.retention_content_days,
        retention_steps_days=settings.retention_steps_days,
        health_file=settings.health_file,
        version=settings.version,
        codec=settings.codec,
    )


def number_of(processes: str) -> int:
    """Returns how many processes were asked for."""
    if processes == "auto":
        from runward.workers.sizing import machine

        return min(machine().cores, PROCESSES_MAX)
    if not processes.isascii() or not processes.isdecimal():
        raise typer.BadParameter("say --processes as a number, or auto")
    if not 1 <= int(processes) <= PROCESSES_MAX:
        raise typer.BadParameter(f"--processes is from 1 to {PROCESSES_MAX}")
    return int(processes)


def app_name(app: str | None) -> str:
    """Returns the name of an app; another form is wrong usage, told before anything starts."""
    if app is None or ":" not in app:
        raise typer.BadParameter("say which app to run: --app module:name")
    return app
