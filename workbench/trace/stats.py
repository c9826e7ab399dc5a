"""Counts of register accesses: by device, register, direction, value, PC, function, phase or time.

A trace is read batch by batch, only the columns that are needed, several batches at once. A batch
becomes a few counts: of each different code of its key (`keys`), direction and time bucket. What
the codes mean is then asked in the order of the batches. The counts of several traces are made one
by one, anywhere, and merged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np

from workbench.trace import keys
from workbench.trace.ahead import ahead, threads
from workbench.trace.columns import Ints, integers
from workbench.trace.keys import Label

if TYPE_CHECKING:
    import pyarrow as pa

    from workbench.trace.reader import Trace
    from workbench.trace.symbols import SymbolTable

T = TypeVar("T")
BUCKET: Final = "bucket"
BY: Final = (*keys.NAMES, BUCKET)
_BATCH_ROWS: Final = 1 << 15
"""So many that the arrays of a batch stay in a core's cache."""
_DENSE: Final = 1 << 16
_KEPT_BYTES: Final = 24 << 20
_MAX_LABELS: Final = 1 << 17
_LEAST_LABELS: Final = 1024
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
    key = None if by == (BUCKET,) else keys.make(by, trace, symbols)
    names = keys.Names(max(_LEAST_LABELS, min(_MAX_LABELS, _MAX_CELLS // buckets)))
    time = ("icount",) if buckets > 1 else ()
    columns = dict.fromkeys((*time, "write", "count", *(key.columns if key else ())))

    def work(batch: pa.Table) -> tuple[Ints, Ints, Any]:
        """Count the cells of a batch: (code, direction, bucket)."""
        place, about = (
            (np.zeros(batch.num_rows, np.int64), None) if key is None else key.code(batch)
        )
        place *= 2
        place += integers(batch["write"])
        if buckets > 1:
            place *= buckets
            place += np.clip(integers(batch["icount"]) // width, 0, buckets - 1)
        return *_count(place, integers(batch["count"])), about

    cells = 2 * buckets
    table = np.zeros(cells, np.int64)  # cells of one name after the other, the first of NO_NAME
    for place, counts, about in _each(work, trace, columns, key is not None and key.in_order):
        if key is not None:
            codes, cell = np.divmod(place, cells)
            first = np.flatnonzero(np.diff(codes, prepend=-1))
            numbers = names.numbers(key.names(about, codes[first])) + 1
            place = np.repeat(numbers, np.diff(first, append=len(codes))) * cells + cell
            if (size := (len(names.known) + 1) * cells) > len(table):
                table = np.concatenate([table, np.zeros(max(size, 2 * len(table)), np.int64)])
        np.add.at(table, place, counts)
    counted = table.reshape(-1, 2, buckets)
    if key is None:
        by_bucket = enumerate(counted[0].T.tolist())
        return _stats(by, [Count((f"{n * width}",), *c) for n, c in by_bucket], width, buckets)
    sums: dict[Label, Ints] = {}
    for n, name in enumerate([keys.NO_NAME, *names.known]):
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
    """Different places, and how often each is there by its weights; few accesses are repeated."""
    repeated = np.flatnonzero(weights != 1)
    if int(place.max(initial=0)) < 4 * len(place) + _DENSE:
        counts = np.bincount(place)
        np.add.at(counts, place[repeated], weights[repeated] - 1)
        found = np.flatnonzero(counts)
        return found, counts[found]
    found, which = np.unique(place, return_inverse=True)
    counts = np.bincount(which)
    np.add.at(counts, which[repeated], weights[repeated] - 1)
    return found, counts


def _each(
    work: Callable[[pa.Table], T], trace: Trace, columns: Iterable[str], in_order: bool
) -> Iterator[T]:
    """Read the accesses piece by piece and work on some at once, in threads; results in order.

    Most of it is done by Arrow and NumPy, which hold no interpreter lock.
    """

    def some(group: range) -> list[T]:
        parts = [trace.piece("accesses", n, columns) for n in group]
        table = parts[0] if len(parts) == 1 else pa.concat_tables(parts)
        starts = range(0, table.num_rows, _BATCH_ROWS)
        return [work(table.slice(start, _BATCH_ROWS)) for start in starts]

    import pyarrow as pa

    _keep_memory()
    tasks = (partial(some, group) for group in _groups(trace.pieces("accesses")))
    for results in ahead(tasks, 1 if in_order else threads()):
        yield from results


def _keep_memory() -> None:
    """Let the C library keep what is freed, for the next array. It gives half a megabyte back to
    the system at once, which costs more than the arithmetic, until it has seen a larger one freed.
    """
    np.empty(_KEPT_BYTES, np.uint8)


def _groups(rows: list[int]) -> Iterator[range]:
    """Put small pieces together; each costs something of its own."""
    first = total = 0
    for n, more in enumerate(rows):
        total += more
        if total >= _BATCH_ROWS:
            yield range(first, n + 1)
            first, total = n + 1, 0
    if first < len(rows):
        yield range(first, len(rows))
