"""Large content: streamed, checked, once per tenant, and gone when no run uses it any more."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import pytest

from runward.contracts.content import CHUNK_BYTES, CONTENT_BYTES_MAX, Changed, Content
from runward.contracts.encoding import clean, digest
from runward.contracts.errors import ConfigurationError, RequestRefused, StoreUnavailable
from runward.store.content import HELD_FOR_A_STEP
from runward.store.pool import Store
from tests.store_case import Case
from tests.test_store_retention import aged, due

TABLES = ("large_content", "content_chunk", "content_use")


def some(size: int = 2 * CHUNK_BYTES + 17) -> bytes:
    return os.urandom(size)


async def rows(case: Case) -> tuple[int, ...]:
    """How many rows of each table the tenant has."""
    return tuple(
        [
            await case.owner.fetchval(
                f"select count(*) from runward.{table} where tenant = $1", case.tenant
            )
            for table in TABLES
        ]
    )


async def freed(case: Case, *, hours: int = -1) -> None:
    """Lets the hold on the tenant's content end so many hours from now."""
    await case.owner.execute(
        "update runward.large_content set free_at = now() + make_interval(hours => $2)"
        " where tenant = $1",
        case.tenant,
        hours,
    )


async def collected(case: Case, batch: int = 1000) -> int:
    """Deletes what no run uses; returns how many batches that took."""
    batches = 0
    while await case.store.content.delete_unused(batch):
        batches += 1
    return batches


async def spoil(case: Case) -> None:
    await case.owner.execute(
        "update runward.content_chunk set data = $2 where tenant = $1 and n = 0",
        case.tenant,
        some(CHUNK_BYTES),
    )


def test_text_has_the_digest_and_chunks_of_its_clean_bytes() -> None:
    text = "a\x00\ud83d" + "\N{SNOWMAN}é\N{GRINNING FACE}x" * 300_000
    expected = clean(text).encode()

    content = Content(text)
    chunks = list(content.chunks())

    assert (content.digest, content.size) == (digest(expected), len(expected))
    assert b"".join(chunks) == expected
    assert [len(one) for one in chunks[:-1]] == [CHUNK_BYTES] * (len(chunks) - 1)
    assert content.head(10) == expected[:10].decode("utf-8", "ignore")


async def test_what_was_put_is_read_in_chunks(case: Case) -> None:
    data = some()
    content = Content(data)
    await case.store.content.put(case.tenant, content)

    found = [one async for one in case.store.content.chunks(case.tenant, content.digest)]

    assert [len(one) for one in found] == [CHUNK_BYTES, CHUNK_BYTES, 17]
    assert b"".join(found) == data
    assert await case.store.content.read("another", content.digest) is None


async def test_the_same_content_is_sent_once(case: Case) -> None:
    content = Content(some())
    await case.store.content.put(case.tenant, content)
    await freed(case)

    await case.store.content.put(case.tenant, Unsent(b"".join(content.chunks())))

    assert (await rows(case))[:2] == (1, 3)
    await collected(case)
    assert (await rows(case))[:2] == (1, 3), "it was put for a run that has not begun"


async def test_what_does_not_hash_to_its_digest_is_neither_kept_nor_read(case: Case) -> None:
    """Neither what a client sends under a false name, nor what somebody changed in a table."""
    true, false = Content(some()), Content(some())
    false.digest = true.digest

    with pytest.raises(StoreUnavailable, match="changed while"):
        await case.store.content.put(case.tenant, false)
    assert await case.store.content.read(case.tenant, true.digest) is None

    await case.store.content.put(case.tenant, true)
    await spoil(case)
    found = []
    with pytest.raises(Changed):
        async for chunk in case.store.content.chunks(case.tenant, true.digest):
            found.append(chunk)
    assert len(found) == 2, "the last chunk comes when everything is checked"
    assert await case.store.transcripts.content(case.tenant, true.digest) is None


async def test_an_upload_that_was_left_or_spoilt_is_begun_again(case: Case) -> None:
    content = Content(some())
    await case.owner.execute(
        "select runward.content_begin($1, $2, $3, 10)", case.tenant, content.digest, 5
    )
    for _ in range(2):
        await case.owner.execute(
            "select runward.content_begin($1, $2, $3, 10)",
            case.tenant,
            content.digest,
            content.size,
        )
        await case.owner.execute(
            "select runward.content_put($1, $2, 0, $3)",
            case.tenant,
            content.digest,
            some(CHUNK_BYTES),
        )
    assert await case.store.content.size(case.tenant, content.digest) is None

    await asyncio.gather(*(case.store.content.put(case.tenant, content) for _ in range(3)))

    assert await case.store.content.read(case.tenant, content.digest) is not None


