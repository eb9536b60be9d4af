"""Bad input: each ends with one message that says what to do, a code of its own, nothing half done.

What is typed, the exit codes and the words stand in `bad_input_rows.py`.
"""

from __future__ import annotations

import asyncio
import json
import os
import pty
import resource
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.core import TyperGroup
from typer.main import get_command
from typer.testing import CliRunner

from runward.cli import output
from runward.cli.main import app
from runward.cli.output import EXIT_NOT_FOUND
from runward.client.approvals import Approvals
from runward.client.keys import KeyFile
from runward.contracts.errors import ConfigurationError, said
from runward.contracts.files import FILE_BYTES_MAX, IMAGE_BYTES_MAX
from runward.contracts.identity import Principal, sign
from runward.store.pool import Store
from runward.testing.scripts import ask
from runward.testing.stack import Stack
from runward.workers.file_lock import FileLock
from tests.bad_input_rows import ADA, MISSING, SERVED, TYPED, Row, rows
from tests.support import App

RUNS_LIST_OVER_HELP_MAX = 1.0 / 0.2  # a second, were `--help` to take 0.2 s
NOBODY_ANSWERS_S = 0.5
FILE_BYTES = 100  # less than any file of ours has
CLOSED_PORT = "127.0.0.1:1"
RUNWARD = [sys.executable, "-m", "runward.cli.main"]

FILES = {
    "bad_shop.py": "from runward import Agent, RunwardPlugin\n"
    'agents = [Agent("support", model="scripted:grün", instructions="Grüße 🙂\u00a0")]\n'
    "app = RunwardPlugin(agents=agents)\n",
    "bad_raises.py": 'def price():\n    return {}["price"]\n\n\nprice()\n',
    "bad_syntax.py": "def x(:\n",
    "bad_exit.py": 'raise SystemExit("no config")\n',
    "bad_agent.py": 'from runward import Agent\n\nAgent("No Name", model="scripted:x")\n',
    "app.py": "",
    "notes.txt": "",
    "fake.png": "<html>",
    "small": "GIF89a",  # what it is, its bytes say
    "broken.key": "{}",
    "wrong.toml": 'databse_url = "topsecret"\n',
}
LARGE = [
    ("large.png", b"\x89PNG\r\n\x1a\n", IMAGE_BYTES_MAX + 1),
    ("huge.pdf", b"%PDF-", FILE_BYTES_MAX + 1),
]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of bad apps and files, without the settings of whoever runs the tests."""
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
    monkeypatch.setenv("NO_COLOR", "1")
    yield tmp_path
    for name in [one for one in sys.modules if one.startswith("bad_")]:
        del sys.modules[name]


def typed(command: str, **values: str) -> tuple[int, str, str]:
    """Runs a command in this process; returns exit code, stdout and what was said of it."""
    words = [one.format_map(values) for one in command.replace("{ada}", ADA).split()]
    env = {}
    while words[0].isupper() or "=" in words[0]:
        name, _, env[name] = words.pop(0).partition("=")
    done = CliRunner().invoke(app, words, env=env)
    error = done.exception
    if error is None or isinstance(error, SystemExit):
        return done.exit_code, done.stdout, done.stderr
    assert output.expected(error), error
    return output.exit_code(error), done.stdout, said(error)


def messages(told: str) -> int:
    """Returns how many errors were told; lines of a user's traceback are none."""
    return sum(one.startswith("Error: ") for one in told.splitlines())


def commands_on_ids() -> Iterator[tuple[str, str]]:
    """Yields the commands that are told one thing by its id or name: the run, the key, the user."""
    groups = get_command(app)
    assert isinstance(groups, TyperGroup)
    for group, found in groups.commands.items():
        for verb, command in getattr(found, "commands", {}).items():
            if any(
                one.name in ("run_id", "approval_id", "kid", "name", "who")
                for one in command.params
            ):
                yield group, verb


