"""The command line: what it costs, where it speaks, and how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import get_args

import pytest

from runward.cli import approvals, output
from runward.contracts.approvals import ApprovalState

# Importing costs, and these cost most; `--help` and completion must not pay for them.
HEAVY = {"anthropic", "asyncpg", "openai", "pydantic", "temporalio"}
HELP_CPU_S_MAX = 0.4
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


def test_help_is_cheap() -> None:
    run = subprocess.run(
        [sys.executable, "-c", MEASURE, "--help"], capture_output=True, text=True, check=True
    )
    cpu_s, *modules = run.stdout.splitlines()[-1].split()

    assert HEAVY.isdisjoint(modules)
    assert float(cpu_s) < HELP_CPU_S_MAX


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
