"""Saturation: many users at once, governed, by hand, and with JeevesAgent's durable form.

500 users in 10 tenants have 5 runs each, one after another, all users at once, so that 500 runs are
under way the whole time (a closed loop: nobody can fall behind, and none of the sides is asked for
more than it can take). A run is one call of a model that answers after 1 s. Every side has fresh
servers and processes, is warmed up, and takes its turn in each round; figures are medians over
rounds, ratios are taken within a round. Everything shares this machine: server, PostgreSQL,
workers, and the client, which is this process.

governed: `runward worker --processes auto`, users' clients with a reader, budgets per user and run.
bare: a workflow written by hand with one activity, in as many processes, on the same server; the
SDK's default worker settings.
plain: the same on the server as Temporal's SDK starts it. Ours has other settings
(temporal_dev_server.py), some of them for this load, so that bare has the good of them, too.
jeeves: JeevesAgent 0.9.7 with its SQLite journal, SQLite memory and audit file (`uv sync --group
bench` installs it). One process: its journal's writers lock each other out.

Every user has a token that stands in the prompts. The model keeps which tokens it saw and what it
billed; the store's charges per user are compared with that. Latency is from the start of a run to
its answer in the client.

Targets: a sixth of the throughput is what governance may cost; users must wait no longer than with
their own workflow, and clearly less than with what they come from. `--quick` has 50 users, who do
not saturate every side: it judges errors, ledger and tokens only.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from statistics import median

from multi_tenant_sides import Found, Size, bare, governed, jeeves, plain
from report import Report, arguments, run, say

RUNS_RATIO_MIN = 0.85
P99_RATIO_MAX = 1.0
P99_JEEVES_RATIO_MAX = 0.6
FULL, QUICK = Size(users=500, runs=5), Size(users=50, runs=5)
ROUNDS = 3
JEEVES_VERSION = "0.9.7"
Side = Callable[[Size], Awaitable[Found]]
SIDES: dict[str, Side] = {
    "governed": governed,
    "bare": bare,
    "plain": plain,
    "jeeves": jeeves,
}


async def measure(size: Size, rounds: int, names: list[str]) -> Report:
    """Runs all sides in turns and compares them."""
    report = Report("multi_tenant")
    found: dict[str, list[Found]] = {name: [] for name in names}
    for number in range(rounds):
        first = number % len(names)
        for name in (*names[first:], *names[:first]):
            found[name].append(await SIDES[name](size))
            say(f"round {number + 1}, {name}: {told(found[name][-1])}")
    for name, rows in found.items():
        add(report, name, rows)
    compare(report, found, judged=size == FULL)
    if "jeeves" in names:
        report.versions["jeevesagent"] = version("jeevesagent")
    report.counts |= {"users": size.users, "runs": size.users * size.runs, "rounds": rounds}
    return report


def told(found: Found) -> str:
    """Returns one round as a line."""
    outcome = found.outcome
    spent = ", ".join(f"{name} {ms:.1f}" for name, ms in found.cpu_ms.items())
    return (
        f"{outcome.runs_per_s:.1f} runs/s, p50 {outcome.percentile(50):.2f} s,"
        f" p99 {outcome.percentile(99):.2f} s, {outcome.errors} errors; CPU ms per run: {spent}"
    )


def add(report: Report, name: str, rows: list[Found]) -> None:
    """Adds what one side has shown."""
    report.add(f"{name}_runs_per_s", median(one.outcome.runs_per_s for one in rows))
    report.add(f"{name}_p50_s", median(one.outcome.percentile(50) for one in rows))
    report.add(f"{name}_p99_s", median(one.outcome.percentile(99) for one in rows))
    for who in rows[0].cpu_ms:
        report.add(f"{name}_cpu_ms_per_run_{who}", median(one.cpu_ms[who] for one in rows))
    must = "== 0" if name == "governed" else None  # what the others get wrong is said, not judged
    report.add(f"{name}_errors", sum(one.outcome.errors for one in rows), must)
    report.add(f"{name}_prompts_with_foreign_tokens", sum(one.foreign for one in rows), must)
    wrong = [one.ledger_wrong for one in rows if one.ledger_wrong is not None]
    if wrong:
        report.add(f"{name}_users_charged_wrong", sum(wrong), must)


def compare(report: Report, found: dict[str, list[Found]], *, judged: bool) -> None:
    """Adds the ratios of the governed side to the others, for what was run."""
    ours = found.get("governed", [])
    most = {"bare": P99_RATIO_MAX, "plain": P99_RATIO_MAX, "jeeves": P99_JEEVES_RATIO_MAX}
    for name, p99_max in most.items():
        pairs = list(zip(ours, found.get(name, []), strict=False))
        if not pairs:
            continue
        runs = [mine.outcome.runs_per_s / other.outcome.runs_per_s for mine, other in pairs]
        p99 = [mine.outcome.percentile(99) / other.outcome.percentile(99) for mine, other in pairs]
        least = f">= {RUNS_RATIO_MIN}" if judged and name == "bare" else None
        report.add(f"runs_per_s_over_{name}", median(runs), least)
        report.add(f"p99_over_{name}", median(p99), f"<= {p99_max}" if judged else None)
        for what, ratios in (("runs_per_s", runs), ("p99", p99)):
            report.add(f"{what}_over_{name}_lowest", min(ratios))
            report.add(f"{what}_over_{name}_highest", max(ratios))


def main() -> None:
    """Measures, prints and exits."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of all sides, interleaved")
    parser.add_argument(
        "--sides", default=",".join(SIDES), help="which to run; what is left out is not judged"
    )
    options = parser.parse_args()
    names = [one for one in SIDES if one in options.sides.split(",")]
    size = QUICK if options.quick else FULL

    async def measured() -> Report:
        if "jeeves" in names and importlib.util.find_spec("jeevesagent") is None:
            raise RuntimeError(
                f"The bench of {', '.join(names)}: jeevesagent {JEEVES_VERSION} is not installed."
                " Run `uv sync --group bench`, or leave it out: --sides governed,bare"
            )
        return await measure(size, options.rounds, names)

    run(measured, only_json=options.json)


if __name__ == "__main__":
    main()
