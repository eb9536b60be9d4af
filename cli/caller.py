"""Who calls, and where: the options that every command on runs and approvals shares."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, ParamSpec, TypeVar, get_type_hints

import typer

from runward.cli.output import EXIT_CTRL_C, EXIT_TIMEOUT, Format, Stream, failure

if TYPE_CHECKING:
    from runward.client.reader import Reader
    from runward.client.runs import ActingClient
    from runward.client.settings import Settings

P = ParamSpec("P")
R = TypeVar("R")

DEV_KEY_FILE = "dev.key"  # `runward dev` puts it into its state folder

Output = Annotated[Format, typer.Option("--output", "-o", help="Print as text, json or jsonl")]
Streamed = Annotated[Stream, typer.Option("--output", "-o", help="Print as text or jsonl")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask")]
Address = Annotated[
    str | None, typer.Option(help="Temporal's host:port [TEMPORAL_ADDRESS]", metavar="HOST:PORT")
]
Profile = Annotated[str | None, typer.Option(help="A profile of temporal.toml")]
DatabaseUrl = Annotated[
    str | None, typer.Option(help="The store's DSN [RUNWARD_DATABASE_URL]", metavar="DSN")
]


@dataclass(frozen=True, slots=True)
class Caller:
    """The user in whose name a command acts, and the servers it talks to."""

    user: Annotated[str | None, typer.Option("--as", help="Act as this user", metavar="USER")] = (
        None
    )
    tenant: Annotated[str | None, typer.Option(help="The user's tenant", metavar="NAME")] = None
    role: Annotated[
        list[str] | None, typer.Option(help="A role of the user; repeat it", metavar="NAME")
    ] = None
    key_file: Annotated[
        Path | None,
        typer.Option(
            help="The key that vouches for the user",
            metavar="PATH",
            readable=False,  # whoever opens it says all that can be wrong with it
        ),
    ] = None
    address: Address = None
    namespace: Annotated[str | None, typer.Option(help="Temporal's namespace")] = None
    profile: Profile = None
    database_url: DatabaseUrl = None

    @asynccontextmanager
    async def client(self) -> AsyncIterator[ActingClient]:
        """Yields the connected client of this user."""
        from runward.client.codec import told
        from runward.client.keys import KeyFile
        from runward.client.runward_client import RunwardClient

        settings, key_file = self.settings()
        user, tenant = _named(settings)
        _silence_sdk()
        client = await RunwardClient.connect(
            self.address,
            issuer=KeyFile(key_file),
            namespace=self.namespace,
            profile=self.profile,
            database_url=self.database_url,
        )
        with told(settings.codec):
            async with client:
                yield client.acting_as(user, tenant=tenant, roles=self.role or ())

    def settings(self) -> tuple[Settings, Path]:
        """Returns the settings under these options, and the key file that they name."""
        from runward.client.settings import Settings

        found = Settings.load(
            user=self.user,
            tenant=self.tenant,
            key_file=self.key_file,
            database_url=self.database_url,
        )
        return found, found.key_file or found.state_dir / DEV_KEY_FILE

    def link(self, namespace: str, run_id: str) -> str | None:
        """Returns the run's page in Temporal's UI, None where no setting says where that is."""
        where = self.settings()[0].temporal_ui_url
        return where and f"{where.rstrip('/')}/namespaces/{namespace}/workflows/{run_id}"

    @asynccontextmanager
    async def reader(self) -> AsyncIterator[tuple[Reader, str]]:
        """Yields a reader of the store and the tenant that is read; Temporal is not asked."""
        from runward.client.reader import DirectReader, needs_reader

        settings, _ = self.settings()
        direct = DirectReader(settings.dsn) if settings.dsn else None
        reader = needs_reader(direct, "What the store holds")
        try:
            yield reader, _tenant(settings)
        finally:
            await reader.close()


def _tenant(settings: Settings) -> str:
    if not settings.tenant:
        raise typer.BadParameter("say which tenant: --tenant NAME, or RUNWARD_TENANT")
    return settings.tenant


def _silence_sdk() -> None:
    """Keeps the SDK's warnings off the terminal: what keeps from Temporal is told in one message.

    They come from Rust, in colours, one for each time that a call was tried again.
    """
    from temporalio.runtime import LoggingConfig, Runtime, TelemetryConfig, TelemetryFilter

    errors = LoggingConfig(TelemetryFilter(core_level="ERROR", other_level="ERROR"))
    with suppress(RuntimeError):  # this process has chosen already
        Runtime.set_default(Runtime(telemetry=TelemetryConfig(logging=errors)))


def _named(settings: Settings) -> tuple[str, str]:
    if not settings.user:
        raise typer.BadParameter("say in whose name: --as USER, or RUNWARD_USER")
    return settings.user, _tenant(settings)


def acting(
    command: Callable[Concatenate[Caller, P], Coroutine[Any, Any, None]],
) -> Callable[..., None]:
    """Returns the command as Typer sees it: its own parameters, then those of `Caller`.

    Typer reads signatures, so the shared options are spelled once, in `Caller`, and joined here.
    """
    hints = get_type_hints(Caller, include_extras=True)
    shared = [
        inspect.Parameter(
            one.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=one.default,
            annotation=hints[one.name],
        )
        for one in fields(Caller)
    ]
    own = [
        one.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for one in list(inspect.signature(command, eval_str=True).parameters.values())[1:]
    ]

    def run(**given: Any) -> None:
        caller = Caller(**{one.name: given.pop(one.name) for one in fields(Caller)})
        finish(command(caller, **given))  # type: ignore[call-arg]  # checked by Typer

    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__signature__ = inspect.Signature([*own, *shared])  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in (*own, *shared)}
    return run


def finish(
    work: Coroutine[Any, Any, R], loop: Callable[[], asyncio.AbstractEventLoop] | None = None
) -> R:
    """Returns what the work returns; a timeout and Ctrl-C end the command with their exit codes.

    `loop` makes the event loop, asyncio's own if it is None.
    """
    try:
        with asyncio.Runner(loop_factory=loop) as runner:
            return runner.run(work)
    except TimeoutError as error:
        failure(error)
        raise typer.Exit(EXIT_TIMEOUT) from error
    except KeyboardInterrupt as error:
        raise typer.Exit(EXIT_CTRL_C) from error
