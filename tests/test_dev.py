"""`runward dev`: everything at once, kept or not, and gone within seconds."""

from __future__ import annotations

import asyncio
import signal
import stat
import time
from pathlib import Path

import asyncpg
import pytest
from temporalio.client import Client

from runward.client.keys import KeyFile
from runward.client.runward_client import RunwardClient
from runward.contracts.errors import ConfigurationError, RunwardError
from runward.store.migrate import migrations
from runward.testing.stack import Stack
from runward.workers import dev
from runward.workers.child import ChildFailed
from runward.workers.dev import DevStack

from .app_folder import APP, Command, runward
from .child_processes import all_gone, family

STOP_S_MAX = 5.0
DEAF = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf now", flush=True)
time.sleep(1000)
"""


def shown(command: Command, name: str) -> str:
    return next(line for line in command.out if line.startswith(name)).split()[-1]


async def stopped(command: Command, number: signal.Signals) -> float:
    """Returns how long it took until it and all its processes were gone."""
    processes, began = family(command.process.pid), time.monotonic()
    command.process.send_signal(number)
    assert await command.ended() == 0, command.err
    assert await all_gone(processes)
    return time.monotonic() - began


async def test_runs_an_app_and_finds_everything_again(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(APP)
    key_file = tmp_path / ".runward" / "dev.key"
    async with runward(tmp_path, "dev", "--app", "shop:app") as command:
        await command.says(" polls ")
        door = await RunwardClient.connect(
            shown(command, "Temporal address"),
            issuer=KeyFile(key_file),
            database_url=shown(command, "Database"),
        )
        async with door:
            run = await door.acting_as("ada", tenant="acme").start("quick", "hello")
            output = (await run.result(timeout=30)).output
        seconds = await stopped(command, signal.SIGINT)

    assert output == "quick answer"
    assert shown(command, "Key file") == str(key_file)
    assert shown(command, "Temporal UI").startswith("http://127.0.0.1:")
    assert any("The password is shown" in line for line in command.out)
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    assert seconds <= STOP_S_MAX

    key = key_file.read_bytes()
    async with DevStack(tmp_path / ".runward") as stack:
        temporal = await Client.connect(stack.temporal_address)
        found = await temporal.get_workflow_handle(run.id).describe()
        state = await fetch(stack.database_url, "select state from runward.run")
    assert (found.id, state, stack.key_file.read_bytes()) == (run.id, "answered", key)


async def fetch(dsn: str, query: str) -> object:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


async def test_a_worker_that_does_not_listen_does_not_keep_it_from_stopping(
    tmp_path: Path,
) -> None:
    (tmp_path / "shop.py").write_text(DEAF)
    async with runward(tmp_path, "dev", "--ephemeral", "--app", "shop:app") as command:
        await command.says("deaf now")
        assert await stopped(command, signal.SIGTERM) <= STOP_S_MAX

    assert not (tmp_path / ".runward").exists()


async def test_an_app_that_does_not_start_ends_it(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text("1 / 0\n")
    async with runward(tmp_path, "dev", "--ephemeral", "--app", "shop:app") as command:
        await command.says("Temporal UI")
        code = await command.ended()

    assert code == 1
    assert any("ZeroDivisionError" in line for line in command.err)
    assert command.err[-1].startswith("Error: The worker ended with code 1")


async def test_a_database_that_is_away_is_named(stack: Stack) -> None:
    with pytest.raises(ConfigurationError, match="correct RUNWARD_DATABASE_URL"):
        async with DevStack(
            None,
            database_url="postgresql://127.0.0.1:1/d",
            temporal_address=stack.temporal_address,
        ):
            pass


@pytest.mark.parametrize(
    "away",
    [{"temporal_address": "127.0.0.1:1"}, {"database_url": "postgresql://127.0.0.1:1/d"}],
    ids=["Temporal", "database"],
)
async def test_a_server_that_is_away_leaves_no_folder(tmp_path: Path, away: dict[str, str]) -> None:
    folder = tmp_path / "state"
    with pytest.raises(RunwardError, match=r"127\.0\.0\.1.*Start it, or correct"):
        async with DevStack(folder, **away):  # type: ignore[arg-type]
            pass

    assert not folder.exists()


async def test_leaves_nothing_when_it_is_killed(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(APP)
    async with runward(tmp_path, "dev", "--app", "shop:app") as command:
        await command.says(" polls ")
        processes = family(command.process.pid)
        command.process.kill()
        await command.process.wait()

        assert len(processes) > 6
        assert await all_gone(processes)


async def test_uses_servers_that_are_there(empty_database_url: str) -> None:
    async with (
        DevStack(None, database_url=empty_database_url) as first,
        DevStack(
            None, database_url=empty_database_url, temporal_address=first.temporal_address
        ) as second,
    ):
        issuers = await fetch(empty_database_url, "select count(*) from runward.issuer")
        applied = await fetch(empty_database_url, "select count(*) from runward.schema_migrations")

        assert (first.database_url, second.database_url) == (empty_database_url,) * 2
        assert second.temporal_address == first.temporal_address
        assert (first.ui_url is None, second.ui_url is None) == (False, True)
        assert (issuers, applied) == (2, len(migrations()))
        keys = first.key_file, second.key_file
        said = dev._exports(first, "runward"), dev._exports(second, "nights")
        told = [[line.partition("=")[0] for line in lines] for lines in said]
        found = ["export TEMPORAL_ADDRESS", "export RUNWARD_KEY_FILE"]
        others = "export RUNWARD_TEMPORAL_UI_URL", "export RUNWARD_TASK_QUEUE"
        assert told == [[*found, one] for one in others]

    assert not any(one.exists() for one in keys)


async def test_a_server_that_does_not_start_stops_the_other(tmp_path: Path) -> None:
    broken = tmp_path / "temporal"
    broken.write_text("#!/bin/sh\necho broken; exit 3\n")
    broken.chmod(0o755)

    with pytest.raises(ChildFailed, match="broken"):
        async with DevStack(tmp_path / "state", temporal_binary=broken):
            pass

    # The lock on the state folder is free again: its PostgreSQL has stopped.
    async with asyncio.timeout(30), DevStack(tmp_path / "state") as stack:
        assert stack.ui_url is not None


@pytest.mark.parametrize(
    ("dsn", "said"),
    [
        ("postgresql://ada:secret@host:5/db", "postgresql://ada:***@host:5/db"),
        ("postgresql://host/db?password=secret&x=1", "postgresql://host/db?password=***&x=1"),
        ("postgresql://ada@host/db", "postgresql://ada@host/db"),
    ],
)
def test_passwords_of_other_databases_are_not_shown(dsn: str, said: str) -> None:
    assert dev._masked(dsn) == said
