"""JSON lines: every event in order, one object a line, the columns of its table by name.

Lines are put together by columns, and those of the tables of a group in order by taking them.
"""

from __future__ import annotations

import json
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from workbench.trace import tables
from workbench.trace.columns import as_arrow, coded, integers, pieces_of
from workbench.trace.reader import Trace

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["write_json_lines"]

_encode = json.JSONEncoder(separators=(",", ":")).encode


def write_json_lines(trace: Trace, file: IO[bytes]) -> int:
    """Write all events, each with its `seq` and `table`; returns their number.

    The first line is the header, with `table` "header". Bytes are hex digits.
    """
    import pyarrow as pa

    file.write(_encode({"table": "header", **trace.header.to_json()}).encode() + b"\n")
    count = 0
    for group in trace.table_groups():
        parts = [(name, table) for name, pieces in group.items() for table in pieces]
        lines = pa.concat_arrays([_lines(name, table) for name, table in parts])
        order = np.argsort(np.concatenate([integers(table[tables.SEQ]) for _, table in parts]))
        lines = lines.take(as_arrow(order))
        _, offsets, data = lines.buffers()
        ends = np.frombuffer(offsets, np.int64, len(lines) + 1)
        file.write(memoryview(data)[: int(ends[-1])])
        count += len(lines)
    return count


def _lines(name: str, table: pa.Table) -> pa.Array:
    """A line for each row of a table."""
    import pyarrow as pa
    import pyarrow.compute as pc

    parts: list[Any] = []
    before = "{"
    for column in tables.BY_NAME[name].columns:
        parts += [f'{before}"{column.name}":', _texts(table[column.name])]
        before = f',"table":"{name}",' if column.name == tables.SEQ else ","
    kind = pa.large_string()
    texts = [pa.scalar(part, kind) if isinstance(part, str) else part for part in parts]
    return pc.binary_join_element_wise(*texts, pa.scalar("}\n", kind), pa.scalar("", kind))


def _texts(column: pa.ChunkedArray) -> pa.Array:
    """The values of a column as JSON."""
    import pyarrow as pa

    if pa.types.is_binary(column.type):
        return _array([f'"{data.hex()}"' for data in column.to_pylist()])
    if pa.types.is_dictionary(column.type):
        codes, names = coded(column)
        return _array([_encode(name) for name in names]).take(as_arrow(codes))
    if pa.types.is_boolean(column.type):
        return _array(["false", "true"]).take(as_arrow(integers(column)))
    return column.cast(pa.large_string()).combine_chunks()


def _array(texts: list[str]) -> pa.Array:
    import pyarrow as pa

    lengths = np.array([*map(len, texts)], np.int64)
    return pieces_of("".join(texts).encode(), lengths, pa.large_string())  # JSON is ASCII
