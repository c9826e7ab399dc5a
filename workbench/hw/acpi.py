"""ACPI tables of the `pc` board, generated (ACPI specification 6.3).

RSDP, RSDT and XSDT, FADT, FACS, MADT, HPET and a DSDT made with `workbench.hw.aml`. The machine is
in ACPI mode from the start (SMI_CMD is 0), so an operating system need not ask for it.

Deliberately not modelled: processor power and performance states (no _CST, no _PSS), sleep states
other than S5, the SMBus, hot plug, SRAT and SLIT, DMAR, and everything that firmware might keep in
SSDTs.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from workbench.core.config import MachineConfig
from workbench.hw import aml, layout

__all__ = ["build_dsdt", "build_tables", "region_base"]

OEM_ID: Final = b"WRKBNC"
OEM_TABLE_ID: Final = b"WORKBNCH"
CREATOR_ID: Final = b"WBCH"

# IAPC_BOOT_ARCH (table 5-11)
LEGACY_DEVICES, I8042_PRESENT, VGA_NOT_PRESENT = 1 << 0, 1 << 1, 1 << 2
# Fixed feature flags (table 5-10)
WBINVD, PROC_C1, SLP_BUTTON, RTC_WAKE = 1 << 0, 1 << 2, 1 << 5, 1 << 6
RESET_REG_SUP = 1 << 10  # TMR_VAL_EXT, bit 8, stays 0: PIIX4's timer has 24 bits

RESET_VALUE: Final = 0x06  # RC: SRST and RCPU, a hard reset
HPET_BLOCK_ID: Final = 0x8086_A201  # low half of HPET GCAP_ID: legacy routing, 64 bits, 3 timers


def region_base(config: MachineConfig) -> int:
    """Guest physical address of the region at the top of low RAM that holds the tables."""
    return min(config.ram_bytes, layout.LOW_RAM_LIMIT) - layout.ACPI_REGION_BYTES


def _checksummed(data: bytes, at: int, length: int | None = None) -> bytes:
    total = sum(data[:length]) - data[at]
    return data[:at] + bytes((-total & 0xFF,)) + data[at + 1 :]


def _table(signature: bytes, revision: int, body: bytes) -> bytes:
    """System description table: the common header of 36 bytes and `body` (5.2.6)."""
    length = 36 + len(body)
    header = struct.pack(
        "<4sIBB6s8sI4sI", signature, length, revision, 0, OEM_ID, OEM_TABLE_ID, 1, CREATOR_ID, 1
    )
    return _checksummed(header + body, 9)


def _gas(space: int, width_bits: int, address: int, access: int) -> bytes:
    """Generic Address Structure (5.2.3.2); `space` 0 is memory, 1 I/O; `access` 1, 2, 3 is a byte,
    word, dword.
    """
    return struct.pack("<BBBBQ", space, width_bits, 0, access, address)


_NO_GAS = bytes(12)


def _fadt(facs: int, dsdt: int, pm: int) -> bytes:
    """Fixed ACPI Description Table, revision 6 (5.2.9)."""
    evt, cnt, tmr, gpe0 = pm, pm + 4, pm + 8, pm + 0xC
    body = struct.pack("<IIBBHIBBBB", facs, dsdt, 0, 1, layout.SCI_IRQ, 0, 0, 0, 0, 0)
    body += struct.pack("<8I", evt, 0, cnt, 0, 0, tmr, gpe0, 0)
    body += struct.pack("<8B", 4, 2, 0, 4, 4, 0, 0, 0)
    # P_LVL2_LAT above 100 and P_LVL3_LAT above 1000 say that there is no C2 and no C3.
    body += struct.pack("<HHHHBBBBB", 0xFFF, 0xFFF, 0, 0, 0, 0, 0x0D, 0, 0x32)
    body += struct.pack("<HB", LEGACY_DEVICES | I8042_PRESENT | VGA_NOT_PRESENT, 0)
    body += struct.pack("<I", WBINVD | PROC_C1 | SLP_BUTTON | RTC_WAKE | RESET_REG_SUP)
    body += _gas(1, 8, layout.PORT_RESET_CONTROL, 1) + struct.pack("<BHB", RESET_VALUE, 0, 3)
    body += struct.pack("<QQ", 0, dsdt)
    body += _gas(1, 32, evt, 2) + _NO_GAS + _gas(1, 16, cnt, 2) + _NO_GAS
    body += _NO_GAS + _gas(1, 32, tmr, 3) + _gas(1, 32, gpe0, 1) + _NO_GAS
    body += _NO_GAS + _NO_GAS + bytes(8)
    return _table(b"FACP", 6, body)


def _facs() -> bytes:
    """Firmware ACPI Control Structure, version 2, 64 bytes (5.2.10)."""
    return struct.pack("<4sII", b"FACS", 64, 0).ljust(32, b"\0") + b"\x02" + bytes(31)


def _madt() -> bytes:
    """Multiple APIC Description Table: one processor, one I/O APIC (5.2.12)."""
    pcat_compat = 1
    active_high_level = 0x1 | 0xC
    body = struct.pack("<II", layout.LAPIC_BASE, pcat_compat)
    body += struct.pack("<BBBBI", 0, 8, 0, 0, 1)
    body += struct.pack("<BBBBII", 1, 12, 0, 0, layout.IOAPIC_BASE, 0)
    body += struct.pack("<BBBBIH", 2, 10, 0, 0, layout.PIT_GSI, 0)
    for irq in layout.LEVEL_IRQS:
        body += struct.pack("<BBBBIH", 2, 10, 0, irq, irq, active_high_level)
    body += struct.pack("<BBBHB", 4, 6, 0xFF, 0, 1)
    return _table(b"APIC", 4, body)


def _hpet() -> bytes:
    """HPET description table (IA-PC HPET 1.0a, 3.2.4)."""
    body = struct.pack("<I", HPET_BLOCK_ID) + _gas(0, 64, layout.HPET_BASE, 0)
    body += struct.pack("<BHB", 0, 0x100, 0)
    return _table(b"HPET", 1, body)


def _link_device(index: int) -> bytes:
    """PCI interrupt link device of PIRQ `index` (6.2.13), over PIIX3's router register.

    Bit 7 of PIRQRC set means "not routed" (82371SB, PIRQRC[A:D]).
    """
    reg = f"\\_SB.PCI0.ISA.PRQ{'ABCD'[index]}"
    possible = aml.resource_template(aml.interrupt(5, 10, 11))
    current = aml.resource_template(aml.interrupt(0))
    return aml.device(
        f"LNK{'ABCD'[index]}",
        aml.name("_HID", aml.eisa_id("PNP0C0F")),
        aml.name("_UID", index + 1),
        aml.name("_PRS", possible),
        aml.name("RES", current),
        aml.method(
            "_STA",
            0,
            aml.if_(aml.and_(reg, 0x80), aml.return_(0x09)),
            aml.return_(0x0B),
        ),
        aml.method("_DIS", 0, aml.or_(reg, 0x80, reg)),
        aml.method(
            "_CRS",
            0,
            aml.create_dword_field("RES", 5, "NUM"),
            aml.store(reg, aml.LOCAL0),
            aml.if_(aml.less(aml.LOCAL0, 0x80), aml.store(aml.LOCAL0, "NUM")),
            aml.return_("RES"),
            serialized=True,
        ),
        aml.method(
            "_SRS",
            1,
            aml.create_dword_field(aml.ARG0, 5, "NUM"),
            aml.store("NUM", reg),
            serialized=True,
        ),
    )


def _prt() -> bytes:
    """_PRT: INTx of slot s goes to PIRQ (s + x - 1) mod 4, as PIIX3 boards are wired (6.2.12)."""
    rows = [
        aml.package(slot << 16 | 0xFFFF, pin, f"\\_SB.LNK{'ABCD'[(slot + pin - 1) % 4]}", 0)
        for slot in range(1, layout.PCI_INTX_SLOTS)
        for pin in range(4)
    ]
    return aml.package(*rows)


def _isa_device(path: str, hid: str, uid: int, *resources: bytes) -> bytes:
    return aml.device(
        path,
        aml.name("_HID", aml.eisa_id(hid)),
        aml.name("_UID", uid),
        aml.name("_CRS", aml.resource_template(*resources)),
    )


def _isa_bridge(serial_ports: int) -> bytes:
    """PIIX3 function 0 with its PIRQ router and the ISA devices behind it."""
    serial = [
        _isa_device(
            f"COM{n + 1}",
            "PNP0501",
            n + 1,
            aml.io(layout.COM_PORTS[n], 8, 8),
            aml.irq_no_flags(layout.COM_IRQS[n]),
        )
        for n in range(serial_ports)
    ]
    return aml.device(
        "ISA",
        aml.name("_ADR", 0x0001_0000),
        aml.op_region("PIRQ", aml.PCI_CONFIG, 0x60, 4),
        aml.field("PIRQ", aml.BYTE_ACC, ("PRQA", 8), ("PRQB", 8), ("PRQC", 8), ("PRQD", 8)),
        _isa_device("RTC", "PNP0B00", 0, aml.io(0x70, 2), aml.irq_no_flags(8)),
        _isa_device("KBD", "PNP0303", 0, aml.io(0x60, 1), aml.io(0x64, 1), aml.irq_no_flags(1)),
        *serial,
        _isa_device(
            "MRES", "PNP0C02", 1, aml.io(0x92, 1), aml.io(layout.PORT_APM, 2), aml.io(0x4D0, 2)
        ),
    )


def _host_bridge(serial_ports: int) -> bytes:
    windows = aml.resource_template(
        aml.word_bus_number(0, 0xFF),
        aml.io(layout.PORT_PCI_CONFIG, 8),
        aml.word_io(0x0000, layout.PORT_PCI_CONFIG - 1),
        aml.word_io(layout.PORT_PCI_CONFIG + 8, 0xFFFF),
        aml.dword_memory(0xA_0000, 0xB_FFFF, cacheable=True),
        aml.dword_memory(layout.PCI_WINDOW_BASE, layout.PCI_WINDOW_LAST),
    )
    return aml.device(
        "PCI0",
        aml.name("_HID", aml.eisa_id("PNP0A03")),
        aml.name("_UID", 0),
        aml.name("_BBN", 0),
        aml.name("_CRS", windows),
        aml.name("_PRT", _prt()),
        _isa_bridge(serial_ports),
    )


def _virtio_mmio(config: MachineConfig) -> list[bytes]:
    """The virtio devices over MMIO, which drivers find by the name LNRO0005."""
    parts = (*config.drives, *config.nics, *config.devices)
    count = sum(part.transport == "mmio" for part in parts)
    return [
        aml.device(
            f"VR{n:02}",
            aml.name("_HID", aml.string("LNRO0005")),
            aml.name("_UID", n),
            aml.name(
                "_CRS",
                aml.resource_template(
                    aml.fixed_memory32(
                        layout.VIRTIO_MMIO_BASE + n * layout.VIRTIO_MMIO_BYTES,
                        layout.VIRTIO_MMIO_BYTES,
                    ),
                    aml.interrupt(layout.virtio_mmio_gsi(n)),
                ),
            ),
        )
        for n in range(min(count, layout.VIRTIO_MMIO_MOST))
    ]


def _fw_cfg() -> bytes:
    """The fw_cfg device; _STA: it is there and works, and needs no driver to be usable."""
    return aml.device(
        "FWCF",
        aml.name("_HID", aml.string("QEMU0002")),
        aml.name("_STA", 0x0B),
        aml.name("_CRS", aml.resource_template(aml.io(layout.PORT_FW_CFG, 12))),
    )


def build_dsdt(config: MachineConfig) -> bytes:
    """DSDT: host bridge, interrupt links, ISA devices, HPET, one processor, \\_S5 (5.2.11.1);
    fw_cfg where there is a BIOS.
    """
    processor = aml.device("CPU0", aml.name("_HID", aml.string("ACPI0007")), aml.name("_UID", 0))
    hpet = aml.device(
        "HPET",
        aml.name("_HID", aml.eisa_id("PNP0103")),
        aml.name("_UID", 0),
        aml.name("_CRS", aml.resource_template(aml.fixed_memory32(layout.HPET_BASE, 0x400))),
    )
    body = aml.scope(
        "\\_SB",
        processor,
        _host_bridge(len(config.serial_ports)),
        *(_link_device(index) for index in range(4)),
        hpet,
        *_virtio_mmio(config),
        *([_fw_cfg()] if config.firmware is not None else []),
    )
    # SLP_TYP of PM1a_CNT for S5 is 0 on PIIX4 (82371AB 7.2); PM1b does not exist.
    return _table(b"DSDT", 2, body + aml.name("\\_S5", aml.package(0, 0, 0, 0)))


def build_tables(config: MachineConfig) -> tuple[int, list[tuple[int, bytes]]]:
    """Build all tables.

    Returns the address of the RSDP and what is to be written to guest memory, as (gpa, bytes).
    """
    base = region_base(config)
    facs_gpa = base + layout.ACPI_REGION_BYTES - layout.FACS_REGION_BYTES
    placed: list[tuple[int, bytes]] = [(facs_gpa, _facs())]
    next_gpa = base

    def place(table: bytes) -> int:
        nonlocal next_gpa
        gpa = next_gpa
        placed.append((gpa, table))
        next_gpa = gpa + len(table) + 63 & ~63
        assert next_gpa <= facs_gpa, "ACPI tables outgrew their region"
        return gpa

    rsdt, xsdt = _place_tables(config, facs_gpa, place)
    placed.append((layout.RSDP_GPA, _rsdp(rsdt, xsdt)))
    return layout.RSDP_GPA, placed


def _place_tables(
    config: MachineConfig, facs: int, place: Callable[[bytes], int], pm: int = layout.PM_BASE
) -> tuple[int, int]:
    """Give each table but the FACS to `place`, which says where it goes; RSDT and XSDT."""
    dsdt = place(build_dsdt(config))
    entries = [place(_fadt(facs, dsdt, pm)), place(_madt()), place(_hpet())]
    rsdt = place(_table(b"RSDT", 1, struct.pack(f"<{len(entries)}I", *entries)))
    xsdt = place(_table(b"XSDT", 1, struct.pack(f"<{len(entries)}Q", *entries)))
    return rsdt, xsdt


def _rsdp(rsdt: int, xsdt: int) -> bytes:
    """Root System Description Pointer, revision 2 (5.2.5.3)."""
    rsdp = struct.pack("<8sB6sBIIQI", b"RSD PTR ", 0, OEM_ID, 2, rsdt, 36, xsdt, 0)
    return _checksummed(_checksummed(rsdp, 8, 20), 32)


@dataclass(frozen=True, slots=True)
class Relocatable:
    """All tables as one piece that can lie anywhere, and the RSDP.

    Pointers hold offsets into `tables`; `pointers` says where they are, as (offset, bytes), and
    `checksums` which byte makes the sum of which bytes zero, as (offset, start, bytes). The same
    for the RSDP, all of whose pointers are into `tables`.
    """

    tables: bytes
    pointers: list[tuple[int, int]]
    checksums: list[tuple[int, int, int]]
    rsdp: bytes
    rsdp_pointers: list[tuple[int, int]]
    rsdp_checksums: list[tuple[int, int, int]]


def build_relocatable(config: MachineConfig, pm: int = layout.PM_BASE) -> Relocatable:
    """Build all tables for firmware to place, which put the ports of power management at `pm`."""
    tables = bytearray(_facs())
    pointers: list[tuple[int, int]] = []
    checksums: list[tuple[int, int, int]] = []

    def place(table: bytes) -> int:
        at = len(tables)
        tables.extend(table)
        tables.extend(bytes(-len(tables) % 64))
        found = _POINTERS.get(table[:4], [])
        if table[:4] in (b"RSDT", b"XSDT"):
            size = 4 if table[:4] == b"RSDT" else 8
            found = [(n, size) for n in range(36, len(table), size)]
        pointers.extend((at + offset, size) for offset, size in found)
        if found:
            tables[at + 9] = 0  # EDK2 counts what is there, SeaBIOS adds to it
            checksums.append((at + 9, at, len(table)))
        return at

    rsdt, xsdt = _place_tables(config, 0, place, pm)
    rsdp = bytearray(_rsdp(rsdt, xsdt))
    rsdp[8] = rsdp[32] = 0
    return Relocatable(
        bytes(tables), pointers, checksums,
        bytes(rsdp), [(16, 4), (24, 8)], [(8, 0, 20), (32, 0, 36)],
    )  # fmt: skip


# FIRMWARE_CTRL, DSDT and X_DSDT (table 5-9)
_POINTERS: Final = {b"FACP": [(36, 4), (40, 4), (140, 8)]}
