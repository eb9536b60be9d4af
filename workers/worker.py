"""One worker process: it polls until it is told to stop, and drains before it goes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn

from temporalio.api.enums.v1 import DescribeTaskQueueMode, TaskQueueType
from temporalio.api.taskqueue.v1 import PollerInfo, TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest, DescribeTaskQueueResponse
from temporalio.client import Client
from temporalio.converter import PayloadCodec
from temporalio.service import RPCError
from temporalio.worker import Worker

from runward.client.codec import converter, load_codec
from runward.client.connecting import connected
from runward.client.labels import registered
from runward.client.settings import SWEEP_EVERY_S_DEFAULT, Deployment, temporal_connection
from runward.contracts import names
from runward.contracts.errors import ConfigurationError, said
from runward.store.pool import Store
from runward.workers.app import load_app
from runward.workers.deployment import tell_deployment, versioned
from runward.workers.health import Health, reached
from runward.workers.plugin import WORKER_ROLE, RunwardPlugin
from runward.workers.retention import Retention
from runward.workers.running import running
from runward.workers.sizing import machine, sizing
from runward.workers.sweeper import SWEEP_EVERY, Sweeper

GRACE = timedelta(seconds=10)  # for activities under way, before they are cancelled
DRAIN_S_MAX = 15.0  # the grace and what follows; an activity may not listen to its cancellation
POLLS_S_MAX = 10.0
STICKY_TIMEOUT = timedelta(seconds=3)  # how long a run waits for a worker that has died
HEARTBEAT_THROTTLE_MAX = timedelta(seconds=1)
SIGNALS = (signal.SIGTERM, signal.SIGINT)
_LOG = logging.getLogger("runward.worker")


async def run(
    *,
    app: str,
    database_url: str,
    temporal_address: str,
    task_queue: str,
    sweep_every_s: float = SWEEP_EVERY_S_DEFAULT,
    retention_content_days: int | None = None,
    retention_steps_days: int | None = None,
    health_file: Path | None = None,
    version: Deployment | None = None,
    codec: str | None = None,
    processes: int = 1,
) -> NoReturn:
    """Runs the worker until SIGTERM or SIGINT and ends this process.

    `processes` is how many such processes share the machine; this one takes its part of it.
    It ends without the interpreter's own ending, in which native threads of the SDK abort in a few
    percent of all cases. Servers that are away at the start are waited for; other errors before it
    has connected are raised.
    """
    log_to_stderr()
    plugin = load_app(app)
    named = None if codec is None else load_codec(codec)
    stop, health = asyncio.Event(), Health(health_file)
    listen(stop)
    client = await reached(
        "temporal", lambda: connect(plugin, temporal_address, codec=named), health, stop
    )
    if client is None:
        leave(0)
    try:
        plugin.database_url = plugin.database_url or database_url
        if processes == 1:  # of several, their parent says it once
            _LOG.info("sized for this machine: %s", sizing(machine()))
        await serve(
            client,
            plugin,
            task_queue=task_queue,
            stop=stop,
            on_polling=lambda: _say_polling(client, task_queue, app, version),
            sweep_every=timedelta(seconds=sweep_every_s),
            retention=Retention(retention_content_days, retention_steps_days),
            health=health,
            version=version,
            processes=processes,
        )
    except BaseException as error:  # noqa: BLE001  whatever it is, nobody above would get it
        leave(told(error))
    leave(0)


def _say_polling(client: Client, task_queue: str, app: str, version: Deployment | None) -> None:
    where = client.service_client.config.target_host
    build = f", as build {version.build_id!r} of {version.name!r}" if version else ""
    print(f"Worker {client.identity} polls {task_queue!r} at {where} for {app}{build}", flush=True)


async def connect(
    plugin: RunwardPlugin, address: str | None = None, *, codec: PayloadCodec | None = None
) -> Client:
    """Returns a client with the plugin; what is not given comes from Temporal's own settings."""
    return await connected(
        temporal_connection(address),
        data_converter=converter(codec),
        plugins=[plugin],
        identity=identity(),
    )


