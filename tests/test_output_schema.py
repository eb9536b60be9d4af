"""What providers are told of an agent's output type, in each one's part of JSON Schema; pure."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date
from decimal import Decimal
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field, TypeAdapter

from runward.activities.anthropic_wire import OUTPUT
from runward.activities.openai_wire import STRICT
from runward.activities.output_schema import (
    ENVELOPE,
    enveloped,
    fitted,
    instruction,
    opened,
    sent_bytes,
)
from runward.contracts.providers import ModelResponse, OutputSpec
from runward.contracts.transcript import AssistantMessage
from runward.contracts.usage import Usage
from runward.testing.provider_contract import REQUEST

STRING = {"type": "string"}
CLOSED = {"type": "object", "additionalProperties": False}


class Item(BaseModel):
    price: Decimal
    when: date | None = None
    kind: Literal["item"] = "item"


class Choice(BaseModel):
    a: Annotated[str, Field(min_length=1, pattern="^a+$")]
    b: Annotated[int, Field(ge=0, le=9)]
    c: Annotated[list[Item], Field(min_length=2)]


class Loose(BaseModel):
    note: str = "none"


class Node(BaseModel):
    inner: Node | None


def spec(kind: Any) -> OutputSpec:
    return OutputSpec("answer", TypeAdapter(kind).json_schema())


def test_objects_are_closed_and_what_may_be_null_is_required_where_all_must_be() -> None:
    assert fitted(spec(Item), STRICT) == CLOSED | {
        "title": "Item",
        "properties": {
            "price": {"title": "Price", "anyOf": [{"type": "number"}, STRING]},
            "when": {
                "title": "When",
                "anyOf": [{"type": "string", "format": "date"}, {"type": "null"}],
            },
            "kind": {"title": "Kind", "type": "string", "const": "item"},
        },
        "required": ["price", "when", "kind"],
    }


@pytest.mark.parametrize("dialect", [STRICT, OUTPUT], ids=["strict", "anthropic"])
def test_bounds_that_a_dialect_does_not_know_are_said_in_words(dialect: Any) -> None:
    found = fitted(spec(Choice), dialect)
    assert found is not None
    a, b, c = (found["properties"][name] for name in "abc")

    if dialect is STRICT:
        assert (a["pattern"], a["description"]) == ("^a+$", "{minLength: 1}")
        assert (b["minimum"], b["maximum"], "description" in b) == (0, 9, False)
        assert c["minItems"] == 2
    else:
        assert a["description"] == "{minLength: 1, pattern: ^a+$}"
        assert b["description"] == "{maximum: 9, minimum: 0}"
        assert c["description"] == "{minItems: 2}"
        assert {"pattern", "minimum", "minItems"}.isdisjoint([*a, *b, *c])


@pytest.mark.parametrize("pattern", ["^(?!x)a", r"(a)\1", r"a\b"])
def test_a_pattern_that_looks_around_is_said_in_words(pattern: str) -> None:
    kind = {"type": "object", "properties": {"a": STRING | {"pattern": pattern}}, "required": ["a"]}

    found = fitted(OutputSpec("answer", kind), STRICT)

    assert found is not None
    assert found["properties"]["a"] == STRING | {"description": f"{{pattern: {pattern}}}"}


@pytest.mark.parametrize(
    ("kind", "strict", "native"),
    [
        (Item, True, True),
        (list[Item], True, True),
        (Node, True, False),  # in itself
        (Loose, False, True),  # may be left out, and has no null to say instead
        (dict[str, int], False, False),  # names that nobody knows before
        (tuple[int, str], False, False),
        (Any, False, False),
        (list, False, False),
        (Annotated[Item | Choice, Field(discriminator=None)], True, True),
        (int, True, True),
    ],
)
def test_a_schema_is_kept_to_where_its_structure_can_be_said(
    kind: Any, strict: bool, native: bool
) -> None:
    assert (fitted(spec(kind), STRICT) is not None) == strict
    assert (fitted(spec(kind), OUTPUT) is not None) == native


@pytest.mark.parametrize(
    "limits",
    [{"optional_max": 1}, {"unions_max": 1}, {"properties_max": 5}, {"choices_max": 1},
     {"depth_max": 2}],
)  # fmt: skip
def test_a_schema_beyond_a_limit_is_not_kept_to(limits: dict[str, int]) -> None:
    kind = {
        "type": "object",
        "properties": {
            "list": {"type": "array", "items": {"$ref": "#/$defs/one"}},
            "a": {"anyOf": [STRING, {"type": "integer"}]},
            "b": {"anyOf": [STRING, {"type": "number"}]},
            "c": {"type": "string", "enum": ["x", "y"]},
        },
        "required": ["a", "list"],
        "$defs": {
            "one": {"type": "object", "properties": {"d": STRING, "e": STRING},
                    "required": ["d", "e"]}
        },
    }  # fmt: skip
    schema = OutputSpec("answer", kind)
    enough = replace(
        OUTPUT, optional_max=2, unions_max=2, properties_max=6, choices_max=2, depth_max=3
    )

    assert fitted(schema, enough) is not None
    assert fitted(schema, replace(enough, **limits)) is None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "patternProperties": {}},
        {"type": "object", "properties": {"a": True}},
        {"type": "object", "properties": {"a": {"type": ["string", "null"]}}, "required": ["a"]},
        {"type": "object", "properties": {"a": {"$ref": "elsewhere"}}, "required": ["a"]},
        {"type": "object", "properties": {"a": {"$ref": "#/$defs/a", "minLength": 1}},
         "$defs": {"a": STRING}, "required": ["a"]},
        {"type": "object", "properties": {"a": {"anyOf": [STRING], "oneOf": [STRING]}},
         "required": ["a"]},
    ],
)  # fmt: skip
def test_what_nobody_here_knows_is_not_kept_to(schema: dict[str, Any]) -> None:
    """The API would refuse it, and the run with it."""
    assert fitted(OutputSpec("answer", schema), STRICT) is None


def test_words_beside_a_reference_are_left_out() -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"$ref": "#/$defs/a", "description": "An a."}},
        "required": ["a"],
        "$defs": {"a": STRING},
    }

    found = fitted(OutputSpec("answer", schema), STRICT)

    assert found is not None
    assert found["properties"] == {"a": {"$ref": "#/$defs/a"}}


def test_an_answer_that_is_no_object_goes_into_one() -> None:
    """Its definitions stay at the root, where its references look for them."""
    schema = spec(list[Item]).schema

    found = enveloped(schema)

    assert (found["type"], found["required"]) == ("object", [ENVELOPE])
    assert found["properties"][ENVELOPE]["items"] == {"$ref": "#/$defs/Item"}
    assert found["$defs"] == schema["$defs"]
    assert enveloped(spec(Item).schema) == spec(Item).schema


def open_text(kind: Any, text: str, stop: Any = "end") -> str:
    request = replace(REQUEST, output=None if kind is None else spec(kind))
    return opened(ModelResponse(AssistantMessage(text=text), Usage(), stop), request).message.text


@pytest.mark.parametrize(
    ("text", "inner"),
    [
        ('{"response": [1.10, 2]}', "[1.10, 2]"),  # not a digit is lost
        (' {\n "response" :\n"x"\n}\n', '"x"'),
        ('```json\n{"response": {"response": 1}}\n```', '{"response": 1}'),
        ('{"response": 99999999999999999999.0}', "99999999999999999999.0"),
        ("[1, 2]", None),
        ('{"response": [1], "more": 2}', None),
        ('{"response": [1]', None),
        ('{"response": ' + "[" * 100_000, None),
        ('{"Response": 1}', None),
        ("", None),
    ],
)
def test_the_envelope_is_taken_off(text: str, inner: str | None) -> None:
    """What does not look like it is left for the worker to judge."""
    assert open_text(list[int], text) == (text if inner is None else inner)


def test_nothing_else_is_opened() -> None:
    text = '{"response": 1}'

    assert open_text(Item, text) == text
    assert open_text(None, text) == text
    assert open_text(int, text, "length") == text


@pytest.mark.parametrize("kind", [Item, Choice, list[Item], Node, Loose, dict[str, int], Any])
def test_the_bound_holds_all_that_is_sent(kind: Any) -> None:
    one = spec(kind)
    ways = [one.schema, enveloped(one.schema), fitted(one, STRICT), fitted(one, OUTPUT)]

    bound = sent_bytes(one, STRICT, OUTPUT)

    assert bound >= max(len(json.dumps(way)) for way in ways if way is not None)
    assert bound >= len(instruction(one))
