"""Pages of RAM in the checkpoints of a trace (`docs/trace-format.md`): each different one once.

Pages have numbers. The first are those of the machine's beginning, which whoever reads has anyway;
the others are in chunks. One that differs little from an earlier page of the same address is kept
as what differs (exclusive or), which compresses to nearly nothing; the earlier one is always a
whole page, so that none needs more than one other to be read.
"""

from __future__ import annotations

from collections import defaultdict
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from workbench.core.engine import PAGE
from workbench.core.pages import GROUP, ZERO, Ram
from workbench.errors import FormatError
from workbench.trace.container import BLOB_PART_BYTES, PAGES, ChunkInfo

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from workbench.trace.reader import Trace

    Numbers = NDArray[np.int64]
    Rows = NDArray[np.uint64]
    Put = Callable[..., None]

__all__ = ["PageReader", "PageWriter"]

AT_FIRST: Final = -1
"""In place of a chunk: the beginning."""
_BASE_BYTES: Final = 4
_PART_PAGES: Final = BLOB_PART_BYTES // (PAGE + _BASE_BYTES)
_WORDS: Final = PAGE // 8
_MOST_CHANGED: Final = _WORDS // 2
"""A page of which more words differ is kept whole."""


def first_pages(ram: Ram) -> list[int]:
    """The pages of the beginning that are numbered: those that are not all zero, by address."""
    return [slot for group in ram.groups for slot in group if slot != ZERO]


class PageWriter:
    """Numbers the pages of one machine's states, and writes them as chunks."""

    def __init__(self, first: Ram, put: Put) -> None:
        """`first` is RAM at the beginning; `put` appends a chunk: kind, payload, rows."""
        self._put = put
        self._count = 0
        self._known: dict[bytes, int] = {}
        self._whole: dict[int, tuple[int, int]] = {}
        """By page of RAM: number and slot of the last page there that was kept whole."""
        self._parts: set[int] = set()
        """Numbers of those that are not."""
        self._bases: list[int] = []
        self._rows: list[bytes] = []
        self._before = first
        self.table = [0] * (len(first.groups) * GROUP)
        """The number of each page of RAM in the last state, 0 for one that is all zero."""
        for number, group in enumerate(first.groups):
            for offset, row in enumerate(first.store.get(group)):
                if group[offset] != ZERO:
                    self._count += 1
                    self._known.setdefault(_key(row.tobytes()), self._count)
                    self._set(number * GROUP + offset, self._count, group[offset])
        self.first = self._count
        """How many pages the beginning has."""

    def add(self, ram: Ram) -> None:
        """Number the pages of another state; those that are new are written."""
        for number, group in enumerate(ram.groups):
            if group is self._before.groups[number]:
                continue
            rows = ram.store.get(group)
            pages = [number * GROUP + offset for offset in range(GROUP)]
            bases = [self._whole.get(page, (0, ZERO)) for page in pages]
            changes = rows ^ ram.store.get(slot for _, slot in bases)
            changed = (changes != 0).sum(axis=1).tolist()
            for offset, page in enumerate(pages):
                if group[offset] == ZERO:
                    self.table[page] = 0
                    continue
                row = rows[offset].tobytes()
                key = _key(row)
                found, base = self._known.get(key, 0), bases[offset][0]
                if not found:
                    if changed[offset] > _MOST_CHANGED:
                        base = 0
                    found = self._new(key, base, changes[offset].tobytes() if base else row)
                self._set(page, found, group[offset])
        self._before = ram
        self.flush()

    def _set(self, page: int, number: int, slot: int) -> None:
        self.table[page] = number
        if number not in self._parts:
            self._whole[page] = number, slot

    def _new(self, key: bytes, base: int, row: bytes) -> int:
        self._count += 1
        self._known[key] = self._count
        if base:
            self._parts.add(self._count)
        self._bases.append(base)
        self._rows.append(row)
        if len(self._rows) == _PART_PAGES:
            self.flush()
        return self._count

    def flush(self) -> None:
        """Write what is waiting."""
        if self._rows:
            bases = b"".join(base.to_bytes(_BASE_BYTES, "little") for base in self._bases)
            self._put(PAGES, bases + b"".join(self._rows), rows=len(self._rows))
            self._bases.clear()
            self._rows.clear()


