"""The sides of the bench, each on fresh servers and in fresh processes, one after another."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from uuid import uuid4

import asyncpg
import psutil
from multi_tenant_app import AGENT, FOLDER, MODEL_S
from multi_tenant_bare import WORKFLOW
from multi_tenant_load import Outcome, Run, User, load, users
from multi_tenant_model import all_asked
from report import say
from stack import QUEUE, Servers, servers
from temporalio.client import Client
from temporalio.testing import WorkflowEnvironment

from runward.client.keys import KeyFile
from runward.client.runward_client import RunwardClient
from runward.workers.child import Child, ChildOrder
from runward.workers.sizing import machine
from runward.workers.temporal_binary import find_temporal

WARM_USERS = 50
MODEL_CALL_S = 1.0
POLLING_S_MAX = 60.0
JEEVES_S_MAX = 600.0
HERE = Path(__file__).resolve().parent
_OWNERS = "select run_id, user_id from runward.run"
_CHARGED = """
select scope_id, sum(settled + overrun)::bigint as charged, sum(held)::bigint as held
  from runward.bucket where scope = 'user' and dimension = 'tokens' group by scope_id
"""


@dataclass(frozen=True, slots=True)
class Size:
    """How much load, on how many worker processes."""

    users: int
    runs: int
    processes: int = field(default_factory=lambda: machine().cores)


@dataclass(slots=True)
class Found:
    """What one round of one side has shown."""

    outcome: Outcome
    foreign: int  # prompts that hold no token, or another user's
    ledger_wrong: int | None = None  # users charged not what was billed; None without a ledger
    cpu_ms: dict[str, float] = field(default_factory=dict)  # per run


async def governed(size: Size) -> Found:
    """Returns what runward does with the load: as users run it, clients with a reader included."""
    async with servers() as where:
        words = ["--app", "multi_tenant_app:app", "--task-queue", QUEUE]
        words += ["--address", where.temporal, "--processes", str(size.processes)]
        argv = [sys.executable, "-m", "runward.cli.main", "worker", *words]
        client = await RunwardClient.connect(
            where.temporal,
            issuer=KeyFile(where.key_file),
            database_url=where.database_url,
            task_queue=QUEUE,
        )
        async with _working([argv], size.processes, where.database_url) as folder, client:

            async def run(user: User, number: int) -> str:
                acting = client.acting_as(user.name, tenant=user.tenant)
                return (await acting.execute(AGENT, user.prompt(number), key=str(number))).output

            everybody, found = await _measured(size, run)
            await _compare_books(where, folder, everybody, found)
    return found


async def _compare_books(
    where: Servers, folder: Path, everybody: Sequence[User], found: Found
) -> None:
    """Adds what the store says beside what the model's own ledger says; whose run it was, both."""
    owner = await asyncpg.connect(where.database_url)
    try:
        owners = {row["run_id"]: row["user_id"] for row in await owner.fetch(_OWNERS)}
        rows = await owner.fetch(_CHARGED)
    finally:
        await owner.close()
    charged = {row["scope_id"]: (row["charged"], row["held"]) for row in rows}
    asked = [(owners[one.key.partition(":")[0]], one) for one in all_asked(folder)]
    billed = _billed([(user, one.input + one.output) for user, one in asked])
    found.foreign = _foreign(everybody, [(user, one.secrets) for user, one in asked])
    found.ledger_wrong = sum(
        charged.get(user) != (billed[user], 0)
        for user in billed.keys() | charged.keys() | {one.name for one in everybody}
    )


async def bare(size: Size) -> Found:
    """Returns what a workflow written by hand does with the load, on the server that we start."""
    async with servers() as where:
        return await _bare(size, where.temporal)


async def plain(size: Size) -> Found:
    """Returns the same on the server as Temporal's SDK starts it."""
    binary = await find_temporal(None, progress=say)
    async with await WorkflowEnvironment.start_local(
        dev_server_existing_path=str(binary), dev_server_log_level="never"
    ) as server:
        return await _bare(size, server.client.service_client.config.target_host)


async def _bare(size: Size, address: str) -> Found:
    argv = [sys.executable, "multi_tenant_bare.py", address, QUEUE]
    client = await Client.connect(address)
    async with _working([argv] * size.processes, size.processes) as folder:

        async def run(user: User, number: int) -> str:
            name = f"{user.name}/{uuid4().hex}"
            prompt = user.prompt(number)
            return str(await client.execute_workflow(WORKFLOW, prompt, id=name, task_queue=QUEUE))

        everybody, found = await _measured(size, run)
        asked = [(one.key.partition("/")[0], one.secrets) for one in all_asked(folder)]
        found.foreign = _foreign(everybody, asked)
    return found


