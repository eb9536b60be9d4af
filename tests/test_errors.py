"""The codes of errors are a contract: each has a page, each is used, none is missing."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from pathlib import Path

import pytest

import runward
from runward.cli import output
from runward.client.answering import NoWorkerAnswered
from runward.contracts.errors import (
    NotFound,
    OutputValidationError,
    RunwardError,
    TicketRefused,
)

ROOT = Path(__file__).parent.parent
PAGES = ROOT / "docs" / "errors"
ROOMS = ("activities", "cli", "client", "contracts", "interceptors", "store", "workers")


def every_error() -> dict[str, type[RunwardError]]:
    """Returns all errors of the package by their code."""
    for room in ROOMS:
        package = importlib.import_module(f"runward.{room}")
        for module in pkgutil.iter_modules(package.__path__, f"runward.{room}."):
            importlib.import_module(module.name)
    found: list[type[RunwardError]] = []
    waiting = list(RunwardError.__subclasses__())
    while waiting:
        found.append(one := waiting.pop())
        waiting += one.__subclasses__()
    ours = [one for one in found if one.__module__.startswith("runward.")]
    codes = {one.code: one for one in ours}
    assert len(codes) == len(ours), "two errors share a code"
    return codes


def test_every_code_has_a_page_and_every_page_a_code() -> None:
    pages = {path.stem for path in PAGES.glob("RW-*.md")}
    assert pages == set(every_error())
    index = (PAGES / "index.md").read_text()
    for code, error in every_error().items():
        assert f"[{code}]({code}.md) | `{error.__name__}` |" in index
        text = (PAGES / f"{code}.md").read_text()
        for part in ("**What it means.**", "**What holds now.**", "**What to do.**"):
            assert part in text


def test_every_error_is_made_somewhere() -> None:
    made = set()
    for room in ROOMS:
        for path in (ROOT / room).glob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                    made.add(node.func.id)
    assert {one.__name__ for one in every_error().values()} <= made


def test_every_error_says_what_to_do_instead() -> None:
    own = {OutputValidationError.__name__}  # it makes its own words
    names, found = {one.__name__ for one in every_error().values()} - own, []
    for path in (path for room in ROOMS for path in (ROOT / room).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                said = len(node.args) > 2 or any(isinstance(one, ast.Starred) for one in node.args)
                if node.func.id in names and not said:
                    found.append(f"{path.relative_to(ROOT)}:{node.lineno}")

    assert found == []


def test_every_error_is_a_name_of_the_face() -> None:
    for error in every_error().values():
        assert getattr(runward, error.__name__) is error


@pytest.mark.parametrize(
    ("error", "code"),
    [(TicketRefused("a"), 4), (NotFound("a"), 5), (NoWorkerAnswered("a"), 1), (OSError(), 1)],
)
def test_errors_end_commands_with_their_exit_code(error: Exception, code: int) -> None:
    assert output.exit_code(error) == code
    index = (PAGES / "index.md").read_text()
    if isinstance(error, RunwardError):
        assert f"| `{type(error).__name__}` | {code} |" in index


def test_a_question_ends_its_sentence() -> None:
    error = RunwardError("The agent 'suport'", "Did you mean 'support'?", "Correct it.")

    assert str(error) == "The agent 'suport'. Did you mean 'support'? Correct it"
    assert str(RunwardError("", "It holds", "")) == "It holds"


def test_an_error_is_told_with_its_code(capsys: pytest.CaptureFixture[str]) -> None:
    output.failure(NotFound("The run 'x'", "It is not there"))
    assert capsys.readouterr().err == "Error: The run 'x'. It is not there [RW-NOT-FOUND]\n"
