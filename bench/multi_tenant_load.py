"""The load of every side: all users at once, each of whom asks again when the last run answered."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from statistics import quantiles

from multi_tenant_model import answer_to
from report import say

TENANTS = 10
RUN_S_MAX = 120.0
NAMED_MAX = 5


@dataclass(frozen=True, slots=True)
class User:
    """Somebody with a token that nobody else's prompts may hold."""

    name: str
    tenant: str
    secret: str

    def prompt(self, number: int) -> str:
        """Returns what this user asks; no two are alike."""
        return f"Order {number} of {self.name} ({self.secret}): say where its parcels are."


def users(number: int, prefix: str) -> list[User]:
    """Returns so many users, spread over the tenants."""
    return [
        User(f"{prefix}-{one:04}", f"tenant-{one % TENANTS}", f"tok-{secrets.token_hex(12)}")
        for one in range(number)
    ]


@dataclass(slots=True)
class Outcome:
    """What the users saw. Only answered runs count; how long each took, from its start on."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    errors: int = 0

    @property
    def runs_per_s(self) -> float:
        """Returns the throughput."""
        return len(self.latencies) / self.seconds

    def percentile(self, number: int) -> float:
        """Returns the latency in seconds that so many percent of the runs stayed within."""
        return quantiles(self.latencies, n=100, method="inclusive")[number - 1]


Run = Callable[[User, int], Awaitable[str]]  # whose, the how manieth; returns the answer


async def load(everybody: Sequence[User], runs: int, run: Run) -> Outcome:
    """Returns once every user has had so many runs, one after another."""
    outcome = Outcome()

    async def one(user: User) -> None:
        for number in range(runs):
            began = time.monotonic()
            try:
                async with asyncio.timeout(RUN_S_MAX):
                    output = await run(user, number)
                if output != answer_to(user.secret):
                    raise RuntimeError(f"a wrong answer of {len(output)} characters")
            except Exception as error:  # noqa: BLE001  whatever it is, this run has failed
                outcome.errors += 1
                if outcome.errors <= NAMED_MAX:
                    say(f"{user.name}, run {number}: {type(error).__name__}: {error}")
            else:
                outcome.latencies.append(time.monotonic() - began)

    began = time.monotonic()
    await asyncio.gather(*map(one, everybody))
    outcome.seconds = time.monotonic() - began
    return outcome
