"""The tables of a trace: their columns as data, and their coding as Parquet.

Every event is a tuple `(table number, *columns without seq)`. The tuples of one flush are split up
by table, each part becomes one chunk that is a complete Parquet file, and `seq` (the position of
the event in the whole recording) restores the order across the tables. `pyarrow` is imported on
use.
"""

from __future__ import annotations

import io
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from workbench.core.polls import ROW_BYTES, Place, Polls
from workbench.core.requests import Burst
from workbench.core.spans import pairs
from workbench.errors import FormatError

if TYPE_CHECKING:
    import pyarrow as pa

Event = tuple[Any, ...]
"""One event: the number of its table, then its columns in the order of the table, without `seq`.

While recording, one event may stand for all DMA transfers of a request: it has the bytes of their
spans (`core.spans`) instead of `gpa` and `length`. Or for a burst of requests with their transfers
(`core.requests.Burst`): it has the columns of that, rows as bytes. Or for many reads of
one register (`core.polls.Polls`): the last one's count, the columns of its place, and rows as
bytes. `split` makes rows of them.
"""

SEQ: Final = "seq"
FULL: Final = "full"
CLOCK: Final = "clock"
"""Scopes of digests: the whole state, or nothing but the guest time, now and then, when the host's
clock says so.
"""
MSI: Final = ".msi"
"""In the name of a message-signalled interrupt: `drive1.msi36`, a pulse, with its vector."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its name, its Arrow type, and how Parquet codes it."""

    name: str
    type: str
    coding: str = "dictionary"


@dataclass(frozen=True, slots=True)
class TableSpec:
    """One table: its number in event tuples, name, chunk type and columns (`seq` comes first)."""

    number: int
    name: str
    chunk: bytes
    columns: tuple[Column, ...]
    since: int = 1
    """The first version of the format that has it."""

    def column_names(self) -> list[str]:
        """Give the names of all columns in order."""
        return [column.name for column in self.columns]


_DELTA: Final = "DELTA_BINARY_PACKED"
_PLAIN: Final = "PLAIN"
_SEQ: Final = Column(SEQ, "int64", _DELTA)
_ICOUNT: Final = Column("icount", "int64", _DELTA)
_PC: Final = Column("pc", "uint64")


def _table(number: int, name: str, chunk: bytes, *columns: Column, since: int = 1) -> TableSpec:
    return TableSpec(number, name, chunk, (_SEQ, *columns), since)


ACCESS: Final = 0
EXIT: Final = 1
INTERRUPT: Final = 2
DMA: Final = 3
IRQ_LINE: Final = 4
INPUT: Final = 5
CONSOLE: Final = 6
DIGEST: Final = 7
REQUEST: Final = 8

TABLES: Final[tuple[TableSpec, ...]] = (
    _table(
        ACCESS,
        "accesses",
        b"ACCS",
        _ICOUNT,
        _PC,
        Column("kind", "string"),
        Column("device", "string"),
        Column("offset", "uint64"),
        Column("size", "uint8"),
        Column("write", "bool", _PLAIN),
        Column("value", "uint64", _PLAIN),
        Column("addr", "uint64"),
        Column("count", "uint32"),
    ),
    _table(
        EXIT, "exits", b"EXIT", _ICOUNT, _PC, Column("kind", "string"), Column("detail", "uint64")
    ),
    _table(
        INTERRUPT,
        "interrupts",
        b"INTR",
        _ICOUNT,
        _PC,
        Column("kind", "string"),
        Column("vector", "uint16"),
        Column("error_code", "uint32"),
        Column("address", "uint64", _PLAIN),
    ),
    _table(
        DMA,
        "dma",
        b"DMA_",
        _ICOUNT,
        Column("device", "string"),
        Column("gpa", "uint64", _PLAIN),
        Column("length", "uint64"),
        Column("write", "bool", _PLAIN),
    ),
    _table(
        IRQ_LINE, "irq_lines", b"LINE", _ICOUNT, Column("name", "string"),
        Column("level", "bool", _PLAIN),
    ),
    _table(
        INPUT,
        "inputs",
        b"INPT",
        _ICOUNT,
        Column("time_ps", "int64", _DELTA),
        Column("target", "string"),
        Column("kind", "string"),
        Column("data", "binary", _PLAIN),
    ),
    _table(
        CONSOLE, "console", b"CONS", _ICOUNT, Column("device", "string"),
        Column("data", "binary"),
    ),
    _table(
        DIGEST,
        "digests",
        b"DGST",
        _ICOUNT,
        Column("time_ps", "int64", _DELTA),
        Column("scope", "string"),
        Column("digest", "binary", _PLAIN),
    ),
    _table(
        REQUEST,
        "requests",
        b"REQS",
        _ICOUNT,
        Column("device", "string"),
        Column("id", "uint64", _DELTA),
        Column("phase", "string"),
        Column("kind", "string"),
        Column("queue", "int16"),
        Column("address", "uint64", _PLAIN),
        Column("length", "uint64"),
        Column("write", "bool", _PLAIN),
        Column("head", "int32"),
        Column("segments", "uint32"),
        Column("status", "string"),
        Column("detail", "string"),
        since=2,
    ),
)  # fmt: skip
_WITH_DATA: Final = frozenset(spec.number for spec in TABLES if spec.columns[-1].name == "data")
"""Tables whose rows end in data of any length."""
BY_NAME: Final[dict[str, TableSpec]] = {table.name: table for table in TABLES}
BY_CHUNK: Final[dict[bytes, TableSpec]] = {table.chunk: table for table in TABLES}