async def jeeves(size: Size) -> Found:
    """Returns what JeevesAgent does with the load."""
    warm, everybody = users(WARM_USERS, "warm"), users(size.users, "user")
    given = {
        "warm": [asdict(one) for one in warm],
        "users": [asdict(one) for one in everybody],
        "runs": size.runs,
    }
    with tempfile.TemporaryDirectory() as folder:
        argv = [sys.executable, str(HERE / "multi_tenant_jeeves.py"), folder, str(MODEL_CALL_S)]
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*argv, stdin=pipe, stdout=pipe)
        try:
            async with asyncio.timeout(JEEVES_S_MAX):
                said, _ = await process.communicate(json.dumps(given).encode())
        finally:
            if process.returncode is None:
                process.kill()
        if process.returncode:
            raise RuntimeError(f"JeevesAgent's process ended with {process.returncode}")
        answer = json.loads(said)
        asked = list(all_asked(Path(folder)))
    found = Found(
        Outcome(**answer["outcome"]),
        _foreign([*warm, *everybody], [(one.key, one.secrets) for one in asked]),
    )
    found.cpu_ms["process"] = answer["cpu_s"] * 1000 / max(len(found.outcome.latencies), 1)
    billed = _billed([(one.key, one.input + one.output) for one in asked])
    found.ledger_wrong = sum(billed[user] != tokens for user, tokens in answer["settled"].items())
    return found


async def _measured(size: Size, run: Run) -> tuple[list[User], Found]:
    warm, everybody = users(WARM_USERS, "warm"), users(size.users, "user")
    if (problems := (await load(warm, 1, run)).errors) > 0:
        raise RuntimeError(f"{problems} of {len(warm)} runs failed before the load began")
    before = _cpu_s()
    outcome = await load(everybody, size.runs, run)
    spent = {name: (after - before[name]) * 1000 for name, after in _cpu_s().items()}
    number = max(len(outcome.latencies), 1)
    found = Found(outcome, 0, cpu_ms={name: ms / number for name, ms in spent.items()})
    return [*warm, *everybody], found


@asynccontextmanager
async def _working(
    argvs: Sequence[list[str]], processes: int, database_url: str = ""
) -> AsyncIterator[Path]:
    """Runs the commands once so many of their processes poll; yields the model's folder."""
    environment = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("RUNWARD_", "TEMPORAL_"))
    }
    with tempfile.TemporaryDirectory() as folder:
        environment |= {FOLDER: folder, MODEL_S: str(MODEL_CALL_S)}
        environment["RUNWARD_DATABASE_URL"] = database_url
        log = Path(folder) / "log"
        children: list[Child] = []
        try:
            for argv in argvs:
                order = ChildOrder(argv=argv, log=log, env=environment, cwd=HERE)
                children.append(await Child.start(order))
            async with asyncio.timeout(POLLING_S_MAX):
                while log.read_text().count(" polls ") < processes:
                    if any(one.returncode is not None for one in children):
                        raise children[0].failure("a worker ended")
                    await asyncio.sleep(0.1)
            yield Path(folder)
        finally:
            await asyncio.gather(*(one.stop() for one in children))


def _foreign(everybody: Sequence[User], asked: Sequence[tuple[str, Sequence[str]]]) -> int:
    """Returns how many prompts hold anything but the one token of the user they are billed to."""
    own = {one.name: [one.secret] for one in everybody}
    return sum(list(found) != own[user] for user, found in asked)


def _billed(bills: Sequence[tuple[str, int]]) -> Counter[str]:
    billed: Counter[str] = Counter()
    for user, tokens in bills:
        billed[user] += tokens
    return billed


def _cpu_s() -> dict[str, float]:
    """Returns the CPU time so far, by who spent it; the client is this process."""
    spent = {"client": _of(psutil.Process(), ended=False), "server": 0.0, "store": 0.0}
    spent["workers"] = 0.0
    kinds = {"temporal": "server", "postgres": "store"}
    for one in psutil.Process().children(recursive=True):
        try:
            spent[kinds.get(one.name(), "workers")] += _of(one, ended=True)
        except psutil.NoSuchProcess:  # a connection's process, whose time its parent has now
            continue
    return spent


def _of(process: psutil.Process, *, ended: bool) -> float:
    times = process.cpu_times()
    children = times.children_user + times.children_system if ended else 0.0
    return float(times.user + times.system + children)
