"""The wheel of this checkout, and environments that have it and what it declares, nothing else.

What is declared is linked from the environment of the tests, so that no index is asked.
"""

from __future__ import annotations

import shutil
import subprocess
import sysconfig
import tomllib
from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

CHECKOUT = Path(__file__).resolve().parent.parent
BUILD_S_MAX = 100


def uv(*words: str) -> None:
    """Runs uv, from the PATH or as `make setup` brought it."""
    program = shutil.which("uv") or shutil.which("uv", path=str(CHECKOUT / ".uv" / "bin"))
    assert program is not None, "uv is neither on PATH nor in .uv: run `make setup`"
    command = [program, *words]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_S_MAX)
    assert ran.returncode == 0, ran.stderr


def settings() -> dict[str, Any]:
    """Returns what stands in pyproject.toml."""
    return tomllib.loads((CHECKOUT / "pyproject.toml").read_text())


def build(folder: Path) -> Path:
    """Returns a wheel built from a copy, so that no leftovers of other builds enter."""
    source = folder / "source"
    source.mkdir()
    for name in ["pyproject.toml", "README.md", "LICENSE"]:
        shutil.copy(CHECKOUT / name, source)
    for room in settings()["tool"]["setuptools"]["package-dir"].values():
        unwanted = shutil.ignore_patterns("__pycache__")
        shutil.copytree(CHECKOUT / room, source / room, ignore=unwanted)
    uv("build", "--wheel", "--quiet", "--out-dir", str(folder), str(source))
    (wheel,) = folder.glob("*.whl")
    return wheel


def install(wheel: Path, extra: str, environment: Path) -> None:
    """Makes an environment with the wheel and what it declares to need, with this extra."""
    uv("venv", "--quiet", str(environment))
    python = environment / "bin" / "python"
    options = ("--quiet", "--offline", "--no-deps", "--python", str(python))
    uv("pip", "install", *options, str(wheel))
    (site,) = environment.glob("lib/*/site-packages")
    (info,) = site.glob("runward-*.dist-info")
    for found in _needed(Distribution.at(info), {extra}):
        _link(found, site)


def _needed(package: Distribution, extras: set[str]) -> list[Distribution]:
    """Returns what the package needs, and what that needs, as far as pip would install it here."""
    found: dict[str, Distribution] = {}
    waiting = [(package, extras)]
    asked: set[tuple[str, str]] = set()
    while waiting:
        of, extras = waiting.pop()
        for text in of.requires or ():
            one = Requirement(text)
            marker, name = one.marker, one.name.lower().replace("_", "-")
            if marker and not any(marker.evaluate({"extra": extra}) for extra in {"", *extras}):
                continue
            own = of if name == "runward" else distribution(name)
            if name != "runward":
                found[name] = own
            new = {(name, extra) for extra in {"", *one.extras}} - asked
            if new:
                asked |= new
                waiting.append((own, set(one.extras)))
    return list(found.values())


def _link(package: Distribution, site: Path) -> None:
    installed = Path(sysconfig.get_path("purelib"))
    for top in {file.parts[0] for file in package.files or ()} - {"..", "__pycache__"}:
        if not (site / top).exists():
            (site / top).symlink_to(installed / top)
