"""The file in which a worker says how it is, for `runward health` and whoever else can read JSON.

It is replaced, never written in place, and every other second: one that is old belongs to a worker
that hangs, or has gone.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from runward.contracts.errors import ConfigurationError

Server = Literal["store", "temporal"]

STALE_S = 15.0


@dataclass(frozen=True, slots=True)
class ServerState:
    """Whether a server answers, since when (ISO 8601), and why not."""

    up: bool
    since: str
    reason: str = ""

    @classmethod
    def now(cls, *, up: bool, reason: str = "") -> ServerState:
        """Returns a state that begins now."""
        return cls(up, datetime.now(UTC).isoformat(timespec="seconds"), reason)


@dataclass(frozen=True, slots=True)
class WorkerHealth:
    """How one worker process is; `at` is when it said so."""

    pid: int
    store: ServerState
    temporal: ServerState
    draining: bool
    at: float

    @property
    def alive(self) -> bool:
        """Returns whether the process has written lately: its event loop runs."""
        return time.time() - self.at < STALE_S

    @property
    def ready(self) -> bool:
        """Returns whether it takes work and can do it."""
        return self.alive and not self.draining and self.store.up and self.temporal.up


def write(path: Path, health: WorkerHealth) -> None:
    """Replaces the file. Errors: OSError."""
    made = path.with_name(f"{path.name}.new")
    made.write_text(json.dumps(asdict(health)))
    made.replace(path)


def read(path: Path) -> list[WorkerHealth]:
    """Returns what is in the file, and in those beside it that several processes write.

    Raises ConfigurationError for a file that no worker wrote, and OSError.
    """
    files = [path, *sorted(path.parent.glob(f"{path.name}.[0-9]*"))]
    return [_parsed(one) for one in files if one.is_file()]


def _parsed(file: Path) -> WorkerHealth:
    try:
        said = json.loads(file.read_text())
        states = {name: ServerState(**said[name]) for name in ("store", "temporal")}
        return WorkerHealth(**{**said, **states})
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigurationError(
            f"The health file {str(file)!r}",
            "A worker of this release has not written what is in it",
            "Name the file that workers write: --file, RUNWARD_HEALTH_FILE",
        ) from error
