"""What the doubles remember of their answers: reasoning goes back as it came, or not at all.

The APIs find out by signatures and ciphertexts, and not all of them refuse what is missing: that
the model then thinks worse, no test would see.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, ClassVar

from runward.testing.provider_double import Check, Double, Refusal, Reply, Seen, serving

Items = list[dict[str, Any]]
WORDS = ("message", "content")


class Memory(ABC):
    """What one double has said."""

    items: ClassVar[str]  # where they stand in an answer

    def __init__(self) -> None:
        self._said: dict[str, tuple[str, Items]] = {}  # what it belongs to, and all of it

    @abstractmethod
    def error(self, body: dict[str, Any]) -> str | None:
        """Returns what is wrong with the reasoning in a request, or None."""

    @abstractmethod
    def hear(self, asked: dict[str, Any], said: Items) -> None:
        """Remembers an answer, if it has any reasoning."""


@asynccontextmanager
async def remembering(check: Check, memory: Memory, refusal: Refusal) -> AsyncIterator[Double]:
    """Serves a double that checks each request's shape, and its reasoning."""

    def checked(seen: Seen) -> str | None:
        wrong = check(seen) or memory.error(seen.body)
        if not wrong and double.replies:
            _hear(memory, seen, double.replies[0])
        return wrong

    async with serving(checked, refusal) as double:
        yield double


def _hear(memory: Memory, seen: Seen, reply: Reply) -> None:
    said = reply.body.get(memory.items) if isinstance(reply.body, dict) else None
    if isinstance(said, list) and not (reply.cut or reply.hang):
        memory.hear(seen.body, said)


class Responses(Memory):
    """OpenAI's: items of one answer go together, under their ids, to the model that said them."""

    items = "output"

    def error(self, body: dict[str, Any]) -> str | None:
        items: Items = body["input"]
        at = 0
        while at < len(items):
            of, said = self._said.get(_key(items[at]), ("", []))
            if of != body["model"]:
                if items[at].get("type") == "reasoning":
                    return "The encrypted content could not be verified"
                at += 1
                continue
            if [*map(_signed, items[at : at + len(said)])] != [*map(_signed, said)]:
                return f"{items[at]} was provided without what came with it"
            at += len(said)
        return None

    def hear(self, asked: dict[str, Any], said: Items) -> None:
        if any(one.get("encrypted_content") for one in said):
            self._said |= {_key(one): (asked["model"], said) for one in said}


def _key(item: dict[str, Any]) -> str:
    """Returns what tells items of one answer from others'; calls and words without ids, too."""
    content = item.get("content", "")
    words = content if isinstance(content, str) else "".join(one.get("text", "") for one in content)
    call_id = item.get("call_id") if item.get("type") == "function_call" else ""
    return call_id or item.get("id") or f"{item.get('role')}: {words}"


def _signed(item: dict[str, Any]) -> dict[str, Any]:
    """Returns what the API knows of an item: the words are the client's."""
    return {name: one for name, one in item.items() if (item.get("type"), name) != WORDS}


class Messages(Memory):
    """Anthropic's: thinking goes back behind exactly what it came after."""

    items = "content"

    def error(self, body: dict[str, Any]) -> str | None:
        for number, turn in enumerate(body["messages"]):
            wrong = self._turn_error(body, number, turn["content"])
            if wrong and turn["role"] == "assistant":
                return f"messages.{number}: {wrong}"
        return None

    def _turn_error(self, body: dict[str, Any], number: int, content: Items) -> str | None:
        known = [self._said[one] for one in map(_proof, content) if one in self._said]
        of, said = known[0] if known else ("", [])
        if of != _prefix(body, number):
            thinks = any("thinking" in one["type"] for one in content)
            return "Invalid `signature`: bound to a different conversation" if thinks else None
        end = max(index for index, one in enumerate(said) if "thinking" in one["type"]) + 1
        same = content[:end] == said[:end]
        return None if same else "thinking blocks cannot be modified, and must come back"

    def hear(self, asked: dict[str, Any], said: Items) -> None:
        if any("thinking" in one["type"] for one in said):
            prefix = _prefix(asked, len(asked["messages"]))
            self._said |= {_proof(one): (prefix, said) for one in said}


def _proof(block: dict[str, Any]) -> str:
    return str([block.get(one) for one in ("signature", "data", "id", "text")])


def _prefix(body: dict[str, Any], number: int) -> str:
    """Returns all that the API's check compares: what stands before the turn, but for the marks."""
    found = {name: body.get(name) for name in ("model", "system", "tools")}
    return json.dumps(_unmarked({**found, "messages": body["messages"][:number]}))


def _unmarked(value: Any) -> Any:
    if isinstance(value, list):
        return [_unmarked(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {name: _unmarked(one) for name, one in value.items() if name != "cache_control"}
