"""HPET at register level (IA-PC HPET specification 1.0a)."""

from __future__ import annotations

import pytest

from workbench.core.clock import Clock
from workbench.core.irq import IrqLine
from workbench.hw.hpet import (
    GCAP_ID,
    GEN_CONF,
    GINTR_STA,
    MAIN_CNT,
    TN_COMP,
    TN_CONF,
    Hpet,
    LegacyGate,
)

US = 1_000_000
TICK = 10_000
INT_ENB, LEVEL, PERIODIC, VAL_SET, MODE32 = 4, 2, 8, 0x40, 0x100


class Rig:
    def __init__(self):
        self.clock = Clock()
        self.edges = []
        self.legacy_edges = []
        self.pit_out = []
        self.gate = LegacyGate(IrqLine("pit", self.pit_out.append))
        legacy = tuple(
            IrqLine(f"irq{n}", lambda level, n=n: self.legacy_edges.append((n, level)))
            for n in (0, 8)
        )
        self.hpet = Hpet(self.clock, self._line, legacy=legacy, gates=(self.gate,))

    def _line(self, name, pin):
        return IrqLine(name, lambda level: self.edges.append((self.clock.now_ps, pin, level)))

    def write(self, reg, value):
        self.hpet.write(reg.offset, 8, value)

    def read(self, reg):
        return self.hpet.read(reg.offset, 8)

    def wait(self, ps):
        until = self.clock.now_ps + ps
        while (due := self.clock.next_ps) is not None and due <= until:
            self.clock.skip_to(due)
            self.clock.run_due()
        self.clock.skip_to(until)

    def rises(self):
        return [(at, pin) for at, pin, level in self.edges if level]


@pytest.fixture
def rig():
    return Rig()


def test_capabilities(rig):
    value = rig.read(GCAP_ID)
    assert value >> 32 == 10_000_000  # fs
    assert value & 0xFFFF_FFFF == 0x8086_A201
    assert rig.hpet.read(0x004, 4) == 10_000_000
    assert rig.read(TN_CONF[0]) == 0x00F0_0000_0000_0030


def test_counter_runs_stops_and_can_be_set(rig):
    rig.wait(US)
    assert rig.read(MAIN_CNT) == 0
    rig.write(GEN_CONF, 1)
    rig.wait(US)
    assert rig.read(MAIN_CNT) == 100
    assert rig.hpet.read(MAIN_CNT.offset, 4) == 100
    rig.write(GEN_CONF, 0)
    rig.wait(US)
    assert rig.read(MAIN_CNT) == 100
    rig.write(MAIN_CNT, (1 << 64) - 1)
    rig.write(GEN_CONF, 1)
    rig.wait(TICK)
    assert rig.read(MAIN_CNT) == 0


def test_one_shot(rig):
    rig.write(TN_CONF[1], 21 << 9 | INT_ENB)
    rig.write(GEN_CONF, 1)
    rig.write(TN_COMP[1], 500)
    rig.wait(100 * US)
    assert rig.rises() == [(5 * US, 21)]
    assert rig.read(GINTR_STA) == 0, "edge interrupts have no status"
    rig.write(TN_COMP[1], 20000)
    rig.wait(200 * US)
    assert rig.rises() == [(5 * US, 21), (200 * US, 21)]


def test_one_shot_of_32_bits_comes_again_when_the_counter_wraps(rig):
    rig.write(TN_CONF[0], 20 << 9 | INT_ENB | MODE32)
    rig.write(GEN_CONF, 1)
    rig.write(TN_COMP[0], 100)
    rig.wait((1 << 32) * TICK + 2 * US)
    assert [at for at, _ in rig.rises()] == [US, (1 << 32) * TICK + US]


def test_comparator_that_is_past_does_not_fire(rig):
    rig.write(TN_CONF[0], 20 << 9 | INT_ENB)
    rig.write(GEN_CONF, 1)
    rig.wait(US)
    rig.write(TN_COMP[0], 99)
    rig.wait(1000 * US)
    assert rig.rises() == []


def test_periodic(rig):
    rig.write(GEN_CONF, 1)
    rig.write(TN_CONF[2], 22 << 9 | INT_ENB | PERIODIC | VAL_SET)
    rig.write(TN_COMP[2], 300)  # first match
    assert not rig.read(TN_CONF[2]) & VAL_SET
    rig.write(TN_COMP[2], 100)  # period
    rig.wait(5 * US)
    assert [at for at, _ in rig.rises()] == [3 * US, 4 * US, 5 * US]
    assert rig.read(TN_COMP[2]) == 600


def test_level(rig):
    rig.write(TN_CONF[0], 20 << 9 | INT_ENB | LEVEL)
    rig.write(GEN_CONF, 1)
    rig.write(TN_COMP[0], 100)
    rig.wait(2 * US)
    assert rig.read(GINTR_STA) == 1
    assert rig.edges == [(US, 20, True)]
    rig.write(GINTR_STA, 1)
    assert rig.edges[1:] == [(2 * US, 20, False)]
    assert rig.read(GINTR_STA) == 0


def test_legacy_replacement_takes_irq_0_from_the_pit(rig):
    rig.gate.set(True)
    assert rig.pit_out == [True]
    rig.write(TN_CONF[0], INT_ENB)
    rig.write(GEN_CONF, 3)
    assert rig.pit_out == [True, False]
    rig.gate.set(False)
    rig.gate.set(True)
    assert rig.pit_out == [True, False]
    rig.write(TN_COMP[0], 100)
    rig.wait(2 * US)
    assert rig.legacy_edges == [(0, True)]
    assert rig.edges == []
    rig.write(GEN_CONF, 1)
    assert rig.pit_out == [True, False, True]


def test_halves_of_registers(rig):
    rig.hpet.write(TN_CONF[0].offset, 4, 20 << 9 | INT_ENB)
    rig.hpet.write(TN_COMP[0].offset, 4, 77)
    assert rig.hpet.read(TN_COMP[0].offset, 4) == 77
    assert rig.hpet.read(TN_COMP[0].offset + 4, 4) == 0xFFFF_FFFF


def test_restore_makes_no_edge(rig):
    rig.write(TN_CONF[0], 20 << 9 | INT_ENB | LEVEL)
    rig.write(GEN_CONF, 1)
    rig.write(TN_COMP[0], 100)
    rig.wait(2 * US)
    saved = rig.hpet.save()
    other = Rig()
    other.hpet.restore(saved)
    assert other.hpet.save() == saved
    assert other.edges == []
    other.write(GINTR_STA, 1)
    assert [(pin, level) for _, pin, level in other.edges] == [(20, False)]
