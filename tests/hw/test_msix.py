"""MSI-X (PCI Local Bus Specification 3.0, 6.8.2) in a function."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from workbench.core.bus import Bus
from workbench.core.regs import on_write
from workbench.hw.pci.config import Bar, PciState, config_map
from workbench.hw.pci.function import PciFunction
from workbench.hw.pci.msix import Msix, MsixState, capability
from workbench.hw.pci_root import PciRoot

CAPABILITY, MSIX_CTRL = capability(0x98, 3, bir=1)
BASE = 0xF000_0000


@dataclass(slots=True)
class CardState(PciState):
    msix_ctrl: int = MSIX_CTRL.reset
    msix: MsixState = field(default_factory=MsixState)


class Card(PciFunction[CardState]):
    MAP = config_map(
        "msix-card", vendor=0x1AF4, device=0x1041, class_code=0x020000, capabilities=(CAPABILITY,)
    )
    STATE = CardState
    BARS = (Bar(1, 0x1000),)

    def __init__(self):
        state = CardState()
        self.msix = Msix(3, self._send, state=state.msix)
        super().__init__("card", state=state)

    def _send(self, address, data):
        self.port.msi(address, data)

    def connected(self):
        self.add_bar(1, self.msix.read, self.msix.write, regmap=self.msix.map)

    def set_state(self, state):
        super().set_state(state)
        self.msix.set_state(state.msix)

    @on_write(MSIX_CTRL)
    def _write_control(self, old, new):
        self.msix.set_control(new)


class Rig:
    def __init__(self):
        self.sent = []
        self.mmio = Bus("mmio", 1 << 40)
        root = PciRoot(
            Bus("pio", 1 << 16),
            self.mmio,
            memory_read=lambda gpa, n: bytes(n),
            memory_write=lambda gpa, data: None,
            pirq=lambda n, level: None,
        )
        root.msi = lambda address, data: self.sent.append((address, data))
        self.card = Card()
        root.add(self.card, 4)
        self.card.write(0x14, 4, BASE)
        self.card.write(0x04, 2, 6)

    def entry(self, vector, address, data, control):
        for at, value in enumerate((address, 0, data, control)):
            self.mmio.write(BASE + 16 * vector + 4 * at, 4, value)


@pytest.fixture
def rig():
    return Rig()


def test_capability(rig):
    assert rig.card.read(0x34, 1) == 0x98
    assert rig.card.read(0x98, 1) == 0x11
    assert rig.card.read(0x9A, 2) == 2
    assert rig.card.read(0x9C, 4) == 1
    assert rig.card.read(0xA0, 4) == 0x801
    rig.card.write(0x9A, 2, 0xFFFF)
    assert rig.card.read(0x9A, 2) == 0xC002


def test_nothing_is_sent_while_disabled(rig):
    rig.entry(0, 0xFEE0_0000, 0x41, 0)
    rig.card.msix.notify(0)
    assert rig.sent == []
    rig.card.write(0x9A, 2, 0x8000)
    assert rig.sent == []
    rig.card.msix.notify(0)
    assert rig.sent == [(0xFEE0_0000, 0x41)]


def test_masked_vectors_wait_in_the_pending_bits(rig):
    rig.card.write(0x9A, 2, 0x8000)
    rig.entry(2, 0xFEE0_0000, 0x43, 1)
    rig.card.msix.notify(2)
    rig.card.msix.notify(2)
    assert rig.mmio.read(BASE + 0x800, 4) == 4
    rig.mmio.write(BASE + 0x2C, 4, 0)
    assert rig.sent == [(0xFEE0_0000, 0x43)]
    assert rig.mmio.read(BASE + 0x800, 8) == 0


def test_function_mask(rig):
    rig.card.write(0x9A, 2, 0xC000)
    rig.entry(0, 0xFEE0_0000, 0x41, 0)
    rig.card.msix.notify(0)
    assert rig.sent == []
    rig.card.write(0x9A, 2, 0x8000)
    assert rig.sent == [(0xFEE0_0000, 0x41)]


def test_restore_sends_nothing(rig):
    rig.card.write(0x9A, 2, 0x8000)
    rig.entry(1, 0xFEE0_0000, 0x42, 1)
    rig.card.msix.notify(1)
    saved = rig.card.save()
    other = Rig()
    other.card.restore(saved)
    assert other.card.save() == saved
    assert other.sent == []
    other.mmio.write(BASE + 0x1C, 4, 0)
    assert other.sent == [(0xFEE0_0000, 0x42)]


def test_reset(rig):
    rig.card.write(0x9A, 2, 0x8000)
    rig.card.reset()
    assert not rig.card.msix.enabled
    assert rig.card.read(0x9A, 2) == 2


def test_number_of_vectors():
    with pytest.raises(ValueError, match="expected 1 to 64 vectors, not 65"):
        capability(0x40, 65, 0)
