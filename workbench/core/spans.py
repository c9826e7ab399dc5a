"""Where the bytes of a transfer by DMA go to or come from: spans of guest memory.

An array of 64-bit numbers, a pair (gpa, bytes) for each span; the transfer's data lie in them one
after the other. In this form a whole request goes through the compiled helper (`dma`) and into the
log at once.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import TypeAlias

__all__ = ["Spans", "pairs", "spans_of"]

Spans: TypeAlias = "array[int]"


def spans_of(pairs: Iterable[tuple[int, int]]) -> Spans:
    """The array of pairs (gpa, bytes)."""
    return array("Q", chain.from_iterable(pairs))


def pairs(spans: Spans) -> Iterator[tuple[int, int]]:
    """The pairs of an array."""
    return zip(spans[::2], spans[1::2], strict=True)
