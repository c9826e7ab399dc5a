"""Parquet without copying: a table with large data as pieces, of which the data are some.

What a run reads from disk images, or gets from a network, is recorded as it is. Arrow would copy it
four times on its way into a Parquet file, and the host may have one core for that while another
runs the guest. A file of plain pages, one for each column, is its values with a length before each,
and a few bytes of Thrift around them (Apache Parquet format 2.9, Encodings.md and parquet.thrift;
Thrift compact protocol).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from workbench.trace.tables import Event, TableSpec
from workbench.trace.varint import varint

__all__ = ["encode"]

MAGIC: Final = b"PAR1"
_INT64, _BYTE_ARRAY, _REQUIRED, _UTF8, _PLAIN, _RLE, _UNCOMPRESSED, _DATA_PAGE = (
    2, 6, 0, 0, 0, 3, 0, 0,
)  # fmt: skip
_LENGTH: Final = struct.Struct("<I")
_I32, _I64, _BINARY, _LIST, _STRUCT = 5, 6, 8, 9, 12  # types of Thrift's compact protocol

JOINED_BYTES: Final = 1 << 16  # pieces smaller than this are put together


def encode(spec: TableSpec, seqs: Sequence[int], rows: Sequence[Event]) -> list[bytes]:
    """Make the Parquet file of some rows; its columns are of type int64, string or binary.

    Values of 64 KiB and more are pieces themselves.
    """
    out: list[bytes] = [MAGIC]
    at = len(MAGIC)
    columns: list[bytes] = []
    body_bytes = 0
    values = [list(seqs), *map(list, list(zip(*rows, strict=True))[1:])]
    for column, cells in zip(spec.columns, values, strict=True):
        page = _plain(column.type, cells)
        length = sum(map(len, page))
        header = _page_header(length, len(rows))
        kind = _INT64 if column.type == "int64" else _BYTE_ARRAY
        whole = len(header) + length
        columns.append(_column(column.name, kind, len(rows), whole, at))
        out += [header, *page]
        at += whole
        body_bytes += whole
    footer = _footer(spec, columns, len(rows), body_bytes)
    out += [footer, _LENGTH.pack(len(footer)), MAGIC]
    return _joined(out)


def _joined(pieces: Sequence[bytes]) -> list[bytes]:
    """The same with fewer pieces."""
    out: list[bytes] = []
    small: list[bytes] = []
    for piece in pieces:
        if len(piece) < JOINED_BYTES:
            small.append(piece)
            continue
        out += [b"".join(small), piece]
        small = []
    out.append(b"".join(small))
    return out


def _plain(kind: str, cells: Sequence[int | str | bytes]) -> list[bytes]:
    """The values of a column: numbers in a row, or each after its length."""
    if kind == "int64":
        return [struct.pack(f"<{len(cells)}q", *cells)]
    assert kind in ("string", "binary"), f"column of {kind}"
    out: list[bytes] = []
    for cell in cells:
        data = cell.encode() if isinstance(cell, str) else cell
        assert isinstance(data, bytes)
        out += [_LENGTH.pack(len(data)), data]
    return out


# Structures of parquet.thrift.


def _page_header(length: int, count: int) -> bytes:
    """PageHeader with its DataPageHeader."""
    data = _struct(_i32(1, count), _i32(2, _PLAIN), _i32(3, _RLE), _i32(4, _RLE))
    return _struct(_i32(1, _DATA_PAGE), _i32(2, length), _i32(3, length), (5, _STRUCT, data))


def _column(name: str, kind: int, count: int, length: int, at: int) -> bytes:
    """ColumnChunk with its ColumnMetaData."""
    meta = _struct(
        _i32(1, kind),
        _list(2, _I32, [_zigzag(_PLAIN)]),
        _list(3, _BINARY, [_binary(name)]),
        _i32(4, _UNCOMPRESSED),
        _i64(5, count),
        _i64(6, length),
        _i64(7, length),
        _i64(9, at),
    )
    return _struct(_i64(2, at), (3, _STRUCT, meta))


def _footer(spec: TableSpec, columns: Sequence[bytes], count: int, length: int) -> bytes:
    """FileMetaData."""
    schema = [_struct((4, _BINARY, _binary("schema")), _i32(5, len(columns)))]
    for column in spec.columns:
        kind = _INT64 if column.type == "int64" else _BYTE_ARRAY
        fields = [_i32(1, kind), _i32(3, _REQUIRED), (4, _BINARY, _binary(column.name))]
        if column.type == "string":
            fields.append(_i32(6, _UTF8))
        schema.append(_struct(*fields))
    group = _struct(_list(1, _STRUCT, columns), _i64(2, length), _i64(3, count))
    return _struct(
        _i32(1, 2), _list(2, _STRUCT, schema), _i64(3, count), _list(4, _STRUCT, [group])
    )


# Thrift's compact protocol: a field is (id, type, its bytes).


def _zigzag(value: int) -> bytes:
    return varint(value << 1)  # nothing here is negative


def _binary(text: str) -> bytes:
    data = text.encode()
    return varint(len(data)) + data


def _i32(number: int, value: int) -> tuple[int, int, bytes]:
    return number, _I32, _zigzag(value)


def _i64(number: int, value: int) -> tuple[int, int, bytes]:
    return number, _I64, _zigzag(value)


def _list(number: int, kind: int, items: Sequence[bytes]) -> tuple[int, int, bytes]:
    count = len(items)
    head = bytes([count << 4 | kind]) if count < 15 else bytes([0xF0 | kind]) + varint(count)
    return number, _LIST, head + b"".join(items)


def _struct(*fields: tuple[int, int, bytes]) -> bytes:
    out = bytearray()
    last = 0
    for number, kind, data in fields:
        out.append(number - last << 4 | kind)
        out += data
        last = number
    return bytes(out) + b"\0"
