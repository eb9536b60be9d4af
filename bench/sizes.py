"""What large prompts, results, instructions and files cost: history, and the worker's memory.

The worker is a process of its own. Its peak is what the kernel says of it (VmHWM), begun anew
before each run, less what it held then. Each run's answer is the digest of what its model saw, so a
size that passes has arrived as a whole.

Targets. A turn with a tool takes about 2 KiB of history beyond its messages; whatever is large goes
by reference, so 4 KiB hold it. A worker that streams holds the tool's value once and a few chunks;
what is no text is held a second time as JSON. Three times leaves room for the allocator.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from report import Report, arguments, run, say
from stack import QUEUE, TENANT, Servers, servers
from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client

from runward import Agent, File, RunwardClient, RunwardPlugin, tool
from runward.activities.results import CUT_BYTES, RESULT_SHOWN_BYTES_MAX
from runward.client.keys import KeyFile
from runward.client.reader import DirectReader
from runward.client.run_handle import RunHandle
from runward.client.runs import ActingClient
from runward.contracts.encoding import digest
from runward.contracts.errors import RequestRefused
from runward.contracts.outcomes import ToolDone, decode_outcome
from runward.contracts.providers import ModelRequest
from runward.contracts.transcript import UserMessage
from runward.testing.scripts import ScriptedProvider, Turn, ask
from runward.testing.scripts import say as answer
from runward.workers.worker import build, connect

MIB = 1024 * 1024
HISTORY_BYTES_MAX = 4096
PEAK_RATIO_MAX = 3.0
READY_S_MAX = 120.0
RUN_S_MAX = 300.0
INSTRUCTIONS = "Be kind, and say what you do. " * (500_000 // 30)
LINES = {"text": "a line of a report; ", "cyrillic": "строка отчёта; "}


def text_of(kind: str, size: int) -> str:
    """Returns text of that many bytes, or a little less."""
    line = LINES[kind]
    return line * (size // len(line.encode()))


@tool
async def report(kind: str, size: int) -> str:
    """Returns a report of that many bytes."""
    return text_of(kind, size)


@tool
async def table(size: int) -> list[str]:
    """Returns a table of that many bytes, in a thousand rows."""
    return [text_of("text", size // 1000) for _ in range(1000)]


def script(request: ModelRequest) -> Turn:
    """Makes the call that the prompt names, if any; then says the digest of what it was shown."""
    first, last = request.messages[0], request.messages[-1]
    words = first.text[:100].split()
    if isinstance(last, UserMessage) and words[:1] == ["report"]:
        return ask("report", kind=words[1], size=int(words[2]))
    if isinstance(last, UserMessage) and words[:1] == ["table"]:
        return ask("table", size=int(words[1]))
    return answer(seen(request, last.text))


def seen(request: ModelRequest, text: str) -> str:
    """Returns the digest of a conversation's last words, its files and its instructions."""
    files = "".join(sorted(request.files))
    return digest(f"{digest(text.encode())}{files}{digest(request.instructions.encode())}".encode())


def expected(text: str, *, files: tuple[File, ...] = (), instructions: str = "") -> str:
    """Returns what `seen` says of these."""
    names = "".join(sorted(digest(one.data) for one in files))
    return digest(f"{digest(text.encode())}{names}{digest(instructions.encode())}".encode())


def plugin(database_url: str) -> RunwardPlugin:
    """Returns an agent with tools, and one with long instructions."""
    agents = [
        Agent("reader", model="scripted:sizes", tools=[report, table]),
        Agent("told", model="scripted:sizes", instructions=INSTRUCTIONS),
    ]
    provider = ScriptedProvider({"sizes": script})
    return RunwardPlugin(agents=agents, providers=[provider], database_url=database_url)