class PageReader:
    """Finds pages of a trace by their numbers, and keeps them in a machine's store."""

    def __init__(self, trace: Trace, first: Ram) -> None:
        """`first` is RAM at the beginning, in the store that is to have the others."""
        import numpy as np

        self._trace, self._store = trace, first.store
        self._first = first_pages(first)
        self._parts = trace.chunks(PAGES)
        self._bounds = len(self._first) + np.cumsum([0, *(part.rows for part in self._parts)])

    @property
    def first(self) -> int:
        """How many pages the beginning has."""
        return len(self._first)

    @property
    def last(self) -> int:
        """The highest number."""
        return int(self._bounds[-1])

    def read(self, numbers: Numbers) -> list[int]:
        """Where pages are kept now, by their numbers, which ascend. Besides them it takes memory,
        for a moment, for those of them that are kept as changes. Raises `FormatError`.

        Chunks are read from the last to the first, each once: a page is made of an earlier one.
        """
        import numpy as np

        named = [ZERO] * len(numbers)
        parts = self._part_of(numbers)
        for n in np.flatnonzero(parts == AT_FIRST).tolist():
            named[n] = self._first[int(numbers[n]) - 1]
        made: list[tuple[Numbers, Rows]] = []
        due: dict[int, list[tuple[Rows, Numbers, Numbers]]] = defaultdict(list)
        todo = set(np.unique(parts).tolist()) - {AT_FIRST}
        while todo:
            part = max(todo)
            todo.remove(part)
            bases, rows = _read(self._trace, self._parts[part])
            start = int(self._bounds[part]) + 1
            which = np.flatnonzero(parts == part)
            local = numbers[which] - start
            whole = bases[local] == 0
            self._keep(named, which[whole], rows, local[whole])
            changes, wanted = rows[local[~whole]], bases[local[~whole]]
            if (wanted >= local[~whole] + start).any():
                raise FormatError("a page is made of a later one")
            made.append((which[~whole], changes))
            places = self._part_of(wanted)
            for other in np.unique(places).tolist():
                mine = np.flatnonzero(places == other)
                due[other].append((changes, mine, wanted[mine]))
                todo.update({other} - {AT_FIRST, part})
            for of, mine, base in due.pop(part, ()):
                if bases[base - start].any():
                    raise FormatError("a page is made of one that is not whole")
                of[mine] ^= rows[base - start]
        for of, mine, base in due.pop(AT_FIRST, ()):
            of[mine] ^= self._store.get(self._first[n - 1] for n in base.tolist())
        for which, of in made:
            self._keep(named, which, of, np.arange(len(of)))
        return named

    def _part_of(self, numbers: Numbers) -> Numbers:
        """The chunk in which each page is."""
        import numpy as np

        return np.searchsorted(self._bounds, numbers, "left") - 1

    def _keep(self, named: list[int], places: Numbers, rows: Rows, which: Numbers) -> None:
        for place, slot in zip(places.tolist(), self._store.put(rows, which), strict=True):
            named[place] = slot


def _read(trace: Trace, part: ChunkInfo) -> tuple[Numbers, Rows]:
    import numpy as np

    data = trace.payload(part)
    if len(data) != part.rows * (_BASE_BYTES + PAGE):
        raise FormatError("a part of their pages has a wrong length")
    bases = np.frombuffer(data, np.uint32, part.rows).astype(np.int64)
    # Behind an odd number of bases they would be at no multiple of 8.
    rows = np.frombuffer(data[_BASE_BYTES * part.rows :], np.uint64).reshape(-1, _WORDS)
    return bases, rows


def _key(page: bytes) -> bytes:
    return blake2b(page, digest_size=20).digest()
