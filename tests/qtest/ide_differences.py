"""Why QEMU's IDE function answers otherwise than ours: rules by what was noted.

`docs/ide.md` says the same to users. A difference that no rule knows fails the test.
"""

from __future__ import annotations

import re
from typing import Any

# (program and what it noted, why)
RULES: tuple[tuple[str, str], ...] = (
    # -- reset and selection
    (r"reset: channel \d after power-on|task file: error is not|device reset: |command 08: end",
     "QEMU leaves Error 0 where ATA-7 9.10 wants the diagnostic code 01h; a packet device shows "
     "DRDY at power-on"),
    (r"reset: channel \d in SRST", "QEMU is not busy while SRST is set (ATA-7 9.3)"),
    (r"reset: channel \d after SRST|bus master order never: after",
     "QEMU asks for an interrupt after a software reset; ATA-7 9.3 has none"),
    (r"reset: channel \d drive 1|diagnostic: |device command 90",
     "a drive 1 that is not there: QEMU gives it registers of its own, and no EXECUTE DEVICE "
     "DIAGNOSTIC, which is for both (ATA-7 9.16, 9.10)"),
    (r"nien: ", "QEMU drops an interrupt that comes while nIEN is set, and nIEN does not take back "
     "one that is there; INTRQ is only released by it (ATA-7 5.9)"),
    # -- the disk
    (r"identify: word (1\d|2\d|3\d)$|identify packet: word (1\d|2\d|3\d)$", "names and numbers"),
    (r"identify: word (4|5|48|52)$|identify packet: word 48$", "retired words, set by QEMU"),
    (r"identify: word (49|50)$|identify packet: word (49|50|53|62|65|66|67|68|71|72|80)$",
     "IORDY may be switched off; word 50 says that it is valid; modes and versions of a packet "
     "device as ATA-7 has them"),
    (r"identify: word (69|105|106|80|81|82|84|85|87)$|identify packet: word (82|83|84|85|87|93)$",
     "features that ours has (look-ahead, buffers, power, NOP, FUA, TRIM that reads as zeros)"),
    (r"identify: word (62|88|255)$|identify packet: word (88|255)$",
     "QEMU has UDMA 5 chosen at power-on, and no checksum"),
    (r"multiple: SET MULTIPLE \d+, word 59",
     "QEMU does not say in word 59 what SET MULTIPLE MODE chose"),
    (r"ends of the disk (?!.*BMIS$)|chs: (0/0/0|0/0/64|30/0/1)",
     "an address outside: ours is IDNF before any data, QEMU's ABRT after what is inside, "
     "or after the data; CHS is checked against the geometry"),
    (r"ends of the disk .*BMIS$", "ours leaves the engine of a command that failed started "
     "(82371SB, table of BMIS: the table has not ended)"),
    (r"chs: current geometry", "cylinders of the new geometry (ATA-7 6.22)"),
    (r"command (3d|ce|e4|e8|f5|3c|9\d|1[1-9a-f])", "ours has FUA, READ and WRITE BUFFER and all "
     "codes of RECALIBRATE; QEMU has CFA's 3Ch, ATA-1's 94h-99h, and F5h without having Security"),
    (r"command (25|35|c8|c9|ca|cb)|bus master order (late|never): status",
     "a drive that waits for the bus master is busy; QEMU's shows DRQ (ATA-7 11.7 allows both)"),
    (r"features: (05|42|67|69|85|96|9a|c2)$", "QEMU takes SET FEATURES for what it does not have"),
    (r"features: mode|features: words", "modes that IDENTIFY does not have are aborted"),
    (r"smart (d0|d1|d4|d5|d6|d3|d7|db) ", "ours has other attributes, a log directory, no "
     "self-tests; QEMU's self-test log has entries"),
    (r"power: ", "QEMU knows no standby"),
    (r"native max: f8 HOB", "previous contents after a 28-bit command"),
    # -- bus master
    (r"bus master .. shorter", "a table with too little room is filled; QEMU's moves nothing"),
    (r"bus master .. odd address", "bit 0 of an address is not there (82371SB: word aligned)"),
    (r"bus master registers: [13] ", "reserved bytes read as zeros"),
    (r"trim .*: sector is zeros", "QEMU leaves trimmed sectors as they are unless discard=unmap"),
    (r"packet dma .* longer table: end, BMIS", "the engine is started until the table ends"),
    (r"packet dma READ 10 shorter", "QEMU leaves the command unfinished, with BSY and DRQ"),
    (r"packet dma INQUIRY.*memory", "names"),
    # -- packets
    (r"(packet|no disc) GET CONFIGURATION", "QEMU has two profiles and no features"),
    (r"(packet|no disc) INQUIRY", "names; QEMU has page 83h, cannot end a block of odd length"),
    (r"(packet|no disc) MODE SENSE", "QEMU has no MODE SENSE(6), no page 3Fh, no defaults, other "
     "capabilities, medium type 70h always"),
    (r"(packet|no disc) READ CD", "QEMU leaves EDC and ECC 0, has no single parts, takes any "
     "sector type"),
    (r"packet codes: b9", "QEMU has no READ CD MSF"),
    (r"(packet|no disc) READ SUB-CHANNEL|packet codes: 42", "QEMU has none"),
    (r"(packet|no disc) READ TOC", "QEMU has no formats in byte 2; its sessions have no track"),
    (r"(packet|no disc) GET EVENT (none|operational)|packet codes: 4a",
     "the length of an event header without an event is 2 (MMC-3 6.6)"),
    (r"no disc GET EVENT|media change: event", "QEMU tells no events of what the guest did itself"),
    (r"(no disc|media change:) (MECHANISM STATUS|mechanism|mode header)", "the door is open"),
    (r"packet READ 10 none beyond", "no blocks from an address outside"),
    (r"(packet|no disc) READ DVD|packet codes: ad", "QEMU has READ DVD STRUCTURE"),
    (r"packet codes: 1a", "MODE SENSE(6)"),
    (r"no disc REQUEST SENSE", "QEMU says of itself that there is no medium"),
    (r"media change: eject when locked", "5/53/02 is MMC-3's"),
    (r"media change: ready after load|attention by request sense|no disc",
     "QEMU's tray that a guest has opened stays empty for its START with LoEj"),
    (r"packet protocol limit [0123]: ", "QEMU cannot end blocks of fewer than 4 bytes; a limit "
     "of 0 is an error without an interrupt there"),
    (r"device command (e0|e1|e2|e3|e5|e7|21): end", "power management (mandatory for packet "
     "devices) is QEMU's only for disks; FLUSH CACHE is for disks only in ours"),
)  # fmt: skip


