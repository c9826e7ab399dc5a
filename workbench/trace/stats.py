"""Counts of register accesses: by device, register, direction, value, PC, function or time.

A trace is read batch by batch, only the columns that are needed, and every batch becomes two small
arrays: for each access the number of its label and that of its time bucket. Windows whose registers
depend on earlier writes are cut into stretches in which nothing is selected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from workbench.trace.columns import Ints, Words, coded, integers, words
from workbench.trace.decode import Decoder, WindowDecoder
from workbench.trace.reader import Trace

if TYPE_CHECKING:
    import pyarrow as pa

    from workbench.trace.symbols import SymbolTable

BY: Final = ("device", "register", "direction", "value", "pc", "function", "bucket")
_SHORT_STRETCH: Final = 64
_MAX_LABELS: Final = 1 << 17

Label = tuple[str, ...]
"""What a count belongs to: ("com1",), ("com1", "LSR"), ("com1", "THR", "0x41"), ..."""

_COLUMNS: Final[dict[str, tuple[str, ...]]] = {
    "device": ("device",),
    "register": ("kind", "device", "offset", "size", "value"),
    "value": ("kind", "device", "offset", "size", "value"),
    "direction": (),
    "pc": ("pc",),
    "function": ("pc",),
    "bucket": (),
}


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

    by: str
    counts: list[Count]
    total: int
    bucket_icount: int
    buckets: int


class _Labels:
    """Numbers for labels, in order of appearance."""

    def __init__(self) -> None:
        self.known: dict[Label, int] = {}

    def number(self, label: Label) -> int:
        """The number of a label; those beyond a bound share one."""
        if len(self.known) >= _MAX_LABELS and label not in self.known:
            label = ("(others)",)
        return self.known.setdefault(label, len(self.known))


def count(trace: Trace, by: str, symbols: SymbolTable | None = None, buckets: int = 60) -> Stats:
    """Count the accesses of a trace; each repetition of a string instruction counts."""
    width = max(1, -(-(trace.icount + 1) // buckets))
    labels = _Labels()
    labeller = _labeller(by, trace, labels, symbols)
    table = np.zeros((0, 2, buckets), np.int64)
    columns = dict.fromkeys(("icount", "write", "count", *_COLUMNS[by]))
    for batch in trace.batches("accesses", columns):
        when = np.clip(integers(batch["icount"]) // width, 0, buckets - 1)
        ids = when if by == "bucket" else labeller(batch)
        many = len(labels.known) if by != "bucket" else buckets
        if many > len(table):
            more = np.zeros((max(many, 2 * len(table)), 2, buckets), np.int64)
            more[: len(table)] = table
            table = more
        place = (ids * 2 + integers(batch["write"])) * buckets + when
        weights = integers(batch["count"])
        if weights.size and weights.max() > 1:
            np.add.at(table.reshape(-1), place, weights)
        else:
            found = np.bincount(place)
            table.reshape(-1)[: len(found)] += found
    if by == "bucket":
        for n in range(buckets):
            labels.number((f"{n * width}",))
    counts = [
        Count(label, int(table[n, 0].sum()), int(table[n, 1].sum()), table[n].sum(0).tolist())
        for label, n in labels.known.items()
        if n < len(table)
    ]
    if by != "bucket":
        counts = sorted((c for c in counts if c.total), key=lambda c: (-c.total, c.label))
    return Stats(by, counts, sum(c.total for c in counts), width, buckets)


def _labeller(
    by: str, trace: Trace, labels: _Labels, symbols: SymbolTable | None
) -> Callable[[pa.Table], Ints]:
    if by in ("register", "value"):
        return _Registers(trace, labels, with_value=by == "value").label
    if by == "direction":
        numbers = np.array([labels.number((name,)) for name in ("read", "write")])
        return lambda batch: numbers[integers(batch["write"])]

    def text(value: Any) -> Label:
        if by == "device":
            return (value or "(nothing)",)
        if by == "function" and symbols is not None:
            return (symbols.function(value),)
        return (symbols.text(value) if symbols is not None else f"{value:#x}",)

    def label(batch: pa.Table) -> Ints:
        codes, names = coded(batch["device" if by == "device" else "pc"])
        return np.array([labels.number(text(name)) for name in names] or [0])[codes]

    return label


class _Registers:
    """Labels accesses with device and register, and perhaps the value."""

    def __init__(self, trace: Trace, labels: _Labels, with_value: bool) -> None:
        self._decoder = Decoder(trace.header.machine)
        self._labels = labels
        self._with_value = with_value

    def label(self, batch: pa.Table) -> Ints:
        """Numbers of the labels of all accesses of a batch."""
        kinds, kind_names = coded(batch["kind"])
        devices, device_names = coded(batch["device"])
        offsets, offset_values = coded(batch["offset"])
        sizes, writes = integers(batch["size"]), integers(batch["write"])
        window = kinds * len(device_names) + devices
        place = ((window * max(1, len(offset_values)) + offsets) * 256 + sizes) * 2 + writes
        values = words(batch["value"])
        ids = np.full(len(place), -1, np.int64)
        for number in np.flatnonzero(np.bincount(window)).tolist():
            kind = kind_names[number // len(device_names)]
            device = device_names[number % len(device_names)]
            rows = np.flatnonzero(window == number)
            found = self._decoder.window(kind, device)
            access = _Accesses(place[rows], offset_values, values[rows])
            ids[rows] = self._window(device or "(nothing)", found, access)
        return ids

    def _window(self, device: str, window: WindowDecoder | None, access: _Accesses) -> Ints:
        ids = np.empty(len(access.place), np.int64)
        by_value = self._with_value or (window is not None and window.by_value)
        for start, end in access.stretches(window):
            if end - start < _SHORT_STRETCH:
                ids[start:end] = [
                    self._number(device, window, access, row) for row in range(start, end)
                ]
                continue
            rows = slice(start, end)
            keys = access.place[rows]
            if by_value:
                _, keys = np.unique(access.values[rows], return_inverse=True)
                _, which = np.unique(access.place[rows], return_inverse=True)
                keys = keys * (int(which.max()) + 1) + which
            _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
            numbers = [self._number(device, window, access, start + r) for r in first.tolist()]
            ids[rows] = np.array(numbers)[inverse]
        return ids

    def _number(
        self, device: str, window: WindowDecoder | None, access: _Accesses, row: int
    ) -> int:
        offset, size, write = access.at(row)
        value = int(access.values[row])
        name = f"+{offset:#x}"
        if window is not None:
            name = window.decode(offset, size, value, write).name
        if self._with_value:
            return self._labels.number((device, name, f"{value:#x}"))
        return self._labels.number((device, name))


@dataclass(frozen=True, slots=True)
class _Accesses:
    """Accesses to one window: offset code, size and direction in one number, and the values."""

    place: Ints
    offsets: list[int]
    values: Words

    def at(self, row: int) -> tuple[int, int, bool]:
        """Offset, size and direction of one."""
        return self._parts(int(self.place[row]))

    def _parts(self, place: int) -> tuple[int, int, bool]:
        offset = self.offsets[(place >> 9) % len(self.offsets)]
        return offset, place >> 1 & 0xFF, bool(place & 1)

    def stretches(self, window: WindowDecoder | None) -> Iterator[tuple[int, int]]:
        """Rows between which something is selected; an access that selects stands alone."""
        end = len(self.place)
        if window is None or window.stateless:
            yield 0, end
            return
        kinds, inverse = np.unique(self.place, return_inverse=True)
        parts = [self._parts(place) for place in kinds.tolist()]
        selects = np.array([window.selects(offset, write) for offset, _, write in parts])
        start = 0
        for row in np.flatnonzero(selects[inverse]).tolist():
            if row > start:
                yield start, row
            yield row, row + 1
            start = row + 1
        if end > start:
            yield start, end
