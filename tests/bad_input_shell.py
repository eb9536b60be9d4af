"""Where bad input is typed: a folder of bad apps and files, and a shell in it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from runward.cli import output
from runward.cli.main import app
from runward.client.keys import KeyFile
from runward.contracts.errors import said
from runward.contracts.files import FILE_BYTES_MAX, IMAGE_BYTES_MAX
from tests.bad_input_rows import ADA, Row

RUNWARD = [sys.executable, "-m", "runward.cli.main"]

FILES = {
    "bad_shop.py": "from runward import Agent, RunwardPlugin\n"
    'agents = [Agent("support", model="scripted:grün", instructions="Grüße 🙂\u00a0")]\n'
    "app = RunwardPlugin(agents=agents)\n",
    "bad_raises.py": 'def price():\n    return {}["price"]\n\n\nprice()\n',
    "bad_syntax.py": "def x(:\n",
    "bad_exit.py": 'raise SystemExit("no config")\n',
    "bad_agent.py": 'from runward import Agent\n\nAgent("No Name", model="scripted:x")\n',
    "bad_policy.py": "from runward import Agent, RunwardPlugin, StandardPermissions, tool\n"
    "@tool\nasync def refund() -> None: ...\n"
    'agents = [Agent("support", model="scripted:x", tools=[refund])]\n'
    'policy = StandardPermissions(denied_tools=["refnd"])\n'
    "app = RunwardPlugin(agents=agents, policy=policy)\n",
    "shop.py": "from runward import Agent, RunwardPlugin\n"
    'app = RunwardPlugin(agents=[Agent("support", model="openai:gpt-5")])\n',
    "app.py": "",
    "notes.txt": "",
    "fake.png": "<html>",
    "small": "GIF89a",  # what it is, its bytes say
    "broken.key": "{}",
    "bad_codec.py": "from temporalio.converter import PayloadCodec\n"
    "class Codec(PayloadCodec):\n"
    "    async def encode(self, payloads):\n        return {}['key']\n"
    "    async def decode(self, payloads):\n        return payloads\n"
    "codec = Codec()\n",
    "wrong.toml": 'databse_url = "topsecret"\n',
    "nul.toml": 'key_file = "a\\u0000b"\n',
    "profiles.toml": "[profile.default]\n[profile.dev]\n",
    "cut.toml": "[profile.default]\napi_key = topsecret\n",
}
LARGE = [
    ("large.png", b"\x89PNG\r\n\x1a\n", IMAGE_BYTES_MAX + 1),
    ("huge.pdf", b"%PDF-", FILE_BYTES_MAX + 1),
]


def spoiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Yields a folder of bad apps and files, without the settings of whoever runs the tests."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    for name, begins, size in LARGE:
        (tmp_path / name).write_bytes(begins)
        os.truncate(tmp_path / name, size)
    KeyFile.create(tmp_path / "good.key")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in [one for one in os.environ if one.startswith(("RUNWARD_", "TEMPORAL_", "PYTHON"))]:
        if name != "RUNWARD_TEMPORAL_BINARY":
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    # Processes with a full disk would leave half a file in everybody's __pycache__.
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # nor do we, where files are compared
    monkeypatch.setenv("NO_COLOR", "1")
    yield tmp_path
    for name in [one for one in sys.modules if one.startswith("bad_")]:
        del sys.modules[name]


def typed(command: str, **values: str) -> tuple[int, str, str]:
    """Runs a command in this process; returns exit code, stdout and what was said of it."""
    words, env = parted(command, **values)
    done = CliRunner().invoke(app, words, env=env)
    error = done.exception
    if error is None or isinstance(error, SystemExit):
        return done.exit_code, done.stdout, done.stderr
    assert output.expected(error), error
    return output.exit_code(error), done.stdout, said(error)


def parted(command: str, **values: str) -> tuple[list[str], dict[str, str]]:
    """Returns the words of a command, and the variables that are set before them."""
    words = [one.format_map(values) for one in command.replace("{ada}", ADA).split()]
    env = {}
    while "=" in words[0]:
        name, _, env[name] = words.pop(0).partition("=")
    return words, env


def messages(told: str) -> int:
    """Returns how many errors were told; lines of a user's traceback are none."""
    return sum(one.startswith("Error: ") for one in told.splitlines())


def told_as(row: Row, done: subprocess.CompletedProcess[bytes]) -> bool:
    """Returns whether a process ended as the row says, in one message and with nothing printed."""
    told = done.stderr.decode()
    assert (done.returncode, done.stdout) == (row.code, b""), told
    assert row.says in told, told
    return messages(told) == 1


def process(*words: str | bytes, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Runs a command as people do."""
    given: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.run([*RUNWARD, *words], **given)


def played_out(row: Row, **values: str) -> subprocess.CompletedProcess[bytes]:
    """Runs a row's command as people do, with the variables before it."""
    words, env = parted(row.typed, **values)
    return process(*words, env={**os.environ, **env})
