"""The table of outages: what each takes away, and how it comes to its end."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import outage_clock
from kill_proxy import Function, Item, Trap
from outage_world import LOGIN, World

Server = Literal["store", "temporal"]
SLOW_S = (0.05, 0.3)  # per packet; three packets make a statement
STEP_S = 3600.0


class Outage(ABC):
    """One outage. Two with the same `knob` cannot happen at once."""

    name: ClassVar[str]
    knob: ClassVar[str]
    down: ClassVar[Server | None] = None  # what the worker's health has to name
    at_start: ClassVar[bool] = False  # it is there before the worker is
    lasts_s: ClassVar[tuple[float, float]] = (3.0, 8.0)

    def __init__(self, world: World, rng: random.Random) -> None:
        self.world, self.rng = world, rng

    @abstractmethod
    async def begin(self) -> None:
        """Begins."""

    @abstractmethod
    async def end(self) -> None:
        """Ends; everything is as it was."""


class PostgresAway(Outage):
    """Connections are cut, others refused."""

    name, knob, down = "postgres_away_mid_step", "postgres gate", "store"

    async def begin(self) -> None:
        await self.world.postgres.away()

    async def end(self) -> None:
        await self.world.postgres.back()


class PostgresAwayAtStart(PostgresAway):
    """The worker starts where no connection is accepted."""

    name, at_start = "postgres_away_at_start", True


class LostAnswers(Trap):
    """Loses the answer to every commit of a governed step, with the connection."""

    def __init__(self) -> None:
        super().__init__("step_open", "reply", frozenset())
        self.lost = 0

    def wants(self, function: Function, items: list[Item]) -> bool:
        """Returns that it wants all of them."""
        return True

    async def hold(self, items: list[Item]) -> None:
        """Returns at once: the server has committed, and the connection is cut."""
        self.lost += len(items)


class PostgresCutAfterCommit(Outage):
    """PostgreSQL commits what it is sent; each answer is lost with its connection."""

    name, knob, down = "postgres_cut_after_commit", "postgres answers", "store"

    async def begin(self) -> None:
        self.world.answers.set(LostAnswers())

    async def end(self) -> None:
        self.world.answers.release()


class PostgresSlow(Outage):
    """Each packet is late."""

    name, knob = "postgres_slow", "postgres gate"

    async def begin(self) -> None:
        self.world.postgres.delay_s = self.rng.uniform(*SLOW_S)

    async def end(self) -> None:
        self.world.postgres.delay_s = 0.0


class PostgresSilent(Outage):
    """Connections stay open, and others are accepted, but no byte passes either way.

    As behind a network that parts: the server does not hear that a client has given up. When it
    ends, these connections are closed.
    """

    name, knob, down = "postgres_silent", "postgres gate", "store"
    lasts_s = (11.0, 16.0)  # longer than a statement may take: who waits has to notice by himself

    async def begin(self) -> None:
        self.world.postgres.hush()

    async def end(self) -> None:
        await self.world.postgres.cut()
        self.world.postgres.speak()


class PostgresReadOnly(Outage):
    """As after a failover that the workers did not notice: they are on a server that only reads.

    Its end lets new connections write, and leaves those that are open as they are.
    """

    name, knob, down = "postgres_read_only", "postgres setting", "store"

    async def begin(self) -> None:
        await self._set("set default_transaction_read_only = on")
        await terminated(self.world)

    async def end(self) -> None:
        await self._set("reset default_transaction_read_only")

    async def _set(self, words: str) -> None:
        await self.world.owner.execute(f"alter role {LOGIN} {words}")


class PostgresOutOfConnections(Outage):
    """Connections end, and PostgreSQL has none left for this login (53300)."""

    name, knob, down = "postgres_out_of_connections", "postgres limit", "store"

    async def begin(self) -> None:
        await self.world.owner.execute(f"alter role {LOGIN} connection limit 0")
        await terminated(self.world)

    async def end(self) -> None:
        await self.world.owner.execute(f"alter role {LOGIN} connection limit -1")


class PostgresDiskFull(Outage):
    """The file system below the store's tables has no byte left (53100).

    Where nobody may mount a small file system, the functions of the governed step raise that error
    instead of writing.
    """

    name, knob, down = "postgres_disk_full", "disk", "store"

    async def begin(self) -> None:
        if self.world.disk is not None:
            self.world.disk.fill()
        else:
            await self._pretend("true")

    async def end(self) -> None:
        if self.world.disk is not None:
            self.world.disk.free()
        else:
            await self._pretend("false")

    async def _pretend(self, full: str) -> None:
        await self.world.owner.execute(f"update runward.bench_clock set full_disk = {full}")


class TemporalAway(Outage):
    """Connections are cut, others refused."""

    name, knob, down = "temporal_away_mid_run", "temporal gate", "temporal"

    async def begin(self) -> None:
        await self.world.temporal.away()

    async def end(self) -> None:
        await self.world.temporal.back()


class TemporalAwayAtStart(TemporalAway):
    """The worker starts where no connection is accepted."""

    name, at_start = "temporal_away_at_start", True


class TemporalRestarted(Outage):
    """The server is killed, and started again on its file."""

    name, knob, down = "temporal_restarted", "temporal gate", "temporal"

    async def begin(self) -> None:
        await self.world.server.kill()
        await self.world.temporal.cut()

    async def end(self) -> None:
        self.world.temporal.to = await self.world.server.start()


class ProviderHanging(Outage):
    """It accepts and never answers; half of what it was asked is billed all the same."""

    name, knob = "provider_hanging", "provider"

    async def begin(self) -> None:
        self.world.model.begin("hanging")

    async def end(self) -> None:
        self.world.model.end()


class ProviderHalfClosed(Outage):
    """It takes the request and closes its side without a word; half of it is billed."""

    name, knob = "provider_half_closed", "provider"

    async def begin(self) -> None:
        self.world.model.begin("half_closed")

    async def end(self) -> None:
        self.world.model.end()


class ProviderRefusingTls(Outage):
    """Open connections are cut, and new ones refused in the handshake."""

    name, knob = "provider_refusing_tls", "provider gate"

    async def begin(self) -> None:
        self.world.provider.refuses_tls = True
        await self.world.provider.cut()

    async def end(self) -> None:
        self.world.provider.refuses_tls = False


class ClockStepped(Outage):
    """The clock of the worker and the store jumps by an hour, either way, and back at the end."""

    name, knob = "clock_stepped", "clock"

    async def begin(self) -> None:
        await self._step(self.rng.choice((-STEP_S, STEP_S)))

    async def end(self) -> None:
        await self._step(0.0)

    async def _step(self, seconds: float) -> None:
        self.world.clock.write_text(str(seconds))
        await outage_clock.step(self.world.owner, seconds)


TABLE: tuple[type[Outage], ...] = (
    PostgresAwayAtStart,
    PostgresAway,
    PostgresCutAfterCommit,
    PostgresSlow,
    PostgresSilent,
    PostgresReadOnly,
    PostgresOutOfConnections,
    PostgresDiskFull,
    TemporalAwayAtStart,
    TemporalAway,
    TemporalRestarted,
    ProviderHanging,
    ProviderHalfClosed,
    ProviderRefusingTls,
    ClockStepped,
)


async def terminated(world: World) -> None:
    """Ends the connections of workers and clients."""
    await world.owner.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity where usename = $1", LOGIN
    )
