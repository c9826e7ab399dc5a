"""The accesses that somebody wants to see, decoded, out of a trace of any length.

What an access means may depend on writes before it (a UART's DLAB, an index register). Those are
followed wherever they are; of all others only the wanted ones are looked at one by one, and pieces
before the first of them are read in a few columns.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from workbench.trace.ahead import in_turn
from workbench.trace.columns import Ints, coded, encode, encode_words, integers, values, words
from workbench.trace.decode import Decoder, Register, register_names
from workbench.trace.keys_registers import Registers

if TYPE_CHECKING:
    import pyarrow as pa

    from workbench.trace.reader import Trace

Row = tuple[Any, ...]
"""seq, icount, pc, kind, device, offset, size, write, value, addr, count."""
Mask = np.ndarray[Any, np.dtype[np.bool_]]
_SELECTING: Final = ("kind", "device", "offset", "size", "write", "value")


@dataclass(frozen=True, slots=True)
class Filter:
    """Which accesses are shown; empty tuples and None stand for all."""

    devices: tuple[str, ...] = ()
    registers: tuple[str, ...] = ()
    first: int = 0
    last: int = 1 << 62
    write: bool | None = None

    def device(self, name: str) -> bool:
        """Whether a device is shown."""
        return not self.devices or any(fnmatchcase(name, wanted) for wanted in self.devices)

    def register(self, name: str) -> bool:
        """Whether a register is shown; behind an index register, either name will do."""
        if not self.registers:
            return True
        names = register_names(name.upper())
        return any(fnmatchcase(n, wanted) for n in names for wanted in self.registers)

    def mask(self, batch: pa.Table) -> Mask:
        """The accesses that are wanted, whatever their registers; looks at icount, device and
        write.
        """
        devices, names = coded(batch["device"])
        found: Mask = np.array([*map(self.device, names), False])[devices]
        icount = integers(batch["icount"])
        found &= (icount >= self.first) & (icount <= self.last)
        if self.write is not None:
            found &= (integers(batch["write"]) != 0) == self.write
        return found


def accesses(
    trace: Trace, chosen: Filter, tail: int | None = None, more: Callable[[], bool] = lambda: False
) -> Iterator[tuple[Row, Register]]:
    """Give the accesses that are wanted, decoded; with `tail` (at least 1) so many from the end.

    At the end of the trace `more` is asked whether it has grown; what has come is given, too.
    """
    start = _piece_at(trace, chosen.first)
    if tail is not None:
        start = max(start, _piece_of_tail(trace, chosen, tail, start))
    decoder = Decoder(trace.header.machine)
    windows: set[tuple[str, str]] = set()
    maps = Decoder(trace.header.machine)  # of which threads ask what selects; it follows nothing
    reads = (partial(_selecting_rows, trace, number, chosen, maps) for number in range(start))
    for kind, device, offset, size, write, value in chain.from_iterable(in_turn(reads, None)):
        decoder.decode(kind, device, offset, size, value, write)
        windows.add((kind, device))
    registers = None
    if chosen.registers:
        registers = Registers(trace)
        found = {key: decoder.window(*key) for key in windows}
        registers.take({key: each.state for key, each in found.items() if each is not None})
    known: dict[str, bool] = {}
    while True:
        end = len(trace.pieces("accesses"))
        batches = (trace.piece("accesses", number) for number in range(start, end))
        rows = _decoded(batches, chosen, decoder, registers, known)
        yield from rows if tail is None else deque(rows, tail)
        start, tail = end, None
        if trace.icount > chosen.last or not more():
            return


def _decoded(
    batches: Iterable[pa.Table],
    chosen: Filter,
    decoder: Decoder,
    registers: Registers | None,
    known: dict[str, bool],
) -> Iterator[tuple[Row, Register]]:
    """Give the wanted accesses of some pieces; `known` says of names of registers whether they are
    wanted.
    """
    for batch in batches:
        wanted = chosen.mask(batch)
        if registers is not None:
            wanted &= _of_registers(*registers.code(batch), chosen, registers)
        needed = wanted.copy()
        needed[_selecting(batch, chosen, decoder)] = True
        rows = np.flatnonzero(needed)
        columns = [values(column, rows) for column in batch.columns]
        for row, shown in zip(zip(*columns, strict=True), wanted[rows].tolist(), strict=True):
            _, _, _, kind, device, offset, size, write, value, _, _ = row
            register = decoder.decode(kind, device, offset, size, value, write)
            if not shown:
                continue
            if (right := known.get(register.name)) is None:
                right = known[register.name] = chosen.register(register.name)
            if right:
                yield row, register
        icount = integers(batch["icount"])
        if len(icount) and icount[-1] > chosen.last:
            return


def _piece_at(trace: Trace, icount: int) -> int:
    """The piece with the first access at an instruction count or later; the last one if none."""
    low, high = 0, max(0, len(trace.pieces("accesses")) - 1)
    while low < high:
        middle = (low + high) // 2
        counts = integers(trace.piece("accesses", middle, ("icount",))["icount"])
        if len(counts) and counts[-1] < icount:
            low = middle + 1
        else:
            high = middle
    return low


def _piece_of_tail(trace: Trace, chosen: Filter, tail: int, start: int) -> int:
    """The last piece from which on so many wanted accesses are left."""
    count = len(trace.pieces("accesses"))
    left = tail
    if not chosen.registers:
        for number in range(count - 1, start, -1):
            batch = trace.piece("accesses", number, ("icount", "device", "write"))
            left -= int(np.count_nonzero(chosen.mask(batch)))
            if left <= 0:
                return number
        return start
    registers = Registers(trace)

    def read(number: int) -> tuple[Mask, Ints, Any]:
        batch = trace.piece("accesses", number, ("icount", *registers.columns))
        return chosen.mask(batch), *registers.code(batch)

    found = []
    for wanted, codes, about in in_turn((partial(read, number) for number in range(count)), None):
        wanted &= _of_registers(codes, about, chosen, registers)
        found.append(int(np.count_nonzero(wanted)))
    while count > start + 1 and left > 0:
        count -= 1
        left -= found[count]
    return count if left <= 0 else start


def _of_registers(codes: Ints, about: Any, chosen: Filter, registers: Registers) -> Mask:
    """The accesses to registers that are wanted, and perhaps a few more; takes all in order."""
    registers.follow(about)
    found = np.flatnonzero(np.bincount(codes))
    right = np.zeros(int(codes.max(initial=0)) + 1, np.bool_)
    right[found] = [
        name < 0 or chosen.register(registers.label(name)[1])
        for name in registers.names(about, found).tolist()
    ]
    return right[codes]


def _selecting_rows(
    trace: Trace, number: int, chosen: Filter, maps: Decoder
) -> list[tuple[Any, ...]]:
    """The writes of a piece that select, in the columns that decoding needs."""
    batch = trace.piece("accesses", number, _SELECTING)
    rows = _selecting(batch, chosen, maps)
    return list(zip(*(values(column, rows) for column in batch.columns), strict=True))


def _selecting(batch: pa.Table, chosen: Filter, decoder: Decoder) -> Ints:
    """Rows of the writes to wanted devices that change what later accesses mean."""
    kinds, kind_names = coded(batch["kind"])
    devices, names = coded(batch["device"])
    many = len(names)
    here = kinds * many + devices
    ordered = np.zeros(len(kind_names) * many, np.bool_)
    for code in np.flatnonzero(np.bincount(here)).tolist():
        device = names[code % many]
        window = decoder.window(kind_names[code // many], device) if chosen.device(device) else None
        ordered[code] = window is not None and window.needs_order(True)
    rows = np.flatnonzero(ordered[here] & (integers(batch["write"]) != 0))
    if not len(rows):
        return rows
    offsets, codes = encode_words(words(batch["offset"])[rows])
    size = integers(batch["size"])[rows]
    sizes = int(size.max()) + 1
    codes = (codes * len(ordered) + here[rows]) * sizes + size
    different, which = encode(codes)
    selects: list[bool] = []
    for each in different.tolist():
        place, size_of = divmod(each, sizes)
        offset, place = divmod(place, len(ordered))
        window = decoder.window(kind_names[place // many], names[place % many])
        assert window is not None
        selects.append(window.selects(int(offsets[offset]), size_of, True))
    found: Ints = rows[np.array(selects, np.bool_)[which]]
    return found
