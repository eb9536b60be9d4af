"""Wire types are contracts: what an earlier release wrote is read, and written the same again.

`tests/wire/<type>.jsonl` holds a type's exact bytes, one value a line. Lines are only ever added:
with a new field, which has a default, comes a line that has it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from runward.activities.transcripts import Transcripts, rows, written
from runward.contracts import approvals, names, outcomes, output, runs, transcript
from runward.contracts.outcomes import (
    ModelDone,
    NeedsApproval,
    OverBudget,
    decode_outcome,
    effect_digest_v1,
    encode_outcome,
    model_digest_v1,
    tool_digest,
)
from runward.contracts.runs import ModelStep, RunInput, ToolStep, first_message_digest
from runward.contracts.steps import Run
from runward.contracts.transcript import (
    GENESIS,
    decode_message,
    encode_message,
    extend,
    message_digest,
)
from runward.contracts.wire import decode_wire, encode_wire
from tests.history_payloads import ELSEWHERE, RESULTS, input_type, payloads, read, started, steps
from tests.record_histories import OWN
from tests.store_case import Case

WIRE = Path(__file__).parent / "wire"
OUTCOMES = ("ModelDone", "ToolDone", "Denied", "Failed", "Unknown", "NeedsApproval", "OverBudget")
MESSAGES = ("UserMessage", "AssistantMessage", "ToolMessage")
TYPES: dict[str, type[BaseModel]] = {
    name: kind
    for module in (runs, outcomes, transcript, approvals, output)
    for name, kind in vars(module).items()
    if isinstance(kind, type)
    and issubclass(kind, BaseModel)
    and kind.__module__ == module.__name__
    and any(field.alias for field in kind.model_fields.values())
}


def lines(name: str) -> list[bytes]:
    """Returns the values of a type as they were written."""
    return (WIRE / f"{name}.jsonl").read_bytes().splitlines()


def written_again(name: str, data: bytes) -> bytes:
    """Returns what today's code writes after it has read these bytes."""
    if name in OUTCOMES:
        return encode_outcome(decode_outcome(data))
    if name in MESSAGES:
        return encode_message(decode_message(data))
    return encode_wire(decode_wire(TYPES[name], data))


def test_every_wire_type_has_its_bytes_on_record() -> None:
    assert {one.stem for one in WIRE.glob("*.jsonl")} == set(TYPES)


@pytest.mark.parametrize("name", sorted(TYPES))
def test_the_encoded_form_of_a_wire_type_is_frozen(name: str) -> None:
    """To the byte: digests are made of it, and other releases read it."""
    for line in lines(name):
        assert (again := written_again(name, line)) == line, (again, line)


@pytest.mark.parametrize("name", sorted(TYPES))
def test_every_field_of_a_wire_type_is_on_record(name: str) -> None:
    """Whoever adds a field adds a line that has it."""
    known = {field.alias for field in TYPES[name].model_fields.values()}

    assert {key for line in lines(name) for key in json.loads(line)} == known


def test_a_field_that_is_not_known_yet_is_passed_over() -> None:
    """So a release may read what a later one wrote, while both run."""
    for name in TYPES:
        data = {**json.loads(lines(name)[0]), "zz": 1}
        text = json.dumps(data).encode()

        assert json.loads(written_again(name, text)) == json.loads(lines(name)[0])


def test_a_line_without_a_field_that_it_needs_is_refused() -> None:
    """That is how a new field without a default would be noticed."""
    with pytest.raises(ValidationError):
        written_again("ToolStep", b'{"t":1,"x":0,"i":"c","n":"refund"}')


def test_versioned_digests_are_frozen() -> None:
    """They are in the rows of runs in flight, and compared with what a later release makes."""
    assert (
        effect_digest_v1("refund", "schema", "arguments"),
        model_digest_v1("head", ("one", "two")),
        extend(GENESIS, ("one", "two")),
        GENESIS,
    ) == (
        "_Gx-FbC2Nu8x7-Or2DB02A5MHH2ESlKptO7VdMvzj90",
        "E38_k3RnTvRiw5Vnloq0sKCK_PLZaVhwQfbywpwPBPQ",
        "z5o8LHz0ewTJRGEcbafoT7pmrB-wMkLCaK5wnUVq458",
        "DQQU9MJsrNe1-OBn67xUZ5xOVTQ7tpksgmRK-MsZ_Pk",
    )


