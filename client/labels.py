"""What lists of workflows show of a run: tags by which whoever has the names finds it.

Tags, never names: everyone who may look at the namespace sees search attributes, and no codec
encodes them. With a key (RUNWARD_TAG_KEY) nobody without it can try names against a tag.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import (
    AddSearchAttributesRequest,
    ListSearchAttributesRequest,
)
from temporalio.client import Client, WorkflowExecutionDescription
from temporalio.common import SearchAttributeKey, SearchAttributePair, TypedSearchAttributes
from temporalio.service import RPCError, RPCStatusCode

from runward.client.settings import TAG_KEY_CHARS_MIN
from runward.contracts import names
from runward.contracts.errors import ConfigurationError
from runward.contracts.identity import Principal
from runward.contracts.transcript import short_tag

_AGAIN = (RPCStatusCode.UNAVAILABLE, RPCStatusCode.DEADLINE_EXCEEDED, RPCStatusCode.CANCELLED)


class Tags:
    """Tags under one key; all clients of a namespace have the same one, or none."""

    def __init__(self, key: str | None = None) -> None:
        if key is not None and len(key) < TAG_KEY_CHARS_MIN:
            raise ConfigurationError(
                "A tag key",
                f"It has {len(key)} characters, at least {TAG_KEY_CHARS_MIN} are needed",
                "Make one: python -c 'import secrets; print(secrets.token_urlsafe())'",
            )
        self._key = hashlib.sha256(key.encode()).digest() if key is not None else b""

    def tenant(self, principal: Principal) -> str:
        """Returns the tenant's tag."""
        return short_tag(principal.tenant, self._key)

    def user(self, principal: Principal) -> str:
        """Returns the user's tag; users of two tenants who share a name have two."""
        return short_tag(f"{principal.tenant}\x1f{principal.user}", self._key)

    def word(self, word: str) -> str:
        """Returns the tag of an agent's name, or of a run's key."""
        return short_tag(word, self._key)

    def of(self, principal: Principal, agent: str) -> dict[str, str]:
        """Returns a run's search attributes by their names."""
        return {
            names.TENANT_ATTRIBUTE: self.tenant(principal),
            names.USER_ATTRIBUTE: self.user(principal),
            names.AGENT_ATTRIBUTE: self.word(agent),
        }


@dataclass(frozen=True, slots=True)
class Labels:
    """What a start carries: search attributes, or a memo where the namespace has none of ours."""

    search_attributes: TypedSearchAttributes | None
    memo: Mapping[str, str] = field(default_factory=dict)


class Labelling:
    """Labels the runs that are started over one connection."""

    def __init__(self, temporal: Client, tags: Tags | None = None) -> None:
        self.tags = tags or Tags()
        self._temporal = temporal
        self._registered: bool | None = None
        self._asking = asyncio.Lock()

    async def of(self, principal: Principal, agent: str) -> Labels:
        """Returns the labels of a run. An attribute that is not registered would fail its start."""
        tags = self.tags.of(principal, agent)
        if not await self._known():
            return Labels(None, tags)
        pairs = [
            SearchAttributePair(SearchAttributeKey.for_keyword(name), tag)
            for name, tag in tags.items()
        ]
        return Labels(TypedSearchAttributes(pairs))

    async def _known(self) -> bool:
        if self._registered is None:
            async with self._asking:
                if self._registered is None:
                    self._registered = await registered(self._temporal)
        return bool(self._registered)


async def memo(found: WorkflowExecutionDescription, name: str, asked: str) -> str | None:
    """Returns what the memo of a workflow holds under that name, None if it has nothing there.

    Raises ConfigurationError where a codec encoded it that this client does not have.
    """
    try:
        value: str | None = await found.memo_value(name, None, type_hint=str)
    except KeyError as error:  # the SDK's, with the name of the encoding
        raise ConfigurationError(
            asked,
            f"This client has no codec that decodes it: {error.args[0]}",
            "Give it the codec that encoded it: RUNWARD_CODEC or connect(codec=...)",
        ) from error
    return value


async def registered(temporal: Client) -> bool | None:
    """Returns whether the namespace has our search attributes; None if nobody answered now.

    A server that does not say is taken for one that has none.
    """
    try:
        found = await temporal.operator_service.list_search_attributes(
            ListSearchAttributesRequest(namespace=temporal.namespace)
        )
    except RPCError as error:
        return None if error.status in _AGAIN else False
    keyword = IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD
    return all(found.custom_attributes.get(one) == keyword for one in names.SEARCH_ATTRIBUTES)


async def register(temporal: Client) -> None:
    """Registers those of our search attributes that the namespace lacks."""
    said = await temporal.operator_service.list_search_attributes(
        ListSearchAttributesRequest(namespace=temporal.namespace)
    )
    keyword = IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD
    missing = [one for one in names.SEARCH_ATTRIBUTES if one not in said.custom_attributes]
    await temporal.operator_service.add_search_attributes(
        AddSearchAttributesRequest(
            namespace=temporal.namespace,
            search_attributes=dict.fromkeys(missing, keyword),
        )
    )
