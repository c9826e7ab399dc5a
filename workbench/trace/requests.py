"""Requests of a trace as whole ones, and which accesses, transfers and interrupts belong to them.

A trace has a row where a request begins, one if it becomes known better, and one where it ends.
`Requests` pairs them. `Relations` says for rows of other tables to which request they belong: to
that of the last row of the same device, with three exceptions. What sets a request up (writes to
the task file, to TDT; reads of descriptors just before a `begin`) belongs to the next one; an
access more than a million instructions after the end of the last request belongs to none; an
interrupt line belongs to the device that told of a request at the same instruction.

All of it works on columns: a million accesses take a fraction of a second.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from workbench.errors import FormatError
from workbench.trace import tables
from workbench.trace.ahead import in_turn
from workbench.trace.columns import Ints, Words, coded, integers, words

if TYPE_CHECKING:
    import pyarrow as pa

    from workbench.trace.reader import Trace

__all__ = ["MOST_ROWS", "Relations", "Request", "Requests", "Totals", "name_of", "requests"]

MOST_ROWS: Final = 20_000_000
MOST_DEVICES: Final = 256
AFTERWARDS_ICOUNT: Final = 1_000_000
NONE: Final = -1
_COLUMNS: Final = (
    "seq", "icount", "device", "id", "phase", "kind", "queue", "address", "length", "write", "head",
    "segments", "status", "detail",
)  # fmt: skip
_TASK_FILE: Final = (1, 6)  # FEATURES to DEVICE
_TDT: Final = 0x3818
_IDE: Final = {"IRQ14": "ide0", "IRQ15": "ide1"}


@dataclass(frozen=True, slots=True)
class Request:
    """One request; `end_seq` and `end_icount` are None if the trace ends before it does."""

    device: str
    id: int
    kind: str
    begin_seq: int
    begin_icount: int
    end_seq: int | None
    end_icount: int | None
    queue: int
    address: int
    length: int
    write: bool
    head: int
    segments: int
    status: str
    detail: str

    @property
    def name(self) -> str:
        """As people and command lines write it: `ide0/17`."""
        return name_of(self.device, self.id)

    @property
    def latency(self) -> int | None:
        """Instructions from begin to end."""
        return None if self.end_icount is None else self.end_icount - self.begin_icount


def name_of(device: str, number: int) -> str:
    """The name of a request."""
    return f"{device}/{number}"


def requests(trace: Trace) -> list[Request]:
    """All requests of a trace, in the order in which they began."""
    return list(Requests(trace))


class _Texts:
    """A column of names as codes."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        self.codes, self.names = coded(column)

    def code(self, name: str) -> int:
        return self.names.index(name) if name in self.names else NONE

    def at(self, row: int) -> str:
        text: str = self.names[self.codes[row]]
        return text


