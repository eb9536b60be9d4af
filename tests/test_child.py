"""A child process ends when it is told to, when it must, and when we are gone."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from runward.workers.child import Child, ChildFailed, ChildOrder, free_port
from runward.workers.file_lock import FileLock, LockHeld

from .child_processes import all_gone, comes_true, family, removed, script

SLEEP = ["/bin/sleep", "1000"]

START_AND_WAIT = """
import asyncio, sys
from pathlib import Path
from runward.workers.child import Child, ChildOrder

async def main():
    log, folder = Path(sys.argv[1]), Path(sys.argv[2])
    user = int(sys.argv[3]) if sys.argv[3] else None
    order = ChildOrder(argv=["/bin/sleep", "1000"], log=log, user=user, remove=[folder])
    child = await Child.start(order)
    print(child.pid, flush=True)
    await child.wait()

asyncio.run(main())
"""


async def test_stop_ends_the_child_with_its_signal(tmp_path: Path) -> None:
    child = await Child.start(ChildOrder(argv=SLEEP, log=tmp_path / "log"))
    processes = family(child.pid)

    assert await child.stop() == 128 + signal.SIGTERM
    assert await all_gone(processes)


async def test_child_that_ignores_the_signal_is_killed(tmp_path: Path) -> None:
    stubborn = ["/bin/sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done"]
    order = ChildOrder(argv=stubborn, log=tmp_path / "log", stop_wait_s_max=0.5)
    child = await Child.start(order)
    assert await comes_true(lambda: "ready" in order.log.read_text())

    assert await child.stop() == 128 + signal.SIGKILL


async def test_exit_code_and_last_words_are_reported(tmp_path: Path) -> None:
    argv = ["/bin/sh", "-c", "echo no such luck; exit 3"]
    child = await Child.start(ChildOrder(argv=argv, log=tmp_path / "log"))

    assert await child.wait() == 3
    assert "no such luck" in str(child.failure("start"))


async def test_program_that_cannot_be_executed_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ChildFailed, match="No such file"):
        await Child.start(ChildOrder(argv=[str(tmp_path / "absent")], log=tmp_path / "log"))


@pytest.mark.parametrize(
    "user",
    [
        "",
        pytest.param("65534", marks=pytest.mark.skipif(os.geteuid() != 0, reason="needs root")),
    ],
)
async def test_kill_9_of_the_parent_ends_the_child(tmp_path: Path, user: str) -> None:
    """The change of user matters: it clears the kernel's parent-death signal."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    async with script(START_AND_WAIT, str(tmp_path / "log"), str(folder), user) as (parent, line):
        processes = family(int(line))
        parent.kill()

        assert await all_gone(processes)
        assert await removed(folder)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a parent-death signal")
async def test_kill_9_of_the_guardian_ends_the_child(tmp_path: Path) -> None:
    child = await Child.start(ChildOrder(argv=SLEEP, log=tmp_path / "log"))
    process = psutil.Process(child.pid)
    guardian = process.parent()
    assert guardian is not None
    guardian.kill()

    assert await all_gone([process])
    await child.wait()


async def test_lock_is_held_as_long_as_the_child_runs(tmp_path: Path) -> None:
    lock = await FileLock.acquire(tmp_path / "lock", wait_s_max=0)
    order = ChildOrder(argv=SLEEP, log=tmp_path / "log", held=[lock.descriptor])
    child = await Child.start(order)
    lock.release()

    with pytest.raises(LockHeld):
        await FileLock.acquire(tmp_path / "lock", wait_s_max=0)
    await child.stop()
    (await FileLock.acquire(tmp_path / "lock", wait_s_max=0)).release()


def test_free_port_is_given_once_and_can_be_listened_on() -> None:
    ports = [free_port() for _ in range(50)]
    listen = "import socket, sys; socket.create_server(('127.0.0.1', int(sys.argv[1])))"

    assert len(set(ports)) == 50
    subprocess.run([sys.executable, "-W", "ignore", "-c", listen, str(ports[0])], check=True)
