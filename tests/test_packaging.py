"""The wheel holds what the checkout holds: an editable install would hide a missing room."""

import json
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.wheel import CHECKOUT, settings

NOT_ROOMS = {"tests", "bench", "deploy", "docs", "build", "dist"}

IMPORT_EACH = """
import importlib, json, sys
sys.path[:0] = json.loads(sys.argv[1])
names = json.loads(sys.argv[2])
print(json.dumps({name: importlib.import_module(name).__file__ for name in names}))
"""


def setuptools_settings() -> dict[str, Any]:
    found: dict[str, Any] = settings()["tool"]["setuptools"]
    return found


@pytest.fixture(scope="module")
def unpacked(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The content of the wheel."""
    target = tmp_path_factory.mktemp("wheel") / "unpacked"
    zipfile.ZipFile(wheel).extractall(target)
    return target


def test_each_room_of_the_checkout_is_declared() -> None:
    rooms = {
        "runward" if path.parent.name == "runward" else f"runward.{path.parent.name}"
        for path in CHECKOUT.glob("[a-z]*/__init__.py")
        if path.parent.name not in NOT_ROOMS
    }

    assert rooms == set(setuptools_settings()["packages"])
    assert rooms == set(setuptools_settings()["package-dir"])


def test_type_checkers_find_each_room() -> None:
    """One link per room: what they see must be what is imported."""
    folders = set(setuptools_settings()["package-dir"].values()) - {"runward"}
    links = {path.name for path in (CHECKOUT / ".typing" / "runward").iterdir() if path.is_dir()}

    assert folders == links


def test_packages_are_flat() -> None:
    """A package inside a room would be missing from the wheel without a word."""
    nested = [
        str(path)
        for folder in setuptools_settings()["package-dir"].values()
        for path in (CHECKOUT / folder).glob("*/**/__init__.py")
    ]

    assert nested == []


def test_wheel_holds_every_file_of_every_room(unpacked: Path) -> None:
    for package, folder in setuptools_settings()["package-dir"].items():
        inside = unpacked / package.replace(".", "/")
        expected = {path.name for path in (CHECKOUT / folder).glob("*.py")} | {"py.typed"}

        assert expected <= {path.name for path in inside.iterdir()}, package


def test_wheel_holds_the_migrations(unpacked: Path) -> None:
    expected = {path.name for path in (CHECKOUT / "store" / "migrations").glob("*.sql")}

    assert expected == {path.name for path in (unpacked / "runward/store").glob("migrations/*.sql")}


def test_wheel_registers_the_pytest_plugin(unpacked: Path) -> None:
    """The one module that pytest loads everywhere; it is in the wheel, under this name."""
    (points,) = unpacked.glob("runward-*.dist-info/entry_points.txt")
    plugin = settings()["project"]["entry-points"]["pytest11"]["runward"]

    assert f"[pytest11]\nrunward = {plugin}\n" in points.read_text()
    assert (unpacked / f"{plugin.replace('.', '/')}.py").is_file()


def test_each_room_is_imported_from_the_wheel(unpacked: Path, tmp_path: Path) -> None:
    packages = setuptools_settings()["packages"]
    paths = [str(unpacked), sysconfig.get_path("purelib")]
    # -S leaves out the .pth file of the editable install, which would win otherwise.
    ran = subprocess.run(
        [sys.executable, "-I", "-S", "-c", IMPORT_EACH, json.dumps(paths), json.dumps(packages)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert ran.returncode == 0, ran.stderr
    for name, file in json.loads(ran.stdout).items():
        assert Path(file).is_relative_to(unpacked), name
