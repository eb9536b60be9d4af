"""The worker process: finds its app, polls, drains when told to stop, and says what is wrong."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runward.client.codec import load_codec
from runward.client.runward_client import RunwardClient
from runward.contracts.errors import ConfigurationError
from runward.workers.app import load_app
from runward.workers.dev import DevStack
from runward.workers.worker import connect, identity, serve

from . import anthropic_double
from .app_folder import Command, runward
from .child_processes import comes_true

QUEUE = f"shop-{os.getpid()}"  # processes of pytest-xdist share a server


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The app's folder as the current one; its module is forgotten afterwards."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    sys.modules.pop("shop", None)
    yield folder
    sys.modules.pop("shop", None)


def words(dev: DevStack, app: str = "shop:app") -> list[str]:
    given = ["worker", "--app", app, "--address", dev.temporal_address, "--task-queue", QUEUE]
    return [*given, "--database-url", dev.database_url]


async def client(dev: DevStack) -> RunwardClient:
    return await RunwardClient.connect(
        dev.temporal_address,
        issuer=dev.issuer,
        database_url=dev.database_url,
        task_queue=QUEUE,
    )


async def stopped(worker: Command) -> int:
    worker.process.send_signal(signal.SIGTERM)
    return await worker.ended()


async def test_polls_and_ends_with_0_when_told_to_stop(dev: DevStack, folder: Path) -> None:
    async with runward(folder, *words(dev)) as worker, await client(dev) as door:
        line = await worker.says(" polls ")
        result = await door.acting_as("ada", tenant="acme").execute("quick", "hello")
        code = await stopped(worker)

    assert result.output == "quick answer"
    assert (code, worker.out) == (0, [line])
    assert f"{worker.process.pid}@" in line and repr(QUEUE) in line


async def test_finishes_what_it_began_before_it_ends(dev: DevStack, folder: Path) -> None:
    async with runward(folder, *words(dev)) as worker, await client(dev) as door:
        await worker.says(" polls ")
        run = await door.acting_as("ada", tenant="acme").start("held", "hello")
        assert await comes_true((folder / "inside").exists)
        worker.process.send_signal(signal.SIGTERM)
        (folder / "go").touch()
        assert await worker.ended() == 0
        async with runward(folder, *words(dev)) as another:
            await another.says(" polls ")
            result = await run.result(timeout=30)
            assert await stopped(another) == 0

    assert result.output == "held answer"
    assert len((folder / "bills").read_text().splitlines()) == 1  # the first worker finished it


async def test_says_what_is_wrong_with_the_store(
    dev: DevStack, folder: Path, empty_database_url: str
) -> None:
    given = [one if one != dev.database_url else empty_database_url for one in words(dev)]
    async with runward(folder, *given) as worker:
        code = await worker.ended()

    assert code == 1
    assert worker.err[-1].startswith("Error: the store's schema"), worker.err


async def test_serves_inside_another_process_until_its_event(dev: DevStack, here: Path) -> None:
    plugin = load_app("shop:app")
    plugin.database_url = dev.database_url
    temporal = await connect(plugin, dev.temporal_address)
    stop, polls = asyncio.Event(), asyncio.Event()
    serving = asyncio.create_task(
        serve(temporal, plugin, task_queue=QUEUE, stop=stop, on_polling=polls.set)
    )
    async with asyncio.timeout(30), await client(dev) as door:
        await polls.wait()
        result = await door.acting_as("ada", tenant="acme").execute("quick", "hello")
        stop.set()
        await serving

    assert result.output == "quick answer"
    assert len(identity()) < 24


CALLING = """
from runward import Agent, RunwardPlugin

