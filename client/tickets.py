"""Puts a start ticket on every workflow that a bound client starts.

The ticket says who starts what: it is bound to the workflow's id and to a digest of what is asked.
It goes last in the chain of interceptors, so that it speaks for the call as it is sent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from temporalio.api.common.v1 import Payload
from temporalio.client import (
    Client,
    Interceptor,
    OutboundInterceptor,
    StartWorkflowInput,
    StartWorkflowUpdateWithStartInput,
    WorkflowHandle,
    WorkflowUpdateHandle,
)
from temporalio.common import HeaderCodecBehavior, RawValue
from temporalio.contrib.pydantic import PydanticPayloadConverter
from temporalio.converter import (
    DataConverter,
    DefaultPayloadConverter,
    JSONPlainPayloadConverter,
)

from runward.client.keys import TicketSource
from runward.contracts import names
from runward.contracts.encoding import digest_of
from runward.contracts.errors import ConfigurationError
from runward.contracts.identity import START_TTL, Principal
from runward.contracts.runs import RunInput
from runward.workflows.payloads import read

_PLAIN = JSONPlainPayloadConverter()


def ticketed_client(client: Client, principal: Principal, issuer: TicketSource) -> Client:
    """Returns a client on the same connection whose starts carry this principal's tickets."""
    config = client.config()
    kept = [one for one in config["interceptors"] if not isinstance(one, TicketInterceptor)]
    config["interceptors"] = [*kept, TicketInterceptor(principal, issuer)]
    config["header_codec_behavior"] = HeaderCodecBehavior.CODEC
    config["data_converter"] = wire_converter(config["data_converter"])
    return Client(**config)


def wire_converter(given: DataConverter) -> DataConverter:
    """Returns a converter that can carry our wire types; one that is not Temporal's own is kept.

    A codec, a failure converter and external storage stay as they are.
    """
    if given.payload_converter_class is not DefaultPayloadConverter:
        return given
    return replace(given, payload_converter_class=PydanticPayloadConverter)


def start_digest(workflow: str, args: Sequence[Any]) -> str:
    """Returns what a start ticket is bound to: the request, or for users' workflows the type."""
    if workflow != names.AGENT_RUN:
        return digest_of({"workflow": workflow})
    if len(args) == 1 and isinstance(args[0], RunInput):
        return args[0].request.digest
    if len(args) == 1 and isinstance(args[0], RawValue):
        return read(RunInput, args[0]).request.digest
    raise ConfigurationError(
        f"Start of {names.AGENT_RUN!r} with {[type(one).__name__ for one in args]!r}",
        "Its one argument is a RunInput",
        "Start agents with acting_as(...).start(...)",
    )


class TicketInterceptor(Interceptor):
    """Signs for one principal."""

    def __init__(self, principal: Principal, issuer: TicketSource) -> None:
        self.principal = principal
        self.issuer = issuer

    def intercept_client(self, next: OutboundInterceptor) -> OutboundInterceptor:
        """Returns the chain with this one in front."""
        return _Outbound(next, self)

    def headers(
        self,
        given: Mapping[str, Payload],
        *,
        workflow: str,
        workflow_id: str,
        args: Sequence[Any],
        start_delay: timedelta | None,
    ) -> Mapping[str, Payload]:
        """Returns the headers with a fresh ticket; it outlives a delayed start."""
        token = self.issuer.ticket(
            self.principal,
            "start",
            subject=workflow_id,
            digest=start_digest(workflow, args),
            ttl=START_TTL + (start_delay or timedelta()),
        )
        payload = _PLAIN.to_payload(token)
        if payload is None:
            raise TypeError("a ticket is text")
        return {**given, names.TICKET_HEADER: payload}


class _Outbound(OutboundInterceptor):
    def __init__(self, next: OutboundInterceptor, tickets: TicketInterceptor) -> None:
        super().__init__(next)
        self._tickets = tickets

    async def start_workflow(self, input: StartWorkflowInput) -> WorkflowHandle[Any, Any]:
        input.headers = self._tickets.headers(
            input.headers,
            workflow=input.workflow,
            workflow_id=input.id,
            args=input.args,
            start_delay=input.start_delay,
        )
        return await super().start_workflow(input)

    async def start_update_with_start_workflow(
        self, input: StartWorkflowUpdateWithStartInput
    ) -> WorkflowUpdateHandle[Any]:
        start = input.start_workflow_input
        start.headers = self._tickets.headers(
            start.headers,
            workflow=start.workflow,
            workflow_id=start.id,
            args=start.args,
            start_delay=start.start_delay,
        )
        return await super().start_update_with_start_workflow(input)
