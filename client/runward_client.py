"""The client of a service that speaks for its users: one connection, one issuer, many users."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Self

from temporalio.client import Client, Plugin
from temporalio.common import HeaderCodecBehavior
from temporalio.converter import PayloadCodec

from runward.client.codec import converter, load_codec
from runward.client.connecting import connected
from runward.client.keys import TicketSource
from runward.client.labels import Labelling, Tags
from runward.client.reader import DirectReader, Reader
from runward.client.runs import ActingClient
from runward.client.settings import WORD_CHARS_MAX, Settings, is_word, temporal_connection
from runward.contracts import names
from runward.contracts.errors import ConfigurationError
from runward.contracts.identity import Principal


class RunwardClient:
    """Starts runs and decides approvals in the name of users that its issuer vouches for."""

    def __init__(
        self,
        temporal: Client,
        *,
        issuer: TicketSource,
        reader: Reader | None = None,
        task_queue: str = names.TASK_QUEUE,
        tag_key: str | None = None,
    ) -> None:
        self._temporal = temporal
        self._labelling = Labelling(temporal, Tags(tag_key))
        self._issuer = issuer
        self._reader = reader
        self.task_queue = task_queue

    @classmethod
    async def connect(
        cls,
        address: str | None = None,
        *,
        issuer: TicketSource,
        namespace: str | None = None,
        database_url: str | None = None,
        profile: str | None = None,
        task_queue: str | None = None,
        tag_key: str | None = None,
        codec: PayloadCodec | None = None,
        plugins: Sequence[Plugin] = (),
    ) -> Self:
        """Returns a connected client.

        What is not given comes from TEMPORAL_* variables and profiles, RUNWARD_* variables and
        `runward.toml`. Without a database URL, answers cannot be confirmed nor approvals read.
        `codec` encodes whatever Temporal keeps of runs; workers need the same (`--codec`).
        Raises TemporalUnavailable if Temporal does not answer, ConfigurationError for settings
        with which it never will.
        """
        settings = Settings.load(database_url=database_url, task_queue=task_queue, tag_key=tag_key)
        if codec is None and settings.codec is not None:
            codec = load_codec(settings.codec)
        options = temporal_connection(address, namespace=namespace, profile=profile)
        temporal = await connected(
            options,
            data_converter=converter(codec),
            header_codec_behavior=HeaderCodecBehavior.CODEC,
            plugins=plugins,
        )
        reader = DirectReader(settings.dsn) if settings.dsn else None
        return cls(
            temporal,
            issuer=issuer,
            reader=reader,
            task_queue=settings.task_queue,
            tag_key=settings.tag_key.get_secret_value() if settings.tag_key else None,
        )

    @property
    def temporal(self) -> Client:
        """Returns the Temporal client as it was given, which speaks for nobody."""
        return self._temporal

    def acting_as(self, user: str, *, tenant: str, roles: Iterable[str] = ()) -> ActingClient:
        """Returns the client of one user, on the same connection."""
        if isinstance(roles, str):
            raise ConfigurationError(
                f"acting_as(roles={roles!r})", "roles is a list of names", f"Say [{roles!r}]"
            )
        principal = Principal(tenant, user, frozenset(roles))
        for what, word in (
            ("user", user),
            ("tenant", tenant),
            *(("role", one) for one in principal.roles),
        ):
            if not is_word(word):
                raise ConfigurationError(
                    f"acting_as with {what} {word!r}",
                    f"It is 1 to {WORD_CHARS_MAX} printable characters",
                    "Give a name or an id that is",
                )
        return ActingClient(
            self._temporal,
            principal,
            issuer=self._issuer,
            reader=self._reader,
            task_queue=self.task_queue,
            labelling=self._labelling,
        )

    async def close(self) -> None:
        """Closes the reader; Temporal's connection ends with its last client."""
        if self._reader is not None:
            await self._reader.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()
