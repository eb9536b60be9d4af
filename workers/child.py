"""Child processes that end with us: after a stop, after an exit, and after `kill -9`.

Between us and each child stands a guardian (`guardian.py`) that waits for the end of a pipe only we
hold. A parent-death signal alone would not do: a change of user clears it, it fires when the
forking *thread* ends, and macOS has none.
"""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

GUARDIAN = Path(__file__).with_name("guardian.py")
GUARDIAN_MARGIN_S = 5.0  # beyond the child's own time to stop, before the guardian is killed
LOG_TAIL_BYTES = 4096


class ChildFailed(RuntimeError):
    """A child process did not start or ended early; the message ends with the tail of its log."""


@dataclass(frozen=True, kw_only=True)
class ChildOrder:
    """What to run and how to end it. `argv[0]` is a path; `log` takes stdout and stderr."""

    argv: Sequence[str]
    log: Path = Path(os.devnull)
    our_output: bool = False  # the child writes to our own stdout and stderr, not to a log
    env: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    cwd: Path = Path("/")
    user: int | None = None  # uid and gid to become; needs root
    stop_signal: signal.Signals = signal.SIGTERM
    stop_wait_s_max: float = 10.0  # then SIGKILL
    held: Sequence[int] = ()  # descriptors (locks) that stay open until the child has ended
    remove: Sequence[Path] = ()  # folders that go once the child was stopped, by us or our death


class Child:
    """A running child process with its guardian."""

    def __init__(
        self, order: ChildOrder, guardian: asyncio.subprocess.Process, lifeline: int, log: int
    ) -> None:
        self.order = order
        self.pid = 0
        self._guardian = guardian
        self._lifeline = lifeline
        self._log = log  # kept open: its folder may be removed with the child
        self._last_words = ""

    @classmethod
    async def start(cls, order: ChildOrder) -> Self:
        """Return the child once its program runs; raise `ChildFailed` if it cannot be executed."""
        reading, lifeline = os.pipe()
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND
        log = -1 if order.our_output else os.open(order.log, flags, 0o600)
        try:
            guardian = await _start_guardian(order, reading, log)
        except BaseException:
            os.close(lifeline)
            if log >= 0:
                os.close(log)
            raise
        finally:
            os.close(reading)
        child = cls(order, guardian, lifeline, log)
        try:
            assert guardian.stdout is not None
            pid = (await guardian.stdout.readline()).strip()
        except BaseException:
            await child.stop()
            raise
        if not pid:
            await child.stop()
            raise child.failure(f"{order.argv[0]!r} cannot be executed")
        child.pid = int(pid)
        return child

    @property
    def returncode(self) -> int | None:
        """The child's exit code, 128 + n after signal n, or None while it runs."""
        return self._guardian.returncode

    async def wait(self) -> int:
        """Return the exit code once the child has ended and its guardian has cleaned up."""
        code = await self._guardian.wait()
        self._close()
        return code

    async def stop(self) -> int:
        """Ask the child to stop, kill it after `stop_wait_s_max`, and return its exit code."""
        self._cut_lifeline()
        try:
            async with asyncio.timeout(self.order.stop_wait_s_max + GUARDIAN_MARGIN_S):
                return await self.wait()
        except TimeoutError:
            self._guardian.kill()
            return await self.wait()

    def failure(self, asked: str) -> ChildFailed:
        """Return the error to raise when `asked` did not come true, with the end of the log."""
        state = "still runs" if self.returncode is None else f"ended with code {self.returncode}"
        said = "" if self.order.our_output else f". The end of {self.order.log}:\n{self._tail()}"
        return ChildFailed(f"{asked}: {self.order.argv[0]} {state}{said}")

    def _tail(self) -> str:
        if self._log < 0:
            return self._last_words
        start = max(0, os.fstat(self._log).st_size - LOG_TAIL_BYTES)
        return os.pread(self._log, LOG_TAIL_BYTES, start).decode(errors="replace").strip()

    def _cut_lifeline(self) -> None:
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1

    def _close(self) -> None:
        self._cut_lifeline()
        if self._log >= 0:
            self._last_words = self._tail()
            os.close(self._log)
            self._log = -1


async def _start_guardian(order: ChildOrder, reading: int, log: int) -> asyncio.subprocess.Process:
    out = os.dup(1) if log < 0 else -1  # the guardian's own stdout is for the child's id
    try:
        return await _guardian(order, reading, log, out)
    finally:
        if out >= 0:
            os.close(out)


async def _guardian(
    order: ChildOrder, reading: int, log: int, out: int
) -> asyncio.subprocess.Process:
    words = {
        "argv": [str(word) for word in order.argv],
        "cwd": str(order.cwd),
        "user": order.user,
        "stop_signal": int(order.stop_signal),
        "stop_wait_s_max": order.stop_wait_s_max,
        "held": list(order.held),
        "out": out,
        "remove": [str(folder) for folder in order.remove],
        "parent": os.getpid(),
    }
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", str(GUARDIAN), json.dumps(words)),
        stdin=reading,
        stdout=asyncio.subprocess.PIPE,
        stderr=log if log >= 0 else None,
        env=dict(order.env),
        # Ctrl-C in the terminal is for us; we decide when the children stop.
        start_new_session=True,
        pass_fds=(*order.held, *([out] if out >= 0 else [])),
    )


def fresh_log(log: Path) -> Path:
    """Return `log`, emptied for a new start; the one before is kept as `<name>.previous`."""
    if log.exists():
        log.replace(log.with_name(log.name + ".previous"))
    return log


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody listens on and nobody is handed for a while.

    A connection closed from the port's side leaves it in TIME_WAIT: the kernel gives it to no other
    caller that asks for any port, while a server that names it can still listen there.
    """
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        # After the bind, so that we are not given such a port ourselves; before the connection,
        # since Linux lets a server listen only if the waiting socket had the option too.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.listen(1)
        port: int = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as ours:
            accepted, _ = listener.accept()
            accepted.close()
            ours.recv(1)
    return port
