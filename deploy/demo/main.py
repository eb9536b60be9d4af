"""The demonstration: a support agent, governed, on a real Temporal server and a real PostgreSQL.

`python deploy/demo/main.py [--keep]`. It needs no API key: a script plays the model. With
MODEL=anthropic:<model> and a key, Anthropic's model does.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable

import scenes
from script import SCRIPTED_MODEL
from stage import Stage, staged, without_others_settings
from telling import Unexpected, table, tell, title
from temporalio.exceptions import TemporalError

from runward.contracts.errors import RunwardError
from runward.store.prices import price
from runward.workers.child import ChildFailed

SCENE_S_MAX = 120.0
EXIT_FAILED, EXIT_USAGE, EXIT_CTRL_C = 1, 2, 130
KEY_VARIABLES = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN")
NOT_STARTED = (ChildFailed, RunwardError)
DEVIATIONS = (Unexpected, RunwardError, TemporalError, ChildFailed, OSError, TimeoutError)
SCENES: tuple[Callable[[Stage], Awaitable[None]], ...] = (
    scenes.a_question,
    scenes.a_refund,
    scenes.a_cap,
    scenes.kills,
)


def main() -> int:
    """Plays the scenes; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, prog="make demo")
    parser.add_argument("--keep", action="store_true", help="leave everything up until Ctrl-C")
    keep = parser.parse_args().keep
    model = os.environ.get("MODEL") or SCRIPTED_MODEL
    if problem := _problem(model):
        print(f"Error: MODEL={model}: {problem}", file=sys.stderr)
        return EXIT_USAGE
    without_others_settings()
    try:
        return asyncio.run(_play(model, keep=keep))
    except NOT_STARTED as error:
        print(f"Error: {error}", file=sys.stderr)
        return EXIT_FAILED
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("stopped", file=sys.stderr)
        return EXIT_CTRL_C


def _problem(model: str) -> str:
    """Returns why this model cannot play, empty if it can."""
    if model == SCRIPTED_MODEL:
        return ""
    if not model.startswith("anthropic:"):
        return "say anthropic:<model>, or leave it out for the scripted one"
    if not any(os.environ.get(one) for one in KEY_VARIABLES):
        return f"set {' or '.join(KEY_VARIABLES)}"
    if price(model) is None:
        return "no price is known for it, so no budget could hold"
    return ""


async def _play(model: str, *, keep: bool) -> int:
    loop = asyncio.get_running_loop()
    asked_to_stop = asyncio.Event()
    mine = asyncio.current_task()
    assert mine is not None, "asyncio.run made it"
    loop.add_signal_handler(signal.SIGTERM, mine.cancel)
    title(f"runward: a governed support agent, played by {model}")
    async with staged(model) as stage:
        passed = 0
        for number, scene in enumerate(SCENES, 1):
            passed += await _scene(stage, number, scene)
        _report(stage, keep=keep)
        print(f"\n{passed}/{len(SCENES)} scenes passed", flush=True)
        if keep:
            tell("everything stays up until Ctrl-C")
            loop.add_signal_handler(signal.SIGINT, asked_to_stop.set)
            loop.add_signal_handler(signal.SIGTERM, asked_to_stop.set)
            await asked_to_stop.wait()
    return 0 if passed == len(SCENES) else EXIT_FAILED


async def _scene(stage: Stage, number: int, scene: Callable[[Stage], Awaitable[None]]) -> bool:
    """Returns whether everything in it was as expected."""
    title(f"{number}. {scene.__doc__}")
    began = time.monotonic()
    try:
        async with asyncio.timeout(SCENE_S_MAX):
            await stage.start_worker()
            await scene(stage)
    except DEVIATIONS as error:
        tell(f"FAILED {error!s}" if str(error) else f"FAILED {type(error).__name__}")
        tell(f"the end of the worker's log:\n{stage.worker_log()}")
        return False
    tell(f"passed ({time.monotonic() - began:.1f} s)")
    return True


def _report(stage: Stage, *, keep: bool) -> None:
    """Prints the runs, what they cost, and where to look at them."""
    title("Runs")
    rows: list[tuple[str, ...]] = [("scene", "user", "asked", "end", "turns", "tokens", "USD")]
    for one in stage.told:
        result = one.result
        rows.append(
            (
                str(one.scene),
                one.user,
                one.asked if len(one.asked) <= 40 else f"{one.asked[:37]}...",
                result.interruption_reason or "answered",
                str(result.turns),
                f"{result.usage.tokens:,}",
                f"{result.cost:.6f}",
            )
        )
    tokens = sum(one.result.usage.tokens for one in stage.told)
    cost = sum(one.result.cost for one in stage.told)
    rows.append(("", "", "", "", "", f"{tokens:,}", f"{cost:.6f}"))
    table(rows)
    tell()
    tell(f"Temporal's UI: {stage.ui_url}/namespaces/default/workflows")
    if not keep:
        tell("It ends with this demonstration; `make demo ARGS=--keep` leaves everything up.")


if __name__ == "__main__":
    sys.exit(main())