async def test_the_schema_bounds_what_can_be_put(case: Case, database_url: str) -> None:
    name = Content(b"x").digest
    with pytest.raises(RequestRefused):
        await case.store.content._database.value(
            "select runward.content_begin($1, $2, $3, 10)", case.tenant, name, CONTENT_BYTES_MAX + 1
        )
    await case.owner.execute("select runward.content_begin($1, $2, 10, 10)", case.tenant, name)
    for n, data in ((0, b"too short"), (1, b"0123456789"), (None, b""), (0, None)):
        with pytest.raises(RequestRefused):
            await case.store.content._database.value(
                "select runward.content_put($1, $2, $3, $4)", case.tenant, name, n, data
            )
    async with Store(database_url, role="runward_reader", connections_max=1) as reader:
        await reader.content.put(case.tenant, Content(b"0123456789"))
        for refused in (
            reader.content.claim(case.tenant, case.run, name),
            reader.content.delete_unused(1),
            reader.content._database.value("delete from runward.content_chunk"),
        ):
            with pytest.raises(ConfigurationError):
                await refused


async def test_content_stays_while_a_run_uses_it_and_goes_with_its_last(case: Case) -> None:
    content, other = Content(some()), case.another_run()
    for one in (case, other):
        await one.started()
        await one.store.content.put_for(one.tenant, one.run, content)
    await freed(case)
    await collected(case)
    assert await rows(case) == (1, 3, 2)

    for one, left in ((case, (1, 3, 1)), (other, (0, 0, 0))):
        await ended(one)
        await retire(one)
        await collected(one)
        assert await rows(case) == left


async def test_content_that_was_put_again_outlives_the_run_that_used_it(case: Case) -> None:
    """A client was told that it is there, and starts a run that refers to it."""
    content = Content(some())
    await case.started()
    await case.store.content.put_for(case.tenant, case.run, content)
    await case.store.content.put(case.tenant, content)
    await ended(case)
    await retire(case)
    await collected(case)
    assert await rows(case) == (1, 3, 0)

    other = case.another_run()
    assert await other.store.content.claim(other.tenant, other.run, content.digest)
    await other.started()
    await freed(case)
    await collected(case)
    assert await rows(case) == (1, 3, 1)


async def test_what_no_run_refers_to_goes_after_its_hold_a_few_rows_at_a_time(case: Case) -> None:
    content = Content(some())
    await case.store.content.put(case.tenant, content, held=HELD_FOR_A_STEP)
    assert await case.store.content.claim(case.tenant, "never-began", content.digest)
    await collected(case)
    assert await rows(case) == (1, 3, 1)

    await freed(case)
    await case.store.content.delete_unused(1)
    assert (await rows(case))[:2] == (1, 2)
    assert await case.store.content.size(case.tenant, content.digest) is None
    await collected(case, batch=1)

    assert await rows(case) == (0, 0, 0)
    assert not await case.store.content.claim(case.tenant, case.run, content.digest)


async def test_a_use_that_is_noted_meanwhile_keeps_the_content(
    case: Case, database_url: str
) -> None:
    content = Content(some())
    await case.started()
    await case.store.content.put(case.tenant, content)
    await freed(case)
    async with case.owner.transaction():
        await case.owner.execute(
            "select runward.content_claim($1, $2, $3)", case.tenant, case.run, content.digest
        )
        assert await collected(case) == 0, "whoever deletes waits for nobody"

    await collected(case)
    assert await rows(case) == (1, 3, 1)


class Unsent(Content):
    """Content that must not be sent."""

    __slots__ = ()

    def chunks(self) -> Iterator[bytes]:
        raise AssertionError("it is there already")


async def ended(case: Case) -> None:
    run = await case.store.runs.find(case.workflow, case.run)
    assert run is not None
    await case.store.runs.close(run, case.closing())
    await aged(case, 40)


async def retire(case: Case) -> None:
    await case.store.retention.retire("content", 30, await due(case, "content", 30))
    while await case.store.retention.delete(1000):
        pass
    await case.owner.execute(
        "update runward.large_content set free_at = now() - interval '1 s'"
        " where tenant = $1 and free_at < now() + interval '2 hours'",
        case.tenant,
    )
