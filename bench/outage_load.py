"""Users of a service during an outage: they start runs steadily, and do what an error tells them.

A start is asked for again under its key, and so is a result, as the client's errors say.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from outage_app import AGENT, ANSWER
from report import say

from runward.client.run_handle import RunHandle
from runward.client.runs import ActingClient
from runward.contracts.errors import AgentError, RunwardError

T = TypeVar("T")

START_EVERY_S = 0.2
AGAIN_S = 0.3
END_S_MAX = 75.0  # after the start; then a run is lost


@dataclass
class Users:
    """What users saw: when their runs ended, which were lost, and what they were told."""

    acting: ActingClient
    runs: dict[str, str] = field(default_factory=dict)  # first run id, by order
    asked: dict[str, float] = field(default_factory=dict)
    ended: dict[str, float] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)
    advice: set[str] = field(default_factory=set)
    without_advice: list[str] = field(default_factory=list)
    start_s_max: float = 0.0  # how long a start let its caller wait for an error

    async def all(self, name: str, count: int) -> None:
        """Returns once so many runs, started one after the other, have ended or are lost."""
        async with asyncio.TaskGroup() as group:
            for number in range(count):
                group.create_task(self._one(f"{name}/{number}"))
                await asyncio.sleep(START_EVERY_S)

    async def _one(self, order: str) -> None:
        self.asked[order] = time.monotonic()
        try:
            async with asyncio.timeout(END_S_MAX):
                run = await self._told(lambda: self._start(order))
                result = await self._told(run.result)
        except (TimeoutError, AgentError) as error:
            self._lose(order, f"{type(error).__name__}: {error}")
            return
        self.ended[order] = time.monotonic()
        self.runs[order] = result.run_id
        if result.output != ANSWER:
            self._lose(order, f"it said {result.output!r}")

    async def _start(self, order: str) -> RunHandle[str]:
        asked = time.monotonic()
        try:
            return await self.acting.start(AGENT, order, key=order)
        except RunwardError:
            self.start_s_max = max(self.start_s_max, time.monotonic() - asked)
            raise

    async def _told(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Returns the answer; asks again as long as errors are about an outage."""
        while True:
            try:
                return await ask()
            except (AgentError, TimeoutError, asyncio.CancelledError):
                raise
            except RunwardError as error:
                self.advice.add(str(error))
                if not (error.asked and error.holds and error.instead):
                    self._not_told(error)
            except Exception as error:  # noqa: BLE001  whatever else a user sees is no advice
                self._not_told(error)
            await asyncio.sleep(AGAIN_S)

    def _not_told(self, error: Exception) -> None:
        text = f"{type(error).__module__}.{type(error).__name__}: {error}"
        if text not in self.without_advice:
            say(f"no advice: {text}")
        self.without_advice.append(text)

    def _lose(self, order: str, why: str) -> None:
        say(f"run {order} is lost: {why}")
        self.lost.append(order)
