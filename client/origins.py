"""Where each setting's value comes from, for people who wonder why it is what it is."""

from __future__ import annotations

import os
from dataclasses import dataclass

from pydantic import SecretStr
from pydantic_settings import TomlConfigSettingsSource
from temporalio.envconfig import ClientConfig

from runward.client.settings import (
    ADDRESS_DEFAULT,
    Settings,
    config_file,
    temporal_connection,
    temporal_file,
)

_TEMPORAL = {
    "address": ("TEMPORAL_ADDRESS", "target_host", ADDRESS_DEFAULT),
    "namespace": ("TEMPORAL_NAMESPACE", "namespace", "default"),
}


@dataclass(frozen=True, slots=True)
class Origin:
    """A setting as it holds now. Secrets are never shown; `value` is None where nothing is set."""

    name: str
    value: str | None
    origin: str


def origins(profile: str | None = None) -> list[Origin]:
    """Returns every setting of runward, and Temporal's address and namespace under that profile."""
    settings = Settings.load()
    in_file = TomlConfigSettingsSource(Settings, toml_file=config_file())()
    found = [
        Origin(name, _shown(getattr(settings, name)), _origin(name, in_file))
        for name in Settings.model_fields
    ]
    return [*found, *_temporal(profile)]


def _origin(name: str, in_file: dict[str, object]) -> str:
    variable = f"RUNWARD_{name.upper()}"
    if variable in {one.upper() for one in os.environ}:
        return variable
    return str(config_file()) if name in in_file else "default"


def _shown(value: object) -> str | None:
    if value is None:
        return None
    return "(set, not shown)" if isinstance(value, SecretStr) else str(value)


def _temporal(profile: str | None) -> list[Origin]:
    holds = temporal_connection(profile=profile)
    # Without variables the SDK does not look at this one, either.
    profile = profile or os.environ.get("TEMPORAL_PROFILE") or None
    chosen = ClientConfig.load_client_connect_config(profile, disable_env=True)
    where = f"{temporal_file()}, profile {profile!r}" if profile else temporal_file()
    rows = []
    for name, (variable, key, default) in _TEMPORAL.items():
        origin = where if chosen.get(key) else "default"
        if os.environ.get(variable):
            origin = variable
        rows.append(Origin(f"temporal {name}", str(holds.get(key, default)), origin))
    return rows
