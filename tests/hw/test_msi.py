"""MSI (PCI Local Bus Specification 3.0, 6.8.1) in a function, and in the 82540EM."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tests.hw.e1000_rig import NicRig, ethernet
from workbench.core.bus import Bus
from workbench.hw.pci.config import PciState, config_map
from workbench.hw.pci.function import PciFunction
from workbench.hw.pci.msi import Msi, capability
from workbench.hw.pci_root import PciRoot

ADDRESS = 0xFEE0_1004
CTRL, ADDR, UPPER, DATA, MASK, PENDING = 0x52, 0x54, 0x58, 0x5C, 0x60, 0x64


@dataclass(slots=True)
class CardState(PciState):
    msi_ctrl: int = 2 << 1 | 1 << 7 | 1 << 8
    msi_addr: int = 0
    msi_upper: int = 0
    msi_data: int = 0
    msi_mask: int = 0
    msi_pending: int = 0


class Card(PciFunction[CardState]):
    MAP = config_map(
        "msi-card", vendor=0x1AF4, device=1, class_code=0x020000,
        capabilities=(capability(0x50, 4, maskable=True),),
    )  # fmt: skip
    STATE = CardState

    def __init__(self) -> None:
        state = CardState()
        self.msi = Msi(state, self.send_msi)
        super().__init__("card", state=state)

    def set_state(self, state: CardState) -> None:
        super().set_state(state)
        self.msi.state = state

    def write(self, offset: int, size: int, value: int) -> None:
        super().write(offset, size, value)
        self.msi.release()


@pytest.fixture
def rig() -> tuple[Card, list[tuple[int, int]]]:
    sent: list[tuple[int, int]] = []
    root = PciRoot(
        Bus("pio", 1 << 16),
        Bus("mmio", 1 << 40),
        memory_read=lambda gpa, n: bytes(n),
        memory_write=lambda gpa, data: None,
        pirq=lambda n, level: None,
    )
    root.msi = lambda address, data: sent.append((address, data))
    card = Card()
    root.add(card, 3)
    card.write(4, 2, 4)
    card.write(ADDR, 4, ADDRESS | 3)
    card.write(UPPER, 4, 1)
    card.write(DATA, 2, 0x4042)
    return card, sent


def test_capability(rig: tuple[Card, list[tuple[int, int]]]) -> None:
    card, _ = rig
    assert card.read(0x34, 1) == 0x50
    assert card.read(0x50, 2) == 5
    assert card.read(CTRL, 2) == 0x184
    card.write(CTRL, 2, 0xFFFF)
    assert card.read(CTRL, 2) == 0x1F5, "the fixed bits stay"
    assert card.read(ADDR, 4) == ADDRESS
    card.write(MASK, 4, 0xFFFF_FFFF)
    card.write(PENDING, 4, 0xFFFF_FFFF)
    assert (card.read(MASK, 4), card.read(PENDING, 4)) == (15, 0)


@pytest.mark.parametrize(
    ("allocated", "data"),
    [(0, [0x4042] * 4), (1, [0x4042, 0x4043] * 2), (2, [0x4040, 0x4041, 0x4042, 0x4043]),
     (5, [0x4040, 0x4041, 0x4042, 0x4043])],
)  # fmt: skip
def test_as_many_messages_as_software_allows(
    rig: tuple[Card, list[tuple[int, int]]], allocated: int, data: list[int]
) -> None:
    card, sent = rig
    card.msi.notify(0)
    assert sent == [], "not enabled"
    card.write(CTRL, 2, allocated << 4 | 1)
    for vector in range(4):
        card.msi.notify(vector)
    assert sent == [(1 << 32 | ADDRESS, value) for value in data]


def test_a_masked_message_is_pending(rig: tuple[Card, list[tuple[int, int]]]) -> None:
    card, sent = rig
    card.write(CTRL, 2, 2 << 4 | 1)
    card.write(MASK, 4, 6)
    for vector in (1, 2, 1, 3):
        card.msi.notify(vector)
    assert [data for _, data in sent] == [0x4043]
    assert card.read(PENDING, 4) == 6
    saved = card.save()
    card.reset()
    card.restore(saved)
    card.write(MASK, 4, 4)
    assert [data for _, data in sent] == [0x4043, 0x4041]
    assert card.read(PENDING, 4) == 4


def test_a_message_is_a_write_by_a_bus_master(rig: tuple[Card, list[tuple[int, int]]]) -> None:
    card, sent = rig
    card.write(CTRL, 2, 1)
    card.write(4, 2, 0)
    card.msi.notify()
    assert sent == []
    assert card.read(6, 2) & 1 << 13, "STATUS.RMA"


@pytest.mark.parametrize("vectors", [0, 3, 64])
def test_number_of_messages(vectors: int) -> None:
    with pytest.raises(ValueError, match="power of two"):
        capability(0x50, vectors)


def test_the_82540em_sends_a_message_instead_of_inta() -> None:
    rig = NicRig()
    sent: list[tuple[int, int]] = []
    rig.root.msi = lambda address, data: sent.append((address, data))
    assert rig.nic.read(0xF0, 2) == 5, "after power management"
    assert rig.nic.read(0xF2, 2) == 0x80
    rig.nic.write(0xF4, 4, ADDRESS)
    rig.nic.write(0xFC, 2, 0x42)
    rig.start_rx()
    rig.set("IMS", 0x80)
    rig.arrive(ethernet())
    assert rig.line
    rig.nic.write(0xF2, 2, 1)
    assert not rig.line, "MSI takes the place of INTA"
    assert sent == []
    rig.get("ICR")
    for _ in range(2):
        rig.arrive(ethernet())
    assert sent == [(ADDRESS, 0x42)], "one for each assertion"
    saved = rig.nic.save()
    rig.nic.restore(saved)
    assert len(sent) == 1
    rig.get("ICR")
    rig.arrive(ethernet())
    assert len(sent) == 2
    assert not rig.line
    rig.nic.reset()
    assert rig.nic.read(0xF2, 2) == 0x80