def process(*words: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Runs a command as people do."""
    given: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.run([*RUNWARD, *words], **given)


@pytest.mark.parametrize("row", rows(TYPED), ids=lambda one: one.typed)
def test_bad_input_is_told_in_one_message(folder: Path, row: Row) -> None:
    before = sorted(folder.rglob("*"))

    assert (row.code, "") == (found := typed(row.typed))[:2], found
    assert messages(found[2]) == 1
    assert row.says in found[2]
    assert before == sorted(folder.rglob("*"))


@pytest.fixture
def values(stack: Stack, empty_database_url: str) -> dict[str, str]:
    """What the commands on real servers are given."""
    url, _, _ = stack.database_url.rpartition("/")
    ada = Principal(stack.tenant, "ada")
    about: dict[str, Any] = {"subject": "w", "digest": "d"}
    long_ago = datetime.now(UTC) - timedelta(days=1)
    stranger = KeyFile("good.key")
    return {
        "empty": empty_database_url,
        "other": f"{url}/none",
        "password": stack.database_url.replace("://", "://nobody:wrong@", 1)
        if "@" not in url
        else f"postgresql://nobody:wrong@{url.rpartition('@')[2]}/postgres",
        "blank": " ",
        "expired": sign(
            stack.key.key, ada, "start", now=long_ago, ttl=timedelta(minutes=1), **about
        ),
        "unknown": stranger.ticket(ada, "start", **about),
    }


@pytest.fixture
def settings(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names the stack's servers, as whoever works there has done."""
    monkeypatch.setenv("TEMPORAL_ADDRESS", stack.temporal_address)
    monkeypatch.setenv("RUNWARD_DATABASE_URL", stack.database_url)
    monkeypatch.setenv("RUNWARD_KEY_FILE", str(stack.key.path))
    monkeypatch.setenv("RUNWARD_TASK_QUEUE", stack.task_queue)
    monkeypatch.setenv("RUNWARD_TENANT", stack.tenant)


@pytest.mark.usefixtures("settings")
async def test_bad_input_on_real_servers_is_told_in_one_message(values: dict[str, str]) -> None:
    for row in rows(SERVED):
        found = await asyncio.to_thread(typed, row.typed, **values)

        assert (row.code, "") == found[:2], (row, found)
        assert row.says in found[2], (row, found)
        assert messages(found[2]) == 1


@pytest.mark.usefixtures("settings")
@pytest.mark.parametrize("row", rows(MISSING), ids=lambda one: one.typed)
async def test_an_id_that_is_not_there_is_named_with_one_code(row: Row) -> None:
    code, printed, told = await asyncio.to_thread(typed, row.typed)

    assert (code, printed) == (EXIT_NOT_FOUND, ""), told
    assert row.says in told
    assert told.endswith(" [RW-NOT-FOUND]")
    assert messages(told) == 1


def test_every_command_on_an_id_is_tried_with_one_that_is_not_there() -> None:
    tried = {tuple(row.typed.split()[:2]) for row in rows(MISSING)}

    assert {("approvals", "show"), ("runs", "reset")} <= (taking := set(commands_on_ids()))
    assert taking <= tried


@pytest.mark.usefixtures("settings")
async def test_a_mistyped_agent_ends_the_run_with_the_nearest_name(stack: Stack) -> None:
    async with stack.worker(stack.plugin(**App([]).given)):
        found = await asyncio.to_thread(typed, "runs execute suport Hello --as ada")

    assert found[:2] == (1, "")
    assert "suport: unknown agent. Did you mean 'support'?" in found[2]


@pytest.mark.usefixtures("settings")
async def test_a_decision_without_a_worker_is_told_and_not_made(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    defaults = Approvals.__init__.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "timeout_s", NOBODY_ANSWERS_S)
    shop = App([ask("refund", order_id="17", amount="5.00")])
    async with stack.worker(stack.plugin(**shop.given)):
        run = await (await stack.acting_as("ada")).start("support", "Refund")
        request = await run.next_approval()
    words = f"approvals approve {request.id} --as bob --role finance"
    code, _, told = await asyncio.to_thread(typed, words)

    assert (code, "runward worker --app" in told and "[RW-WORKER]" in told) == (1, True)
    (pending,) = await (await stack.acting_as("bob", ["finance"])).approvals.list()
    assert pending.id == request.id


def test_a_store_that_never_answers_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runward.store.migrate.CONNECT_S_MAX", NOBODY_ANSWERS_S)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        where = f"127.0.0.1:{deaf.getsockname()[1]}"
        found = typed(f"db status --database-url postgres://{where}/d")

    assert found[:2] == (1, "")
    assert f"The store at {where}. It did not answer in time. Start it" in found[2]


async def test_a_database_without_our_roles_is_told_what_to_do(stack: Stack) -> None:
    with pytest.raises(ConfigurationError, match=r"not exist.*runward db migrate"):
        async with Store(stack.database_url, role="runward_nobody", connections_max=1):
            pass


def test_an_app_that_raises_shows_its_own_traceback_and_none_of_ours(folder: Path) -> None:
    done = process("agents", "list", "--app", "bad_raises:app")

    assert (done.returncode, done.stdout) == (1, b"")
    lines = done.stderr.decode().splitlines()
    files = [one.partition(",")[0] for one in lines if one.startswith("  File ")]
    assert files == [f'  File "{folder / "bad_raises.py"}"'] * 2
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-2:] == [
        "KeyError: 'price'",
        "Error: The app 'bad_raises:app'. Importing 'bad_raises' raised KeyError. Mend the line "
        "that its traceback leads to [RW-CONFIGURATION]",
    ]


