"""`runward issuers`: whose keys may speak for whom. Writes need the DSN of the schema's owner."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runward.cli import output as out
from runward.cli.caller import DatabaseUrl, Output, Yes, finish
from runward.cli.db import dsn

if TYPE_CHECKING:
    from runward.contracts.identity import Issuer
    from runward.store.issuers import IssuerStore

app = typer.Typer(no_args_is_help=True, help="Register the keys that vouch for users")

OPERATIONS = ("start", "decide")


@app.command("list")
def list_(database_url: DatabaseUrl = None, output: Output = "text") -> None:
    """List the registered keys and what each may speak for"""

    async def work() -> list[dict[str, Any]]:
        async with _issuers(database_url) as issuers:
            return [_row(one) for one in await issuers.list()]

    found = finish(work())
    out.data(found, output)
    if not found and output == "text":
        out.note("No issuer is registered: nobody can start a run")


@app.command()
def add(
    key_file: Annotated[
        Path,
        typer.Argument(
            help="A key file; only its public half is registered", metavar="PATH", readable=False
        ),
    ],
    tenant: Annotated[
        list[str], typer.Option(help="A tenant it may speak for; * is any. Repeat it")
    ],
    role: Annotated[
        list[str] | None, typer.Option(help="A role it may vouch for; * is any. Repeat it")
    ] = None,
    operation: Annotated[
        list[str] | None, typer.Option(help="start or decide; both if left out")
    ] = None,
    create: Annotated[bool, typer.Option("--create", help="Make the key file first")] = False,
    database_url: DatabaseUrl = None,
    output: Output = "text",
) -> None:
    """Register a key, so that its holder may speak for users of these tenants"""
    from runward.client.keys import KeyFile
    from runward.contracts.errors import RunwardError
    from runward.contracts.identity import Issuer

    wrong = sorted(set(operation or ()) - set(OPERATIONS))
    if wrong:
        raise typer.BadParameter(f"--operation {wrong[0]}: say {' or '.join(OPERATIONS)}")

    async def work() -> Issuer:
        async with _issuers(database_url) as issuers:  # before a key that nobody could register
            key = KeyFile.create(key_file) if create else KeyFile(key_file)
            issuer = Issuer(
                key.kid,
                key.public_key,
                tuple(tenant),
                tuple(role or ()),
                tuple(operation or OPERATIONS),
            )
            try:
                await issuers.add(issuer)
            except RunwardError:
                if create:  # nobody holds a ticket of it, and its name would be taken
                    key_file.unlink()
                raise
        return issuer

    out.data(_row(finish(work())), output)


@app.command()
def revoke(
    kid: Annotated[
        str, typer.Argument(help="The key's id, as `issuers list` prints it", metavar="KID")
    ],
    yes: Yes = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Revoke a key: its tickets count no more, and none of its runs begins another step"""
    from runward.contracts.errors import NotFound

    out.confirm(f"Revoke {kid}? Its runs stop, and it cannot be taken back", yes)

    async def work() -> bool:
        async with _issuers(database_url) as issuers:
            return await issuers.revoke(kid)

    if not finish(work()):
        raise NotFound(
            f"The issuer {kid!r}",
            "None of that id is registered",
            "`runward issuers list` has those that are",
        )
    out.note(f"Revoked {kid}")


@asynccontextmanager
async def _issuers(database_url: str | None) -> AsyncIterator[IssuerStore]:
    from runward.store.pool import Store

    async with Store(dsn(database_url), connections_max=1) as store:
        yield store.issuers


def _row(one: Issuer) -> dict[str, Any]:
    return {
        "kid": one.kid,
        "tenants": list(one.tenants),
        "roles": list(one.roles),
        "operations": list(one.operations),
        "revoked": one.revoked,
    }
