"""Commands for whoever runs the installation: issuers, tickets, settings, doctor, a first app."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from runward.cli import checks
from runward.cli.main import app
from runward.client.keys import KeyFile
from runward.contracts.identity import Principal
from runward.testing import Addresses

TWO_PROVIDERS = """
from runward import Agent, RunwardPlugin

support = Agent("support", model="anthropic:claude-sonnet-4-5", fallback=["openai:gpt-5.1"])
app = RunwardPlugin(agents=[support])
"""

CODEC_ANSWERS_S = 2.0
PROFILES = """
[profile.default]
address = "first:1"
[profile.dev]
address = "dev:1"
namespace = "shops"
"""
CODECS = """
import asyncio
from temporalio.api.common.v1 import Payload
from temporalio.converter import PayloadCodec

class Whole(PayloadCodec):
    async def encode(self, payloads):
        return [Payload(data=one.SerializeToString()[::-1]) for one in payloads]
    async def decode(self, payloads):
        return [Payload.FromString(one.data[::-1]) for one in payloads]

class Raises(Whole):
    async def decode(self, payloads):
        raise KeyError("topsecret")

class Hangs(Whole):
    async def encode(self, payloads):
        await asyncio.sleep(3600)

class Nothing(Whole):
    async def encode(self, payloads):
        return None

class First(Whole):
    async def encode(self, payloads):
        return await super().encode(payloads[:1])

class Cuts(Whole):
    async def decode(self, payloads):
        found = await super().decode(payloads)
        return [Payload(metadata=one.metadata, data=one.data[:16384]) for one in found]

class Forgets(Whole):
    async def decode(self, payloads):
        return [Payload(data=one.data) for one in await super().decode(payloads)]

class Text(Whole):
    async def encode(self, payloads):
        return [Payload(data=one.data.decode().encode()) for one in payloads]

whole, raises, hangs, nothing = Whole(), Raises(), Hangs(), Nothing()
first, cuts, forgets, text = First(), Cuts(), Forgets(), Text()
"""


class Shell:
    """Runs commands in this process, with the settings of one stack."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder = folder
        self.settings = settings

    def __call__(self, *words: str, **settings: str) -> Result:
        return CliRunner().invoke(app, words, env={**self.settings, **settings})

    def data(self, *words: str) -> Any:
        done = self(*words, "-o", "json")
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)


@pytest.fixture
def runward(
    tmp_path: Path, servers: Addresses, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Shell]:
    monkeypatch.chdir(tmp_path)
    yield Shell(
        tmp_path,
        TEMPORAL_ADDRESS=servers.temporal,
        RUNWARD_DATABASE_URL=database_url,
        RUNWARD_KEY_FILE=str(tmp_path / "my.key"),
    )


def failed(done: Result) -> str:
    """Returns the message of the error that ended the command."""
    assert done.exception is not None
    return str(done.exception)


def test_a_key_is_made_registered_listed_and_revoked(runward: Shell) -> None:
    made = runward.data("issuers", "add", "my.key", "--create", "--tenant", "acme", "--role", "*")
    assert (made["tenants"], made["roles"], made["operations"]) == (
        ["acme"],
        ["*"],
        ["start", "decide"],
    )
    who = runward.data("whoami", "--as", "ada", "--tenant", "acme")
    assert (who["kid"], who["key_is"]) == (made["kid"], "registered for acme")

    assert "--yes" in runward("issuers", "revoke", made["kid"]).output
    assert runward("issuers", "revoke", made["kid"], "--yes").exit_code == 0
    (listed,) = [one for one in runward.data("issuers", "list") if one["kid"] == made["kid"]]
    assert listed["revoked"]
    assert runward.data("whoami", "--as", "ada", "--tenant", "acme")["key_is"] == "revoked"
    said = failed(runward("issuers", "add", "my.key", "--tenant", "acme", "--role", "*"))
    assert "It was revoked. Make another key: `runward issuers add PATH --create" in said
    looked = json.loads(runward("doctor", "-o", "json").stdout)
    (fix,) = [one["fix"] for one in looked if one["name"] == "issuer"]
    assert fix == "runward issuers add PATH --create --tenant NAME"
    assert "None of that id" in failed(runward("issuers", "revoke", "nobody", "--yes"))


