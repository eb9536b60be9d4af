"""What a governed step costs the store: PostgreSQL's CPU, this process's CPU, and other tenants.

One tenant's runs go through the same conversation: a model step that asks for a tool, the tool, the
next model step. Every model step holds from a bucket of its run's and from one of its user's, which
all runs share. `server` is the CPU time of the PostgreSQL processes that served us, by the kernel's
account; `worker` is ours. With N callers the batches hold N steps: all wait for each other's
commits.

The locked tenant: another session holds the lock of its run, as a stuck transaction would, while 8
callers keep trying. Another tenant's steps are timed with and without it, in turns.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles
from uuid import uuid4

import asyncpg
from report import Report, arguments, run, say

from runward.contracts.budget import Bound, Bucket
from runward.contracts.errors import StoreUnavailable
from runward.contracts.steps import (
    Admitted,
    Close,
    Draft,
    Opening,
    Parent,
    StepKey,
    TranscriptRow,
)
from runward.contracts.transcript import GENESIS
from runward.store.migrate import migrate
from runward.store.pool import Store
from runward.workers.embedded_postgres import EmbeddedPostgres

CALLERS = (1, 8, 32)
TURNS = 6  # a model step and a tool step each
LEAF = b"l" * 400
MESSAGE = b"m" * 1_000
COMMITS_MAX = {1: 2.0, 32: 0.5}
TAIL_RATIO_MAX = 2.0
BLOCKED_CALLERS = 8
ROUNDS = 20  # of each kind, quiet and disturbed
STEPS = 60  # in each round


@dataclass(slots=True)
class Conversation:
    """One run."""

    tenant: str
    run_id: str
    head: str = GENESIS

    def model(self, turn: int) -> Draft:
        """Returns the model step of this turn."""
        parent = Parent(head=GENESIS, messages=(("", "request"),))
        if turn > 1:
            before = (f"t{turn - 1}.tool.0", f"said-{turn - 1}")
            parent = Parent(f"t{turn - 1}.model", head=self.head, messages=(before,))
        draft = self._draft(f"t{turn}.model", f"turn-{turn}", parent)
        draft.kind = "model"
        draft.bound = Bound(1, 2_000, 1_000, 5_000_000)
        draft.buckets = (
            Bucket("run", self.run_id, "tokens", "run", 10**12),
            Bucket("user", "ada", "cost", "day", 10**15),
        )
        if turn == 1:
            draft.opening = self._opening()
        return draft

    def tool(self, turn: int) -> Draft:
        """Returns the tool step that this turn's model step asked for."""
        return self._draft(f"t{turn}.tool.0", f"call-{turn}", Parent(f"t{turn}.model"))

    def said(self, draft: Draft, turn: int) -> Close:
        """Returns the end of the model step."""
        before, self.head = self.head, f"head-{turn}"
        message = f"answer-{turn}"
        row = TranscriptRow(self.head, before, message, MESSAGE, 1_000 * turn)
        return Close(
            key=draft.key,
            nonce=draft.nonce,
            attempt=1,
            state="done",
            outcome=MESSAGE,
            record=LEAF,
            resolution="settle",
            actual=Bound(1, 1_500, 300, 2_000_000),
            head=self.head,
            message=message,
            grants=(f"call-{turn}",),
            transcript=(row,),
        )

    def done(self, draft: Draft, turn: int) -> Close:
        """Returns the end of the tool step."""
        return Close(
            draft.key, draft.nonce, 1, "done", MESSAGE, LEAF, "settle", message=f"said-{turn}"
        )

    def _draft(self, step: str, digest: str, parent: Parent) -> Draft:
        return Draft(
            key=StepKey(self.tenant, self.run_id, step),
            kind="tool",
            name="lookup",
            digest=digest,
            workflow_id=f"case-{self.run_id}",
            execution_run_id=self.run_id,
            attempt=1,
            nonce=uuid4().hex,
            idempotent=True,
            arguments='{"order_id": "order-0017"}',
            parent=parent,
            verdict="allow",
            intent=LEAF,
        )

    def _opening(self) -> Opening:
        return Opening("ada", ("clerk",), "support", "agent-1", b"{}", "policy-1", b"{}", "",
                       "request-1", "kid-1", uuid4().hex, LEAF)  # fmt: skip


def fresh(tenant: str) -> Conversation:
    """Returns a run that nobody has opened yet."""
    return Conversation(tenant, uuid4().hex)


async def converse(store: Store, one: Conversation, turns: int, took: list[float]) -> None:
    """Runs one conversation to its end; adds what each of its steps took."""
    for turn in range(1, turns + 1):
        for draft, close in ((one.model, one.said), (one.tool, one.done)):
            began = time.perf_counter()
            opened = draft(turn)
            answer = await store.steps.open(opened)
            assert answer == Admitted(), answer
            await store.steps.close(close(opened, turn))
            took.append(time.perf_counter() - began)


