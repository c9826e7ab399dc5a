"""Tables of big-endian 64-bit entries, as an array of the host."""

from __future__ import annotations

import sys
from array import array


def decode_table(raw: bytes) -> array[int]:
    """Entries of a table; a rest of less than an entry is dropped."""
    table = array("Q", raw[: len(raw) // 8 * 8])
    if sys.byteorder == "little":
        table.byteswap()
    return table


def encode_table(table: array[int]) -> bytes:
    """The bytes of a table in the file."""
    if sys.byteorder == "big":
        return table.tobytes()
    swapped = array("Q", table)
    swapped.byteswap()
    return swapped.tobytes()
