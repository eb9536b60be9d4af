"""What a mistyped name may have meant."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: str, names: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Returns the nearest of the names, None if none is near; `cutoff` is difflib's, 0 to 1."""
    found = get_close_matches(name, list(names), n=1, cutoff=cutoff)
    return found[0] if found else None


def did_you_mean(near: str | None) -> str:
    """Returns the question whether this name is meant, "" for none."""
    return f"Did you mean {near!r}?" if near else ""
