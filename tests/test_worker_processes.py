"""`runward worker --processes N`: all work, the dead are started again, none outlives the rest."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import psutil
import pytest
from temporalio.worker import PollerBehaviorSimpleMaximum

from runward.cli.worker import number_of
from runward.client.runward_client import RunwardClient
from runward.workers.child import ChildFailed, ChildOrder
from runward.workers.dev import DevStack
from runward.workers.processes import Pace, keep
from runward.workers.sizing import MIB, Machine, machine, sizing

from .app_folder import Command, runward
from .child_processes import all_gone, comes_true, family

QUEUE = f"several-{os.getpid()}"  # processes of pytest-xdist share a server
GIB = 1024 * MIB
HASTY = Pace(first_s=0.01, most_s=0.02, steady_s=60, deaths_max=3)


def words(dev: DevStack, processes: str = "2") -> list[str]:
    given = ["worker", "--app", "shop:app", "--address", dev.temporal_address]
    queue = ["--task-queue", QUEUE, "--processes", processes]
    return [*given, *queue, "--database-url", dev.database_url]


async def polling(parent: Command, number: int) -> list[psutil.Process]:
    """Returns the worker processes once so many lines said that one polls."""
    for _ in range(3):  # on a busy machine one bound is short for so many processes
        if await comes_true(lambda: sum(" polls " in line for line in parent.out) >= number):
            break
    else:
        raise AssertionError(f"{number} do not poll: {parent.out} {parent.err}")
    named = {line.partition("@")[0].rpartition(" ")[2] for line in parent.out if " polls " in line}
    return [psutil.Process(int(one)) for one in named if psutil.pid_exists(int(one))]


async def test_all_poll_the_dead_are_started_again_and_all_drain(
    dev: DevStack, folder: Path
) -> None:
    async with (
        runward(folder, *words(dev)) as parent,
        await RunwardClient.connect(
            dev.temporal_address, issuer=dev.issuer, database_url=dev.database_url, task_queue=QUEUE
        ) as door,
    ):
        first = await parent.says("2 worker processes on ")
        workers = await polling(parent, 2)
        everybody = family(parent.process.pid)
        workers[0].kill()
        said = await parent.says("ended with code 137; it starts again in 1 s")
        workers = await polling(parent, 3)
        run = await door.acting_as("ada", tenant="acme").start("held", "hello")
        assert await comes_true((folder / "inside").exists)
        everybody += family(parent.process.pid)
        parent.process.send_signal(signal.SIGTERM)
        (folder / "go").touch()
        code = await parent.ended()

    assert (code, len(workers)) == (0, 2)
    assert "runs cached" in first and "(pid " in said
    assert await all_gone(everybody)
    assert len((folder / "bills").read_text().splitlines()) == 1  # drained: finished what it began
    assert run.id


async def test_the_children_end_with_a_parent_that_was_killed(dev: DevStack, folder: Path) -> None:
    async with runward(folder, *words(dev)) as parent:
        await polling(parent, 2)
        everybody = family(parent.process.pid)
        assert len(everybody) >= 5  # the parent, two guardians, two workers
        parent.process.kill()

        assert await all_gone(everybody)


async def test_ctrl_c_ends_all_with_0(dev: DevStack, folder: Path) -> None:
    async with runward(folder, *words(dev)) as parent:
        await parent.says("2 worker processes on ")  # they are still starting
        everybody = family(parent.process.pid)
        parent.process.send_signal(signal.SIGINT)
        code = await parent.ended()

    assert code == 0, parent.err
    assert await all_gone(everybody)


def order(script: str) -> ChildOrder:
    return ChildOrder(argv=[sys.executable, "-c", script], our_output=True, stop_wait_s_max=5)


async def test_gives_up_on_what_dies_again_and_again_and_stops_the_others(tmp_path: Path) -> None:
    lives = tmp_path / "lives"
    dies = f"open({str(tmp_path / 'starts')!r}, 'a').write('x'); raise SystemExit(3)"
    stays = f"import os, time; open({str(lives)!r}, 'w').write(str(os.getpid())); time.sleep(999)"
    stop = asyncio.Event()

    with pytest.raises(ChildFailed, match=r"worker process 1 .* code 3"):
        await keep([order(dies), order(stays)], stop, HASTY)

    assert (tmp_path / "starts").read_text() == "xxx"
    if lives.exists():  # it may have been stopped before it ran
        assert not psutil.pid_exists(int(lives.read_text()))


async def test_who_lived_long_enough_is_started_again_without_end(tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    dies = f"open({str(starts)!r}, 'a').write('x')"
    stop = asyncio.Event()
    pace = Pace(first_s=0.01, most_s=0.02, steady_s=0, deaths_max=2)
    keeping = asyncio.create_task(keep([order(dies)], stop, pace))

    assert await comes_true(lambda: starts.exists() and len(starts.read_text()) > 4)
    stop.set()
    await keeping


def test_pauses_double_up_to_their_bound() -> None:
    assert [Pace().pause_s(deaths) for deaths in range(1, 7)] == [1, 2, 4, 8, 15, 15]


def test_processes_are_a_number_or_one_per_core() -> None:
    from typer import BadParameter

    assert (number_of("1"), number_of("12"), number_of("auto")) == (1, 12, machine().cores)
    for wrong in ("0", "-1", "1.5", "many", "1000", ""):
        with pytest.raises(BadParameter):
            number_of(wrong)


def test_sizes_follow_from_the_share_of_memory_between_bounds() -> None:
    small, half, whole, large = (
        sizing(Machine(2, memory), processes)
        for memory, processes in ((128 * MIB, 1), (4 * GIB, 2), (4 * GIB, 1), (1024 * GIB, 2))
    )

    assert (small.cached_runs, small.activities) == (100, 100)
    assert (half.cached_runs, half.activities) == (1280, 256)
    assert (whole.cached_runs, whole.activities) == (2560, 500)
    assert (large.cached_runs, large.activities) == (5000, 500)


def test_sizes_are_options_of_a_worker() -> None:
    found = machine()
    options = sizing(found).options

    assert found.cores >= 1 and found.memory_bytes > 64 * MIB
    assert options["max_concurrent_workflow_tasks"] == 16
    for kind in ("workflow", "activity"):
        assert options[f"{kind}_task_poller_behavior"] == PollerBehaviorSimpleMaximum(5)