_ZSTD_LEVEL: Final = 6
_SMALL_ROWS: Final = 256
_POLLS: Final = 8  # columns of an event that stands for many reads
_MANY_DMA: Final = 5  # columns of an event that stands for many transfers
_SPAN_BYTES: Final = 16
_BURST: Final = 7  # columns of an event that stands for a burst
_SERVED_BYTES: Final = 40  # of a request in it, which makes three rows
MAX_NAME_BYTES: Final = 256
MAX_DATA_BYTES: Final = 256 << 20


def _schema(spec: TableSpec) -> pa.Schema:
    import pyarrow as pa

    return pa.schema([(c.name, pa.type_for_alias(c.type), False) for c in spec.columns])


def encode(spec: TableSpec, seqs: Sequence[int], rows: Sequence[Event]) -> tuple[bytes, bool]:
    """Make the Parquet file of some rows; the flag says that it is worth compressing as a whole.

    A big one is compressed column by column, so that a reader may skip columns; a small one is
    mostly schema, which only a compressor around the file reaches.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _schema(spec)
    columns = list(zip(*rows, strict=True))[1:]
    arrays = [
        _array(values, field.type) for values, field in zip([seqs, *columns], schema, strict=True)
    ]
    small = len(rows) < _SMALL_ROWS
    sink = io.BytesIO()
    pq.write_table(
        pa.table(arrays, schema=schema),
        sink,
        version="2.6",
        compression="none" if small else "zstd",
        compression_level=None if small else _ZSTD_LEVEL,
        use_dictionary=[c.name for c in spec.columns if c.coding == "dictionary"],
        column_encoding={c.name: c.coding for c in spec.columns if c.coding != "dictionary"},
        write_statistics=["icount"],
        store_schema=False,
    )
    return sink.getvalue(), small


def _array(values: Sequence[Any], type: pa.DataType) -> pa.Array:  # noqa: A002
    """An Arrow array out of its buffers: `pa.array` would import pandas, to ask what it got."""
    import numpy as np
    import pyarrow as pa

    if pa.types.is_string(type) or pa.types.is_binary(type):
        parts = [v.encode() for v in values] if pa.types.is_string(type) else values
        offsets = np.zeros(len(parts) + 1, np.int32)
        np.cumsum([len(part) for part in parts], out=offsets[1:])
        buffers = [offsets, b"".join(parts)]
    elif pa.types.is_boolean(type):
        buffers = [np.packbits(np.array(values, np.bool_), bitorder="little")]
    else:
        buffers = [np.array(values, str(type))]
    return pa.Array.from_buffers(type, len(values), [None, *map(pa.py_buffer, buffers)])


def decode(spec: TableSpec, payload: bytes, rows: int, columns: Iterable[str] | None) -> pa.Table:
    """Read the Parquet file of one chunk, with its row count from the chunk header.

    String columns come back dictionary-encoded. Raises `FormatError` for anything unexpected.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = spec.column_names() if columns is None else list(columns)
    texts = [c.name for c in spec.columns if c.type in ("string", "binary")]
    try:
        file = pq.ParquetFile(
            pa.BufferReader(payload),
            read_dictionary=texts,
            thrift_string_size_limit=1 << 20,
            thrift_container_size_limit=1 << 16,
        )
        if file.metadata.num_rows != rows:
            raise FormatError(f"table {spec.name} has {file.metadata.num_rows} rows, not {rows}")
        found = {field.name: field.type for field in file.schema_arrow}
        for column in spec.columns:
            want = pa.type_for_alias(column.type)
            have = found.get(column.name)
            if have is not None and pa.types.is_dictionary(have):
                have = have.value_type
            if have != want:
                raise FormatError(f"table {spec.name} has no column {column.name} of {want}")
        table = file.read(columns=names, use_threads=False).select(names)
        table.validate(full=True)
        table = _bounded(spec, table)
    except FormatError:
        raise
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError, OverflowError):
        raise FormatError(f"table {spec.name} cannot be decoded") from None
    if table.num_rows != rows or any(column.null_count for column in table.columns):
        raise FormatError(f"table {spec.name} has missing values")
    return table


