"""What a worker says of its servers: once per change, in a file, and by `runward health`."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path

import pytest
from typer.testing import CliRunner

from runward.cli.main import app
from runward.contracts.errors import ConfigurationError, StoreUnavailable
from runward.workers.child import ChildOrder
from runward.workers.health import Health, reached
from runward.workers.health_file import STALE_S, read
from runward.workers.processes import _each
from tests.app_folder import runward

AWAY = StoreUnavailable("the store", "It did not answer (53300)", "Try again")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "health"


def working(file: Path) -> Health:
    """Returns a worker that both servers answer."""
    health = Health(file)
    health.up("store")
    health.up("temporal")
    return health


def asked(file: Path, *words: str) -> tuple[int, str]:
    """Returns what `runward health` says, as its exit code and its output."""
    result = CliRunner().invoke(app, ["health", "--file", str(file), *words])
    return result.exit_code, result.stdout


def test_says_once_that_a_server_is_away_and_once_that_it_is_back(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    health = working(file)
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            health.down("store", "It did not answer (53300)")
        for _ in range(3):
            health.up("store")

    away, back = (one.getMessage() for one in caplog.records)
    assert away == "the store is away, what needs it waits: It did not answer (53300)"
    assert back.startswith("the store is back after ")


def test_says_nothing_of_servers_that_were_there_from_the_start(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        working(file)

    assert not caplog.records


def test_worker_that_both_servers_answer_is_ready(file: Path) -> None:
    working(file)

    code, said = asked(file, "--output", "json")

    assert code == 0
    (row,) = json.loads(said)
    assert row["state"] == "working" and row["store"].startswith("up since ")
    assert asked(file, "--alive")[0] == 0


def test_server_that_is_away_makes_it_unready_but_no_restart_mends_that(file: Path) -> None:
    working(file).down("temporal", "It did not answer within 5 s")

    code, said = asked(file, "--output", "json")

    assert code == 1
    assert json.loads(said)[0]["temporal"].endswith(": It did not answer within 5 s")
    assert asked(file, "--alive")[0] == 0


def test_worker_that_drains_is_not_ready(file: Path) -> None:
    working(file).drains()

    assert asked(file)[0] == 1
    assert asked(file, "--alive")[0] == 0


def test_server_that_was_never_reached_is_down(file: Path) -> None:
    Health(file).up("temporal")

    assert [(one.store.up, one.temporal.up) for one in read(file)] == [(False, True)]
    assert asked(file)[0] == 1


def test_worker_that_is_silent_is_not_alive(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    working(file)
    at = read(file)[0].at
    monkeypatch.setattr("time.time", lambda: at + STALE_S)

    code, said = asked(file, "--alive", "--output", "json")

    assert (code, json.loads(said)[0]["state"]) == (1, "silent")


def test_one_of_several_processes_is_enough_to_be_unready(file: Path) -> None:
    working(file.with_name("health.1"))
    working(file.with_name("health.2"))
    assert asked(file)[0] == 0

    working(file.with_name("health.2")).down("store", "It only reads")

    assert len(read(file)) == 2
    assert asked(file)[0] == 1


def test_each_of_several_processes_has_a_file_of_its_own(file: Path) -> None:
    order = ChildOrder(argv=["worker"], env={"PATH": "/bin"})

    files = [one.env["RUNWARD_HEALTH_FILE"] for one in _each(order, 2, file)]

    assert files == [f"{file}.1", f"{file}.2"]
    assert _each(order, 2, None) == [order, order]


def test_file_that_nobody_has_written_is_told(file: Path) -> None:
    result = CliRunner().invoke(app, ["health", "--file", str(file)])

    assert isinstance(result.exception, ConfigurationError)
    assert "No worker has written it" in str(result.exception)


@pytest.mark.parametrize("text", ["import os", "[]", "{}", '{"store": 1}', '"text"', "1", "\xff"])
def test_file_that_no_worker_has_written_is_told(file: Path, text: str) -> None:
    file.write_text(text, encoding="latin-1")
    result = CliRunner().invoke(app, ["health", "--file", str(file)])

    assert isinstance(result.exception, ConfigurationError)
    assert "A worker of this release has not written what is in it" in str(result.exception)


async def test_file_may_be_named_by_a_setting(tmp_path: Path) -> None:
    working(tmp_path / "health")

    async with runward(tmp_path, "health", RUNWARD_HEALTH_FILE="health") as command:
        assert await command.ended() == 0
    async with runward(tmp_path, "health") as command:
        assert await command.ended() == 1
    assert "Set RUNWARD_HEALTH_FILE or pass --file" in command.err[-1]


def test_file_that_cannot_be_written_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    working(tmp_path / "nowhere" / "health")

    # Of the two tries the first is told: more of them follow every other second.
    assert caplog.text.count("the health file cannot be written") == 1


async def test_server_that_is_away_at_the_start_is_waited_for(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runward.workers.health.AGAIN_S", 0.01)
    answers = [AWAY, AWAY, None]

    async def ask() -> str:
        if (error := answers.pop(0)) is not None:
            raise error
        return "it"

    assert await reached("store", ask, Health(file), asyncio.Event()) == "it"
    assert read(file)[0].store.up


async def test_who_waits_for_a_server_can_be_stopped(file: Path) -> None:
    stop = asyncio.Event()

    async def ask() -> str:
        stop.set()
        raise AWAY

    async with asyncio.timeout(5):
        assert await reached("store", ask, Health(file), stop) is None
    assert not read(file)[0].store.up


async def test_error_that_no_waiting_mends_is_raised(file: Path) -> None:
    async def ask() -> None:
        raise ConfigurationError("the store's schema", "2 migrations are not applied")

    async with asyncio.timeout(5):
        with pytest.raises(ConfigurationError, match="schema"):
            await reached("store", ask, Health(file), asyncio.Event())
