"""What every bench prints: progress to stderr, and one JSON object as the last line of stdout."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sys
import traceback
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NoReturn

PACKAGES = ("runward", "temporalio", "pydantic", "asyncpg", "uvloop")
_MET: Mapping[str, Callable[[float, float], bool]] = {
    "<=": lambda found, bound: found <= bound,
    ">=": lambda found, bound: found >= bound,
    "==": lambda found, bound: found == bound,
}


@dataclass(slots=True)
class Report:
    """Figures beside their targets. A target is a comparison with a number, such as "<= 1.0"."""

    bench: str
    seed: int = 0
    figures: dict[str, float] = field(default_factory=dict)
    targets: dict[str, str] = field(default_factory=dict)
    counts: dict[str, float] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    machine: dict[str, float] = field(default_factory=dict)

    def add(self, name: str, figure: float, target: str | None = None) -> None:
        """Adds a figure, with its target where it has one."""
        self.figures[name] = round(figure, 4)
        if target is not None:
            self.targets[name] = target

    @property
    def missed(self) -> list[str]:
        """Returns the names of the figures that do not meet their targets."""
        return [name for name, bound in self.targets.items() if not _meets(self, name, bound)]

    def as_dict(self) -> dict[str, Any]:
        """Returns what the last line says."""
        return {
            "bench": self.bench,
            "passed": not self.missed,
            "figures": self.figures,
            "targets": self.targets,
            "counts": self.counts,
            "seed": self.seed,
            "versions": _versions() | self.versions,
            "machine": _machine() | self.machine,
        }

    def table(self) -> str:
        """Returns the figures for people."""
        width = max(map(len, self.figures), default=0)
        return "\n".join(
            f"  {name:<{width}}  {figure:>12,.4f}  {self._verdict(name)}".rstrip()
            for name, figure in self.figures.items()
        )

    def _verdict(self, name: str) -> str:
        bound = self.targets.get(name)
        if bound is None:
            return ""
        return f"{bound}  {'MISSED' if name in self.missed else 'ok'}"


def arguments(description: str) -> argparse.ArgumentParser:
    """Returns a parser with the options that every bench has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", action="store_true", help="print the JSON object only")
    parser.add_argument("--quick", action="store_true", help="the share that fits into CI")
    return parser


def say(text: str) -> None:
    """Prints progress."""
    print(text, file=sys.stderr, flush=True)


def run(
    work: Callable[[], Awaitable[Report]], *, only_json: bool, uvloop: bool = False
) -> NoReturn:
    """Runs a bench to its end: exit 0 if every target is met, 1 if not, 2 if it could not run."""
    code = 2
    try:
        report = _in_loop(work, uvloop)
        if not only_json:
            print(report.table())
        print(json.dumps(report.as_dict()))
        code = 1 if report.missed else 0
    except KeyboardInterrupt:
        say("interrupted")
    except Exception:  # noqa: BLE001  whatever it is, the bench could not run
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit: the SDK's native threads abort at the interpreter's end in a few percent.
    os._exit(code)


def _in_loop(work: Callable[[], Awaitable[Report]], uvloop: bool) -> Report:
    factory = None
    if uvloop:
        import uvloop as loops

        factory = loops.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(_awaited(work))


async def _awaited(work: Callable[[], Awaitable[Report]]) -> Report:
    return await work()


def _meets(report: Report, name: str, bound: str) -> bool:
    sign, number = bound.split()
    return _MET[sign](report.figures[name], float(number))


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _machine() -> dict[str, float]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {"cores": cores or 0, "memory_gib": round(pages / 2**30, 1)}
