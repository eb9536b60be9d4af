"""The documentation: what is made from code is current, links lead somewhere, and code runs."""

from __future__ import annotations

import ast
import inspect
import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import pytest

from docs.make import bad_input, commands, pictures, reference
from runward import Agent, tool
from runward.testing import Stack, ask, say, scripted
from tests.doc_blocks import FENCE, ROOT, Block, blocks, pages

DOCS = ROOT / "docs"
BUILD_S_MAX = 60
MAKE = "it is not current: run `python -m docs.make`"
LINK = re.compile(r"(?<!`)!?\[[^\]]*\]\(([^)\s#]+)")
LOADED = re.compile(
    r"""<(?:script|img|iframe|link(?= rel="stylesheet"))[^>]*(?:src|href)="?(\S+)"""
)
SIZES = "docs/sizes.md"
MADE = ("docs/bad-input.md", "docs/cli.md", "docs/reference.md")  # whole pages, compared below
# Who executes a page's blocks, and compares what it prints. The file tells blocks of a page apart.
HERE = "tests/test_docs.py"
EXECUTED = {
    ("docs/tutorial.md", None): "tests/test_tutorial.py",
    ("docs/operating.md", None): "tests/test_tutorial.py",
    ("docs/output.md", None): "tests/test_output_docs.py",
    ("docs/providers.md", "acme_provider.py"): "tests/test_provider_docs.py",
    ("docs/providers.md", "test_acme_provider.py"): "tests/test_provider_docs.py",
    ("docs/providers.md", "acme_prices.py"): "tests/test_provider_docs.py",
    ("docs/testing.md", None): "tests/test_testing_plugin.py",
    ("docs/own-workflows.md", None): "tests/test_testing_plugin.py",
    ("docs/running.md", None): "tests/test_running_docs.py",
    ("docs/settings.md", None): "tests/test_settings_docs.py",
    ("README.md", None): "tests/test_readme.py",
    ("README.md", "test_answers.py"): "tests/test_testing_plugin.py",
    (SIZES, None): HERE,
}
# Blocks that say all that they need: they are executed below, each alone.
ALONE = [
    block
    for page in ("docs/permissions.md", "docs/providers.md", "docs/concepts/budget.md")
    for block in blocks(page)
    if block.language == "python" and block.file is None
]
CODE = [block for page in pages() if page not in MADE for block in blocks(page)]


def test_pages_that_are_made_are_current() -> None:
    """The help of every command, every docstring and every row of bad input, as they are now."""
    made = (bad_input.page(), commands.page(), reference.page())

    for page, text in zip(MADE, made, strict=True):
        assert (ROOT / page).read_text() == text, MAKE


def test_pictures_are_drawn_from_what_stands_beside_them() -> None:
    sources = sorted(DOCS.glob("concepts/*.txt"))

    assert {one.stem for one in sources} == {one.stem for one in DOCS.glob("concepts/*.md")}
    for source in sources:
        assert source.with_suffix(".svg").read_text() == pictures.picture(source), MAKE


@pytest.mark.parametrize("open_box", ["  ╭──╮\n  │  │\n", "  ╭──\n  │\n  ╰──\n"])
def test_an_open_box_is_told(open_box: str) -> None:
    with pytest.raises(ValueError, match="line 1, column 3"):
        pictures.draw(open_box, "open")


def test_every_page_is_in_the_navigation() -> None:
    named = re.findall(r"([\w./-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)

    assert sorted(named) == sorted(str(one.relative_to(DOCS)) for one in DOCS.rglob("*.md"))


@pytest.mark.parametrize("page", pages())
def test_links_lead_to_files(page: str) -> None:
    """Zensical looks at pages and anchors, and not at pictures nor the README."""
    folder = (ROOT / page).parent
    found = LINK.findall(re.sub(r"```.*?```", "", (ROOT / page).read_text(), flags=re.DOTALL))
    inside = [one for one in found if "://" not in one]

    assert [one for one in inside if not (folder / one).exists()] == []


def test_the_site_is_built_without_a_warning_and_loads_nothing_from_elsewhere(
    tmp_path: Path,
) -> None:
    shutil.copytree(DOCS, tmp_path / "docs", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    built = subprocess.run(
        [str(Path(sys.executable).with_name("zensical")), "build", "--strict"],
        cwd=tmp_path,
        env={**os.environ, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=BUILD_S_MAX,
    )

    assert built.returncode == 0, built.stdout + built.stderr
    made = list((tmp_path / "site").rglob("*.html"))
    assert len(made) > len(pages()) - 2
    loaded = {one for page in made for one in LOADED.findall(page.read_text())}
    assert loaded and not [one for one in loaded if "//" in one]
    styles = "".join(one.read_text() for one in (tmp_path / "site").rglob("*.css"))
    assert "@font-face" not in styles and "googleapis" not in styles


@pytest.mark.parametrize("page", pages())
def test_no_block_is_overlooked(page: str) -> None:
    """Each fence begins or ends a block that we know of, and no code is only indented."""
    lines = (ROOT / page).read_text().split("\n")
    fences = [line for line in lines if line.lstrip().startswith(("```", "~~~"))]
    prose = FENCE.sub("", (ROOT / page).read_text())

    assert len(fences) == 2 * len(blocks(page))
    assert re.findall(r"\n\n {4}.*", prose) == []


@pytest.mark.parametrize("block", CODE, ids=lambda one: f"{one.page}: {one.begins}")
def test_code_is_executed(block: Block) -> None:
    """By a test that names the page. What is no code, and is printed by nothing, is no block."""
    by = HERE if block in ALONE else EXECUTED.get((block.page, block.file))
    by = by or EXECUTED.get((block.page, None))

    assert by is not None, (
        f"{block.page}: no test executes the block that begins with {block.begins!r}. Execute it,"
        " or compare it with what is printed"
    )
    assert Path(block.page).name in (ROOT / by).read_text()


def test_no_test_is_named_for_code_that_is_gone() -> None:
    found = {(one.page, file) for one in CODE for file in (one.file, None)}

    assert set(EXECUTED) <= found


@pytest.mark.parametrize("block", ALONE, ids=lambda one: one.page)
def test_code_that_stands_alone_runs(block: Block) -> None:
    module = ModuleType("block")

    exec(compile(block.code, block.page, "exec"), module.__dict__)

    assert set(vars(module)) & {"policy", "support", "budget"}


async def test_files_and_long_results_are_as_shown(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """docs/sizes.md, with a run of ours for its names."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "receipt.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"p" * 1000)
    long = "x" * 1_200_000

    @tool
    async def report() -> str:
        """Returns a long report."""
        return long

    support = Agent("support", model="scripted:shop", tools=[report])
    model = scripted(support, ask("report"), say("A receipt."))
    sends, reads = blocks(SIZES)
    names: dict[str, Any] = {"ada": await stack.acting_as("ada"), "data": b"%PDF-1.7 " + b"d" * 500}
    async with stack.worker(stack.plugin(agents=[support], providers=[model])):
        await _shown(sends, names)
        await names["run"].result()
    story = await names["run"].story()
    names |= {"digest": next(one.full for one in story.steps if one.full), "file": io.BytesIO()}
    await _shown(reads, names)

    assert long.encode() in names["file"].getvalue()
    assert len(model.requests[0].files) == 2


async def _shown(block: Block, names: dict[str, Any]) -> None:
    """Executes code that awaits, as if it stood within a coroutine with these names."""
    code: CodeType = compile(
        block.code, block.page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True
    )
    done = eval(code, names)
    if inspect.isawaitable(done):
        await done
