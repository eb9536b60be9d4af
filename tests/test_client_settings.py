"""Settings: given beats environment beats file, and mistakes are named without their values."""

from pathlib import Path
from typing import Any

import pytest
from temporalio.service import GrpcCompression

from runward.cli.worker import checked
from runward.client.settings import Settings, temporal_connection
from runward.contracts.errors import ConfigurationError


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs in an empty folder, and without the settings of whoever runs the tests."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    for name in ("RUNWARD_DATABASE_URL", "TEMPORAL_ADDRESS", "TEMPORAL_NAMESPACE"):
        monkeypatch.delenv(name, raising=False)


def test_given_beats_environment_beats_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runward.toml").write_text(
        'database_url = "postgres://file"\ntask_queue = "file"\ntenant = "file"\n'
    )
    monkeypatch.setenv("RUNWARD_TASK_QUEUE", "environment")
    monkeypatch.setenv("RUNWARD_DATABASE_URL", "postgres://environment")

    found = Settings.load(database_url="postgres://given", user=None)

    assert found.dsn == "postgres://given"
    assert (found.task_queue, found.tenant) == ("environment", "file")


def test_worker_sweeps_as_often_as_the_setting_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNWARD_SWEEP_EVERY_S", "5")
    given: dict[str, Any] = {"database_url": "postgres://h/d", "address": "h:7233"}
    given["task_queue"] = None

    assert checked("shop:app", **given).sweep_every_s == 5.0
    monkeypatch.setenv("RUNWARD_SWEEP_EVERY_S", "0")
    with pytest.raises(ConfigurationError, match="sweep_every_s"):
        checked("shop:app", **given)


def test_database_url_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNWARD_DATABASE_URL", "postgres://u:topsecret@h/d")

    assert "topsecret" not in repr(Settings.load())


def test_an_empty_variable_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of Temporal's own."""
    monkeypatch.setenv("RUNWARD_DATABASE_URL", "")

    assert Settings.load().dsn is None


def test_unknown_line_in_the_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "runward.toml").write_text('databse_url = "topsecret"\n')

    with pytest.raises(ConfigurationError, match="databse_url") as refusal:
        Settings.load()

    assert "topsecret" not in str(refusal.value)


def test_file_that_is_no_toml_is_named(tmp_path: Path) -> None:
    (tmp_path / "runward.toml").write_text("= = =")

    with pytest.raises(ConfigurationError, match=r"runward\.toml"):
        Settings.load()


def test_named_file_must_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNWARD_CONFIG_FILE", "/nowhere/runward.toml")

    with pytest.raises(ConfigurationError, match="no such file"):
        Settings.load()


PATHS = ["key_file", "state_dir", "temporal_binary", "health_file"]


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("by", ["file", "environment", "argument"])
def test_a_path_may_begin_at_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, by: str
) -> None:
    given = {}
    if by == "file":
        (tmp_path / "runward.toml").write_text(f'{name} = "~/kept/it"\n')
    elif by == "environment":
        monkeypatch.setenv(f"RUNWARD_{name.upper()}", "~/kept/it")
    else:
        given = {name: Path("~/kept/it")}

    assert getattr(Settings.load(**given), name) == tmp_path / "kept" / "it"


def test_every_path_is_among_them() -> None:
    fields = Settings.model_fields.items()
    assert [name for name, one in fields if "Path" in str(one.annotation)] == PATHS


def test_temporal_follows_its_own_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEMPORAL_ADDRESS", "there:7233")
    monkeypatch.setenv("TEMPORAL_NAMESPACE", "theirs")

    assert temporal_connection(namespace="ours") == {
        "target_host": "there:7233",
        "namespace": "ours",
    }


@pytest.mark.parametrize(
    ("address", "compressed"),
    [
        ("localhost:7233", False),
        ("127.0.0.1:7233", False),
        ("[::1]:7233", False),
        ("localhost.example:7233", True),
        ("127.0.0.1.example:7233", True),
        ("10.0.0.1:7233", True),
    ],
)
def test_only_what_leaves_the_machine_is_compressed(address: str, compressed: bool) -> None:
    options = temporal_connection(address)

    assert (options.get("grpc_compression") is not GrpcCompression.NONE) == compressed


def test_temporal_has_a_default_only_where_guessing_is_fine() -> None:
    assert temporal_connection()["target_host"] == "localhost:7233"
    with pytest.raises(ConfigurationError, match="TEMPORAL_ADDRESS"):
        temporal_connection(default=None)


def test_unknown_profile_is_named() -> None:
    with pytest.raises(ConfigurationError, match="nobody"):
        temporal_connection(profile="nobody")


@pytest.mark.parametrize("dsn", ["ada:secret@h/d", "mysql://ada:secret@h/d", "postgres://h:x/d"])
def test_what_is_no_dsn_is_refused_without_being_shown(dsn: str) -> None:
    with pytest.raises(ConfigurationError, match="The setting 'database_url'") as refused:
        Settings.load(database_url=dsn)

    assert "secret" not in str(refused.value) and "Value error" not in str(refused.value)


@pytest.mark.parametrize(
    "dsn", ["postgres:///d?host=/tmp", "postgresql://u:p%40@h:1,[::1]:2,h/d", "postgresql://h"]
)
def test_every_form_of_a_dsn_is_taken(dsn: str) -> None:
    assert Settings.load(database_url=dsn).dsn == dsn


def test_every_setting_is_documented() -> None:
    said = (Path(__file__).parent.parent / "docs" / "settings.md").read_text()

    assert [one for one in Settings.model_fields if f"`RUNWARD_{one.upper()}`" not in said] == []