class Requests(Sequence[Request]):
    """The requests of a trace in the order of their begin, as columns and one by one."""

    def __init__(self, trace: Trace) -> None:
        """Raises `FormatError` for a trace with more rows than `MOST_ROWS`."""
        rows = trace.rows("requests")
        if rows > MOST_ROWS:
            raise FormatError(f"the trace claims {rows:,} rows of requests", path=trace.path)
        table = trace.table("requests", _COLUMNS)
        self._seq = integers(table["seq"])
        self._icount = integers(table["icount"])
        self._ids = words(table["id"])
        self._text = {
            name: _Texts(table[name]) for name in ("device", "phase", "kind", "status", "detail")
        }
        self._numbers = {
            name: integers(table[name]) for name in ("queue", "write", "head", "segments")
        }
        self._words: dict[str, Words] = {n: words(table[n]) for n in ("address", "length")}
        begins, described, ends = self._pair()
        self._begin_rows, self._said_rows, self._end_rows = begins, described, ends
        if len(self._text["device"].names) > MOST_DEVICES:
            raise FormatError("the trace has requests of too many devices", path=trace.path)
        self.devices: list[str] = list(self._text["device"].names)
        """Names of devices; `device` has places in it."""
        self.device: Ints = self._text["device"].codes[begins]
        self.begin_seq: Ints = self._seq[begins]
        self.begin_icount: Ints = self._icount[begins]
        self.end_seq: Ints = np.where(ends >= 0, self._seq[ends], NONE) if len(ends) else ends
        """-1 where there is no end."""
        self.end_icount: Ints = np.where(ends >= 0, self._icount[ends], NONE) if len(ends) else ends
        self.length: Words = self._words["length"][described]
        self.address: Words = self._words["address"][described]
        self.kinds: list[str] = list(self._text["kind"].names)
        self.kind: Ints = self._text["kind"].codes[described]

    def _pair(self) -> tuple[Ints, Ints, Ints]:
        """Rows of the begin, of what describes it best, and of the end (-1) of each request."""
        device, phase = self._text["device"].codes, self._text["phase"]
        order = np.lexsort((self._seq, self._ids, device))
        d, i, p = device[order], self._ids[order], phase.codes[order]
        first = np.ones(len(order), bool)
        first[1:] = (d[1:] != d[:-1]) | (i[1:] != i[:-1])
        group = np.cumsum(first) - 1
        count = int(group[-1]) + 1 if len(group) else 0

        def find(name: str, *, last: bool = False) -> Ints:
            found = np.full(count, NONE, np.int64)
            places = np.flatnonzero(p == phase.code(name))
            places = places if last else places[::-1]
            found[group[places]] = order[places]
            return found

        begin, update, end = find("begin"), find("update", last=True), find("end")
        whole = begin >= 0
        begin, update, end = begin[whole], update[whole], end[whole]
        place = np.argsort(self._seq[begin], kind="stable")
        begin, update, end = begin[place], update[place], end[place]
        return begin, np.where(update >= 0, update, begin), end

    def __len__(self) -> int:
        return len(self._begin_rows)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[n] for n in range(*index.indices(len(self)))]
        begin, said = int(self._begin_rows[index]), int(self._said_rows[index])
        end = int(self._end_rows[index])
        text, numbers = self._text, self._numbers
        details = [text["detail"].at(said), text["detail"].at(end) if end >= 0 else ""]
        return Request(
            device=text["device"].at(begin),
            id=int(self._ids[begin]),
            kind=text["kind"].at(said),
            begin_seq=int(self._seq[begin]),
            begin_icount=int(self._icount[begin]),
            end_seq=int(self._seq[end]) if end >= 0 else None,
            end_icount=int(self._icount[end]) if end >= 0 else None,
            queue=int(numbers["queue"][said]),
            address=int(self._words["address"][said]),
            length=int(self._words["length"][said]),
            write=bool(numbers["write"][said]),
            head=int(numbers["head"][said]),
            segments=int(numbers["segments"][said]),
            status=text["status"].at(end) if end >= 0 else "",
            detail="; ".join(part for part in details if part),
        )

    def __iter__(self) -> Iterator[Request]:
        for n in range(len(self)):
            yield self[n]

    def name(self, index: int) -> str:
        """The name of one request."""
        row = int(self._begin_rows[index])
        return name_of(self._text["device"].at(row), int(self._ids[row]))

    def find(self, name: str) -> int | None:
        """The place of a request by its name."""
        device, _, number = name.rpartition("/")
        if device not in self.devices or not number.isdecimal() or len(number) > 20:
            return None
        rows = self._begin_rows
        same = (self.device == self.devices.index(device)) & (self._ids[rows] == int(number))
        found = np.flatnonzero(same)
        return int(found[0]) if len(found) else None


class _Device:
    """The rows of requests of one device, in order: when, of which request, a begin or not."""

    def __init__(self, found: Requests, code: int) -> None:
        mine = np.flatnonzero(found.device == code)
        ended = mine[found.end_seq[mine] >= 0]
        seq = np.concatenate([found.begin_seq[mine], found.end_seq[ended]])
        order = np.argsort(seq, kind="stable")
        self.seq: Ints = seq[order]
        self.icount: Ints = np.concatenate([found.begin_icount[mine], found.end_icount[ended]])[
            order
        ]
        self.request: Ints = np.concatenate([mine, ended])[order]
        self.begins = (np.arange(len(seq)) < len(mine))[order]
        self.first_setup: Ints = np.full(len(seq) + 1, np.iinfo(np.int64).max)
        """For each place between rows, the first access that sets up the next request."""

    def assign(self, seq: Ints, icount: Ints, setup: Any, ide: bool) -> Ints:
        """The requests of accesses, -1 for none; to be called in order of `seq`."""
        after = np.searchsorted(self.seq, seq)  # index of the next row
        last = after - 1
        owner = np.where(last >= 0, self.request[last], NONE)
        over = (last >= 0) & ~self.begins[last]
        owner[over & (icount - self.icount[last] > AFTERWARDS_ICOUNT)] = NONE
        next_begins = (after < len(self.seq)) & self.begins[np.minimum(after, len(self.seq) - 1)]
        ready = setup & next_begins
        if ide:  # one at a time; from the first such write on, until the command
            ready &= over | (last < 0)
            np.minimum.at(self.first_setup, after[ready], seq[ready])
            ready = next_begins & (seq >= self.first_setup[after])
        owner[ready] = self.request[after[ready]]
        return owner

    def assign_dma(self, seq: Ints, icount: Ints, write: Any) -> Ints:
        """Likewise for transfers, those that only read just before a begin belong to it."""
        after = np.searchsorted(self.seq, seq)
        last = after - 1
        owner = np.where(last >= 0, self.request[last], NONE)
        here = np.minimum(after, len(self.seq) - 1)
        close = (after < len(self.seq)) & self.begins[here] & (self.icount[here] == icount)
        last_write = np.full(len(self.seq) + 1, NONE, np.int64)
        np.maximum.at(last_write, after[write], seq[write])
        ready = close & ~write & (seq > last_write[after])
        owner[ready] = self.request[after[ready]]
        return owner


