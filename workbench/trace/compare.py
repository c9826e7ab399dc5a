"""Compares two traces: their register accesses, aligned, and the first event that differs.

Two accesses match when kind, device, offset, size, direction and value are equal, the value after
`noise` has taken out times and addresses; instruction counts and PCs never count. `Diff.hunks`
gives what does not match, rows of both sides that belong to the same register side by side.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from workbench.trace import tables
from workbench.trace.align import Block, Progress, Words, align, combine
from workbench.trace.decode import Decoder, Register, WindowDecoder
from workbench.trace.noise import digits_as_one, rules_for

if TYPE_CHECKING:
    import pyarrow as pa

    from workbench.trace.header import Header
    from workbench.trace.reader import Trace
    from workbench.trace.requests import Requests
    from workbench.trace.symbols import SymbolTable

_COLUMNS: Final = (
    "seq", "icount", "pc", "kind", "device", "offset", "size", "write", "value", "count",
)  # fmt: skip
SAME, CHANGED, ONLY_A, ONLY_B = "=", "|", "<", ">"


class Row(NamedTuple):
    """One line of a comparison: the row numbers in both traces, and how they compare."""

    mark: str
    a: int | None
    b: int | None


class RegisterCount(NamedTuple):
    """Differences at one register in one direction."""

    kind: str
    device: str
    register: str
    offset: int
    write: bool
    only_a: int
    only_b: int
    changed: int


@dataclass(frozen=True, slots=True)
class FirstDifference:
    """The first event that differs; None stands for no event. `seq` is its number in A."""

    seq: int
    a: tables.Event | None
    b: tables.Event | None


class Accesses:
    """The accesses of one trace as arrays, with the hashes that are compared."""

    def __init__(self, trace: Trace, *, exact: bool = False, table: pa.Table | None = None) -> None:
        """Read all of them; with `table`, those are its accesses."""
        if table is None:
            table = trace.table("accesses", _COLUMNS)
        self.rows = table.num_rows
        self._numbers: dict[str, Words] = {
            name: table[name].to_numpy().astype(np.uint64)
            for name in _COLUMNS
            if name not in ("kind", "device")
        }
        self._names = {name: _names(table[name]) for name in ("kind", "device")}
        kind, device = (self._hashed(name) for name in ("kind", "device"))
        column: dict[str, Words] = self._numbers
        self.registers: Words = combine(
            kind, device, column["offset"], column["size"], column["write"]
        )
        values = column["value"] if exact else self._quiet(trace.header)
        self.words: Words = combine(self.registers, values, column["count"])
        self.symbols: SymbolTable | None = None
        """Names for program counters, when they are to be shown."""
        self._requests: tuple[Requests, npt.NDArray[np.int64]] | None = None
        self._machine = trace.header.machine
        self._windows: dict[tuple[str, str], _Window] = {}

    def _hashed(self, name: str) -> Words:
        codes, names = self._names[name]
        known = [zlib.crc32(text.encode()) << 16 | len(text) for text in names] or [0]
        hashed: Words = np.array(known, np.uint64)[codes]
        return hashed

    def _where(self, name: str, wanted: str) -> npt.NDArray[np.bool_]:
        codes, names = self._names[name]
        if wanted not in names:
            return np.zeros(len(codes), np.bool_)
        return np.asarray(codes == names.index(wanted))

    def _quiet(self, header: Header) -> Words:
        values: Words = self._numbers["value"].copy()
        offset = self._numbers["offset"]
        for rule in rules_for(header):
            rows = self._where("kind", rule.kind) & self._where("device", rule.device)
            rows &= (offset >= np.uint64(rule.first)) & (offset <= np.uint64(rule.last))
            values[rows] &= np.uint64(rule.bits)
        ports = header.machine.get("serial_ports")
        for port in ports if isinstance(ports, list) else []:
            rows = self._where("device", str(port)) & (offset == np.uint64(0))
            values[rows] = digits_as_one(values[rows])
        return values

    def number(self, name: str, row: int) -> int:
        """Give a number of a row."""
        return int(self._numbers[name][row])

    def name(self, name: str, row: int) -> str:
        """Give `kind` or `device` of a row."""
        codes, names = self._names[name]
        return names[int(codes[row])]

    def name_requests(self, trace: Trace) -> None:
        """Find out to which request each access belongs."""
        from workbench.trace.requests import Relations

        relations = Relations(trace)
        wanted = ("seq", "icount", "kind", "device", "offset", "write")
        owners = [relations.accesses(batch) for batch in trace.batches("accesses", wanted)]
        found = np.concatenate(owners) if owners else np.zeros(0, np.int64)
        self._requests = relations.requests, found

    def function(self, row: int) -> str:
        """Name the function of a row; empty without symbols."""
        return "" if self.symbols is None else self.symbols.text(self.number("pc", row))

    def request(self, row: int) -> str:
        """Name the request of a row; empty when it has none or none were asked for."""
        if self._requests is None or (owner := int(self._requests[1][row])) < 0:
            return ""
        return self._requests[0].name(owner)

    def as_dict(self, row: int) -> dict[str, Any]:
        """Give the columns of a row by name, with `register` and `meaning`."""
        found: dict[str, Any] = {}
        for name in _COLUMNS:
            named = name in ("kind", "device")
            found[name] = self.name(name, row) if named else self.number(name, row)
        found["write"] = bool(found["write"])
        register = self.meaning(row)
        found |= {"register": register.name, "meaning": register.meaning}
        if self.symbols is not None:
            found["function"] = self.function(row)
        if self._requests is not None:
            found["request"] = self.request(row) or None
        return found

    def meaning(self, row: int) -> Register:
        """Say what an access means; cheap as long as rows are asked for in ascending order."""
        key = (self.name("kind", row), self.name("device", row))
        window = self._windows.get(key)
        if window is None or row < window.next:
            decoder = Decoder(self._machine).window(*key)
            window = self._windows[key] = _Window(decoder, self._selecting(decoder, *key))
        if window.decoder is None:
            return Register(f"+{self.number('offset', row):#x}", "")
        found = Register("", "")
        for before in window.up_to(row):
            found = window.decoder.decode(
                self.number("offset", before),
                self.number("size", before),
                self.number("value", before),
                bool(self.number("write", before)),
            )
        return found

    def _selecting(
        self, decoder: WindowDecoder | None, kind: str, device: str
    ) -> npt.NDArray[np.int64]:
        """Rows of a window after which a register may mean something else."""
        if decoder is None:
            return np.zeros(0, np.int64)
        here = self._where("kind", kind) & self._where("device", device)
        rows: npt.NDArray[np.int64] = np.flatnonzero(here & (self._numbers["write"] != 0))
        regmap = decoder.map
        if regmap.follow is not None:
            return rows
        registers = [indirect.index for indirect in regmap.indirect]
        if regmap.select is not None:
            registers.append(regmap.select.reg)
        first = self._numbers["offset"][rows]
        end = first + self._numbers["size"][rows]
        wanted = np.zeros(len(rows), np.bool_)
        for register in registers:
            wanted |= (first < np.uint64(register.end)) & (end > np.uint64(register.offset))
        found: npt.NDArray[np.int64] = rows[wanted]
        return found

    def register(self, row: int) -> tuple[str, str, str, int, bool]:
        """Give the register and direction of a row: kind, device, name, offset, write."""
        return (
            self.name("kind", row),
            self.name("device", row),
            self.meaning(row).name,
            self.number("offset", row),
            bool(self.number("write", row)),
        )


class _Window:
    """A decoder, and how far it has come through the rows that it has to see."""

    def __init__(self, decoder: WindowDecoder | None, selecting: npt.NDArray[np.int64]) -> None:
        self.decoder = decoder
        self.next = 0
        self._selecting = selecting
        self._place = 0

    def up_to(self, row: int) -> Iterator[int]:
        """Give what has to be decoded before a row and was not yet, then the row."""
        end = int(np.searchsorted(self._selecting, row))
        yield from self._selecting[self._place : end].tolist()
        yield row
        self._place = max(self._place, int(np.searchsorted(self._selecting, row, "right")))
        self.next = row + 1


def _names(column: pa.ChunkedArray) -> tuple[npt.NDArray[np.int64], list[str]]:
    import pyarrow as pa

    if not len(column):
        return np.zeros(0, np.int64), []
    whole = pa.chunked_array(column).combine_chunks() if not column.num_chunks else column
    whole = whole.unify_dictionaries().combine_chunks()
    names = [str(name) for name in whole.dictionary.to_pylist()]
    return whole.indices.to_numpy().astype(np.int64), names


class Hashes:
    """The hashes alone, 16 bytes for each access, read piece by piece."""

    def __init__(
        self, trace: Trace, *, exact: bool = False, progress: Progress = lambda share: None
    ) -> None:
        self.rows = trace.rows("accesses")
        self.registers: Words = np.zeros(self.rows, np.uint64)
        self.words: Words = np.zeros(self.rows, np.uint64)
        at = 0
        for batch in trace.batches("accesses", _COLUMNS):
            progress(at / max(self.rows, 1))
            found = Accesses(trace, exact=exact, table=batch)
            self.registers[at : at + found.rows] = found.registers
            self.words[at : at + found.rows] = found.words
            at += found.rows


S = TypeVar("S", Accesses, Hashes)


class Alignment(Generic[S]):
    """The accesses of two traces, as far as they match."""

    def __init__(self, a: S, b: S, progress: Progress = lambda share: None) -> None:
        self.a: S = a
        self.b: S = b
        self.blocks = align(a.words, b.words, progress)
        self.same = sum(block.length for block in self.blocks)

    @property
    def equal(self) -> bool:
        """Whether all accesses match."""
        return bool(self.same == self.a.rows == self.b.rows)

    def gaps(self) -> Iterator[tuple[int, int, int, int]]:
        """Give what lies between the matches: rows from and to in A, from and to in B."""
        at_a = at_b = 0
        for block in (*self.blocks, Block(self.a.rows, self.b.rows, 0)):
            if block.first > at_a or block.second > at_b:
                yield at_a, block.first, at_b, block.second
            at_a, at_b = block.first + block.length, block.second + block.length

    def pair(self, gap: tuple[int, int, int, int]) -> Iterator[Row]:
        """Put the rows of a gap side by side: those of the same register as changed."""
        for mark, a, b, length in self.stretches(gap):
            for n in range(length):
                yield Row(
                    mark, None if mark == ONLY_B else a + n, None if mark == ONLY_A else b + n
                )

    def stretches(self, gap: tuple[int, int, int, int]) -> Iterator[tuple[str, int, int, int]]:
        """The rows of a gap as stretches: mark, where in both traces, how many rows."""
        a0, a1, b0, b1 = gap
        x, y = self.a.registers[a0:a1], self.b.registers[b0:b1]
        if not len(x) or not len(y):
            found: list[Block] = []
        elif len(x) == len(y) and (x == y).all():
            found = [Block(0, 0, len(x))]
        else:
            found = align(x, y)
        at_a, at_b = a0, b0
        for block in (*found, Block(a1 - a0, b1 - b0, 0)):
            first, second = a0 + block.first, b0 + block.second
            if first > at_a:
                yield ONLY_A, at_a, at_b, first - at_a
            if second > at_b:
                yield ONLY_B, first, at_b, second - at_b
            if block.length:
                yield CHANGED, first, second, block.length
            at_a, at_b = first + block.length, second + block.length


class Diff(Alignment[Accesses]):
    """The comparison of two traces."""

    def __init__(self, first: Trace, second: Trace, *, exact: bool = False) -> None:
        super().__init__(Accesses(first, exact=exact), Accesses(second, exact=exact))

    def hunks(self, context: int) -> Iterator[list[Row]]:
        """Give each stretch with differences, with up to `context` matching rows around it."""
        hunk: list[Row] = []
        last_a = last_b = 0
        for gap in self.gaps():
            a0, a1, b0, b1 = gap
            between = a0 - last_a
            if hunk and between > 2 * context:
                hunk += [Row(SAME, last_a + n, last_b + n) for n in range(context)]
                yield hunk
                hunk = []
            before = between if hunk else min(between, context)
            hunk += [Row(SAME, a0 - n, b0 - n) for n in range(before, 0, -1)]
            hunk += self.pair(gap)
            last_a, last_b = a1, b1
        if hunk:
            after = min(context, self.a.rows - last_a)
            hunk += [Row(SAME, last_a + n, last_b + n) for n in range(after)]
            yield hunk

    def by_register(self) -> list[RegisterCount]:
        """Count the differences of each register, most first."""
        counts: dict[tuple[str, str, str, int, bool], list[int]] = {}
        for gap in self.gaps():
            for row in self.pair(gap):
                side, number = (self.a, row.a) if row.a is not None else (self.b, row.b)
                assert number is not None
                place = (ONLY_A, ONLY_B, CHANGED).index(row.mark)
                counts.setdefault(side.register(number), [0, 0, 0])[place] += 1
        found = [RegisterCount(*key, *count) for key, count in counts.items()]
        return sorted(found, key=lambda c: (-c.only_a - c.only_b - c.changed, c))


def different_inputs(first: Trace, second: Trace) -> list[str]:
    """Name what was put into two runs and differs; empty when they have to be the same run."""
    found = []
    a, b = first.header, second.header
    if a.machine != b.machine:
        names = sorted(n for n in {*a.machine, *b.machine} if a.machine.get(n) != b.machine.get(n))
        found.append(f"machine ({', '.join(names)})")
    if a.cmdline != b.cmdline:
        found.append("command line")
    if {i.role: i.sha256 for i in a.images} != {i.role: i.sha256 for i in b.images}:
        found.append("images")
    columns = ("icount", "target", "kind", "data")
    rows_a, rows_b = (trace.table("inputs", columns).to_pylist() for trace in (first, second))
    if rows_a != rows_b:
        found.append("inputs")
    return found


def first_difference(first: Trace, second: Trace) -> FirstDifference | None:
    """Find the first event that differs in any column, instruction count and PC included.

    Not compared is where the recorder noted the guest time, which its host's clock decides.
    """
    traces = first, second
    notes = [_notes(trace) for trace in traces]
    ranks: list[int] = []
    for spec in tables.TABLES:
        a, b = (_compared(*both, spec) for both in zip(traces, notes, strict=True))
        row = _first_row(a, b, spec)
        ranks += [int(t[tables.SEQ][row].as_py()) for t in (a, b) if row < t.num_rows]
    if not ranks:
        return None
    rank = min(ranks)
    seqs = [
        rank + int(np.searchsorted(there - np.arange(len(there)), rank, "right")) for there in notes
    ]
    return FirstDifference(seqs[0], _event(first, seqs[0]), _event(second, seqs[1]))


def _is_note(digests: pa.Table) -> npt.NDArray[np.bool_]:
    """Which digests only note the time."""
    import pyarrow as pa
    import pyarrow.compute as pc

    found = pc.equal(digests["scope"].cast(pa.string()), tables.CLOCK)
    return np.asarray(found, np.bool_)


def _notes(trace: Trace) -> npt.NDArray[np.int64]:
    """The numbers of the events that only note the time."""
    digests = trace.table("digests", (tables.SEQ, "scope"))
    return np.asarray(digests[tables.SEQ], np.int64)[_is_note(digests)]


def _compared(trace: Trace, notes: npt.NDArray[np.int64], spec: tables.TableSpec) -> pa.Table:
    """A table without notes, its events numbered as if there were none."""
    import pyarrow as pa

    table = trace.table(spec.name)
    if spec.number == tables.DIGEST:
        table = table.filter(pa.array(~_is_note(table)))
    seqs = np.asarray(table[tables.SEQ], np.int64)
    ranks = pa.array(seqs - np.searchsorted(notes, seqs), pa.int64())
    return table.set_column(table.column_names.index(tables.SEQ), tables.SEQ, ranks)


def _first_row(a: pa.Table, b: pa.Table, spec: tables.TableSpec) -> int:
    import pyarrow as pa
    import pyarrow.compute as pc

    first: int = min(a.num_rows, b.num_rows)
    for column in spec.columns:
        if not first:
            break
        plain = pa.type_for_alias(column.type)
        one, other = (t[column.name].slice(0, first).cast(plain) for t in (a, b))
        wrong = pc.not_equal(one, other).to_numpy()
        places = np.flatnonzero(wrong)
        if len(places):
            first = int(places[0])
    return first


def _event(trace: Trace, seq: int) -> tables.Event | None:
    for spec in tables.TABLES:
        seqs = trace.table(spec.name, (tables.SEQ,))[tables.SEQ].to_numpy()
        place = int(np.searchsorted(seqs, seq))
        if place < len(seqs) and seqs[place] == seq:
            rows = trace.table(spec.name).slice(place, 1)
            return next(iter(tables.event_rows(spec, rows)), None)
    return None
