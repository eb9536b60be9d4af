"""What models cost, from a pinned table read offline. An unknown price is None: deny then."""

from __future__ import annotations

from decimal import ROUND_CEILING, Decimal
from functools import lru_cache
from importlib.metadata import version
from typing import Any

from runward.contracts.usage import NANO_USD, Price

SCRIPTED = Price(input=1_000, cache_read=100, cache_write=1_250, output=5_000, version="scripted-1")


@lru_cache(maxsize=1024)  # every model step asks; to read our own metadata takes longer than it
def price(model: str, input_tokens: int | None = None) -> Price | None:
    """Returns the price of `provider:model`, None where it is unknown.

    Some prices rise with the size of the input: without `input_tokens` (all of them, cached or not)
    it is the highest one. Ask with the bound before a call and with the usage after it; the bound
    then holds, because a larger input never costs less per token.
    """
    provider, _, name = model.partition(":")
    if provider == "scripted":
        return SCRIPTED
    found = _found(provider, name)
    if found is None:
        return None
    into = _nano(getattr(found, "input_mtok", None), input_tokens)
    out = _nano(getattr(found, "output_mtok", None), input_tokens)
    if into is None or out is None:
        return None
    # Where a table has no line for the cache, its tokens cost what input costs.
    read = _nano(getattr(found, "cache_read_mtok", None), input_tokens)
    write = _nano(getattr(found, "cache_write_mtok", None), input_tokens)
    label = f"genai-prices-{version('genai-prices')}"
    return Price(into, into if read is None else read, into if write is None else write, out, label)


@lru_cache(maxsize=1024)
def _found(provider: str, name: str) -> Any:
    import genai_prices  # a large table; a process that prices nothing does not load it

    usage = genai_prices.Usage(input_tokens=1, output_tokens=1)
    try:
        return genai_prices.calc_price(usage, name, provider_id=provider).model_price
    except (LookupError, ValueError):
        return None


def _nano(per_million: Any, input_tokens: int | None) -> int | None:
    """Returns nano-USD per token, rounded up, from dollars per million tokens."""
    if per_million is None:
        return None
    tiers = getattr(per_million, "tiers", None)
    if tiers is not None:
        reached = [
            tier.price for tier in tiers if input_tokens is None or input_tokens >= tier.start
        ]
        per_million = max([per_million.base, *reached])
    return int((Decimal(per_million) * NANO_USD / 1_000_000).to_integral_value(ROUND_CEILING))
