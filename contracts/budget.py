"""Caps, the buckets they fill, and the arithmetic of a hold. The store does the locking.

For every bucket and at every instant `held + settled + overrun <= cap`, as long as each call's
charge is at most its hold. Integers only: tokens, calls and nano-USD.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_FLOOR, Decimal
from functools import lru_cache
from types import MappingProxyType
from typing import Literal

from runward.contracts.errors import ConfigurationError
from runward.contracts.usage import NANO_USD

Dimension = Literal["tokens", "input_tokens", "output_tokens", "cost", "calls"]
Scope = Literal["run", "user"]
Period = Literal["run", "day", "month"]

AMOUNT_MAX = 2**62  # leaves room for one addition below PostgreSQL's bigint

_FIELDS: dict[Dimension, str] = {
    "tokens": "max_tokens",
    "input_tokens": "max_input_tokens",
    "output_tokens": "max_output_tokens",
    "cost": "max_cost_usd",
    "calls": "max_calls",
}


@dataclass(frozen=True, slots=True)
class Cap:
    """Upper limits for one scope; None means no limit in that dimension."""

    tokens: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    usd: Decimal | float | int | None = None
    calls: int | None = None
    per: Period = "run"

    def __post_init__(self) -> None:
        for name, value in self.limits().items():
            if not 0 <= value <= AMOUNT_MAX:
                raise ConfigurationError(
                    f"Cap({name}={value!r})",
                    f"A cap is between 0 and {AMOUNT_MAX}",
                    "Choose an amount in between, or leave it out",
                )

    def limits(self) -> Mapping[Dimension, int]:
        """Returns the limit of each capped dimension; cost in nano-USD."""
        return _limits(self)


@lru_cache(maxsize=1024)  # every step asks
def _limits(cap: Cap) -> Mapping[Dimension, int]:
    every: dict[Dimension, int | None] = {
        "tokens": cap.tokens,
        "input_tokens": cap.input_tokens,
        "output_tokens": cap.output_tokens,
        "cost": None if cap.usd is None else _nano(cap.usd),
        "calls": cap.calls,
    }
    return MappingProxyType({name: value for name, value in every.items() if value is not None})


@dataclass(frozen=True, slots=True)
class Budget:
    """Caps for a run and for a user; `on_exceeded` says whether the run ends or waits."""

    run: Cap | None = None
    user: Cap | None = None
    on_exceeded: Literal["interrupt", "park"] = "interrupt"

    def __post_init__(self) -> None:
        if self.run is not None and self.run.per != "run":
            raise ConfigurationError(
                f"Budget(run=Cap(per={self.run.per!r}))",
                "A run's cap counts that run alone",
                "Put day and month caps on user",
            )
        if self.user is not None and self.user.per == "run":
            raise ConfigurationError(
                "Budget(user=Cap(per='run'))",
                "A user's cap needs a window",
                "Say per='day' or per='month'",
            )


@dataclass(frozen=True, slots=True)
class Bucket:
    """One capped counter: a row of the ledger. The store's clock says which window it is in."""

    scope: Scope
    scope_id: str
    dimension: Dimension
    period: Period
    cap: int

    @property
    def reason(self) -> str:
        """Returns the reason a user sees, such as `budget:per_user_max_tokens`."""
        return "budget:" + ("per_user_" if self.scope == "user" else "") + _FIELDS[self.dimension]


@dataclass(frozen=True, slots=True)
class Bound:
    """The most that one call can consume; `minimum_output` is the least that is still useful."""

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: int = 0

    def amount(self, dimension: Dimension) -> int:
        """Returns what the call may take from a bucket of that dimension."""
        match dimension:
            case "tokens":
                return self.input_tokens + self.output_tokens
            case "input_tokens":
                return self.input_tokens
            case "output_tokens":
                return self.output_tokens
            case "cost":
                return self.cost
            case "calls":
                return self.calls


NOTHING = Bound()  # of a call that no bucket counts


def buckets(budget: Budget | None, *, run_id: str, user: str) -> tuple[Bucket, ...]:
    """Returns every bucket that a step of this run must hold from."""
    if budget is None:
        return ()
    found: list[Bucket] = []
    scopes: tuple[tuple[Scope, str, Cap | None], ...] = (
        ("run", run_id, budget.run),
        ("user", user, budget.user),
    )
    for scope, scope_id, cap in scopes:
        if cap is None:
            continue
        found += [Bucket(scope, scope_id, dim, cap.per, n) for dim, n in cap.limits().items()]
    return tuple(found)


def _nano(usd: Decimal | float | int) -> int:
    return int((Decimal(str(usd)) * NANO_USD).to_integral_value(ROUND_FLOOR))
