"""What `runward doctor` looks at: each check tries one thing, and says what mends it."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import stat
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from temporalio.api.common.v1 import Payload
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import (
    DescribeNamespaceRequest,
    DescribeTaskQueueRequest,
    GetSystemInfoRequest,
)
from temporalio.client import Client
from temporalio.service import RPCError

from runward.client.codec import load_codec
from runward.client.connecting import connected, reason
from runward.client.keys import KeyFile
from runward.client.labels import register, registered
from runward.client.reader import ROLE
from runward.client.settings import Settings
from runward.contracts import names
from runward.contracts.errors import RunwardError
from runward.contracts.identity import CLOCK_TOLERANCE
from runward.store.database import FAILURES, place, unreached
from runward.store.migrate import status
from runward.store.pool import Store

Word = Literal["ok", "warn", "fail"]

WAIT_S_MAX = 5.0  # for each server
DISK_BYTES_MIN = 1024**3
SKEW_WARN_S = 5.0
CODEC_TIMES = 256  # 64 KiB: more than one block of any cipher, and what a long answer has
_UNDO = "decode must give back the payloads that encode was given, however many"
PROVIDER_KEYS = {
    "anthropic": ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"),
    "openai": ("OPENAI_API_KEY",),
}


@dataclass(frozen=True, slots=True)
class Check:
    """What one check found, and the line that mends it where it is not ok."""

    name: str
    state: Word
    found: str
    fix: str = ""


@dataclass
class Patient:
    """What is examined; connections are made by the first checks and used by later ones."""

    settings: Settings
    read_connection: Callable[[], dict[str, Any]]  # raises ConfigurationError where it is wrong
    key_file: Path
    app: str | None = None
    fix: bool = False
    connection: dict[str, Any] = field(default_factory=dict)
    temporal: Client | None = None
    store: Store | None = None
    exits: AsyncExitStack = field(default_factory=AsyncExitStack)


async def examine(patient: Patient) -> list[Check]:
    """Returns what all checks found, in order; one that cannot be made without another is left."""
    found: list[Check] = []
    async with patient.exits:
        for check in CHECKS:
            try:
                async with asyncio.timeout(2 * WAIT_S_MAX):
                    one = await check(patient)
            except (RunwardError, RPCError, OSError, TimeoutError) as error:
                one = _failed(check.__name__.replace("_", " "), error)
            if one is not None:
                found.append(one)
    return found


def _failed(name: str, error: Exception) -> Check:
    if isinstance(error, RunwardError):
        return Check(name, "fail", f"{error.asked}. {error.holds}", error.instead)
    return Check(name, "fail", str(error) or type(error).__name__)


async def address(patient: Patient) -> Check:
    """The settings name a host of Temporal that has an address."""
    patient.connection = patient.read_connection()
    host, _, port = patient.connection["target_host"].rpartition(":")
    if not host:
        return Check("address", "fail", f"{port!r} has no port", f"TEMPORAL_ADDRESS={port}:7233")
    try:
        found = await asyncio.get_running_loop().getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM
        )
    except (OSError, UnicodeError) as error:  # the latter for what is no host's name at all
        return Check("address", "fail", f"{host}: {error}", "Correct TEMPORAL_ADDRESS")
    return Check("address", "ok", f"{host} is {found[0][4][0]}")


async def temporal(patient: Patient) -> Check | None:
    """Temporal answers, over TLS where that is set."""
    if not patient.connection:
        return None
    where = patient.connection["target_host"]
    how = "TLS" if patient.connection.get("tls") else "no TLS"
    try:
        async with asyncio.timeout(WAIT_S_MAX):
            patient.temporal = await connected(patient.connection)
            info = await patient.temporal.workflow_service.get_system_info(GetSystemInfoRequest())
    except (RunwardError, OSError, RPCError) as error:
        told = error.holds if isinstance(error, RunwardError) else reason(error)
        return Check("temporal", "fail", f"{where}, {how}: {told}",
                     "Start it (`runward dev` brings one), or correct TEMPORAL_*")  # fmt: skip
    return Check("temporal", "ok", f"{where}, {how}, version {info.server_version}")


async def namespace(patient: Patient) -> Check | None:
    """The namespace is there."""
    if patient.temporal is None:
        return None
    name = patient.temporal.namespace
    try:
        found = await patient.temporal.workflow_service.describe_namespace(
            DescribeNamespaceRequest(namespace=name)
        )
    except RPCError as error:
        patient.temporal = None  # nothing more can be asked in it
        return Check("namespace", "fail", f"{name}: {error.message}",
                     f"temporal operator namespace create -n {name}")  # fmt: skip
    kept = found.config.workflow_execution_retention_ttl.ToTimedelta()
    days = f"{kept / timedelta(days=1):g}"
    return Check("namespace", "ok", f"{name}, keeps histories for {days} days")


async def search_attributes(patient: Patient) -> Check | None:
    """The attributes by which runs are found are registered."""
    if patient.temporal is None:
        return None
    if not await registered(patient.temporal) and patient.fix:
        await register(patient.temporal)
    if await registered(patient.temporal):
        return Check("search attributes", "ok", ", ".join(names.SEARCH_ATTRIBUTES))
    return Check("search attributes", "warn", "Not all are registered: runs carry a memo instead",
                 "runward doctor --fix")  # fmt: skip


async def workers(patient: Patient) -> Check | None:
    """Somebody polls the task queue."""
    if patient.temporal is None:
        return None
    queue = patient.settings.task_queue
    found = await patient.temporal.workflow_service.describe_task_queue(
        DescribeTaskQueueRequest(
            namespace=patient.temporal.namespace,
            task_queue=TaskQueue(name=queue),
            task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
        )
    )
    if found.pollers:
        return Check("workers", "ok", f"{len(found.pollers)} poll {queue!r}")
    return Check("workers", "warn", f"Nobody polls {queue!r}", "runward worker --app module:app")


async def database(patient: Patient) -> Check:
    """The store answers, and has this version's schema."""
    dsn = patient.settings.dsn
    if dsn is None:
        return Check("database", "fail", "No setting names the store", "Set RUNWARD_DATABASE_URL")
    try:
        found = await status(dsn)
    except FAILURES as error:
        fix = unreached(dsn, error).instead
        return Check("database", "fail", f"{place(dsn)}: {reason(error)}", fix)
    if found.pending:
        return Check("database", "fail", f"Its migrations from {found.pending[0]} are not applied",
                     "runward db migrate")  # fmt: skip
    patient.store = await patient.exits.enter_async_context(
        Store(dsn, role=ROLE, connections_max=1)
    )
    version = await patient.store.reads.server_version()
    return Check("database", "ok", f"PostgreSQL {version}, schema {found.applied[-1]}")


