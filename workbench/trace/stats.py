"""Counts of register accesses: by device, register, direction, value, PC, function, phase or time.

A trace is read batch by batch, only the columns that are needed. A batch becomes a few counts: of
each different code of its key (`keys`), direction and time bucket. That is done in threads, for it
is all in Arrow and NumPy; what the codes mean is asked afterwards, in order. The counts of several
traces are merged.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from workbench.trace import keys
from workbench.trace.ahead import in_turn
from workbench.trace.columns import Ints, encode, integers
from workbench.trace.keys import Label

if TYPE_CHECKING:
    import pyarrow as pa

    from workbench.trace.reader import Trace
    from workbench.trace.symbols import SymbolTable

BUCKET: Final = "bucket"
BY: Final = (*keys.NAMES, BUCKET)
_BATCH_ROWS: Final = 1 << 17
"""So few that the arrays of a batch stay in a core's cache, so many that what is done for each
different code hardly counts.
"""
_DENSE: Final = 1 << 16
_KEPT_BYTES: Final = 24 << 20
_MAX_LABELS: Final = 1 << 17
_LEAST_LABELS: Final = 1024
_MAX_CELLS: Final = 1 << 24


_Coded = tuple[Ints, Ints, Any]
"""Cells of a batch, how often each is there, and what `keys` needs to know of their codes."""


@dataclass(frozen=True, slots=True)
class Count:
    """One row of the statistics; `over_time` has one number for each bucket."""

    label: Label
    reads: int
    writes: int
    over_time: list[int] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Reads and writes."""
        return self.reads + self.writes


@dataclass(frozen=True, slots=True)
class Stats:
    """All counts, the largest first (by time: in order), and the width of a time bucket."""

    by: tuple[str, ...]
    counts: list[Count]
    total: int
    bucket_icount: int
    buckets: int


