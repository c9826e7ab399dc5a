"""I/O APIC at register level (82093AA data sheet)."""

from __future__ import annotations

import pytest

from workbench.core.regs import Explainer
from workbench.hw.ioapic import MAP, PINS, Ioapic

LEVEL, MASK, RIRR = 1 << 15, 1 << 16, 1 << 14


class Rig:
    def __init__(self):
        self.sent = []
        self.accept = True
        self.chip = Ioapic(self._deliver)

    def _deliver(self, destination, logical, mode, vector, level):
        self.sent.append((destination, logical, mode, vector, level))
        return self.accept

    def write(self, index, value):
        self.chip.write(0x00, 4, index)
        self.chip.write(0x10, 4, value)

    def read(self, index):
        self.chip.write(0x00, 4, index)
        return self.chip.read(0x10, 4)

    def program(self, pin, low, high=0):
        self.write(0x11 + 2 * pin, high)
        self.write(0x10 + 2 * pin, low)


@pytest.fixture
def rig():
    return Rig()


def test_identity(rig):
    assert rig.read(0x01) == 0x0017_0020
    rig.write(0x00, 0xFFFF_FFFF)
    assert rig.read(0x00) == 0x0F00_0000
    for pin in range(PINS):
        assert rig.read(0x10 + 2 * pin) == MASK
    assert rig.read(0x40) == 0


def test_edge(rig):
    rig.program(4, 0x34 | 0x900, 0x0300_0000)
    rig.chip.set_pin(4, True)
    assert rig.sent == [(3, True, 1, 0x34, False)]
    rig.chip.set_pin(4, True)
    assert len(rig.sent) == 1
    rig.chip.set_pin(4, False)
    rig.chip.set_pin(4, True)
    assert len(rig.sent) == 2


def test_edge_at_a_masked_pin_is_lost(rig):
    rig.chip.set_pin(4, True)
    rig.program(4, 0x34)
    assert rig.sent == []


def test_level_is_sent_once_until_eoi(rig):
    rig.program(10, LEVEL | 0x51)
    rig.chip.set_pin(10, True)
    assert rig.read(0x10 + 20) == LEVEL | RIRR | 0x51
    rig.chip.set_pin(10, False)
    rig.chip.set_pin(10, True)
    assert len(rig.sent) == 1
    rig.chip.eoi(0x51)
    assert len(rig.sent) == 2
    rig.chip.set_pin(10, False)
    rig.chip.eoi(0x51)
    assert len(rig.sent) == 2
    assert rig.read(0x10 + 20) == LEVEL | 0x51


def test_eoi_register(rig):
    rig.program(10, LEVEL | 0x51)
    rig.chip.set_pin(10, True)
    rig.chip.write(0x40, 4, 0x50)
    assert len(rig.sent) == 1
    rig.chip.write(0x40, 4, 0x51)
    assert len(rig.sent) == 2


def test_unmasking_an_asserted_level_pin_sends(rig):
    rig.program(10, MASK | LEVEL | 0x51)
    rig.chip.set_pin(10, True)
    assert rig.sent == []
    rig.program(10, LEVEL | 0x51)
    assert len(rig.sent) == 1


def test_message_that_nobody_takes_leaves_remote_irr_clear(rig):
    rig.accept = False
    rig.program(10, LEVEL | 0x51)
    rig.chip.set_pin(10, True)
    assert rig.read(0x10 + 20) == LEVEL | 0x51


def test_remote_irr_is_read_only_and_edge_mode_clears_it(rig):
    rig.program(10, RIRR | LEVEL | 0x51)
    assert not rig.read(0x10 + 20) & RIRR
    rig.chip.set_pin(10, True)
    rig.program(10, MASK | LEVEL | 0x51)
    assert rig.read(0x10 + 20) & RIRR
    rig.program(10, MASK | 0x51)
    assert not rig.read(0x10 + 20) & RIRR


def test_restore_sends_nothing(rig):
    rig.program(10, LEVEL | 0x51)
    rig.chip.set_pin(10, True)
    saved = rig.chip.save()
    other = Rig()
    other.chip.restore(saved)
    assert other.sent == []
    assert other.chip.save() == saved
    other.chip.eoi(0x51)
    assert len(other.sent) == 1


def test_explain_follows_the_index():
    explainer = Explainer(MAP)
    explainer.explain(0x00, 4, 0x12, True)
    text = explainer.explain(0x10, 4, 0x8031, True)
    assert "INTVEC" in text or "IOREDTBL" in text
