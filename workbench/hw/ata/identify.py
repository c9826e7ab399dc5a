"""IDENTIFY DEVICE and IDENTIFY PACKET DEVICE data (ATA/ATAPI-7 volume 1, 6.17 and 6.18)."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final

from workbench.hw.ata.drive import DriveState

__all__ = ["MOST_LBA28", "MOST_MULTIPLE", "disk_words", "geometry", "packet_words", "to_bytes"]

MOST_MULTIPLE: Final = 16
MOST_LBA28: Final = 0x0FFF_FFFF
MOST_UDMA, MOST_MWDMA = 5, 2
TRIM_BLOCKS: Final = 8  # 512-byte blocks of ranges in one DATA SET MANAGEMENT


def to_bytes(words: Mapping[int, int]) -> bytes:
    """256 words, with the integrity word at the end."""
    raw = bytearray(struct.pack("<256H", *(words.get(n, 0) for n in range(256))))
    raw[510] = 0xA5
    raw[511] = -sum(raw[:511]) & 0xFF
    return bytes(raw)


def _text(words: dict[int, int], first: int, count: int, text: str) -> None:
    raw = text.encode("ascii", "replace")[: 2 * count].ljust(2 * count)
    for n in range(count):
        words[first + n] = raw[2 * n] << 8 | raw[2 * n + 1]


def _long(words: dict[int, int], first: int, count: int, value: int) -> None:
    for n in range(count):
        words[first + n] = value >> 16 * n & 0xFFFF


def geometry(sectors: int) -> tuple[int, int, int]:
    """Default cylinders, heads and sectors per track."""
    return max(1, min(16383, sectors // (16 * 63))), 16, 63


def _modes(words: dict[int, int], mode: int) -> None:
    """Words 63 and 88: modes supported, and the selected one."""
    multiword, ultra = (1 << MOST_MWDMA + 1) - 1, (1 << MOST_UDMA + 1) - 1
    number = mode & 7
    if mode >> 3 == 4:
        multiword |= 1 << 8 + number
    elif mode >> 3 == 8:
        ultra |= 1 << 8 + number
    words[63], words[88] = multiword, ultra


def disk_words(
    state: DriveState, sectors: int, serial: str, firmware: str, model: str, *, second: bool
) -> dict[int, int]:
    """Words of a disk."""
    cylinders, heads, per_track = geometry(sectors)
    now = max(
        1, min(65535, min(sectors, 16383 * 16 * 63) // (state.heads * state.sectors_per_track))
    )
    words = {
        0: 0x0040,
        1: cylinders,
        3: heads,
        6: per_track,
        47: 0x8000 | MOST_MULTIPLE,
        49: 0x0F00,  # LBA, DMA, IORDY
        50: 0x4000,
        51: 0x0200,
        53: 0x0007,
        54: now,
        55: state.heads,
        56: state.sectors_per_track,
        59: 0x0100 | state.multiple if state.multiple else 0,
        64: 0x0003,
        65: 120,
        66: 120,
        67: 120,
        68: 120,
        69: 0x4020,  # trimmed sectors read as zeros
        80: 0x00FE,
        # SMART, power management, write cache, look-ahead, WRITE and READ BUFFER, NOP
        82: 0x7069,
        83: 0x7400,  # 48-bit, FLUSH CACHE, FLUSH CACHE EXT
        84: 0x4041,  # WRITE DMA FUA EXT, SMART error logging
        85: 0x7008 | state.smart | state.write_cache << 5 | state.look_ahead << 6,
        86: 0x3400,
        87: 0x4041,
        93: 0x4600 | 0x2000 if second else 0x6001,
        105: TRIM_BLOCKS,
        106: 0x4000,
        169: 0x0001,
    }
    _text(words, 10, 10, serial)
    _text(words, 23, 4, firmware)
    _text(words, 27, 20, model)
    _long(words, 57, 2, now * state.heads * state.sectors_per_track)
    _long(words, 60, 2, min(sectors, MOST_LBA28))
    _long(words, 100, 4, sectors)
    _modes(words, state.transfer_mode)
    return words


def packet_words(state: DriveState, serial: str, firmware: str, model: str) -> dict[int, int]:
    """Words of a CD-ROM drive."""
    words = {
        0: 0x85C0,  # ATAPI, CD-ROM, removable, DRQ within 50 us, 12-byte packets
        49: 0x0B00,  # LBA, DMA, IORDY
        50: 0x4000,
        53: 0x0006,
        64: 0x0003,
        65: 120,
        66: 120,
        67: 120,
        68: 120,
        80: 0x00FE,
        82: 0x4218,  # PACKET, power management, DEVICE RESET, NOP
        83: 0x4000,
        84: 0x4000,
        85: 0x4218,
        87: 0x4000,
        93: 0x6001,
    }
    _text(words, 10, 10, serial)
    _text(words, 23, 4, firmware)
    _text(words, 27, 20, model)
    _modes(words, state.transfer_mode)
    return words
