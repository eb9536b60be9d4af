"""Wire types as payloads, independent of the data converter that the user has."""

from __future__ import annotations

from pydantic import BaseModel
from temporalio.api.common.v1 import Payload
from temporalio.common import RawValue

from runward.contracts.wire import JSON_PLAIN, Wire, decode_wire, encode_wire


def raw(value: BaseModel) -> RawValue:
    """Returns the value as a JSON payload that every converter lets through."""
    return RawValue(Payload(metadata=JSON_PLAIN, data=encode_wire(value)))


def read(kind: type[Wire], value: RawValue) -> Wire:
    """Returns the value of a payload that `raw` wrote; a ValidationError if it is none."""
    return decode_wire(kind, value.payload.data)
