"""Sectors of mode 1 as they are on a CD: what is around their 2,048 bytes of data (ECMA-130, 14 and
annexes A and B), and which parts of it READ CD gives (MMC-3 6.1.15).
"""

from __future__ import annotations

import functools
import itertools
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Bytes = npt.NDArray[np.uint8]

__all__ = ["PARTS", "PREGAP", "USER_DATA", "cut", "frame_bytes", "is_one_piece"]

DATA_BYTES: Final = 2048
SECTOR_BYTES: Final = 2352
PREGAP: Final = 150  # frames before logical block 0
SYNC: Final = b"\0" + b"\xff" * 10 + b"\0"
DATA_AT, EDC_AT, P_AT, Q_AT = 16, 2064, 2076, 2248
EDC_POLYNOMIAL: Final = 0xD8018001  # x^32+x^31+x^16+x^15+x^4+x^3+x+1, the least power last
USER_DATA: Final = 0x10
PARTS: Final = ((0x80, 0, 12), (0x20, 12, 16), (0x10, 16, 2064), (0x08, 2064, 2352))
"""Bits of byte 9 of READ CD: sync, header (its upper bit is the subheader, of which mode 1 has
none), user data, EDC and ECC; each with its place in the sector.
"""


def _places(parts: int) -> list[tuple[int, int]]:
    return [(start, end) for bit, start, end in PARTS if parts & bit]


def frame_bytes(parts: int) -> int:
    """Length of what READ CD gives of a sector."""
    return sum(end - start for start, end in _places(parts))


def is_one_piece(parts: int) -> bool:
    """Whether the parts lie together; a drive gives no others, nor EDC and ECC without data."""
    places = _places(parts)
    joined = all(a[1] == b[0] for a, b in itertools.pairwise(places))
    return joined and not (parts & 0x08 and not parts & USER_DATA)


def cut(data: bytes, block: int, parts: int) -> bytes:
    """The parts of whole sectors with these data, the first of them at logical block `block`."""
    import numpy as np

    count = len(data) // DATA_BYTES
    raw = np.zeros((count, SECTOR_BYTES), np.uint8)
    raw[:, :12] = np.frombuffer(SYNC, np.uint8)
    raw[:, 12:16] = np.frombuffer(
        b"".join(map(_header, range(block, block + count))), np.uint8
    ).reshape(-1, 4)
    raw[:, DATA_AT:EDC_AT] = np.frombuffer(data, np.uint8).reshape(count, DATA_BYTES)
    if parts & 0x08:
        _protect(raw)
    places = _places(parts)
    return raw[:, places[0][0] : places[-1][1]].tobytes() if places else b""


def _header(block: int) -> bytes:
    """Minute, second and frame in BCD, and the mode."""
    frames = block + PREGAP
    fields = frames // 4500 % 100, frames // 75 % 60, frames % 75
    return bytes(n // 10 << 4 | n % 10 for n in fields) + b"\1"


def _protect(raw: Bytes) -> None:
    """EDC, P and Q of sectors, in their places."""
    import numpy as np

    edc = np.bitwise_xor.reduce(_edc_table()[np.arange(EDC_AT), raw[:, :EDC_AT]], axis=1)
    raw[:, EDC_AT : EDC_AT + 4] = edc.astype("<u4").view(np.uint8).reshape(-1, 4)
    p, q = _words()
    for words, rows, at in ((p, 24, P_AT), (q, 43, Q_AT)):
        width = words.shape[1]
        sum_, weighted = (np.zeros((len(raw), width), np.uint8) for _ in range(2))
        times = _times()
        for n in range(rows):
            part = raw[:, words[n]]
            sum_ ^= part
            weighted = times[0][weighted ^ part]
        first = times[1][sum_ ^ times[0][weighted]]
        raw[:, at : at + width] = first
        raw[:, at + width : at + 2 * width] = sum_ ^ first


@functools.cache
def _edc_table() -> npt.NDArray[np.uint32]:
    """What each value of each byte adds to the EDC, which is linear: [place, value]."""
    import numpy as np

    crc: npt.NDArray[np.uint32] = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        crc = (crc >> 1 ^ np.where(crc & 1, EDC_POLYNOMIAL, 0)).astype(np.uint32)
    table = np.empty((EDC_AT, 256), np.uint32)
    table[-1] = crc
    for place in range(EDC_AT - 2, -1, -1):
        later = table[place + 1]
        table[place] = later >> 8 ^ crc[later & 0xFF]
    return table


@functools.cache
def _times() -> tuple[Bytes, Bytes]:
    """In GF(2^8) of x^8+x^4+x^3+x^2+1: each byte times alpha, and divided by alpha + 1."""
    import numpy as np

    by_alpha = np.array([n << 1 ^ (0x11D if n & 0x80 else 0) for n in range(256)], np.uint8)
    divided = np.empty(256, np.uint8)
    divided[by_alpha ^ np.arange(256, dtype=np.uint8)] = np.arange(256, dtype=np.uint8)
    return by_alpha, divided


@functools.cache
def _words() -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Places of the bytes of the code words P (columns) and Q (diagonals): [place in it, word]."""
    import numpy as np

    p = 12 + np.arange(86) + 86 * np.arange(24)[:, None]
    column, low = np.divmod(np.arange(52), 2)
    q = 12 + 2 * ((44 * np.arange(43)[:, None] + 43 * column) % 1118) + low
    return p, q
