"""What a person reads of a run in Temporal's UI, in a browser. `make ui` runs this."""

from __future__ import annotations

import re
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest
from playwright.async_api import Locator, Page, async_playwright, expect

from runward.client.run_handle import RunHandle
from runward.client.runs import ActingClient
from runward.contracts.approvals import Approval
from runward.testing import Stack
from runward.workers.temporal_binary import find_temporal
from runward.workers.temporal_dev_server import NAMESPACE, TemporalDevServer
from tests.anthropic_double import message, serving, text, tool_use
from tests.doc_blocks import blocks

SUMMARY, DETAILS, NOW = range(3)  # the Markdown frames of the tab "User Metadata"
FOUND_MS_MAX = 20_000
PROMPT = "Refund order 17, 5 dollars"
BASE64_JSON = re.compile(r"eyJ[\w+/=-]{6}|WyJ[\w+/=-]{6}")  # how `{"` and `["` begin in base64
PLAYED = (
    message(text("Let me look."), tool_use("c1", "lookup_order", order_id="17"), stop="tool_use"),
    message(tool_use("c2", "refund", order_id="17", amount="5.00"), stop="tool_use"),
    message(text("Refunded 5 dollars.")),
)


@dataclass
class Shown:
    """The README's agent at work on a server with a UI, and a browser in front of it."""

    stack: Stack
    page: Page
    workflows: str
    ada: ActingClient

    async def waits(self) -> tuple[RunHandle[str], Approval]:
        """Returns a run that waits for an approval, and the approval; its page is open."""
        run = await self.ada.start("support", PROMPT)
        request = await run.next_approval()
        await self.page.goto(f"{self.workflows}/{run.id}")
        return run, request

    async def turn_to(self, tab: str) -> None:
        """Turns to a tab of the run's page."""
        await self.page.get_by_role("tab", name=tab).click()

    async def sees(self, *words: str) -> None:
        """Waits until the page shows all of these."""
        for one in words:
            await expect(self.page.locator("body")).to_contain_text(one, use_inner_text=True)

    def frame(self, number: int) -> Locator:
        """Returns what one of the Markdown frames shows."""
        return self.page.locator("iframe").nth(number).content_frame.locator("body")


@pytest.fixture
async def shown(
    runward_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Shown]:
    """The README's agent, its model a double, with a worker, a UI and a browser."""
    module = ModuleType("shop")
    exec(_shop(), module.__dict__)
    app = module.app
    app.database_url = runward_database_url
    expect.set_options(timeout=FOUND_MS_MAX)
    async with AsyncExitStack() as opened:
        server = await opened.enter_async_context(
            TemporalDevServer(await find_temporal(None, progress=print), tmp_path)
        )
        double = await opened.enter_async_context(serving())
        monkeypatch.setenv("ANTHROPIC_API_KEY", "none")
        monkeypatch.setenv("ANTHROPIC_BASE_URL", double.url)
        double.plays(*PLAYED)
        stack = await Stack.create(
            runward_database_url, server.address, key_file=tmp_path / "issuer.key"
        )
        await opened.enter_async_context(stack.worker(app))
        browser = (await opened.enter_async_context(async_playwright())).chromium
        page = await (await browser.launch(executable_path=_chromium())).new_page(
            viewport={"width": 1280, "height": 900}
        )
        workflows = f"{server.ui_url}/namespaces/{NAMESPACE}/workflows"
        yield Shown(stack, page, workflows, await stack.acting_as("ada"))


def _shop() -> str:
    return next(one.code for one in blocks("README.md") if one.file == "shop.py")


def _chromium() -> str:
    found = shutil.which("chromium")
    assert found is not None, "no chromium on the PATH; `make ui` says how to install it"
    return found


async def test_a_run_that_waits_says_for_what(
    shown: Shown, pytestconfig: pytest.Config, tmp_path: Path
) -> None:
    """Who works, where it is, what it has spent and what it waits for, in words."""
    _, request = await shown.waits()
    await shown.sees(
        f'"p": "{PROMPT}"',
        "call_model • turn 1 · model",
        "tool.lookup_order • turn 1 · lookup_order",
        "tool.refund • turn 2 · refund",
        "approval expires: refund: money call requires approval",
    )

    await shown.turn_to("User Metadata")
    tags = shown.ada.tags.of(shown.ada.principal, "support")
    await expect(shown.frame(SUMMARY)).to_have_text("support")
    await expect(shown.frame(DETAILS)).to_contain_text(
        f"for user {tags['RunwardUser']} of tenant {tags['RunwardTenant']}"
    )
    for words in (
        "support calls refund",
        "turn 2 · 34 tokens · $0.000148",
        f"Waiting for approval until {request.expires_at:%Y-%m-%d %H:%M} UTC",
        "refund: money call requires approval",
        f"runward approvals show {request.id}",
    ):
        line = shown.frame(NOW).get_by_text(words, exact=True)
        await expect(line).to_be_in_viewport(ratio=1)  # the UI cuts frames
    picture = pytestconfig.getoption("--screenshot") or tmp_path / "waiting.png"
    await shown.page.screenshot(path=picture)

    await shown.turn_to("Search Attributes")
    await shown.sees('"RunwardState": "waiting"', *(f'"{a}": "{b}"' for a, b in tags.items()))
    await shown.turn_to("Memo")
    await shown.sees('"runward.request":')


async def test_lists_find_what_waits(shown: Shown) -> None:
    """By search attributes, which the development server has from its start."""
    run, request = await shown.waits()
    waiting = f"{shown.workflows}?query=RunwardState%3D%22waiting%22"
    link = shown.page.get_by_role("link", name=run.id)
    await shown.page.goto(waiting)
    await expect(link).to_be_visible()

    await _approve(shown, request)
    await run.result()
    await shown.page.goto(waiting)
    await shown.sees("0 Workflows")


async def test_a_run_that_ended_reads_like_a_story(shown: Shown) -> None:
    """Nothing of it waits any more, and calls show what went in and came out as JSON."""
    run, request = await shown.waits()
    await _approve(shown, request)
    await run.result()
    await shown.page.reload()
    await shown.sees(
        '"o": "Refunded 5 dollars."',
        "tool.refund • turn 2 · refund · again",
        "approval.decide • decide approval",
        "call_model • turn 3 · model",
    )
    await shown.page.get_by_text("tool.lookup_order • turn 1").first.click()
    await shown.sees('"a": "{\\"order_id\\":\\"17\\"}"', '"t": "order 17 was shipped"')
    assert BASE64_JSON.findall(await shown.page.locator("body").inner_text()) == []

    await shown.turn_to("User Metadata")
    await expect(shown.frame(NOW)).to_have_text(
        re.compile(r"\s*support answered\s+turn 3 · 51 tokens · \$0\.000222\s*")
    )


async def _approve(shown: Shown, request: Approval) -> None:
    bob = await shown.stack.acting_as("bob", ["finance"])
    await bob.approvals.approve(request.id)
