"""82540EM at its registers: EEPROM, PHY, link, interrupts, statistics, reset, ports."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest

from tests.hw import conformance
from tests.hw.conformance import Case, Rig
from tests.hw.e1000_rig import BAR0, IO, MAC, RING, US_PS, FakePort, NicRig, ethernet
from workbench.core.bus import Bus, Window
from workbench.core.state import StateError
from workbench.hw.e1000.e1000 import E1000
from workbench.hw.e1000.mac import LINK_PS, MAP
from workbench.hw.pci_root import PciRoot

LSC, RXT0, TXDW, RXDMT0, RXO = 1 << 2, 1 << 7, 1 << 0, 1 << 4, 1 << 6


def _build(rig: Rig) -> E1000:
    root = PciRoot(
        Bus("pio", 1 << 16),
        Bus("mmio"),
        memory_read=lambda gpa, n: bytes((gpa * 7 + i) & 0xFF for i in range(min(n, 64))).ljust(n),
        memory_write=lambda gpa, data: rig.events.append(("dma", gpa, len(data))),
        pirq=rig.call("pirq"),
    )
    port = FakePort()
    port.send = lambda frame: rig.events.append(("sent", frame))  # type: ignore[method-assign]
    nic = E1000(rig.clock, "net0", MAC, port)
    root.add(nic, 3)
    return nic


def _windows(nic: Any) -> Sequence[Window]:
    """Configuration space, BAR 2, and the busy parts of BAR 0 more often than the rest."""
    parts = [(0x0000, 0x200), (0x100, 8), (0x2800, 0x30), (0x3800, 0x38), (0x4000, 0x100)]
    parts += [(0x5000, 0xA00), (0, MAP.length)]
    regs = [Window.of(nic.mac, nic.name, 0, start=at, size=size) for at, size in parts]
    return [Window.of(nic, nic.name, 0), Window.of(nic.io, nic.name, 0), *regs]


def _poke(nic: Any, rng: random.Random) -> None:
    if rng.random() < 0.2:
        nic.handle_input("link", bytes((rng.randrange(2),)))
    else:
        nic.handle_input("frame", rng.randbytes(rng.choice((0, 5, 14, 60, 300, 1514, 9000))))


CASE = Case("e1000", _build, _windows, _poke)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    "check",
    [
        conformance.check_never_raises,
        conformance.check_round_trip,
        conformance.check_deterministic,
        conformance.check_reset,
        conformance.check_damaged_state,
    ],
    ids=lambda c: c.__name__,
)
def test_conformance(check: Any, seed: int) -> None:
    if check is conformance.check_damaged_state and seed > 1:
        return
    check(CASE, seed)


def test_wrong_state_is_refused() -> None:
    with pytest.raises(StateError):
        _build(Rig()).restore({"kind": "something", "version": 1, "fields": {}})


def test_identity():
    nic = NicRig().nic
    assert nic.read(0, 4) == 0x100E_8086
    assert nic.read(8, 4) == 0x0200_0003
    assert nic.read(0x2C, 4) == 0x001E_8086
    assert nic.read(0x3D, 1) == 1
    assert nic.read(0x34, 1) == 0xDC
    assert nic.read(0xDC, 1) == 1


def test_every_register_has_the_manuals_place():
    for name, at in {
        "CTRL": 0, "STATUS": 8, "EECD": 0x10, "EERD": 0x14, "CTRL_EXT": 0x18, "MDIC": 0x20,
        "ICR": 0xC0, "ITR": 0xC4, "ICS": 0xC8, "IMS": 0xD0, "IMC": 0xD8, "RCTL": 0x100,
        "TCTL": 0x400, "TIPG": 0x410, "LEDCTL": 0xE00, "PBA": 0x1000, "FCRTL": 0x2160,
        "RDBAL": 0x2800, "RDT": 0x2818, "RDTR": 0x2820, "RADV": 0x282C, "RSRPD": 0x2C00,
        "TDBAL": 0x3800, "TDT": 0x3818, "TADV": 0x382C, "TSPMT": 0x3830, "CRCERRS": 0x4000,
        "TSCTFC": 0x40FC, "RXCSUM": 0x5000, "MTA127": 0x53FC, "RAL15": 0x5478, "VFTA0": 0x5600,
        "WUC": 0x5800, "WUPM31": 0x5A7C, "FFLT3": 0x5F18, "FFMT127": 0x93F8, "FFVT127": 0x9BF8,
    }.items():  # fmt: skip
        assert MAP[name].offset == at, name


def test_an_access_explains_itself():
    text = MAP.explain(0x100, 4, 0x0400_8002, True)
    assert text == "RCTL[EN=1 BAM=1 SECRC=1]" or {"EN=1", "BAM=1", "SECRC=1"} <= set(
        text[5:-1].split()
    )
    assert "RXT0=1" in MAP.explain(0xC0, 4, 0x80, False)


# -- EEPROM --------------------------------------------------------------------------------------


def test_eerd_reads_words_that_sum_to_baba():
    rig = NicRig()
    words = []
    for n in range(64):
        rig.set("EERD", n << 8 | 1)
        value = rig.get("EERD")
        assert value & 0x10
        words.append(value >> 16)
    assert b"".join(w.to_bytes(2, "little") for w in words[:3]) == MAC
    assert sum(words) & 0xFFFF == 0xBABA
    assert (rig.get("RAL0"), rig.get("RAH0")) == (0x12005452, 0x80005634)


class Microwire:
    """The driver's side of EECD."""

    SK, CS, DI, DO = 1, 2, 4, 8

    def __init__(self, rig: NicRig) -> None:
        self.rig = rig
        rig.set("EECD", 0x40)
        assert rig.get("EECD") & 0x80

    def pins(self, value: int) -> int:
        self.rig.set("EECD", 0x40 | value)
        return self.rig.get("EECD") >> 3 & 1

    def out(self, value: int, count: int) -> None:
        for n in reversed(range(count)):
            bit = self.CS | (self.DI if value >> n & 1 else 0)
            self.pins(bit)
            self.pins(bit | self.SK)
            self.pins(bit)

    def take(self, count: int) -> int:
        value = 0
        for _ in range(count):
            value = value << 1 | self.pins(self.CS | self.SK)
            self.pins(self.CS)
        return value

    def command(self, operation: int, address: int) -> None:
        self.pins(0)
        self.pins(self.CS)
        self.out(operation, 3)
        self.out(address, 6)


