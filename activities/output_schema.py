"""What a provider's API is told of the JSON schema that an answer must fit; pure.

APIs that hold a model to a schema know a part of JSON Schema. What only bounds a value is written
into descriptions where an API does not know it; the worker judges every answer anyway. A schema
whose structure does not fit is not sent as one that the model is held to.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final

from runward.contracts.output import unfenced
from runward.contracts.providers import ModelRequest, ModelResponse, OutputSpec

ENVELOPE: Final = "response"  # the one property around an answer that is no object

_TYPES = frozenset({"string", "number", "integer", "boolean", "null", "object", "array"})
_WORDS = frozenset({"title", "description", "default", "examples", "deprecated", "discriminator"})
NUMBER_BOUNDS = frozenset(
    {"exclusiveMaximum", "exclusiveMinimum", "maximum", "minimum", "multipleOf"}
)
FORMATS = frozenset(
    {"date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "uuid"}
)
_BOUNDS = NUMBER_BOUNDS | {
    *("format", "maxLength", "minLength", "pattern"),
    *("maxItems", "minItems", "uniqueItems"),
}
_STRUCTURE = frozenset(
    {
        *("$defs", "$ref", "anyOf", "const", "enum", "items", "oneOf", "type"),
        *("additionalProperties", "properties", "required"),
    }
)
_HEAD = re.compile(r'\s*\{\s*"' + ENVELOPE + r'"\s*:\s*')
_TAIL = re.compile(r"\s*\}\s*")


@dataclass(frozen=True, slots=True)
class Dialect:
    """What an API holds a model to; all numbers are of the whole schema."""

    bounds: frozenset[str]
    formats: frozenset[str]
    optional_max: int  # properties that may be missing
    unions_max: int
    properties_max: int = 5_000
    choices_max: int = 1_000  # of enums
    depth_max: int = 10
    recursive: bool = True


class _Unfit(Exception):
    """The schema says what the dialect cannot."""


def enveloped(schema: dict[str, Any]) -> dict[str, Any]:
    """Returns a schema whose root is an object: itself, or one with the answer inside."""
    if schema.get("type") == "object":
        return schema
    inner = {name: value for name, value in schema.items() if name != "$defs"}
    return {
        "type": "object",
        "properties": {ENVELOPE: inner},
        "required": [ENVELOPE],
        "additionalProperties": False,
        **({"$defs": schema["$defs"]} if "$defs" in schema else {}),
    }


def opened(response: ModelResponse, request: ModelRequest) -> ModelResponse:
    """Returns the answer without the envelope that `enveloped` asked for; any other as it is."""
    spec, text = request.output, response.message.text
    if spec is None or response.stop != "end" or enveloped(spec.schema) is spec.schema:
        return response
    text = unfenced(text)
    head = _HEAD.match(text)
    if head is None:
        return response
    try:
        _, end = json.JSONDecoder().raw_decode(text, head.end())
    except (ValueError, RecursionError):
        return response
    if not _TAIL.fullmatch(text, end):
        return response
    # Cut out and not written anew: a number keeps all its digits.
    message = response.message.model_copy(update={"text": text[head.end() : end]})
    return replace(response, message=message)


def instruction(spec: OutputSpec) -> str:
    """Returns the schema in words, for an API that cannot be held to it."""
    schema = json.dumps(enveloped(spec.schema), ensure_ascii=False, separators=(",", ":"))
    return f"Your last message must be nothing but JSON that fits this JSON schema:\n{schema}"


@lru_cache(maxsize=1024)  # with the schema's own life: one per agent
def fitted(spec: OutputSpec, dialect: Dialect) -> dict[str, Any] | None:
    """Returns the schema with an object as its root as the dialect writes it, None if it cannot.

    Whatever fits the result fits the schema's structure: objects are closed, and what may be null
    may not be missing where all must be there.
    """
    root = enveloped(spec.schema)
    try:
        found = _Fitting(dialect, root).root()
    except _Unfit:
        return None
    return found


def sent_bytes(spec: OutputSpec, *dialects: Dialect) -> int:
    """Returns the most bytes that any way to say the schema takes."""
    ways = [enveloped(spec.schema), *(fitted(spec, one) for one in dialects)]
    return max(len(instruction(spec).encode()), *(len(json.dumps(one).encode()) for one in ways))


class _Fitting:
    """One schema on its way into a dialect."""

    def __init__(self, dialect: Dialect, root: dict[str, Any]) -> None:
        self._dialect = dialect
        self._root = root
        self._defs: dict[str, Any] = root.get("$defs", {})
        self._optional = self._unions = self._properties = self._choices = 0

    def root(self) -> dict[str, Any]:
        found = self._node(self._root)
        if self._defs:
            found["$defs"] = {name: self._node(one) for name, one in self._defs.items()}
        self._depth(self._root, 0, frozenset())
        bounds = self._dialect
        if (
            self._optional > bounds.optional_max
            or self._unions > bounds.unions_max
            or self._properties > bounds.properties_max
            or self._choices > bounds.choices_max
        ):
            raise _Unfit
        return found

    def _node(self, node: Any) -> dict[str, Any]:
        if not isinstance(node, dict) or not node.keys() <= _STRUCTURE | _BOUNDS | _WORDS:
            raise _Unfit
        if "$ref" in node:
            if not node.keys() <= _WORDS | {"$ref", "$defs"} or self._target(node) is None:
                raise _Unfit
            return {"$ref": node["$ref"]}  # which allows nothing beside it
        found = {name: node[name] for name in ("title", "description") if name in node}
        self._shape(node, found)
        said = dict(self._bounded(node, found))
        if said:
            words = ", ".join(f"{name}: {value}" for name, value in sorted(said.items()))
            found["description"] = f"{found.get('description', '')} {{{words}}}".strip()
        return found

    def _shape(self, node: dict[str, Any], found: dict[str, Any]) -> None:
        branches = node.get("anyOf") or node.get("oneOf")
        if branches:
            if "type" in node or {"anyOf", "oneOf"} <= node.keys():
                raise _Unfit
            self._unions += 1
            found["anyOf"] = [self._node(one) for one in branches]
            return
        kind = node.get("type")
        if not isinstance(kind, str) or kind not in _TYPES:
            raise _Unfit
        found["type"] = kind
        for name in ("enum", "const"):
            if name in node:
                found[name] = node[name]
        self._choices += len(node.get("enum", ()))
        if kind == "object":
            self._object(node, found)
        elif kind == "array":
            found["items"] = self._node(node.get("items"))

    def _object(self, node: dict[str, Any], found: dict[str, Any]) -> None:
        if node.get("additionalProperties", False) is not False:
            raise _Unfit
        properties = {name: self._node(one) for name, one in node.get("properties", {}).items()}
        required = [name for name in properties if name in node.get("required", ())]
        for name, one in properties.items():
            if name in required:
                continue
            # To say nothing and to say null, or the only value that there is, is the same.
            if "const" in one or {"type": "null"} in one.get("anyOf", ()):
                required.append(name)
            else:
                self._optional += 1
        self._properties += len(properties)
        found["properties"] = properties
        found["required"] = [name for name in properties if name in required]
        found["additionalProperties"] = False

    def _bounded(self, node: dict[str, Any], found: dict[str, Any]) -> Iterator[tuple[str, Any]]:
        """Takes the bounds over that the dialect knows; yields the others."""
        for name in node.keys() & _BOUNDS:
            value = node[name]
            known = name in self._dialect.bounds
            if name == "format":
                known = value in self._dialect.formats
            elif name == "pattern":  # no engine of theirs looks around or back
                known = known and "(?" not in value and not re.search(r"\\[1-9bB]", value)
            if known:
                found[name] = value
            else:
                yield name, value

    def _target(self, node: dict[str, Any]) -> dict[str, Any] | None:
        found: dict[str, Any] | None = self._defs.get(str(node["$ref"]).removeprefix("#/$defs/"))
        return found

    def _depth(self, node: dict[str, Any], depth: int, seen: frozenset[str]) -> None:
        """Raises _Unfit for what is nested too deep, or in itself where that is not allowed."""
        if "$ref" in node:
            name = node["$ref"]
            if name in seen:
                if not self._dialect.recursive:
                    raise _Unfit
                return
            node, seen = self._defs[name.removeprefix("#/$defs/")], seen | {name}
            self._depth(node, depth, seen)
            return
        depth += node.get("type") in ("object", "array")
        if depth > self._dialect.depth_max:
            raise _Unfit
        branches = [*node.get("anyOf", ()), *node.get("oneOf", ())]
        inner = [node["items"]] if "items" in node else []
        for one in (*node.get("properties", {}).values(), *branches, *inner):
            self._depth(one, depth, seen)
