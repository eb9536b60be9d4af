"""An app by its name: `shop:app` is the `RunwardPlugin` that the module `shop` calls `app`."""

from __future__ import annotations

from runward.client.named import named
from runward.workers.plugin import RunwardPlugin


def load_app(name: str) -> RunwardPlugin:
    """Returns the plugin of that name; modules are found from the current folder, too.

    Raises ConfigurationError if there is none, or if the module raises.
    """
    return named(name, RunwardPlugin, what="app", made="RunwardPlugin(agents=[...])")
