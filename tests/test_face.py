"""The face: its names are pinned, and importing it loads nothing that costs."""

import subprocess
import sys

import pytest

import runward

EXPORTED = [
    "Agent",
    "AgentError",
    "ApprovalRefused",
    "Budget",
    "Cap",
    "ConfigurationError",
    "File",
    "KeyFile",
    "NoWorkerAnswered",
    "NotFound",
    "OutputValidationError",
    "PerUserPermissions",
    "RequestRefused",
    "RunResult",
    "RunwardClient",
    "RunwardError",
    "RunwardPlugin",
    "StandardPermissions",
    "StoreUnavailable",
    "TemporalUnavailable",
    "TicketRefused",
    "ToolContext",
    "tool",
]
HEAVY = ("anthropic", "asyncpg", "openai", "pydantic", "rich", "temporalio")


def test_names_are_pinned() -> None:
    assert sorted(runward.__all__) == EXPORTED
    assert set(EXPORTED) <= set(dir(runward))


@pytest.mark.parametrize("name", EXPORTED)
def test_name_is_what_its_home_calls_it(name: str) -> None:
    assert getattr(runward, name).__name__ == name


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="Nonsense"):
        _ = runward.Nonsense  # type: ignore[attr-defined]  # checkers know it too


@pytest.mark.parametrize(
    ("statement", "spared"),
    [
        ("import runward", HEAVY),
        ("from runward import Agent, Budget, tool", ("anthropic", "asyncpg", "openai", "rich")),
        ("from runward import RunwardClient", ("anthropic", "asyncpg", "openai", "rich")),
    ],
)
def test_import_loads_nothing_that_costs(statement: str, spared: tuple[str, ...]) -> None:
    assert loaded(statement).isdisjoint(spared)


def loaded(statement: str) -> set[str]:
    """Returns the top-level packages that a fresh interpreter has after the statement."""
    code = f"{statement}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(run.stdout.split())
