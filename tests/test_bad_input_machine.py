"""Bad input by the machine: what is full, taken, forbidden, closed, or no UTF-8.

The codes and words stand in `bad_input_played.py`.
"""

from __future__ import annotations

import asyncio
import json
import os
import pty
import resource
import select
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from runward.cli import output
from runward.cli.main import app
from runward.testing.scripts import ask, say
from runward.testing.stack import Stack
from runward.workers.file_lock import FileLock
from tests.bad_input_played import played
from tests.bad_input_rows import ADA, NO_STORE, Row
from tests.bad_input_shell import (
    RUNWARD,
    messages,
    parted,
    played_out,
    process,
    told_as,
    typed,
)
from tests.support import App

pytestmark = pytest.mark.usefixtures("bad_folder")

RUNS_LIST_OVER_HELP_MAX = 1.0 / 0.2  # a second, were `--help` to take 0.2 s
FIRST_LINE_S_MAX = 20.0
FILE_BYTES = 100  # less than any file of ours has


def test_output_that_nobody_reads_ends_quietly() -> None:
    row = played("head")
    words = row.typed.partition(" | ")[0].split()
    with subprocess.Popen(
        [*RUNWARD, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as printing:
        assert printing.stdout is not None and printing.stderr is not None
        assert printing.stdout.readline().startswith(b"-- ")
        printing.stdout.close()
        told = printing.stderr.read()

    assert (printing.returncode, told.decode()) == (row.code, row.says)


@pytest.mark.usefixtures("stack_settings")
async def test_a_watch_that_nobody_reads_ends_quietly(stack: Stack) -> None:
    """Each line comes as it happens, so that whoever reads the first has it before the next."""
    row = played("watched head")
    shop = App([ask("refund", order_id="17", amount="5.00"), say("Done.")])
    ada, bob = await stack.acting_as("ada"), await stack.acting_as("bob", ["finance"])
    async with stack.worker(stack.plugin(**shop.given)):
        run = await ada.start("support", "Refund")
        request = await run.next_approval()
        words = row.typed.partition(" | ")[0].format(run=run.id).split()
        with subprocess.Popen(  # noqa: ASYNC220  it runs beside us
            [*RUNWARD, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as watching:
            assert watching.stdout is not None and watching.stderr is not None
            came, _, _ = await asyncio.to_thread(
                select.select, [watching.stdout], [], [], FIRST_LINE_S_MAX
            )
            first = watching.stdout.readline() if came else b""
            watching.stdout.close()
            await bob.approvals.approve(request.id)
            told = await asyncio.to_thread(watching.stderr.read)

    assert first.decode().endswith("support started for ada\n")
    assert (watching.returncode, told.decode()) == (row.code, row.says)


@pytest.mark.parametrize(
    "words", [played("full output").typed, "agents list --app bad_shop:app", "--help"]
)
def test_output_that_does_not_fit_is_told(words: str) -> None:
    row = played("full output")
    with Path("/dev/full").open("wb") as full:
        done = process(*words.partition(" > ")[0].split(), stdout=full)

    assert (done.returncode, messages(done.stderr.decode())) == (row.code, 1)
    assert row.says in done.stderr.decode()


ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def test_a_terminal_that_is_no_utf_8_gets_escapes() -> None:
    row = played("no utf-8")
    words = row.typed.split()
    text = process(*words, env={**os.environ, **ASCII})
    data = process(*words, "-o", "json", env={**os.environ, "PYTHONIOENCODING": "ascii"})

    assert (text.returncode, data.returncode) == (row.code, 0), (text.stderr, data.stderr)
    assert row.says in text.stdout.decode("ascii")
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
    row = played("no text")
    words: list[str | bytes] = [*row.typed.replace("{ada}", ADA).split()]
    words[words.index("gr\\xfcn")] = prompt
    done = subprocess.run(
        [*RUNWARD, *words],
        input="grün".encode("latin-1"),
        capture_output=True,
        env={**os.environ, **env},
    )

    assert told_as(row, done)
    assert b"[RW-REQUEST]" in done.stderr


@pytest.mark.parametrize("row", [played("no name"), played("no value")], ids=str)
def test_a_name_that_is_no_text_is_refused(row: Row) -> None:
    """A byte that the terminal's encoding lacks, on the command line or in a variable."""
    typed = row._replace(typed=row.typed.replace("\\xfc", os.fsdecode(b"\xfc")))

    assert told_as(row, played_out(typed))


def test_a_variable_of_others_that_is_no_text_is_no_obstacle() -> None:
    done = process("config", "list", env={**os.environ, "THEIRS": os.fsdecode(b"\xfc")})

    assert (done.returncode, done.stderr) == (0, b"")
    assert b"\ntemporal address\tlocalhost:7233\n" in done.stdout


def full_disk() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES, FILE_BYTES))


def test_a_full_disk_leaves_no_half_app(bad_folder: Path) -> None:
    row = played("full app")

    assert told_as(row, process(*row.typed.split(), preexec_fn=full_disk))
    assert list((bad_folder / "shop").iterdir()) == []


def no_room() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


async def test_a_full_disk_is_named_and_leaves_no_key(bad_folder: Path, stack: Stack) -> None:
    row = played("full dev")
    env = {**os.environ, "RUNWARD_DATABASE_URL": stack.database_url}
    done = await asyncio.to_thread(process, *row.typed.split(), env=env, preexec_fn=no_room)

    assert told_as(row, done)
    assert not (bad_folder / "state" / "dev.key").exists()


async def test_a_home_that_cannot_be_written_is_named(bad_folder: Path, stack: Stack) -> None:
    row = played("locked home")
    home = bad_folder / "home"
    home.mkdir(mode=0o555)
    env = {"HOME": str(home), "PATH": "", "RUNWARD_DATABASE_URL": stack.database_url}
    words = [*ordinary(), *RUNWARD, *row.typed.split()]
    done = await asyncio.to_thread(subprocess.run, words, env=env, capture_output=True)

    assert told_as(row, done)
    assert f"Permission denied: '{home / '.cache'}'".encode() in done.stderr


@pytest.mark.parametrize(
    "row",
    [
        played("no home"),
        played("no database"),
        played("no Temporal"),
        played("no port"),
        played("no server"),
    ],
    ids=str,
)
def test_what_is_not_there_is_told_with_what_to_set(row: Row) -> None:
    assert told_as(row, played_out(row))


def test_a_temporal_that_never_answers_is_not_waited_for() -> None:
    row = played("deaf Temporal")
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        done = played_out(row, deaf=f"127.0.0.1:{deaf.getsockname()[1]}")

    assert told_as(row, done)


@pytest.mark.usefixtures("stack_settings")
async def test_a_full_disk_leaves_no_half_key(bad_folder: Path) -> None:
    row = played("full key")
    done = await asyncio.to_thread(process, *row.typed.split(), preexec_fn=full_disk)

    assert told_as(row, done)
    assert not (bad_folder / "my.key").exists()


def test_a_full_disk_leaves_the_settings_as_they_were(bad_folder: Path) -> None:
    row = played("full settings")
    file = bad_folder / "runward.toml"
    file.write_text(f"# {'x' * FILE_BYTES}\nuser = 'ada'\n")
    before, files = file.read_bytes(), sorted(bad_folder.iterdir())

    assert told_as(row, process(*row.typed.split(), preexec_fn=full_disk))
    assert (file.read_bytes(), sorted(bad_folder.iterdir())) == (before, files)


def test_no_key_is_made_while_the_store_is_away(bad_folder: Path) -> None:
    words = f"issuers add my.key --create --tenant acme {NO_STORE}"

    assert typed(words)[:2] == (1, "")
    assert not (bad_folder / "my.key").exists()


def ordinary() -> list[str]:
    """Returns what takes from root the right to write where nobody may."""
    if os.geteuid() != 0:
        return []
    setpriv = shutil.which("setpriv")
    assert setpriv, "as root this test needs setpriv (util-linux)"
    return [setpriv, "--bounding-set=-dac_override,-dac_read_search"]


@pytest.mark.parametrize(
    "row", [played("locked init"), played("locked key"), played("locked dev")], ids=str
)
async def test_a_folder_that_cannot_be_written_is_named(
    bad_folder: Path, row: Row, stack: Stack
) -> None:
    locked = bad_folder / "locked"
    locked.mkdir(mode=0o555)
    done = await asyncio.to_thread(
        subprocess.run,
        [*ordinary(), *RUNWARD, *row.typed.split()],
        cwd=locked if row.typed == "init" else bad_folder,
        env={**os.environ, "RUNWARD_DATABASE_URL": stack.database_url},
        capture_output=True,
    )

    assert told_as(row, done)
    assert list(locked.iterdir()) == []


@pytest.mark.parametrize(
    ("row", "name"),
    [
        (played("unreadable file"), "small"),
        (played("unreadable key"), "good.key"),
        (played("unreadable profiles"), "profiles.toml"),
    ],
)
def test_a_file_that_may_not_be_read_is_named(bad_folder: Path, row: Row, name: str) -> None:
    (bad_folder / name).chmod(0)
    words, env = parted(row.typed)
    done = subprocess.run(
        [*ordinary(), *RUNWARD, *words], env={**os.environ, **env}, capture_output=True
    )

    assert told_as(row, done)


async def test_a_second_dev_in_a_folder_is_refused(bad_folder: Path, stack: Stack) -> None:
    row = played("taken folder")
    lock = await FileLock.acquire(bad_folder / "state" / "temporal.lock", wait_s_max=0)
    env = {**os.environ, "RUNWARD_DATABASE_URL": stack.database_url}
    done = await asyncio.to_thread(process, *row.typed.split(), env=env)
    lock.release()

    assert told_as(row, done)
    assert f"{row.says} {os.getpid()}. Stop that one".encode() in done.stderr
    assert [one.name for one in (bad_folder / "state").iterdir()] == ["temporal.lock"]


@pytest.mark.usefixtures("stack_settings")
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
