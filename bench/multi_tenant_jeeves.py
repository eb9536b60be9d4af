"""JeevesAgent's side: its durable form, with the load in the same process, since it is a library.

`python multi_tenant_jeeves.py FOLDER MODEL_S`, users as JSON on stdin, the outcome as JSON on
stdout. Durable means what survives the process: its SQLite journal, SQLite memory and audit file,
all on; a budget per user. One agent serves everybody, as its documentation shows. Every run has a
session of its own: one that is used again returns the first run's answer.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jeevesagent import Agent, get_run_context
from jeevesagent.core.types import Message, ModelChunk, ToolCall, ToolDef, Usage
from jeevesagent.governance.budget import BudgetConfig, StandardBudget
from jeevesagent.memory.sqlite import SqliteMemory
from jeevesagent.runtime import SqliteRuntime
from jeevesagent.security.audit import FileAuditLog
from multi_tenant_load import User, load
from multi_tenant_model import SlowModel


class Model:
    """The slow model behind JeevesAgent's protocol; a run's context says whose it is."""

    name = "slow"

    def __init__(self, model: SlowModel) -> None:
        self._model = model

    async def complete(
        self,
        messages: list[Message],
        *,
        tools: list[ToolDef] | None = None,
        temperature: float = 1.0,
        max_tokens: int | None = None,
    ) -> tuple[str, list[ToolCall], Usage, str]:
        """Returns the answer."""
        user = get_run_context().user_id
        assert user is not None, "every run has a user"
        answer, asked = await self._model.ask(user, [one.content for one in messages])
        usage = Usage(input_tokens=asked.input, output_tokens=asked.output, cost_usd=0.0)
        return answer, [], usage, "stop"

    async def stream(self, *_: Any, **__: Any) -> AsyncIterator[ModelChunk]:
        """Raises: nobody here reads a stream."""
        raise NotImplementedError
        yield  # what the protocol wants is a generator


async def main(folder: Path, model_s: float) -> None:
    """Runs the warm-up and the load, and prints what came of them."""
    given = json.load(sys.stdin)
    budget = StandardBudget(BudgetConfig(per_user_max_tokens=10**12))
    agent = Agent(
        "",
        model=Model(SlowModel(folder, model_s)),
        memory=SqliteMemory(folder / "memory.db"),
        runtime=SqliteRuntime(folder / "journal.db"),
        audit_log=FileAuditLog(folder / "audit.jsonl", secret="bench"),
        budget=budget,
        auto_extract=False,  # it would ask the model twice per run
    )

    async def run(user: User, number: int) -> str:
        session = f"{user.name}/{number}"
        result = await agent.run(user.prompt(number), user_id=user.name, session_id=session)
        return str(result.output)

    warm, everybody = _users(given["warm"]), _users(given["users"])
    await load(warm, 1, run)
    before = time.process_time()
    outcome = await load(everybody, given["runs"], run)
    spent = time.process_time() - before
    settled = {one.name: int(budget.usage_for(one.name)["tokens_total"]) for one in everybody}
    print(json.dumps({"outcome": asdict(outcome), "settled": settled, "cpu_s": spent}))


def _users(given: Sequence[dict[str, str]]) -> list[User]:
    return [User(**one) for one in given]


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), float(sys.argv[2])))
