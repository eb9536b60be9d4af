"""Finds the `temporal` program, and as a last resort makes it.

`python -m runward.workers.temporal_binary` prints its path. Only development and tests need it: in
production Temporal is a service somewhere else.
"""

import asyncio
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from temporalio.testing import WorkflowEnvironment

from runward.contracts.errors import ConfigurationError
from runward.workers.child import Child, ChildFailed, ChildOrder
from runward.workers.file_lock import FileLock

# The last version that `go install` accepts: from 1.6 on the module holds a replace directive.
TEMPORAL_VERSION = "1.5.1"
TEMPORAL_MODULE = f"github.com/temporalio/cli/cmd/temporal@v{TEMPORAL_VERSION}"
SETTING_VARIABLE = "RUNWARD_TEMPORAL_BINARY"
DOWNLOAD_S_MAX = 120.0  # without a network it fails at once; this bounds a network that swallows
BUILD_S_MAX = 1800.0  # 2.5 minutes on two cores with an empty module cache
PROGRESS_EVERY_S = 5.0

NO_PROGRAM = "The `temporal` program"
INSTALL = (
    "Install the Temporal CLI (https://docs.temporal.io/cli), or name an existing program in"
    f" {SETTING_VARIABLE}"
)

Progress = Callable[[str], None]


async def find_temporal(setting: Path | None, *, progress: Progress) -> Path:
    """Return the path of a `temporal` program, obtaining one for this user if there is none.

    In this order: `setting` (else the environment's RUNWARD_TEMPORAL_BINARY), PATH, our cache, the
    SDK's download, a build with Go. `progress` is told what takes long. Raises ConfigurationError.
    """
    named = setting or _from_environment()
    if named is not None:
        return _checked(named)
    if on_path := shutil.which("temporal"):
        return Path(on_path)
    try:
        cached = cache_dir() / f"temporal-{TEMPORAL_VERSION}" / "temporal"
        if _executable(cached):
            return cached
        lock = await _lock(cache_dir() / f"temporal-{TEMPORAL_VERSION}.lock", progress)
    except (OSError, RuntimeError) as error:  # the latter where nothing says which home is ours
        said = f"There is none here, and no place to keep one: {error}"
        folder = f"Name a folder for it in XDG_CACHE_HOME. {INSTALL}"
        raise ConfigurationError(NO_PROGRAM, said, folder) from error
    try:
        # Whoever held the lock before us has made it.
        return cached if _executable(cached) else await _obtain(cached, progress)
    finally:
        lock.release()


def cache_dir() -> Path:
    """Return where programs that runward obtained are kept for this user."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "runward"


def _from_environment() -> Path | None:
    value = os.environ.get(SETTING_VARIABLE, "")
    return Path(value).expanduser() if value else None


def _executable(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


def _checked(named: Path) -> Path:
    """Return `named`; a wrong setting is an error and never a reason to look elsewhere."""
    if _executable(named):
        return named
    raise ConfigurationError(
        f"{SETTING_VARIABLE}={named}",
        "It is not an executable file",
        "Correct it, or unset it to have runward look on PATH and in its cache",
    )


async def _lock(path: Path, progress: Progress) -> FileLock:
    """Return the lock under which the program is obtained, saying that we wait if we do."""

    async def say() -> None:
        while True:
            await asyncio.sleep(PROGRESS_EVERY_S)
            progress("waiting for another process that obtains the temporal program")

    saying = asyncio.create_task(say())
    try:
        return await FileLock.acquire(path, wait_s_max=DOWNLOAD_S_MAX + BUILD_S_MAX)
    finally:
        saying.cancel()


async def _obtain(cached: Path, progress: Progress) -> Path:
    """Return `cached` after a download or a build; it appears whole or not at all."""
    cached.parent.mkdir(parents=True, exist_ok=True)
    workplace = Path(tempfile.mkdtemp(dir=cached.parent, prefix="making-"))
    try:
        made = await _download(workplace, progress) or await _build(workplace, progress)
        made.chmod(0o755)
        made.replace(cached)
    finally:
        shutil.rmtree(workplace, ignore_errors=True)
    return cached


async def _download(workplace: Path, progress: Progress) -> Path | None:
    """Return what the SDK downloads, or None without it. The SDK can only download by starting."""
    progress(f"downloading temporal {TEMPORAL_VERSION} (once; kept in {workplace.parent})")
    try:
        async with asyncio.timeout(DOWNLOAD_S_MAX):
            server = await WorkflowEnvironment.start_local(
                download_dest_dir=str(workplace),
                dev_server_download_version=f"v{TEMPORAL_VERSION}",
                dev_server_startup_timeout=timedelta(seconds=30),
            )
            await server.shutdown()
    except (RuntimeError, TimeoutError) as error:
        progress(f"no download: {' '.join(str(error).split())[:200] or 'it took too long'}")
    return _executable_in(workplace)


def _executable_in(folder: Path) -> Path | None:
    return next((path for path in sorted(folder.iterdir()) if _executable(path)), None)


async def _build(workplace: Path, progress: Progress) -> Path:
    """Return the program built from source with Go, reporting every few seconds."""
    go = shutil.which("go")
    if go is None:
        raise ConfigurationError(
            NO_PROGRAM,
            "It is not set, not on PATH, not downloadable, and there is no Go here to build it",
            f"{INSTALL}; or install Go 1.25 or newer",
        )
    log = workplace / "build.log"
    argv = [go, "install", "-ldflags=-s -w", TEMPORAL_MODULE]
    environment = {**os.environ, "GOBIN": str(workplace)}
    child = await Child.start(ChildOrder(argv=argv, log=log, env=environment, cwd=workplace))
    try:
        code = await _ended(child, progress)
        if code != 0:
            raise child.failure(f"build of {TEMPORAL_MODULE} failed")
    except (ChildFailed, TimeoutError) as error:
        raise ConfigurationError(NO_PROGRAM, str(error), INSTALL) from error
    finally:
        await child.stop()
    return workplace / "temporal"


async def _ended(child: Child, progress: Progress) -> int:
    """Return the build's exit code, with a line every few seconds until then."""
    started = time.monotonic()
    ending = asyncio.create_task(child.wait())
    try:
        while not ending.done():
            spent = time.monotonic() - started
            if spent > BUILD_S_MAX:
                raise TimeoutError(f"the build took longer than {BUILD_S_MAX:.0f} s")
            progress(f"building temporal {TEMPORAL_VERSION} with Go (once): {spent:.0f} s")
            await asyncio.wait([ending], timeout=PROGRESS_EVERY_S)
        return ending.result()
    finally:
        ending.cancel()


def main() -> int:
    """Print the path on stdout and progress on stderr; return the exit code."""

    def progress(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    try:
        print(asyncio.run(find_temporal(None, progress=progress)))
    except ConfigurationError as error:
        progress(f"runward: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