class WorkerProcess:
    """The worker's process, and what the kernel says of its memory."""

    def __init__(self, pid: int) -> None:
        self._folder = Path(f"/proc/{pid}")
        self._before = 0

    def begin(self) -> None:
        """Begins the peak anew at what the process holds now."""
        (self._folder / "clear_refs").write_text("5")
        self._before = self._bytes("VmRSS")

    @property
    def grown(self) -> int:
        """Returns by how much it grew at its peak since then, in bytes."""
        return self._bytes("VmHWM") - self._before

    def _bytes(self, name: str) -> int:
        for line in (self._folder / "status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
        raise RuntimeError(f"the kernel does not say {name}")


@asynccontextmanager
async def working(where: Servers) -> AsyncIterator[WorkerProcess]:
    """Yields a worker that is ready; its process ends with the block, or with us."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, where), daemon=True)
    process.start()
    try:
        if not await asyncio.to_thread(ours.poll, READY_S_MAX):
            raise RuntimeError("the worker was not ready in time")
        assert process.pid is not None, "it has started"
        yield WorkerProcess(process.pid)
    finally:
        process.terminate()
        process.join(timeout=10)


def _work(pipe: Connection, where: Servers) -> None:
    async def serve() -> None:
        client = await connect(plugin(where.database_url), where.temporal)
        async with build(client, task_queue=QUEUE):
            pipe.send("ready")
            await asyncio.Event().wait()

    asyncio.run(serve())


@dataclass(frozen=True, slots=True)
class Bench:
    """Runs one size after the other."""

    ada: ActingClient
    worker: WorkerProcess
    report: Report

    async def arrived(
        self, agent: str, prompt: str, said: Callable[[str], bool], *files: File
    ) -> tuple[RunHandle[str], int]:
        """Returns a run that answered as it should, and by how much the worker grew.

        Errors: RuntimeError where its model saw something else.
        """
        self.worker.begin()
        started = await self.ada.start(agent, prompt, files=files)
        output = (await started.result(timeout=RUN_S_MAX)).output
        if not said(output):
            raise RuntimeError(f"{agent} was shown something else than {prompt[:40]!r}")
        return started, self.worker.grown

    async def events(self, handle: RunHandle[str]) -> list[HistoryEvent]:
        """Returns the run's history."""
        return list((await handle.history()).events)

    async def prompts(self) -> None:
        """Nothing and too much are refused; two megabytes arrive and are not in history."""
        for name, prompt in (("0", ""), ("60mb", "x" * 60_000_000)):
            try:
                await self.ada.start("reader", prompt)
                refused = 0
            except RequestRefused as error:
                say(f"prompt {name}: {error}")
                refused = 1
            self.report.add(f"prompt_{name}_refused", refused, "== 1")
        short = await self._prompt("hello")
        long = await self._prompt(text_of("cyrillic", 2_000_000))
        self.report.add("prompt_2mb_history_bytes", long - short, f"<= {HISTORY_BYTES_MAX}")

    async def _prompt(self, prompt: str) -> int:
        handle, _ = await self.arrived("reader", prompt, lambda said: said == expected(prompt))
        return sum(one.ByteSize() for one in await self.events(handle))

    async def results(self, megabytes: int) -> None:
        """One mebibyte is seen as a whole; of more its beginning, and all of it can be read."""
        await self.arrived("reader", "report text 1000", lambda _: True)  # warms the worker up
        whole = text_of("text", RESULT_SHOWN_BYTES_MAX)
        handle, _ = await self.arrived(
            "reader", f"report text {RESULT_SHOWN_BYTES_MAX}", lambda said: said == expected(whole)
        )
        self.report.add(
            "result_1mb_history_bytes", turn_bytes(await self.events(handle)), "<= 4096"
        )
        size = megabytes * MIB
        for name, prompt in (
            ("text", f"report text {size}"),
            ("cyrillic", f"report cyrillic {size}"),
            ("table", f"table {size}"),
        ):
            await self._result(f"result_{megabytes}mb_{name}", prompt, size)

    async def _result(self, name: str, prompt: str, size: int) -> None:
        began = time.monotonic()
        handle, grown = await self.arrived("reader", prompt, lambda _: True)
        seconds = time.monotonic() - began
        events = await self.events(handle)
        done = tool_outcome(events)
        assert done.full is not None, "it is above the size that a model is shown"
        self.report.add(f"{name}_history_bytes", turn_bytes(events), f"<= {HISTORY_BYTES_MAX}")
        self.report.add(f"{name}_peak_ratio", grown / size, f"<= {PEAK_RATIO_MAX}")
        self.report.add(f"{name}_seconds", seconds)
        read = 0
        async for chunk in handle.content(done.full.digest):  # checked against its digest
            read += len(chunk)
        self.report.add(f"{name}_bytes_lost", abs(read - done.full.size), "== 0")
        say(f"{name}: {grown / MIB:.0f} MiB more at the peak, {seconds:.1f} s")

    async def instructions(self) -> None:
        """Instructions arrive and are in no payload."""
        said = expected("hello", instructions=INSTRUCTIONS)
        handle, _ = await self.arrived("told", "hello", lambda output: output == said)
        found = sum(one.ByteSize() for one in await self.events(handle))
        self.report.add("instructions_500kb_history_bytes", found, "<= 8192")

    async def files(self) -> None:
        """An image and a document arrive and are in no payload."""
        image = File(b"\x89PNG\r\n\x1a\n" + bytes(4_000_000), "image/png", "a.png")
        document = File(b"%PDF-1.7\n" + bytes(10_000_000), "application/pdf", "b.pdf")
        said = expected("look", files=(image, document))
        handle, grown = await self.arrived(
            "reader", "look", lambda output: output == said, image, document
        )
        found = sum(one.ByteSize() for one in await self.events(handle))
        self.report.add("files_14mb_history_bytes", found, "<= 8192")
        self.report.add("files_14mb_peak_ratio", grown / 14_000_017)


def turn_bytes(events: list[HistoryEvent]) -> int:
    """Returns what the first turn's tool added to history: all between two model steps."""
    scheduled = EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED
    models = [
        number
        for number, one in enumerate(events)
        if one.event_type == scheduled
        and one.activity_task_scheduled_event_attributes.activity_id.endswith(".model")
    ]
    ended = next(
        number
        for number, one in enumerate(events)
        if one.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED and number > models[0]
    )
    return sum(one.ByteSize() for one in events[ended + 1 : models[1]])


def tool_outcome(events: list[HistoryEvent]) -> ToolDone:
    """Returns the outcome of the run's only tool step."""
    for one in events:
        if one.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED:
            payloads = one.activity_task_completed_event_attributes.result.payloads
            outcome = decode_outcome(payloads[0].data)
            if isinstance(outcome, ToolDone):
                return outcome
    raise RuntimeError("no tool answered")


async def measure(quick: bool) -> Report:
    """Runs everything on fresh servers."""
    report = Report("sizes")
    async with servers() as where, working(where) as worker:
        rw = RunwardClient(
            await Client.connect(where.temporal),
            issuer=KeyFile(where.key_file),
            reader=DirectReader(where.database_url),
            task_queue=QUEUE,
        )
        async with rw:
            bench = Bench(rw.acting_as("ada", tenant=TENANT), worker, report)
            await bench.prompts()
            await bench.results(8 if quick else 50)
            await bench.instructions()
            await bench.files()
    report.counts["shown_bytes_of_a_cut_result"] = CUT_BYTES
    return report


def main() -> None:
    """Measures, prints and exits."""
    parser = arguments(__doc__ or "")
    options = parser.parse_args()
    run(lambda: measure(options.quick), only_json=options.json)


if __name__ == "__main__":
    main()
