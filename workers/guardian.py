"""Stands between a process and its child, so that the child never outlives the process.

`child.py` runs this file as a script. It is the child's parent, holds the reading end of a pipe
whose writing end only our process has, and stops the child when that pipe closes: on a wish to
stop, on a normal exit, and on `kill -9` alike. It must never import anything but the standard
library, since it is started with `-I -S` to be quick, and it must stay single-threaded: the
kernel's parent-death signal follows the thread that forked.
"""

import ctypes
import json
import os
import select
import shutil
import signal
import sys
import time
from types import FrameType
from typing import Any, NoReturn

PARENT_CHECK_S = 1.0  # how soon a dead parent is noticed if a forked sibling keeps the pipe open
EXIT_NOT_STARTED = 127
PR_SET_PDEATHSIG = 1

_stop_asked = False


def main() -> int:
    """Start the child described in argv[1] and return its exit code (128 + n after signal n)."""
    order: dict[str, Any] = json.loads(sys.argv[1])
    for descriptor in (*order["held"], *([order["out"]] if order["out"] >= 0 else [])):
        # A lock is ours as long as we watch; the child must not carry it on. `out` becomes its
        # stdout under another number.
        os.set_inheritable(descriptor, False)
    wake = _listen_to_signals()
    executed, executing = os.pipe()  # both close on exec
    pid = os.fork()
    if pid == 0:
        _become_child(order, executing)
    os.close(executing)
    # Before exec the child still has our handlers and would swallow a signal to stop.
    if os.read(executed, 1) == b"":
        os.write(1, b"%d\n" % pid)
    os.close(executed)
    _point_at_null(1)
    status, stopped = _watch(pid, wake, order)
    # A child that ended by itself may be started again in the same folders.
    for folder in order["remove"] if stopped else ():
        shutil.rmtree(folder, ignore_errors=True)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _listen_to_signals() -> int:
    """Return a descriptor that becomes readable with every signal we watch."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    os.set_blocking(reading, False)
    signal.set_wakeup_fd(writing)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _ask_to_stop)
    return reading


def _ask_to_stop(_number: int, _frame: FrameType | None) -> None:
    global _stop_asked
    _stop_asked = True


def _point_at_null(descriptor: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, descriptor)
    os.close(null)


def _become_child(order: dict[str, Any], executing: int) -> NoReturn:
    """Give up privileges, ask to die with the guardian, and execute; say so if that fails."""
    guardian = os.getppid()
    try:
        os.setsid()
        _point_at_null(0)
        os.dup2(2 if order["out"] < 0 else order["out"], 1)
        # Python ignores SIGPIPE, and ignored signals stay ignored across exec.
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.chdir(order["cwd"])
        if order["user"] is not None:
            os.setgroups([])
            os.setgid(order["user"])
            os.setuid(order["user"])
        if sys.platform == "linux":
            # Only now: a change of user clears the request. It covers a kill -9 of the guardian.
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, order["stop_signal"])
            if os.getppid() != guardian:
                os._exit(EXIT_NOT_STARTED)
        os.execve(order["argv"][0], order["argv"], dict(os.environ))
    except OSError as error:
        os.write(2, f"{order['argv'][0]}: could not start: {error}\n".encode())
    finally:
        os.write(executing, b"!")
        os._exit(EXIT_NOT_STARTED)


def _watch(pid: int, wake: int, order: dict[str, Any]) -> tuple[int, bool]:
    """Return the child's wait status and whether we stopped it, nobody wanting it any more."""
    deadline: float | None = None
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return status, deadline is not None
        if deadline is None and _unwanted(order["parent"]):
            deadline = time.monotonic() + order["stop_wait_s_max"]
            os.kill(pid, order["stop_signal"])
        if deadline is not None and time.monotonic() >= deadline:
            _kill_group(pid)
            return os.waitpid(pid, 0)[1], True
        sources = [wake] if deadline is not None else [0, wake]
        left = PARENT_CHECK_S if deadline is None else max(0.0, deadline - time.monotonic())
        if wake in select.select(sources, [], [], min(left, PARENT_CHECK_S))[0]:
            os.read(wake, 4096)


def _unwanted(parent: int) -> bool:
    # Nothing is ever written to the pipe: readable means closed.
    return _stop_asked or os.getppid() != parent or bool(select.select([0], [], [], 0)[0])


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        # macOS says "not permitted" for a group whose leader is a zombie.
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
