"""Where each setting's value comes from, for people who wonder why it is what it is."""

from __future__ import annotations

import os
from dataclasses import dataclass

from pydantic import SecretStr
from pydantic_settings import TomlConfigSettingsSource
from temporalio.envconfig import ClientConfig

from runward.client.settings import ADDRESS_DEFAULT, Settings, config_file, temporal_connection

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


def origins() -> list[Origin]:
    """Returns every setting of runward, and Temporal's address and namespace."""
    settings = Settings.load()
    in_file = TomlConfigSettingsSource(Settings, toml_file=config_file())()
    found = [
        Origin(name, _shown(getattr(settings, name)), _origin(name, in_file))
        for name in Settings.model_fields
    ]
    return [*found, *_temporal()]


def _origin(name: str, in_file: dict[str, object]) -> str:
    variable = f"RUNWARD_{name.upper()}"
    if variable in {one.upper() for one in os.environ}:
        return variable
    return str(config_file()) if name in in_file else "default"


def _shown(value: object) -> str | None:
    if value is None:
        return None
    return "(set, not shown)" if isinstance(value, SecretStr) else str(value)


def _temporal() -> list[Origin]:
    holds = temporal_connection()
    chosen = ClientConfig.load_client_connect_config(disable_env=True)
    rows = []
    for name, (variable, key, default) in _TEMPORAL.items():
        if variable in os.environ:
            origin = variable
        else:
            origin = "temporal.toml" if key in chosen else "default"
        rows.append(Origin(f"temporal {name}", str(holds.get(key, default)), origin))
    return rows
