"""The access log of a trace by row number, in bounded memory.

A row is read with its block of `BLOCK` rows; a few blocks are kept. What a register means may
follow from earlier writes (a UART's DLAB, an index register): `index`, which a thread runs in the
background, notes for each block what was selected at its start. A block that has not been reached
yet is decoded as if nothing had been selected; `exact` says so.
"""

from __future__ import annotations

import contextlib
import threading
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from workbench.trace import tables
from workbench.trace.columns import coded, integers, words
from workbench.trace.container import MARK
from workbench.trace.decode import Decoder, Register, WindowDecoder
from workbench.trace.header import Mark, load_json

if TYPE_CHECKING:
    import pyarrow as pa

    from workbench.trace.reader import Trace

BLOCK = 1 << 12
_KEPT_BLOCKS = 64
_KEPT_ROWS = 1 << 20
COLUMNS = ("icount", "pc", "kind", "device", "offset", "size", "write", "value", "addr", "count")
DECODED = frozenset({"kind", "device", "offset", "size", "value", "write"})
"""Columns that say what a row means, or selects for later ones."""
_SIGNED = ("icount", "write")
Numbers = np.ndarray[Any, Any]
State = dict[tuple[str, str], Any]
Follow = Callable[[int, int, State], list[State]]


class Access(NamedTuple):
    """One row, decoded."""

    row: int
    icount: int
    pc: int
    kind: str
    device: str
    offset: int
    size: int
    write: bool
    value: int
    addr: int
    times: int
    register: str
    fields: str


@dataclass(slots=True)
class Block:
    """The columns of `BLOCK` rows from row `first` on, and the registers as far as decoded."""

    first: int
    numbers: dict[str, Numbers]
    kinds: list[str]
    devices: list[str]
    exact: bool
    registers: list[Register | None] | None = None
    decoded: bool = False
    """Are there registers for all rows?"""

    def __len__(self) -> int:
        return len(next(iter(self.numbers.values())))

    def kind(self, place: int) -> str:
        """Kind of access: pio, mmio or cfg."""
        return self.kinds[int(self.numbers["kind"][place])]

    def device(self, place: int) -> str:
        """Name of the bus window or PCI function."""
        return self.devices[int(self.numbers["device"][place])]


