"""The judge: the books of the provider and of the bank beside the store's rows, run by run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

import kill_books
from kill_books import Books
from kill_ledgers import Effect
from outage_world import World

from runward.activities.scripted_ledger import Bill
from runward.contracts.encoding import digest

MODEL_STEPS = ("t1.model", "t2.model")


def doubled(effects: Iterable[Effect], orders: Iterable[str]) -> int:
    """Returns the refunds beyond one per order."""
    wanted = set(orders)
    counts = Counter(one.order for one in effects if one.order in wanted)
    return sum(count - 1 for count in counts.values())


def missing(effects: Iterable[Effect], orders: Iterable[str]) -> int:
    """Returns the answered orders that nobody has paid back."""
    return len(set(orders) - {one.order for one in effects})


def wrong_ledgers(world: World, books: Books, runs: Iterable[str]) -> list[str]:
    """Returns what the books of these runs do not agree on."""
    wanted = set(runs)
    its = replace(
        books, holds={key: holds for key, holds in books.holds.items() if key[0] in wanted}
    )
    known = {_sent(run, step): f"{run}:0:{step}" for run in wanted for step in MODEL_STEPS}
    bills = [
        replace(one, idempotency_key=known[one.idempotency_key])
        for one in world.model.ledger.bills()
        if one.idempotency_key in known
    ]
    money = kill_books.money(bills, its)
    effects = [one for one in world.ledger.asked if one.run_id in wanted]
    open_holds = sum(one.state == "H" for holds in its.holds.values() for one in holds)
    found = {
        "steps settled not as billed": money.not_as_billed,
        "steps billed beyond their charge": money.beyond,
        "bills without a charge": money.uncharged,
        "effects without an intent": kill_books.without_intent(effects, its),
        "holds left": open_holds,
        "steps left open": sum(
            state == "open" for (run, _), state in books.states.items() if run in wanted
        ),
    }
    return [f"{count} {what}" for what, count in found.items() if count]


def unknown_bills(bills: Iterable[Bill], runs: Iterable[str]) -> int:
    """Returns bills for steps of no run that is known."""
    known = {_sent(run, step) for run in runs for step in MODEL_STEPS}
    return sum(one.idempotency_key not in known for one in bills)


def _sent(run: str, step: str) -> str:
    """Returns a step's key as the provider gets it."""
    return digest(f"{run}:0:{step}".encode())
