"""The sum of the Internet checksum, word by word and in NumPy."""

from __future__ import annotations

import random

import pytest

from workbench.core.checksum import internet_sum


def by_words(data: bytes) -> int:
    """RFC 1071, 4.1, for big-endian words."""
    total = 0
    for at in range(0, len(data), 2):
        total += int.from_bytes(data[at : at + 2].ljust(2, b"\0"), "big")
        total = (total & 0xFFFF) + (total >> 16)
    return total


@pytest.mark.parametrize(
    "length", [0, 1, 2, 3, 20, 1198, 1199, 1200, 1201, 1202, 1203, 1514, 65535]
)
def test_it_is_the_sum_of_words(length: int) -> None:
    rng = random.Random(length)
    for data in (rng.randbytes(length), bytes(length), b"\xff" * length):
        assert internet_sum(data) == by_words(data) == internet_sum(memoryview(data))