def test_eecd_reads_and_goes_on_with_the_next_word():
    wire = Microwire(NicRig())
    wire.command(0b110, 0)
    assert [wire.take(16) for _ in range(3)] == [0x5452, 0x1200, 0x5634]
    wire.command(0b110, 0x0D)
    assert wire.take(16) == 0x100E


def test_eecd_writes_only_when_enabled_and_survives_reset():
    rig = NicRig()
    wire = Microwire(rig)

    def write(address: int, value: int) -> None:
        wire.command(0b101, address)
        wire.out(value, 16)
        wire.pins(0)

    write(0x30, 0x1234)
    wire.command(0b110, 0x30)
    assert wire.take(16) == 0
    wire.command(0b100, 0b110000)  # EWEN
    write(0x30, 0x1234)
    wire.command(0b100, 0b000000)  # EWDS
    write(0x30, 0x5678)
    wire.command(0b110, 0x30)
    assert wire.take(16) == 0x1234
    rig.nic.reset()
    rig.nic.write(0x10, 4, BAR0)
    rig.nic.write(0x04, 2, 7)
    rig.set("EERD", 0x30 << 8 | 1)
    assert rig.get("EERD") >> 16 == 0x1234


# -- PHY and link --------------------------------------------------------------------------------


def mdic(rig: NicRig, register: int, value: int | None = None, phy: int = 1) -> int:
    operation = 2 if value is None else 1
    rig.set("MDIC", operation << 26 | phy << 21 | register << 16 | (value or 0))
    return rig.get("MDIC")


def test_mdic_identifies_the_phy():
    rig = NicRig()
    assert mdic(rig, 2) & 0x1000_FFFF == 0x1000_0141
    assert mdic(rig, 3) & 0xFFFF == 0x0C20
    assert mdic(rig, 2, phy=2) >> 30 & 1, "no PHY there: E"
    assert mdic(rig, 1) & 0x24 == 0x24, "link and negotiation complete"
    assert mdic(rig, 17) >> 14 & 3 == 2, "1000 Mb/s"


def test_mdic_interrupt():
    rig = NicRig()
    rig.set("IMS", 1 << 9)
    rig.set("MDIC", 1 << 29 | 2 << 26 | 1 << 21)
    assert rig.line
    assert rig.get("ICR") == 1 << 9
    assert not rig.line


