"""Bad input: each ends with one message that says what to do, a code of its own, nothing half done.

What is typed, the exit codes and the words stand in `bad_input_rows.py` and `bad_input_played.py`;
what a machine lacks is in `test_bad_input_machine.py`.
"""

from __future__ import annotations

import asyncio
import re
import socket
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from typer.core import TyperGroup
from typer.main import get_command

from bench.outage_gate import Gate
from runward.cli.main import app
from runward.cli.output import EXIT_NOT_FOUND
from runward.client.approvals import Approvals
from runward.client.keys import KeyFile
from runward.contracts.errors import ConfigurationError
from runward.contracts.identity import Principal, sign
from runward.contracts.policy import StandardPermissions
from runward.store.migrate import script
from runward.store.pool import Store
from runward.testing.databases import create, drop
from runward.testing.scripts import ask
from runward.testing.stack import Stack
from tests.bad_input_played import PLAYED, played
from tests.bad_input_rows import MISSING, SERVED, TYPED, Row, rows
from tests.bad_input_shell import RUNWARD, messages, parted, played_out, process, told_as, typed
from tests.support import App

pytestmark = pytest.mark.usefixtures("bad_folder")

NOBODY_ANSWERS_S = 0.5
NOT_YET = "9999"  # a migration of a release to come


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


def everything(folder: Path) -> list[Path]:
    """Returns what is in the folder: bad input leaves nothing half done there."""
    return sorted(folder.rglob("*"))


@pytest.mark.parametrize("row", rows(TYPED), ids=lambda one: one.typed)
def test_bad_input_is_told_in_one_message(bad_folder: Path, row: Row) -> None:
    before = everything(bad_folder)

    assert (row.code, "") == (found := typed(row.typed))[:2], found
    assert messages(found[2]) == 1
    assert row.says in found[2]
    assert "topsecret" not in found[2]
    assert before == everything(bad_folder)


@pytest.fixture
async def newer_database_url(server_url: str) -> AsyncIterator[str]:
    """The address of a database with the schema of a release to come."""
    url = await create(server_url)
    connection = await asyncpg.connect(url)
    await connection.execute(script())
    ledger = "insert into runward.schema_migrations (version, checksum) values ($1, '')"
    await connection.execute(ledger, NOT_YET)
    await connection.close()
    yield url
    await drop(server_url, url)


