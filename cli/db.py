"""`runward db`: the store's schema."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runward.cli import output as out
from runward.cli.caller import DatabaseUrl, Output, finish

if TYPE_CHECKING:
    from runward.store.migrate import Status

app = typer.Typer(no_args_is_help=True, help="Create and check the store's schema")


@app.command()
def migrate(database_url: DatabaseUrl = None, output: Output = "text") -> None:
    """Bring the store's schema to this version; safe to repeat"""
    where = dsn(database_url)
    from runward.store import migrate as migrations

    out.data(_as_data(finish(_reached(migrations.migrate(where), where))), output)


@app.command()
def status(database_url: DatabaseUrl = None, output: Output = "text") -> None:
    """Print which migrations are applied; exit code 1 if some are missing"""
    where = dsn(database_url)
    from runward.store import migrate as migrations

    found = finish(_reached(migrations.status(where), where))
    out.data(_as_data(found), output)
    if found.pending:
        out.note("To apply what is pending: runward db migrate")
        raise typer.Exit(out.EXIT_FAILED)


@app.command(name="print")
def print_(
    after: Annotated[
        str, typer.Option(help="Only the migrations behind this one", metavar="VERSION")
    ] = "",
) -> None:
    """Print the schema's SQL, to be applied by hand instead of by migrate

    Asks no database. For an upgrade, pass the last version that `runward db status` names as
    applied.
    """
    from runward.store import migrate as migrations

    out.answer(migrations.script(after).rstrip("\n"))


def _as_data(found: Status) -> dict[str, Any]:
    return {"applied": list(found.applied), "pending": list(found.pending)}


async def _reached(work: Awaitable[Status], where: str) -> Status:
    """Returns what the work returns; the driver's errors do not say where they looked."""
    from runward.store.database import FAILURES, unreached

    try:
        return await work
    except FAILURES as error:
        raise unreached(where, error) from error


def dsn(given: str | None) -> str:
    """Returns the store's DSN: the given one, else the setting's."""
    from runward.client.settings import Settings
    from runward.contracts.errors import ConfigurationError

    found = Settings.load(database_url=given).dsn
    if found is None:
        raise ConfigurationError(
            "The store", "No setting names it", "Set RUNWARD_DATABASE_URL or pass --database-url"
        )
    return found