# --- recorded histories


@pytest.mark.parametrize("name", OWN)
def test_every_payload_of_a_recorded_run_is_read(name: str) -> None:
    """Whichever release wrote it; what it says comes out again."""
    seen = 0
    for event in read(name):
        for at, data in payloads(event):
            if at.startswith("activityTask"):
                continue
            if "/details/" in at:  # an error's details are text for every reader
                data = json.loads(data).encode()
            if "header" in at:
                assert isinstance(json.loads(data), str | dict), at
            else:
                assert same(encode_wire(decode_wire(ELSEWHERE[at], data)), data), at
            seen += 1
    for step in steps(name):
        given = decode_wire(input_type(step.activity), step.given)
        assert same(encode_wire(given), step.given), step
        if step.came is not None:
            assert same(_result(step.activity, step.came), step.came), step
        seen += 1

    assert seen >= 4


def _result(activity: str, data: bytes) -> bytes:
    if activity in RESULTS:
        return encode_wire(decode_wire(RESULTS[activity], data))
    return encode_outcome(decode_outcome(data))


def same(one: bytes, other: bytes) -> bool:
    """Returns whether both are the same JSON."""
    value: Any = json.loads(one)
    return bool(value == json.loads(other))


@pytest.mark.parametrize("name", OWN)
def test_the_heads_of_a_recorded_run_are_those_of_its_messages(name: str) -> None:
    """Their digests are what an old run's steps are compared by; no release may change them."""
    carried = decode_wire(RunInput, started(name)).carried
    heads = {GENESIS if carried is None else carried.head}
    made = set(() if carried is None else carried.new)
    head, new = GENESIS, tuple[str, ...]()
    called: dict[str, ToolStep] = {}
    for step in steps(name):
        if step.activity == names.CALL_MODEL:
            given = decode_wire(ModelStep, step.given)
            assert given.head in heads, step.step
            if given.request is not None:
                made.add(first_message_digest(given.request))
            assert set(given.new) <= made, step.step
            head, new = given.head, given.new
        outcome = None if step.came is None or step.activity in RESULTS else step.came
        if step.activity.startswith(names.TOOL_PREFIX):
            called[step.step] = decode_wire(ToolStep, step.given)
        if outcome is None:
            continue
        found = decode_outcome(outcome)
        if isinstance(found, ModelDone):
            repair = found.repair_message
            said = [found.digest, *([message_digest(repair)] if repair else [])]
            heads.add(extend(head, (*new, *said)))
        elif step.step in called and not isinstance(found, NeedsApproval | OverBudget):
            call = called[step.step]
            made.add(tool_digest(call.call_id, call.name, found))


async def test_rows_of_an_earlier_release_are_read(case: Case) -> None:
    """A run in flight whose first turn that release recorded: its bytes, digests and heads."""
    model, *tools, following = [one for one in steps("tools") if one.step[:2] in ("t1", "t2")][:4]
    given = decode_wire(ModelStep, model.given)
    assert given.request is not None and model.came is not None
    answer = decode_outcome(model.came)
    assert isinstance(answer, ModelDone) and answer.message is not None
    said = (given.request.message, answer.message)
    made = rows(GENESIS, 0, [written(one) for one in said])
    grants = tuple(f"grant of {one.step}" for one in tools)
    first = await case.admit(case.first())
    await case.close(first, model.came, head=made[-1].head, grants=grants, transcript=made)
    for one, grant in zip(tools, grants, strict=True):
        assert one.came is not None
        await case.close(await case.admit(case.draft(one.step, digest=grant)), one.came)
    run = await case.store.runs.find(case.workflow, case.run)
    assert run is not None
    asked = decode_wire(ModelStep, following.given)
    found = await Transcripts(case.store, _nothing).load(run, asked)

    told = [one.text for one in found.messages]
    assert told == ["Order 17", "", "order 1 was shipped", "order 2 was shipped"]


async def _nothing(run: Run) -> list[tuple[str, bytes, bytes]]:
    return []
