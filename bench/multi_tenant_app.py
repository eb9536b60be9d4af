"""The governed side's app: `runward worker --app multi_tenant_app:app` in this folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from multi_tenant_model import SlowModel

from runward import Agent, Budget, Cap, RunwardPlugin
from runward.contracts.providers import ModelRequest, ModelResponse
from runward.contracts.transcript import AssistantMessage
from runward.contracts.usage import Usage

FOLDER, MODEL_S = "MULTI_TENANT_FOLDER", "MULTI_TENANT_MODEL_S"
AGENT = "support"


class SlowProvider:
    """The slow model as a provider; a call's key names its run."""

    name: Final = "scripted"  # the name that has a price without a vendor

    def __init__(self, model: SlowModel) -> None:
        self._model = model

    async def call(self, request: ModelRequest) -> ModelResponse:
        """Returns the answer."""
        texts = [request.instructions, *(one.text for one in request.messages)]
        answer, asked = await self._model.ask(request.idempotency_key, texts)
        return ModelResponse(
            AssistantMessage(text=answer), Usage(asked.input, output=asked.output), "end"
        )


def plugin(folder: Path, model_s: float) -> RunwardPlugin:
    """Returns the app. Its budgets are roomy, but there, on both levels that users have."""
    return RunwardPlugin(
        agents=[Agent(AGENT, model="scripted:slow")],
        providers=[SlowProvider(SlowModel(folder, model_s))],
        budget=Budget(run=Cap(tokens=10**9), user=Cap(tokens=10**12, per="day")),
    )


if FOLDER in os.environ:
    app = plugin(Path(os.environ[FOLDER]), float(os.environ[MODEL_S]))
