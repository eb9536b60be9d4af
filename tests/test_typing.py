"""For a user of the wheel mypy and pyright agree, on what is right and on each wrong line.

The user's code stands in `typing/`. It is copied out of the checkout, and what the checkers find of
runward there is the wheel. It is never run.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from docs.make.reference import HANDED_OUT
from tests.member_uses import Uses
from tests.wheel import install

CODE = Path(__file__).parent / "typing"
WRONG = "wrong_uses.py"
REFUSED = re.compile(r"\s*# refused: (?P<mypy>[a-z-]+), (?P<pyright>report\w+)$")
CHECK_S_MAX = 100
FOUND_ERRORS = 1  # the exit code of both; another one is trouble of their own
FACES = ("runward", "runward.testing")


class Refusal(NamedTuple):
    """What a checker says of one line."""

    file: str
    line: int
    rule: str
    message: str


class User(NamedTuple):
    """A user's folder of code, and the Python that has the wheel and what it declares."""

    code: Path
    python: Path


@pytest.fixture(scope="module")
def user(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> User:
    """A user who has installed the wheel with what tests need."""
    folder = tmp_path_factory.mktemp("user")
    install(wheel, "testing", folder / "environment")
    code = folder / "code"
    shutil.copytree(CODE, code, ignore=shutil.ignore_patterns("__pycache__"))
    return User(code, folder / "environment" / "bin" / "python")


def mypy(user: User) -> Iterator[Refusal]:
    """Yields what `mypy --strict` refuses."""
    files = sorted(one.name for one in user.code.glob("*.py"))
    options = ("--strict", "--output", "json", "--python-executable", str(user.python))
    for line in _said(user, "mypy", *options, *files).splitlines():
        one = json.loads(line)
        if one["severity"] == "error":
            yield Refusal(one["file"], one["line"], one["code"], one["message"])


def pyright(user: User) -> Iterator[Refusal]:
    """Yields what pyright refuses in strict mode; its wheel is all that it needs, offline too."""
    (user.code / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict"}')
    said = _said(user, "pyright", "--outputjson", "--pythonpath", str(user.python))
    for one in json.loads(said)["generalDiagnostics"]:
        line = one["range"]["start"]["line"] + 1
        yield Refusal(Path(one["file"]).name, line, one.get("rule", ""), one["message"])


def _said(user: User, checker: str, *words: str) -> str:
    command = [sys.executable, "-m", checker, *words]
    ran = subprocess.run(
        command, cwd=user.code, capture_output=True, text=True, timeout=CHECK_S_MAX
    )
    assert ran.returncode == FOUND_ERRORS, ran.stdout + ran.stderr
    return ran.stdout


@pytest.mark.parametrize("checker", [mypy, pyright])
def test_right_uses_pass_and_wrong_ones_do_not(
    checker: Callable[[User], Iterator[Refusal]], user: User
) -> None:
    right: list[Refusal] = []
    wrong: dict[int, set[str]] = defaultdict(set)
    for one in checker(user):
        if one.file == WRONG:
            wrong[one.line].add(one.rule)
        else:
            right.append(one)
    wanted = _wanted(checker.__name__)

    assert right == []
    assert wrong.keys() - wanted.keys() == set()
    assert {line: rule for line, rule in wanted.items() if rule not in wrong[line]} == {}


def _wanted(checker: str) -> dict[int, str]:
    """Returns by its number each line that must be refused, and the rule that refuses it."""
    lines = enumerate((CODE / WRONG).read_text().splitlines(), start=2)  # of the line below
    return {number: found[checker] for number, line in lines if (found := REFUSED.match(line))}


@pytest.fixture(scope="module")
def uses() -> Uses:
    """What the user's code uses where it is right."""
    found = Uses()
    for path in CODE.glob("*.py"):
        if path.name != WRONG:
            found.visit(ast.parse(path.read_text()))
    return found


def test_the_users_code_imports_the_whole_face(uses: Uses) -> None:
    exported = {
        f"{face}.{name}" for face in FACES for name in importlib.import_module(face).__all__
    }

    assert exported - uses.imported == set()


def test_the_users_code_asserts_the_type_of_every_member(uses: Uses) -> None:
    """Of all that the reference shows: a new one wants its line in `typing/`.

    What returns nothing only has to be used.
    """
    members = {
        (cls.__name__, name): _returns_nothing(cls, name)
        for cls in _classes()
        for name in _members(cls)
    }

    assert {one for one, nothing in members.items() if not nothing} - uses.asserted == set()
    assert members.keys() - uses.used == set()


def _classes() -> Iterator[type]:
    named = {face: importlib.import_module(face).__all__ for face in FACES} | HANDED_OUT
    for module, names in named.items():
        for name in names:
            value = getattr(importlib.import_module(module), name)
            if inspect.isclass(value) and not issubclass(value, Exception):
                yield value


def _members(cls: type) -> set[str]:
    names = {*vars(cls), *inspect.get_annotations(cls)}
    return {one for one in names if not one.startswith(("_", "model_"))}


def _returns_nothing(cls: type, name: str) -> bool:
    value = inspect.getattr_static(cls, name, None)
    return inspect.isfunction(value) and inspect.signature(value).return_annotation == "None"
