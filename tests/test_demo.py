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


# The demonstration with something else in it than is there; the rest of it is its own.
DOCTORED = """
import sys
sys.path.insert(0, {folder!r})
import main, scenes
{change}
sys.exit(main.main())
"""
# Instead of the servers: scenes that need none, and what goes wrong in one of them.
PLAYED = """
import contextlib
from telling import expect
from runward.contracts.errors import StoreUnavailable

class Stage:
    told, ui_url = [], ""
    async def start_worker(self): pass
    def worker_log(self): return "the worker said this"

@contextlib.asynccontextmanager
async def staged(model):
    yield Stage()

async def good(stage):
    "As it should be."

async def bad(stage):
    "Not as it should be."
    {deviation}

main.staged = staged
main.SCENES = tuple(bad if number == {number} else good for number in range(4))
"""


async def demo(
    *arguments: str, doctored: str | None = None, **settings: str
) -> asyncio.subprocess.Process:
    """Starts the demonstration with these environment variables."""
    changed = DOCTORED.format(folder=str(DEMO.parent), change=doctored)
    program = (str(DEMO),) if doctored is None else ("-c", changed)
    names = ("MODEL", "ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN")
    inherited = {key: value for key, value in os.environ.items() if key not in names}
    return await asyncio.create_subprocess_exec(
        *(sys.executable, *program, *arguments),
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


@pytest.mark.parametrize(
    ("number", "deviation", "says"),
    [
        (0, "expect('refunds', 1, 2)", "FAILED refunds\n     expected: 1\n     actual:   2"),
        (1, "raise TimeoutError", "FAILED TimeoutError"),
        (3, "raise StoreUnavailable('The store', 'It is away')", "FAILED The store"),
    ],
    ids=["unexpected", "too late", "refused"],
)
async def test_any_deviation_fails_the_demo(number: int, deviation: str, says: str) -> None:
    """In whichever scene; the others are played, and the worker's log is shown."""
    process = await demo(doctored=PLAYED.format(deviation=deviation, number=number))

    output = (await process.communicate())[0].decode()

    assert process.returncode == 1, output
    assert output.splitlines()[-1] == "3/4 scenes passed", output
    assert says in output and "the worker said this" in output


async def test_a_bug_in_a_scene_fails_the_demo() -> None:
    process = await demo(doctored=PLAYED.format(deviation="{}['nothing']", number=0))

    output = (await process.communicate())[0].decode()

    assert process.returncode == 1
    assert "KeyError" in output and "scenes passed" not in output


@pytest.mark.timeout(DEMO_S_MAX)
async def test_a_wrong_answer_of_the_agent_fails_the_demo() -> None:
    """On its own servers: what the customer is told is not what the shop's ledger says."""
    wrong = "scenes.tracking_number = lambda order: 'RW-0'\nmain.SCENES = (scenes.a_question,)"
    process = await demo(doctored=wrong)

    output = (await process.communicate())[0].decode()

    assert process.returncode == 1, output
    assert output.splitlines()[-1] == "0/1 scenes passed", output
    assert "a text with 'RW-0'" in output
