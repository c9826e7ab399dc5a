"""Alignment of two long sequences of numbers: which stretches of one are stretches of the other.

The sequences are register accesses, as hashes, and mostly alike. Common ends are taken off; runs of
numbers that occur once in each sequence are anchors, and the heaviest chain of anchors that rises
in both splits the problem (patience diff, with runs instead of lines); between anchors the same is
done with shorter runs. What is left and small is solved exactly (E. Myers, "An O(ND) Difference
Algorithm and Its Variations", Algorithmica 1, 1986), what is left and long (nothing occurs once in
a run that repeats itself) window by window, as far as that goes; the rest is matched by the number
of the occurrence. Memory is linear; the work of the exact part is bounded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int64]
Progress = Callable[[float], None]

_RUNS: Final = (24, 6, 1)
_SMALL: Final = 48
_MEDIUM: Final = 400
_MOST_EDITS: Final = 400
_WINDOW: Final = 16_384
_WINDOW_EDITS: Final = 64
_MOST_TRIES: Final = 2
_MOST_STEPS: Final = 2_000_000
_MOST_GROUPS: Final = 20_000
_STEP: Final = np.uint64(0x9E37_79B9_7F4A_7C15)


class Block(NamedTuple):
    """`length` elements from `first` in one sequence equal those from `second` in the other."""

    first: int
    second: int
    length: int


def mix(word: Words) -> Words:
    """Scramble 64-bit words, one to one (the finisher of SplitMix64)."""
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58_476D_1CE4_E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D0_49BB_1331_11EB)
    return word ^ (word >> np.uint64(31))


def combine(*columns: Words) -> Words:
    """Hash rows of columns."""
    found = np.zeros(len(columns[0]), np.uint64)
    for column in columns:
        found = mix(found * _STEP + column + np.uint64(1))
    return found


def align(a: Words, b: Words, progress: Progress = lambda share: None) -> list[Block]:
    """Give the stretches that are equal, ascending in both sequences, adjacent ones joined.

    `progress` is told now and then how much is done, from 0 to 1; what it raises ends the work.
    """
    work = _Work(a, b)
    work.regions.append((0, len(a), 0, len(b), 0, 0))
    while work.regions:
        # The regions that are left come before all that is done.
        progress(1 - work.regions[-1][1] / max(len(a), 1))
        work.split(*work.regions.pop())
    return _joined(work.blocks)


def _joined(blocks: list[Block]) -> list[Block]:
    found: list[Block] = []
    for block in sorted(blocks):
        if found:
            last = found[-1]
            if (last.first + last.length, last.second + last.length) == block[:2]:
                found[-1] = Block(last.first, last.second, last.length + block.length)
                continue
        found.append(block)
    return found


class _Work:
    def __init__(self, a: Words, b: Words) -> None:
        self.a = a
        self.b = b
        self.blocks: list[Block] = []
        self.regions: list[tuple[int, int, int, int, int, int]] = []
        self.steps_left = _MOST_STEPS

    def add(self, first: int, second: int, length: int) -> None:
        if length > 0:
            self.blocks.append(Block(first, second, length))

    def split(self, a0: int, a1: int, b0: int, b1: int, level: int, tries: int) -> None:
        """Match what is easy in a region and put what is between on the list."""
        same = _common(self.a[a0:a1], self.b[b0:b1])
        self.add(a0, b0, same)
        a0, b0 = a0 + same, b0 + same
        same = _common(self.a[a0:a1][::-1], self.b[b0:b1][::-1])
        a1, b1 = a1 - same, b1 - same
        self.add(a1, b1, same)
        if a0 == a1 or b0 == b1:
            return
        x, y = self.a[a0:a1], self.b[b0:b1]
        if max(len(x), len(y)) <= _SMALL and (
            self._exact(x, y, a0, b0) or self.steps_left <= 0 or tries
        ):
            return
        for number in range(level, len(_RUNS)):
            run = _RUNS[number]
            pairs = _anchors(_hash_runs(x, run), _hash_runs(y, run))
            if pairs is not None:
                self._around(*pairs, run, (a0, a1, b0, b1), number, tries)
                return
        if max(len(x), len(y)) <= _MEDIUM and (self._exact(x, y, a0, b0) or self.steps_left <= 0):
            return
        skip_a, skip_b = self._slide(a0, a1, b0, b1)
        if skip_a or skip_b:
            self.regions.append((a0 + skip_a, a1, b0 + skip_b, b1, len(_RUNS), tries))
            return
        if tries >= _MOST_TRIES:
            return
        for run in _RUNS:
            pairs = _anchors(
                _with_occurrence(_hash_runs(x, run)), _with_occurrence(_hash_runs(y, run))
            )
            if pairs is not None:
                self._around(*pairs, run, (a0, a1, b0, b1), 0, tries + 1)
                return

    def _slide(self, a0: int, a1: int, b0: int, b1: int) -> tuple[int, int]:
        """Follow the best path from the start of a region for as long as it matches well.

        A window of edits is solved, the first half of it is kept, and the next window begins there.
        Returns how much of both sides is done.
        """
        at_a, at_b = a0, b0
        while self.steps_left > 0:
            x = self.a[at_a : min(a1, at_a + _WINDOW)].tolist()
            y = self.b[at_b : min(b1, at_b + _WINDOW)].tolist()
            found, steps, whole = _myers(x, y, _WINDOW_EDITS)
            self.steps_left -= steps
            if not whole and sum(length for _, _, length in found) < 4 * _WINDOW_EDITS:
                break
            last = whole and at_a + len(x) == a1 and at_b + len(y) == b1
            kept = found if last else found[: max(len(found) // 2, 1)]
            for i, j, length in kept:
                self.add(at_a + i, at_b + j, length)
            if last:
                return a1 - a0, b1 - b0
            if not kept:
                break
            end = kept[-1]
            at_a, at_b = at_a + end.first + end.length, at_b + end.second + end.length
        return at_a - a0, at_b - b0

    def _around(
        self,
        i: Places,
        j: Places,
        run: int,
        region: tuple[int, int, int, int],
        level: int,
        tries: int,
    ) -> None:
        """Take the anchors as matches and list the gaps between them."""
        a0, a1, b0, b1 = region
        cuts = np.flatnonzero((np.diff(i) > run) | (np.diff(i) != np.diff(j))) + 1
        starts = np.concatenate(([0], cuts))
        ends = np.concatenate((cuts, [len(i)])) - 1
        at_a, at_b = a0, b0
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
            first, second = a0 + int(i[start]), b0 + int(j[start])
            length = int(i[end] - i[start]) + run
            over = max(at_a - first, at_b - second, 0)
            if over >= length:
                continue
            first, second, length = first + over, second + over, length - over
            self.regions.append((at_a, first, at_b, second, level, tries))
            self.add(first, second, length)
            at_a, at_b = first + length, second + length
        self.regions.append((at_a, a1, at_b, b1, level, tries))

    def _exact(self, x: Words, y: Words, a0: int, b0: int) -> bool:
        """Solve a region exactly if that is cheap enough."""
        if abs(len(x) - len(y)) > _MOST_EDITS or self.steps_left <= 0:
            return False
        found, steps, whole = _myers(x.tolist(), y.tolist(), _MOST_EDITS)
        self.steps_left -= steps
        if whole:
            for i, j, length in found:
                self.add(a0 + i, b0 + j, length)
        return whole


def _common(x: Words, y: Words) -> int:
    """Length of the common beginning."""
    limit, at, step = min(len(x), len(y)), 0, 64
    while at < limit:
        end = min(at + step, limit)
        wrong = np.flatnonzero(x[at:end] != y[at:end])
        if len(wrong):
            return at + int(wrong[0])
        at, step = end, step * 4
    return limit


def _hash_runs(words: Words, run: int) -> Words:
    """Hash each `run` neighbours."""
    if run == 1:
        return words
    if len(words) < run:
        return words[:0]
    found = np.zeros(len(words) - run + 1, np.uint64)
    for place in range(run):
        found = found * _STEP + words[place : place + len(found)]
    return mix(found)


def _with_occurrence(words: Words) -> Words:
    """Hash each element with the number of equal elements before it."""
    order = np.argsort(words, kind="stable")
    ordered = words[order]
    fresh = np.concatenate(([True], ordered[1:] != ordered[:-1]))
    starts = np.maximum.accumulate(np.where(fresh, np.arange(len(words)), 0))
    number = np.empty(len(words), np.uint64)
    number[order] = (np.arange(len(words)) - starts).astype(np.uint64)
    return combine(words, number)


def _anchors(x: Words, y: Words) -> tuple[Places, Places] | None:
    """Find what occurs once in each, and of these the heaviest chain that rises in both."""
    if not len(x) or not len(y):
        return None
    in_x, at_x = _once(x)
    in_y, at_y = _once(y)
    _, of_x, of_y = np.intersect1d(in_x, in_y, assume_unique=True, return_indices=True)
    if not len(of_x):
        return None
    i, j = at_x[of_x], at_y[of_y]
    order = np.argsort(i)
    return _chain(i[order], j[order])


def _once(words: Words) -> tuple[Words, Places]:
    found, place, count = np.unique(words, return_index=True, return_counts=True)
    alone = count == 1
    return found[alone], place[alone]


def _chain(i: Places, j: Places) -> tuple[Places, Places]:
    """Choose among pairs, ascending in `i`, groups on one diagonal so that `j` ascends too."""
    cuts = np.flatnonzero(np.diff(i - j)) + 1
    starts = np.concatenate(([0], cuts))
    ends = np.concatenate((cuts, [len(i)]))
    weights = ends - starts
    if len(starts) > _MOST_GROUPS:
        best = np.sort(np.argsort(-weights, kind="stable")[:_MOST_GROUPS])
        starts, ends, weights = starts[best], ends[best], weights[best]
    low, high = j[starts], j[ends - 1]
    # A Fenwick tree of maxima over `high`: the heaviest chain that ends below a place.
    places = np.sort(high)
    below = np.searchsorted(places, low).tolist()
    own = (np.searchsorted(places, high) + 1).tolist()
    size = len(places)
    tree: list[tuple[int, int]] = [(0, -1)] * (size + 1)
    before = [-1] * size
    top = (0, -1)
    for group, weight in enumerate(weights.tolist()):
        best_below, place = (0, -1), below[group]
        while place > 0:
            best_below = max(best_below, tree[place])
            place &= place - 1
        before[group] = best_below[1]
        mine = (best_below[0] + weight, group)
        top = max(top, mine)
        place = own[group]
        while place <= size:
            tree[place] = max(tree[place], mine)
            place += place & -place
    chosen = []
    group = top[1]
    while group >= 0:
        chosen.append(group)
        group = before[group]
    keep = np.concatenate([np.arange(starts[g], ends[g]) for g in reversed(chosen)])
    return i[keep], j[keep]


def _myers(x: list[int], y: list[int], most: int) -> tuple[list[Block], int, bool]:
    """Find a shortest edit script, as its matches; the steps it took; whether it is whole.

    With more than `most` edits it is the beginning that comes furthest with them.
    """
    n, m = len(x), len(y)
    furthest = {1: 0}
    history: list[dict[int, int]] = []
    steps = 0
    for edits in range(min(n + m, most) + 1):
        history.append(dict(furthest))
        for k in range(-min(edits, m - (m - edits) % 2), edits + 1, 2):
            if k > n:
                break
            down = k == -edits or (k != edits and furthest.get(k - 1, -1) < furthest.get(k + 1, -1))
            at = furthest.get(k + 1, -1) if down else furthest.get(k - 1, -1) + 1
            steps += 1
            while at < n and at - k < m and x[at] == y[at - k]:
                at += 1
            furthest[k] = at
            if at >= n and at - k >= m:
                return _backtrack(history, n, m), steps + edits * edits // 4, True
    best = max((k for k in furthest if (k - edits) % 2 == 0), key=lambda k: 2 * furthest[k] - k)
    steps += edits * edits // 4
    return _backtrack(history, furthest[best], furthest[best] - best), steps, False


def _backtrack(history: list[dict[int, int]], at: int, at_y: int) -> list[Block]:
    found: list[Block] = []
    for edits in range(len(history) - 1, -1, -1):
        before = history[edits]
        k = at - at_y
        down = k == -edits or (k != edits and before.get(k - 1, -1) < before.get(k + 1, -1))
        from_k = k + 1 if down else k - 1
        x0 = before.get(from_k, 0) if edits else 0
        start = (x0 if down else x0 + 1) if edits else 0
        if at > start:
            found.append(Block(start, start - k, at - start))
        at, at_y = x0, x0 - from_k
    found.reverse()
    return found