class AccessLog:
    """Rows of the table of accesses; methods may be called from any thread."""

    def __init__(
        self, trace: Trace, columns: Collection[str] = COLUMNS, kept_rows: int = _KEPT_ROWS
    ) -> None:
        """`columns` are those that blocks have: at least one."""
        self.trace = trace
        self._kept_rows = kept_rows
        self._columns = [name for name in COLUMNS if name in columns]
        self._measure()
        self._lock = threading.RLock()
        self._pieces: OrderedDict[int, pa.Table] = OrderedDict()
        self._blocks: OrderedDict[int, Block] = OrderedDict()
        self._ends: dict[int, int] = {}
        self._decoder = Decoder(trace.header.machine)
        self._reset: State = {}
        self._states: list[State] = [{}]
        self._followed = self._states[0], Decoder(trace.header.machine)
        """What was selected where `follow` ended, and a decoder that knows it."""
        self.indexed = 0
        """Blocks whose start is known exactly; `index` moves it on."""

    def _measure(self) -> None:
        chunks = self.trace.chunks(tables.BY_NAME["accesses"].chunk)
        self._numbers = [chunk.number for chunk in chunks]
        self._marks = self.trace.chunks(MARK)
        self._starts = [0, *accumulate(chunk.rows for chunk in chunks)]
        self.rows = self._starts[-1]
        self.blocks = -(-self.rows // BLOCK)

    def grow(self) -> bool:
        """Take in what the trace has got since; True if that is something. While nobody indexes."""
        rows, last = self.rows, self.rows // BLOCK
        with self._lock:
            self._measure()
            if self.rows == rows:
                return False
            # The last block was not a whole one.
            self._blocks.pop(last, None)
            del self._states[last + 1 :]
            self.indexed = min(self.indexed, last)
        return True

    # Reading.

    def _piece(self, number: int) -> pa.Table:
        with self._lock:
            table = self._pieces.get(number)
            if table is not None:
                self._pieces.move_to_end(number)
                return table
        table = self.trace.piece("accesses", number, self._columns)
        with self._lock:
            self._pieces[number] = table
            while len(self._pieces) > 1 and self._held() > self._kept_rows:
                self._pieces.popitem(last=False)
        return table

    def _held(self) -> int:
        return sum(table.num_rows for table in self._pieces.values())

    def _rows(self, first: int, last: int) -> pa.Table:
        import pyarrow as pa

        number = bisect_right(self._starts, first) - 1
        parts = []
        while first < last:
            start, end = self._starts[number], self._starts[number + 1]
            if end > first:
                taken = min(last, end) - first
                parts.append(self._piece(number).slice(first - start, taken))
                first += taken
            number += 1
        return parts[0] if len(parts) == 1 else pa.concat_tables(parts)

    def block(self, number: int, keep: bool = True) -> Block:
        """Read a block; who goes through the whole log does not `keep` it for others."""
        with self._lock:
            found = self._blocks.get(number)
            if found is not None and self._good(number, found):
                if keep:
                    self._blocks.move_to_end(number)
                return found
        made = self._read(number)
        if keep:
            with self._lock:
                self._blocks[number] = made
                while len(self._blocks) > _KEPT_BLOCKS:
                    self._blocks.popitem(last=False)
        return made

    def _good(self, number: int, block: Block) -> bool:
        """Is there nothing better?  A log that grows may have the rest of it by now."""
        whole = len(block) == min(BLOCK, self.rows - block.first)
        return whole and (block.exact or number > self.indexed)

    def fresh(self, number: int, places: Numbers | None = None) -> bool:
        """Is a block at hand, read, and decoded (all of it, or places) as well as it can be?"""
        block = self._blocks.get(number)
        if block is None or not self._good(number, block):
            return False
        if block.decoded or places is None or block.registers is None:
            return block.decoded
        registers = block.registers
        return all(registers[place] is not None for place in places.tolist())

    def seen(self, row: int) -> Access | None:
        """A row that is at hand; None if it would have to be read or decoded."""
        block = self._blocks.get(row // BLOCK)
        if block is None or block.registers is None or row - block.first >= len(block):
            return None
        if block.registers[row - block.first] is None:
            return None
        with contextlib.suppress(KeyError):  # another thread has dropped it in this moment
            self._blocks.move_to_end(row // BLOCK)
        return _access(row, block)

    def _read(self, number: int) -> Block:
        exact = number <= self.indexed
        first = number * BLOCK
        table = self._rows(first, min(first + BLOCK, self.rows))
        numbers: dict[str, Numbers] = {}
        names: dict[str, list[str]] = {"kind": [], "device": []}
        for name in self._columns:
            if name in names:
                numbers[name], names[name] = coded(table[name])
            else:
                numbers[name] = (integers if name in _SIGNED else words)(table[name])
        return Block(first, numbers, names["kind"], names["device"], exact)

    def register_names(self, middle: int) -> list[str]:
        """Names of registers that were accessed around a block, in what is at hand."""
        names: set[str] = set()
        for number in range(middle - 2, middle + 3):
            block = self._blocks.get(number)
            if block is not None:
                names.update(found.name for found in block.registers or () if found is not None)
        return sorted(names)

    def decode(self, block: Block, places: Numbers | None = None) -> list[Register | None]:
        """Decode rows of a block: all, or at least those in some places, which ascend."""
        with self._lock:
            registers = block.registers
            if registers is None:
                registers = [None] * len(block)
            if not block.decoded:
                decode = self._decoder_at(block.first // BLOCK, block).decode
                rows = np.arange(len(block)) if places is None else self._before(block, places)
                numbers, kinds, devices = block.numbers, block.kinds, block.devices
                columns = (
                    numbers[name][rows].tolist()
                    for name in ("kind", "device", "offset", "size", "value", "write")
                )
                for row, kind, device, offset, size, value, write in zip(
                    rows.tolist(), *columns, strict=True
                ):
                    registers[row] = decode(
                        kinds[kind], devices[device], offset, size, value, bool(write)
                    )
                block.registers = registers
                block.decoded = places is None
        return registers

    def _before(self, block: Block, places: Numbers) -> Numbers:
        """Places, and those before them in the same windows, where what they mean may follow from
        that.
        """
        numbers = block.numbers
        wanted = np.zeros(len(block), np.bool_)
        wanted[places] = True
        windows = numbers["kind"] * len(block.devices) + numbers["device"]
        for code in np.unique(windows[places]).tolist():
            kind, device = divmod(code, len(block.devices))
            window = self._decoder.window(block.kinds[kind], block.devices[device])
            if window is not None and window.needs_order(False):
                last = places[windows[places] == code][-1]
                wanted[: last + 1] |= windows[: last + 1] == code
        return np.flatnonzero(wanted)

    def _decoder_at(self, number: int, block: Block) -> Decoder:
        """The decoder, with all that is selected at the start of a block."""
        state = self.state(number)
        for kind in block.kinds:
            for device in block.devices:
                key = kind, device
                window = self._decoder.window(kind, device)
                if window is not None:
                    reset = self._reset.setdefault(key, window.state)
                    held = state.get(key)
                    window.state = reset if held is None else held
        return self._decoder

    def access(self, row: int) -> Access:
        """One row, decoded."""
        block = self.block(row // BLOCK)
        self.decode(block, np.array([row - block.first]))
        return _access(row, block)

    # Places.

    def icount(self, row: int) -> int:
        """Instruction count of a row."""
        block = self.block(row // BLOCK)
        return int(block.numbers["icount"][row - block.first])

    def _end(self, piece: int) -> int:
        """Instruction count of the mark behind a piece: none of its rows is later."""
        found = self._ends.get(piece)
        if found is None:
            number = bisect_right(self._marks, self._numbers[piece], key=lambda c: c.number)
            if number == len(self._marks):  # the last mark of a cut trace ends it
                return self.trace.icount
            mark = load_json(self.trace.payload(self._marks[number]))
            found = self._ends[piece] = Mark.from_json(mark).icount
        return found

    def row_at(self, icount: int) -> int:
        """The first row that is not before an instruction count; the number of rows if none is."""
        pieces = range(len(self._numbers))
        piece = bisect_left(pieces, icount, key=self._end)
        if piece == len(pieces):
            return self.rows
        counts = integers(self._piece(piece)["icount"])
        return self._starts[piece] + int(np.searchsorted(counts, icount))

    # What registers mean.

    def state(self, number: int) -> State:
        """What is selected at the start of a block, as far as that is known."""
        return self._states[min(number, len(self._states) - 1)]

    def index(
        self, stopping: Callable[[], bool], follow: Follow | None = None, blocks: int = 1
    ) -> None:
        """Follow what is selected through the whole log; ends early when `stopping` gives True.

        It is asked every so many blocks; `follow` does as the method of this name.
        """
        follow = follow or self.follow
        while (first := len(self._states) - 1) < self.blocks and not stopping():
            last = min(first + blocks, self.blocks)
            self._states += follow(first, last, self._states[-1])
            self.indexed = last

    def follow(self, first: int, last: int, state: State) -> list[State]:
        """What is selected behind each of some blocks, from what is before the first."""
        if state != self._followed[0]:
            self._followed = state, self._decoder_of(state)
        decoder = self._followed[1]
        found: list[State] = []
        for number in range(first, last):
            state = self._follow(decoder, number, state)
            found.append(state)
        self._followed = state, decoder
        return found

    def decoder(self) -> Decoder:
        """One that knows what is selected where `index` has come to: in the end, behind the log."""
        return self._decoder_of(self._states[-1])

    def _decoder_of(self, state: State) -> Decoder:
        decoder = Decoder(self.trace.header.machine)
        for (kind, device), selected in state.items():
            window = decoder.window(kind, device)
            assert window is not None
            window.state = selected
        return decoder

    def _follow(self, decoder: Decoder, number: int, state: State) -> State:
        block = self.block(number, keep=False)
        numbers = block.numbers
        rows: list[Numbers] = []
        writes = numbers["write"] != 0
        for kind_code, kind in enumerate(block.kinds):
            of_kind = writes & (numbers["kind"] == kind_code)
            for code, device in enumerate(block.devices):
                window = decoder.window(kind, device)
                if window is None or not window.needs_order(True):
                    continue
                places = np.flatnonzero(of_kind & (numbers["device"] == code))
                rows.append(places[_selecting(window, numbers, places)])
        if not rows:
            return state
        changed = dict(state)
        for place in np.sort(np.concatenate(rows)).tolist():
            key = block.kind(place), block.device(place)
            window = decoder.window(*key)
            assert window is not None
            window.decode(
                int(numbers["offset"][place]),
                int(numbers["size"][place]),
                int(numbers["value"][place]),
                True,
            )
            changed[key] = window.state
        return changed


def _access(row: int, block: Block) -> Access:
    place = row - block.first
    numbers = block.numbers
    assert block.registers is not None
    found = block.registers[place]
    assert found is not None
    return Access(
        row,
        int(numbers["icount"][place]),
        int(numbers["pc"][place]),
        block.kind(place),
        block.device(place),
        int(numbers["offset"][place]),
        int(numbers["size"][place]),
        bool(numbers["write"][place]),
        int(numbers["value"][place]),
        int(numbers["addr"][place]),
        int(numbers["count"][place]),
        found.name,
        found.meaning,
    )


def _selecting(window: WindowDecoder, numbers: dict[str, Numbers], places: Numbers) -> Numbers:
    """Which of some writes may change what later accesses mean."""
    regmap = window.map
    if regmap.follow is not None:
        return np.ones(len(places), np.bool_)
    registers = [indirect.index for indirect in regmap.indirect]
    if regmap.select is not None:
        registers.append(regmap.select.reg)
    first = numbers["offset"][places]
    end = first + numbers["size"][places]
    wanted = np.zeros(len(places), np.bool_)
    for register in registers:
        wanted |= (first < np.uint64(register.end)) & (end > np.uint64(register.offset))
    return wanted
