"""Perfetto: the run as tracks, in Perfetto's protobuf format, for ui.perfetto.dev.

A track for each device with its accesses, for each interrupt line with the time that it is up, for
interrupts and exceptions, other exits, DMA and console lines; counters of accesses, interrupts and
DMA bytes. Requests of a device are slices, each with its latency, on as many tracks as overlap.
What the processor did is a track of modes, as far as events show it: kernel or user by the PC of
each event, interrupt from a delivery to the EOI, idle at a HLT. The numbers of fields are those of
`TracePacket`, `TrackEvent`, `TrackDescriptor` and `InternedData` in Perfetto's reference of the
trace format.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import IO, Final

from workbench.trace import tables
from workbench.trace.export import ps_per_insn
from workbench.trace.reader import Trace
from workbench.trace.requests import Requests
from workbench.trace.varint import varint

__all__ = ["write_perfetto"]

_SLICE_BEGIN, _SLICE_END, _INSTANT, _COUNTER = 1, 2, 3, 4
_MASK: Final = (1 << 64) - 1
_KEPT: Final = 1 << 14
_SEQUENCE, _GUEST, _PID = 1, 1, 1
_CLEARED, _NEEDED = 1, 2
_NAMES, _ARGUMENTS = 2, 3  # fields of InternedData
_UNIT_COUNT, _UNIT_BYTES = 2, 3
_MOST_LANES: Final = 64
_MOST_NESTED: Final = 16
_EOI: Final = frozenset({("lapic", 0xB0), ("pic0", 0), ("pic1", 0)})
COUNTER_ICOUNT: Final = 1_000_000
"""Instructions between two values of a counter."""


def _number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value & _MASK)


number = lru_cache(_KEPT)(_number)
"""Encode a field that is a number; most are small and there again and again."""


@lru_cache(_KEPT)
def _head(field: int, length: int) -> bytes:
    return varint(field << 3 | 2) + varint(length)


def block(field: int, data: bytes) -> bytes:
    """Encode a field that is a string or a message."""
    return _head(field, len(data)) + data


_END_OF_PACKET: Final = number(10, _SEQUENCE)


class _Writer:
    def __init__(self, file: IO[bytes], ns_of: float) -> None:
        self._file = file
        self._ns_of = ns_of
        self._tracks: dict[str, int] = {}
        self._names: dict[tuple[int, str], int] = {}
        self._known: dict[tuple[str, int | str], bytes] = {}
        """Arguments as they are written."""
        self._stored: list[bytes] = []
        self.packets = 0
        self._icount, self._when = -1, b""

    def packet(self, body: bytes) -> None:
        self._stored.append(block(1, body + _END_OF_PACKET))
        self.packets += 1
        if len(self._stored) > 10_000:
            self.flush()

    def flush(self) -> None:
        self._file.write(b"".join(self._stored))
        self._stored.clear()

    def start(self, title: str) -> None:
        process = number(1, _PID) + block(6, title.encode(errors="replace"))
        descriptor = number(1, _GUEST) + block(3, process)
        self.packet(block(60, descriptor) + number(13, _CLEARED) + number(87, 1))

    def track(self, name: str, unit: int | None = None) -> int:
        """Give the number of a track, described at its first use."""
        uuid = self._tracks.get(name)
        if uuid is None:
            uuid = self._tracks[name] = _GUEST + 1 + len(self._tracks)
            descriptor = number(1, uuid) + block(2, name.encode()) + number(5, _GUEST)
            if unit is not None:
                descriptor += block(8, number(3, unit))
            self.packet(block(60, descriptor))
        return uuid

    def name(self, field: int, text: str) -> int:
        """Give the number of a string, stored at its first use."""
        iid = self._names.get((field, text))
        if iid is None:
            iid = self._names[field, text] = 1 + len(self._names)
            entry = number(1, iid) + block(2, text.encode())
            self.packet(block(12, block(field, entry)) + number(13, _NEEDED))
        return iid

    def event(
        self, kind: int, track: int, icount: int, name: str = "", **arguments: int | str
    ) -> None:
        body = number(9, kind) + number(11, track)
        if name:
            body += number(10, self.name(_NAMES, name))
        for argument in arguments.items():
            body += self._known.get(argument) or self._argument(*argument)
        self._stamped(icount, body)

    def _argument(self, key: str, value: int | str) -> bytes:
        argument = number(1, self.name(_ARGUMENTS, key))
        argument += block(6, value.encode()) if isinstance(value, str) else number(3, value)
        if len(self._known) > _KEPT:
            self._known.clear()
        found = self._known[key, value] = block(4, argument)
        return found

    def count(self, track: int, icount: int, value: int) -> None:
        self._stamped(icount, number(9, _COUNTER) + number(11, track) + number(30, value))

    def _stamped(self, icount: int, event: bytes) -> None:
        if icount != self._icount:
            self._icount, self._when = icount, _number(8, int(icount * self._ns_of))
        self.packet(self._when + block(11, event) + number(13, _NEEDED))


def write_perfetto(trace: Trace, file: IO[bytes]) -> int:
    """Write the run; returns the number of packets."""
    out = _Writer(file, ps_per_insn(trace) / 1000)
    out.start(f"guest {trace.header.cmdline}".strip())
    counters = _Counters(out)
    modes = _Modes(out)
    before, after = _levels(trace)
    for name in sorted(before):
        out.event(_SLICE_BEGIN, out.track(f"line {name}"), 0, name)
    up = set(before)
    for event in _events(trace):
        counters.add(event)
        if event[0] == tables.IRQ_LINE:
            _, _, name, level = event
            if level == (name in up):
                continue
            up ^= {name}
        _one(out, event)
        modes.add(event)
    modes.close(trace.icount)
    _requests(out, trace)
    for name, icount, text in _console_lines(trace):
        out.event(_INSTANT, out.track(f"console {name}"), icount, text)
    counters.close(trace.icount)
    for name in sorted(after):
        out.event(_SLICE_END, out.track(f"line {name}"), trace.icount)
    out.flush()
    return out.packets


def _events(trace: Trace) -> Iterator[tables.Event]:
    for group in trace.event_groups():
        yield from group


def _one(out: _Writer, event: tables.Event) -> None:
    match event:
        case (tables.ACCESS, icount, pc, kind, device, offset, _, write, value, _, count):
            name = f"{offset:#x} {'<-' if write else '->'}"
            place = out.track(f"{device or 'nobody'} ({kind})")
            out.event(_INSTANT, place, icount, name, value=value, pc=hex(pc), count=count)
        case (tables.EXIT, icount, pc, kind, detail):
            out.event(_INSTANT, out.track("exits"), icount, kind, detail=detail, pc=hex(pc))
        case (tables.INTERRUPT, icount, pc, kind, vector, error, address):
            more = {"error_code": error, "address": hex(address)} if kind == "exception" else {}
            place = out.track(f"{kind}s")
            out.event(_INSTANT, place, icount, f"{kind} {vector:#x}", pc=hex(pc), **more)
        case (tables.DMA, icount, device, gpa, length, write):
            name = "to memory" if write else "from memory"
            place = out.track(f"DMA of {device}")
            out.event(_INSTANT, place, icount, name, gpa=hex(gpa), length=length)
        case (tables.IRQ_LINE, icount, name, level):
            place = out.track(f"line {name}")
            out.event(_SLICE_BEGIN if level else _SLICE_END, place, icount, name if level else "")
        case (tables.INPUT, icount, _, target, kind, data):
            place = out.track("inputs")
            out.event(_INSTANT, place, icount, f"{target} {kind}", length=len(data))


def _requests(out: _Writer, trace: Trace) -> None:
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
            _SLICE_BEGIN,
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
        out.event(_SLICE_END, place, trace.icount if end is None else end)


class _Modes:
    """What the processor does, as slices on one track."""

    def __init__(self, out: _Writer) -> None:
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
                self._out.event(_SLICE_BEGIN, self._track(), icount, f"interrupt {event[4]:#x}")
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
            self._out.event(_SLICE_END, self._track(), icount)
            self._interrupts -= 1

    def _switch(self, icount: int, mode: str) -> None:
        if mode == self._mode or self._interrupts:
            return
        if self._mode:
            self._out.event(_SLICE_END, self._track(), icount)
        if mode:
            self._out.event(_SLICE_BEGIN, self._track(), icount, mode)
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
    columns = (trace.console[name].to_pylist() for name in ("icount", "device", "data"))
    for icount, device, data in zip(*columns, strict=True):
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

    def __init__(self, out: _Writer) -> None:
        self._out = out
        self._bucket = 0
        self._counts = {"accesses": 0, "interrupts": 0, "DMA bytes": 0}
        self._shown: dict[str, int] = {}

    def add(self, event: tables.Event) -> None:
        bucket = event[1] // COUNTER_ICOUNT
        if bucket != self._bucket:
            self._put(self._bucket)
            if bucket > self._bucket + 1:
                self._put(self._bucket + 1)
            self._bucket = bucket
        match event[0]:
            case tables.ACCESS:
                self._counts["accesses"] += 1
            case tables.INTERRUPT:
                self._counts["interrupts"] += 1
            case tables.DMA:
                self._counts["DMA bytes"] += event[4]

    def close(self, icount: int) -> None:
        self._put(self._bucket)
        self._put(max(self._bucket + 1, icount // COUNTER_ICOUNT))

    def _put(self, bucket: int) -> None:
        for name, value in self._counts.items():
            total = name == "DMA bytes"
            if self._shown.get(name) == value:
                continue
            self._shown[name] = value
            unit = _UNIT_BYTES if total else _UNIT_COUNT
            title = name if total else f"{name} per million instructions"
            self._out.count(self._out.track(title, unit), bucket * COUNTER_ICOUNT, value)
            if not total:
                self._counts[name] = 0
