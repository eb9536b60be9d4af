"""Settings: `RUNWARD_*` variables, then `runward.toml`. Temporal's own are read by its SDK.

Temporal's address, namespace, TLS and API key come from TEMPORAL_* variables and profiles as for
every other Temporal tool; runward has no names of its own for them.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from pydantic import AfterValidator, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from runward.client.named import is_name
from runward.contracts import names
from runward.contracts.errors import ConfigurationError
from runward.contracts.spelling import did_you_mean, nearest
from runward.contracts.wording import worded

CONFIG_FILE_VARIABLE = "RUNWARD_CONFIG_FILE"
CONFIG_FILE = "runward.toml"
NO_SUCH_SETTING = "There is none of that name"
ADDRESS_DEFAULT = "localhost:7233"
STATE_DIR_DEFAULT = Path(".runward")
SWEEP_EVERY_S_DEFAULT = 60.0
SWEEP_EVERY_S_MIN = 0.1  # below it workers would do nothing but sweep
SWEEP_EVERY_S_MAX = 86_400.0  # above it holds that nobody settles would block budgets for days
RETENTION_DAYS_MAX = 36_500
TAG_KEY_CHARS_MIN = 16  # below it the key can be tried as well as the names
WORD_CHARS_MAX = 200  # of a user, a tenant, a role: all of them must fit into one ticket
# As Temporal's server wants them. Both are written into the events of every step.
_DEPLOYMENT = r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}"
_BUILD_ID = r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}"
_CHARS = "It is 1 to 64 characters, the first a letter or a digit, the others also"
_LINK, _NO_LINK = r"https?://[^/\s]\S*", "It is no link: it begins with http:// or https://"
# Compressing what stays on this machine took 1.3 % of all CPU at saturation.
_LOOPBACK = re.compile(r"(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d+)?\Z")
_PORT = re.compile(r"(\]|^[^:\[]*)(:(\d+))?$", re.ASCII)  # one host may be an address in brackets
_PORT_MAX = 65_535


def _formed(pattern: str, says: str) -> AfterValidator:
    """Returns the check that a text has this form; pydantic's own would print the pattern."""

    def checked(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(says)
        return value

    return AfterValidator(checked)


class Deployment(NamedTuple):
    """Which build of which deployment a versioned worker is."""

    name: str
    build_id: str


class Settings(BaseSettings):
    """What runward itself needs to know; every field can be a variable or a line in the file."""

    model_config = SettingsConfigDict(
        env_prefix="RUNWARD_", env_ignore_empty=True, extra="forbid", frozen=True
    )

    database_url: SecretStr | None = None
    key_file: Path | None = None
    task_queue: str = names.TASK_QUEUE
    state_dir: Path = STATE_DIR_DEFAULT
    temporal_binary: Path | None = None
    temporal_ui_url: Annotated[str, _formed(_LINK, _NO_LINK)] | None = None
    user: str | None = None
    tenant: str | None = None
    # The same for all clients of a namespace. Under another one a run's `key` makes another run.
    tag_key: SecretStr | None = None
    health_file: Path | None = None
    codec: str | None = None  # your PayloadCodec as module:name
    sweep_every_s: float = Field(
        SWEEP_EVERY_S_DEFAULT, ge=SWEEP_EVERY_S_MIN, le=SWEEP_EVERY_S_MAX, allow_inf_nan=False
    )
    # For how many days after its end a run keeps what was said, and its steps; unset is for ever.
    # Under a day the store refuses to delete.
    retention_content_days: int | None = Field(None, ge=1, le=RETENTION_DAYS_MAX)
    retention_steps_days: int | None = Field(None, ge=1, le=RETENTION_DAYS_MAX)

    # Both make versioned workers, neither makes workers without a version.
    deployment: Annotated[str, _formed(_DEPLOYMENT, f"{_CHARS} _ and -")] | None = None
    build_id: Annotated[str, _formed(_BUILD_ID, f"{_CHARS} _, -, . and +")] | None = None

    @field_validator("*", mode="before")
    @classmethod
    def _is_text(cls, value: object) -> object:
        """Refuses a variable's bytes that are no text here: they would be half characters."""
        if isinstance(value, str):
            try:
                value.encode()
            except UnicodeError:
                raise ValueError("It is no text in this terminal's encoding") from None
        return value

    @field_validator("task_queue", "user", "tenant")
    @classmethod
    def _is_a_word(cls, value: str | None) -> str | None:
        if value is not None and not is_word(value):
            raise ValueError(f"It is 1 to {WORD_CHARS_MAX} printable characters")
        return value

    @field_validator("key_file", "state_dir", "temporal_binary", "health_file", mode="before")
    @classmethod
    def _can_be_a_path(cls, value: object) -> object:
        """Refuses what no file is called; an empty path would be the folder that one is in."""
        if value == "" or "\0" in str(value):
            raise ValueError("It names no file: it is empty, or has a NUL character")
        return value

    @field_validator("key_file", "state_dir", "temporal_binary", "health_file")
    @classmethod
    def _home_is_meant(cls, value: Path | None) -> Path | None:
        """Returns the path with `~` spelled out: no shell does that in a file of settings."""
        try:
            return value and value.expanduser()
        except RuntimeError:
            raise ValueError("Nothing says where that home is: write it in full") from None

    @field_validator("tag_key")
    @classmethod
    def _cannot_be_tried(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value) < TAG_KEY_CHARS_MIN:
            raise ValueError(
                f"It has {len(value)} characters, at least {TAG_KEY_CHARS_MIN} are needed"
            )
        return value

    @field_validator("codec")
    @classmethod
    def _is_a_name(cls, value: str | None) -> str | None:
        if value is not None and not is_name(value):
            raise ValueError(f"{value!r} is no name of one, such as shop:codec")
        return value

    @field_validator("database_url")
    @classmethod
    def _is_a_dsn(cls, value: SecretStr | None) -> SecretStr | None:
        """Refuses early what the driver would refuse late, and with a traceback."""
        if value is not None:
            text = value.get_secret_value()
            parts = urlsplit(text)
            if parts.scheme not in ("postgres", "postgresql"):
                raise ValueError("It is no DSN: it begins with postgresql://")
            hosts = parts.netloc.rpartition("@")[2]
            queried = ",".join(parse_qs(parts.query).get("port", ()))
            ports = [_PORT.search(one) for one in hosts.split(",")]
            ports += [_PORT.search(f":{one}") for one in filter(None, queried.split(","))]
            if not all(one and int(one[3] or 0) <= _PORT_MAX for one in ports):
                raise ValueError(f"Its port is no number up to {_PORT_MAX}")
        return value

    @classmethod
    def load(cls, **given: Any) -> Settings:
        """Returns the settings; what is given here and not None wins over variables and file."""
        try:
            return cls(**{key: value for key, value in given.items() if value is not None})
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"])) or "settings"
            said = worded(error)
            instead = f"See RUNWARD_* and {config_file()}"
            if first["type"] == "extra_forbidden":
                near = did_you_mean(nearest(where, cls.model_fields))
                said, instead = NO_SUCH_SETTING, f"{near} {instead}".lstrip()
            raise ConfigurationError(f"The setting {where!r}", said, instead) from None
        except ValueError as error:  # a TOML file that is none
            asked = f"The file {str(config_file())!r}"
            raise ConfigurationError(asked, str(error), "Mend that line") from error

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Returns the sources, strongest first."""
        file = TomlConfigSettingsSource(settings_cls, toml_file=config_file())
        return init_settings, env_settings, file

    @property
    def dsn(self) -> str | None:
        """Returns the store's DSN in the clear, None if there is none."""
        return self.database_url.get_secret_value() if self.database_url else None

    @property
    def version(self) -> Deployment | None:
        """Returns which build of which deployment workers are, None if they have no version."""
        if self.deployment is not None and self.build_id is not None:
            return Deployment(self.deployment, self.build_id)
        if self.deployment is None and self.build_id is None:
            return None
        named = (
            f"a deployment, {self.deployment!r}"
            if self.deployment
            else f"a build, {self.build_id!r}"
        )
        raise ConfigurationError(
            "A versioned worker",
            f"The settings name {named}, and not the other of the two",
            "Give both --deployment and --build-id (RUNWARD_DEPLOYMENT, RUNWARD_BUILD_ID), or none",
        )


def is_word(text: str) -> bool:
    """Returns whether the text can name a user, a tenant, a role or a task queue."""
    return 0 < len(text) <= WORD_CHARS_MAX and text.isprintable()


def config_file() -> Path:
    """Returns the file that settings are read from; it need not exist."""
    named = os.environ.get(CONFIG_FILE_VARIABLE)
    if not named:
        return Path(CONFIG_FILE)
    path = Path(named).expanduser()
    if not path.is_file():
        raise ConfigurationError(
            f"{CONFIG_FILE_VARIABLE}={named!r}", "There is no such file", "Correct or unset it"
        )
    return path


def temporal_connection(
    address: str | None = None,
    *,
    namespace: str | None = None,
    profile: str | None = None,
    default: str | None = ADDRESS_DEFAULT,
) -> dict[str, Any]:
    """Returns the keywords for `Client.connect`: what is given, then environment, then profile.

    `default` is the address where none of them has one; with None that is an error.
    """
    # Here and not above: whoever reads the store only need not load Temporal's SDK.
    from temporalio.service import GrpcCompression

    found = _configured(profile)
    if address is not None:
        found["target_host"] = address
    if namespace is not None:
        found["namespace"] = namespace
    if "target_host" not in found:
        if default is None:
            raise ConfigurationError(
                "Temporal's address",
                "No setting names one",
                "Set TEMPORAL_ADDRESS, or an address in temporal.toml",
            )
        found["target_host"] = default
    if "://" in found["target_host"]:
        raise ConfigurationError(
            f"Temporal's address {found['target_host']!r}",
            "It has the form of a link",
            "Name it as host:port; TEMPORAL_TLS=true is for TLS",
        )
    if _LOOPBACK.match(found["target_host"]):
        found["grpc_compression"] = GrpcCompression.NONE
    return found


def temporal_file() -> str:
    """Returns the name of the file that has Temporal's profiles; it need not exist."""
    return os.environ.get("TEMPORAL_CONFIG_FILE") or "temporal.toml"


def _configured(profile: str | None) -> dict[str, Any]:
    """Returns what Temporal's variables and that profile say; an empty variable says nothing."""
    from temporalio.envconfig import ClientConfig

    # Picked out here: the SDK panics over any variable at all that is no UTF-8.
    given = {key: it for key, it in os.environ.items() if it and key.startswith("TEMPORAL_")}
    try:
        return {**ClientConfig.load_client_connect_config(profile, override_env_vars=given)}
    except (RuntimeError, OSError, ValueError) as error:
        # Not chained, and its first line only: the others may quote an API key.
        holds = str(error).partition("\n")[0].removeprefix("Configuration loading error: ")
        instead = f"Check TEMPORAL_* and {temporal_file()}"
        if holds.startswith("Profile "):
            instead = f"{_profiles()}. {instead}"
        raise ConfigurationError("Temporal's connection settings", holds, instead) from None


def _profiles() -> str:
    from temporalio.envconfig import ClientConfig

    names = sorted(ClientConfig.load().profiles)
    return f"There are {', '.join(map(repr, names))}" if names else "There is none"