@dataclass(frozen=True, slots=True)
class Totals:
    """What belongs to each request, in the order of the requests."""

    accesses: Ints
    dma_bytes: Ints
    interrupts: Ints


class Relations:
    """Which request a row of another table belongs to. Tables are given batch by batch, in order.

    Each method gives the places in `requests`, -1 for none.
    """

    def __init__(self, trace: Trace, found: Requests | None = None) -> None:
        self._trace = trace
        self.requests = Requests(trace) if found is None else found
        used = np.unique(self.requests.device).tolist()
        names = self.requests.devices
        self._devices = {names[code]: _Device(self.requests, code) for code in used}
        self._numbers = {name: number for number, name in enumerate(self._devices)}

    # -- accesses --------------------------------------------------------------------------------

    def accesses(self, batch: pa.Table) -> Ints:
        """Of rows of `accesses` with the columns seq, icount, kind, device, offset and write."""
        owner = np.full(batch.num_rows, NONE, np.int64)
        if not self._devices:
            return owner
        codes, names = coded(batch["device"])
        kinds, kind_names = coded(batch["kind"])
        seq, icount = integers(batch["seq"]), integers(batch["icount"])
        offset, write = words(batch["offset"]), integers(batch["write"]) != 0
        bus = np.ones(len(seq), bool)
        if "cfg" in kind_names:
            bus = kinds != kind_names.index("cfg")
        target_of = self._targets(codes, names, offset)
        for target, number in self._numbers.items():
            rows = np.flatnonzero((target_of == number) & bus)
            if not len(rows):
                continue
            ide = target in _IDE.values()
            where = offset[rows]
            if ide:
                window = codes[rows] == (names.index(target) if target in names else NONE)
                setup = window & (where >= _TASK_FILE[0]) & (where <= _TASK_FILE[1])
            else:
                setup = where == _TDT
            setup &= write[rows]
            device = self._devices[target]
            owner[rows] = device.assign(seq[rows], icount[rows], setup, ide)
        return owner

    def _targets(self, codes: Ints, names: list[str], offset: Words) -> Ints:
        """The number of the device of each row, by the name of the window; -1 for others."""
        numbers = self._numbers
        targets = [numbers.get(n, numbers.get(n.rpartition(".")[0], NONE)) for n in names]
        found = _of_names(codes, targets)
        if "bmide" in names:
            mine = codes == names.index("bmide")
            found[mine & (offset < 8)] = numbers.get("ide0", NONE)
            found[mine & (offset >= 8)] = numbers.get("ide1", NONE)
        return found

    # -- DMA and interrupts ----------------------------------------------------------------------

    def dma(self, batch: pa.Table) -> Ints:
        """Of rows of `dma` with the columns seq, icount, device and write."""
        owner = np.full(batch.num_rows, NONE, np.int64)
        if not self._devices:
            return owner
        codes, names = coded(batch["device"])
        seq, icount = integers(batch["seq"]), integers(batch["icount"])
        write = integers(batch["write"]) != 0
        target_of = _of_names(codes, [self._numbers.get(name, NONE) for name in names])
        for target, number in self._numbers.items():
            rows = np.flatnonzero(target_of == number)
            if len(rows):
                device = self._devices[target]
                owner[rows] = device.assign_dma(seq[rows], icount[rows], write[rows])
        if "piix3_ide" in names:
            rows = np.flatnonzero(codes == names.index("piix3_ide"))
            owner[rows] = self._ide_dma(seq[rows])
        return owner

    def of_transfer(self, row: Mapping[str, Any]) -> str:
        """The name of the request that one row of `dma`, a write to memory, belongs to, or ""."""
        import pyarrow as pa

        names = ("seq", "icount", "device", "write")
        (place,) = self.dma(pa.table({name: [row[name]] for name in names}))
        return "" if place == NONE else self.requests.name(int(place))

    def _ide_dma(self, seq: Ints) -> Ints:
        """The engine moves the data of the channel whose command ends first."""
        best = np.full(len(seq), NONE, np.int64)
        best_end = np.full(len(seq), np.iinfo(np.int64).max)
        for name in _IDE.values():
            device = self._devices.get(name)
            if device is None:
                continue
            last = np.searchsorted(device.seq, seq) - 1
            request = np.where(last >= 0, device.request[last], NONE)
            busy = (last >= 0) & device.begins[last]
            end = self.requests.end_seq[request]
            end = np.where(end < 0, np.iinfo(np.int64).max - 1, end)
            better = busy & (end < best_end)
            best[better], best_end[better] = request[better], end[better]
        return best

    def lines(self, batch: pa.Table) -> Ints:
        """Of rows of `irq_lines` with the columns seq, icount, name and level; -1 when it falls."""
        owner = np.full(batch.num_rows, NONE, np.int64)
        if not self._devices:
            return owner
        codes, names = coded(batch["name"])
        seq, icount = integers(batch["seq"]), integers(batch["icount"])
        rises = integers(batch["level"]) != 0
        target_of = _of_names(codes, [self._line_device(name) for name in names])
        for target, number in self._numbers.items():
            rows = np.flatnonzero((target_of == number) & rises)
            if len(rows):
                device = self._devices[target]
                owner[rows] = _of_last(device.seq, device.request, seq[rows])
        rows = np.flatnonzero((target_of == NONE) & rises)
        all_seq, all_icount, all_request = self._all
        if len(rows) and len(all_seq):
            last = np.searchsorted(all_seq, seq[rows]) - 1
            same = (last >= 0) & (all_icount[last] == icount[rows])
            owner[rows] = np.where(same, all_request[last], NONE)
        return owner

    def _line_device(self, name: str) -> int:
        device, found, _ = name.rpartition(tables.MSI)
        return self._numbers.get(device if found else _IDE.get(name, ""), NONE)

    @cached_property
    def _all(self) -> tuple[Ints, Ints, Ints]:
        """Rows of all devices but IDE's channels, which have lines of their own."""
        parts = [d for name, d in self._devices.items() if name not in _IDE.values()]
        empty = np.empty(0, np.int64)
        seq = np.concatenate([empty, *(d.seq for d in parts)])
        order = np.argsort(seq, kind="stable")
        icount = np.concatenate([empty, *(d.icount for d in parts)])[order]
        return seq[order], icount, np.concatenate([empty, *(d.request for d in parts)])[order]

    # -- sums ------------------------------------------------------------------------------------

    def totals(self) -> Totals:
        """Count over the whole trace; takes a `Relations` whose `accesses` was not used before."""
        count = len(self.requests)
        accesses, dma_bytes = np.zeros(count + 1, np.int64), np.zeros(count + 1, np.int64)
        interrupts = np.zeros(count + 1, np.int64)
        trace = self._trace
        if not count:
            return Totals(accesses[:0], dma_bytes[:0], interrupts[:0])
        columns = ("seq", "icount", "kind", "device", "offset", "write")
        pieces = range(len(trace.pieces("accesses")))
        reads = (partial(trace.piece, "accesses", n, columns) for n in pieces)
        for batch in in_turn(reads, None):
            accesses += np.bincount(self.accesses(batch) + 1, minlength=count + 1)
        for batch in trace.batches("dma", ("seq", "icount", "device", "length", "write")):
            owner = self.dma(batch) + 1
            np.add.at(dma_bytes, owner, integers(batch["length"]))
        for batch in trace.batches("irq_lines", ("seq", "icount", "name", "level")):
            interrupts += np.bincount(self.lines(batch) + 1, minlength=count + 1)
        return Totals(accesses[1:], dma_bytes[1:], interrupts[1:])


def _of_names(codes: Ints, values: list[int]) -> Ints:
    """For each row the value of its name."""
    return np.array([*values, NONE], np.int64)[codes]


def _of_last(seqs: Ints, of: Ints, seq: Ints) -> Ints:
    last = np.searchsorted(seqs, seq) - 1
    return np.where(last >= 0, of[last], NONE)