def _bounded(spec: TableSpec, table: pa.Table) -> pa.Table:
    """Check the lengths of names and data, which a few bytes of Parquet can repeat without end."""
    import pyarrow as pa

    have = set(table.column_names)
    for column in spec.columns:
        if column.type not in ("string", "binary") or column.name not in have:
            continue
        parts = table[column.name].chunks
        if column.type == "string":
            longest = max((_longest(part.dictionary) for part in parts), default=0)
            if longest > MAX_NAME_BYTES:
                raise FormatError(f"table {spec.name} has a {column.name} of {longest:,} bytes")
            continue
        import pyarrow.compute as pc

        total = sum(
            pc.sum(pc.take(pc.binary_length(p.dictionary), p.indices)).as_py() or 0 for p in parts
        )
        if total > MAX_DATA_BYTES:
            raise FormatError(f"table {spec.name} claims {total:,} bytes of data")
        place = table.column_names.index(column.name)
        plain = pa.chunked_array([p.dictionary_decode() for p in parts], pa.binary())
        table = table.set_column(place, column.name, plain)
    return table


def _longest(names: pa.StringArray) -> int:
    """Bytes of the longest of some names. `pyarrow.compute`, which says so too, loads slowly."""
    import numpy as np

    offsets = names.buffers()[1]
    if not len(names) or offsets is None:
        return 0
    places = np.frombuffer(offsets, np.int32, len(names) + 1, 4 * names.offset)
    return int(np.diff(places).max())


def of_polls(polls: Polls) -> list[Event]:
    """The accesses that it stands for."""
    kind, device, offset, size, addr = polls.place
    return [
        (ACCESS, icount, pc, kind, device, offset, size, False, value, addr, 1)
        for icount, pc, value in polls.each()
    ]


def weight(event: Event) -> tuple[int, int]:
    """Rows that an event makes, and bytes of data (of an input, of the console) in it."""
    number = event[0]
    if number in _WITH_DATA:
        return 1, len(event[-1])
    if number == ACCESS and len(event) == _POLLS:
        return len(event[-1]) // ROW_BYTES, 0
    if number == DMA and len(event) == _MANY_DMA:
        return len(event[3]) // _SPAN_BYTES, 0
    if number == REQUEST and len(event) == _BURST:
        return 3 * (len(event[-1]) // _SERVED_BYTES), 0
    return 1, 0


def event_rows(spec: TableSpec, table: pa.Table) -> Iterable[Event]:
    """Give the rows of a whole table as events, without `seq`."""
    return zip((spec.number,) * table.num_rows, *map(_values, table.columns[1:]), strict=True)


def _values(column: pa.ChunkedArray) -> list[Any]:
    """Convert a column to Python values, several times faster than `to_pylist`."""
    import pyarrow as pa

    values: list[Any] = []
    for part in column.chunks:
        if pa.types.is_dictionary(part.type):
            names = part.dictionary.to_pylist()
            values += [names[i] for i in part.indices.to_numpy().tolist()]
        elif pa.types.is_binary(part.type):
            values += part.to_pylist()
        else:
            values += part.to_numpy(zero_copy_only=False).tolist()
    return values


def empty(spec: TableSpec, columns: Iterable[str] | None) -> pa.Table:
    """Make the table with no rows."""
    import pyarrow as pa

    chosen = set(spec.column_names() if columns is None else columns)
    fields = []
    for column in spec.columns:
        if column.name in chosen:
            kind = pa.type_for_alias(column.type)
            if column.type == "string":
                kind = pa.dictionary(pa.int32(), kind)
            fields.append(pa.field(column.name, kind, nullable=False))
    return pa.schema(fields).empty_table()


def split(
    events: Sequence[Event | None], first_seq: int
) -> list[tuple[TableSpec, list[int], list[Event]]]:
    """Sort a run of events into tables; returns those that have rows. None only counts."""
    seqs: list[list[int]] = [[] for _ in TABLES]
    rows: list[list[Event]] = [[] for _ in TABLES]
    seq = first_seq
    for event in events:
        if event is None:
            seq += 1
            continue
        number = event[0]
        if number == ACCESS and len(event) == _POLLS:
            (kind, device, offset, size, addr), data = event[2:-1], event[-1]
            read = of_polls(Polls(Place(kind, device, offset, size, addr), data))
            rows[ACCESS] += read
            seqs[ACCESS] += range(seq, seq + len(read))
            seq += len(read)
            continue
        if number == DMA and len(event) == _MANY_DMA:
            _, icount, device, spans, write = event
            numbers = array("Q", spans)
            made = [(DMA, icount, device, *span, write) for span in pairs(numbers)]
            rows[DMA] += made
            seqs[DMA] += range(seq, seq + len(made))
            seq += len(made)
            continue
        if number == REQUEST and len(event) == _BURST:
            _, icount, device, first, kind, queue, served = event
            burst = Burst(device, first, kind, queue, array("Q", served))
            for begin, gpa, length, end in burst.served():
                rows[REQUEST] += ((REQUEST, icount, *begin), (REQUEST, icount, *end))
                rows[DMA].append((DMA, icount, device, gpa, length, True))
                seqs[REQUEST] += (seq, seq + 2)
                seqs[DMA].append(seq + 1)
                seq += 3
            continue
        rows[number].append(event)
        seqs[number].append(seq)
        seq += 1
    return [(spec, seqs[spec.number], rows[spec.number]) for spec in TABLES if rows[spec.number]]
