"""The Internet checksum's sum (RFC 1071), for networks and their controllers."""

from __future__ import annotations

__all__ = ["internet_sum"]

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