def count(
    trace: Trace,
    by: tuple[str, ...],
    symbols: SymbolTable | None = None,
    buckets: int = 60,
    bucket_icount: int | None = None,
    jobs: int | None = 1,
) -> Stats:
    """Count the accesses of a trace; each repetition of a string instruction counts.

    `bucket_icount` is the width of a bucket, by default so that all of them cover the run. Pieces
    are read and coded in `jobs` threads, by default in this one; None: one for each core.
    """
    width = bucket_icount or max(1, -(-(trace.icount + 1) // buckets))
    counter = _Counter(trace, by, symbols, buckets, width)
    groups = _groups(trace.pieces("accesses"), _BATCH_ROWS)
    if keys.in_order(by):
        for table in in_turn((partial(counter.read, group) for group in groups), jobs):
            counter.add(counter.code(table))
    else:
        for batches in in_turn((partial(counter.read_codes, group) for group in groups), jobs):
            counter.add(batches)
    return counter.result()


class _Counter:
    """Reads and codes groups of pieces, in any order; adds up what was coded, in order."""

    def __init__(
        self,
        trace: Trace,
        by: tuple[str, ...],
        symbols: SymbolTable | None,
        buckets: int,
        width: int,
    ) -> None:
        _keep_memory()
        self._trace = trace
        self._by, self._buckets, self._width = by, buckets, width
        self._key = None if by == (BUCKET,) else keys.make(by, trace, symbols)
        time = ("icount",) if buckets > 1 else ()
        own = self._key.columns if self._key else ()
        self._columns = dict.fromkeys((*time, "write", "count", *own))
        self._names = keys.Names(max(_LEAST_LABELS, min(_MAX_LABELS, _MAX_CELLS // buckets)))
        self._cells = 2 * buckets
        self._table = np.zeros(self._cells, np.int64)
        """Cells of one name after the other, the first of NO_NAME."""

    def read(self, group: range) -> pa.Table:
        """Read some pieces."""
        import pyarrow as pa

        parts = [self._trace.piece("accesses", n, self._columns) for n in group]
        return parts[0] if len(parts) == 1 else pa.concat_tables(parts)

    def code(self, table: pa.Table) -> list[_Coded]:
        """Make counts of codes."""
        starts = range(0, table.num_rows, _BATCH_ROWS)
        return [self._code(table.slice(first, _BATCH_ROWS)) for first in starts]

    def read_codes(self, group: range) -> list[_Coded]:
        """Do both."""
        return self.code(self.read(group))

    def _code(self, batch: pa.Table) -> _Coded:
        """Count the cells of a batch: (code, direction, bucket)."""
        key, buckets = self._key, self._buckets
        place, about = (
            (np.zeros(batch.num_rows, np.int64), None) if key is None else key.code(batch)
        )
        place *= 2
        place += integers(batch["write"])
        if buckets > 1:
            place *= buckets
            place += np.clip(integers(batch["icount"]) // self._width, 0, buckets - 1)
        return *_count(place, integers(batch["count"])), about

    def add(self, batches: list[_Coded]) -> None:
        """Follow what is selected, name the codes and add up."""
        key, cells = self._key, self._cells
        for place, counts, about in batches:
            if key is not None:
                key.follow(about)
                codes, cell = np.divmod(place, cells)
                first = np.flatnonzero(np.diff(codes, prepend=-1))
                numbers = self._names.numbers(key.names(about, codes[first])) + 1
                place = np.repeat(numbers, np.diff(first, append=len(codes))) * cells + cell
                self._make_room((len(self._names.known) + 1) * cells)
            np.add.at(self._table, place, counts)

    def _make_room(self, size: int) -> None:
        have = len(self._table)
        if size > have:
            more = np.zeros(max(size, 2 * have) - have, np.int64)
            self._table = np.concatenate([self._table, more])

    def result(self) -> Stats:
        """All counts."""
        key, by, width, buckets = self._key, self._by, self._width, self._buckets
        counted = self._table.reshape(-1, 2, buckets)
        if key is None:
            by_bucket = enumerate(counted[0].T.tolist())
            counts = [Count((f"{n * width}",), *c) for n, c in by_bucket]
            return _stats(by, counts, width, buckets)
        sums: dict[Label, Ints] = {}
        for n, name in enumerate([keys.NO_NAME, *self._names.known]):
            label = (keys.OTHERS,) if name == keys.NO_NAME else key.label(name)
            sums[label] = sums[label] + counted[n] if label in sums else counted[n]
        found = [
            Count(label, int(c[0].sum()), int(c[1].sum()), c.sum(0).tolist())
            for label, c in sums.items()
        ]
        return _stats(by, found, width, buckets)


def _stats(by: tuple[str, ...], counts: list[Count], width: int, buckets: int) -> Stats:
    if by != (BUCKET,):
        counts = sorted((c for c in counts if c.total), key=lambda c: (-c.total, c.label))
    return Stats(by, counts, sum(c.total for c in counts), width, buckets)


def merge(parts: Iterable[Stats]) -> Stats:
    """Add up the counts of several traces, made with the same keys and buckets."""
    by: tuple[str, ...] = ()
    width = buckets = 1
    sums: dict[Label, tuple[int, int, Ints]] = {}
    for part in parts:
        by, width, buckets = part.by, part.bucket_icount, part.buckets
        for c in part.counts:
            over = np.array(c.over_time, np.int64)
            reads, writes, before = sums.get(c.label, (0, 0, np.zeros_like(over)))
            sums[c.label] = (reads + c.reads, writes + c.writes, before + over)
    counts = [Count(label, r, w, over.tolist()) for label, (r, w, over) in sums.items()]
    return _stats(by, counts, width, buckets)


def _count(place: Ints, weights: Ints) -> tuple[Ints, Ints]:
    """Different places in rising order, and how often each is there by its weights; few accesses
    are repeated.
    """
    repeated = np.flatnonzero(weights != 1)
    if int(place.max(initial=0)) < 4 * len(place) + _DENSE:
        counts = np.bincount(place)
        np.add.at(counts, place[repeated], weights[repeated] - 1)
        found = np.flatnonzero(counts)
        return found, counts[found]
    found, which = encode(place)
    counts = np.bincount(which)
    np.add.at(counts, which[repeated], weights[repeated] - 1)
    order = np.argsort(found)
    return found[order], counts[order]


def _keep_memory() -> None:
    """Let the C library keep what is freed, for the next array. It gives half a megabyte back to
    the system at once, which costs more than the arithmetic, until it has seen a larger one freed.
    """
    np.empty(_KEPT_BYTES, np.uint8)


def _groups(rows: list[int], least: int) -> Iterator[range]:
    """Put pieces together until they have so many rows; each costs something of its own."""
    first = total = 0
    for n, more in enumerate(rows):
        total += more
        if total >= least:
            yield range(first, n + 1)
            first, total = n + 1, 0
    if first < len(rows):
        yield range(first, len(rows))