async def clock(patient: Patient) -> Check | None:
    """This machine's clock and the store's agree.

    Tickets are judged by Temporal's clock, which no call tells without starting something.
    """
    if patient.store is None:
        return None
    before = datetime.now(UTC)
    theirs = await patient.store.reads.now()
    skew = abs((theirs - before).total_seconds())
    text = f"{skew:.1f} s from the store's"
    if skew < SKEW_WARN_S:
        return Check("clock", "ok", text)
    state: Word = "warn" if skew < CLOCK_TOLERANCE.total_seconds() else "fail"
    return Check("clock", state, text, "Let both follow NTP")


async def issuer(patient: Patient) -> Check:
    """The key file can be read by its owner only, and the store knows the key."""
    path = patient.key_file
    key = KeyFile(path)
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        return Check("issuer", "warn", f"{path} can be read by others", f"chmod 600 {path}")
    if patient.store is None:
        return Check("issuer", "warn", f"{key.kid}: the store could not be asked",
                     "Mend the database first")  # fmt: skip
    found = await patient.store.issuers.find(key.kid)
    if found is None:
        return Check("issuer", "fail", f"{key.kid}: not registered",
                     f"runward issuers add {path} --tenant NAME")  # fmt: skip
    if found.revoked:  # for ever: what mends it is another key
        return Check("issuer", "fail", f"{key.kid}: revoked",
                     "runward issuers add PATH --create --tenant NAME")  # fmt: skip
    return Check("issuer", "ok", f"{key.kid}, for {', '.join(found.tenants)}")


async def codec(patient: Patient) -> Check | None:
    """The payload codec gives back what it was given: words, any bytes, and nothing."""
    name = patient.settings.codec
    if name is None:
        return None
    tried = load_codec(name)
    samples = [
        Payload(metadata={"encoding": b"json/plain"}, data="Grüße".encode()),
        Payload(metadata={"encoding": b"binary/plain"}, data=bytes(range(256)) * CODEC_TIMES),
        Payload(metadata={"encoding": b"binary/null"}),
    ]
    try:
        async with asyncio.timeout(WAIT_S_MAX):
            back = list(await tried.decode(await tried.encode(samples)))
    except TimeoutError:
        return Check("codec", "fail", f"{name}: it did not answer in {WAIT_S_MAX:.0f} s", _UNDO)
    except Exception as error:  # noqa: BLE001  whatever code of a user's raises is what we look for
        # Without its message, which may quote a key.
        return Check("codec", "fail", f"{name} raised {type(error).__name__}", _UNDO)
    if back == samples:
        return Check("codec", "ok", f"{name}: {len(samples)} payloads came back as they were")
    return Check("codec", "fail", f"{name}: other payloads came back", _UNDO)


async def provider_keys(patient: Patient) -> Check | None:
    """All providers that the app's agents may ask have keys here; no token is spent to try them."""
    if patient.app is None:
        return None
    from runward.workers.app import load_app

    models = [model for one in load_app(patient.app).agents for model in one.models]
    used = {model.partition(":")[0] for model in models} & PROVIDER_KEYS.keys()
    missing = [one for one in sorted(used) if not any(map(os.environ.get, PROVIDER_KEYS[one]))]
    if missing:
        keys = " ".join(f"{PROVIDER_KEYS[one][0]}=..." for one in missing)
        return Check("provider keys", "fail", f"None for {', '.join(missing)}", f"export {keys}")
    return Check("provider keys", "ok", f"There for {', '.join(sorted(used)) or 'what needs one'}")


async def permissions(patient: Patient) -> Check | None:
    """The policy's lists name what the app has; a name that is misspelt is denied to nobody."""
    if patient.app is None:
        return None
    from runward.workers.app import load_app

    found = load_app(patient.app).misnamed
    if not found:
        return Check("permissions", "ok", "Their lists name what the app has")
    state: Word = "fail" if any(one.near for one in found) else "warn"
    return Check("permissions", state, "; ".join(map(str, found)), "Correct the policy's lists")


async def disk(patient: Patient) -> Check:
    """There is room where the development stack keeps its data."""
    folder = patient.settings.state_dir
    there = next(one for one in (folder, *folder.absolute().parents) if one.exists())
    free = shutil.disk_usage(there).free
    text = f"{free / 1024**3:.1f} GiB free at {folder}"
    if free >= DISK_BYTES_MIN:
        return Check("disk", "ok", text)
    return Check("disk", "warn", text, "Make room, or name another RUNWARD_STATE_DIR")


CHECKS: tuple[Callable[[Patient], Awaitable[Check | None]], ...] = (
    address,
    temporal,
    namespace,
    search_attributes,
    workers,
    database,
    clock,
    issuer,
    codec,
    provider_keys,
    permissions,
    disk,
)
