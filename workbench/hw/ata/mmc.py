"""What a CD-ROM drive with one data track replies to a packet (MMC-3 6.1, SPC-2 7).

Functions take the packet of 12 bytes and what they have to know of the drive, and give the whole
reply, which the drive cuts to the allocation length. SenseError is CHECK CONDITION.
"""

from __future__ import annotations

from typing import Final

from workbench.hw.ata import rawsector
from workbench.hw.ata.rawsector import PREGAP

__all__ = [
    "ILLEGAL_MODE",
    "INVALID_FIELD",
    "SenseError",
    "configuration",
    "disc_information",
    "inquiry",
    "mode_pages",
    "msf_block",
    "read_cd_parts",
    "sense_data",
    "sub_channel",
    "toc",
    "u16",
    "u32",
]

DATA_TRACK: Final = 0x14  # ADR 1 (position), CONTROL 4 (data)

# key << 16 | ASC << 8 | ASCQ
INVALID_FIELD: Final = 0x052400
NO_SAVED_PARAMETERS: Final = 0x053900
ILLEGAL_MODE: Final = 0x056400


class SenseError(Exception):
    """CHECK CONDITION."""

    def __init__(self, sense: int) -> None:
        super().__init__(f"{sense:06x}")
        self.sense = sense


def u16(packet: bytes, at: int) -> int:
    """A number of two bytes."""
    return int.from_bytes(packet[at : at + 2], "big")


def u32(packet: bytes, at: int) -> int:
    """A number of four bytes."""
    return int.from_bytes(packet[at : at + 4], "big")


