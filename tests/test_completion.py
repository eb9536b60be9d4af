"""What a shell is offered on Tab, asked as shells ask it, against a real database."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest
from typer.testing import CliRunner

from runward.cli import completion
from runward.cli.main import app
from runward.client.runs import ActingClient
from runward.testing.scripts import ask, say
from runward.testing.stack import Stack
from tests.support import App

# Beside the second that the store has: a Python that starts, on a machine that is busy.
PROCESS_S_MAX = 10.0
# What a shell would do with it, if it got it. Typer escapes a dollar, but no backslash before it.
EVIL = "\\$(touch evil)`touch evil`\";touch evil;'$(touch evil)[red]\n:"


@dataclass
class Tab:
    """Presses Tab behind a line, in a shell with these settings."""

    settings: dict[str, str]

    def __call__(self, line: str) -> list[str]:
        """Returns what bash is offered."""
        return self._asked(self.bash(line))

    def zsh(self, line: str) -> str:
        """Returns what zsh evaluates."""
        env = {"_RUNWARD_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": f"runward {line}"}
        return "\n".join(self._asked(env))

    def fish(self, line: str) -> list[str]:
        """Returns what fish is offered, each line with its help."""
        env = {"_RUNWARD_COMPLETE": "complete_fish", "_TYPER_COMPLETE_ARGS": f"runward {line}"}
        return self._asked({**env, "_TYPER_COMPLETE_FISH_ACTION": "get-args"})

    def bash(self, line: str) -> dict[str, str]:
        """Returns the variables that bash sets."""
        words = f"runward {line}".split(" ")
        return {
            "_RUNWARD_COMPLETE": "complete_bash",
            "COMP_WORDS": "\n".join(words),
            "COMP_CWORD": str(len(words) - 1),
        }

    def _asked(self, env: dict[str, str]) -> list[str]:
        done = CliRunner().invoke(app, [], env={**self.settings, **env}, prog_name="runward")
        assert (done.exit_code, done.stderr) == (0, "")
        return [one for one in done.stdout.splitlines() if one]


@pytest.fixture
def tab(stack: Stack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Tab:
    monkeypatch.chdir(tmp_path)
    for name in [one for one in os.environ if one.startswith("RUNWARD_")]:
        if name != "RUNWARD_TEMPORAL_BINARY":
            monkeypatch.delenv(name)
    return Tab({"RUNWARD_DATABASE_URL": stack.database_url, "RUNWARD_TENANT": stack.tenant})


async def started(stack: Stack, order_id: str = "17") -> tuple[ActingClient, str, str, str]:
    """Starts two runs; returns ada, the id of one that answered, of one that waits, its request."""
    ada = await stack.acting_as("ada")
    shop = App([say("Shipped.")])
    async with stack.worker(stack.plugin(**shop.given)):
        answered = await ada.start("support", "Where?")
        await answered.result()
    shop = App([ask("refund", order_id=order_id, amount="5.00"), say("Refunded.")])
    async with stack.worker(stack.plugin(**shop.given)):
        waiting = await ada.start("support", "Refund")
        request = await waiting.next_approval()
    return ada, answered.id, waiting.id, request.id


async def test_ids_and_names_of_the_tenant_are_offered(stack: Stack, tab: Tab) -> None:
    _, answered, waiting, request = await started(stack)

    def pressed() -> None:
        for verb in ("show", "watch", "describe", "reset", "history", "result"):
            assert tab(f"runs {verb} ") == [waiting, answered], verb
        for verb in ("cancel", "terminate"):
            assert tab(f"runs {verb} ") == [waiting], verb
        for verb in ("show", "approve", "reject"):
            assert tab(f"approvals {verb} ") == [request], verb
        for words in ("runs start ", "runs execute s", "agents show ", "runs list --agent su"):
            assert tab(words) == ["support"], words
        assert tab(f"runs show {answered[:-3]}") == [answered]
        assert tab("runs show rw-none") == []
        assert tab("runs show --tenant nobody ") == []
        says = "refund amount 5.00, order_id 17 for ada"
        assert tab.fish("approvals show ") == [f"{request}\t{says}"]
        assert tab.zsh("approvals show ") == f'_arguments \'*: :(("{request}":"{says}"))\''
        assert tab.fish("runs cancel ") == [f"{waiting}\tsupport open for ada"]

    await asyncio.to_thread(pressed)


async def test_nothing_that_a_shell_would_run_is_offered(
    stack: Stack, tab: Tab, owner: asyncpg.Connection[asyncpg.Record]
) -> None:
    _, answered, waiting, request = await started(stack, order_id=EVIL)
    await owner.execute(
        "update runward.run set workflow_id = $2 where tenant = $1 and workflow_id = $3",
        *(stack.tenant, "$(touch evil)", answered),
    )

    assert await asyncio.to_thread(tab, "runs show ") == [waiting]
    evaluated = await asyncio.to_thread(tab.zsh, "approvals show ")
    said = re.fullmatch(
        rf"_arguments '\*: :\(\(\"{request}\":\"refund amount 5.00, order_id [a-z ]+\"\)\)'",
        evaluated,
    )
    assert said, evaluated


async def test_bash_itself_completes_an_id(stack: Stack, tab: Tab) -> None:
    _, answered, waiting, _ = await started(stack)
    bash = shutil.which("bash")
    assert bash, "this test needs bash"
    script = """
        eval "$(_RUNWARD_COMPLETE=source_bash runward)"
        COMP_WORDS=(runward runs show ""); COMP_CWORD=3
        _runward_completion runward
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    here = Path(sys.executable).parent
    env = {**os.environ, **tab.settings, "PATH": f"{here}:{os.environ['PATH']}"}
    done = await asyncio.to_thread(
        subprocess.run, [bash, "-c", script], env=env, capture_output=True, text=True
    )

    assert (done.stdout.splitlines(), done.stderr) == ([waiting, answered], "")


