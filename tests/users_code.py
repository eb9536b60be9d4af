"""A user's own workflows and activities, written without a thought of us.

They stand alone, as users' files do: the sandbox imports this file again for every workflow.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from temporalio import activity, workflow
from temporalio.api.common.v1 import Payload
from temporalio.converter import (
    CompositePayloadConverter,
    DefaultPayloadConverter,
    EncodingPayloadConverter,
)
from temporalio.exceptions import ApplicationError

LIMIT = timedelta(seconds=30)


@dataclass(frozen=True)
class Euros:
    """A type that only the converter below knows how to write."""

    cents: int


class EurosConverter(EncodingPayloadConverter):
    """Writes sums as bare numbers under an encoding of its own."""

    @property
    def encoding(self) -> str:
        """Returns the name of the encoding."""
        return "users/euros"

    def to_payload(self, value: Any) -> Payload | None:
        """Returns the payload of a sum, None for anything else."""
        if not isinstance(value, Euros):
            return None
        return Payload(metadata={"encoding": b"users/euros"}, data=str(value.cents).encode())

    def from_payload(self, payload: Payload, type_hint: type | None = None) -> Any:
        """Returns the sum."""
        return Euros(int(payload.data))


class UsersConverter(CompositePayloadConverter):
    """Temporal's converters, after the user's own."""

    def __init__(self) -> None:
        super().__init__(
            EurosConverter(), *DefaultPayloadConverter.default_encoding_payload_converters
        )


class Cards:
    """Takes money; `charged` is what was taken, after as many refusals as were asked for."""

    def __init__(self, refusals: int = 0) -> None:
        self.charged: list[str] = []
        self.refusals = refusals

    @activity.defn
    async def charge(self, card: str) -> str:
        """Charges a card."""
        if self.refusals:
            self.refusals -= 1
            raise ConnectionError("the bank is away")
        self.charged.append(card)
        return f"charged {card}"

    @activity.defn
    async def pay(self, sum: Euros) -> Euros:
        """Pays a sum, and returns what is left of it."""
        self.charged.append(f"{sum.cents}")
        return Euros(0)


@workflow.defn
class Charges:
    """Charges one card."""

    @workflow.run
    async def run(self, card: str, local: bool) -> str:
        """Returns what the activity returned."""
        if local:
            return await workflow.execute_local_activity_method(
                Cards.charge, card, schedule_to_close_timeout=LIMIT
            )
        workflow.set_current_details("charges a card")
        return await workflow.execute_activity_method(
            Cards.charge, card, start_to_close_timeout=LIMIT
        )


@workflow.defn
class ChargesTwice:
    """Fails after its charge in its first attempt; every execution charges."""

    @workflow.run
    async def run(self, card: str) -> str:
        """Returns what the second attempt's activity returned."""
        said = await workflow.execute_activity_method(
            Cards.charge, card, start_to_close_timeout=LIMIT
        )
        if workflow.info().attempt == 1 and workflow.info().cron_schedule is None:
            raise ApplicationError("once more")
        return said


@workflow.defn
class Pays:
    """Pays with a type of the user's."""

    @workflow.run
    async def run(self, sum: Euros) -> Euros:
        """Returns what is left."""
        return await workflow.execute_activity_method(Cards.pay, sum, start_to_close_timeout=LIMIT)
