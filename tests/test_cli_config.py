"""Settings changed by a command: one line of the file, and the rest of it as it was."""

from __future__ import annotations

import json
import os
import stat
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from runward.cli.main import app
from runward.client.config_file import put
from runward.client.settings import Settings
from runward.contracts.errors import ConfigurationError

FILE = b"""\
# Ours. Ask ada before you change it.
user = "ada"  # who runs the nightly job

task_queue = 'nights'\t# not the days'
retention_steps_days = 30
"""
DSN = "postgresql://runward:topsecret@db/runward"
NAMED = "It is 1 to 64 characters, the first a letter or a digit, the others also"


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of settings in the current folder, and no variables."""
    monkeypatch.chdir(tmp_path)
    for name in [one for one in os.environ if one.startswith(("RUNWARD_", "TEMPORAL_"))]:
        monkeypatch.delenv(name)
    (tmp_path / "runward.toml").write_bytes(FILE)
    return tmp_path / "runward.toml"


def config(*words: str, typed: str = "", **env: str) -> Result:
    done = CliRunner().invoke(app, ["config", *words], env=env, input=typed)
    assert done.exit_code == 0, (done.output, done.exception)
    return done


def test_one_line_is_changed_and_nothing_else(file: Path) -> None:
    config("set", "user", "bob")
    assert file.read_bytes() == FILE.replace(b'"ada"', b'"bob"')
    config("set", "tenant", "acme")
    assert file.read_bytes() == FILE.replace(b'"ada"', b'"bob"') + b'tenant = "acme"\n'
    config("delete", "tenant")
    config("set", "user", "ada")
    assert file.read_bytes() == FILE


def test_line_ends_stay_those_of_the_file(file: Path) -> None:
    theirs = FILE.replace(b"\n", b"\r\n")
    file.write_bytes(theirs)
    config("set", "user", "bob")

    assert file.read_bytes() == theirs.replace(b'"ada"', b'"bob"')


def test_a_value_has_the_type_of_its_setting(file: Path) -> None:
    given = {
        "retention_steps_days": ("7", 7),
        "sweep_every_s": ("2.5", 2.5),
        "state_dir": ("~/état", "~/état"),
        "user": ('a"\\b', 'a"\\b'),
        "database_url": (DSN, DSN),
    }
    for name, (typed, _) in given.items():
        config("set", name, typed)

    found = tomllib.loads(file.read_text(encoding="utf-8"))
    assert {name: found[name] for name in given} == {name: one for name, (_, one) in given.items()}
    assert Settings.load().dsn == DSN


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("tag_key", "short", "It has 5 characters, at least 16 are needed"),
        ("tag_key", "", "It has 0 characters, at least 16 are needed"),
        ("task_queue", "", "It is 1 to 200 printable characters"),
        ("tenant", "ac\nme", "It is 1 to 200 printable characters"),
        ("user", "a" * 201, "It is 1 to 200 printable characters"),
        ("codec", "nonsense", "'nonsense' is no name of one, such as shop:codec"),
        ("sweep_every_s", "inf", "It is no number"),
        ("sweep_every_s", "soon", "It is no number"),
        ("sweep_every_s", "1e-300", "It has to be at least 0.1"),
        ("sweep_every_s", "1e300", "It has to be at most 86400.0"),
        ("retention_steps_days", "1.5", "It is no whole number"),
        ("retention_content_days", "0", "It has to be at least 1"),
        ("retention_content_days", "36501", "It has to be at most 36500"),
        ("key_file", "", "It names no file: it is empty, or has a NUL character"),
        ("state_dir", "", "It names no file: it is empty, or has a NUL character"),
        ("health_file", "", "It names no file: it is empty, or has a NUL character"),
        ("temporal_binary", "", "It names no file: it is empty, or has a NUL character"),
        ("key_file", "~nobody-of-that-name/k", "Nothing says where that home is: write it in full"),
        ("temporal_ui_url", "localhost:8233", "It is no link: it begins with http:// or https://"),
        ("database_url", "postgres://h:65536/d", "Its port is no number up to 65535"),
        ("database_url", "postgres:///d?port=1,65536", "Its port is no number up to 65535"),
        ("deployment", "a b", f"{NAMED} _ and -"),
        ("build_id", "-1", f"{NAMED} _, -, . and +"),
    ],
)
def test_a_value_that_cannot_work_is_refused_wherever_it_comes_from(
    file: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, says: str
) -> None:
    refused = [CliRunner().invoke(app, ["config", "set", name, value]).exception]
    assert file.read_bytes() == FILE
    file.write_text(f"{name} = {json.dumps(value)}")
    refused.append(CliRunner().invoke(app, ["config", "list"]).exception)
    if value:  # an empty variable is not set
        monkeypatch.setenv(f"RUNWARD_{name.upper()}", value)
        refused.append(CliRunner().invoke(app, ["config", "list"]).exception)

    said = f"The setting {name!r}. {says}. See RUNWARD_* and runward.toml"
    assert [str(one) for one in refused] == [said] * len(refused)


@pytest.mark.parametrize("value", ["1979-05-27", "[1]", "{a = 1}", '"a\\u0000b"'])
@pytest.mark.parametrize("name", Settings.model_fields)
def test_no_setting_is_refused_in_words_of_pydantic(file: Path, name: str, value: str) -> None:
    file.write_text(f"{name} = {value}")
    with pytest.raises(ConfigurationError) as refused:
        Settings.load()

    assert str(refused.value).startswith(f"The setting {name!r}. ")
    assert "Input" not in str(refused.value) and "Value error" not in str(refused.value)


def test_a_secret_comes_from_stdin_and_is_not_shown(file: Path) -> None:
    file.unlink()
    said = config("set", "database_url", "-", typed=f"{DSN}\n")
    assert Settings.load().dsn == DSN
    assert stat.S_IMODE(file.stat().st_mode) == 0o600

    got, data = config("get", "database_url"), config("get", "database_url", "-o", "json")
    assert got.stdout == "(set, not shown)\n"
    assert "topsecret" not in said.output + got.output + data.output


def test_a_value_is_printed_with_where_it_comes_from() -> None:
    assert config("get", "task_queue").stdout == "nights\n"
    assert json.loads(config("get", "user", "-o", "json", RUNWARD_USER="eve").stdout) == {
        "name": "user",
        "value": "eve",
        "origin": "RUNWARD_USER",
    }
    assert config("get", "temporal namespace").stdout == "default\n"


def test_who_changes_what_a_variable_hides_is_told(file: Path) -> None:
    said = config("set", "user", "bob", RUNWARD_USER="eve").stderr

    assert f"Wrote user into {file}; RUNWARD_USER is set, and wins over the file" in said
    assert "RUNWARD" not in config("set", "user", "bob").stderr


def test_what_the_file_should_not_have_can_be_taken_out(file: Path) -> None:
    file.write_bytes(b'usr = "ada"\n' + FILE)
    assert CliRunner().invoke(app, ["config", "set", "user", "bob"]).exit_code == 1
    config("delete", "usr")

    assert file.read_bytes() == FILE


def test_a_link_stays_a_link_and_a_mode_stays_the_same(file: Path, tmp_path: Path) -> None:
    place = tmp_path / "shared.toml"
    file.rename(place)
    place.chmod(0o640)
    file.symlink_to(place)
    config("set", "user", "bob")

    assert file.is_symlink()
    assert place.read_bytes() == FILE.replace(b'"ada"', b'"bob"')
    assert stat.S_IMODE(place.stat().st_mode) == 0o640


def test_whoever_reads_meanwhile_reads_the_old_or_the_new(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    replace = Path.replace

    def looked(self: Path, target: Path) -> Path:
        seen.append((target, target.read_bytes(), self.read_bytes()))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", looked)
    put("user", "bob")

    assert seen == [(file, FILE, FILE.replace(b'"ada"', b'"bob"'))]


def test_names_of_settings_are_completed() -> None:
    env = {"_RUNWARD_COMPLETE": "complete_bash", "COMP_WORDS": "runward config set retention_"}
    done = CliRunner().invoke(app, [], env={**env, "COMP_CWORD": "3"}, prog_name="runward")

    assert done.stdout.split() == ["retention_content_days", "retention_steps_days"]
