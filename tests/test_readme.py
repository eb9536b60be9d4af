"""The README's commands and quickstart, as they stand there; only the model's API is a double."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.anthropic_double import message, serving, text, tool_use
from tests.doc_blocks import ROOT, blocks
from tests.doc_shell import Shell
from tests.test_demo import DEMO

MAKES, SHOP, SERVES, CASE, RUNS_CASE, _ = blocks("README.md")


async def test_two_commands_run_what_is_tested() -> None:
    """The first runs what tests/test_demo.py does. The second runs this, so it only says so."""
    # As if no `make test` had started this, whose words a make in it would inherit.
    shell = await Shell.open(ROOT, ARGS="", MAKEFLAGS="", MAKELEVEL="")
    # Who runs this has made the setup.
    planned = [
        (await shell.types(f"{line.split('#')[0]} --old-file=setup --dry-run")).split()[1:]
        for line in MAKES.code.splitlines()
    ]

    assert planned == [[str(DEMO.relative_to(ROOT))], ["-m", "pytest", "-n", "4", "-q"]]


async def test_the_quickstart_runs(tmp_path: Path) -> None:
    """An approval and an answer, in two terminals."""
    for block in (SHOP, CASE):
        assert block.file is not None
        (tmp_path / block.file).write_text(block.code)
    async with serving() as double:
        double.plays(
            message(tool_use("c1", "refund", order_id="17", amount="5.00"), stop="tool_use"),
            message(text("Refunded.")),
        )
        first = await Shell.open(tmp_path, ANTHROPIC_BASE_URL=double.url)
        async with first.starts(SERVES.code) as served:
            await served.says(" polls ")
            pasted = "\n".join(one for one in served.out if one.startswith("export "))
            second = await Shell.open(tmp_path)
            printed = await second.types(f"{pasted}\n{RUNS_CASE.code}")
            served.process.send_signal(signal.SIGINT)
            assert await served.ended() == 0

    assert printed == "Refunded.\n"