def alike(program: str, value: Any) -> Any:
    """A value without what differs everywhere: DSC, the ABRT that goes with a sense key, valid in
    sense data, and the address registers after success, which QEMU counts along.
    """
    if isinstance(value, tuple) and isinstance(value[0], int):
        return (alike(program, value[0]), *value[1:])
    if not isinstance(value, str):
        return value & ~4 if isinstance(value, int) and value & 0xF0 else value
    if re.fullmatch("[0-9a-f]{2} [0-9a-f]{2}", value):
        return f"{int(value[:2], 16) & ~0x10:02x}{value[2:]}"
    if "REQUEST SENSE" in program and program.endswith("data"):
        return re.sub("^f0", "70", value)
    if program.endswith(": error") or program.startswith("packet codes"):
        value = re.sub(r"([1-9a-f])4$", r"\g<1>0", value)
    found = re.search(r"ST=(..) ER=(..)", value)
    if found is None:
        return value
    status, error = int(found[1], 16) & ~0x10, int(found[2], 16)
    error = error & ~4 if error & 0xF0 else error
    value = value.replace(found[0], f"ST={status:02x} ER={error:02x}")
    if not status & 1 and re.match("pio|bus master|chs|trim|command|nien", program):
        value = re.sub(r"SC=.. LBA=\w+ DEV=..", "", value)
    return value


def unexplained(differences: list[tuple[str, Any, Any]]) -> list[tuple[str, Any, Any]]:
    """Those that no rule knows."""
    return [
        (key, mine, theirs)
        for key, mine, theirs in differences
        if alike(key, mine) != alike(key, theirs)
        and not any(re.search(pattern, key) for pattern, _ in RULES)
    ]
