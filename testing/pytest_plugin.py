"""The pytest plugin: `runward_stack`, a tenant and a task queue of its own for each test.

pytest loads this in every session of whoever has runward installed, so nothing is imported or
started before a test wants a fixture. The fixtures are no coroutines: they belong to no event loop,
and serve tests on a loop of any scope, of pytest-asyncio or of another plugin.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

if TYPE_CHECKING:
    from runward.testing.servers import Addresses, Servers
    from runward.testing.sharing import Sharing
    from runward.testing.stack import Stack

# Not RUNWARD_DATABASE_URL and TEMPORAL_ADDRESS: tests must not run where somebody's shell points.
POSTGRES_VARIABLE = "RUNWARD_TEST_DATABASE_URL"
TEMPORAL_VARIABLE = "RUNWARD_TEST_TEMPORAL_ADDRESS"
SHARED = "runward_servers"  # in pytest-xdist's input for its processes

# What pytest-asyncio (0.24 to 1.5 at least) tells whoever has not said on which loop asynchronous
# fixtures run, also those who have none. Ours belong to no loop, and nothing is changed by it.
LOOPS_UNSAID = 'The configuration option "asyncio_default_fixture_loop_scope" is unset'

Value = TypeVar("Value")


class Session:
    """What this process has started for the session."""

    def __init__(self) -> None:
        self._servers: Servers | None = None
        self._sharing: Sharing | None = None

    def addresses(self) -> Addresses:
        """Returns where the servers are; starts them for the first who asks."""
        if self._servers is None:
            from runward.testing.servers import Servers

            self._servers = Servers(
                postgres=os.environ.get(POSTGRES_VARIABLE) or None,
                temporal=os.environ.get(TEMPORAL_VARIABLE) or None,
            )
        return self._servers.addresses

    def shared(self) -> str:
        """Returns the address at which other processes ask for the servers."""
        if self._sharing is None:
            from dataclasses import asdict

            from runward.testing.sharing import Sharing

            self._sharing = Sharing(lambda: asdict(self.addresses()))
        return self._sharing.address

    def end(self) -> None:
        """Stops what was started."""
        if self._sharing is not None:
            self._sharing.close()
        if self._servers is not None:
            self._servers.stop()


SESSION = pytest.StashKey[Session]()


@pytest.hookimpl(tryfirst=True)  # pytest-asyncio warns in the same hook
def pytest_configure(config: pytest.Config) -> None:
    """Makes room for what the session may start, and takes back one warning of pytest-asyncio."""
    config.stash[SESSION] = Session()
    warnings.filterwarnings("ignore", LOOPS_UNSAID, pytest.PytestDeprecationWarning)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stops the servers that this process started, if any."""
    config.stash[SESSION].end()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tells each process of pytest-xdist where to ask for servers."""
    node.workerinput[SHARED] = node.config.stash[SESSION].shared()


@pytest.fixture(scope="session")
def runward_servers(pytestconfig: pytest.Config) -> Addresses:
    """Where the session's PostgreSQL and Temporal are, shared by all processes of pytest-xdist."""
    from runward.testing.servers import CANNOT_START, Addresses
    from runward.testing.sharing import NotShared, ask_for

    where = getattr(pytestconfig, "workerinput", {}).get(SHARED)
    try:
        if where is not None:
            return Addresses(**ask_for(where))
        return pytestconfig.stash[SESSION].addresses()
    except (NotShared, *CANNOT_START) as error:
        pytest.fail(
            f"No servers for the fixtures of runward: {error}\n"
            f"Or name servers that exist in {POSTGRES_VARIABLE} and {TEMPORAL_VARIABLE}.",
            pytrace=False,
        )


@pytest.fixture(scope="session")
def runward_database_url(runward_servers: Addresses) -> Iterator[str]:
    """The DSN of a migrated database that only this process uses; dropped at the end."""
    from runward.store.migrate import migrate
    from runward.testing.databases import create, drop

    url = apart(lambda: create(runward_servers.postgres))
    try:
        apart(lambda: migrate(url))
        yield url
    finally:
        apart(lambda: drop(runward_servers.postgres, url))


@pytest.fixture
def runward_stack(runward_database_url: str, runward_servers: Addresses, tmp_path: Path) -> Stack:
    """A tenant and a task queue of its own: clients for its users, workers for your agents."""
    from runward.testing.stack import Stack

    temporal, key_file = runward_servers.temporal, tmp_path / "issuer.key"
    return apart(lambda: Stack.create(runward_database_url, temporal, key_file=key_file))


def apart(work: Callable[[], Coroutine[Any, Any, Value]]) -> Value:
    """Returns what the work comes to, on a loop of its own, also where a loop runs already."""
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: asyncio.run(work())).result()