def test_link_comes_after_negotiation():
    rig = NicRig(link=False)
    rig.set("CTRL", 0x241)
    rig.set("IMS", LSC)
    assert not rig.get("STATUS") & 2
    rig.advance(LINK_PS)
    assert rig.get("STATUS") & 0xC3 == 0x83, "up, full duplex, 1000 Mb/s"
    assert rig.line
    assert rig.get("ICR") & LSC
    mdic(rig, 0, 0x1340)  # restart negotiation
    assert not rig.get("STATUS") & 2
    assert rig.get("ICR") & LSC
    assert not mdic(rig, 1) & 4
    rig.advance(LINK_PS)
    assert rig.get("STATUS") & 2
    assert rig.get("ICR") & LSC


def test_cable():
    rig = NicRig()
    rig.port.receiver("link", [b"\0"])
    assert not rig.get("STATUS") & 2
    assert rig.get("ICR") & LSC
    rig.start_rx()
    assert not rig.accepted(ethernet())
    rig.advance(2 * LINK_PS)
    assert not rig.get("STATUS") & 2
    rig.port.receiver("link", [b"\1"])
    rig.advance(LINK_PS)
    assert rig.get("STATUS") & 2
    assert rig.accepted(ethernet())


def test_phy_loopback():
    rig = NicRig()
    mdic(rig, 0, 0x4140)
    rig.start_rx(0x8002 | 3 << 6)
    rig.start_tx()
    rig.put(0x0B00_0000, 0, ethernet(b"again" * 20))
    assert rig.go() == []
    assert rig.rx(0)[0][:-4] == ethernet(b"again" * 20)


# -- interrupts ----------------------------------------------------------------------------------


def test_icr_ims_ics():
    rig = NicRig()
    rig.set("ICS", 0x81)
    assert not rig.line, "masked"
    rig.set("IMS", 0x80)
    assert rig.line
    rig.set("IMC", 0x80)
    assert not rig.line
    assert rig.get("IMS") == 0
    rig.set("IMS", 0x80)
    assert rig.line
    assert rig.get("ICR") == 0x81
    assert not rig.line
    assert rig.get("ICR") == 0, "reading clears"
    rig.set("ICS", 0x84)
    rig.set("ICR", 0x80)
    assert not rig.line
    assert rig.get("ICR") == 0x04, "writing 1 clears"


def test_ics_raises_each_cause_and_no_more():
    rig = NicRig()
    for n in range(10):  # the self-test of Linux's driver tries these
        rig.set("ICS", 1 << n)
        assert rig.get("ICR") == 1 << n
    rig.set("ICS", 0xFFFF_FFFF)
    assert rig.get("ICR") == sum(f.mask for f in MAP["ICR"].fields)


def test_itr_spaces_interrupts():
    rig = NicRig()
    rig.set("ITR", 100)  # 25.6 us
    rig.set("IMS", 0x80)
    rig.set("ICS", 0x80)
    assert rig.line
    first = rig.clock.now_ps
    rig.get("ICR")
    rig.set("ICS", 0x80)
    assert not rig.line
    rig.advance(25_600_000 - 1)
    assert not rig.line
    rig.advance(1)
    assert rig.line
    assert rig.clock.now_ps - first == 25_600_000
    rig.get("ICR")
    rig.set("ICS", 0x80)
    rig.get("ICR")
    rig.advance(100_000_000)
    assert not rig.line, "the cause is gone before its time came"
    rig.set("ICS", 0x80)
    assert rig.line, "long after: at once"


def test_rdtr_and_radv():
    rig = NicRig()
    rig.start_rx()
    rig.set("IMS", RXT0)
    rig.set("RDTR", 10)  # 10.24 us after the last frame
    rig.set("RADV", 25)  # 25.6 us after the first
    for _ in range(3):
        rig.arrive(ethernet())
        rig.advance(8 * US_PS)
        assert not rig.line
    rig.arrive(ethernet())
    rig.advance(1_599_999)
    assert not rig.line
    rig.advance(1)
    assert rig.line, "RADV"
    rig.get("ICR")
    rig.arrive(ethernet())
    rig.advance(10_240_000 - 1)
    assert not rig.line
    rig.advance(1)
    assert rig.line, "RDTR"
    rig.get("ICR")
    rig.arrive(ethernet())
    rig.set("RDTR", 1 << 31 | 10)
    assert rig.line, "FPD"
    assert rig.get("RDTR") == 10


def test_small_packets_are_reported_at_once():
    rig = NicRig()
    rig.start_rx()
    rig.set("RDTR", 1000)
    rig.set("RSRPD", 64)
    rig.arrive(ethernet(bytes(200)))
    assert rig.get("ICR") == 0
    rig.arrive(ethernet(bytes(10)))
    assert rig.get("ICR") == 1 << 16 | RXT0


