"""What retention costs the steps beside it: their latency with the sweeper's deletion, and without.

A store full of old runs, all marked. In turns, the same conversation runs alone and beside the
deletion as the sweeper does it (its batches, its pauses), for one caller and for eight. The
deletion must have worked all through its rounds, or the bench could not run. `delete_rows_per_s` is
what the sweep gets done meanwhile; a run of five turns leaves about 30 rows.
"""

from __future__ import annotations

import asyncio
import time
from statistics import median, quantiles

import asyncpg
from report import Report, arguments, run, say

from runward.store.migrate import migrate
from runward.store.pool import Store
from runward.workers.embedded_postgres import EmbeddedPostgres
from runward.workers.retention import delete
from store import converse, fresh  # noqa: TID251  the bench beside this one

ROUNDS = {1: 80, 8: 20}  # by callers
TURNS = 15
RUNS = 6_000
STEPS = 10  # of each old run, with a hold and a message each
TENANTS = 20
# A step that meets a batch shares the disk and two cores with it for a millisecond. The tail of one
# side alone moves by a third from run to run.
P99_RATIO_MAX = 1.5
P50_RATIO_MAX = 1.15
_FILL = """
insert into runward.run (tenant, run_id, workflow_id, user_id, roles, agent, agent_digest, policy,
  session, request_digest, kid, jti, state, opened_at, closed_at)
select 'old-' || n % {tenants}, 'run-' || n, 'wf-' || n, 'ada', '{{}}', 'support', '', '', '', '',
  '', 'jti-' || n, 'answered', now() - interval '50 days', now() - interval '40 days'
  from generate_series(1, {runs}) n;
insert into runward.step (tenant, run_id, round, epoch, step, digest, kind, name, state, nonce,
  outcome)
select 'old-' || n % {tenants}, 'run-' || n, 0, 0, 't' || s, 'd', 'tool', 'lookup', 'done',
  n || '-' || s, convert_to(repeat(md5(n::text || s), 32), 'UTF8')
  from generate_series(1, {runs}) n, generate_series(1, {steps}) s;
insert into runward.hold (tenant, nonce, run_id, round, epoch, step, buckets, dimensions, amounts,
  state, expires_at, resolved_at)
select 'old-' || n % {tenants}, n || '-' || s, 'run-' || n, 0, 0, 't' || s, '{{}}', '{{}}', '{{}}',
  'S', now(), now()
  from generate_series(1, {runs}) n, generate_series(1, {steps}) s;
insert into runward.transcript (tenant, run_id, head, previous, digest, content, prefix_bytes)
select 'old-' || n % {tenants}, 'run-' || n, 'h' || s, '', 'd',
  convert_to(repeat(md5(n::text || s), 32), 'UTF8'), 0
  from generate_series(1, {runs}) n, generate_series(1, {steps}) s;
analyze;
"""


async def fill(database_url: str, runs: int) -> int:
    """Puts old runs into the store, all marked; returns how many rows they have."""
    connection = await asyncpg.connect(database_url)
    await connection.execute(_FILL.format(tenants=TENANTS, runs=runs, steps=STEPS))
    await connection.close()
    async with Store(database_url, role="runward_worker") as store:
        while due := await store.retention.due("steps", 30, limit=500):
            await store.retention.retire("steps", 30, due)
    return runs * STEPS * 3


async def steps(store: Store, callers: int, took: list[float]) -> None:
    """Runs so many conversations at once."""
    await asyncio.gather(*(converse(store, fresh("quiet"), TURNS, took) for _ in range(callers)))


async def compare(store: Store, sweeper: Store, callers: int, rounds: int, report: Report) -> None:
    """Adds the latencies of both sides and their ratios, medians over pairs of rounds."""
    sides: dict[str, list[list[float]]] = {"alone": [], "beside": []}
    seconds, before = 0.0, await left(sweeper)
    for _ in range(rounds):
        alone: list[float] = []
        await steps(store, callers, alone)
        beside: list[float] = []
        began = time.monotonic()
        deleting = asyncio.create_task(delete(sweeper, began + 600))
        await steps(store, callers, beside)
        if deleting.done():
            raise RuntimeError("everything was deleted before the steps were measured")
        seconds += time.monotonic() - began
        deleting.cancel()
        await asyncio.gather(deleting, return_exceptions=True)
        sides["alone"].append(alone)
        sides["beside"].append(beside)
    for name, found in sides.items():
        marks = quantiles([one for round_ in found for one in round_], n=100)
        report.add(f"p50_ms_{name}_{callers}", 1000 * marks[49])
        report.add(f"p99_ms_{name}_{callers}", 1000 * marks[98])
    pairs = list(zip(sides["beside"], sides["alone"], strict=True))
    half = median(median(one) / median(other) for one, other in pairs)
    report.add(f"p50_ratio_{callers}", half, f"<= {P50_RATIO_MAX}")
    tail = report.figures[f"p99_ms_beside_{callers}"] / report.figures[f"p99_ms_alone_{callers}"]
    report.add(f"p99_ratio_{callers}", tail, f"<= {P99_RATIO_MAX}")
    report.add(f"delete_rows_per_s_{callers}", (before - await left(sweeper)) / seconds)
    report.counts[f"steps_each_side_{callers}"] = sum(map(len, sides["alone"]))


async def left(store: Store) -> int:
    """Returns how many rows of the old runs are there."""
    counts = " + ".join(
        f"(select count(*) from runward.{table} where tenant like 'old-%')"
        for table in ("step", "hold", "transcript")
    )
    return int(await store.retention._database.value(f"select {counts}"))


async def measure(quick: bool) -> Report:
    """Runs everything on a fresh server."""
    report = Report("retention")
    async with EmbeddedPostgres(None) as postgres:
        await migrate(postgres.dsn)
        rows = await fill(postgres.dsn, RUNS // (4 if quick else 1))
        say(f"{rows} rows are due")
        report.counts["rows_due"] = rows
        async with (
            Store(postgres.socket_dsn) as store,
            Store(postgres.socket_dsn, role="runward_worker", connections_max=2) as sweeper,
        ):
            await steps(store, 4, [])
            for callers, rounds in ROUNDS.items():
                await compare(store, sweeper, callers, rounds // 4 if quick else rounds, report)
                say(f"{callers} callers measured")
    return report


def main() -> None:
    """Measures, prints and exits."""
    parser = arguments(__doc__ or "")
    options = parser.parse_args()
    run(lambda: measure(options.quick), only_json=options.json, uvloop=True)


if __name__ == "__main__":
    main()
