"""docs/settings.md, block by block: search attributes, a codec and the signal, as typed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from uuid import uuid4

import pytest
from cryptography.fernet import Fernet
from temporalio.client import Client

from runward import Budget, Cap
from runward.client.labels import registered
from runward.testing import Stack, say
from tests.doc_blocks import blocks
from tests.doc_shell import Shell
from tests.support import App

ATTRIBUTES, CODEC, RAISED = blocks("docs/settings.md")
WORDS = (b"parcel", b"quick answer")


@pytest.mark.parametrize("code", [ATTRIBUTES.code, "runward doctor --fix"], ids=["shown", "fix"])
async def test_the_search_attributes_are_there_afterwards(
    code: str, stack: Stack, tmp_path: Path
) -> None:
    """In a namespace that had none, by each of the two ways that the page names."""
    namespace = f"bare-{uuid4().hex[:8]}"
    shell = await Shell.open(
        tmp_path,
        TEMPORAL_ADDRESS=stack.temporal_address,
        TEMPORAL_NAMESPACE=namespace,
        RUNWARD_DATABASE_URL=stack.database_url,
        RUNWARD_KEY_FILE=str(stack.key.path),
        RUNWARD_TENANT=stack.tenant,
        RUNWARD_USER="ada",
    )
    await shell.types(f"temporal operator namespace create --namespace {namespace}")
    client = await Client.connect(stack.temporal_address, namespace=namespace)
    assert await registered(client) is not True
    await shell.types(code)

    assert await registered(client) is True


async def test_the_codec_leaves_temporal_no_word(stack: Stack, folder: Path) -> None:
    """Under the names that the page gives it, for a worker and for the command line."""
    assert CODEC.file is not None
    (folder / CODEC.file).write_text(CODEC.code)
    shell = await Shell.open(
        folder,
        TEMPORAL_ADDRESS=stack.temporal_address,
        RUNWARD_DATABASE_URL=stack.database_url,
        RUNWARD_KEY_FILE=str(stack.key.path),
        RUNWARD_TASK_QUEUE=stack.task_queue,
        RUNWARD_TENANT=stack.tenant,
        RUNWARD_USER="ada",
        SHOP_KEY=Fernet.generate_key().decode(),
    )
    caller = shell.with_settings(RUNWARD_CODEC="shop_codec:codec")
    async with shell.starts("runward worker --app shop:app --codec shop_codec:codec") as worker:
        await worker.says(" polls ")
        run = (await caller.types("runward runs start quick 'Where is the parcel?'")).strip()
        answer = await caller.types(f"runward runs result {run}")
    temporal = await Client.connect(stack.temporal_address)
    history = await temporal.get_workflow_handle(run).fetch_history()
    raw = b"".join(one.SerializeToString() for one in history.events)

    assert answer.startswith("quick answer\n")
    assert b"binary/shop" in raw
    assert not [word for word in WORDS if word in raw]


async def test_a_parked_run_goes_on_after_the_signal(stack: Stack, tmp_path: Path) -> None:
    """Under workers with a larger cap."""
    app = App([say("Hello.")])
    ada = await stack.acting_as("ada")
    small, large = (
        Budget(user=Cap(tokens=most, per="day"), on_exceeded="park") for most in (10, 100_000)
    )
    async with stack.worker(stack.plugin(budget=small, **app.given)):
        run = await ada.start("support", "Hello?")
        while (await run.status()).state != "parked":  # noqa: ASYNC110  # the run decides when
            await asyncio.sleep(0.05)
    shell = await Shell.open(tmp_path, TEMPORAL_ADDRESS=stack.temporal_address)
    async with stack.worker(stack.plugin(budget=large, **app.given)):
        await shell.types(RAISED.code, RUN=run.id)
        result = await run.result()

    assert result.output == "Hello."
