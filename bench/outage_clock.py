"""A clock that can be stepped: for the worker's own code, and for the store's functions.

The machine's clock is everybody's, so it stays as it is. In the worker, `datetime.now` of runward's
modules and `time.time` read the step from a file; in the store, the functions of the governed step
look for `clock_timestamp` in their own schema first, and find one there that adds the step.
Temporal's server and the SDK's native part keep the true time.
"""

from __future__ import annotations

import importlib
import sys
import time
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import asyncpg

# Those that read a clock and would be imported late.
_LATE = ("runward.activities.retry_after", "runward.interceptors.audit", "runward.workers.sweeper")
_STEPPED = """
create table runward.bench_clock (step interval not null, full_disk boolean not null);
insert into runward.bench_clock values ('0', false);
create function runward.clock_timestamp() returns timestamptz
language plpgsql volatile as $$
declare c runward.bench_clock;
begin
  select * into c from runward.bench_clock;
  if c.full_disk then
    raise exception 'could not extend file: No space left on device' using errcode = '53100';
  end if;
  return pg_catalog.clock_timestamp() + c.step;
end $$;
grant execute on function runward.clock_timestamp() to runward_worker;
grant select on runward.bench_clock to runward_worker;
"""


async def prepare(owner: asyncpg.Pool[asyncpg.Record]) -> None:
    """Gives the store's functions a clock that can be stepped."""
    await owner.execute(_STEPPED)


async def step(owner: asyncpg.Pool[asyncpg.Record], seconds: float) -> None:
    """Steps the store's clock; 0 is the true time."""
    await owner.execute("update runward.bench_clock set step = make_interval(secs => $1)", seconds)


def install(place: str) -> None:
    """Makes this process read the seconds of the step from the file, whenever it reads a clock."""
    path, true_time = Path(place), time.time

    def stepped() -> float:
        return float(path.read_text() or 0)

    class Stepped(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Any:
            return datetime.now(tz) + timedelta(seconds=stepped())

    for name in _LATE:
        importlib.import_module(name)
    for name, module in list(sys.modules.items()):
        if name.startswith("runward.") and vars(module).get("datetime") is datetime:
            vars(module)["datetime"] = Stepped
    time.time = lambda: true_time() + stepped()
