"""Columns of Arrow tables as NumPy arrays and lists.

Arrow's own conversion imports pandas wherever that is installed, which takes longer than most of
what is done here; the buffers of numbers are taken as they are instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

Ints = np.ndarray[Any, np.dtype[np.int64]]
Words = np.ndarray[Any, np.dtype[np.uint64]]
_DENSE: Final = 1 << 16
_SPARSE: Final = 64
"""Up to so many times its length, an array of what is there is faster than a hash table."""


def _numbers(part: pa.Array) -> np.ndarray[Any, Any]:
    """One chunk without nulls; a flag is 0 or 1."""
    import pyarrow as pa

    buffer = part.buffers()[1]
    flags = pa.types.is_boolean(part.type)
    dtype = np.dtype(np.uint8) if flags else np.dtype(str(part.type))
    if buffer is None or not len(part):
        return np.empty(0, dtype)
    if flags:
        first, skip = divmod(part.offset, 8)
        bits = np.frombuffer(buffer, np.uint8, -(-(skip + len(part)) // 8), first)
        return np.unpackbits(bits, count=skip + len(part), bitorder="little")[skip:]
    return np.frombuffer(buffer, dtype, len(part), part.offset * dtype.itemsize)


def words(column: pa.ChunkedArray) -> Words:
    """A column of numbers as 64-bit words."""
    parts = [_numbers(part).astype(np.uint64, copy=False) for part in column.chunks]
    return parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, np.uint64), *parts])


def integers(column: pa.ChunkedArray) -> Ints:
    """A column of numbers or flags as signed 64-bit numbers."""
    parts = [_numbers(part).astype(np.int64, copy=False) for part in column.chunks]
    return parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, np.int64), *parts])


def coded(column: pa.ChunkedArray) -> tuple[Ints, list[Any]]:
    """Dictionary codes of a column, and what they stand for."""
    import pyarrow as pa

    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    chunks = (column if column.num_chunks == 1 else column.unify_dictionaries()).chunks
    codes = [_numbers(part.indices).astype(np.int64, copy=False) for part in chunks]
    names = chunks[0].dictionary.to_pylist() if chunks else []
    return codes[0] if len(codes) == 1 else np.concatenate([np.empty(0, np.int64), *codes]), names


def encode(numbers: Ints) -> tuple[Ints, Ints]:
    """Different numbers, none of them negative, and for each number its place among them, in a new
    array.
    """
    most = int(numbers.max(initial=0))
    if most < _SPARSE * len(numbers) + _DENSE:
        there = np.zeros(most + 1, np.bool_)
        there[numbers] = True
        found = np.flatnonzero(there)
        place = np.empty(most + 1, np.int64)
        place[found] = np.arange(len(found))
        return found, place[numbers]
    codes, known = _hashed(np.ascontiguousarray(numbers))
    return np.array(known, np.int64), codes


def encode_words(numbers: Words) -> tuple[Words, Ints]:
    """The same for numbers of any size, of which most are small."""
    large = np.flatnonzero(numbers >= _DENSE)
    small = numbers.astype(np.int64)
    if not len(large):
        different, codes = encode(small)
        return different.view(np.uint64), codes
    of_large, known = _hashed(numbers[large])
    small[large] = of_large + _DENSE
    different, codes = encode(small)
    found = different.view(np.uint64)
    first = int(np.searchsorted(different, _DENSE))
    found[first:] = np.array(known, np.uint64)[different[first:] - _DENSE]
    return found, codes


def _hashed(numbers: Ints | Words) -> tuple[Ints, list[Any]]:
    import pyarrow as pa

    return coded(pa.chunked_array([as_arrow(numbers)]))


def as_arrow(numbers: Ints | Words) -> pa.Array:
    """An Arrow array of numbers."""
    import pyarrow as pa

    kind = pa.type_for_alias(str(numbers.dtype))
    return pa.Array.from_buffers(kind, len(numbers), [None, pa.py_buffer(numbers)])


def pieces_of(data: bytes | np.ndarray[Any, Any], lengths: Ints, kind: pa.DataType) -> pa.Array:
    """An Arrow array (`large_string`, `large_binary`) of bytes that are one after the other."""
    import pyarrow as pa

    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data)]
    return pa.Array.from_buffers(kind, len(lengths), buffers)


def values(column: pa.ChunkedArray, rows: Ints | None = None) -> list[Any]:
    """A column of numbers, flags or names as a list; of all rows, or of some in rising order."""
    import pyarrow as pa

    if rows is not None and len(rows) == len(column):
        rows = None
    if pa.types.is_dictionary(column.type):
        codes, names = coded(column)
        return [names[code] for code in (codes if rows is None else codes[rows]).tolist()]
    parts = [_numbers(part) for part in column.chunks]
    numbers = parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, np.uint8), *parts])
    if rows is not None:
        numbers = numbers[rows]
    found: list[Any] = (
        numbers.astype(bool) if pa.types.is_boolean(column.type) else numbers
    ).tolist()
    return found
