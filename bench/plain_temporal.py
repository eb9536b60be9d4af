"""Temporal's development server with no setting of ours: as `temporal server start-dev` has it."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from report import say
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import Client
from temporalio.service import RPCError

from runward.workers.child import Child, ChildOrder, free_port
from runward.workers.temporal_binary import find_temporal
from runward.workers.temporal_dev_server import NAMESPACE

START_S_MAX = 30.0
LOOK_EVERY_S = 0.1


@asynccontextmanager
async def plain_temporal(log: Path) -> AsyncIterator[str]:
    """Yields the address of a fresh server, which ends with the block."""
    binary, port = await find_temporal(None, progress=say), free_port()
    order = ChildOrder(
        argv=[str(binary), "server", "start-dev", "--headless", "--port", str(port)],
        log=log,
        env={key: value for key, value in os.environ.items() if not key.startswith("TEMPORAL_")},
    )
    child = await Child.start(order)
    try:
        await _answers(child, address := f"127.0.0.1:{port}")
        yield address
    finally:
        await child.stop()


async def _answers(child: Child, address: str) -> None:
    until = time.monotonic() + START_S_MAX
    while True:
        try:
            client = await Client.connect(address)
            await client.workflow_service.describe_namespace(
                DescribeNamespaceRequest(namespace=NAMESPACE)
            )
        except (RPCError, RuntimeError):
            if child.returncode is not None or time.monotonic() > until:
                raise child.failure("the Temporal server did not start") from None
            await asyncio.sleep(LOOK_EVERY_S)
        else:
            return