def test_tidv_and_tadv():
    rig = NicRig()
    rig.start_tx()
    rig.set("IMS", TXDW)
    rig.set("TIDV", 20)
    rig.put(0x0B00_0000 | 1 << 31, 0, ethernet())
    rig.go(wait_us=0)
    rig.advance(US_PS)
    assert rig.port.sent
    assert not rig.line
    rig.advance(20_480_000)
    assert rig.line


def test_intx_disable_and_restored_level():
    rig = NicRig()
    rig.set("IMS", 0x80)
    rig.set("ICS", 0x80)
    rig.nic.write(0x04, 2, 0x407)
    assert not rig.line
    assert rig.nic.read(6, 2) & 8
    rig.nic.write(0x04, 2, 7)
    assert rig.line


# -- the rest ------------------------------------------------------------------------------------


def test_statistics_count_stick_and_clear():
    rig = NicRig()
    rig.start_rx()
    for size in (60, 100, 1000, 1514):
        rig.arrive(ethernet(bytes(size - 14)))
    rig.arrive(ethernet(bytes(46), to=b"\xff" * 6))
    octets = 64 * 2 + 104 + 1004 + 1518
    assert [rig.get(n) for n in ("PRC64", "PRC127", "PRC1023", "PRC1522")] == [2, 1, 1, 1]
    assert (rig.get("GPRC"), rig.get("GPRC")) == (5, 0)
    assert rig.get("BPRC") == 1
    assert rig.get("GORCL") == octets
    assert rig.get("GORCL") == octets, "cleared with the upper half"
    assert rig.get("GORCH") == 0
    assert rig.get("GORCL") == 0
    rig.mac.state.stats[MAP["TPR"].index] = 0xFFFF_FFFF
    rig.arrive(ethernet())
    assert rig.get("TPR") == 0xFFFF_FFFF


def test_software_reset():
    rig = NicRig()
    rig.start_rx()
    rig.start_tx()
    rig.set("MTA5", 1)
    rig.set("IMS", 0x80)
    rig.set("ICS", 0x80)
    rig.set("CTRL", 0x0400_0241)
    assert not rig.line
    assert rig.get("CTRL") == MAP["CTRL"].reset
    for name in ("IMS", "ICR", "RCTL", "TCTL", "RDT", "MTA5", "TDLEN"):
        assert rig.get(name) == 0, name
    assert rig.get("RAL0") == 0x12005452
    rig.set("CTRL", 0x241)
    assert rig.get("STATUS") & 2, "the PHY has kept its link"


def test_ports_reach_the_same_registers():
    rig = NicRig()
    rig.pio.write(IO, 4, 0x5400)
    assert rig.pio.read(IO + 4, 4) == 0x12005452
    rig.pio.write(IO, 4, 0x38)
    rig.pio.write(IO + 4, 4, 0x88A8)
    assert rig.get("VET") == 0x88A8
    rig.pio.write(IO, 4, 0xFFFF_FFFC)
    assert rig.pio.read(IO + 4, 4) == 0


def test_without_bus_mastering_nothing_moves():
    rig = NicRig()
    rig.start_rx()
    rig.start_tx()
    rig.nic.write(0x04, 2, 3)
    rig.put(0x0B00_0000, 0, ethernet())
    assert rig.go() == []
    rig.arrive(ethernet())
    assert rig.get("RDH") == 0
    rig.nic.write(0x04, 2, 7)
    rig.advance(100 * US_PS)
    assert len(rig.port.sent) == 1
    assert rig.get("RDH") == 1


def test_a_snapshot_in_the_middle_of_segmentation_goes_on():
    """Saved while a segmented packet is half sent: the copy sends the other half."""
    from tests.hw.test_e1000_data import tso_packet

    rig = NicRig()
    rig.start_tx()
    tso_packet(rig, bytes(range(256)) * 200, mss=100)
    rig._queued = 0
    rig.set("TDT", 3)
    rig.advance(2 * US_PS)
    half = len(rig.port.sent)
    assert 0 < half < 512
    twin = NicRig()
    twin.ram[:] = rig.ram
    saved, time = rig.nic.save(), rig.clock.save()
    twin.nic.restore(saved)
    twin.clock.restore(time)
    for r in (rig, twin):
        r.advance(20_000 * US_PS)
    assert len(rig.port.sent) == 512
    assert twin.port.sent == rig.port.sent[half:]
    assert RING