def test_no_key_is_made_where_it_could_not_be_registered(runward: Shell) -> None:
    words = ("issuers", "add", "my.key", "--create", "--tenant", "acme")
    assert "It is no DSN" in failed(runward(*words, RUNWARD_DATABASE_URL="none"))
    assert "start or decide" in runward(*words, "--operation", "admin").output
    assert not (runward.folder / "my.key").exists()


def test_a_ticket_says_what_it_is_good_for(runward: Shell) -> None:
    runward.data("issuers", "add", "my.key", "--create", "--tenant", "acme")
    key = KeyFile("my.key")
    ada = Principal("acme", "ada")
    said = runward.data("ticket", "inspect", key.ticket(ada, "start", subject="w-1", digest="d"))
    assert (said["user"], said["tenant"], said["operation"], said["for"]) == (
        "ada",
        "acme",
        "start",
        "w-1",
    )
    other = key.ticket(Principal("globex", "eve"), "start", subject="w-1", digest="d")
    assert "may not speak for that tenant" in failed(runward("ticket", "inspect", other))
    assert "not a signed token" in failed(runward("ticket", "inspect", "hello"))


def test_settings_are_listed_with_their_origin_and_without_secrets(runward: Shell) -> None:
    (runward.folder / "runward.toml").write_text('task_queue = "mine"\nuser = "file"\n')
    done = runward("config", "list", "--show-origin", "-o", "json", RUNWARD_USER="ada")
    found = {one["name"]: (one["value"], one["origin"]) for one in json.loads(done.stdout)}
    assert found["user"] == ("ada", "RUNWARD_USER")
    assert found["task_queue"] == ("mine", "runward.toml")
    assert found["tenant"] == (None, "default")
    assert found["database_url"] == ("(set, not shown)", "RUNWARD_DATABASE_URL")
    assert found["temporal address"][1] == "TEMPORAL_ADDRESS"
    assert runward.settings["RUNWARD_DATABASE_URL"] not in done.stdout


