"""The demonstration, as `make demo` runs it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from pathlib import Path

import psutil
import pytest

from tests.child_processes import all_gone, family

DEMO = Path(__file__).parents[1] / "deploy" / "demo" / "main.py"
DEMO_S_MAX = 170.0
LOOK_EVERY_S = 0.5


async def demo(*arguments: str, **settings: str) -> asyncio.subprocess.Process:
    """Starts the demonstration with these environment variables."""
    names = ("MODEL", "ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN")
    inherited = {key: value for key, value in os.environ.items() if key not in names}
    return await asyncio.create_subprocess_exec(
        *(sys.executable, str(DEMO), *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=inherited | settings,
    )


async def watched(process: asyncio.subprocess.Process, seen: set[psutil.Process]) -> None:
    """Notes every process that ever was below this one."""
    while process.returncode is None:
        with contextlib.suppress(psutil.NoSuchProcess):
            seen.update(family(process.pid))
        await asyncio.sleep(LOOK_EVERY_S)


@pytest.mark.timeout(DEMO_S_MAX + 10)
async def test_demo_passes_all_scenes_and_leaves_nothing_running() -> None:
    process, seen = await demo(), set[psutil.Process]()
    watching = asyncio.create_task(watched(process, seen))

    async with asyncio.timeout(DEMO_S_MAX):
        output = (await process.communicate())[0].decode()
    await watching

    assert output.splitlines()[-1] == "4/4 scenes passed", output
    assert process.returncode == 0, output
    assert len(seen) > 8, "servers, ledgers and three workers, each with its guardian"
    assert await all_gone(list(seen))


@pytest.mark.parametrize(
    ("model", "says"), [("anthropic:claude-sonnet-4-5", "ANTHROPIC_API_KEY"), ("gpt", "anthropic:")]
)
async def test_demo_says_what_a_real_model_needs(model: str, says: str) -> None:
    process = await demo(MODEL=model)

    output = (await process.communicate())[0].decode()

    assert process.returncode == 2
    assert output.startswith(f"Error: MODEL={model}:") and says in output
