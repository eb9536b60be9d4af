"""A payload codec of the user's: what Temporal's server keeps, it cannot read.

Every process that speaks with a run needs the same one: clients, workers, and the command line.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from traceback import format_exception
from types import TracebackType

from temporalio.converter import (
    DataConverter,
    DefaultFailureConverterWithEncodedAttributes,
    PayloadCodec,
)

from runward.client.data_converter import DATA_CONVERTER
from runward.client.named import named
from runward.contracts.errors import ConfigurationError


def load_codec(name: str) -> PayloadCodec:
    """Returns the codec of that name, such as `shop:codec`; found as an app is.

    Raises ConfigurationError if there is none.
    """
    made = "YourCodec()"
    return named(name, PayloadCodec, what="codec", made=made)  # type: ignore[type-abstract]


@contextmanager
def told(name: str | None) -> Iterator[None]:
    """Tells what the codec of that name raises in words, with the codec's own traceback."""
    try:
        yield
    except Exception as error:
        theirs = None if name is None else _within(error, type(load_codec(name)).__module__)
        if theirs is None:
            raise
        failed = ConfigurationError(
            f"The codec {name!r}",
            f"It raised {type(error).__name__}",
            "Mend the line that its traceback leads to; `runward doctor` tries it",
        )
        failed.traceback = "".join(format_exception(type(error), error, theirs))
        raise failed from error


def _within(error: Exception, module: str) -> TracebackType | None:
    """Returns the error's traceback from that module on, None if it did not pass there."""
    found = error.__traceback__
    while found is not None and found.tb_frame.f_globals.get("__name__") != module:
        found = found.tb_next
    return found


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
