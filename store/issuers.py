"""The issuer registry: which key may speak for which tenants, roles and operations."""

from __future__ import annotations

import json

from runward.contracts.errors import ConfigurationError
from runward.contracts.identity import Issuer
from runward.store.database import Database, Row
from runward.store.wire import text

_ADD = """
insert into runward.issuer (kid, public_key, tenants, roles, operations)
values ($1, $2::jsonb, $3, $4, $5) on conflict do nothing"""


class IssuerStore:
    """Issuers are written by the owner's role only; workers read them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, issuer: Issuer) -> None:
        """Registers the issuer; once more with the same content changes nothing.

        Errors: ConfigurationError if the `kid` is taken, or was revoked.
        """
        await self._database.fetch(
            _ADD,
            text("kid", issuer.kid, least=1),
            json.dumps(issuer.public_key),
            list(issuer.tenants),
            list(issuer.roles),
            list(issuer.operations),
        )
        found = await self.find(issuer.kid)
        if found != issuer:
            revoked = found is not None and found.revoked
            raise ConfigurationError(
                f"The issuer {issuer.kid!r}",
                "It was revoked" if revoked else "It is registered with other content",
                "Make another key: `runward issuers add PATH --create --tenant NAME`",
            )

    async def find(self, kid: str) -> Issuer | None:
        """Returns the issuer, revoked or not; None if there is none."""
        if "\x00" in kid or not kid.isprintable():  # comes from unverified tokens
            return None
        row = await self._database.row("select * from runward.issuer where kid = $1", kid)
        return None if row is None else _issuer(row)

    async def list(self) -> tuple[Issuer, ...]:
        """Returns all issuers, the newest first, revoked ones too."""
        rows = await self._database.fetch(
            "select * from runward.issuer order by added_at desc, kid"
        )
        return tuple(map(_issuer, rows))

    async def revoke(self, kid: str) -> bool:
        """Returns whether there is such an issuer; from now on none of its runs begins a step."""
        return bool(
            await self._database.value(
                "update runward.issuer set revoked_at = coalesce(revoked_at, clock_timestamp())"
                " where kid = $1 returning true",
                kid,
            )
        )


def _issuer(row: Row) -> Issuer:
    return Issuer(
        kid=row["kid"],
        public_key=json.loads(row["public_key"]),
        tenants=tuple(row["tenants"]),
        roles=tuple(row["roles"]),
        operations=tuple(row["operations"]),
        revoked=row["revoked_at"] is not None,
    )