def test_output_that_nobody_reads_ends_quietly() -> None:
    with subprocess.Popen(
        [*RUNWARD, "db", "print"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as printing:
        assert printing.stdout is not None and printing.stderr is not None
        assert printing.stdout.readline().startswith(b"-- ")
        printing.stdout.close()
        told = printing.stderr.read()

    assert (printing.returncode, told) == (1, b"")


@pytest.mark.parametrize("words", ["db print", "agents list --app bad_shop:app", "--help"])
def test_output_that_does_not_fit_is_told(words: str) -> None:
    with Path("/dev/full").open("wb") as full:
        done = process(*words.split(), stdout=full)

    assert done.returncode == 1
    assert messages(done.stderr.decode()) == 1
    assert b"No space left on device" in done.stderr


ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def test_a_terminal_that_is_no_utf_8_gets_escapes() -> None:
    words = ("agents", "show", "support", "--app", "bad_shop:app")
    text = process(*words, env={**os.environ, **ASCII})
    data = process(*words, "-o", "json", env={**os.environ, "PYTHONIOENCODING": "ascii"})

    assert (text.returncode, data.returncode) == (0, 0), (text.stderr, data.stderr)
    assert b"scripted:gr\\xfcn" in text.stdout
    assert json.loads(data.stdout.decode("ascii"))["instructions"] == "Grüße 🙂\u00a0"


def test_json_escapes_what_does_not_print_as_json_does(
    capsys: pytest.CaptureFixture[str],
) -> None:
    output.data({"text": "a\u00a0b\U000e0001\x1b"}, "jsonl")
    printed = capsys.readouterr().out

    assert printed.strip().isprintable()
    assert json.loads(printed)["text"] == "a\u00a0b\U000e0001\x1b"


@pytest.mark.parametrize(
    ("prompt", "env"), [(b"-", {}), ("grün".encode("latin-1"), {}), ("grün".encode(), ASCII)]
)
def test_a_prompt_that_is_no_text_is_refused(prompt: bytes, env: dict[str, str]) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "runward.cli.main",
            "runs",
            "start",
            "support",
            prompt,
            *ADA.split(),
        ],
        input="grün".encode("latin-1"),
        capture_output=True,
        env={**os.environ, **env},
    )

    assert (done.returncode, done.stdout) == (1, b"")
    assert b"Error: The prompt. It is no text in this terminal's encoding" in done.stderr
    assert b"[RW-REQUEST]" in done.stderr


def full_disk() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES, FILE_BYTES))


def test_a_full_disk_leaves_no_half_app(folder: Path) -> None:
    done = process("init", "shop", preexec_fn=full_disk)

    assert (done.returncode, done.stdout) == (1, b"")
    assert b"Error: 'shop/app.py'. File too large. Make room there" in done.stderr
    assert list((folder / "shop").iterdir()) == []


@pytest.mark.usefixtures("settings")
async def test_a_full_disk_leaves_no_half_key(folder: Path) -> None:
    words = ("issuers", "add", "my.key", "--create", "--tenant", "acme")
    done = await asyncio.to_thread(process, *words, preexec_fn=full_disk)

    assert (done.returncode, done.stdout) == (1, b"")
    assert b"Error: KeyFile.create('my.key'). File too large" in done.stderr
    assert not (folder / "my.key").exists()


