"""Registers of an ATA channel: command block and control block (ATA/ATAPI-7 volume 2, clause 5).

DATA is a port with the width of the access and not part of its neighbours: a 16-bit access at
offset 0 moves one word, a 32-bit access two.
"""

from __future__ import annotations

from typing import Final

from workbench.core.regs import RO, WO, Field, Reg, RegMap

__all__ = [
    "ALTERNATE_STATUS",
    "COMMAND",
    "COMMAND_BLOCK",
    "CONTROL_BLOCK",
    "DATA",
    "DATA32",
    "DEVICE",
    "DEVICE_CONTROL",
    "ERROR",
    "FEATURES",
    "LBA_HIGH",
    "LBA_LOW",
    "LBA_MID",
    "SECTOR_COUNT",
    "STATUS",
]

# Status
BSY, DRDY, DF, DSC, DRQ, ERR = 0x80, 0x40, 0x20, 0x10, 0x08, 0x01
# Error
ABRT, IDNF, UNC = 0x04, 0x10, 0x40
# Device Control
NIEN, SRST, HOB = 0x02, 0x04, 0x80
# Device
DEV, LBA = 0x10, 0x40
DEVICE_OBSOLETE: Final = 0xA0  # bits 7 and 5, which read as ones in drives up to ATA-5

_STATUS_FIELDS = (
    Field("ERR", 0),
    Field("DRQ", 3),
    Field("DSC", 4),
    Field("DF", 5),
    Field("DRDY", 6),
    Field("BSY", 7),
)

COMMANDS: Final = {
    0x00: "NOP",
    0x06: "DATA SET MANAGEMENT",
    0x08: "DEVICE RESET",
    0x10: "RECALIBRATE",
    0x20: "READ SECTOR(S)",
    0x24: "READ SECTOR(S) EXT",
    0x25: "READ DMA EXT",
    0x27: "READ NATIVE MAX ADDRESS EXT",
    0x29: "READ MULTIPLE EXT",
    0x2F: "READ LOG EXT",
    0x30: "WRITE SECTOR(S)",
    0x34: "WRITE SECTOR(S) EXT",
    0x35: "WRITE DMA EXT",
    0x37: "SET MAX ADDRESS EXT",
    0x39: "WRITE MULTIPLE EXT",
    0x3D: "WRITE DMA FUA EXT",
    0x3F: "WRITE LOG EXT",
    0x40: "READ VERIFY SECTOR(S)",
    0x42: "READ VERIFY SECTOR(S) EXT",
    0x70: "SEEK",
    0x90: "EXECUTE DEVICE DIAGNOSTIC",
    0x91: "INITIALIZE DEVICE PARAMETERS",
    0xA0: "PACKET",
    0xA1: "IDENTIFY PACKET DEVICE",
    0xB0: "SMART",
    0xB1: "DEVICE CONFIGURATION",
    0xC4: "READ MULTIPLE",
    0xC5: "WRITE MULTIPLE",
    0xC6: "SET MULTIPLE MODE",
    0xC8: "READ DMA",
    0xCA: "WRITE DMA",
    0xCE: "WRITE MULTIPLE FUA EXT",
    0xE0: "STANDBY IMMEDIATE",
    0xE1: "IDLE IMMEDIATE",
    0xE2: "STANDBY",
    0xE3: "IDLE",
    0xE4: "READ BUFFER",
    0xE5: "CHECK POWER MODE",
    0xE6: "SLEEP",
    0xE7: "FLUSH CACHE",
    0xE8: "WRITE BUFFER",
    0xEA: "FLUSH CACHE EXT",
    0xEC: "IDENTIFY DEVICE",
    0xEF: "SET FEATURES",
    0xF1: "SECURITY SET PASSWORD",
    0xF2: "SECURITY UNLOCK",
    0xF3: "SECURITY ERASE PREPARE",
    0xF4: "SECURITY ERASE UNIT",
    0xF5: "SECURITY FREEZE LOCK",
    0xF6: "SECURITY DISABLE PASSWORD",
    0xF8: "READ NATIVE MAX ADDRESS",
    0xF9: "SET MAX ADDRESS",
}


def command_name(code: int) -> str:
    """Name of a command; the forms without retries of ATA-3 have that of the other form."""
    if code & 0xF0 == 0x10:
        return COMMANDS[0x10]
    code = {0x21: 0x20, 0x31: 0x30, 0x41: 0x40, 0xC9: 0xC8, 0xCB: 0xCA}.get(code, code)
    return COMMANDS.get(code, f"command {code:02X}h")


DATA = Reg("DATA", 0, 2, exact=True, ref="ATA-7 5.7")
DATA32 = Reg("DATA", 0, 4, exact=True, ref="ATA-7 5.7")
ERROR = Reg(
    "ERROR", 1, 1, access=RO,
    fields=(Field("ABRT", 2), Field("IDNF", 4), Field("UNC", 6), Field("ICRC", 7)),
    ref="ATA-7 5.10",
)  # fmt: skip
FEATURES = Reg("FEATURES", 1, 1, access=WO, ref="ATA-7 5.11")
SECTOR_COUNT = Reg("SECTOR_COUNT", 2, 1, ref="ATA-7 5.15")
LBA_LOW = Reg("LBA_LOW", 3, 1, ref="ATA-7 5.12")
LBA_MID = Reg("LBA_MID", 4, 1, ref="ATA-7 5.13")
LBA_HIGH = Reg("LBA_HIGH", 5, 1, ref="ATA-7 5.12")
DEVICE = Reg(
    "DEVICE", 6, 1,
    fields=(Field("HEAD", 0, 4), Field("DEV", 4), Field("LBA", 6)),
    ref="ATA-7 5.8",
)  # fmt: skip
STATUS = Reg("STATUS", 7, 1, access=RO, fields=_STATUS_FIELDS, ref="ATA-7 5.14")
COMMAND = Reg(
    "COMMAND", 7, 1, access=WO, fields=(Field("CODE", 0, 8, values=COMMANDS),), ref="ATA-7 5.4"
)

COMMAND_BLOCK = RegMap(
    "ata",
    8,
    (
        DATA, DATA32, ERROR, FEATURES, SECTOR_COUNT, LBA_LOW, LBA_MID, LBA_HIGH, DEVICE, STATUS,
        COMMAND,
    ),
    ref="ATA-7 5",
)  # fmt: skip

ALTERNATE_STATUS = Reg("ALTERNATE_STATUS", 0, 1, access=RO, fields=_STATUS_FIELDS, ref="ATA-7 5.3")
DEVICE_CONTROL = Reg(
    "DEVICE_CONTROL", 0, 1, access=WO,
    fields=(Field("nIEN", 1), Field("SRST", 2), Field("HOB", 7)),
    ref="ATA-7 5.9",
)  # fmt: skip
CONTROL_BLOCK = RegMap("ata-control", 1, (ALTERNATE_STATUS, DEVICE_CONTROL), ref="ATA-7 5")
