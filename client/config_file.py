"""The file of settings, changed by a command: one setting, and nothing else that is in it."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import tomlkit
from pydantic import SecretStr
from tomlkit.exceptions import TOMLKitError

from runward.client.settings import NO_SUCH_SETTING, Settings, config_file
from runward.contracts.errors import ConfigurationError, NotFound
from runward.contracts.spelling import did_you_mean, nearest

LIST_SETTINGS = "`runward config list` has them all"


def put(name: str, value: str) -> Path:
    """Writes the setting and returns the file; a value that cannot work is refused before.

    Raises ConfigurationError, also for what else is wrong in the file, and NotFound.
    """
    known(name, list(Settings.model_fields))
    found = getattr(Settings.load(**{name: value}), name)
    document = _document()
    if isinstance(found, SecretStr):
        found = found.get_secret_value()
    document[name] = value if isinstance(found, Path) else found  # `~` stays as it was written
    return _replaced(document)


def remove(name: str) -> Path:
    """Takes the setting out of the file, also one that should not be there; returns the file.

    Raises NotFound where the file does not have it, and ConfigurationError.
    """
    document = _document()
    if name not in document:
        holds = f"It is not in {str(config_file())!r}"
        raise NotFound(f"The setting {name!r}", holds, LIST_SETTINGS)
    del document[name]
    return _replaced(document)


def known(name: str, names: list[str]) -> None:
    """Raises NotFound, with the nearest name, for a setting that is none of these."""
    if name not in names:
        near = did_you_mean(nearest(name, names)) or LIST_SETTINGS
        raise NotFound(f"The setting {name!r}", NO_SUCH_SETTING, near)


def _document() -> tomlkit.TOMLDocument:
    path = config_file()
    try:
        with path.open(encoding="utf-8", newline="") as file:  # its line ends stay its own
            return tomlkit.parse(file.read())
    except FileNotFoundError:
        return tomlkit.document()
    except (TOMLKitError, UnicodeDecodeError) as error:
        asked, holds = f"The file {str(path)!r}", f"It is no TOML: {error}"
        raise ConfigurationError(asked, holds, "Mend that line") from error


def _replaced(document: tomlkit.TOMLDocument) -> Path:
    """Puts the document in the place of the file at once; a link stays a link. Errors: OSError."""
    path = config_file().resolve()
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # for its owner only
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as made:
            made.write(tomlkit.dumps(document))
            made.flush()
            os.fsync(handle)
        if path.exists():
            shutil.copymode(path, name)
        Path(name).replace(path)
    except OSError as error:
        Path(name).unlink()
        raise OSError(error.errno, error.strerror, str(path)) from error
    return path
