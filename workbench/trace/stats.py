"""Counts of register accesses: by device, register, direction, value, PC, function, phase or time.

A trace is read batch by batch, only the columns that are needed, and every batch becomes two small
arrays: for each access the number of its label (`keys`) and that of its time bucket. The counts of
several traces are made one by one, anywhere, and merged.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from workbench.trace.columns import Ints, integers
from workbench.trace.keys import COLUMNS, Label, Labels, labeller

if TYPE_CHECKING:
    import pyarrow as pa

    from workbench.trace.reader import Trace
    from workbench.trace.symbols import SymbolTable

BUCKET: Final = "bucket"
BY: Final = (*COLUMNS, BUCKET)
_BATCH_ROWS: Final = 1 << 18
_MAX_LABELS: Final = 1 << 17
_MAX_CELLS: Final = 1 << 24


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
) -> Stats:
    """Count the accesses of a trace; each repetition of a string instruction counts.

    `bucket_icount` is the width of a bucket, by default so that all of them cover the run.
    """
    width = bucket_icount or max(1, -(-(trace.icount + 1) // buckets))
    labels = Labels(max(1024, min(_MAX_LABELS, _MAX_CELLS // buckets)))
    by_time = by == (BUCKET,)
    label = None if by_time else labeller(by, trace, labels, symbols)
    table = np.zeros((0, 2, buckets), np.int64)
    wanted = [] if by_time else [name for key in by for name in COLUMNS[key]]
    time = ("icount",) if buckets > 1 else ()
    columns = dict.fromkeys((*time, "write", "count", *wanted))
    for batch in _ahead(_merged(trace.batches("accesses", columns))):
        ids = np.zeros(batch.num_rows, np.int64) if label is None else label(batch)
        if max(1, len(labels.known)) > len(table):
            more = np.zeros((max(1, len(labels.known), 2 * len(table)), 2, buckets), np.int64)
            more[: len(table)] = table
            table = more
        place = ids * 2 + integers(batch["write"])
        if buckets > 1:
            when = np.clip(integers(batch["icount"]) // width, 0, buckets - 1)
            place = place * buckets + when
        _add(table.reshape(-1), place, integers(batch["count"]))
    if by_time:
        table = np.zeros((1, 2, buckets), np.int64) if not len(table) else table
        cells = table[0].T.tolist()
        counts = [Count((f"{n * width}",), *cell) for n, cell in enumerate(cells)]
    else:
        counts = [
            Count(name, int(table[n, 0].sum()), int(table[n, 1].sum()), table[n].sum(0).tolist())
            for name, n in labels.known.items()
            if n < len(table)
        ]
    return _stats(by, counts, width, buckets)


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


def _add(cells: Ints, place: Ints, weights: Ints) -> None:
    """Count each place, as often as its weight says; few accesses are repeated."""
    found = np.bincount(place)
    cells[: len(found)] += found
    repeated = np.flatnonzero(weights != 1)
    if len(repeated):
        np.add.at(cells, place[repeated], weights[repeated] - 1)


def _ahead(batches: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Read one batch while the one before it is counted."""
    with ThreadPoolExecutor(1) as reader:
        waiting = reader.submit(next, batches, None)
        while (batch := waiting.result()) is not None:
            waiting = reader.submit(next, batches, None)
            yield batch


def _merged(batches: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Put small batches together; each costs something of its own."""
    import pyarrow as pa

    waiting: list[pa.Table] = []
    rows = 0
    for batch in batches:
        waiting.append(batch)
        rows += batch.num_rows
        if rows >= _BATCH_ROWS:
            yield pa.concat_tables(waiting)
            waiting, rows = [], 0
    if waiting:
        yield pa.concat_tables(waiting)
