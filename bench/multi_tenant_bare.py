"""The bare side: one model call in a workflow written by hand, and its worker process.

`python multi_tenant_bare.py ADDRESS QUEUE`: a worker with the SDK's own settings, as who writes
`Worker(client, task_queue=...)` has them. No identity, no budget, no record.
"""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from multi_tenant_app import FOLDER, MODEL_S
from multi_tenant_model import SlowModel
from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.worker import Worker

from runward.workers.worker import leave, listen

WORKFLOW = "OneCall"


@workflow.defn(name=WORKFLOW, sandboxed=False)  # as the governed one
class OneCall:
    """Asks the model once."""

    @workflow.run
    async def run(self, prompt: str) -> str:
        """Returns the answer."""
        answer: str = await workflow.execute_activity(
            "call_model", prompt, result_type=str, start_to_close_timeout=timedelta(minutes=10)
        )
        return answer


@dataclass
class Body:
    """The activity."""

    model: SlowModel

    @activity.defn(name="call_model")
    async def call_model(self, prompt: str) -> str:
        """Returns the answer to a prompt."""
        key = activity.info().workflow_id
        assert key is not None, "called by a workflow"
        answer, _ = await self.model.ask(key, ["", prompt])
        return answer


async def main(address: str, queue: str) -> None:
    """Works until SIGTERM."""
    stop = asyncio.Event()
    listen(stop)
    body = Body(SlowModel(Path(os.environ[FOLDER]), float(os.environ[MODEL_S])))
    client = await Client.connect(address)
    async with Worker(client, task_queue=queue, workflows=[OneCall], activities=[body.call_model]):
        print(f"Worker {client.identity} polls {queue!r}", flush=True)
        await stop.wait()
    leave(0)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
