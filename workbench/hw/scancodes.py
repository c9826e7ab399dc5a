"""Keyboard scan codes: the translation of set 2 to set 1 that the 8042 does (IBM PS/2 TR,
keyboard)."""

from __future__ import annotations

__all__ = ["SET2_OF_SET1", "press", "translate"]

SET2_OF_SET1 = bytes.fromhex(
    "00 76 16 1e 26 25 2e 36 3d 3e 46 45 4e 55 66 0d"
    "15 1d 24 2d 2c 35 3c 43 44 4d 54 5b 5a 14 1c 1b"
    "23 2b 34 33 3b 42 4b 4c 52 0e 12 5d 1a 22 21 2a"
    "32 31 3a 41 49 4a 59 7c 11 29 58 05 06 04 0c 03"
    "0b 02 0a 01 09 77 7e 6c 75 7d 7b 6b 73 74 79 69"
    "72 7a 70 71 7f 60 61 78 07 0f 17 1f 27 2f 37 3f"
    "47 4f 56 5e 08 10 18 20 28 30 38 40 48 50 57 6f"
    "13 19 39 51 53 5c 5f 62 63 64 65 67 68 6a 6d 6e"
)
"""Set 2 code of each set 1 code 0x00-0x7F."""

_SET1_OF_SET2 = {code: i for i, code in enumerate(SET2_OF_SET1) if i} | {
    0x83: 0x41,
    0x84: 0x54,
    0: 0xFF,
}


def translate(code: int) -> int:
    """The set 1 byte for a set 2 byte; bytes from 0x80 on (prefixes, answers) pass except F7 and
    SysRq.
    """
    return _SET1_OF_SET2.get(code, code)


def press(*set1: int) -> bytes:
    """Set 2 bytes of pressing the keys with these set 1 codes in order and releasing them in
    reverse.
    """
    down = bytes(SET2_OF_SET1[code] for code in set1)
    return down + b"".join(bytes((0xF0, code)) for code in reversed(down))
