"""Perfetto: the run as tracks, in Perfetto's protobuf format, for ui.perfetto.dev.

A track for each device with its accesses, for each interrupt line with the time that it is up, for
interrupts and exceptions, other exits, DMA and console lines; counters of accesses, interrupts and
DMA bytes. Requests of a device are slices, each with its latency, on as many tracks as overlap.
What the processor did is a track of modes, as far as events show it: kernel or user by the PC of
each event, interrupt from a delivery to the EOI, idle at a HLT. Accesses, of which there are most,
are written by columns (`access_packets`); the order in the file counts within a track only.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import IO, TYPE_CHECKING, Final

import numpy as np

from workbench.trace import tables
from workbench.trace.columns import Ints, as_arrow, coded, integers, values, words
from workbench.trace.export import ps_per_insn
from workbench.trace.export.access_packets import write_accesses
from workbench.trace.export.packets import (
    INSTANT,
    SLICE_BEGIN,
    SLICE_END,
    UNIT_BYTES,
    UNIT_COUNT,
    Packets,
)
from workbench.trace.reader import Trace
from workbench.trace.requests import Requests

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["write_perfetto"]

_MOST_LANES: Final = 64
_MOST_NESTED: Final = 16
_EOI: Final = frozenset({("lapic", 0xB0), ("pic0", 0), ("pic1", 0)})
_ON_TRACKS: Final = ("accesses", "exits", "interrupts", "dma", "irq_lines", "inputs")
COUNTER_ICOUNT: Final = 1_000_000
"""Instructions between two values of a counter."""


def write_perfetto(trace: Trace, file: IO[bytes]) -> int:
    """Write the run; returns the number of packets."""
    out = Packets(file, ps_per_insn(trace) / 1000)
    out.start(f"guest {trace.header.cmdline}".strip())
    counters = _Counters(out)
    modes = _Modes(out)
    before, after = _levels(trace)
    for name in sorted(before):
        out.event(SLICE_BEGIN, out.track(f"line {name}"), 0, name)
    up = set(before)
    for group in trace.table_groups():
        marks = []
        for table in group.get("accesses", ()):
            write_accesses(out, table)
            counters.accesses(integers(table["icount"]))
            marks.append(_marks(table, _seqs(group, "exits", "interrupts")))
        for event in _in_order(group, marks):
            if event[0] != tables.ACCESS:
                if event[0] == tables.IRQ_LINE:
                    _, _, name, level = event
                    if level == (name in up):
                        continue
                    up ^= {name}
                _one(out, event)
                counters.add(event)
            modes.add(event)
        counters.put_all()
    modes.close(trace.icount)
    _requests(out, trace)
    for name, icount, text in _console_lines(trace):
        out.event(INSTANT, out.track(f"console {name}"), icount, text)
    counters.close(trace.icount)
    for name in sorted(after):
        out.event(SLICE_END, out.track(f"line {name}"), trace.icount)
    out.flush()
    return out.packets


def _seqs(group: dict[str, list[pa.Table]], *names: str) -> Ints:
    parts = [integers(table[tables.SEQ]) for name in names for table in group.get(name, ())]
    return np.sort(np.concatenate([np.empty(0, np.int64), *parts]))


def _marks(accesses: pa.Table, others: Ints) -> pa.Table:
    """The accesses that may change the mode of the processor: between two events of other kinds, it
    is only an EOI, or one whose PC is on the other side of kernel and user.
    """
    seq, kernel = integers(accesses[tables.SEQ]), words(accesses["pc"]) >= 1 << 63
    devices, names = coded(accesses["device"])
    offset = words(accesses["offset"])
    eoi = np.zeros(len(seq), np.bool_)
    for device, register in _EOI:
        if device in names:
            eoi |= (devices == names.index(device)) & (offset == register)
    eoi &= integers(accesses["write"]) != 0
    after = np.searchsorted(others, seq)
    marks = eoi.copy()
    marks[:1] = True
    marks[1:] |= (kernel[1:] != kernel[:-1]) | (after[1:] != after[:-1]) | eoi[:-1]
    return accesses.take(as_arrow(np.flatnonzero(marks)))


def _in_order(group: dict[str, list[pa.Table]], accesses: Iterable[pa.Table]) -> list[tables.Event]:
    """The events of a group that are on tracks, of its accesses only some."""
    found: list[tuple[int, tables.Event]] = []
    for name in _ON_TRACKS:
        spec = tables.BY_NAME[name]
        for table in accesses if name == "accesses" else group.get(name, ()):
            rows = tables.event_rows(spec, table)
            found += zip(values(table[tables.SEQ]), rows, strict=True)
    found.sort(key=lambda each: each[0])
    return [event for _, event in found]


def _one(out: Packets, event: tables.Event) -> None:
    match event:
        case (tables.EXIT, icount, pc, kind, detail):
            out.event(INSTANT, out.track("exits"), icount, kind, detail=detail, pc=hex(pc))
        case (tables.INTERRUPT, icount, pc, kind, vector, error, address):
            more = {"error_code": error, "address": hex(address)} if kind == "exception" else {}
            place = out.track(f"{kind}s")
            out.event(INSTANT, place, icount, f"{kind} {vector:#x}", pc=hex(pc), **more)
        case (tables.DMA, icount, device, gpa, length, write):
            name = "to memory" if write else "from memory"
            place = out.track(f"DMA of {device}")
            out.event(INSTANT, place, icount, name, gpa=hex(gpa), length=length)
        case (tables.IRQ_LINE, icount, name, level):
            place = out.track(f"line {name}")
            out.event(SLICE_BEGIN if level else SLICE_END, place, icount, name if level else "")
        case (tables.INPUT, icount, _, target, kind, data):
            place = out.track("inputs")
            out.event(INSTANT, place, icount, f"{target} {kind}", length=len(data))


def _requests(out: Packets, trace: Trace) -> None:
    """Slices of requests; a request goes to the first track of its device that is free."""
    busy: dict[str, list[int]] = {}
    for request in Requests(trace):
        lanes = busy.setdefault(request.device, [])
        begin = request.begin_icount
        lane = next((n for n, until in enumerate(lanes) if until <= begin), len(lanes))
        if lane == len(lanes) and lane < _MOST_LANES:
            lanes.append(0)
        lane = min(lane, len(lanes) - 1)
        end = request.end_icount
        lanes[lane] = max(lanes[lane], trace.icount if end is None else end)
        suffix = f" ({lane + 1})" if lane else ""
        place = out.track(f"requests of {request.device}{suffix}")
        out.event(
            SLICE_BEGIN,
            place,
            begin,
            request.kind or "(unknown)",
            request=request.name,
            address=request.address,
            length=request.length,
            descriptor=request.head,
            latency="open" if request.latency is None else request.latency,
            status=request.status,
            detail=request.detail,
        )
        out.event(SLICE_END, place, trace.icount if end is None else end)


class _Modes:
    """What the processor does, as slices on one track."""

    def __init__(self, out: Packets) -> None:
        self._out = out
        self._mode = ""
        self._interrupts = 0
        self._seen_kernel = False

    def add(self, event: tables.Event) -> None:
        icount, kind = event[1], event[0]
        if kind == tables.INTERRUPT and event[3] == "interrupt":
            self._switch(icount, self._of(event[2]))
            if self._interrupts < _MOST_NESTED:
                self._interrupts += 1
                self._out.event(SLICE_BEGIN, self._track(), icount, f"interrupt {event[4]:#x}")
            return
        if kind not in (tables.ACCESS, tables.EXIT, tables.INTERRUPT):
            return
        if kind == tables.EXIT and event[3] == "hlt":
            self._end_interrupts(icount)
            self._switch(icount, "idle")
            return
        if not self._interrupts:
            self._switch(icount, self._of(event[2]))
        if kind == tables.ACCESS and event[7] and (event[4], event[5]) in _EOI:
            self._end_interrupts(icount, 1)

    def close(self, icount: int) -> None:
        self._end_interrupts(icount)
        self._switch(icount, "")

    def _of(self, pc: int) -> str:
        if pc >= 1 << 63:
            self._seen_kernel = True
        return "kernel" if pc >= 1 << 63 or not self._seen_kernel else "user"

    def _track(self) -> int:
        return self._out.track("CPU mode")

    def _end_interrupts(self, icount: int, count: int = 1 << 62) -> None:
        for _ in range(min(count, self._interrupts)):
            self._out.event(SLICE_END, self._track(), icount)
            self._interrupts -= 1

    def _switch(self, icount: int, mode: str) -> None:
        if mode == self._mode or self._interrupts:
            return
        if self._mode:
            self._out.event(SLICE_END, self._track(), icount)
        if mode:
            self._out.event(SLICE_BEGIN, self._track(), icount, mode)
        self._mode = mode


def _levels(trace: Trace) -> tuple[set[str], set[str]]:
    """Give the lines that are up before the first event, and those that are up after the last."""
    columns = trace.table("irq_lines", ("name", "level"))
    changes = list(zip(*(column.to_pylist() for column in columns.columns), strict=True))
    first, last = dict(reversed(changes)), dict(changes)
    return {n for n, level in first.items() if not level}, {n for n, up in last.items() if up}


def _console_lines(trace: Trace) -> Iterator[tuple[str, int, str]]:
    """Give device, instruction count of the first byte, and text of each line."""
    open_lines: dict[str, tuple[int, bytes]] = {}
    spec = tables.BY_NAME["console"]
    rows = (row for batch in trace.batches("console") for row in tables.event_rows(spec, batch))
    for _, icount, device, data in rows:
        for part in data.splitlines(keepends=True):
            start, text = open_lines.pop(device, (icount, b""))
            if part.endswith(b"\n") or len(text) > 4096:
                yield device, start, _text(text + part)
            else:
                open_lines[device] = (start, text + part)
    for device, (start, text) in open_lines.items():
        yield device, start, _text(text)


def _text(line: bytes) -> str:
    return "".join(c if c.isprintable() else " " for c in line.decode("latin-1")).strip() or " "


class _Counters:
    """Accesses and interrupts in each bucket of instructions, and DMA bytes so far."""

    _UNITS: Final = (UNIT_COUNT, UNIT_COUNT, UNIT_BYTES)
    _TITLES: Final = (
        "accesses per million instructions", "interrupts per million instructions", "DMA bytes",
    )  # fmt: skip

    def __init__(self, out: Packets) -> None:
        self._out = out
        self._waiting: dict[int, list[int]] = {0: [0, 0, 0]}
        """Counts of buckets that are not over."""
        self._dma_bytes = 0
        self._shown = [-1, -1, -1]

    def accesses(self, icount: Ints) -> None:
        """Count accesses."""
        buckets, counts = np.unique(icount // COUNTER_ICOUNT, return_counts=True)
        for bucket, count in zip(buckets.tolist(), counts.tolist(), strict=True):
            self._of(bucket)[0] += count

    def add(self, event: tables.Event) -> None:
        """Count another event."""
        counts = self._of(event[1] // COUNTER_ICOUNT)
        if event[0] == tables.INTERRUPT:
            counts[1] += 1
        elif event[0] == tables.DMA:
            counts[2] += event[4]

    def _of(self, bucket: int) -> list[int]:
        return self._waiting.setdefault(bucket, [0, 0, 0])

    def put_all(self) -> None:
        """Write what has been counted, but for the last bucket, which may go on."""
        buckets = sorted(self._waiting)
        for bucket, following in itertools.pairwise(buckets):
            self._put(bucket, self._waiting.pop(bucket))
            if following > bucket + 1:
                self._put(bucket + 1, [0, 0, 0])

    def close(self, icount: int) -> None:
        """Write the rest."""
        self.put_all()
        ((last, counts),) = self._waiting.items()
        self._put(last, counts)
        self._put(max(last + 1, icount // COUNTER_ICOUNT), [0, 0, 0])

    def _put(self, bucket: int, counts: list[int]) -> None:
        self._dma_bytes += counts[2]
        for n, value in enumerate((*counts[:2], self._dma_bytes)):
            if self._shown[n] != value:
                self._shown[n] = value
                track = self._out.track(self._TITLES[n], self._UNITS[n])
                self._out.count(track, bucket * COUNTER_ICOUNT, value)
