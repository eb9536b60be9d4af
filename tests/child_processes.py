"""What the tests of child processes share: running a script and waiting for others to go."""

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil

GONE_S_MAX = 20.0
SPOKE_S_MAX = 60.0


@contextlib.asynccontextmanager
async def script(
    source: str, *arguments: str
) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """Run a Python script; yield its process and the first line it printed. Killed at the end."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", source, *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(SPOKE_S_MAX):
            yield process, (await process.stdout.readline()).decode().strip()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def family(pid: int) -> list[psutil.Process]:
    """Return the process and all below it."""
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


async def all_gone(processes: list[psutil.Process]) -> bool:
    """Return whether all end within the bound; psutil tells a reused id from the same process."""
    return await comes_true(
        lambda: not any(p.is_running() and p.status() != "zombie" for p in processes)
    )


async def removed(path: Path) -> bool:
    """Return whether `path` goes within the bound."""
    return await comes_true(lambda: not path.exists())


async def comes_true(condition: Callable[[], bool]) -> bool:
    """Return whether the condition holds before the bound."""
    deadline = time.monotonic() + GONE_S_MAX
    while time.monotonic() < deadline:
        with contextlib.suppress(psutil.NoSuchProcess):
            if condition():
                return True
        await asyncio.sleep(0.02)
    return False
