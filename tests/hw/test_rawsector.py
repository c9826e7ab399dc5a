"""Raw sectors of a CD against the definition of their codes (ECMA-130, annexes A and B)."""

import random

import pytest

from workbench.hw.ata.rawsector import PARTS, cut, frame_bytes, is_one_piece


def times(a: int, b: int) -> int:
    """In GF(2^8) of x^8+x^4+x^3+x^2+1."""
    out = 0
    for n in range(8):
        out ^= a << n if b >> n & 1 else 0
    for n in range(15, 7, -1):
        out ^= 0x11D << n - 8 if out >> n & 1 else 0
    return out


def power(n: int) -> int:
    out = 1
    for _ in range(n):
        out = times(out, 2)
    return out


def edc(data: bytes) -> int:
    """Bit by bit."""
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xD8018001 if crc & 1 else 0)
    return crc


def test_the_codes_are_those_of_the_standard() -> None:
    assert edc(b"123456789") == 0x6EC2EDC4  # the check value of CRC-32/CD-ROM-EDC
    data = random.Random(1).randbytes(3 * 2048)
    raw = cut(data, 4350, 0xF8)
    assert len(raw) == 3 * 2352
    for n in range(3):
        sector = raw[2352 * n : 2352 * (n + 1)]
        assert sector[:12] == b"\0" + b"\xff" * 10 + b"\0"
        assert sector[12:16] == bytes((0x01, 0x00, n, 1))
        assert sector[16:2064] == data[2048 * n : 2048 * (n + 1)]
        assert sector[2064:2068] == edc(sector[:2064]).to_bytes(4, "little")
        assert sector[2068:2076] == bytes(8)
        words = [sector[12 + 2 * w : 14 + 2 * w] for w in range(1170)]
        for low in (0, 1):
            for column in range(43):
                p = [words[43 * m + column][low] for m in range(26)]
                assert_code_word(p)
            for diagonal in range(26):
                q = [words[(44 * m + 43 * diagonal) % 1118][low] for m in range(43)]
                assert_code_word([*q, words[1118 + diagonal][low], words[1144 + diagonal][low]])


def assert_code_word(word: list[int]) -> None:
    """Both products with the parity check matrix are 0."""
    plain = weighted = 0
    for n, value in enumerate(word):
        plain ^= value
        weighted ^= times(value, power(len(word) - 1 - n))
    assert (plain, weighted) == (0, 0)


@pytest.mark.parametrize(
    ("parts", "length"),
    [(0xF8, 2352), (0xB8, 2352), (0x10, 2048), (0x50, 2048), (0x18, 2336), (0x30, 2052),
     (0xB0, 2064), (0x20, 4), (0x60, 4), (0x80, 12), (0x40, 0)],
)  # fmt: skip
def test_parts(parts: int, length: int) -> None:
    assert frame_bytes(parts) == length
    assert is_one_piece(parts)
    whole, data = cut(bytes(4096), 0, 0xF8), cut(bytes(4096), 0, parts)
    assert len(data) == 2 * length
    start = min((at for bit, at, _ in PARTS if parts & bit), default=0)
    assert data[:length] == whole[start : start + length]


@pytest.mark.parametrize("parts", [0x90, 0x08, 0x28, 0x88, 0xA8, 0x98])
def test_parts_that_do_not_lie_together(parts: int) -> None:
    assert not is_one_piece(parts)