async def serve(
    client: Client,
    plugin: RunwardPlugin,
    *,
    task_queue: str,
    stop: asyncio.Event,
    on_polling: Callable[[], None] = lambda: None,
    sweep_every: timedelta = SWEEP_EVERY,
    retention: Retention | None = None,
    health: Health | None = None,
    version: Deployment | None = None,
    processes: int = 1,
) -> None:
    """Polls until `stop` is set, with a sweeper beside it, and returns when it has drained.

    The client has the plugin. Raises what ends the worker early, and TimeoutError if activities
    did not end in time.
    """
    if plugin.database_url is None:
        raise ConfigurationError("A worker", "Its plugin has no database_url", "Set one")
    worker = build(client, task_queue=task_queue, version=version, processes=processes)
    dsn, health = plugin.database_url, health or Health()
    async with contextlib.AsyncExitStack() as stack:
        store = await reached(
            "store", lambda: stack.enter_async_context(_own_store(dsn)), health, stop
        )
        if store is None:
            return
        steps = plugin.assembly_of(worker).governance.store
        beside = [
            asyncio.create_task(
                Sweeper(store, client, every=sweep_every, retention=retention).run()
            ),
            asyncio.create_task(_tell(client, task_queue, on_polling)),
            asyncio.create_task(_tell_labels(client)),
            asyncio.create_task(health.watch(store, steps, client)),
            *([asyncio.create_task(tell_deployment(client, version))] if version else ()),
        ]
        async with running(worker, drain_s_max=DRAIN_S_MAX) as working:
            stopping = asyncio.create_task(stop.wait())
            try:
                await asyncio.wait([working, stopping], return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (stopping, *beside):
                    task.cancel()
                await asyncio.gather(stopping, *beside, return_exceptions=True)
                health.drains()


@contextlib.asynccontextmanager
async def _own_store(dsn: str) -> AsyncIterator[Store]:
    """Yields the store for what stands beside the steps. Errors: as of `check_schema`."""
    async with Store(dsn, role=WORKER_ROLE, connections_max=2) as store:
        await store.check_schema()
        yield store


def build(
    client: Client,
    *,
    task_queue: str,
    version: Deployment | None = None,
    processes: int = 1,
    **more: Any,
) -> Worker:
    """Returns a worker with our settings, sized for one of so many processes on this machine.

    With a `version` it takes what the server routes to that build. `more` are further options of
    Temporal's `Worker`.
    """
    given: dict[str, Any] = {
        **sizing(machine(), processes).options,
        "task_queue": task_queue,
        "graceful_shutdown_timeout": GRACE,
        "sticky_queue_schedule_to_start_timeout": STICKY_TIMEOUT,
        "max_heartbeat_throttle_interval": HEARTBEAT_THROTTLE_MAX,
    }
    if version is not None:
        given["deployment_config"] = versioned(version)
    else:  # in the events of every step: the SDK's own would be a hash of 32 characters
        given["build_id"] = metadata.version("runward")
    return Worker(client, **(given | more))


def identity() -> str:
    """Returns a short name for this process; Temporal writes it into three events of each step."""
    return f"{os.getpid()}@{socket.gethostname()[:12]}"


def log_to_stderr() -> None:
    """Sets up what a worker's process logs, from INFO on."""
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", level=logging.INFO)
    # Its pool tells each try to reach a store that is away; our health tells once.
    logging.getLogger("asyncpg").setLevel(logging.ERROR)
    # The providers' clients say each call with its address, which is nobody's affair but the app's.
    logging.getLogger("httpx2").setLevel(logging.WARNING)


def listen(stop: asyncio.Event) -> None:
    """Sets the event at SIGTERM and SIGINT; whoever asks twice does not want to wait."""

    def heard(number: signal.Signals) -> None:
        if stop.is_set():
            leave(128 + number)
        stop.set()

    for number in SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, heard, number)


def leave(code: int) -> NoReturn:
    """Ends the process at once, with everything said."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # nobody reads it any more
            stream.flush()
    os._exit(code)


def told(error: BaseException) -> int:
    """Says the error, in a sentence if it is one of ours; returns the exit code."""
    module = f"{type(error).__module__}."
    if module.startswith(("runward.", "temporalio.")) or isinstance(error, OSError):
        print(said(error), file=sys.stderr)
    else:
        traceback.print_exception(error)
    return 1


async def _tell_labels(client: Client) -> None:
    """Says so where runs will carry a memo, because lists of workflows know none of our labels."""
    if await registered(client) is False:
        _LOG.warning(
            "namespace %r has no search attributes %s (Keyword): runs carry a memo instead. Make"
            " them with `temporal operator search-attribute create`, then start clients again",
            client.namespace,
            ", ".join(names.SEARCH_ATTRIBUTES),
        )


def _pollers(said: DescribeTaskQueueResponse) -> list[PollerInfo]:
    """Returns who polls, in either form of the answer."""
    kinds = [kind for one in said.versions_info.values() for kind in one.types_info.values()]
    return [*said.pollers, *(poller for kind in kinds for poller in kind.pollers)]


async def _tell(client: Client, task_queue: str, on_polling: Callable[[], None]) -> None:
    """Calls back once the server has seen this process poll for activities."""
    kind = TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY
    root = DescribeTaskQueueRequest(
        namespace=client.namespace,
        task_queue=TaskQueue(name=task_queue),
        task_queue_type=kind,
    )
    # The former tells who polls the queue's root partition; of several workers, not each does.
    every = DescribeTaskQueueRequest(
        namespace=client.namespace,
        task_queue=TaskQueue(name=task_queue),
        api_mode=DescribeTaskQueueMode.DESCRIBE_TASK_QUEUE_MODE_ENHANCED,
        task_queue_types=[kind],
        report_pollers=True,
    )
    deadline, pause = time.monotonic() + POLLS_S_MAX, 0.02
    while time.monotonic() < deadline:
        try:
            seen = [
                poller.identity
                for request in (root, every)
                for poller in _pollers(await client.workflow_service.describe_task_queue(request))
            ]
        except RPCError as error:
            _LOG.warning("Temporal does not say who polls %r: %s", task_queue, error)
            return
        if client.identity in seen:
            on_polling()
            return
        await asyncio.sleep(pause)
        pause = min(2 * pause, 0.5)
    _LOG.warning("Temporal has not seen this worker poll %r yet", task_queue)
