"""Columns become arrays and lists as Arrow's own conversion makes them, sliced or in pieces."""

from __future__ import annotations

import subprocess
import sys

import pyarrow as pa
import pytest

from workbench.trace import columns

NUMBERS = [0, 1, 2**63 - 1, 7]
COLUMNS = [
    pa.chunked_array([pa.array(NUMBERS, pa.int64())]),
    pa.chunked_array([pa.array(NUMBERS, pa.uint64()).slice(1), pa.array([5], pa.uint64())]),
    pa.chunked_array([pa.array([1, 2, 255], pa.uint8()).slice(1, 1)]),
    pa.chunked_array([pa.array([True, False, True, True]).slice(1), pa.array([False])]),
    pa.chunked_array([], pa.uint32()),
]
NAMES = pa.chunked_array(
    [pa.array(["a", "b", "a"]).dictionary_encode(), pa.array(["c", "b"]).dictionary_encode()]
)


@pytest.mark.parametrize("column", COLUMNS, ids=lambda c: str(c.type))
def test_numbers(column: pa.ChunkedArray) -> None:
    plain = column.to_pylist()
    assert columns.values(column) == plain
    assert columns.integers(column).tolist() == [int(n) for n in plain]
    assert columns.words(column).tolist() == [int(n) for n in plain]
    codes, found = columns.coded(column)
    assert [found[code] for code in codes.tolist()] == plain
    assert len(found) == len(set(found))


def test_names() -> None:
    codes, names = columns.coded(NAMES)
    assert names == ["a", "b", "c"]
    assert codes.tolist() == [0, 1, 0, 2, 1]
    assert columns.values(NAMES) == ["a", "b", "a", "c", "b"]


def test_pandas_is_not_imported() -> None:
    code = (
        "import sys, pyarrow as pa; from workbench.trace import columns;"
        "part = pa.Array.from_buffers(pa.int64(), 2, [None, pa.py_buffer(bytes(16))]);"
        "column = pa.chunked_array([part]);"
        "columns.values(column); columns.coded(column); sys.exit('pandas' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
