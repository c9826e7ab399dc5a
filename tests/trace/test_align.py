"""The alignment: its blocks are equal, as long as they can be where that is known, and soon."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.trace.align import align

WORDS = st.lists(st.integers(0, 5), max_size=40)


def matched(a: list[int], b: list[int]) -> int:
    x, y = np.array(a, np.uint64), np.array(b, np.uint64)
    at_a = at_b = total = 0
    for first, second, length in align(x, y):
        assert first >= at_a
        assert second >= at_b
        assert length > 0
        at_a, at_b = first + length, second + length
        assert (x[first:at_a] == y[second:at_b]).all()
        total += length
    assert at_a <= len(a)
    assert at_b <= len(b)
    return total


def longest_common(a: list[int], b: list[int]) -> int:
    before = [0] * (len(b) + 1)
    for x in a:
        row = [0]
        for place, y in enumerate(b):
            row.append(before[place] + 1 if x == y else max(before[place + 1], row[place]))
        before = row
    return before[-1]


@given(WORDS, WORDS)
def test_short_sequences_are_aligned_as_well_as_possible(a: list[int], b: list[int]) -> None:
    assert matched(a, b) == longest_common(a, b)


@given(st.lists(st.integers(0, 2), max_size=300), st.lists(st.integers(0, 40), max_size=300))
def test_any_sequences(a: list[int], b: list[int]) -> None:
    matched(a, b)
    assert matched(a, a) == len(a)


@pytest.mark.parametrize("kinds", [6, 3_000, 10**9])
def test_a_million_with_edits(kinds: int) -> None:
    rng = np.random.default_rng(1)
    a = rng.integers(0, kinds, 1_000_000)
    places = np.sort(rng.choice(1_000_000, 300, replace=False))
    b = np.insert(np.delete(a, places[::2]), places[1:-200:2], 7)
    started = time.monotonic()
    assert matched(a.tolist(), b.tolist()) >= 1_000_000 - 500
    assert time.monotonic() - started < 10


def test_sequences_that_have_nothing_to_do_with_each_other_end_soon() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.integers(0, 50, 200_000), rng.integers(0, 50, 200_000)
    started = time.monotonic()
    matched(a.tolist(), b.tolist())
    assert time.monotonic() - started < 10


def test_a_loop_that_polls_more_often() -> None:
    poll = [1, 2, 3, 3]
    a = poll * 50_000
    b = [*poll * 10_000, 9, *poll * 39_900, 4]
    assert matched(a, b) == 49_900 * 4


def test_a_long_run_that_repeats_itself_with_edits() -> None:
    # Nothing occurs once: 20 rounds of the same 5,000, a polling loop in each.
    rng = np.random.default_rng(2)
    once = np.concatenate([rng.integers(0, 90, 3_000), np.tile([1, 2, 2, 3], 500)])
    a = np.tile(once, 20)
    places = np.sort(rng.choice(len(a), 300, replace=False))
    b = np.insert(np.delete(a, places[::2]), places[1:-2:2], 7)
    assert matched(a.tolist(), b.tolist()) >= len(a) - 150
