"""The four scenes. Each one tells what a user sees, and checks it against the ledgers' books."""

from __future__ import annotations

import time

from ledgers import Book, tracking_number
from stage import Stage, Told
from support import APPROVER_ROLE
from telling import Unexpected, expect, expect_in, says, tell

from runward import ApprovalRefused
from runward.client.run_handle import RunHandle
from runward.client.runs import ActingClient
from runward.contracts.approvals import Approval
from runward.contracts.runs import RunResult

TENANT = "acme"
ANSWER_S_MAX = 60.0  # a killed worker is noticed after 10 s without a heartbeat
QUESTIONS_MAX = 12


async def a_question(stage: Stage) -> None:
    """A question is answered with a tool call."""
    ada = _user(stage, "ada")
    result = await _ask(stage, 1, ada, _question(17))
    expect_in("the answer", tracking_number("17"), result.output)
    book = await stage.ledgers.show("orders")
    expect("what the shop was asked", [{"order_id": "17"}], book.entries)
    expect("how the run ended", (False, None), (result.interrupted, result.interruption_reason))


async def a_refund(stage: Stage) -> None:
    """A refund waits for another person and is executed once."""
    ada, bob = _user(stage, "ada"), _user(stage, "bob", APPROVER_ROLE)
    asked = "Please refund EUR 12.50 for order 17."
    run = await _start(ada, asked)
    request = await _asked_for(run, "refund", "call")
    says("runward", f"waits: {request.tool} {request.arguments}, for a {request.approver_role}")
    expect("refunds before the approval", [], (await stage.ledgers.show("refunds")).entries)
    await _refused_to_requester(ada, request)
    await bob.approvals.approve(request.id, reason="checked the order")
    says("bob", "approves it: checked the order")
    await _ended(stage, 2, ada, asked, run)
    _one_refund(await stage.ledgers.show("refunds"), order="17", amount="12.50", asked=1)


async def a_cap(stage: Stage) -> None:
    """A user hits the cap, and the run says so."""
    carol = _user(stage, "carol")
    for order in range(21, 21 + QUESTIONS_MAX):
        result = await _ask(stage, 3, carol, _question(order))
        if result.interrupted:
            break
    end = "interrupted" if result.interrupted else "answered"
    expect(
        "carol's last run",
        ("interrupted", "budget:per_user_max_tokens"),
        (end, result.interruption_reason),
    )
    spent = (await stage.store.reads.spend(TENANT, "user", "carol"))["tokens"]
    used = sum(one.result.usage.tokens for one in stage.told if one.user == "carol")
    expect("what carol was charged: the tokens of her runs", used, spent)
    if spent > stage.tokens_per_day:
        raise Unexpected("what carol spent", f"at most {stage.tokens_per_day}", spent)
    tell(f"         carol has spent {spent:,} of {stage.tokens_per_day:,} tokens today;")
    tell("         the next call could have cost more than the rest, and was not made")


async def kills(stage: Stage) -> None:
    """The worker is killed between a tool's effect and its record, twice."""
    await _killed_in_a_refund(stage)
    tell()
    await _killed_in_a_letter(stage)


async def _killed_in_a_refund(stage: Stage) -> None:
    dora, bob = _user(stage, "dora"), _user(stage, "bob", APPROVER_ROLE)
    before = len((await stage.ledgers.show("refunds")).entries)
    await stage.ledgers.withhold_next("refunds")
    asked = "Please refund EUR 7.00 for order 18."
    run = await _start(dora, asked)
    request = await _asked_for(run, "refund", "call")
    await bob.approvals.approve(request.id, reason="parcel was late")
    says("bob", "approves it: parcel was late")
    book = await stage.withheld("refunds")
    expect("refunds in the bank's ledger when the worker dies", before + 1, len(book.entries))
    since = await _kill(stage, "the bank has paid, runward has not yet recorded it")
    await _ended(stage, 4, dora, asked, run)
    book = await stage.ledgers.show("refunds")
    book.entries, book.asked = book.entries[before:], book.asked - before
    _one_refund(book, order="18", amount="7.00", asked=2)
    tell(f"         {time.monotonic() - since:.1f} s after the kill; nobody was asked again")


