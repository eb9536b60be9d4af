"""What a model call consumed, in disjoint counters, and what it costs in whole nano-dollars."""

from __future__ import annotations

from dataclasses import dataclass

NANO_USD = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counters that do not overlap; `output` includes reasoning. All are >= 0."""

    input: int = 0
    cache_read: int = 0
    cache_write: int = 0
    output: int = 0

    @property
    def input_total(self) -> int:
        """Returns all tokens that went in, cached or not."""
        return self.input + self.cache_read + self.cache_write

    @property
    def tokens(self) -> int:
        """Returns all tokens."""
        return self.input_total + self.output

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.input + other.input,
            self.cache_read + other.cache_read,
            self.cache_write + other.cache_write,
            self.output + other.output,
        )


@dataclass(frozen=True, slots=True)
class Price:
    """Nano-USD per token of each counter, with the version of the table it came from."""

    input: int
    cache_read: int
    cache_write: int
    output: int
    version: str

    def cost(self, usage: Usage) -> int:
        """Returns the cost in nano-USD."""
        return (
            usage.input * self.input
            + usage.cache_read * self.cache_read
            + usage.cache_write * self.cache_write
            + usage.output * self.output
        )

    def bound(self, input_tokens: int, output_tokens: int) -> int:
        """Returns the most that such a call can cost: no cache hit is assumed, a write may be."""
        return input_tokens * max(self.input, self.cache_write) + output_tokens * self.output