def test_no_key_is_made_while_the_store_is_away(folder: Path) -> None:
    words = f"issuers add my.key --create --tenant acme --database-url postgres://{CLOSED_PORT}/d"

    assert typed(words)[:2] == (1, "")
    assert not (folder / "my.key").exists()


def ordinary() -> list[str]:
    """Returns what takes from root the right to write where nobody may."""
    if os.geteuid() != 0:
        return []
    setpriv = shutil.which("setpriv")
    assert setpriv, "as root this test needs setpriv (util-linux)"
    return [setpriv, "--bounding-set=-dac_override,-dac_read_search"]


@pytest.mark.parametrize(
    "words", ["init", "issuers add {here}/k --create", "dev --state-dir {here}/s"]
)
async def test_a_folder_that_cannot_be_written_is_named(
    folder: Path, words: str, stack: Stack
) -> None:
    locked = folder / "locked"
    locked.mkdir(mode=0o555)
    words = words.format(here=locked)
    given = [*words.split(), *(["--tenant", "acme"] if "issuers" in words else [])]
    done = await asyncio.to_thread(
        subprocess.run,
        [*ordinary(), *RUNWARD, *given],
        cwd=locked if words == "init" else folder,
        env={**os.environ, "RUNWARD_DATABASE_URL": stack.database_url},
        capture_output=True,
    )

    assert (done.returncode, done.stdout) == (1, b"")
    assert messages(done.stderr.decode()) == 1
    assert b"Permission denied" in done.stderr
    assert list(locked.iterdir()) == []


def test_a_file_that_may_not_be_read_is_named(folder: Path) -> None:
    (folder / "small").chmod(0)
    words = f"runs start support Hi {ADA} --file small"
    done = subprocess.run([*ordinary(), *RUNWARD, *words.split()], capture_output=True)

    assert (done.returncode, done.stdout) == (1, b"")
    assert b"Error: 'small'. Permission denied. Give this user the right to it" in done.stderr


async def test_a_second_dev_in_a_folder_is_refused(folder: Path, stack: Stack) -> None:
    lock = await FileLock.acquire(folder / "state" / "temporal.lock", wait_s_max=0)
    env = {**os.environ, "RUNWARD_DATABASE_URL": stack.database_url}
    done = await asyncio.to_thread(process, "dev", "--state-dir", "state", env=env)
    lock.release()

    assert (done.returncode, done.stdout) == (1, b"")
    assert f"is in use by process {os.getpid()}. Stop that one".encode() in done.stderr
    assert [one.name for one in (folder / "state").iterdir()] == ["temporal.lock"]


@pytest.mark.usefixtures("settings")
async def test_listing_runs_is_quick() -> None:
    """Beside `--help`, which has a bound of its own: both are as slow as the machine is busy.

    On an idle one it takes 0.4 s, where a second is allowed, and `--help` 0.14 s.
    """

    def cpu_s(*words: str) -> float:
        began = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert process(*words).returncode == 0
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        return ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime

    def pairs() -> list[float]:
        return [cpu_s("runs", "list") / cpu_s("--help") for _ in range(3)]

    assert min(await asyncio.to_thread(pairs)) < RUNS_LIST_OVER_HELP_MAX


@pytest.mark.parametrize(("words", "found"), [("ru", ["runs"]), ("runs li", ["list"])])
def test_shells_complete_commands(words: str, found: list[str]) -> None:
    line = f"runward {words}"
    env = {"_RUNWARD_COMPLETE": "complete_bash", "COMP_WORDS": line}
    env["COMP_CWORD"] = str(len(line.split()) - 1)
    done = CliRunner().invoke(app, [], env=env, prog_name="runward")

    assert done.stdout.split() == found


@pytest.mark.parametrize(("env", "colour"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_colour_is_for_terminals_that_want_it(
    env: dict[str, str], colour: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR")
    ours, theirs = pty.openpty()
    process("db", "status", stderr=theirs, env={**os.environ, "TERM": "xterm", **env})
    told = os.read(ours, 4096)
    for one in (ours, theirs):
        os.close(one)

    assert b"Error: " in told
    assert told.startswith(b"\x1b[31m") is colour


def closed() -> None:
    for one in (0, 1, 2):
        os.close(one)


def test_a_stream_that_is_closed_is_no_crash() -> None:
    done = process("agents", "list", "--app", "bad_shop:app", preexec_fn=closed)

    assert done.returncode == 0
