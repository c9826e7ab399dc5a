"""PIIX4 power management at register level (82371AB data sheet, chapter 7)."""

from __future__ import annotations

import pytest

from workbench.core.bus import Bus
from workbench.core.clock import Clock
from workbench.core.irq import IrqLine
from workbench.hw.pci_root import PciRoot
from workbench.hw.piix4_pm import GPEN, GPSTS, PMCNTRL, PMEN, PMSTS, PMTMR, Piix4Pm

BASE = 0x600


class Rig:
    def __init__(self):
        self.clock = Clock()
        self.sci = []
        self.off = 0
        self.pio = Bus("pio", 1 << 16)
        root = PciRoot(
            self.pio,
            Bus("mmio"),
            memory_read=lambda gpa, n: bytes(n),
            memory_write=lambda gpa, data: None,
            pirq=lambda n, level: None,
        )
        self.pm = Piix4Pm(self.clock, IrqLine("sci", self.sci.append), self._soft_off)
        root.add(self.pm, 1, 3)
        self.pm.write(0x40, 4, BASE)
        self.pm.write(0x80, 1, 1)

    def _soft_off(self):
        self.off += 1

    def write(self, reg, value):
        self.pio.write(BASE + reg.offset, reg.size, value)

    def read(self, reg):
        return self.pio.read(BASE + reg.offset, reg.size)


@pytest.fixture
def rig():
    return Rig()


def test_base(rig):
    assert rig.pm.read(0x40, 4) == BASE | 1
    rig.pm.write(0x40, 4, 0xFFFF_FFFF)
    assert rig.pm.read(0x40, 4) == 0xFFC1
    assert rig.pio.find(BASE) is None
    rig.pm.write(0x40, 4, BASE)
    assert rig.pio.find(BASE).device == "piix4_pm"
    rig.pm.write(0x80, 1, 0)
    assert rig.pio.find(BASE) is None


def test_timer_counts_at_3_579545_mhz_in_24_bits(rig):
    assert rig.read(PMTMR) == 0
    rig.clock.skip_to(10**12)
    assert rig.read(PMTMR) == 3_579_545
    rig.clock.skip_to(5 * 10**12)
    assert rig.read(PMTMR) == 5 * 3_579_545 & 0xFF_FFFF


def test_timer_overflow(rig):
    half_ps = -(-(1 << 23) * 10**12 // 3_579_545)
    rig.write(PMCNTRL, 1)
    rig.write(PMEN, 1)
    assert rig.clock.next_ps == half_ps
    rig.clock.skip_to(half_ps - 1)
    assert rig.read(PMSTS) == 0
    rig.clock.skip_to(half_ps)
    rig.clock.run_due()
    assert rig.read(PMSTS) == 1
    assert rig.sci == [True]
    rig.write(PMSTS, 1)
    assert rig.read(PMSTS) == 0
    assert rig.sci == [True, False]


def test_power_button(rig):
    rig.pm.handle_input("power", b"")
    assert rig.read(PMSTS) == 1 << 8
    assert rig.sci == []
    rig.write(PMEN, 1 << 8)
    assert rig.sci == [], "SCI_EN is 0"
    rig.write(PMCNTRL, 1)
    assert rig.sci == [True]
    rig.write(PMSTS, 1 << 8)
    assert rig.sci == [True, False]


def test_general_purpose_events(rig):
    rig.write(PMCNTRL, 1)
    rig.write(GPEN, 0x0200)
    rig.pm.io.raise_gpe(9)
    assert rig.read(GPSTS) == 0x0200
    rig.write(GPSTS, 0x0200)
    assert rig.sci == [True, False]


def test_soft_off(rig):
    rig.write(PMCNTRL, 1)
    assert rig.off == 0
    rig.write(PMCNTRL, 1 | 1 << 13)
    assert rig.off == 1
    assert rig.read(PMCNTRL) == 1, "SUS_EN reads as 0"


def test_other_sleep_types_wake_at_once(rig):
    rig.write(PMCNTRL, 1 | 5 << 10 | 1 << 13)
    assert rig.off == 0
    assert rig.read(PMSTS) == 1 << 15


def test_byte_accesses(rig):
    rig.pm.handle_input("power", b"")
    assert rig.pio.read(BASE + 1, 1) == 1
    rig.pio.write(BASE + 1, 1, 1)
    assert rig.read(PMSTS) == 0


def test_restore_makes_no_edge(rig):
    rig.write(PMCNTRL, 1)
    rig.write(PMEN, 1 << 8)
    rig.pm.handle_input("power", b"")
    saved = rig.pm.save()
    other = Rig()
    other.pm.restore(saved)
    assert other.pm.save() == saved
    assert other.sci == []
    other.write(PMSTS, 1 << 8)
    assert other.sci == [False]


def test_reset(rig):
    rig.write(PMCNTRL, 1)
    rig.write(PMEN, 1 << 8)
    rig.pm.handle_input("power", b"")
    rig.pm.reset()
    assert rig.sci == [True, False]
    assert rig.pio.find(BASE) is None
