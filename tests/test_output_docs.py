"""The example in docs/output.md does what the page says."""

from __future__ import annotations

import re
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

from runward.testing import Stack
from runward.testing.scripts import Turn, say, scripted

PAGE = Path(__file__).parent.parent / "docs" / "output.md"
GOOD = '{"order_id": "17", "days_left": 2}'


def _example(folder: Path) -> ModuleType:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (folder / "shipping.py").write_text(code)
    spec = spec_from_file_location("shipping", folder / "shipping.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("turns", "found", "printed"),
    [
        ((say(GOOD),), 2, ""),
        ((say("In two days."), say(GOOD)), 2, ""),
        (
            (say("In two days."), say('{"order_id": "17", "days_left": -2}')),
            None,
            "days_left: Input should be greater than or equal to 0\n"
            '{"order_id": "17", "days_left": -2}\n',
        ),
    ],
    ids=["fits", "repaired", "fails"],
)
async def test_the_example_runs(
    stack: Stack,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    turns: tuple[Turn, ...],
    found: int | None,
    printed: str,
) -> None:
    shipping = _example(tmp_path)
    model = scripted(shipping.shipping, *turns)
    async with stack.worker(stack.plugin(agents=[shipping.shipping], providers=[model])):
        days = await shipping.days_left(await stack.acting_as("ada"), "17")

    assert (days, capsys.readouterr().out) == (found, printed)
