"""The command line: what it costs, where it speaks, and how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from runward.cli import approvals, output
from runward.client.keys import KeyFile
from runward.contracts.approvals import ApprovalState

# Importing costs, and these cost most; `--help` and completion must not pay for them.
HEAVY = {"anthropic", "asyncpg", "openai", "pydantic", "temporalio"}
HELP_CPU_S_MAX = 0.4
COMMANDS = [
    "dev",
    "worker",
    "db migrate",
    "db status",
    "db print",
    "runs start",
    "runs execute",
    "runs result",
    "runs show",
    "approvals list",
    "approvals approve",
    "approvals reject",
]
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


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs in an empty folder, and without the settings of whoever runs the tests."""
    monkeypatch.chdir(tmp_path)
    for name in ("HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    for name in ("RUNWARD_DATABASE_URL", "RUNWARD_USER", "RUNWARD_TENANT", "TEMPORAL_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")


def runward(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "runward.cli.main", *words], capture_output=True, text=True
    )


def test_help_is_cheap() -> None:
    run = subprocess.run(
        [sys.executable, "-c", MEASURE, "--help"], capture_output=True, text=True, check=True
    )
    cpu_s, *modules = run.stdout.splitlines()[-1].split()

    assert HEAVY.isdisjoint(modules)
    assert float(cpu_s) < HELP_CPU_S_MAX


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    run = runward(*command.split(), "--help")

    assert (run.returncode, run.stderr) == (0, "")
    assert f"runward.cli.main {command}" in run.stdout.replace("python -m ", "")


def test_mistyped_command_is_answered_with_the_nearest() -> None:
    run = runward("run")

    assert (run.returncode, run.stdout) == (2, "")
    assert "Did you mean 'runs'?" in run.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("runs show x", "--as USER"),
        ("runs show x --as ada", "--tenant NAME"),
        ("worker", "--app module:name"),
        ("runs start", "agent"),
        ("runs show x -o yaml", "yaml"),
    ],
)
def test_wrong_usage_exits_with_2(words: str, says: str) -> None:
    run = runward(*words.split())

    assert (run.returncode, run.stdout) == (2, "")
    assert says in run.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("db status", "RUNWARD_DATABASE_URL"),
        ("worker --app shop:app", "RUNWARD_DATABASE_URL"),
        ("worker --app shop:app --database-url postgres://h/d", "TEMPORAL_ADDRESS"),
        ("runs show x --as ada --tenant acme", "dev.key"),
        ("runs show x --as ada --tenant acme --key-file issuer.key --address 127.0.0.1:1", ":1'"),
        ("runs show x --as ada --tenant acme --key-file issuer.key --profile none", "none"),
        ("db status --database-url postgres://127.0.0.1:1/d", "Connect"),
    ],
)
def test_error_is_one_message_without_a_traceback(words: str, says: str) -> None:
    KeyFile.create("issuer.key")

    run = runward(*words.split())

    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr.startswith("Error: ")
    assert says.lower() in run.stderr.lower()
    assert "Traceback" not in run.stderr


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
