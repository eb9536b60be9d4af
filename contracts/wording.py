"""What pydantic says of a value, in our own words, for people who never heard of pydantic.

Models are told in pydantic's: those stand in what they learned from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError

_WHOLE = dict.fromkeys(("int_parsing", "int_type", "int_from_float"), "It is no whole number")
_NUMBER = dict.fromkeys(("float_parsing", "float_type", "finite_number"), "It is no number")
_WORDS = {
    **_WHOLE,
    **_NUMBER,
    "string_type": "It is no text",
    "path_type": "It is no path",
    "greater_than_equal": "It has to be at least {ge}",
    "less_than_equal": "It has to be at most {le}",
}


def worded(error: ValidationError) -> str:
    """Returns what is wrong first; never the value, which may be a secret."""
    first = error.errors(include_url=False, include_input=False)[0]
    context = first.get("ctx", {})
    if first["type"] == "value_error":  # raised by a check of ours, or of the library that asks
        return str(context["error"])
    if words := _WORDS.get(first["type"]):
        return words.format(**context)
    return first["msg"]  # as it is: a pattern in it may have braces
