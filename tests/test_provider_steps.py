"""What a model's step makes of every answer: it ends, it is metered, it never breaks a worker."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, TypeAlias, get_args

import asyncpg
import pytest

from runward.activities.model import ANSWER_BYTES_MAX
from runward.activities.provider_answers import (
    ARGUMENTS_BYTES_MAX,
    COUNTER_MAX,
    REASONING_BYTES_MAX,
)
from runward.contracts.agents import MAX_CALLS_PER_TURN_DEFAULT, Agent
from runward.contracts.budget import Budget, Cap
from runward.contracts.errors import AgentError
from runward.contracts.providers import (
    NO_ANSWER,
    ModelError,
    ModelRequest,
    ModelResponse,
    Stop,
)
from runward.contracts.transcript import AssistantMessage, ToolCall, ToolMessage
from runward.contracts.tries import UNREADABLE_TRIES_MAX
from runward.contracts.usage import Usage
from runward.testing.stack import Stack
from tests.support import Shop, shop_tools

LOOKUP = '{"order_id": "17"}'
USED = Usage(input=7, cache_read=5, cache_write=3, output=11)
Owner: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


def says(text: str = "", *calls: ToolCall, stop: Stop = "end", **changes: Any) -> ModelResponse:
    return ModelResponse(AssistantMessage(text=text, calls=calls), USED, stop, **changes)


def calls(*ids: str, name: str = "lookup_order", arguments: str = LOOKUP) -> ModelResponse:
    asked = (ToolCall(id=one, name=name, arguments=arguments) for one in ids)
    return says("", *asked, stop="tools")


@dataclass
class Playing:
    """A provider that answers in order, whatever is asked, and keeps what was asked."""

    plays: list[Any]
    name: str = "scripted"  # whose models have a price
    asked: list[ModelRequest] = field(default_factory=list)

    async def call(self, request: ModelRequest) -> Any:
        self.asked.append(request)
        play = self.plays.pop(0)
        if isinstance(play, Exception):
            raise play
        return play


@dataclass
class Asked:
    """What came of a run."""

    provider: Playing
    shop: Shop
    result: Any = None

    @property
    def told(self) -> list[ToolMessage]:
        """Returns what the model was told of its calls."""
        heard = self.provider.asked[-1].messages
        return [one for one in heard if isinstance(one, ToolMessage)]


async def run(stack: Stack, *plays: Any, fails: str = "") -> Asked:
    asked = Asked(Playing(list(plays)), Shop())
    budget = Budget(user=Cap(tokens=10**12, per="day"))
    agent: Agent[Any] = Agent("support", model="scripted:any", tools=shop_tools(), budget=budget)
    plugin = stack.plugin(agents=[agent], providers=[asked.provider], deps=asked.shop)
    async with stack.worker(plugin):
        ada = await stack.acting_as("ada")
        if fails:
            with pytest.raises(AgentError, match=fails):
                await ada.execute("support", "Where is order 17?")
        else:
            asked.result = await ada.execute("support", "Where is order 17?")
    assert asked.provider.plays == []
    return asked


async def charged(owner: Owner, stack: Stack) -> tuple[int, int, int]:
    """Returns the tokens that are held, settled and overrun in the tenant's only bucket."""
    found = await owner.fetchrow(
        "select held, settled, overrun from runward.bucket where tenant = $1", stack.tenant
    )
    assert found is not None
    return tuple(found)


@pytest.mark.parametrize(
    ("stop", "reason"),
    [
        ("refusal", "model refused"),
        ("filtered", "content filtered"),
        ("incomplete", "model stopped early"),
    ],
)
async def test_what_is_no_answer_does_not_look_like_one(
    stack: Stack, owner: Owner, stop: Stop, reason: str
) -> None:
    """The run says why it ended, no call of it runs, and the ledger has what was billed."""
    half = ToolCall(id="c1", name="lookup_order", arguments=LOOKUP)
    asked = await run(stack, says("I was about", half, stop=stop), fails=reason)

    assert asked.shop.lookups == []
    assert await charged(owner, stack) == (0, USED.tokens, 0)


