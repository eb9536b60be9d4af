"""How much one worker process takes on: derived from the machine's cores and memory, and printed.

Workflow code is bound to one core by the interpreter's lock, activities mostly wait for models. So
cores give the number of processes, and memory gives what each of them keeps and has under way.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from temporalio.worker import PollerBehaviorSimpleMaximum

MIB = 1024 * 1024
# A run of 50 turns that waits takes 0.37 MiB, measured; all but 0.02 of them are Temporal's own.
# Conversations of runs that do not wait are in a cache with a bound of its own.
CACHED_RUN_BYTES = MIB * 4 // 10
CACHED_SHARE = 4  # a quarter of the process's memory; the rest is for calls and users' code
CACHED_RUNS = (100, 5_000)  # fewer: each waiting run is replayed; more: a restart replays them all
# A model call under way holds its conversation three times: messages, request body, answer.
CALL_BYTES = 2 * MIB
CALLS_SHARE = 4
# Fewer than Temporal's own default starve a process whose calls last 10 s; a core of 4 ms per step
# is full with 500 calls of 2 s.
CALLS = (100, 500)
# More do not run at the same time, they only wait in turn inside their two seconds each. What waits
# on the server instead can still go to another process.
WORKFLOW_TASKS = 16
# Temporal's own number. Of five that wait for workflow tasks, one takes new runs and four take runs
# that this process has begun, so those end first at saturation. Autoscaling up to 50 let new runs
# fill the slots. Measured beside it in four interleaved pairs, 100 to 500 users at once on 2 busy
# cores, medians: p99 0.8 x, CPU per run 0.94 x. A begun run waited 0.3 s for its next task and not
# 1.0 s, so that one task in 420 runs timed out (and was replayed elsewhere), not 80.
POLLERS = 5
CGROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


@dataclass(frozen=True, slots=True)
class Machine:
    """What the processes of one `runward worker` share."""

    cores: int
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Sizing:
    """The bounds of one worker process."""

    cached_runs: int
    activities: int
    workflow_tasks: int = WORKFLOW_TASKS
    pollers: int = POLLERS

    def __str__(self) -> str:
        return (
            f"{self.cached_runs} runs cached, {self.activities} activities and"
            f" {self.workflow_tasks} workflow tasks at once, {self.pollers} pollers of each kind"
        )

    @property
    def options(self) -> dict[str, Any]:
        """Returns this as options of Temporal's `Worker`."""
        pollers = PollerBehaviorSimpleMaximum(self.pollers)
        return {
            "max_cached_workflows": self.cached_runs,
            "max_concurrent_activities": self.activities,
            "max_concurrent_workflow_tasks": self.workflow_tasks,
            "workflow_task_poller_behavior": pollers,
            "activity_task_poller_behavior": pollers,
        }


def machine() -> Machine:
    """Returns the cores and the memory that we may use: the container's, if there is one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in CGROUP_LIMITS:
        try:
            memory = min(memory, int(path.read_text()))
        except (OSError, ValueError):  # no such hierarchy, or "max"
            continue
    return Machine(cores or 1, memory)


def sizing(found: Machine, processes: int = 1) -> Sizing:
    """Returns the bounds of one of so many processes on the machine."""
    share = found.memory_bytes // processes
    return Sizing(
        cached_runs=_within(CACHED_RUNS, share // CACHED_SHARE // CACHED_RUN_BYTES),
        activities=_within(CALLS, share // CALLS_SHARE // CALL_BYTES),
    )


def _within(bounds: tuple[int, int], value: int) -> int:
    return max(bounds[0], min(value, bounds[1]))
