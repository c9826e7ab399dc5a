"""Reading captures of the newer format (draft-ietf-opsawg-pcapng): what Wireshark writes.

Frames of all Ethernet interfaces, in the file's order. Blocks that hold no frames are passed over;
a frame of a simple packet block, which has no time, gets that of the frame before it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO, Final

from workbench.errors import FormatError

__all__ = ["SECTION", "blocks_to_frames"]

SECTION: Final = b"\x0a\x0d\x0d\x0a"  # the same in both byte orders
BYTE_ORDER: Final = 0x1A2B3C4D
INTERFACE, SIMPLE, ENHANCED = 1, 3, 6
IF_TSRESOL: Final = 9
MOST_BYTES: Final = 1 << 24
MOST_INTERFACES: Final = 4096
LINKTYPE_ETHERNET: Final = 1
NS_PER_S: Final = 1_000_000_000


def blocks_to_frames(file: BinaryIO, path: str) -> Iterator[tuple[int, int, bytes]]:
    """(time in ns, length on the wire, bytes kept) of each frame of `file`, from its start on.

    Raises FormatError.
    """
    order = "<"
    units: list[int | None] = []  # units of time in a second, by interface; None: no Ethernet
    time_ns = at = 0
    while head := file.read(8):
        if head[:4] == SECTION:
            mark = file.read(4)
            order = "<" if mark == struct.pack("<I", BYTE_ORDER) else ">"
            if mark != struct.pack(order + "I", BYTE_ORDER):
                raise FormatError("expected a byte-order magic", path=path, offset=at + 8)
            units = []
        else:
            mark = b""
        kind, length = struct.unpack(order + "2I", head) if len(head) == 8 else (0, 0)
        if not 12 <= length <= MOST_BYTES or length % 4:
            raise FormatError(f"expected a whole block, not {length} bytes", path=path, offset=at)
        body = mark + file.read(length - 8 - len(mark))
        if len(body) != length - 8:
            raise FormatError("a block is cut short", path=path, offset=at)
        body = body[:-4]
        if kind == INTERFACE and len(body) >= 8 and len(units) < MOST_INTERFACES:
            ethernet = struct.unpack_from(order + "H", body)[0] == LINKTYPE_ETHERNET
            units.append(_resolution(order, body[8:]) if ethernet else None)
        elif kind == ENHANCED and len(body) >= 20:
            number, high, low, kept, wire = struct.unpack_from(order + "5I", body)
            unit = units[number] if number < len(units) else None
            if unit is not None and kept <= len(body) - 20:
                time_ns = (high << 32 | low) * NS_PER_S // unit
                yield time_ns, wire, body[20 : 20 + kept]
        elif kind == SIMPLE and len(body) >= 4 and units and units[0] is not None:
            wire = struct.unpack_from(order + "I", body)[0]
            yield time_ns, wire, body[4 : 4 + wire]
        at += length


def _resolution(order: str, options: bytes) -> int:
    """if_tsresol of an interface: units in a second."""
    at = 0
    while at + 4 <= len(options):
        code, length = struct.unpack_from(order + "2H", options, at)
        if code == IF_TSRESOL and length == 1 and at + 5 <= len(options):
            value = options[at + 4]
            return int(1 << (value & 0x7F) if value & 0x80 else 10 ** (value & 0x7F))
        if code == 0:
            break
        at += 4 + (length + 3 & ~3)
    return 1_000_000