async def test_an_answer_cut_by_length_interrupts_the_run(stack: Stack, owner: Owner) -> None:
    """Its calls may be cut, too: none of them runs, and the ledger has what was billed."""
    half = ToolCall(id="c1", name="lookup_order", arguments=LOOKUP)
    asked = await run(stack, says("I was about", half, stop="length"))

    assert asked.result.interruption_reason == "max_output_tokens_exceeded"
    assert (asked.result.interrupted, asked.result.output, asked.shop.lookups) == (True, "", [])
    assert await charged(owner, stack) == (0, USED.tokens, 0)


async def test_a_stop_of_a_providers_own_is_no_answer(stack: Stack) -> None:
    """Nobody has decided that it is one."""
    await run(stack, says("Well", stop="exhausted"), fails="model stopped early")  # type: ignore[arg-type]


async def test_an_empty_answer_ends_the_run(stack: Stack) -> None:
    """It is what the model said."""
    asked = await run(stack, says(""))

    assert (asked.result.output, asked.result.interrupted) == ("", False)


@pytest.mark.parametrize("stop", ["tools", "end"])
async def test_the_stop_does_not_hide_calls_nor_invent_them(stack: Stack, stop: Stop) -> None:
    """A call behind "end" runs; "tools" without a call is an answer."""
    one = ToolCall(id="c1", name="lookup_order", arguments=LOOKUP)
    asked = await run(stack, says("", one, stop=stop), says("Done.", stop=stop))

    assert (asked.result.output, asked.shop.lookups) == ("Done.", ["17"])


async def test_calls_of_one_id_are_told_apart(stack: Stack) -> None:
    """Within a turn and between turns: an API takes one result for each id."""
    asked = await run(stack, calls("c1", "c1", ""), calls("c1"), says("Done."))

    ids = [one.call_id for one in asked.told]
    assert (len(ids), len(set(ids)), asked.shop.lookups) == (4, 4, ["17"] * 4)
    assert ids[0] == "c1"


async def test_two_hundred_calls_are_bounded(stack: Stack) -> None:
    """Those over the bound do not run, and the model reads so."""
    asked = await run(stack, calls(*(f"c{n}" for n in range(200))), says("Done."))

    assert len(asked.shop.lookups) == MAX_CALLS_PER_TURN_DEFAULT
    first = asked.provider.asked[1].messages[1]
    assert f"{200 - MAX_CALLS_PER_TURN_DEFAULT} of these 200 tool calls were refused" in first.text


@pytest.mark.parametrize(
    "name", ["", "look up!", "x" * 3_000, "\ud800\x00", "a/../b", "Lookup_order"]
)
async def test_a_name_that_no_tool_has_is_refused(stack: Stack, name: str) -> None:
    """Whatever it is, it can be sent back to any provider."""
    asked = await run(stack, calls("c1", name=name), says("Sorry."))

    assert (asked.result.output, asked.shop.lookups) == ("Sorry.", [])
    assert asked.told[0].name.isascii() and len(asked.told[0].name) <= 64
    assert "no such tool" in asked.told[0].text


@pytest.mark.parametrize(
    "arguments",
    ["", "{", "[1]", "null", "[" * 20_000, '{"order_id": 17}', '{"order_id": "\\ud800"}',
     json.dumps({"order_id": "x" * (ARGUMENTS_BYTES_MAX + 1)})],
    ids=["empty", "cut", "list", "null", "deep", "type", "surrogate", "large"],
)  # fmt: skip
async def test_malformed_arguments_go_back_to_the_model(stack: Stack, arguments: str) -> None:
    """They do not fail the run."""
    asked = await run(stack, calls("c1", arguments=arguments), says("Sorry."))

    assert (asked.result.output, asked.shop.lookups) == ("Sorry.", [])
    assert asked.told[0].is_error


async def test_ten_megabytes_of_text_are_an_answer(stack: Stack) -> None:
    """It goes by reference."""
    asked = await run(stack, says("ü" * 5_000_000))

    assert asked.result.output == "ü" * 5_000_000