async def together(store: Store, tenant: str, callers: int) -> dict[str, float]:
    """Returns what a step costs with so many callers: ms of CPU, and commits.

    All open, then all close: so a batch holds one step of each caller.
    """
    cost = dict.fromkeys(("open_server", "open_worker", "close_server", "close_worker"), 0.0)
    flushes = store.steps.opens.flushes + store.steps.closes.flushes
    runs = [fresh(tenant) for _ in range(callers)]
    for turn in range(1, TURNS + 1):
        for kind in ("model", "tool"):
            drafts = [one.model(turn) if kind == "model" else one.tool(turn) for one in runs]
            async with spent(cost, "open", store):
                await asyncio.gather(*map(store.steps.open, drafts))
            closes = [
                one.said(draft, turn) if kind == "model" else one.done(draft, turn)
                for one, draft in zip(runs, drafts, strict=True)
            ]
            async with spent(cost, "close", store):
                await asyncio.gather(*map(store.steps.close, closes))
    steps = callers * TURNS * 2
    found = {name: 1000 * value / steps for name, value in cost.items()}
    flushes = store.steps.opens.flushes + store.steps.closes.flushes - flushes
    return found | {"commits": flushes / steps}


@contextlib.asynccontextmanager
async def spent(cost: dict[str, float], name: str, store: Store) -> AsyncIterator[None]:
    """Adds the CPU seconds of the block to `cost`."""
    server, worker = servers_cpu_s(store), time.process_time()
    yield
    cost[f"{name}_worker"] += time.process_time() - worker
    cost[f"{name}_server"] += servers_cpu_s(store) - server


def servers_cpu_s(store: Store) -> float:
    """Returns the CPU time of the processes behind the store's connections."""
    total = 0
    for holder in store._database.pool._holders:  # type: ignore[attr-defined]  # not in its stubs
        if holder._con is not None:
            pid = holder._con.get_server_pid()
            total += int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])
    return total / 1e9


async def costs(store: Store, rounds: int, report: Report) -> None:
    """Adds what steps cost, medians over rounds."""
    for callers in CALLERS:
        found = [await together(store, "acme", callers) for _ in range(max(rounds // callers, 3))]
        for name in found[0]:
            figure = sorted(one[name] for one in found)[len(found) // 2]
            unit = "commits_per_step" if name == "commits" else f"{name}_ms_per_step"
            bound = COMMITS_MAX.get(callers) if name == "commits" else None
            target = None if bound is None else f"<= {bound}"
            report.add(f"{unit}_{callers}", figure, target)
        report.counts[f"steps_{callers}"] = len(found) * callers * TURNS * 2


@contextlib.asynccontextmanager
async def stuck(store: Store, database_url: str) -> AsyncIterator[None]:
    """Holds the lock of a run whose tenant keeps trying."""
    one = fresh("stuck")
    await converse(store, one, 1, [])
    connection = await asyncpg.connect(database_url)
    over = asyncio.Event()

    async def caller(n: int) -> None:
        while not over.is_set():
            draft = one.tool(1)
            draft.key = StepKey("stuck", one.run_id, f"x.{n}")
            draft.parent = None
            with contextlib.suppress(StoreUnavailable):
                await store.steps.open(draft)
                return
            await asyncio.sleep(0.1)

    async with connection.transaction():
        await connection.execute(
            "select pg_advisory_xact_lock(runward.run_key($1, $2))", "stuck", one.run_id
        )
        callers = [asyncio.create_task(caller(n)) for n in range(BLOCKED_CALLERS)]
        await asyncio.sleep(0)
        yield
        over.set()
    await asyncio.gather(*callers)
    await connection.close()


async def tails(store: Store, database_url: str, rounds: int, report: Report) -> None:
    """Adds the tail of one tenant's steps beside that of another one's lock."""
    quiet: list[float] = []
    disturbed: list[float] = []
    for _ in range(rounds):
        await converse(store, fresh("quiet"), STEPS // 2, quiet)
        async with stuck(store, database_url):
            await converse(store, fresh("quiet"), STEPS // 2, disturbed)
    for name, took in (("quiet", quiet), ("beside_a_lock", disturbed)):
        marks = quantiles(took, n=100)
        report.add(f"p50_ms_{name}", 1000 * marks[49])
        report.add(f"p99_ms_{name}", 1000 * marks[98])
        report.add(f"max_ms_{name}", 1000 * max(took))
    ratio = report.figures["p99_ms_beside_a_lock"] / report.figures["p99_ms_quiet"]
    report.add("p99_ratio_beside_a_lock", ratio, f"<= {TAIL_RATIO_MAX}")
    report.counts["steps_timed_each_side"] = len(quiet)


async def measure(quick: bool) -> Report:
    """Runs everything on a fresh server."""
    report = Report("store")
    async with EmbeddedPostgres(None) as postgres:
        await migrate(postgres.dsn)
        async with Store(postgres.socket_dsn) as store:
            await together(store, "warm", 8)
            await costs(store, 10 if quick else 60, report)
            say("costs measured")
            await tails(store, postgres.dsn, 5 if quick else ROUNDS, report)
    return report


def main() -> None:
    """Measures, prints and exits."""
    parser = arguments(__doc__ or "")
    options = parser.parse_args()
    run(lambda: measure(options.quick), only_json=options.json, uvloop=True)


if __name__ == "__main__":
    main()
