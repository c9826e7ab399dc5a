"""Flow control of the 82540EM by PAUSE frames (317453, 8.7)."""

from __future__ import annotations

import pytest

from tests.hw.e1000_rig import EOP, IFCS, MAC, OTHER, RS, NicRig, ethernet

GROUP = bytes.fromhex("0180c2000001")
TXOFF = 1 << 4
RFCE, TFCE = 1 << 27, 1 << 28
PMCF, DPF, SWXOFF = 1 << 23, 1 << 22, 1 << 22
XONE = 1 << 31
SLOT_PS = 512_000


def rig_with(ctrl: int, rctl: int = 0x8002, tail: int | None = None) -> NicRig:
    rig = NicRig()
    rig.start_rx(rctl, tail=tail)
    rig.set("FCAL", 0x00C28001)
    rig.set("FCAH", 0x0100)
    rig.set("FCT", 0x8808)
    rig.set("FCTTV", 0x1234)
    rig.set("CTRL", 0x241 | ctrl)
    return rig


def pause(slots: int, to: bytes = GROUP, opcode: int = 1) -> bytes:
    body = opcode.to_bytes(2, "big") + slots.to_bytes(2, "big")
    return to + OTHER + b"\x88\x08" + body.ljust(46, b"\0")


def test_a_pause_stops_the_transmitter_until_its_time_is_over() -> None:
    rig = rig_with(RFCE)
    rig.start_tx()
    assert not rig.accepted(pause(100)), "its address is in no filter"
    assert rig.get("STATUS") & TXOFF
    rig.put(EOP | IFCS | RS, 0, ethernet())
    assert rig.go(wait_us=50) == []
    rig.advance(5 * SLOT_PS)
    assert len(rig.port.sent) == 1
    assert not rig.get("STATUS") & TXOFF
    assert [rig.get(n) for n in ("XOFFRXC", "XONRXC")] == [1, 0]


def test_time_0_ends_a_pause() -> None:
    rig = rig_with(RFCE)
    rig.start_tx()
    rig.arrive(pause(0xFFFF))
    rig.put(EOP | IFCS | RS, 0, ethernet())
    assert rig.go(wait_us=1000) == []
    rig.arrive(pause(0))
    assert not rig.get("STATUS") & TXOFF
    rig.advance(10_000_000)
    assert len(rig.port.sent) == 1
    assert rig.get("XONRXC") == 1


def test_a_pause_survives_a_snapshot_and_ends_with_a_reset() -> None:
    rig = rig_with(RFCE)
    rig.start_tx()
    rig.arrive(pause(100))
    saved, clock = rig.nic.save(), rig.clock.save()
    rig.set("CTRL", 1 << 26)
    assert not rig.get("STATUS") & TXOFF
    rig.nic.restore(saved)
    rig.clock.restore(clock)
    assert rig.get("STATUS") & TXOFF
    rig.put(EOP | IFCS | RS, 0, ethernet())
    assert rig.go(wait_us=50) == []
    rig.advance(5 * SLOT_PS)
    assert len(rig.port.sent) == 1


@pytest.mark.parametrize(
    ("frame", "rctl", "passes"),
    [
        (pause(1, MAC), 0, True),
        (pause(1, MAC), DPF, False),
        (pause(1, MAC, opcode=7), 0, False),
        (pause(1, MAC, opcode=7), PMCF, True),
        (pause(1, opcode=7), PMCF, True),
        (pause(1), PMCF, False),
    ],
)
def test_what_the_host_sees_of_control_frames(frame: bytes, rctl: int, passes: bool) -> None:
    rig = rig_with(RFCE, 0x8002 | rctl)
    assert rig.accepted(frame) is passes
    other = int.from_bytes(frame[14:16], "big") != 1
    assert rig.get("FCRUC") == other
    assert rig.get("XOFFRXC") == (not other)


def test_without_rfce_they_are_frames_like_others() -> None:
    rig = rig_with(0, 0x8002 | DPF)
    assert rig.accepted(pause(1, MAC))
    assert not rig.get("STATUS") & TXOFF
    assert rig.get("XOFFRXC") == 0


def test_a_full_packet_buffer_asks_for_a_pause() -> None:
    rig = rig_with(TFCE, tail=0)
    rig.set("FCRTH", 4096)
    rig.set("FCRTL", XONE | 1024)
    for _ in range(4):
        rig.arrive(ethernet(bytes(1000)))
        assert rig.port.sent == []
    rig.arrive(ethernet(bytes(1000)))
    xoff = GROUP + MAC + bytes.fromhex("8808 0001 1234") + bytes(42)
    assert rig.port.sent == [xoff]
    for _ in range(60):
        rig.arrive(ethernet(bytes(1000)))
    lost = rig.get("MPC")
    assert lost
    assert rig.port.sent == [xoff] * (1 + lost), "again for each frame that is lost"
    rig.port.sent.clear()
    while rig.get("RDFPC") > 1:
        assert rig.port.sent == []
        rig.set("RDT", (rig.get("RDT") + 1) % 16)
    assert rig.port.sent == [xoff[:16] + bytes(44)], "XON at the low threshold"
    assert [rig.get(n) for n in ("XOFFTXC", "XONTXC", "GPTC")] == [1 + lost, 1, 0]


def test_no_pause_without_tfce_or_a_threshold() -> None:
    for ctrl, threshold in ((0, 4096), (TFCE, 0)):
        rig = rig_with(ctrl, tail=0)
        rig.set("FCRTH", threshold)
        for _ in range(60):
            rig.arrive(ethernet(bytes(1000)))
        assert rig.port.sent == []


def test_software_may_ask_for_a_pause() -> None:
    rig = rig_with(0)
    rig.start_tx()
    rig.set("TCTL", rig.get("TCTL") | SWXOFF)
    assert [frame[12:18].hex() for frame in rig.port.sent] == ["880800011234"]
    assert not rig.get("TCTL") & SWXOFF