async def test_more_than_the_store_holds_ends_the_run(stack: Stack, owner: Owner) -> None:
    """Asked again it would be as large, and billed again."""
    asked = await run(
        stack, says("\x01" * (ANSWER_BYTES_MAX // 6 + 1)), fails=".* at most 16777216"
    )

    assert len(asked.provider.asked) == 1
    assert await charged(owner, stack) == (0, USED.tokens, 0)


async def test_reasoning_that_makes_an_answer_too_large_is_left_out(stack: Stack) -> None:
    """An answer of that size alone would not have ended the run."""
    asks = ToolCall(id="c1", name="lookup_order", arguments=LOOKUP)
    text = "x" * (ANSWER_BYTES_MAX - REASONING_BYTES_MAX)
    thinks = says(text, asks, stop="tools", reasoning="x" * REASONING_BYTES_MAX)
    asked = await run(stack, thinks, says("Done."))

    assert asked.result.output == "Done."
    assert asked.provider.asked[1].messages[1] == AssistantMessage(text=text, calls=(asks,))


async def test_nul_and_lone_surrogates_are_replaced(stack: Stack) -> None:
    """Neither UTF-8 nor the store can hold them."""
    asked = await run(stack, calls("c\ud800", arguments=LOOKUP), says("Done \ud800\x00."))

    assert (asked.result.output, asked.shop.lookups) == ("Done ?\ufffd.", ["17"])


async def test_an_absurd_usage_is_overrun_and_no_more(stack: Stack, owner: Owner) -> None:
    """A number that no column holds would fail the step after its bill, again and again."""
    absurd = ModelResponse(AssistantMessage(text="Hi"), Usage(input=1, output=10**30), "end")
    asked = await run(stack, absurd)

    held, settled, overrun = await charged(owner, stack)
    assert asked.result.usage == Usage(input=1, output=COUNTER_MAX)
    assert (held, settled + overrun) == (0, COUNTER_MAX + 1)
    assert overrun > 0


@pytest.mark.parametrize(
    "play",
    [
        ModelResponse(AssistantMessage(text="Hi"), Usage(input=-5, output=5), "end"),
        ModelResponse(AssistantMessage(text="Hi"), Usage(input=1.5), "end"),  # type: ignore[arg-type]
        ModelResponse(AssistantMessage(text="Hi"), None, "end"),  # type: ignore[arg-type]
        says("Hi", metered=False),
    ],
    ids=["negative", "fraction", "none", "unmetered"],
)
async def test_a_usage_that_is_none_is_charged_at_the_bound(
    stack: Stack, owner: Owner, play: ModelResponse
) -> None:
    """The answer stands; nobody gets it for less because somebody forgot to count."""
    asked = await run(stack, play)

    used = asked.result.usage
    assert (asked.result.output, used.output) == ("Hi", 4096)
    assert await charged(owner, stack) == (0, used.tokens, 0)
    assert used.cache_write > 100  # all input, at the dearer price
    assert asked.result.cost > 0


async def test_what_nobody_can_read_is_asked_for_again_a_few_times(
    stack: Stack, owner: Owner
) -> None:
    """Each try may have been billed, so there is an end to it."""
    html = ModelError("x sent no answer", retryable=True, unbilled=False, unreadable=True)
    asked = await run(stack, *[html] * UNREADABLE_TRIES_MAX, fails="x sent no answer")

    assert len({one.idempotency_key for one in asked.provider.asked}) == 1
    held, settled, _ = await charged(owner, stack)
    assert held == 0
    assert settled > UNREADABLE_TRIES_MAX * 4096


async def test_an_error_page_that_passes_costs_one_try(stack: Stack) -> None:
    """Then the answer is there."""
    html = ModelError("x sent no answer", retryable=True, unbilled=False, unreadable=True)
    asked = await run(stack, html, says("Hi"))

    assert asked.result.output == "Hi"


@pytest.mark.parametrize(
    "play",
    [None, "text", ModelResponse(None, USED, "end"), MemoryError("no")],  # type: ignore[arg-type]
)
async def test_a_providers_own_bug_ends_the_run(stack: Stack, play: Any) -> None:
    """With the type of what it raised, never its text."""
    await run(stack, play, fails="scripted:any: (AttributeError|MemoryError)")


def test_every_stop_is_an_answer_or_has_a_reason() -> None:
    """A stop that is added later must be decided on."""
    assert set(get_args(Stop)) - NO_ANSWER.keys() == {"end", "tools"}
