"""Temporal's development server: answers when entered, keeps what it should, leaves nothing."""

import os
import socket
from pathlib import Path

import pytest
from temporalio.api.operatorservice.v1 import ListSearchAttributesRequest
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import Client

from runward.cli import output
from runward.contracts.errors import ConfigurationError
from runward.contracts.names import SEARCH_ATTRIBUTES
from runward.workers import file_lock, temporal_dev_server
from runward.workers.child import ChildFailed, free_port
from runward.workers.temporal_binary import find_temporal
from runward.workers.temporal_dev_server import (
    NAMESPACE,
    START_TRIES,
    TemporalDevServer,
)

from .bad_input_played import played
from .child_processes import all_gone, family, removed, script

START_AND_WAIT = """
import asyncio, sys
from pathlib import Path
from runward.workers.temporal_dev_server import TemporalDevServer

async def main():
    state_dir = Path(sys.argv[2]) if sys.argv[2] else None
    async with TemporalDevServer(Path(sys.argv[1]), state_dir, ui=False) as server:
        print(server.pid, flush=True)
        await server.wait()

asyncio.run(main())
"""


async def binary() -> Path:
    return await find_temporal(None, progress=print)


async def test_answers_with_namespace_and_search_attributes() -> None:
    async with TemporalDevServer(await binary(), None, ui=False) as server:
        processes = family(server.pid)
        client = await Client.connect(server.address, namespace=NAMESPACE)
        service = client.workflow_service
        await service.describe_namespace(DescribeNamespaceRequest(namespace=NAMESPACE))
        listed = await client.operator_service.list_search_attributes(
            ListSearchAttributesRequest(namespace=NAMESPACE)
        )

        assert set(SEARCH_ATTRIBUTES) <= set(listed.custom_attributes)
        assert server.ui_url is None

    assert await all_gone(processes)


def histories(folder: Path) -> list[Path]:
    """Returns the files that hold histories."""
    return list(folder.glob("temporal.sqlite*"))


async def test_second_start_finds_the_executions(tmp_path: Path) -> None:
    async with TemporalDevServer(await binary(), tmp_path, ui=False) as server:
        client = await Client.connect(server.address, namespace=NAMESPACE)
        handle = await client.start_workflow("Anything", id="kept", task_queue="nobody-listens")
    async with TemporalDevServer(await binary(), tmp_path, ui=False) as server:
        client = await Client.connect(server.address, namespace=NAMESPACE)
        found = await client.get_workflow_handle("kept").describe()

        assert found.run_id == handle.result_run_id
    assert {one.stat().st_mode & 0o777 for one in histories(tmp_path)} == {0o600}


@pytest.mark.parametrize("durable", [False, True])
async def test_kill_9_of_the_parent_leaves_no_server(tmp_path: Path, durable: bool) -> None:
    state_dir = str(tmp_path) if durable else ""
    async with script(START_AND_WAIT, str(await binary()), state_dir) as (parent, line):
        processes = family(int(line))
        folder = Path(processes[0].cwd())
        parent.kill()

        assert await all_gone(processes)
        assert durable or await removed(folder)


async def test_second_server_on_the_same_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_lock, "SERVER_S_MAX", 0)
    async with TemporalDevServer(await binary(), tmp_path, ui=False):
        with pytest.raises(ConfigurationError, match=f"process {os.getpid()}"):
            async with TemporalDevServer(await binary(), tmp_path):
                pass


@pytest.mark.parametrize("taken_times", [1, START_TRIES])
async def test_a_port_that_is_taken_meanwhile_is_told_after_some_tries(
    monkeypatch: pytest.MonkeyPatch, taken_times: int
) -> None:
    row = played("taken port")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        found = [taken.getsockname()[1]] * 3 * taken_times
        monkeypatch.setattr(
            temporal_dev_server, "free_port", lambda: found.pop() if found else free_port()
        )
        started = TemporalDevServer(await binary(), None, ui=False)
        if taken_times < START_TRIES:
            async with started:
                assert not started.address.endswith(f":{taken.getsockname()[1]}")
        else:
            with pytest.raises(ChildFailed, match=row.says) as told:
                await started.__aenter__()
            assert output.expected(told.value)
            assert output.exit_code(told.value) == row.code


async def test_failed_start_shows_the_end_of_the_log(tmp_path: Path) -> None:
    program = tmp_path / "temporal"
    program.write_text("#!/bin/sh\necho the disk is on strike\nexit 1\n")
    program.chmod(0o755)

    with pytest.raises(ChildFailed, match="the disk is on strike"):
        async with TemporalDevServer(program, None):
            pass
