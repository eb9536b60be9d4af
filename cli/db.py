"""`runward db`: the store's schema."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from runward.cli import output as out
from runward.cli.caller import DatabaseUrl, Output, finish

if TYPE_CHECKING:
    from runward.store.migrate import Status

app = typer.Typer(no_args_is_help=True, help="Create and check the store's schema")


@app.command()
def migrate(database_url: DatabaseUrl = None, output: Output = "text") -> None:
    """Bring the store's schema to this version; safe to repeat"""
    dsn = _dsn(database_url)
    from runward.store import migrate as migrations

    out.data(_as_data(finish(migrations.migrate(dsn))), output)


@app.command()
def status(database_url: DatabaseUrl = None, output: Output = "text") -> None:
    """Print which migrations are applied; exit code 1 if some are missing"""
    dsn = _dsn(database_url)
    from runward.store import migrate as migrations

    found = finish(migrations.status(dsn))
    out.data(_as_data(found), output)
    if found.pending:
        raise typer.Exit(out.EXIT_FAILED)


def _as_data(found: Status) -> dict[str, Any]:
    return {"applied": list(found.applied), "pending": list(found.pending)}


def _dsn(given: str | None) -> str:
    from runward.client.settings import Settings
    from runward.contracts.errors import ConfigurationError

    dsn = Settings.load(database_url=given).dsn
    if dsn is None:
        raise ConfigurationError(
            "runward db", "No setting names the store", "Set RUNWARD_DATABASE_URL"
        )
    return dsn
