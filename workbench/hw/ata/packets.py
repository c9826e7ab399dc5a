"""Names of packet commands (MMC-3 6.1, SPC-2 7) and sense keys, and what a packet asks for."""

from __future__ import annotations

from typing import Final

from workbench.hw.ata.rawsector import PREGAP, frame_bytes

__all__ = ["SENSE_KEYS", "describe_packet"]

CD_BYTES: Final = 2048

# Operation code: name, place and size of the allocation length in the packet.
PACKETS: Final[dict[int, tuple[str, int, int]]] = {
    0x00: ("TEST UNIT READY", 0, 0),
    0x03: ("REQUEST SENSE", 4, 1),
    0x12: ("INQUIRY", 4, 1),
    0x1A: ("MODE SENSE(6)", 4, 1),
    0x1B: ("START STOP UNIT", 0, 0),
    0x1E: ("PREVENT ALLOW MEDIUM REMOVAL", 0, 0),
    0x25: ("READ CAPACITY", 0, 0),
    0x28: ("READ(10)", 0, 0),
    0x2B: ("SEEK(10)", 0, 0),
    0x42: ("READ SUB-CHANNEL", 7, 2),
    0x43: ("READ TOC/PMA/ATIP", 7, 2),
    0x46: ("GET CONFIGURATION", 7, 2),
    0x4A: ("GET EVENT STATUS NOTIFICATION", 7, 2),
    0x51: ("READ DISC INFORMATION", 7, 2),
    0x5A: ("MODE SENSE(10)", 7, 2),
    0xA8: ("READ(12)", 0, 0),
    0xB9: ("READ CD MSF", 0, 0),
    0xBB: ("SET CD SPEED", 0, 0),
    0xBD: ("MECHANISM STATUS", 8, 2),
    0xBE: ("READ CD", 0, 0),
}
READ_CAPACITY_BYTES: Final = 8

SENSE_KEYS: Final = {
    0x1: "RECOVERED ERROR",
    0x2: "NOT READY",
    0x3: "MEDIUM ERROR",
    0x4: "HARDWARE ERROR",
    0x5: "ILLEGAL REQUEST",
    0x6: "UNIT ATTENTION",
    0x7: "DATA PROTECT",
    0xB: "ABORTED COMMAND",
}


def describe_packet(packet: bytes) -> tuple[str, int, int]:
    """Name, logical block and bytes of a packet of 12 bytes; bytes that the host has room for."""
    code = packet[0]
    name, at, size = PACKETS.get(code, (f"packet {code:02X}h", 0, 0))
    block = int.from_bytes(packet[2:6], "big") if code in (0x28, 0x2B, 0xA8, 0xBE) else 0
    match code:
        case 0x25:
            length = READ_CAPACITY_BYTES
        case 0x28:
            length = int.from_bytes(packet[7:9], "big") * CD_BYTES
        case 0xA8:
            length = int.from_bytes(packet[6:10], "big") * CD_BYTES
        case 0xB9:
            first, end = (_msf(packet[at : at + 3]) for at in (3, 6))
            block, length = max(first, 0), max(end - first, 0) * frame_bytes(packet[9])
        case 0xBE:
            length = int.from_bytes(packet[6:9], "big") * frame_bytes(packet[9])
        case _:
            length = int.from_bytes(packet[at : at + size], "big")
    return name, block, length


def _msf(address: bytes) -> int:
    return (address[0] * 60 + address[1]) * 75 + address[2] - PREGAP
