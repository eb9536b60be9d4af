"""Answers that no API should give: a good one with each of its parts wrong or missing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def changed(good: Any) -> Iterator[Any]:
    """Yields JSON data with each part, in turn, left out or of another type."""
    parts: list[tuple[Any, Any]] = []
    if isinstance(good, dict):
        parts = list(good.items())
    elif isinstance(good, list):
        parts = list(enumerate(good))
    for place, part in parts:
        for other in (None, 1, -1, True, 1.5, "x", [], {}, [[]], *changed(part)):
            copy = good.copy()
            copy[place] = other
            yield copy
        copy = good.copy()
        del copy[place]
        yield copy


def leaves(value: Any) -> list[Any]:
    """Returns all values in JSON data that are neither objects nor lists."""
    if isinstance(value, dict):
        return [leaf for one in value.values() for leaf in leaves(one)]
    if isinstance(value, list):
        return [leaf for one in value for leaf in leaves(one)]
    return [value]
