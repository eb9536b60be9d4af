"""What the doubles of both APIs refuse in a JSON schema that a model is to be held to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

# Written down from the APIs' own pages, not taken from what we send.
KNOWN = {
    *("$defs", "$ref", "additionalProperties", "anyOf", "const", "description", "enum", "format"),
    *("items", "properties", "required", "title", "type"),
}
STRICT_TOO = {
    *("exclusiveMaximum", "exclusiveMinimum", "maximum", "minimum", "multipleOf"),
    *("maxItems", "minItems", "pattern"),
}


def schema_error(schema: dict[str, Any], *, strict: bool) -> str | None:
    """Returns what an API would refuse; `strict` is OpenAI's mode of that name."""
    if schema.get("type") != "object":
        return "the root is no object"
    for node in _nodes(schema):
        known = KNOWN | STRICT_TOO if strict else KNOWN
        if node.keys() - known or not node.keys() & {"type", "anyOf", "$ref"}:
            return f"unknown: {sorted(node)}"
        if "$ref" in node and node.keys() - {"$ref"}:
            return "words beside $ref"
        if node.get("type") == "object":
            if node.get("additionalProperties") is not False:
                return "an open object"
            if strict and list(node["properties"]) != node.get("required"):
                return "an optional property"
    return None


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    inner = [*node.get("properties", {}).values(), *node.get("$defs", {}).values()]
    for one in (*inner, *node.get("anyOf", ()), *([node["items"]] if "items" in node else [])):
        yield from _nodes(one)
