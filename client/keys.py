"""Where tickets come from: a key file on this machine, or whatever signs for you.

The private key never leaves its file and this process; only its public half is registered.
"""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, Protocol, Self

from joserfc.errors import JoseError
from joserfc.jwk import OKPKey

from runward.contracts.approvals import DecisionWord
from runward.contracts.errors import ConfigurationError
from runward.contracts.identity import START_TTL, Operation, Principal, sign

CURVE: Literal["Ed25519"] = "Ed25519"
ALGORITHM = "Ed25519"
FILE_MODE = 0o600
_MAKE = "Make one: `runward issuers add PATH --create --tenant NAME`, or KeyFile.create(path)"
FILE_BYTES_MAX = 16 * 1024  # a JWK of this kind has 250; anything long is another kind of file


class TicketSource(Protocol):
    """What signs tickets for a client; a service that holds the key can be one."""

    def ticket(
        self,
        principal: Principal,
        operation: Operation,
        *,
        subject: str,
        digest: str,
        decision: DecisionWord | None = None,
        ttl: timedelta = START_TTL,
    ) -> str:
        """Returns a signed ticket for this principal, bound to the subject and the digest."""
        ...


class KeyFile:
    """A private Ed25519 key as a JWK in a file that only its owner can read."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.key = _read(self.path)

    @classmethod
    def create(cls, path: str | os.PathLike[str], kid: str | None = None) -> Self:
        """Returns a new key, written to a file that must not exist yet; `kid` names it.

        Without a `kid` the key is named by its RFC 7638 thumbprint.
        """
        target = Path(path)
        key = OKPKey.generate_key(CURVE, private=True)
        parameters = {"kid": kid or key.thumbprint(), "alg": ALGORITHM, "use": "sig"}
        jwk = {**key.as_dict(private=True), **parameters}
        try:
            # O_EXCL: a key that something is signed with is never overwritten.
            handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE)
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as file:
                    file.write(json.dumps(jwk, indent=2) + "\n")
            except OSError:
                target.unlink()  # half a key is none, and its name would be taken
                raise
        except OSError as error:
            raise ConfigurationError(
                f"The new key file {str(target)!r}",
                error.strerror or "The file cannot be written",
                "Name a new file in a folder that exists and has room",
            ) from error
        return cls(target)

    @property
    def kid(self) -> str:
        """Returns the name under which the public key is registered."""
        return str(self.key.kid)

    @property
    def public_key(self) -> dict[str, Any]:
        """Returns the public half as a JWK: what an issuer's row holds."""
        return dict(self.key.as_dict(private=False))

    def ticket(
        self,
        principal: Principal,
        operation: Operation,
        *,
        subject: str,
        digest: str,
        decision: DecisionWord | None = None,
        ttl: timedelta = START_TTL,
    ) -> str:
        """Returns a ticket signed with this key, valid from now on for `ttl`."""
        return sign(
            self.key,
            principal,
            operation,
            subject=subject,
            digest=digest,
            now=datetime.now(UTC),
            ttl=ttl,
            decision=decision,
        )

    def __repr__(self) -> str:
        return f"KeyFile({str(self.path)!r}, kid={self.kid!r})"


def _read(path: Path) -> OKPKey:
    """Returns the key in the file; the error never quotes what the file holds."""
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigurationError(
            f"The key file {str(path)!r}",
            error.strerror or "It cannot be read",
            f"{_MAKE}; `runward dev` makes its own"
            if isinstance(error, FileNotFoundError)
            else "Name another: --key-file, RUNWARD_KEY_FILE",
        ) from error
    try:
        jwk = json.loads(data) if len(data) <= FILE_BYTES_MAX else None
    except ValueError:
        jwk = None
    if not isinstance(jwk, dict):
        raise _wrong(path, "It is not a JWK (one JSON object)")
    if (jwk.get("kty"), jwk.get("crv")) != ("OKP", CURVE):
        raise _wrong(path, "It is not an Ed25519 key (kty OKP, crv Ed25519)")
    if not isinstance(jwk.get("d"), str):
        raise _wrong(path, "It holds the public half only, which cannot sign")
    if not isinstance(jwk.get("kid"), str) or not jwk["kid"]:
        raise _wrong(path, "It has no kid, the name under which its public half is registered")
    try:
        # `EdDSA` is the older name of the same algorithm; a key must carry the one that signs.
        return OKPKey.import_key({**jwk, "alg": ALGORITHM})
    except (JoseError, ValueError, TypeError):
        # Not chained: the cause's text may hold parts of the key.
        raise _wrong(path, "Its key material is broken") from None


def _wrong(path: Path, holds: str) -> ConfigurationError:
    return ConfigurationError(f"The key file {str(path)!r}", holds, _MAKE)
