"""An IDE channel: task files, the command under way, the bus master, and its descriptor table.

ATA/ATAPI-7 volume 2, clause 5; 82371SB 2.7; SPC-3 for the commands of packet devices.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from workbench.hw.ata.ata import AtaDisk
from workbench.hw.ata.atapi import AtapiDrive
from workbench.hw.ata.channel import Channel
from workbench.hw.ata.drive import Drive, Phase
from workbench.hw.ata.registers import (
    ALTERNATE_STATUS,
    COMMAND,
    COMMANDS,
    DEVICE,
    DEVICE_CONTROL,
    ERR,
    ERROR,
    STATUS,
)
from workbench.hw.piix_ide import (
    BMIC,
    BMIDE_MAP,
    BMIDTP,
    BMIS,
    DESCRIPTOR,
    EOT,
    MOST_DESCRIPTORS,
    PiixIde,
)
from workbench.inspect.banks import bits, register
from workbench.inspect.guest import Ram, hexa, time_text
from workbench.inspect.page import Page, Table, pairs, table
from workbench.inspect.subject import Bytes, Row, of_register

if TYPE_CHECKING:
    from workbench.core.machine import Machine

__all__ = ["channel", "channels"]

_SENSE_KEYS: Final = {
    0: "NO SENSE", 1: "RECOVERED ERROR", 2: "NOT READY", 3: "MEDIUM ERROR", 4: "HARDWARE ERROR",
    5: "ILLEGAL REQUEST", 6: "UNIT ATTENTION", 7: "DATA PROTECT", 11: "ABORTED COMMAND",
}  # fmt: skip
_DMA = (Phase.DMA, Phase.DMA_WAIT)


def channels(machine: Machine) -> dict[str, tuple[PiixIde, int]]:
    """The IDE channels of a machine by name."""
    found: dict[str, tuple[PiixIde, int]] = {}
    for device in machine.devices.values():
        if isinstance(device, PiixIde):
            found |= {channel.name: (device, n) for n, channel in enumerate(device.channels)}
    return found


def channel(machine: Machine, name: str, rows: int) -> Page:
    """One channel."""
    ide, n = channels(machine)[name]
    found = ide.channels[n]
    tables = [_channel(ide, n)]
    for place, drive in enumerate(found.drives):
        if drive is not None:
            tables += _drive(machine, ide, found, place, drive)
    tables += [_master(ide, n), _descriptors(machine, ide, n, rows)]
    return Page(name, f"{name}: IDE channel {n} of {ide.name}", tuple(tables))


def _channel(ide: PiixIde, n: int) -> Table:
    found = ide.channels[n]
    drive = found.drives[found.state.selected]
    control = found.state.device_control
    line = ide.irqs[n]
    return pairs(
        "channel",
        [
            ("selected", f"drive {found.state.selected}" + (f", {drive.name}" if drive else "")),
            Row(
                ("DEVICE_CONTROL", f"{control:#04x} {bits(DEVICE_CONTROL.fields, control)}"),
                of_register(found.name, DEVICE_CONTROL.name),
            ),
            ("INTRQ", f"{int(found.intrq)}, {line.name} is {'up' if line.level else 'down'}"),
        ],
    )


def _drive(machine: Machine, ide: PiixIde, found: Channel, place: int, drive: Drive) -> list[Table]:
    s = drive.state
    values = (
        ("FEATURES", s.features), ("SECTOR_COUNT", s.count),
        ("LBA_LOW", s.lbal), ("LBA_MID", s.lbam), ("LBA_HIGH", s.lbah),
    )  # fmt: skip
    rows = [
        # The device sets it: who is to be found is who gave it the command.
        Row(
            register(STATUS, s.status, found.name).cells,
            of_register(found.name, STATUS.name, ALTERNATE_STATUS.name, COMMAND.name),
        ),
        _error(s.error, s.status, found.name),
        *(Row((reg, _both(value), ""), of_register(found.name, reg)) for reg, value in values),
        register(DEVICE, s.device, found.name),
    ]
    title = f"drive {place}, {drive.name}: {_kind(drive)}"
    files = table(f"{title}; task file", ("register", "value", "fields"), rows)
    command = _command(machine, ide, found, drive)
    return [files, pairs(f"drive {place}, {drive.name}: command", command)]


def _error(error: int, status: int, device: str) -> Row:
    """The Error register, which holds a diagnostic code after a reset."""
    cells = register(ERROR, error, device).cells
    if error == 1 and not status & ERR:
        cells = ERROR.name, "0x01", "diagnostics passed"
    return Row(cells, of_register(device, ERROR.name, COMMAND.name))


def _both(value: int) -> str:
    """A register with what was written before, for the extended commands."""
    return f"{value & 0xFF:#04x}" + (f", before it {value >> 8:#04x}" if value >> 8 else "")


def _kind(drive: Drive) -> str:
    if isinstance(drive, AtaDisk):
        return f"disk, {drive.disk.sectors:,} sectors"
    if isinstance(drive, AtapiDrive):
        return "CD-ROM, " + ("tray open" if drive.state.tray_open else "tray closed")
    return type(drive).__name__


def _command(
    machine: Machine, ide: PiixIde, found: Channel, drive: Drive
) -> Iterator[tuple[str, str] | Row]:
    s = drive.state
    named = COMMANDS.get(s.command, "unknown command")
    yield Row(("last command", f"{s.command:#04x} {named}"), of_register(found.name, COMMAND.name))
    yield "phase", s.phase.value
    if s.phase is not Phase.IDLE:
        unit = "bytes" if s.command == 0xA0 else "sectors"
        yield "address", f"{s.lba:,}" + (" (byte of the disc)" if s.from_disc else "")
        yield "after the buffer", f"{s.left:,} {unit}"
    if s.buffer:
        yield "data port", f"byte {s.pos:,} of {len(s.buffer):,}"
    if s.phase in _DMA:
        way = "to memory" if drive.dma_to_memory else "from memory"
        yield "DMA", f"{drive.dma_bytes:,} bytes {way}"
    name = f"{ide.name}.{found.name}.{drive.name}"
    due = next((t.deadline_ps for t in machine.clock.timers if t.name == name), None)
    if due is not None:
        yield "due in", time_text(due - machine.clock.now_ps)
    yield "INTRQ wanted", str(s.intrq)
    yield "transfer mode", f"{s.transfer_mode:#04x}, {s.multiple} sectors a block of MULTIPLE"
    if isinstance(drive, AtapiDrive):
        key = s.sense >> 16
        yield "sense", f"{_SENSE_KEYS.get(key, key)}, ASC {s.sense >> 8 & 0xFF:#04x}"


def _master(ide: PiixIde, n: int) -> Table:
    s = ide.state.master
    values = ((BMIC[n], s.bmic[n]), (BMIS[n], s.bmis[n]), (BMIDTP[n], s.bmidtp[n]))
    rows: list[Row | tuple[str, ...]] = [
        register(reg, value, BMIDE_MAP.name) for reg, value in values
    ]
    rows.append(("bus mastering", "on" if ide.dma.allowed else "off", "COMMAND.BME"))
    return table("bus master", ("register", "value", "fields"), rows)


def _descriptors(machine: Machine, ide: PiixIde, n: int, limit: int) -> Table:
    """The PRD table: inside one 64-KiB block, at most 8,192 entries."""
    ram = Ram(machine)
    entry = ide.state.master.bmidtp[n]
    if not entry:
        return pairs("descriptor table (PRD)", [("address", "0: none")])
    rows: list[Row] = []
    block, total, end = entry & ~0xFFFF, 0, "no end: the table has no EOT"
    for k in range(MOST_DESCRIPTORS):
        at = block | entry + 8 * k & 0xFFFF
        raw = ram.read(at, 8)
        if raw is None:
            rows.append(Row((str(k), hexa(at), "?", "?", "outside RAM")))
            end = "the table leaves RAM"
            break
        gpa, word = DESCRIPTOR.unpack(raw)
        length = word & 0xFFFE or 0x10000
        total += length
        notes = "EOT" if word & EOT else ""
        if not ram.contains(gpa & ~1, length):
            notes = f"{notes} outside RAM".strip()
        if len(rows) <= limit:
            cells = str(k), hexa(at), hexa(gpa & ~1), f"{length:,}", notes
            rows.append(Row(cells, Bytes(at, 8, "prd")))
        if word & EOT:
            end = f"{k + 1} entries, {total:,} bytes"
            break
    columns = ("entry", "at", "address", "bytes", "")
    return table("descriptor table (PRD)", columns, rows, limit, note=end)
