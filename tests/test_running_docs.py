"""docs/running.md, block by block: workers, upgrades, probes and the schema, as they are typed."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bench.outage_gate import Gate, through
from runward.testing import Stack
from runward.workers.sizing import machine
from runward.workers.temporal_binary import find_temporal
from runward.workers.temporal_dev_server import TemporalDevServer
from tests.app_folder import APP, Command
from tests.child_processes import comes_true
from tests.doc_blocks import blocks
from tests.doc_shell import Shell
from tests.releases import EARLY_DRAINAGE

PROCESSES, SAID, PROBES, BEGINS, CURRENT, DRAINED, SCHEMA, UPGRADE = (
    one.code for one in blocks("docs/running.md")
)
PROBE = re.compile(
    r"(?:readiness|liveness)Probe:\n  exec: {command: \[(.*)\]}\n"
    r"  periodSeconds: \d+\n  timeoutSeconds: (\d+)\n"
)
NOT_SEEN_YET = ("Deployment not found", "missing active task queues")


async def shell_of(stack: Stack, folder: Path, **settings: str) -> Shell:
    """Returns a shell whose commands find the stack's servers."""
    return await Shell.open(
        folder,
        TEMPORAL_ADDRESS=stack.temporal_address,
        RUNWARD_DATABASE_URL=stack.database_url,
        RUNWARD_TASK_QUEUE=stack.task_queue,
        **settings,
    )


async def stopped(worker: Command) -> int:
    worker.process.send_signal(signal.SIGTERM)
    return await worker.ended()


async def test_there_is_a_process_for_each_core(stack: Stack, folder: Path) -> None:
    def polling() -> int:
        return sum(" polls " in line for line in worker.out)

    shell = await shell_of(stack, folder)
    async with shell.starts(PROCESSES) as worker:
        assert await comes_true(lambda: polling() == machine().cores), worker.err
        assert await stopped(worker) == 0


async def test_a_worker_says_what_is_away_and_its_probes_know(stack: Stack, folder: Path) -> None:
    """What the page shows is what is printed, but for the cause and the seconds."""
    port = int(stack.database_url.rpartition(":")[2].partition("/")[0])
    async with Gate(port) as gate:
        url = through(stack.database_url, gate.port)
        shell = await shell_of(stack, folder, RUNWARD_HEALTH_FILE="health")
        shell = shell.with_settings(RUNWARD_DATABASE_URL=url)
        async with shell.starts("runward worker --app shop:app") as worker:
            await worker.says(" polls ")
            assert await probed(shell) == [0, 0]
            await gate.away()
            away = await worker.says("the store is away")
            assert await probed(shell) == [1, 0]
            await gate.back()
            back = await worker.says("the store is back")
            assert await stopped(worker) == 0

    assert in_general(f"{away}\n{back}\n") == in_general(SAID)


def in_general(text: str) -> str:
    """Returns it without what differs each time."""
    return re.sub(r"\(\w+\)|\d+ s$", "...", text, flags=re.MULTILINE)


async def probed(shell: Shell) -> list[int]:
    """Returns with which codes the page's probes end, each in its time: readiness, liveness."""
    assert PROBE.sub("", PROBES) == ""
    codes = []
    for words, most_s in PROBE.findall(PROBES):
        command = words.replace(",", "").replace("/tmp/health", "health")
        async with asyncio.timeout(int(most_s)):
            codes.append(int((await shell.types(f"{command} >&2 && echo 0 || echo $?"))[-2:]))
    return codes


@pytest.fixture
async def hurried(database_url: str, tmp_path: Path) -> AsyncIterator[Stack]:
    """A stack on a server that looks for drained builds each second."""
    binary = await find_temporal(None, progress=lambda _: None)
    async with (
        TemporalDevServer(binary, None, ui=False, dynamic_config=EARLY_DRAINAGE) as server,
        Stack.open(database_url, server.address, key_file=tmp_path / "key") as stack,
    ):
        yield stack


async def test_a_new_build_takes_over_as_shown(hurried: Stack, tmp_path: Path) -> None:
    """A run that is under way ends on the old build, which is then drained."""
    one, two = [await shell_of(hurried, _release(tmp_path / number)) for number in ("1", "2")]
    ada = await hurried.acting_as("ada")
    async with one.starts(BEGINS.replace("--build-id 2", "--build-id 1")) as old:
        await old.says("new runs go to workers without a version")
        await _makes_current(one, CURRENT.replace("--build-id 2", "--build-id 1"))
        run = await ada.start("held", "hello")
        assert await comes_true((one.folder / "inside").exists)
        async with two.starts(BEGINS) as new:
            said = await new.says("new runs go to build '1'. To send them here: ")
            assert said.endswith(CURRENT.strip())
            await _makes_current(two, CURRENT)
            fresh = await ada.execute("quick", "hello")
            assert "draining" in await two.types(DRAINED)
            (one.folder / "go").touch()
            ended = await run.result()
            await _says_drained(two)
            assert (await stopped(old), await stopped(new)) == (0, 0)

    assert (fresh.output, ended.output) == ("quick answer of 2", "held answer of 1")


def _release(folder: Path) -> Path:
    folder.mkdir()
    (folder / "shop.py").write_text(APP.replace(" answer", f" answer of {folder.name}"))
    return folder


async def _makes_current(shell: Shell, code: str) -> None:
    """A busy server sees the pollers of a build late, or forgets for a moment that it has."""
    async with asyncio.timeout(60):
        while True:
            try:
                await shell.types(code, answers="y\n")
                return
            except AssertionError as error:
                if not any(one in str(error) for one in NOT_SEEN_YET):
                    raise


async def _says_drained(shell: Shell) -> None:
    async with asyncio.timeout(60):
        while "drained" not in await shell.types(DRAINED):
            pass  # each look takes a moment


async def test_the_schema_is_made_and_upgraded_by_hand(
    empty_database_url: str, old_database_url: str, tmp_path: Path
) -> None:
    """From nothing, and from the version that the page names."""
    shell = await Shell.open(tmp_path, RUNWARD_DATABASE_URL=empty_database_url)
    old = shell.with_settings(RUNWARD_DATABASE_URL=old_database_url)
    await shell.types(SCHEMA)
    await old.types(UPGRADE)

    for one in (shell, old):
        assert (await one.types("runward db status")).endswith("pending  -\n")
