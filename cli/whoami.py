"""`runward whoami`: in whose name commands act, and where."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runward.cli import output as out
from runward.cli.caller import Caller, Output, acting

if TYPE_CHECKING:
    from runward.client.settings import Settings


@acting
async def whoami(caller: Caller, output: Output = "text") -> None:
    """Print in whose name commands act, with which key, and on which servers

    Says whether the store knows the key, if it can be asked.
    """
    from runward.client.keys import KeyFile
    from runward.client.settings import temporal_connection

    settings, path = caller.settings()
    connection = temporal_connection(
        caller.address, namespace=caller.namespace, profile=caller.profile
    )
    key = KeyFile(path)
    said: dict[str, Any] = {
        "user": settings.user,
        "tenant": settings.tenant,
        "roles": caller.role or [],
        "key_file": str(path),
        "kid": key.kid,
        "key_is": await _standing(settings, key.kid),
        "temporal": connection["target_host"],
        "namespace": connection.get("namespace", "default"),
        "task_queue": settings.task_queue,
    }
    out.data(said, output)


async def _standing(settings: Settings, kid: str) -> str:
    if settings.dsn is None:
        return "unknown: no setting names the store"
    from runward.client.reader import ROLE
    from runward.contracts.errors import RunwardError
    from runward.store.pool import Store

    try:
        async with Store(settings.dsn, role=ROLE, connections_max=1) as store:
            issuer = await store.issuers.find(kid)
    except RunwardError as error:
        return f"unknown: {error}"
    if issuer is None:
        return "not registered"
    return "revoked" if issuer.revoked else f"registered for {', '.join(issuer.tenants)}"
