"""PCI: configuration mechanism 1, BARs, INTx, bus mastering, PIIX3's router."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from workbench.core.bus import Bus
from workbench.core.irq import IrqLine
from workbench.core.regs import Reg
from workbench.hw.i440fx import I440fx
from workbench.hw.pci.config import Bar, Capability, PciState, config_map
from workbench.hw.pci.function import PciFunction
from workbench.hw.pci_root import PciRoot
from workbench.hw.piix3 import Piix3

CF8, CFC = 0xCF8, 0xCFC
SCRATCH = Reg("SCRATCH", 0x44, 4)


@dataclass(slots=True)
class CardState(PciState):
    scratch: int = 0


class Card(PciFunction[CardState]):
    MAP = config_map(
        "card",
        vendor=0x1234,
        device=0x5678,
        class_code=0x020000,
        interrupt_pin=1,
        subsystem_vendor=0x1AF4,
        capabilities=(Capability("VND", 9, 0x40, (SCRATCH,)), Capability("PM", 1, 0x50)),
    )
    STATE = CardState
    BARS = (Bar(0, 0x1000), Bar(1, 0x20, io=True), Bar(2, 1 << 33, wide=True, prefetchable=True))

    def connected(self):
        self.log = []
        for index in (0, 1, 2):
            self.add_bar(index, lambda o, s, i=index: i << 8 | o & 0xFF, self._noted(index))

    def _noted(self, index):
        return lambda offset, size, value: self.log.append((index, offset, size, value))


class Rig:
    def __init__(self):
        self.pio, self.mmio = Bus("pio", 1 << 16), Bus("mmio", 1 << 40)
        self.ram = bytearray(4096)
        self.irqs, self.resets, self.cfg, self.dma = [], [], [], []
        self.root = PciRoot(
            self.pio,
            self.mmio,
            memory_read=lambda gpa, n: bytes(self.ram[gpa : gpa + n]),
            memory_write=self._store,
            pirq=self._pirq,
        )
        self.root.request_reset = self.resets.append
        self.root.trace_cfg = lambda *args: self.cfg.append(args)
        self.root.trace_dma = lambda *args: self.dma.append(args)
        for window in self.root.windows("i440fx"):
            self.pio.map(window)
        self.host, self.card = I440fx(), Card("card0")
        self.piix3 = Piix3(
            lambda name, n: IrqLine(name, lambda level: self.irqs.append((n, level)))
        )
        self.root.add(self.host, 0)
        self.root.add(self.piix3, 1)
        self.root.add(self.card, 3)

    def _pirq(self, n, level):
        self.piix3.set_pirq(n, level)

    def _store(self, gpa, data):
        self.ram[gpa : gpa + len(data)] = data

    def read(self, device, reg, size=4, function=0):
        self.pio.write(CF8, 4, 1 << 31 | device << 11 | function << 8 | reg & 0xFC)
        return self.pio.read(CFC + (reg & 3), size)

    def write(self, device, reg, value, size=4):
        self.pio.write(CF8, 4, 1 << 31 | device << 11 | reg & 0xFC)
        self.pio.write(CFC + (reg & 3), size, value)


@pytest.fixture
def rig():
    return Rig()


def test_identities(rig):
    assert rig.read(0, 0) == 0x1237_8086
    assert rig.read(1, 0) == 0x7000_8086
    assert rig.read(3, 0) == 0x5678_1234
    assert rig.read(3, 2, 2) == 0x5678
    assert rig.read(0, 0x0B, 1) == 0x06
    assert rig.read(1, 0x0E, 1) == 0x80
    assert rig.read(3, 0x2C, 2) == 0x1AF4


def test_nobody_there(rig):
    assert rig.read(5, 0) == 0xFFFF_FFFF
    assert rig.read(1, 0, 2, function=2) == 0xFFFF
    assert rig.cfg[-1] == ("00:01.2", 0, 2, False, 0xFFFF)


def test_disabled_mechanism(rig):
    rig.pio.write(CF8, 4, 0)
    assert rig.pio.read(CFC, 4) == 0xFFFF_FFFF
    assert rig.cfg == []


def test_confadd_takes_dwords_only(rig):
    rig.pio.write(CF8, 4, 0xFFFF_FFFF)
    assert rig.pio.read(CF8, 4) == 0x80FF_FFFC
    rig.pio.write(CF8, 1, 0)
    rig.pio.write(CF8, 2, 0)
    assert rig.pio.read(CF8, 4) == 0x80FF_FFFC
    assert rig.pio.read(CF8, 1) == 0xFF


def test_configuration_accesses_are_traced(rig):
    rig.write(3, 0x3D, 0x55AA, 2)
    assert rig.cfg == [("card0", 0x3D, 2, True, 0x55AA)]


def test_bar_sizing(rig):
    for reg, answer in ((0x10, 0xFFFF_F000), (0x14, 0xFFFF_FFE1), (0x18, 0x0000_000C)):
        rig.write(3, reg, 0xFFFF_FFFF)
        assert rig.read(3, reg) == answer
    rig.write(3, 0x1C, 0xFFFF_FFFF)
    assert rig.read(3, 0x1C) == 0xFFFF_FFFE
    rig.write(3, 0x20, 0xFFFF_FFFF)
    assert rig.read(3, 0x20) == 0
    rig.write(3, 0x30, 0xFFFF_F801)
    assert rig.read(3, 0x30) == 0


def test_bars_are_decoded_as_command_says_and_can_move(rig):
    rig.write(3, 0x10, 0xF000_0000)
    rig.write(3, 0x14, 0xC000)
    assert rig.mmio.find(0xF000_0000) is None
    rig.write(3, 0x04, 2, 2)
    assert rig.mmio.read(0xF000_0004, 4) == 0x004
    assert rig.pio.find(0xC000) is None
    rig.write(3, 0x04, 3, 2)
    assert rig.pio.read(0xC008, 1) == 0x108
    rig.write(3, 0x10, 0xF100_0000)
    assert rig.mmio.find(0xF000_0000) is None
    rig.mmio.write(0xF100_0010, 4, 7)
    assert rig.card.log == [(0, 0x10, 4, 7)]
    rig.write(3, 0x04, 0, 2)
    assert rig.mmio.find(0xF100_0000) is None


def test_64_bit_bar(rig):
    rig.write(3, 0x1C, 0x40)
    rig.write(3, 0x04, 2, 2)
    rig.write(3, 0x18, 0)
    assert rig.card.bar_base(2) == 0x40_0000_0000
    assert rig.mmio.read(0x40_0000_0002, 2) == 0x202


def test_sizing_while_decoding_and_overlaps_are_no_errors(rig):
    rig.write(3, 0x10, 0xF000_0000)
    rig.write(3, 0x14, 0xC000)
    rig.write(3, 0x04, 3, 2)
    rig.write(3, 0x14, 0xFFFF_FFFF)
    assert rig.pio.find(0xFFE0) is None
    rig.write(3, 0x14, CF8 & ~0x1F)
    assert rig.pio.find(0xCE0) is None
    rig.write(3, 0x14, 0xC000)
    assert rig.pio.find(0xC000) is not None


def test_capabilities(rig):
    assert rig.read(3, 0x06, 2) & 0x10
    assert rig.read(3, 0x34, 1) == 0x40
    assert rig.read(3, 0x40, 2) == 0x5009
    assert rig.read(3, 0x50, 2) == 0x0001
    rig.write(3, 0x44, 0x1234_5678)
    assert rig.read(3, 0x46, 2) == 0x1234
    assert not rig.read(1, 0x06, 2) & 0x10


def test_intx_goes_through_the_router(rig):
    rig.card.set_intx(True)
    assert rig.irqs == [], "PIRQRC is 80h after reset"
    rig.write(1, 0x62, 0x0B, 1)  # slot 3, INTA: PIRQC
    assert rig.irqs == [(11, True)]
    assert rig.read(3, 0x06, 2) & 8
    rig.write(1, 0x62, 0x0A, 1)
    assert rig.irqs == [(11, True), (11, False), (10, True)] or rig.irqs == [
        (11, True),
        (10, True),
        (11, False),
    ]
    rig.write(3, 0x04, 0x400, 2)
    assert rig.irqs[-1] == (10, False)
    rig.write(3, 0x04, 0, 2)
    rig.card.set_intx(False)
    assert rig.irqs[-1] == (10, False)


def test_dma_needs_bus_master_enable(rig):
    dma = rig.card.dma
    assert dma.read(0, 4) == b"\xff" * 4
    assert not dma.write(0, b"abcd")
    assert rig.read(3, 0x06, 2) & 1 << 13
    rig.write(3, 0x06, 1 << 13, 2)
    assert not rig.read(3, 0x06, 2) & 1 << 13
    rig.write(3, 0x04, 4, 2)
    assert dma.write(16, b"abcd")
    assert dma.read(16, 4) == b"abcd"
    assert rig.dma == [("card0", 16, 4, True), ("card0", 16, 4, False)]


def test_reset_control_register(rig):
    rig.pio.write(0xCF9, 1, 0x02)
    assert rig.pio.read(0xCF9, 1) == 0x02
    assert rig.resets == []
    rig.pio.write(0xCF9, 1, 0x06)
    assert rig.resets == ["RC, port 0xcf9: hard reset"]


def test_fixed_command_bits_of_the_host_bridge(rig):
    rig.write(0, 0x04, 0, 2)
    assert rig.read(0, 0x04, 2) == 0x06
    rig.write(0, 0x59, 0x33, 1)
    assert rig.read(0, 0x58) == 0x0000_3310


def test_one_function_in_one_slot(rig):
    with pytest.raises(ValueError, match=r"expected a free slot, not 00:03\.0, which card0 has"):
        rig.root.add(Card("card1"), 3)


def test_restore(rig):
    rig.write(3, 0x10, 0xF000_0000)
    rig.write(3, 0x04, 2, 2)
    rig.write(1, 0x62, 0x0B, 1)
    rig.card.set_intx(True)
    states = [(part, part.save()) for part in (rig.root, rig.host, rig.piix3, rig.card)]
    other = Rig()
    for old, state in states:
        new = {rig.root: other.root, rig.host: other.host, rig.piix3: other.piix3}.get(
            old, other.card
        )
        new.restore(state)
        assert new.save() == state
    assert other.irqs == []
    assert other.mmio.find(0xF000_0000).device == "card0"
    other.card.set_intx(False)
    assert other.irqs == [(11, False)]


def test_bad_bars():
    with pytest.raises(ValueError, match="expected a power of two from 16 on, not 24"):
        Bar(0, 24)
    with pytest.raises(ValueError, match="expected a base address register 0 to 5"):
        Bar(5, 16, wide=True)
