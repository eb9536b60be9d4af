"""`runward ticket`: what a ticket says, and whether it would count."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runward.cli import output as out
from runward.cli.caller import DatabaseUrl, Output, finish
from runward.cli.db import dsn

if TYPE_CHECKING:
    from runward.contracts.identity import Issuer

app = typer.Typer(no_args_is_help=True, help="Read tickets")


@app.command()
def inspect(
    ticket: Annotated[
        str, typer.Argument(help="The ticket; - reads it from stdin", metavar="TICKET")
    ],
    database_url: DatabaseUrl = None,
    output: Output = "text",
) -> None:
    """Print what a ticket says, judged by the registered keys and this machine's clock

    Exit code 4 if it would be refused.
    """
    from runward.contracts.identity import key_id, verify

    text = (sys.stdin.read() if ticket == "-" else ticket).strip()
    found = verify(text, finish(_issuer(database_url, key_id(text))), at=datetime.now(UTC))
    said: dict[str, Any] = {
        "operation": found.operation,
        "user": found.principal.user,
        "tenant": found.principal.tenant,
        "roles": sorted(found.principal.roles),
        "for": found.subject,
        "decision": found.decision,
        "kid": found.kid,
        "issued_at": found.issued_at,
        "expires_at": found.expires_at,
    }
    out.data(said, output)


async def _issuer(database_url: str | None, kid: str) -> Issuer | None:
    from runward.client.reader import ROLE
    from runward.store.pool import Store

    async with Store(dsn(database_url), role=ROLE, connections_max=1) as store:
        return await store.issuers.find(kid)