def _address(block: int, msf: bool) -> bytes:
    """Four bytes: a logical block, or minutes, seconds and frames."""
    if not msf:
        return block.to_bytes(4, "big")
    frames = block + PREGAP
    return bytes((0, min(frames // 4500, 255), frames // 75 % 60, frames % 75))


def sense_data(sense: int) -> bytes:
    """Sense data in the fixed format (SPC-2 7.20)."""
    data = bytearray(18)
    data[0] = 0x70
    data[2], data[7] = sense >> 16, 10
    data[12], data[13] = sense >> 8 & 0xFF, sense & 0xFF
    return bytes(data)


def inquiry(packet: bytes, model: str, firmware: str, serial: str) -> bytes:
    """Standard data, or of the vital product data pages 00h (which there are) and 80h (serial
    number).
    """
    if packet[1] & 1:
        number = serial.encode("ascii", "replace")[:20]
        pages = {0x00: b"\x00\x80", 0x80: number}
        if packet[2] not in pages:
            raise SenseError(INVALID_FIELD)
        body = pages[packet[2]]
        return bytes((0x05, packet[2], 0, len(body))) + body
    if packet[2]:
        raise SenseError(INVALID_FIELD)
    data = bytearray(36)
    data[0], data[1], data[2], data[3], data[4] = 0x05, 0x80, 0x00, 0x21, 31
    data[8:16] = b"WORKBNCH"
    data[16:32] = model.encode("ascii", "replace")[:16].ljust(16)
    data[32:36] = firmware.encode("ascii", "replace")[:4].ljust(4)
    return bytes(data)


def toc(packet: bytes, blocks: int) -> bytes:
    """Formats 0 (tracks), 1 (sessions) and 2 (full), in LBA or MSF; byte 9 is SFF-8020's place of
    the format.
    """
    msf = bool(packet[1] & 2)
    match packet[2] & 0xF or packet[9] >> 6:
        case 0:
            start = packet[6]
            if start > 1 and start != 0xAA:
                raise SenseError(INVALID_FIELD)
            body = b"" if start == 0xAA else b"\0\x14\x01\0" + _address(0, msf)
            body += b"\0\x16\xaa\0" + _address(blocks, msf)
        case 1:
            body = b"\0\x14\x01\0" + _address(0, msf)
        case 2:
            body = b""
            for point, where in ((0xA0, None), (0xA1, None), (0xA2, blocks), (1, 0)):
                place = b"\0\1\0\0" if where is None else _address(where, True)
                body += bytes((1, DATA_TRACK, 0, point, 0, 0, 0)) + place
        case _:
            raise SenseError(INVALID_FIELD)
    return (len(body) + 2).to_bytes(2, "big") + b"\1\1" + body


def sub_channel(packet: bytes) -> bytes:
    """READ SUB-CHANNEL: nothing plays, the position is the start; no catalogue number, no ISRC."""
    msf = bool(packet[1] & 2)
    if not packet[2] & 0x40:
        body = b""
    elif packet[3] == 1:
        body = bytes((1, DATA_TRACK, 1, 1)) + 2 * _address(0, msf)
    elif packet[3] == 2:
        body = b"\2".ljust(20, b"\0")
    elif packet[3] == 3:
        body = bytes((3, DATA_TRACK, 1)).ljust(20, b"\0")
    else:
        raise SenseError(INVALID_FIELD)
    return b"\0\x15" + len(body).to_bytes(2, "big") + body


def disc_information(packet: bytes) -> bytes:
    """READ DISC INFORMATION: one complete session of one track."""
    if packet[1] & 7:  # tracks and POWs: later than MMC-3, for recorders
        raise SenseError(INVALID_FIELD)
    data = bytearray(34)
    data[1], data[2], data[3], data[4], data[5], data[6] = 32, 0x0E, 1, 1, 1, 1
    data[7] = 0x20
    return bytes(data)


def configuration(packet: bytes, present: bool) -> bytes:
    """GET CONFIGURATION: profile CD-ROM; features profile list, core, removable medium and CD read
    (MMC-3 5.3).
    """
    wanted, kind = u16(packet, 2), packet[1] & 3
    if kind == 3:
        raise SenseError(INVALID_FIELD)
    features = {
        0x0000: bytes((0x03, 0x04, 0x00, 0x08, int(present), 0x00)),
        0x0001: bytes((0x03, 0x04, 0x00, 0x00, 0x00, 0x02)),
        0x0003: bytes((0x03, 0x04, 0x29, 0x00, 0x00, 0x00)),
        0x001E: bytes((int(present), 0x00)),
    }
    body = b"".join(
        number.to_bytes(2, "big") + data
        for number, data in features.items()
        if (number == wanted if kind == 2 else number >= wanted) and (kind != 1 or data[0] & 1)
    )
    head = b"\0\0" + (8 if present else 0).to_bytes(2, "big")
    return (len(body) + 4).to_bytes(4, "big") + head + body


def mode_pages(packet: bytes, locked: bool) -> bytes:
    """Pages of MODE SENSE: nothing in them can be changed or saved."""
    control, wanted = packet[2] >> 6, packet[2] & 0x3F
    if control == 3:
        raise SenseError(NO_SAVED_PARAMETERS)
    pages = {
        0x01: bytes((0x01, 6, 0, 5, 0, 0, 0, 0)),
        0x0E: bytes((0x0E, 14, 4, 0, 0, 0, 0, 75, 1, 0xFF, 2, 0xFF, 0, 0, 0, 0)),
        # reads no CD-R; mode 2, multisession; lock, eject, tray; 706 kB/s
        0x2A: bytes((0x2A, 18, 0, 0, 0x70, 0, 0x29 | locked << 1, 0))
        + bytes((2, 0xC2, 0, 2, 2, 0, 2, 0xC2, 0, 0, 0, 0)),
    }
    if control == 1:
        pages = {number: page[:2].ljust(len(page), b"\0") for number, page in pages.items()}
    if wanted == 0x3F:
        return b"".join(pages.values())
    if wanted not in pages:
        raise SenseError(INVALID_FIELD)
    return pages[wanted]


def msf_block(address: bytes) -> int:
    """The logical block of minute, second and frame (MMC-3 4.2.8.4)."""
    minute, second, frame = address
    if second > 59 or frame > 74 or (minute == 0 and second < 2):
        raise SenseError(INVALID_FIELD)
    return (minute * 60 + second) * 75 + frame - PREGAP


def read_cd_parts(packet: bytes) -> int:
    """READ CD: the parts of a sector of mode 1 that are asked for (`rawsector`). Refused are parts
    that do not lie together, error flags, sub-channels, and sectors of another type.
    """
    kind, parts = packet[1] >> 2 & 7, packet[9] & 0xFE
    if kind not in (0, 2):
        raise SenseError(ILLEGAL_MODE)
    if parts & 6 or packet[10] & 7 or not rawsector.is_one_piece(parts):
        raise SenseError(INVALID_FIELD)
    return parts