@pytest.mark.parametrize(
    "settings",
    [
        {"RUNWARD_TENANT": ""},
        {"RUNWARD_DATABASE_URL": "postgresql://127.0.0.1:1/d"},
        {"RUNWARD_DATABASE_URL": "nonsense"},
        {"RUNWARD_CONFIG_FILE": "none.toml"},
    ],
    ids=str,
)
@pytest.mark.parametrize("line", ["runs show ", "approvals approve ", "runs start "])
def test_where_nothing_can_be_read_nothing_is_said(
    tab: Tab, settings: dict[str, str], line: str
) -> None:
    tab.settings |= settings

    assert tab(line) == []


def test_without_any_setting_nothing_is_said(tab: Tab) -> None:
    tab.settings.clear()

    assert tab("runs show ") == []
    assert tab("runs sho") == ["show"]


HANGS = "import socket, time\nsocket.getaddrinfo = lambda *given, **named: time.sleep(600)\n"


@pytest.mark.parametrize(("host", "code"), [("127.0.0.1", ""), ("localhost", HANGS)])
def test_nobody_waits_for_servers_that_hang(tab: Tab, tmp_path: Path, host: str, code: str) -> None:
    """The store in the first case, the name server in the second."""
    (tmp_path / "sitecustomize.py").write_text(code)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        tab.settings["RUNWARD_DATABASE_URL"] = f"postgresql://{host}:{deaf.getsockname()[1]}/d"
        env = {**os.environ, **tab.settings, **tab.bash("runs show "), "PYTHONPATH": str(tmp_path)}
        began = time.monotonic()
        done = subprocess.run(
            [str(Path(sys.executable).with_name("runward"))], env=env, capture_output=True
        )
        took_s = time.monotonic() - began

    assert (done.returncode, done.stdout, done.stderr) == (0, b"\n", b"")
    assert completion.SECONDS_MAX <= took_s < PROCESS_S_MAX
