"""What must hold after the kills: runs, effects, people's decisions and money, from all books.

The ledgers outside are compared with the store's rows; the store is never asked for its opinion.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import asyncpg
from kill_lane import Attempt, Lane, World
from kill_ledgers import Effect

from runward.activities.scripted_ledger import Bill

Key = tuple[str, str]  # run, step
REFUND, LETTER, PARCEL = "refund", "letter", "parcel"
NAMES = {"t1.tool.0": REFUND, "t1.tool.1": LETTER, "t2.tool.0": PARCEL}
_HOLDS = "select run_id, step, nonce, state, dimensions, actuals from runward.hold"
_STEPS = "select run_id, step, state from runward.step"
_REQUESTS = "select run_id, step, kind, state from runward.approval"
_CHARGED = """
select coalesce(sum(settled + overrun), 0)::bigint as charged,
       coalesce(sum(held), 0)::bigint as held
  from runward.bucket where scope = 'user' and dimension = 'tokens'
"""


@dataclass(frozen=True, slots=True)
class Hold:
    """One admitted attempt; `tokens` is what it was charged."""

    key: Key
    nonce: str
    state: str
    tokens: int


@dataclass
class Books:
    """The store's rows after the last run has ended."""

    states: dict[Key, str]
    holds: dict[Key, list[Hold]]
    requests: dict[Key, list[tuple[str, str]]]  # (kind, state)
    ended: Counter[str]  # runs, by state
    charged: int
    held: int

    def dead(self, key: Key) -> int:
        """Returns how many attempts of the step ended inside, without a word."""
        return sum(one.state == "F" for one in self.holds.get(key, ()))

    def once_more(self, key: Key) -> int:
        """Returns how often a person let the step run once more."""
        return self.requests.get(key, []).count(("unknown", "consumed"))


async def read(owner: asyncpg.Pool[asyncpg.Record]) -> Books:
    """Returns the books; only the database's owner may see all of them."""
    holds, requests = defaultdict(list), defaultdict(list)
    for row in await owner.fetch(_HOLDS):
        charges = dict(zip(row["dimensions"], row["actuals"] or (), strict=False))
        key = (row["run_id"], row["step"])
        holds[key].append(Hold(key, row["nonce"], row["state"], charges.get("tokens", 0)))
    for row in await owner.fetch(_REQUESTS):
        requests[row["run_id"], row["step"]].append((row["kind"], row["state"]))
    states = {(row["run_id"], row["step"]): row["state"] for row in await owner.fetch(_STEPS)}
    ended = Counter(row["state"] for row in await owner.fetch("select state from runward.run"))
    money = await owner.fetchrow(_CHARGED)
    assert money is not None, "an aggregate has one row"
    return Books(states, holds, requests, ended, money["charged"], money["held"])


def effects(world: World) -> Counter[Key]:
    """Returns how often each step had its effect outside."""
    return Counter((one.run_id, one.step) for one in world.ledger.applied)


def double_refunds(world: World) -> int:
    """Returns the refunds beyond one per order."""
    orders = Counter(one.order for one in world.ledger.applied if one.tool == REFUND)
    return sum(count - 1 for count in orders.values())


def unapproved(books: Books, done: Counter[Key]) -> int:
    """Returns effects of letters and parcels beyond the first that no person has let happen."""
    beyond = 0
    for (run_id, step), count in done.items():
        if NAMES[step] != REFUND:
            beyond += max(count - 1 - books.once_more((run_id, step)), 0)
    return beyond


def without_intent(asked: Iterable[Effect], books: Books) -> int:
    """Returns calls of the world outside beyond the attempts that the store has admitted."""
    counts = Counter((one.run_id, one.step) for one in asked)
    return sum(max(count - len(books.holds.get(key, ())), 0) for key, count in counts.items())


def missing(books: Books, done: Counter[Key]) -> int:
    """Returns steps that are recorded as done and had no effect."""
    return sum(
        state == "done" and key[1] in NAMES and not done[key] for key, state in books.states.items()
    )


def undeclared(books: Books) -> list[str]:
    """Returns where `unknown` is not what the tool declares for attempts that ended inside."""
    wrong = []
    for key, state in books.states.items():
        if key[1] not in NAMES:
            continue
        name, dead = NAMES[key[1]], books.dead(key)
        asked = books.requests.get(key, [])
        if name == LETTER:
            # Each attempt that died inside was one question, and nothing else asks.
            fits = len(asked) == dead and all(kind == "unknown" for kind, _ in asked)
            refused = any(word == "rejected" for _, word in asked)
            fits = fits and state == ("unknown" if refused else "done")
        elif name == PARCEL:
            fits = not asked and dead <= 1 and state == ("unknown" if dead else "done")
        else:
            fits = not asked and state == "done"
        if not fits:
            wrong.append(f"{name} {key}: {state}, {dead} dead, {asked}")
    return wrong


@dataclass(frozen=True, slots=True)
class Money:
    """The provider's bills beside the store's charges, in tokens."""

    billed: int
    charged: int
    not_as_billed: int  # model steps whose settled attempts were charged something else
    beyond: int  # model steps that were billed more than they were charged
    uncharged: int  # bills beyond the attempts that were charged; a forfeit is too large to tell


def money(bills: Iterable[Bill], books: Books) -> Money:
    """Returns how the provider's own ledger and the store's agree, per step and together."""
    billed: dict[Key, list[int]] = defaultdict(list)
    for bill in bills:
        run_id, _, step = bill.idempotency_key.split(":")
        billed[run_id, step].append(bill.usage.tokens)
    wrong = beyond = uncharged = 0
    for key in billed.keys() | {one for one in books.holds if one[1].endswith(".model")}:
        holds, found = books.holds.get(key, []), billed.get(key, [])
        settled = [one.tokens for one in holds if one.state == "S"]
        # Each answer to a step costs the same, so it does not matter which attempt had which.
        wrong += settled != found[: len(settled)]
        beyond += sum(found) > sum(one.tokens for one in holds)
        uncharged += max(len(found) - sum(one.state in "SF" for one in holds), 0)
    return Money(sum(map(sum, billed.values())), books.charged, wrong, beyond, uncharged)


def untrue(books: Books, attempts: Iterable[Attempt]) -> list[str]:
    """Returns attempts whose end contradicts the window in which their worker was killed."""
    wrong = []
    for one in attempts:
        found = {h.nonce: h.state for h in books.holds.get((one.run_id, one.step), [])}
        state = found.get(one.nonce)
        if one.window == "before_open":
            fits = state is None  # it never reached the store
        elif one.window == "after_close":
            fits = state in ("S", "R")
        else:
            fits = state == "F"  # nobody can know what it cost
        if not fits:
            wrong.append(f"{one}: {state}")
    return wrong


def attempts(lanes: Iterable[Lane]) -> list[Attempt]:
    """Returns all attempts that were met inside a window."""
    return [attempt for lane in lanes for attempt in lane.attempts]
