"""Wire types as payloads, independent of the data converter that the user has."""

from __future__ import annotations

from pydantic import BaseModel
from temporalio.api.common.v1 import Payload
from temporalio.common import RawValue

from runward.contracts.errors import ConfigurationError
from runward.contracts.wire import JSON_PLAIN, Wire, decode_wire, encode_wire


def raw(value: BaseModel) -> RawValue:
    """Returns the value as a JSON payload that every converter lets through."""
    return RawValue(Payload(metadata=JSON_PLAIN, data=encode_wire(value)))


def read(kind: type[Wire], value: RawValue) -> Wire:
    """Returns the value of a payload that `raw` wrote; a ValidationError if it is none.

    A ConfigurationError if a codec encoded it that this process does not have.
    """
    return decode_wire(kind, plain(value))


def plain(value: RawValue) -> bytes:
    """Returns the bytes of a payload as we write them; a ConfigurationError if it is encoded."""
    encoding = value.payload.metadata.get("encoding", b"")
    if encoding != JSON_PLAIN["encoding"]:
        raise ConfigurationError(
            f"A payload in the encoding {encoding.decode(errors='replace')[:100]!r}",
            "This process has no codec that decodes it",
            "Give it the codec that encoded it: --codec, RUNWARD_CODEC or connect(codec=...)",
        )
    return value.payload.data
