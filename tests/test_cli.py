"""The command line: what it costs, where it speaks, and how it ends."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, get_args

import pytest
import typer
from typer.core import TyperGroup
from typer.main import get_command

from runward.cli import approvals, output
from runward.cli.main import app
from runward.contracts.approvals import ApprovalState

# Importing costs, and these cost most; `--help` and completion must not pay for them.
HEAVY = {"anthropic", "asyncpg", "openai", "pydantic", "temporalio"}
TYPERS_OWN = {"pydantic"}  # by which it reads options, here of what stands above the command
HELP_CPU_S_MAX = 0.4
HELPS_MAX = 10
COMMANDS = get_command(app)
assert isinstance(COMMANDS, TyperGroup)
NAMES = list(COMMANDS.commands)  # groups and commands; what a group's commands load, it loads
MEASURE = """
import resource, sys
from runward.cli.main import main
sys.argv = ["runward", *sys.argv[1:]]
try:
    main()
except SystemExit:
    pass
used = resource.getrusage(resource.RUSAGE_SELF)
print(used.ru_utime + used.ru_stime, *{name.partition(".")[0] for name in sys.modules})
"""


@pytest.mark.parametrize("words", ["", *NAMES, "runs watch", "approvals approve", "db migrate"])
def test_help_is_cheap(words: str) -> None:
    """At its cheapest of some: on a machine that is busy the same work takes twice the time."""
    for _ in range(HELPS_MAX):
        cpu_s, modules = helped(words)
        if cpu_s < HELP_CPU_S_MAX:
            break

    assert (HEAVY - TYPERS_OWN if words else HEAVY).isdisjoint(modules)
    assert cpu_s < HELP_CPU_S_MAX


def helped(words: str) -> tuple[float, list[str]]:
    """Returns what the help of a command costs, and the packages that it loads."""
    run = subprocess.run(
        [sys.executable, "-c", MEASURE, *words.split(), "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.startswith(f"Usage: runward {words}".rstrip() + " ")
    cpu_s, *modules = run.stdout.splitlines()[-1].split()
    return float(cpu_s), modules


def arguments(command: Any) -> Iterator[tuple[str, str]]:
    """Yields the arguments of a command and of all below it, as its help writes them."""
    for one in command.params:
        if one.param_type_name == "argument":
            yield command.name, one.metavar or one.name
    for below in getattr(command, "commands", {}).values():
        yield from arguments(below)


def test_arguments_are_written_in_capitals() -> None:
    names = list(arguments(COMMANDS))

    assert ("show", "RUN_ID") in names
    assert [one for one in names if not one[1].isupper()] == []


def test_unexpected_error_keeps_its_traceback() -> None:
    assert not output.expected(KeyError("ours"))
    assert output.expected(ConnectionRefusedError())


def test_json_goes_to_stdout_alone(capsys: pytest.CaptureFixture[str]) -> None:
    output.data({"id": "rw-1", "text": "grün\u202e\x1b[2J"}, "json")
    output.note("by the way")
    said = capsys.readouterr()

    assert json.loads(said.out)["id"] == "rw-1"
    assert not {"\u202e", "\x1b"} & set(said.out)
    assert json.loads(said.out)["text"] == "grün\u202e\x1b[2J"
    assert said.err == "by the way\n"


def test_rows_are_lines_with_tabs_where_a_program_reads_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    output.data([{"id": "1", "role": None}, {"id": "2", "role": "a\tb\x1b"}], "text")

    assert capsys.readouterr().out == "1\t-\n2\ta\\tb\\x1b\n"


def test_fields_are_lines(capsys: pytest.CaptureFixture[str]) -> None:
    output.data({"id": "1", "started_at": "now", "usage": []}, "text")

    assert capsys.readouterr().out == "id          1\nstarted at  now\nusage       -\n"


def test_states_are_those_of_the_contract() -> None:
    assert get_args(approvals.State) == get_args(ApprovalState)


class Typing(io.StringIO):
    """A terminal at which somebody types."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("typed", "code"),
    [("n\n", output.EXIT_FAILED), ("\n", output.EXIT_FAILED), ("", output.EXIT_CTRL_C)],
)
def test_who_does_not_say_yes_ends_the_command(
    monkeypatch: pytest.MonkeyPatch, typed: str, code: int
) -> None:
    monkeypatch.setattr(sys, "stdin", Typing(typed))

    with pytest.raises(typer.Exit) as ended:
        output.confirm("Terminate rw-1?", yes=False)
    assert ended.value.exit_code == code


def test_who_says_yes_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", Typing("y\n"))

    output.confirm("Terminate rw-1?", yes=False)
    assert sys.stdin.read() == ""
