"""A machine's clock that is stepped during an outage: no wait of ours is measured by it."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta, tzinfo
from types import SimpleNamespace
from typing import Any, cast

import pytest

from runward.contracts.errors import StoreUnavailable
from runward.interceptors import step
from runward.interceptors.step import GovernedStep


class Backwards(datetime):
    """A clock that an hour is taken from at every look."""

    steps = 0

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Any:
        cls.steps += 1
        return datetime.now(tz) - timedelta(hours=cls.steps)


async def test_step_gives_an_attempt_up_in_time_though_the_clock_goes_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(step, "OPEN_AGAIN_S", 0.05)
    monkeypatch.setattr(step, "AGAIN_AFTER_S", 0.01)
    monkeypatch.setattr(step, "datetime", Backwards, raising=False)  # whoever imports it there

    async def away(draft: object) -> None:
        raise StoreUnavailable("the store", "It did not answer (08006)", "Try again")

    store = SimpleNamespace(steps=SimpleNamespace(open=away))
    governed = GovernedStep(cast(Any, None), cast(Any, SimpleNamespace(store=store)))

    async with asyncio.timeout(5):
        with pytest.raises(StoreUnavailable):
            await governed._open_again(cast(Any, None))
