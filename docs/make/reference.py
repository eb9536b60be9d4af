"""The reference: signatures and docstrings of what users import or are handed, and nothing else."""

from __future__ import annotations

import importlib
import inspect
import textwrap
from collections.abc import Iterator
from datetime import timedelta
from enum import Enum
from typing import Any

WIDTH = 88
HEAD = """\
# Reference

Every name that `runward` and `runward.testing` export, and what their methods hand out, with their
docstrings. Errors have [pages of their own](errors/index.md).

<!-- Made by `python -m docs.make`; do not edit. -->
"""
# What is imported from elsewhere than the face, or only ever handed out.
HANDED_OUT = {
    "runward.client.runs": ["ActingClient"],
    "runward.client.run_handle": ["RunHandle"],
    "runward.client.approvals": ["Approvals"],
    "runward.contracts.approvals": ["Approval", "DecisionResult"],
    "runward.contracts.runs": ["RunStatus"],
    "runward.contracts.usage": ["Usage"],
    "runward.contracts.progress": ["Progress"],
    "runward.contracts.story": [
        "Story",
        "StoryStep",
        "PendingCall",
        "RunRow",
        "UserUsage",
        "CapWindow",
    ],
    "runward.contracts.policy": ["Policy", "Verdict", "Misnamed"],
    "runward.contracts.providers": ["Provider", "ModelRequest", "ModelResponse", "ModelError"],
}


def page() -> str:
    """Returns the page; a change of any signature or docstring in it changes it."""
    parts = [HEAD, "\n## runward\n", *_exports("runward")]
    parts.append("\n## What clients hand out\n")
    for module, names in HANDED_OUT.items():
        parts += [_entry(module, name, f"{module}.{name}") for name in names]
    parts += ["\n## runward.testing\n", *_exports("runward.testing")]
    return "".join(parts)


def _exports(module: str) -> Iterator[str]:
    for name in sorted(importlib.import_module(module).__all__, key=str.lower):
        yield _entry(module, name, f"{module}.{name}")


def _entry(module: str, name: str, title: str) -> str:
    value = getattr(importlib.import_module(module), name)
    if not inspect.isclass(value):
        parts = [_signature(name, value) if callable(value) else "", _doc(value)]
        return _section(title, parts)
    if issubclass(value, Exception) and value.__module__.endswith((".errors", ".answering")):
        return _section(title, [_doc(value)])
    return _section(title, [_constructor(name, value), _doc(value), *_members(name, value)])


def _section(title: str, parts: list[str]) -> str:
    return f"\n### {title}\n\n" + "\n\n".join(part for part in parts if part) + "\n"


def _members(title: str, cls: type) -> Iterator[str]:
    for name, value in vars(cls).items():
        if name.startswith("_") or name == "model_config":
            continue
        if isinstance(value, property) and value.__doc__:
            yield f"#### {title}.{name}\n\n{_doc(value)}"
        elif isinstance(value, (classmethod, staticmethod)):
            yield _method(title, name, value.__func__)
        elif inspect.isfunction(value):
            yield _method(title, name, value)


def _method(title: str, name: str, function: Any) -> str:
    return f"#### {title}.{name}\n\n{_signature(name, function)}\n\n{_doc(function)}"


def _constructor(name: str, cls: type) -> str:
    """Returns how it is made, or for what is only read, such as a row, its fields."""
    if getattr(cls, "_is_protocol", False) or issubclass(cls, Enum):
        return ""
    if "model_fields" in dir(cls):
        fields = [f"{one}: {text}" for one, text in cls.__annotations__.items() if one[0] != "_"]
        return _block(name, [one for one in fields if not one.startswith("model_config")], "")
    return _signature(name, cls if issubclass(cls, tuple) else cls.__init__)


def _signature(name: str, function: Any) -> str:
    signature = inspect.signature(function)
    words, star = [], False
    for one in signature.parameters.values():
        if one.name in ("self", "cls"):
            continue
        if one.kind is one.KEYWORD_ONLY and not star:
            words.append("*")
            star = True
        star = star or one.kind is one.VAR_POSITIONAL
        words.append(_parameter(one))
    returns = signature.return_annotation
    ends = "" if returns in (signature.empty, "None", None) else f" -> {_type(returns)}"
    return _block(name, words, ends, "async " if inspect.iscoroutinefunction(function) else "")


def _parameter(one: inspect.Parameter) -> str:
    stars = "*" * (one.kind is one.VAR_POSITIONAL) or "**" * (one.kind is one.VAR_KEYWORD)
    text = f"{stars}{one.name}: {_type(one.annotation)}"
    return text if one.default is one.empty else f"{text} = {_default(one.default)}"


def _type(annotation: Any) -> str:
    annotation = getattr(annotation, "__forward_arg__", annotation)
    if isinstance(annotation, str):
        return annotation.replace("builtins.", "")
    return "Any" if annotation is inspect.Parameter.empty else inspect.formatannotation(annotation)


def _default(value: Any) -> str:
    if inspect.isclass(value):
        return value.__name__
    if isinstance(value, timedelta):
        return f"timedelta(seconds={value.total_seconds():g})"
    text = repr(value)
    return (
        "..." if " at 0x" in text or text[0] == "<" else text
    )  # made anew for each, or an address in memory


def _block(name: str, words: list[str], ends: str, before: str = "") -> str:
    line = f"{before}{name}({', '.join(words)}){ends}"
    if len(line) > WIDTH:
        line = f"{before}{name}(\n" + "".join(f"    {one},\n" for one in words) + f"){ends}"
    return f"```text\n{line}\n```"


def _doc(value: Any) -> str:
    return textwrap.dedent(inspect.getdoc(value) or "").strip()
