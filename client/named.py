"""What users name as `module:name`, such as `shop:app`: the object that the module calls so."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from traceback import StackSummary, TracebackException, walk_tb
from types import ModuleType
from typing import TypeVar

from runward.contracts.errors import ConfigurationError, RunwardError

Named = TypeVar("Named")


def named(name: str, kind: type[Named], *, what: str, made: str) -> Named:
    """Returns the object of that name; modules are found from the current folder, too.

    `what` is the word for it in errors, `made` an expression that makes one. Raises
    ConfigurationError if there is none, or if the module raises; its `traceback` leads to the line.
    """
    asked = f"The {what} {name!r}"
    module_name, _, path = name.partition(":")
    if not is_name(name):
        form = f"Name it as module:name, such as shop:{what}"
        raise ConfigurationError(asked, "That is no name of one", form)
    found: object = _module(asked, module_name)
    module = found
    for one in path.split("."):
        found = getattr(found, one, None)
    if isinstance(found, kind):
        return found
    holds = f"It has no {path!r}"
    if found is not None:
        holds = f"{path!r} is of type {type(found).__name__}, not {kind.__name__}"
    theirs = [key for key, value in vars(module).items() if isinstance(value, kind)]
    instead = f"Make one: {what} = {made} in {module_name}"
    if theirs:
        instead = "It has " + ", ".join(f"{module_name}:{one}" for one in theirs)
    raise ConfigurationError(asked, holds, instead)


def is_name(text: str) -> bool:
    """Returns whether the text has the form `module:name`."""
    module_name, _, path = text.partition(":")
    return all(one.isidentifier() for one in (*module_name.split("."), *path.split(".")))


def _module(asked: str, module_name: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(module_name)
    except RunwardError as error:  # a definition that cannot work: it says so itself
        error.traceback = _theirs(error, with_error=False)
        raise
    except (Exception, SystemExit) as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing is not None and f"{module_name}.".startswith(f"{missing}."):
            raise ConfigurationError(
                asked,
                f"There is no module {missing!r} in {here!r} or among the installed packages",
                "Run it from the folder that holds the module, or install it",
            ) from error
        failed = ConfigurationError(
            asked,
            f"Importing {module_name!r} raised {type(error).__name__}",
            "Mend the line that its traceback leads to",
        )
        failed.traceback = _theirs(error)
        raise failed from error


def _theirs(error: BaseException, *, with_error: bool = True) -> str:
    """Returns the traceback without the frames that led from us to the user's module, and back."""
    told = TracebackException.from_exception(error)
    frames = [one.f_globals.get("__name__", "") for one, _ in walk_tb(error.__traceback__)]
    theirs = [
        one
        for one, module in zip(told.stack, frames, strict=False)  # a user may have set a limit
        if module.partition(".")[0] not in ("runward", "importlib")
    ]
    told.stack = StackSummary.from_list(theirs)
    if with_error:
        return "".join(told.format())
    return "".join(("Traceback (most recent call last):\n", *told.stack.format()))
