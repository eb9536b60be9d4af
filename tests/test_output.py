"""What an agent answers with more than text: parsed, judged, and repaired once; pure."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, Literal, assert_type

import pytest
from pydantic import BaseModel, Field, ValidationError, field_validator
from typing_extensions import TypedDict

from runward.contracts.agents import Agent
from runward.contracts.encoding import digest, digest_of
from runward.contracts.errors import ConfigurationError, OutputProblem, OutputValidationError
from runward.contracts.outcomes import ModelDone, decode_outcome, encode_outcome
from runward.contracts.output import (
    ERRORS_READ_MAX,
    PROBLEMS_MAX,
    SCHEMA_KEPT_BYTES_MAX,
    SCHEMA_TOLD_BYTES_MAX,
    InvalidOutput,
    OutputType,
    judge,
    unfenced,
)
from runward.contracts.transcript import (
    AssistantMessage,
    Message,
    ToolCall,
    ToolMessage,
    UserMessage,
    encode_message,
)

ASKED = UserMessage(text="What does order 17 cost?")
SECRET = "the words of the model"


class Cost(BaseModel):
    """An answer."""

    order: str
    amount: Annotated[Decimal, Field(ge=0)]


@dataclass
class Place:
    street: str
    number: int = 1


class Row(TypedDict):
    name: str


def agent(kind: Any) -> Agent[Any]:
    return Agent("support", model="scripted:x", output_type=kind)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (Cost, '{"order": "17", "amount": "5.10"}', Cost(order="17", amount=Decimal("5.10"))),
        (Place, '{"street": "Elm"}', Place("Elm")),
        (Row, '{"name": "Ada"}', {"name": "Ada"}),
        (list[int], "[1, 2]", [1, 2]),
        (int, "17", 17),
        (Literal["yes", "no"], '"yes"', "yes"),
        (Annotated[int, Field(ge=0)], "3", 3),
        (dict[str, list[int]], '{"a": [1]}', {"a": [1]}),
        (Cost | None, "null", None),
        (Any, '{"a": 1}', {"a": 1}),
    ],
)
def test_every_type_that_has_a_schema_can_be_an_answer(kind: Any, text: str, value: Any) -> None:
    assert agent(kind).parse(text) == value


def test_text_stays_text() -> None:
    """Also where it looks like JSON."""
    assert Agent("a", model="scripted:x").parse("```json\n17\n```") == "```json\n17\n```"


def test_what_is_parsed_is_typed() -> None:
    costly = Agent[Cost]("a", model="scripted:x", output_type=Cost)

    assert_type(costly.parse('{"order": "17", "amount": 5}'), Cost)
    assert_type(Agent("b", model="scripted:x").parse(""), str)


@pytest.mark.parametrize("kind", [Callable[[], int], type("Plain", (), {}), "NotDefined"])
def test_a_type_without_a_schema_is_refused_when_the_agent_is_defined(kind: Any) -> None:
    with pytest.raises(ConfigurationError, match="has no JSON schema"):
        agent(kind)


def test_a_snapshot_pins_the_schema_and_text_agents_keep_theirs() -> None:
    """The digest of an agent that answers with text is in rows that were written before."""
    text = Agent("support", model="scripted:x", instructions="Be brief.")

    assert text.snapshot["output"] == "<class 'str'>"
    assert digest_of(text.snapshot) == "tlQqnOAzQMJw0ZE6Sl_AgSw528cyqUhdIRAwAAG7CdU"
    schema = json.dumps(agent(Cost).output.schema, sort_keys=True, separators=(",", ":"))  # type: ignore[union-attr]
    assert agent(Cost).snapshot["output"] == digest(schema.encode())
    assert agent(Cost).snapshot_digest != agent(Place).snapshot_digest


@pytest.mark.parametrize(
    ("text", "inner"),
    [
        ("```json\n[1]\n```", "[1]\n"),
        ("\n```JSON\r\n[1]```  \n", "[1]"),
        ("```\n[1]\n```", "[1]\n"),
        ("[1]", "[1]"),
        ("```python\n[1]\n```", None),
        ("```json [1]```", None),
        ("Here:\n```json\n[1]\n```", None),
        ("```json\n[1]\n```\nThere.", None),
        ("```", None),
        ("", None),
    ],
)
def test_one_fence_around_json_is_no_error(text: str, inner: str | None) -> None:
    """Many models write it; anything beside it is."""
    assert unfenced(text) == (text if inner is None else inner)


def test_a_fence_inside_of_json_is_left_alone() -> None:
    assert agent(list[str]).parse('```json\n["```a```"]\n```') == ["```a```"]


def test_problems_are_named_by_place_and_without_the_value() -> None:
    text = json.dumps({"order": [SECRET], "amount": -1})

    found = OutputType[Cost]("support", Cost).problems(text)

    assert found == (
        OutputProblem("order", "Input should be a valid string", "string_type"),
        OutputProblem("amount", "Input should be greater than or equal to 0", "greater_than_equal"),
    )


@pytest.mark.parametrize("text", ["", "Sure!", '{"order": "17"', "[" * 100_000, "\ufffd", "nan"])
def test_what_is_no_json_is_one_problem(text: str) -> None:
    (found,) = OutputType[Cost]("support", Cost).problems(text)

    assert (found.location, found.kind) == ("", "json_invalid")


def test_a_validator_that_breaks_tells_its_type_only() -> None:
    """Its words may hold the value."""

    class Bad(BaseModel):
        x: str

        @field_validator("x")
        @classmethod
        def check(cls, value: str) -> str:
            raise KeyError(value)

    found = OutputType[Bad]("support", Bad).problems(json.dumps({"x": SECRET}))

    assert found == (OutputProblem("", "It cannot be checked", "KeyError"),)


def test_a_flood_of_problems_is_bounded() -> None:
    """In number, and in what it takes to read them."""
    numbers: OutputType[list[int]] = OutputType("support", list[int])

    assert len(numbers.problems(json.dumps(["x"] * ERRORS_READ_MAX))) == PROBLEMS_MAX
    (found,) = numbers.problems(json.dumps(["x"] * (ERRORS_READ_MAX + 1)))
    assert (found.message, found.kind) == (f"{ERRORS_READ_MAX + 1} things are wrong with it",
                                           "too_many")  # fmt: skip


def test_an_answer_that_fits_needs_nothing() -> None:
    assert judge(OutputType("a", list[int]), "[1]", (ASKED,)) is None


def test_the_first_that_does_not_fit_is_repaired() -> None:
    """The model reads what is wrong, and what is wanted."""
    found = judge(OutputType[Cost]("a", Cost), '{"order": "17"}', (ASKED,))

    assert isinstance(found, UserMessage)
    assert "- amount: Field required\n" in found.text
    assert '"title":"Cost"' in found.text


TOOLS: tuple[Message, ...] = (
    AssistantMessage(calls=(ToolCall(id="c", name="look", arguments="{}"),)),
    ToolMessage(call_id="c", name="look", text="5"),
)


def test_calls_before_the_answer_are_no_repair() -> None:
    found = judge(OutputType("a", list[int]), "no", (ASKED, *TOOLS))

    assert isinstance(found, UserMessage)


@pytest.mark.parametrize("between", [(), TOOLS], ids=["at once", "after tools"])
def test_the_second_that_does_not_fit_is_the_end(between: tuple[Message, ...]) -> None:
    """That there was a first is read from the conversation, which lineage proves."""
    numbers: OutputType[list[int]] = OutputType("a", list[int])
    first = judge(numbers, "no", (ASKED,))
    assert isinstance(first, UserMessage)

    found = judge(numbers, "[1, null]", (ASKED, AssistantMessage(text="no"), first, *between))

    assert found == InvalidOutput(
        problems=(OutputProblem("1", "Input should be a valid integer", "int_type"),),
        expected=numbers.schema_text,
    )


def test_a_repair_is_some_kilobytes_at_most() -> None:
    """Whatever stands in the names that a model makes up, and however long the schema is."""
    described = Annotated[dict[str, int], Field(description="x" * SCHEMA_KEPT_BYTES_MAX)]
    wide = OutputType[Any]("a", described)
    text = json.dumps({"\x00ü" * 5_000 + str(n): "x" * 5_000 for n in range(50)})
    repair = judge(wide, text, (ASKED,))
    assert isinstance(repair, UserMessage)
    invalid = judge(wide, text, (ASKED, AssistantMessage(text=text), repair))
    assert isinstance(invalid, InvalidOutput)

    assert len(encode_message(repair)) < SCHEMA_TOLD_BYTES_MAX
    assert "\x00" not in repair.text
    assert invalid.expected == ""
    assert len(encode_outcome(ModelDone(invalid=invalid))) < SCHEMA_TOLD_BYTES_MAX


def test_an_outcome_keeps_a_repair_and_an_end() -> None:
    """And one without either is as it was before there were any."""
    invalid = InvalidOutput(problems=(OutputProblem("a", "b", "c"),), expected="{}")
    message = AssistantMessage(text="no")
    for one in (ModelDone(message=message, repair="Again"), ModelDone(invalid=invalid)):
        assert decode_outcome(encode_outcome(one)) == one
    assert encode_outcome(ModelDone(message=message)) == b'{"k":"m","m":{"t":"no"}}'


def test_the_error_tells_places_and_names_only() -> None:
    problems = tuple(OutputProblem(str(n), SECRET, "int_type") for n in range(7))
    error = OutputValidationError(
        "The answer of 'x'", received=SECRET, problems=problems, expected={"type": "array"}
    )

    assert "0 (int_type), 1 (int_type)" in str(error)
    assert "and 2 more" in str(error)
    assert SECRET not in str(error)
    assert (error.received, error.problems, error.expected) == (
        SECRET,
        problems,
        {"type": "array"},
    )


def test_a_client_that_knows_the_type_otherwise_gets_pydantics_error() -> None:
    with pytest.raises(ValidationError):
        agent(Cost).parse("[1]")
