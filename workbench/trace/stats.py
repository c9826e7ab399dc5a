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

from workbench.errors import FormatError
from workbench.trace.columns import Ints, Words, coded, integers, words
from workbench.trace.decode import Decoder, WindowDecoder
from workbench.trace.reader import Trace

if TYPE_CHECKING:
    import pyarrow as pa

    from workbench.trace.symbols import SymbolTable

BY: Final = ("device", "register", "direction", "value", "pc", "function", "bucket")
_SHORT_STRETCH: Final = 64
_BATCH_ROWS: Final = 1 << 18
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
    for batch in _merged(trace.batches("accesses", columns)):
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
        self._registers = _Labels() if with_value else labels

    def label(self, batch: pa.Table) -> Ints:
        """Numbers of the labels of all accesses of a batch."""
        ids = self._label(batch)
        if not self._with_value:
            return ids
        codes, found = coded(batch["value"])
        pairs, which = _encode(ids * max(1, len(found)) + codes)
        registers = list(self._registers.known)
        numbers = [
            self._labels.number((*registers[n // len(found)], f"{found[n % len(found)]:#x}"))
            for n in pairs
        ]
        return np.array(numbers, np.int64)[which]

    def _label(self, batch: pa.Table) -> Ints:
        kinds, kind_names = coded(batch["kind"])
        devices, device_names = coded(batch["device"])
        offsets, offset_values = coded(batch["offset"])
        sizes, writes = integers(batch["size"]), integers(batch["write"])
        names, many = max(1, len(device_names)), max(1, len(offset_values))
        if len(kind_names) * names * many >= 1 << 53:
            raise FormatError("the accesses have too many different devices and offsets")
        key = (((kinds * names + devices) * many + offsets) * 256 + sizes) * 2 + writes
        found, codes = _encode(key)
        windows: dict[tuple[str, str], list[_Place]] = {}
        for code, place in enumerate(found):
            offset, window = place // 512 % many, place // 512 // many
            kind, device = kind_names[window // names], device_names[window % names]
            same = windows.setdefault((kind, device), [])
            same.append(_Place(code, offset_values[offset], place // 2 % 256, bool(place % 2)))
        numbers = np.zeros(len(found), np.int64)
        moving: list[tuple[str, WindowDecoder, dict[int, _Place]]] = []
        for (kind, device), places in windows.items():
            decoder = self._decoder.window(kind, device)
            device = device or "(nothing)"
            if decoder is not None and any(decoder.needs_order(p.write) for p in places):
                moving.append((device, decoder, {p.code: p for p in places}))
                continue
            for p in places:
                numbers[p.code] = self._number(device, decoder, p, 0)
        ids = numbers[codes]
        for device, decoder, by_code in moving:
            inside = np.zeros(len(found), np.bool_)
            inside[list(by_code)] = True
            rows = np.flatnonzero(inside[codes])
            values = words(batch["value"])[rows]
            ids[rows] = self._in_order(device, decoder, by_code, codes[rows], values)
        return ids

    def _in_order(
        self,
        device: str,
        decoder: WindowDecoder,
        places: dict[int, _Place],
        codes: Ints,
        values: Words,
    ) -> Ints:
        """Labels of accesses to one window, where a register may depend on what came before."""
        alone = np.zeros(max(places) + 1, np.bool_)
        for p in places.values():
            alone[p.code] = decoder.selects(p.offset, p.size, p.write)
        ids = np.empty(len(codes), np.int64)
        numbers = np.zeros(len(alone), np.int64)
        start = 0
        for row in (*np.flatnonzero(alone[codes]).tolist(), len(codes)):
            if row - start < _SHORT_STRETCH:
                for n in range(start, row):
                    ids[n] = self._number(device, decoder, places[int(codes[n])], int(values[n]))
            else:
                part = codes[start:row]
                for code in np.flatnonzero(np.bincount(part)).tolist():
                    numbers[code] = self._number(device, decoder, places[code], 0)
                ids[start:row] = numbers[part]
            if row < len(codes):
                ids[row] = self._number(device, decoder, places[int(codes[row])], int(values[row]))
            start = row + 1
        return ids

    def _number(self, device: str, decoder: WindowDecoder | None, place: _Place, value: int) -> int:
        name = f"+{place.offset:#x}"
        if decoder is not None:
            name = decoder.decode(place.offset, place.size, value, place.write).name
        return self._registers.number((device, name))


@dataclass(frozen=True, slots=True)
class _Place:
    """What an access is aimed at, and its number in the batch."""

    code: int
    offset: int
    size: int
    write: bool


def _encode(numbers: Ints) -> tuple[list[int], Ints]:
    """Different numbers in order of appearance, and for each number its place among them."""
    import pyarrow as pa

    codes, found = coded(
        pa.chunked_array(
            [pa.Array.from_buffers(pa.int64(), len(numbers), [None, pa.py_buffer(numbers)])]
        )
    )
    return found, codes
