"""Tickets: signed statements of who asks for what. Users type `acting_as`, never a ticket.

A ticket is a JWT (RFC 7519) signed with Ed25519 (RFC 8037); joserfc does the cryptography.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, Literal
from uuid import uuid4

from joserfc import jws, jwt
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey

from runward.contracts.errors import TicketRefused

Operation = Literal["start", "decide"]

AUDIENCE = "runward"
TYPE = "rw-ticket+jwt"
START_TTL = timedelta(minutes=10)
CLOCK_TOLERANCE = timedelta(seconds=30)
TICKET_CHARS_MAX = 4096
_ALGORITHMS = ["Ed25519", "EdDSA"]


@dataclass(frozen=True, slots=True)
class Principal:
    """A user of one tenant, with the roles that an issuer vouches for."""

    tenant: str
    user: str
    roles: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Issuer:
    """A registered key: which tenants, roles and operations it may speak for. `*` is any."""

    kid: str
    public_key: dict[str, Any]
    tenants: tuple[str, ...]
    roles: tuple[str, ...]
    operations: tuple[str, ...]
    revoked: bool = False

    @cached_property
    def key(self) -> OKPKey:
        """Returns the key; reading one takes a third as long as a verification."""
        return OKPKey.import_key(self.public_key)


@dataclass(frozen=True, slots=True)
class Ticket:
    """A verified ticket. `subject` is the workflow id (start) or the approval id (decide)."""

    principal: Principal
    operation: Operation
    kid: str
    jti: str
    issued_at: datetime
    expires_at: datetime
    subject: str
    digest: str
    decision: Literal["approve", "reject"] | None = None


def sign(key: OKPKey, principal: Principal, operation: Operation, *, subject: str, digest: str,
         now: datetime, ttl: timedelta, decision: str | None = None) -> str:  # fmt: skip
    """Returns a signed ticket; `key` is a private Ed25519 key whose `kid` is registered."""
    claims: dict[str, Any] = {
        "iss": key.kid,
        "aud": AUDIENCE,
        "sub": principal.user,
        "tenant": principal.tenant,
        "roles": sorted(principal.roles),
        "op": operation,
        "for": subject,
        "dig": digest,
        "jti": uuid4().hex,
        "iat": int(now.timestamp()),
        "exp": int((now + ttl).timestamp()),
    }
    if decision is not None:
        claims["dec"] = decision
    header = {"alg": "Ed25519", "typ": TYPE, "kid": key.kid}
    return jwt.encode(header, claims, key, algorithms=_ALGORITHMS)


def key_id(token: str) -> str:
    """Returns the `kid` that a token names, unverified: only good for looking the issuer up."""
    if len(token) > TICKET_CHARS_MAX:
        raise TicketRefused(
            "a ticket", f"It is longer than {TICKET_CHARS_MAX} characters", "Give it fewer roles"
        )
    try:
        head = token.split(".", 1)[0]
        kid = json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))["kid"]
    except (ValueError, KeyError, TypeError) as error:
        raise TicketRefused(
            "a ticket", "It is not a signed token", "Give it whole, as it was signed"
        ) from error
    return str(kid)


def named_tenant(token: str) -> str | None:
    """Returns the tenant that a token names, unverified, None for what is no token.

    Only good for telling a tenant's own workflow from another's before the store knows it.
    """
    try:
        return str(json.loads(jws.extract_compact(token.encode()).payload)["tenant"])
    except (JoseError, ValueError, KeyError, TypeError):
        return None


def verify(token: str, issuer: Issuer | None, *, at: datetime) -> Ticket:
    """Returns the ticket, judged at the given time; raises TicketRefused on any doubt."""
    if issuer is None or issuer.revoked:
        raise TicketRefused(
            "a ticket",
            "Its issuer is not registered, or was revoked",
            "Register its key: `runward issuers add PATH --tenant NAME`",
        )
    try:
        token_ = jwt.decode(token, issuer.key, algorithms=_ALGORITHMS)
        ticket = _read(token_.header, token_.claims, issuer)
    except (JoseError, KeyError, ValueError, TypeError) as error:
        raise TicketRefused(
            "a ticket", "Its signature or its claims do not hold", "Sign another with its key"
        ) from error
    if not ticket.issued_at - CLOCK_TOLERANCE <= at < ticket.expires_at + CLOCK_TOLERANCE:
        when = f"{at:%Y-%m-%d %H:%M:%S %Z}"
        raise TicketRefused("a ticket", f"It is not valid at {when}", "Ask again")
    _within(ticket, issuer)
    return ticket


def _read(header: dict[str, Any], claims: dict[str, Any], issuer: Issuer) -> Ticket:
    if header["typ"] != TYPE or claims["aud"] != AUDIENCE or claims["iss"] != issuer.kid:
        raise ValueError("another kind of token")
    if claims["op"] not in ("start", "decide") or claims.get("dec") not in (
        None,
        "approve",
        "reject",
    ):
        raise ValueError("an unknown operation")
    roles = claims["roles"]
    texts = (claims["tenant"], claims["sub"], claims["jti"], claims["for"], claims["dig"], *roles)
    if not isinstance(roles, list) or not all(isinstance(one, str) for one in texts):
        raise ValueError("a claim is not text")
    return Ticket(
        principal=Principal(claims["tenant"], claims["sub"], frozenset(roles)),
        operation=claims["op"],
        kid=issuer.kid,
        jti=claims["jti"],
        issued_at=datetime.fromtimestamp(claims["iat"], UTC),
        expires_at=datetime.fromtimestamp(claims["exp"], UTC),
        subject=claims["for"],
        digest=claims["dig"],
        decision=claims.get("dec"),
    )


def _within(ticket: Ticket, issuer: Issuer) -> None:
    """Raises unless the issuer's row lets this key speak for that tenant, role and operation."""
    for what, asked, granted in (
        ("tenant", {ticket.principal.tenant}, issuer.tenants),
        ("role", set(ticket.principal.roles), issuer.roles),
        ("operation", {ticket.operation}, issuer.operations),
    ):
        if "*" not in granted and not asked <= set(granted):
            raise TicketRefused(
                "a ticket",
                f"Its issuer may not speak for that {what}",
                "`runward issuers list` has what each key may",
            )