async def _killed_in_a_letter(stage: Stage) -> None:
    dora, bob = _user(stage, "dora"), _user(stage, "bob", APPROVER_ROLE)
    await stage.ledgers.withhold_next("letters")
    asked = "Please send a letter to Erika and say that we are sorry for the delay."
    run = await _start(dora, asked)
    book = await stage.withheld("letters")
    expect("letters in the post office's ledger when the worker dies", 1, len(book.entries))
    since = await _kill(stage, "the letter is posted, runward has not yet recorded it")
    request = await _asked_for(run, "send_letter", "unknown")
    says("runward", f"asks a {request.approver_role}: send_letter may have had its effect or not; "
         "run it once more?")  # fmt: skip
    tell(f"         {time.monotonic() - since:.1f} s after the kill; it was not repeated by itself")
    await _refused_to_requester(dora, request)
    await bob.approvals.reject(request.id, reason="the post office has it")
    says("bob", "rejects it: the post office has it")
    result = await _ended(stage, 4, dora, asked, run)
    expect("how the run ended", None, result.interruption_reason)
    steps = await stage.store.reads.steps(TENANT, result.run_id)
    expect("the recorded outcome of send_letter", ["unknown"],
           [one.state for one in steps if one.name == "send_letter"])  # fmt: skip
    book = await stage.ledgers.show("letters")
    expect("letters in the post office's ledger, and how often it was asked",
           (1, 1), (len(book.entries), book.asked))  # fmt: skip
    tell("         the post office's ledger shows 1 letter")


def _question(order: int) -> str:
    return f"Where is order {order}? Give me its tracking number."


def _user(stage: Stage, name: str, *roles: str) -> ActingClient:
    return stage.client.acting_as(name, tenant=TENANT, roles=roles)


async def _start(user: ActingClient, asked: str) -> RunHandle[str]:
    says(user.principal.user, f'"{asked}"')
    return await user.start("support", asked)


async def _ask(stage: Stage, scene: int, user: ActingClient, asked: str) -> RunResult[str]:
    return await _ended(stage, scene, user, asked, await _start(user, asked))


async def _ended(
    stage: Stage, scene: int, user: ActingClient, asked: str, run: RunHandle[str]
) -> RunResult[str]:
    """Returns the run's result, told and noted for the table."""
    result = await run.result(timeout=ANSWER_S_MAX)
    stage.told.append(Told(scene, user.principal.user, asked, result))
    if result.interrupted:
        says("agent", f"interrupted, {result.interruption_reason}")
    else:
        says("agent", f'"{result.output}"')
    return result


async def _asked_for(run: RunHandle[str], tool: str, kind: str) -> Approval:
    request = await run.next_approval(timeout=ANSWER_S_MAX)
    expect("the request", (tool, kind), (request.tool, str(request.kind)))
    return request


async def _refused_to_requester(user: ActingClient, request: Approval) -> None:
    """The one who asked may not approve, whatever the roles."""
    name = user.principal.user
    try:
        await user.approvals.approve(request.id)
    except ApprovalRefused as error:
        expect_in(f"the refusal to {name}", "The requester may not decide", str(error))
        says(name, f"tries to approve it, and is refused: {error.holds}")
    else:
        raise Unexpected(f"{name}'s approval of the own request", "refused", "accepted")


async def _kill(stage: Stage, when: str) -> float:
    pid = await stage.kill_worker()
    since = time.monotonic()
    tell(f"         kill -9 {pid}: {when}")
    await stage.start_worker()
    assert stage.worker is not None, "it was started just now"
    tell(f"         a new worker starts: {stage.worker.pid}")
    return since


def _one_refund(book: Book, *, order: str, amount: str, asked: int) -> None:
    found = [(one["order_id"], one["amount"]) for one in book.entries]
    expect("the bank's ledger", [(order, amount)], found)
    expect("how often the bank was asked", asked, book.asked)
    times = "once" if asked == 1 else f"{asked} times under one key"
    tell(f"         the bank was asked {times}; its ledger shows 1 refund of EUR {amount}")