app = RunwardPlugin(agents=[Agent("support", model="anthropic:claude-sonnet-4-5")])
"""


async def test_does_not_log_where_it_calls_models(dev: DevStack, folder: Path) -> None:
    (folder / "calling.py").write_text(CALLING)
    async with anthropic_double.serving() as double:
        double.plays(anthropic_double.message(anthropic_double.text("An answer.")))
        keys = {"ANTHROPIC_API_KEY": "a key", "ANTHROPIC_BASE_URL": double.url}
        given = words(dev, "calling:app")
        called = runward(folder, *given, NO_PROXY="127.0.0.1", **keys)
        async with called as worker, await client(dev) as door:
            await worker.says(" polls ")
            result = await door.acting_as("ada", tenant="acme").execute("support", "hello")
            code = await stopped(worker)

    assert (result.output, code) == ("An answer.", 0)
    logged = [line for line in worker.err if "httpx" in line or double.url in line]
    assert (len(double.seen), logged) == (1, []), worker.err


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("shop", "Name it as module:name"),
        ("shop:", "Name it as module:name"),
        ("sh op:app", "Name it as module:name"),
        ("nothere:app", "There is no module 'nothere'"),
        ("shop:nothere", "It has no 'nothere'. It has shop:app"),
        ("shop:other", "'other' is of type str, not RunwardPlugin"),
    ],
)
async def test_refuses_what_is_no_app(here: Path, name: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_app(name)

    assert said in str(caught.value)


CODING = """
from temporalio.api.common.v1 import Payload
from temporalio.converter import PayloadCodec

def hexed(one):
    return one.SerializeToString().hex()

class Hexed(PayloadCodec):
    async def encode(self, payloads):
        return [Payload(metadata={"encoding": b"hexed"}, data=bytes(hexed(one), "ascii"))
                for one in payloads]

    async def decode(self, payloads):
        return [Payload.FromString(bytes.fromhex(one.data.decode()))
                if one.metadata["encoding"] == b"hexed" else one for one in payloads]

codec = Hexed()
other = "no codec"
"""


@pytest.mark.parametrize("processes", ["1", "2"])
async def test_a_codec_is_named_by_worker_and_client(
    dev: DevStack, here: Path, monkeypatch: pytest.MonkeyPatch, processes: str
) -> None:
    (here / "coding.py").write_text(CODING)
    monkeypatch.setenv("RUNWARD_CODEC", "coding:codec")  # the command line has it as an option
    given = [*words(dev), "--codec", "coding:codec", "--processes", processes]
    async with runward(here, *given) as worker, await client(dev) as door:
        await worker.says(" polls ")
        ada = door.acting_as("ada", tenant="acme")
        run = await ada.start("quick", "hello")
        result = await run.result(timeout=60)
        history = await ada.temporal.get_workflow_handle(run.id).fetch_history()
        code = await stopped(worker)

    assert (result.output, code) == ("quick answer", 0)
    raw = b"".join(event.SerializeToString() for event in history.events)
    assert b"hexed" in raw and b"quick answer" not in raw and b"hello" not in raw


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("coding", "Name it as module:name, such as shop:codec"),
        ("nothere:codec", "There is no module 'nothere'"),
        ("coding:nothere", "It has no 'nothere'. It has coding:codec"),
        ("coding:Hexed", "'Hexed' is of type ABCMeta, not PayloadCodec. It has coding:codec"),
        ("shop:app", "not PayloadCodec. Make one: codec = YourCodec() in shop"),
    ],
)
async def test_refuses_what_is_no_codec(here: Path, name: str, said: str) -> None:
    (here / "coding.py").write_text(CODING)
    with pytest.raises(ConfigurationError) as caught:
        load_codec(name)

    assert said in str(caught.value) and str(caught.value).startswith(f"The codec {name!r}. ")


async def test_says_what_is_wrong_with_its_codec(dev: DevStack, folder: Path) -> None:
    async with runward(folder, *words(dev), "--codec", "shop:other") as worker:
        code = await worker.ended()

    assert code == 1
    said = "Error: The codec 'shop:other'. 'other' is of type str, not PayloadCodec."
    assert worker.err[-1].startswith(said), worker.err


async def test_errors_inside_the_module_keep_their_traceback(here: Path) -> None:
    (here / "shop.py").write_text("import a_package_that_is_missing\n")

    with pytest.raises(ConfigurationError, match="raised ModuleNotFoundError") as caught:
        load_app("shop:app")

    assert isinstance(caught.value.__cause__, ModuleNotFoundError)
    assert "shop.py" in caught.value.traceback and "runward" not in caught.value.traceback
