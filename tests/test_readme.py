"""The README's quickstart, executed as it stands there; only the model's API is a double."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import pytest

from runward.client.keys import KeyFile
from runward.contracts.identity import Issuer
from runward.store.pool import Store
from runward.testing.stack import Stack
from tests.anthropic_double import message, serving, text, tool_use

README = Path(__file__).parent.parent / "README.md"


def _block(number: int) -> ModuleType:
    """Returns the README's python block of that number, executed as a module."""
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    module = ModuleType(f"readme_{number}")
    exec(compile(blocks[number], f"README.md block {number}", "exec"), module.__dict__)
    return module


async def test_the_quickstart_runs(
    stack: Stack,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """An approval and an answer, off the README's own words."""
    (tmp_path / ".runward").mkdir()
    key = KeyFile.create(tmp_path / ".runward" / "dev.key")
    async with Store(stack.database_url) as store:
        every = ("*",)
        await store.issuers.add(Issuer(str(key.key.kid), key.public_key, ("acme",), every, every))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TEMPORAL_ADDRESS", stack.temporal_address)
    monkeypatch.setenv("RUNWARD_DATABASE_URL", stack.database_url)
    monkeypatch.setenv("RUNWARD_TASK_QUEUE", stack.task_queue)
    monkeypatch.setenv("ANTHROPIC_API_KEY", "none")
    async with serving() as double:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", double.url)
        double.plays(
            message(tool_use("c1", "refund", order_id="17", amount="5.00"), stop="tool_use"),
            message(text("Refunded.")),
        )
        app = _block(0).app
        app.database_url = stack.database_url
        async with stack.worker(app):
            await _block(1).main()

    assert capsys.readouterr().out == "Refunded.\n"