@pytest.fixture
def values(
    stack: Stack, empty_database_url: str, old_database_url: str, newer_database_url: str
) -> dict[str, str]:
    """What the commands on real servers are given."""
    url, _, _ = stack.database_url.rpartition("/")
    ada = Principal(stack.tenant, "ada")
    about: dict[str, Any] = {"subject": "w", "digest": "d"}
    long_ago = datetime.now(UTC) - timedelta(days=1)
    stranger = KeyFile("good.key")
    return {
        "empty": empty_database_url,
        "old": old_database_url,
        "newer": newer_database_url,
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


@pytest.mark.usefixtures("stack_settings")
async def test_bad_input_on_real_servers_is_told_in_one_message(
    values: dict[str, str], bad_folder: Path
) -> None:
    before = everything(bad_folder)
    for row in rows(SERVED):
        found = await asyncio.to_thread(typed, row.typed, **values)

        assert (row.code, "") == found[:2], (row, found)
        assert row.says in found[2], (row, found)
        assert messages(found[2]) == 1
        assert before == everything(bad_folder), row


@pytest.mark.usefixtures("stack_settings")
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


@pytest.mark.usefixtures("stack_settings")
async def test_a_mistyped_agent_ends_the_run_with_the_nearest_name(stack: Stack) -> None:
    row = played("agent")
    async with stack.worker(stack.plugin(**App([]).given)):
        found = await asyncio.to_thread(typed, row.typed)

    assert found[:2] == (row.code, "")
    assert row.says in found[2]


@pytest.mark.usefixtures("stack_settings")
async def test_a_mistyped_tool_in_a_policy_is_told(
    stack: Stack, caplog: pytest.LogCaptureFixture
) -> None:
    row = played("tool")
    code, printed, _ = await asyncio.to_thread(typed, row.typed)
    plugin = stack.plugin(**App([]).given, policy=StandardPermissions(denied_tools=["refnd"]))
    with caplog.at_level("WARNING", "runward.worker"):
        async with stack.worker(plugin):
            pass

    assert code == row.code
    assert [row.says in one for one in printed.splitlines() if "permissions" in one] == [True]
    assert [one.getMessage() for one in caplog.records] == [f"permissions: {row.says}"]


@pytest.mark.usefixtures("stack_settings")
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
    row = played("no worker")
    code, _, told = await asyncio.to_thread(typed, row.typed, id=request.id)

    assert (code, row.says in told and "[RW-WORKER]" in told) == (row.code, True)
    elsewhere = f"{row.typed} --namespace nowhere"
    code, _, told = await asyncio.to_thread(typed, elsewhere, id=request.id)
    assert (code, "Correct TEMPORAL_NAMESPACE" in told) == (1, True)
    (pending,) = await (await stack.acting_as("bob", ["finance"])).approvals.list()
    assert pending.id == request.id


@pytest.mark.usefixtures("stack_settings")
async def test_a_temporal_that_goes_away_is_told_once(stack: Stack) -> None:
    """However often it was asked again meanwhile: the SDK warns of each."""
    row = played("gone")
    shop = App([ask("refund", order_id="17", amount="5.00")])
    port = int(stack.temporal_address.rpartition(":")[2])
    async with stack.worker(stack.plugin(**shop.given)), Gate(port) as gate:
        run = await (await stack.acting_as("ada")).start("support", "Refund")
        await run.next_approval()
        words, _ = parted(row.typed, run=run.id, gate=f"127.0.0.1:{gate.port}")
        waiting = await asyncio.create_subprocess_exec(*RUNWARD, *words, stdout=PIPE, stderr=PIPE)
        assert waiting.stderr is not None
        assert b"waits for approval" in await waiting.stderr.readline()
        await gate.away()
        printed, told = await waiting.communicate()

    assert (waiting.returncode, printed, told.count(b"\n")) == (row.code, b"", 1), told
    assert row.says in told.decode()


def test_a_store_that_never_answers_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runward.store.migrate.CONNECT_S_MAX", NOBODY_ANSWERS_S)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        where = f"127.0.0.1:{deaf.getsockname()[1]}"
        row = played("deaf")
        found = typed(row.typed, deaf=f"postgres://{where}/d")

    assert found[:2] == (row.code, "")
    assert f"The store at {where}. {row.says}" in found[2]


async def test_a_database_without_our_roles_is_told_what_to_do(stack: Stack) -> None:
    with pytest.raises(ConfigurationError, match=r"not exist.*runward db migrate"):
        async with Store(stack.database_url, role="runward_nobody", connections_max=1):
            pass


def test_an_app_that_raises_shows_its_own_traceback_and_none_of_ours(bad_folder: Path) -> None:
    row = played("traceback")
    done = process(*row.typed.split())

    assert (done.returncode, done.stdout) == (row.code, b"")
    lines = done.stderr.decode().splitlines()
    files = [one.partition(",")[0] for one in lines if one.startswith("  File ")]
    assert files == [f'  File "{bad_folder / "bad_raises.py"}"'] * 2
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-2:] == [
        row.says,
        "Error: The app 'bad_raises:app'. Importing 'bad_raises' raised KeyError. Mend the line "
        "that its traceback leads to [RW-CONFIGURATION]",
    ]


@pytest.mark.usefixtures("stack_settings")
@pytest.mark.parametrize(
    "row", [played("empty worker"), played("old worker"), played("newer worker")], ids=str
)
async def test_a_worker_does_not_begin_on_another_schema(
    stack: Stack, values: dict[str, str], row: Row
) -> None:
    done = await asyncio.to_thread(played_out, row, **values, temporal=stack.temporal_address)

    assert told_as(row, done)


@pytest.mark.usefixtures("stack_settings")
def test_an_older_schema_fails_the_examination(values: dict[str, str]) -> None:
    row = played("doctor's database")
    code, printed, _ = typed(row.typed, **values)

    (line,) = [one for one in printed.splitlines() if row.says in one]
    assert (code, line.split("\t")[-1]) == (row.code, "runward db migrate")


@pytest.mark.usefixtures("stack_settings")
def test_a_schema_that_is_behind_is_printed_with_what_to_do(values: dict[str, str]) -> None:
    done = played_out(Row("db status --database-url {empty}", 1, ""), **values)

    printed = done.stdout.decode().splitlines()
    assert (done.returncode, printed[0], printed[1][:13]) == (1, "applied  -", "pending  0001")
    assert done.stderr.decode() == "To apply what is pending: runward db migrate\n"


@pytest.mark.usefixtures("stack_settings")
def test_a_codec_that_raises_fails_the_examination() -> None:
    row = played("codec")
    code, printed, _ = typed(row.typed)

    assert (code, [row.says in one for one in printed.splitlines() if "codec" in one]) == (
        row.code,
        [True],
    )


def test_every_row_that_is_played_is_played() -> None:
    told = "".join(one.read_text() for one in Path(__file__).parent.glob("test_*.py"))

    keys = {key for part in PLAYED.values() for key in part}
    assert keys == set(re.findall(r'played\("([^"]+)"\)', told))
