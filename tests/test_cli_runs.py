"""The command line on a real stack: a run is started, approved and read by three commands."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from runward.testing.scripts import ask, say
from runward.testing.stack import Stack
from tests.support import App

CALLS = 12  # an SDK thread that aborts at exit does so in about one of four processes


class Shell:
    """Runs commands with a stack's settings; each returns (exit code, stdout, stderr)."""

    def __init__(self, stack: Stack, folder: Path) -> None:
        self._folder = folder
        self._environment = {
            **os.environ,
            "TEMPORAL_ADDRESS": stack.temporal_address,
            "RUNWARD_DATABASE_URL": stack.database_url,
            "RUNWARD_KEY_FILE": str(stack.key.path),
            "RUNWARD_TASK_QUEUE": stack.task_queue,
            "RUNWARD_TENANT": stack.tenant,
        }

    async def __call__(self, *words: str) -> tuple[int | None, str, str]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "runward.cli.main", *words),
            cwd=self._folder,
            env=self._environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        return process.returncode, out.decode(), err.decode()


@pytest.fixture
def runward(stack: Stack, tmp_path: Path) -> Shell:
    return Shell(stack, tmp_path)


async def test_a_run_is_started_approved_and_read(stack: Stack, runward: Shell) -> None:
    app = App([ask("refund", order_id="17", amount="5.00"), say("Refunded.")])
    ada, bob = ("--as", "ada"), ("--as", "bob", "--role", "finance")
    async with stack.worker(stack.plugin(**app.given)):
        code, run_id, said = await runward("runs", "start", "support", "Refund", *ada)
        assert (code, said) == (0, "")
        await (await stack.acting_as("ada")).get(run_id.strip()).next_approval()
        code, listed, _ = await runward("approvals", "list", *bob, "-o", "json")
        (asked,) = json.loads(listed)
        assert (code, asked["tool"], asked["workflow_id"]) == (0, "refund", run_id.strip())
        code, _, said = await runward("approvals", "approve", asked["id"], *ada)
        assert (code, said.startswith("Error: ")) == (1, True)
        code, _, _ = await runward("approvals", "approve", asked["id"], *bob)
        assert code == 0
        code, answer, _ = await runward("runs", "result", run_id.strip(), *ada)

    assert (code, answer) == (0, "Refunded.\n")


async def test_interrupted_run_has_an_exit_code_of_its_own(stack: Stack, runward: Shell) -> None:
    app = App([ask("lookup_order", order_id="17")] * 2, agent_options={"max_turns": 1})
    async with stack.worker(stack.plugin(**app.given)):
        code, out, said = await runward("runs", "execute", "support", "Where?", "--as", "ada")

    assert (code, out) == (3, "")
    assert "max_turns_exceeded" in said


async def test_timeout_has_an_exit_code_of_its_own(stack: Stack, runward: Shell) -> None:
    words = ("runs", "execute", "support", "Hello", "--as", "ada", "--timeout", "0.2")
    code, out, said = await runward(*words)

    assert (code, out) == (124, "")
    assert "--timeout" in said


async def test_commands_end_with_their_own_exit_code_each_time(runward: Shell) -> None:
    """Threads of the SDK must not abort a process that has said what it had to say."""
    calls = [runward("runs", "result", "rw-none", "--as", "ada") for _ in range(CALLS)]
    codes = [code for code, _, _ in await asyncio.gather(*calls)]

    assert codes == [1] * CALLS
