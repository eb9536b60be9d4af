"""The proxy of the kills: a reply is held back only if what it is waited for has been committed."""

from __future__ import annotations

import asyncio

import pytest

from bench.kill_proxy import Function, Proxy
from runward.store.pool import Store
from tests.store_case import Case
from tests.test_store_contention import RUN, holding

STEP = "t1.tool.0"
REACHED_S_MAX = 10.0


@pytest.mark.parametrize("function", ["step_open", "step_close"])
async def test_reply_about_locked_rows_passes(
    case: Case, database_url: str, function: Function
) -> None:
    await case.started()
    draft = case.draft(STEP)
    if function == "step_close":
        await case.admit(draft)
    async with Proxy(database_url) as proxy, Store(proxy.dsn) as store:
        trap = proxy.hold(function, "reply", frozenset({STEP}))
        commits = store.steps.opens if function == "step_open" else store.steps.closes
        async with asyncio.timeout(REACHED_S_MAX):
            async with holding(database_url, RUN, case.tenant, case.run):
                asked = asyncio.ensure_future(
                    store.steps.open(draft)
                    if function == "step_open"
                    else store.steps.close(case.ending(draft))
                )
                while not commits.own_lanes:  # where a locked item waits
                    await asyncio.sleep(0)
                    assert not trap.reached.is_set()
            await trap.reached.wait()
        state = await case.owner.fetchval(
            "select state from runward.step where tenant = $1 and step = $2", case.tenant, STEP
        )
        assert state == ("open" if function == "step_open" else "done")
        proxy.release()
        await asyncio.gather(asked, return_exceptions=True)
