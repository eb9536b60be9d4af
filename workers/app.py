"""An app by its name: `shop:app` is the `RunwardPlugin` that the module `shop` calls `app`."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

from runward.contracts.errors import ConfigurationError
from runward.workers.plugin import RunwardPlugin

FORM = "Name it as module:name, such as shop:app"


def load_app(name: str) -> RunwardPlugin:
    """Returns the plugin of that name; modules are found from the current folder, too.

    Raises ConfigurationError if there is none. An error inside the module passes as it is, with
    the traceback that leads to its line.
    """
    module_name, _, path = name.partition(":")
    parts = (*module_name.split("."), *path.split("."))
    if not all(one.isidentifier() for one in parts):
        raise ConfigurationError(f"The app {name!r}", "That is no name of an app", FORM)
    found: object = _module(name, module_name)
    module = found
    for one in path.split("."):
        found = getattr(found, one, None)
    if isinstance(found, RunwardPlugin):
        return found
    holds = f"{path!r} is {_kind(found)}" if found is not None else f"It has no {path!r}"
    raise ConfigurationError(f"The app {name!r}", holds, _instead(module_name, module))


def _module(name: str, module_name: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if not f"{module_name}.".startswith(f"{error.name}."):
            raise  # found, but something that it imports is missing
        raise ConfigurationError(
            f"The app {name!r}",
            f"There is no module {error.name!r} in {here!r} or among the installed packages",
            "Run it from the folder that holds the module, or install it",
        ) from error


def _kind(found: object) -> str:
    return f"of type {type(found).__name__}, not RunwardPlugin"


def _instead(module_name: str, module: object) -> str:
    apps = [key for key, value in vars(module).items() if isinstance(value, RunwardPlugin)]
    if apps:
        return "It has " + ", ".join(f"{module_name}:{one}" for one in apps)
    return f"Make one: app = RunwardPlugin(agents=[...]) in {module_name}"
