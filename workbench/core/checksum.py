"""The Internet checksum's sum (RFC 1071), for networks and their controllers."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["internet_sum", "internet_sums"]

_PAD = (b"", b"\0\0\0", b"\0\0", b"\0")  # up to a whole 32-bit word
_LONG_BYTES = 1200  # from here on NumPy is quicker


def internet_sum(data: bytes | bytearray | memoryview) -> int:
    """Ones' complement sum of big-endian 16-bit words, an odd byte padded with 0.

    The number that the bytes are, modulo 2^16 - 1, is that sum; so is the sum of longer words, and
    the order of the bytes may be the other one, which swaps the bytes of the sum (RFC 1071, 2).
    """
    if len(data) < _LONG_BYTES:
        number = int.from_bytes(data, "big")
        if len(data) & 1:
            number <<= 8
        return number % 0xFFFF or (0xFFFF if number else 0)
    import numpy as np

    count = len(data) // 4
    total = int(np.frombuffer(data, "<u4", count).sum(dtype=np.uint64))
    total += int.from_bytes(data[4 * count :], "little")
    swapped = total % 0xFFFF or (0xFFFF if total else 0)
    return swapped >> 8 | (swapped & 0xFF) << 8


def internet_sums(pieces: Sequence[bytes]) -> list[int]:
    """The sum of each piece, of which none is empty, modulo 2^16 - 1: 0 where `internet_sum` gives
    0 or 0xFFFF.
    """
    import numpy as np

    padded: list[bytes] = []
    starts: list[int] = []
    at = 0
    for piece in pieces:
        starts.append(at)
        padded += (piece, _PAD[len(piece) & 3])
        at += len(piece) + 3 >> 2
    padded.append(bytes(4))  # no piece starts at the end
    words = np.frombuffer(b"".join(padded), "<u4")
    totals = np.add.reduceat(words, starts, dtype=np.uint64) % np.uint64(0xFFFF)
    swapped: list[int] = (
        totals >> np.uint64(8) | (totals & np.uint64(0xFF)) << np.uint64(8)
    ).tolist()
    return swapped
