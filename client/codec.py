"""A payload codec of the user's: what Temporal's server keeps, it cannot read.

Every process that speaks with a run needs the same one: clients, workers, and the command line.
"""

from __future__ import annotations

from dataclasses import replace

from temporalio.converter import (
    DataConverter,
    DefaultFailureConverterWithEncodedAttributes,
    PayloadCodec,
)

from runward.client.data_converter import DATA_CONVERTER
from runward.client.named import named


def load_codec(name: str) -> PayloadCodec:
    """Returns the codec of that name, such as `shop:codec`; found as an app is.

    Raises ConfigurationError if there is none.
    """
    made = "YourCodec()"
    return named(name, PayloadCodec, what="codec", made=made)  # type: ignore[type-abstract]


def converter(codec: PayloadCodec | None) -> DataConverter:
    """Returns the data converter of connections that runward makes, with that codec if any.

    With one, messages and traces of failures go through it as well: those of your own activities
    may quote what a user said.
    """
    if codec is None:
        return DATA_CONVERTER
    return replace(
        DATA_CONVERTER,
        payload_codec=codec,
        failure_converter_class=DefaultFailureConverterWithEncodedAttributes,
    )
