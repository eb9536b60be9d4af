"""Tool definitions: a typed Python function, its schema, and what its effect is.

The effect class and `destructive` come from this definition, never from the model.
"""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Generic, Literal, TypeVar, overload

from pydantic import BaseModel, ConfigDict, create_model

from runward.contracts.encoding import digest_of
from runward.contracts.errors import ConfigurationError

Effect = Literal["read", "write", "external", "money", "secret"]
OnUnknown = Literal["ask", "tell", "retry"]

Deps = TypeVar("Deps")

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}\Z")
TIMEOUT_DEFAULT = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class ToolContext(Generic[Deps]):
    """What a tool may know of the step it runs in.

    `idempotency_key` is the same for every attempt of this step: hand it to whoever you call.
    """

    tenant: str
    user: str
    run_id: str
    step: str
    idempotency_key: str
    deps: Deps
    heartbeat: Callable[..., None] = field(default=lambda *_: None)


@dataclass(frozen=True, slots=True)
class Tool:
    """One tool as the model, the policy and the worker see it."""

    name: str
    description: str
    body: Callable[..., Any]
    arguments: type[BaseModel]
    takes_context: bool
    effect: Effect = "read"
    destructive: bool = False
    idempotent: bool = False
    requires_approval: bool = False
    on_unknown: OnUnknown = "ask"
    timeout: timedelta = TIMEOUT_DEFAULT
    retries: int = 0

    @property
    def schema(self) -> dict[str, Any]:
        """Returns the JSON schema of the arguments."""
        return self.arguments.model_json_schema()

    @property
    def definition(self) -> dict[str, Any]:
        """Returns all that a decision rests on, as canonical data."""
        return {
            "name": self.name,
            "description": self.description,
            "schema": self.schema,
            "effect": self.effect,
            "destructive": self.destructive,
            "idempotent": self.idempotent,
        }

    @property
    def schema_digest(self) -> str:
        """Returns the digest of the definition; part of every effect digest."""
        return _schema_digest(self)

    @property
    def activity_type(self) -> str:
        """Returns the name under which Temporal knows this tool."""
        return f"tool.{self.name}"


_digests: dict[int, tuple[Tool, str]] = {}


def _schema_digest(one: Tool) -> str:
    # By identity: a definition is immutable, and hashing a large schema on every step is not free.
    known = _digests.get(id(one))
    if known is None or known[0] is not one:
        known = _digests[id(one)] = (one, digest_of(_floatless(one.definition)))
    return known[1]


def _floatless(value: Any) -> Any:
    """Returns schema data with floats as text: canonical encoding has none."""
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, dict):
        return {key: _floatless(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_floatless(item) for item in value]
    return value


@overload
def tool(
    body: None = None,
    /,
    *,
    name: str | None = None,
    effect: Effect = "read",
    destructive: bool = False,
    idempotent: bool | None = None,
    requires_approval: bool = False,
    on_unknown: OnUnknown = "ask",
    timeout: timedelta | float = TIMEOUT_DEFAULT,
    retries: int = 0,
) -> Callable[[Callable[..., Any]], Tool]: ...
@overload
def tool(
    body: Callable[..., Any],
    /,
    *,
    name: str | None = None,
    effect: Effect = "read",
    destructive: bool = False,
    idempotent: bool | None = None,
    requires_approval: bool = False,
    on_unknown: OnUnknown = "ask",
    timeout: timedelta | float = TIMEOUT_DEFAULT,
    retries: int = 0,
) -> Tool: ...
def tool(
    body: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    effect: Effect = "read",
    destructive: bool = False,
    idempotent: bool | None = None,
    requires_approval: bool = False,
    on_unknown: OnUnknown = "ask",
    timeout: timedelta | float = TIMEOUT_DEFAULT,
    retries: int = 0,
) -> Tool | Callable[[Callable[..., Any]], Tool]:
    """Returns the tool that a typed function is; use it as a decorator, or call it on an activity.

    A read is idempotent unless you say otherwise; every other effect is not unless you say so.
    After an exception or a timeout of its body an idempotent tool is run again, under the same
    idempotency key, `retries` times at most; attempts whose worker ended inside count as well.
    Errors: ConfigurationError for a name, a signature or a bound that cannot work.
    """

    def define(function: Callable[..., Any]) -> Tool:
        # An activity may carry its own name; the model-facing name is the function's.
        title = name or function.__name__
        repeatable = (effect == "read") if idempotent is None else idempotent
        _check(title, retries, effect, repeatable)
        arguments, takes_context = _arguments(title, function)
        limit = timeout if isinstance(timeout, timedelta) else timedelta(seconds=timeout)
        return Tool(
            name=title,
            description=inspect.cleandoc(function.__doc__ or ""),
            body=function,
            arguments=arguments,
            takes_context=takes_context,
            effect=effect,
            destructive=destructive,
            idempotent=repeatable,
            requires_approval=requires_approval,
            on_unknown=on_unknown,
            timeout=limit,
            retries=retries,
        )

    return define if body is None else define(body)


def _check(title: str, retries: int, effect: Effect, repeatable: bool) -> None:
    if not _NAME.match(title):
        raise ConfigurationError(
            f"@tool named {title!r}", "Names are a-z, 0-9 and _, at most 64", "Pass name="
        )
    if retries < 0:
        raise ConfigurationError(
            f"@tool {title}: retries={retries}", "retries is >= 0", "Leave it out for none"
        )
    if retries and not repeatable:
        raise ConfigurationError(
            f"@tool {title}: retries={retries}",
            f"It has the effect {effect!r} and is not idempotent: a retry could act twice",
            "Hand ctx.idempotency_key on and say idempotent=True, or leave retries out",
        )


def _arguments(title: str, function: Callable[..., Any]) -> tuple[type[BaseModel], bool]:
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except NameError as error:
        raise ConfigurationError(
            f"@tool {title}", f"Its annotations cannot be read: {error}", "Import the types"
        ) from error
    fields: dict[str, Any] = {}
    takes_context = False
    for index, (key, parameter) in enumerate(inspect.signature(function).parameters.items()):
        if key == "self":
            continue
        annotation = hints.get(key)
        if index == 0 and (typing.get_origin(annotation) or annotation) is ToolContext:
            takes_context = True
            continue
        if annotation is None or parameter.kind in (
            parameter.VAR_KEYWORD,
            parameter.VAR_POSITIONAL,
        ):
            raise ConfigurationError(
                f"@tool {title}: parameter {key!r}",
                "The schema is made from annotations",
                "Annotate every parameter; *args and **kwargs have no schema",
            )
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[key] = (annotation, default)
    model = create_model(title, __config__=ConfigDict(extra="forbid"), **fields)
    return model, takes_context
