"""What pydantic says, in our own words."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from pydantic import Field, TypeAdapter, ValidationError

from runward.contracts.wording import worded


@pytest.mark.parametrize(
    ("asked", "value", "said"),
    [
        (int, "many", "It is no whole number"),
        (Annotated[int, Field(ge=3)], 2, "It has to be at least 3"),
        (Annotated[str, Field(pattern="a{2}")], "b", "String should match pattern 'a{2}'"),
    ],
)
def test_what_is_wrong_is_said_without_the_value(asked: Any, value: object, said: str) -> None:
    """What has no words of ours yet is told as pydantic has it, braces and all."""
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(asked).validate_python(value)

    assert worded(caught.value) == said
