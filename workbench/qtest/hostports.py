"""Ports that QEMU's `pc` has for its firmware, as far as tests touch them.

`HotplugPorts` are the registers of ACPI PCI hotplug at 0xAE00 (QEMU, docs/specs/acpi_pci_hotplug):
which slots came and which shall go, and EJ, with which the guest lets a slot go.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from workbench.core.bus import Window

__all__ = ["HotplugPorts"]

HOTPLUG_BASE: Final = 0xAE00
UP, DOWN, EJECT, REMOVABLE = 0x0, 0x4, 0x8, 0xC


class HotplugPorts:
    """`eject(slot)` is called when the guest writes a slot's bit to EJ."""

    def __init__(self, eject: Callable[[int], None]) -> None:
        self.came = 0
        self.going = 0
        self._eject = eject

    def window(self) -> Window:
        """The window in port space."""
        return Window("hotplug", "acpi-pci-hotplug", HOTPLUG_BASE, 0x14, self._read, self._write)

    def _read(self, offset: int, size: int) -> int:
        value = 0
        if offset == UP:
            value, self.came = self.came, 0  # reading clears
        elif offset == DOWN:
            value = self.going
        elif offset == REMOVABLE:
            value = 0xFFFF_FFF8
        return value & (1 << 8 * size) - 1

    def _write(self, offset: int, size: int, value: int) -> None:
        if offset != EJECT:
            return
        for slot in range(32):
            if value >> slot & 1:
                self.going &= ~(1 << slot)
                self._eject(slot)
