"""Addresses, interrupt numbers and frequencies of the `pc` board, in one place.

The board wires by these, the ACPI tables and the memory map tell the guest of them. Those of the
chipset are the choices of common PC firmware; the others are fixed by the architecture.
"""

from __future__ import annotations

from typing import Final

# Physical memory
VGA_BASE: Final = 0xA_0000
VGA_LAST: Final = 0xB_FFFF
LOW_RAM_LIMIT: Final = 0xC000_0000  # RAM above this continues at 4 GiB
HIGH_RAM_BASE: Final = 0x1_0000_0000
PCI_WINDOW_BASE: Final = 0xC000_0000
PCI_WINDOW_LAST: Final = 0xFEBF_FFFF
PCI_BARS_BASE: Final = 0xF000_0000  # where firmware starts to place memory BARs
IOAPIC_BASE: Final = 0xFEC0_0000
VIRTIO_MMIO_BASE: Final = 0xFEC1_0000  # outside the window of PCI, one page each
VIRTIO_MMIO_BYTES: Final = 0x1000
VIRTIO_MMIO_MOST: Final = 8
HPET_BASE: Final = 0xFED0_0000
LAPIC_BASE: Final = 0xFEE0_0000

# Firmware's share of RAM
EBDA_BASE: Final = 0x9_FC00
BIOS_AREA_BASE: Final = 0xF_0000
RSDP_GPA: Final = 0xF_5A00
ACPI_REGION_BYTES: Final = 0x1_0000  # tables, at the top of the RAM below LOW_RAM_LIMIT
FACS_REGION_BYTES: Final = (
    0x1000  # the last page of that region: the FACS must survive, so it is NVS
)

# I/O ports
PORT_PCI_CONFIG: Final = 0xCF8
PORT_RESET_CONTROL: Final = 0xCF9
PORT_APM: Final = 0xB2
PORT_FW_CFG: Final = 0x510
PORT_BIOS_DEBUG: Final = 0x402
PM_BASE: Final = 0x600
PORT_PCI_IO_BASE: Final = 0xC000  # where firmware starts to place I/O BARs
COM_PORTS: Final = (0x3F8, 0x2F8, 0x3E8, 0x2E8)

# Interrupts
COM_IRQS: Final = (4, 3, 4, 3)
SCI_IRQ: Final = 9
PIRQ_IRQS: Final = (10, 10, 11, 11)  # PIRQRC[A:D] as firmware leaves them
PIT_GSI: Final = 2  # ISA IRQ 0 reaches the I/O APIC at pin 2
LEVEL_IRQS: Final = (5, 9, 10, 11)  # level, active high towards the I/O APIC

HPET_PERIOD_PS: Final = 10_000  # 100 MHz
PM_TIMER_HZ: Final = 3_579_545
PCI_INTX_SLOTS: Final = 32


def virtio_mmio_gsi(number: int) -> int:
    """I/O APIC pin of a virtio device over MMIO: 16 to 19, each shared by two."""
    return 16 + number % 4


def is_ram(ram_bytes: int, gpa: int, length_bytes: int) -> bool:
    """Whether all of a range is RAM in a machine with `ram_bytes`, the VGA area left out."""
    end = gpa + length_bytes
    if gpa < HIGH_RAM_BASE:
        low_end = min(ram_bytes, LOW_RAM_LIMIT)
        return gpa >= 0 and end <= low_end and (end <= VGA_BASE or gpa >= VGA_LAST + 1)
    return end <= HIGH_RAM_BASE + ram_bytes - LOW_RAM_LIMIT
