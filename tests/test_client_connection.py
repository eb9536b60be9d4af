"""Connecting, and in whose name: what is kept of a given client, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
from temporalio.client import Client
from temporalio.converter import DefaultPayloadConverter

from runward.client.runward_client import RunwardClient
from runward.contracts.errors import (
    ConfigurationError,
    TemporalUnavailable,
)

from .client_stand_in import Desk


async def test_own_data_converter_is_kept(desk: Desk) -> None:
    class Own(DefaultPayloadConverter):
        """A user's converter."""

    config = desk.rw.temporal.config()
    config["data_converter"] = replace(config["data_converter"], payload_converter_class=Own)
    client = RunwardClient(Client(**config), issuer=desk.key)

    ada = client.acting_as("ada", tenant="acme")

    assert ada.temporal.data_converter.payload_converter_class is Own


async def test_closing_the_client_closes_its_reader(desk: Desk) -> None:
    async with desk.rw:
        pass

    assert desk.reader.closed


@pytest.mark.parametrize("who", ["", "a\x1fb", "a\nb", "x" * 201])
async def test_user_that_is_no_name_is_refused(desk: Desk, who: str) -> None:
    with pytest.raises(ConfigurationError, match="printable"):
        desk.rw.acting_as(who, tenant="acme")
    with pytest.raises(ConfigurationError, match="printable"):
        desk.rw.acting_as("ada", tenant=who)


async def test_roles_given_as_one_text_are_refused(desk: Desk) -> None:
    with pytest.raises(ConfigurationError, match="list of names"):
        desk.rw.acting_as("ada", tenant="acme", roles="finance")


async def test_server_that_is_away_is_named(desk: Desk) -> None:
    with pytest.raises(TemporalUnavailable, match=r"127\.0\.0\.1:1"):
        await RunwardClient.connect("127.0.0.1:1", issuer=desk.key)
