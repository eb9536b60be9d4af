"""The `temporal` program is looked for in a fixed order, and obtained once."""

import asyncio
from pathlib import Path

import pytest

from runward.contracts.errors import ConfigurationError
from runward.workers import temporal_binary
from runward.workers.temporal_binary import TEMPORAL_VERSION, find_temporal

BUILDS = """#!/bin/sh
echo once >> "$BUILD_COUNT"
printf '#!/bin/sh\\n' > "$GOBIN/temporal"
chmod +x "$GOBIN/temporal"
"""


@pytest.fixture(autouse=True)
def bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing on PATH but the system's basics, an empty cache, and no network."""

    async def no_download(_workplace: Path, _progress: temporal_binary.Progress) -> None:
        return None

    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("BUILD_COUNT", str(tmp_path / "builds"))
    monkeypatch.delenv("RUNWARD_TEMPORAL_BINARY", raising=False)
    monkeypatch.setattr(temporal_binary, "_download", no_download)


def program(path: Path, text: str = "#!/bin/sh\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


async def test_setting_wins_over_path_and_path_over_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = program(tmp_path / f"cache/runward/temporal-{TEMPORAL_VERSION}/temporal")
    assert await find_temporal(None, progress=print) == cached

    on_path = program(tmp_path / "bin" / "temporal")
    assert await find_temporal(None, progress=print) == on_path

    named = program(tmp_path / "named")
    monkeypatch.setenv("RUNWARD_TEMPORAL_BINARY", str(named))
    assert await find_temporal(None, progress=print) == named

    setting = program(tmp_path / "setting")
    assert await find_temporal(setting, progress=print) == setting


async def test_wrong_setting_is_an_error_though_path_has_one(tmp_path: Path) -> None:
    program(tmp_path / "bin" / "temporal")

    with pytest.raises(ConfigurationError, match="not an executable file"):
        await find_temporal(tmp_path / "absent", progress=print)


async def test_parallel_callers_build_once(tmp_path: Path) -> None:
    program(tmp_path / "bin" / "go", BUILDS.replace("chmod", "/bin/chmod"))
    found = await asyncio.gather(*(find_temporal(None, progress=print) for _ in range(5)))

    assert set(found) == {tmp_path / f"cache/runward/temporal-{TEMPORAL_VERSION}/temporal"}
    assert (tmp_path / "builds").read_text() == "once\n"
    assert [path.name for path in found[0].parent.iterdir()] == ["temporal"]


async def test_without_go_the_error_says_what_to_install() -> None:
    with pytest.raises(ConfigurationError, match="Install the Temporal CLI"):
        await find_temporal(None, progress=print)


async def test_a_user_without_a_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container whose user has no entry: then nothing says where a cache would be."""

    def unknown() -> Path:
        return Path("~nobody-of-that-name").expanduser()

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", unknown)

    with pytest.raises(ConfigurationError, match=r"no place .* home directory\. Name a folder"):
        await find_temporal(None, progress=print)


async def test_failed_build_shows_its_last_words(tmp_path: Path) -> None:
    program(tmp_path / "bin" / "go", "#!/bin/sh\necho no such module >&2\nexit 1\n")

    with pytest.raises(ConfigurationError, match="no such module"):
        await find_temporal(None, progress=print)