@pytest.mark.parametrize(
    ("words", "variables", "address", "namespace"),
    [
        ([], {}, ("first:1", "FILE"), ("default", "default")),
        (
            ["--profile", "dev"],
            {},
            ("dev:1", "FILE, profile 'dev'"),
            ("shops", "FILE, profile 'dev'"),
        ),
        (
            [],
            {"TEMPORAL_PROFILE": "dev"},
            ("dev:1", "FILE, profile 'dev'"),
            ("shops", "FILE, profile 'dev'"),
        ),
        (
            ["--profile", "default"],
            {"TEMPORAL_PROFILE": "dev"},
            ("first:1", "FILE, profile 'default'"),
            ("default", "default"),
        ),
        (
            ["--profile", "dev"],
            {"TEMPORAL_ADDRESS": "mine:1"},
            ("mine:1", "TEMPORAL_ADDRESS"),
            ("shops", "FILE, profile 'dev'"),
        ),
        (
            [],
            {"TEMPORAL_ADDRESS": "", "TEMPORAL_NAMESPACE": ""},
            ("first:1", "FILE"),
            ("default", "default"),
        ),
    ],
)
def test_a_flag_chooses_the_profile_before_a_variable_and_variables_beat_what_it_says(
    runward: Shell,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    variables: dict[str, str],
    address: tuple[str, str],
    namespace: tuple[str, str],
) -> None:
    file = runward.folder / "temporal.toml"
    file.write_text(PROFILES)
    for name in ("TEMPORAL_ADDRESS", "TEMPORAL_NAMESPACE", "TEMPORAL_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    runward.settings = {"TEMPORAL_CONFIG_FILE": str(file), **variables}
    rows = runward.data("config", "list", "--show-origin", *words)
    found = {one["name"]: (one["value"], one["origin"].replace(str(file), "FILE")) for one in rows}
    assert (found["temporal address"], found["temporal namespace"]) == (address, namespace)


def test_a_healthy_installation_has_nothing_that_fails(runward: Shell) -> None:
    runward.data("issuers", "add", "my.key", "--create", "--tenant", "acme")
    found = {one["name"]: one for one in runward.data("doctor", "--tenant", "acme")}
    assert {one["name"] for one in found.values() if one["state"] == "fail"} == set()
    for name in ("address", "temporal", "namespace", "database", "clock", "issuer", "disk"):
        assert found[name]["state"] == "ok", found[name]
    assert found["workers"]["state"] == "warn"  # nobody polls this queue


def test_room_is_looked_for_where_data_would_be(
    runward: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not in the current folder, which may be on another disk."""
    looked = list[Path]()

    def usage(path: Path) -> SimpleNamespace:
        looked.append(path)
        return SimpleNamespace(free=0)

    monkeypatch.setattr("runward.cli.checks.shutil.disk_usage", usage)
    done = runward("doctor", "-o", "json", RUNWARD_STATE_DIR="/no/such/disk")

    assert looked == [Path("/")]
    assert {one["name"]: one["state"] for one in json.loads(done.stdout)}["disk"] == "warn"


@pytest.mark.parametrize(
    ("settings", "check", "fix"),
    [
        ({"TEMPORAL_ADDRESS": "no.such.host.invalid:7233"}, "address", "TEMPORAL_ADDRESS"),
        ({"TEMPORAL_NAMESPACE": "nowhere"}, "namespace", "namespace create"),
        ({"RUNWARD_DATABASE_URL": "postgresql://127.0.0.1:1/d"}, "database", "Start it"),
        ({"TEMPORAL_ADDRESS": "localhost"}, "address", "TEMPORAL_ADDRESS=localhost:7233"),
        ({"TEMPORAL_ADDRESS": f"{'a' * 64}.org:1"}, "address", "Correct TEMPORAL_ADDRESS"),
        ({"RUNWARD_KEY_FILE": "none.key"}, "issuer", "Make one"),
        ({"RUNWARD_CODEC": "no_codec:codec"}, "codec", "Run it from the folder"),
    ],
)
def test_what_is_wrong_is_named(
    runward: Shell, settings: dict[str, str], check: str, fix: str
) -> None:
    done = runward("doctor", "-o", "json", **settings)
    assert done.exit_code == 1
    found = {one["name"]: one for one in json.loads(done.stdout)}
    assert found[check]["state"] == "fail"
    assert fix in found[check]["fix"]


@pytest.mark.parametrize(
    ("name", "state", "found"),
    [
        ("whole", "ok", "3 payloads came back as they were"),
        ("raises", "fail", "shop_codecs:raises raised KeyError"),
        ("hangs", "fail", "it did not answer in"),
        ("nothing", "fail", "shop_codecs:nothing raised TypeError"),
        ("first", "fail", "other payloads came back"),
        ("cuts", "fail", "other payloads came back"),
        ("forgets", "fail", "other payloads came back"),
        ("text", "fail", "shop_codecs:text raised UnicodeDecodeError"),
    ],
)
def test_a_codec_that_does_not_give_back_what_it_got_is_named(
    runward: Shell, monkeypatch: pytest.MonkeyPatch, name: str, state: str, found: str
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(checks, "WAIT_S_MAX", CODEC_ANSWERS_S)
    (runward.folder / "shop_codecs.py").write_text(CODECS)
    done = runward("doctor", "-o", "json", RUNWARD_CODEC=f"shop_codecs:{name}")
    del sys.modules["shop_codecs"]
    (codec,) = [one for one in json.loads(done.stdout) if one["name"] == "codec"]
    assert (codec["state"], found in codec["found"]) == (state, True), codec
    assert "topsecret" not in done.output
    assert (codec["fix"] is None) == (state == "ok")


def test_settings_of_temporal_that_cannot_be_read_keep_nothing_else_from_its_check(
    runward: Shell,
) -> None:
    (runward.folder / "temporal.toml").write_text("[profile.default]\napi_key = topsecret\n")
    done = runward("doctor", "-o", "json", TEMPORAL_CONFIG_FILE="temporal.toml")
    found = {one["name"]: one for one in json.loads(done.stdout)}
    assert (done.exit_code, found["address"]["state"]) == (1, "fail")
    assert found["address"]["fix"] == "Check TEMPORAL_* and temporal.toml"
    assert "temporal" not in found
    assert found["database"]["state"] == "ok"
    assert "topsecret" not in done.output


def test_what_cannot_be_asked_in_a_namespace_that_is_not_there_is_left(runward: Shell) -> None:
    done = runward("doctor", "-o", "json", "--namespace", "nowhere")
    found = {one["name"]: one["state"] for one in json.loads(done.stdout)}
    assert found["namespace"] == "fail"
    assert found.keys().isdisjoint(("search attributes", "workers"))


@pytest.mark.parametrize(
    ("settings", "state", "fix"),
    [
        ({}, "fail", "export ANTHROPIC_API_KEY=... OPENAI_API_KEY=..."),
        ({"ANTHROPIC_API_KEY": "a key"}, "fail", "export OPENAI_API_KEY=..."),
        ({"ANTHROPIC_AUTH_TOKEN": "a token", "OPENAI_API_KEY": "a key"}, "ok", None),
    ],
)
def test_a_model_and_its_fallbacks_need_keys(
    runward: Shell,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, str],
    state: str,
    fix: str | None,
) -> None:
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (runward.folder / "two_providers.py").write_text(TWO_PROVIDERS)
    done = runward("doctor", "-o", "json", "--app", "two_providers:app", **settings)
    found = {one["name"]: one for one in json.loads(done.stdout)}
    assert (found["provider keys"]["state"], found["provider keys"]["fix"]) == (state, fix)


async def test_an_old_schema_is_named(empty_database_url: str, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "runward.cli.main", "doctor", "-o", "json"]
    words += ["--database-url", empty_database_url, "--key-file", str(tmp_path / "none.key")]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path)  # noqa: ASYNC221
    found = {one["name"]: one for one in json.loads(done.stdout)}
    assert (done.returncode, found["database"]["fix"]) == (1, "runward db migrate")


def test_a_first_app_is_made_once(runward: Shell) -> None:
    assert runward("init", "shop").exit_code == 0
    folder = runward.folder / "shop"
    assert sorted(one.name for one in folder.iterdir()) == ["app.py", "test_app.py"]
    text = (folder / "app.py").read_text()
    assert "app.py is there already" in failed(runward("init", "shop"))
    assert (folder / "app.py").read_text() == text


@pytest.mark.parametrize(("folder", "enters"), [(".", False), ("my shop", True)])
def test_a_first_app_elsewhere_says_where_to_go(runward: Shell, folder: str, enters: bool) -> None:
    told = runward("init", folder).stderr
    assert ("  cd 'my shop'\n  runward dev --app" in told) is enters
    assert ("  cd " in told) is enters


def test_a_first_app_can_be_loaded(runward: Shell) -> None:
    runward("init", "shop")
    shop = runward.folder / "shop"
    words = [sys.executable, "-m", "runward.cli.main", "tools", "list", "--app", "app:app"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=shop, check=True)
    assert [one.split("\t")[0] for one in done.stdout.splitlines()] == ["lookup_order", "refund"]
