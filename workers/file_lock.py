"""One holder at a time for a folder on this machine, across processes.

The kernel drops the lock when the last process that has the descriptor ends, so a crash never
leaves it behind. The holder's pid in the file is there for people, not for the decision.
"""

import asyncio
import fcntl
import os
import time
from pathlib import Path
from typing import Self

from runward.contracts.errors import ConfigurationError

POLL_S = 0.05
SERVER_S_MAX = 5.0  # an ended process's guardian may still be stopping its server


class LockHeld(RuntimeError):
    """Another process holds the lock."""

    def __init__(self, path: Path, holder: str) -> None:
        super().__init__(f"{str(path)!r} is held by process {holder or 'unknown'}")
        self.holder = holder


class FileLock:
    """A lock on `path`; `descriptor` may be handed to a child that is to hold it as well."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    @classmethod
    async def acquire(cls, path: Path, *, wait_s_max: float) -> Self:
        """Return the held lock, waiting up to `wait_s_max` for it; raise `LockHeld` after that."""
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        deadline = time.monotonic() + wait_s_max
        try:
            while not _try_lock(descriptor):
                if time.monotonic() >= deadline:
                    raise LockHeld(path, os.pread(descriptor, 32, 0).decode(errors="replace"))
                await asyncio.sleep(POLL_S)
        except BaseException:
            os.close(descriptor)
            raise
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        return cls(descriptor)

    def release(self) -> None:
        """Give up our share; a child that was handed the descriptor keeps its own."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


async def server_lock(path: Path, server: str) -> FileLock:
    """Return the lock of a server's folder; raise ConfigurationError while another one has it."""
    try:
        return await FileLock.acquire(path, wait_s_max=SERVER_S_MAX)
    except LockHeld as error:
        raise ConfigurationError(
            f"The {server} in {str(path.parent)!r}",
            f"It is in use by process {error.holder}",
            "Stop that one, or use another state folder",
        ) from error


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
