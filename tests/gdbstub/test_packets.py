"""The parsers: syntax and nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.gdbstub import packets as p

GOOD = [
    (b"m1000,40", p.ReadMemory(0x1000, 0x40)),
    (b"x1000,40", p.ReadMemory(0x1000, 0x40, binary=True)),
    (b"M1000,2:0aff", p.WriteMemory(0x1000, b"\x0a\xff")),
    (b"X1000,2:\x7d\x03\x01", p.WriteMemory(0x1000, b"#\x01")),
    (b"g", p.ReadRegisters()),
    (b"p10", p.ReadRegister(0x10)),
    (b"P10=0102", p.WriteRegister(0x10, b"\x01\x02")),
    (b"Z0,ffffffff81000000,1", p.Breakpoint(0, 0xFFFFFFFF81000000, 1, True)),
    (b"z2,1000,8", p.Breakpoint(2, 0x1000, 8, False)),
    (b"Z1,10,1;X2,2200", p.Breakpoint(1, 0x10, 1, True, (b"\x22\0",))),
    (b"Z0,10,1;X1,27X3,220127", p.Breakpoint(0, 0x10, 1, True, (b"\x27", b"\x22\x01\x27"))),
    (b"Z0,10,1;X1,27;cmds:0,X1,27", p.Breakpoint(0, 0x10, 1, True, (b"\x27",), (b"\x27",))),
    (b"vCont;s:1;c", p.Resume(True)),
    (b"vCont;c", p.Resume(False)),
    (b"c", p.Resume(False)),
    (b"C05;1000", p.Resume(False, address=0x1000)),
    (b"s1000", p.Resume(True, address=0x1000)),
    (b"bs", p.Resume(True, reverse=True)),
    (b"bc", p.Resume(False, reverse=True)),
    (b"qSupported:a+;b+", p.Query("qSupported", b"a+;b+")),
    (b"QStartNoAckMode", p.Query("QStartNoAckMode", b"")),
    (b"vCont?", p.Query("vCont?", b"")),
    (b"qRcmd,6869", p.Query("qRcmd", b"6869")),
    (b"?", p.Other("?", b"")),
    (b"Hc-1", p.Other("H", b"c-1")),
]
BAD = [
    b"m", b"m10", b"m,4", b"mxyz,4", b"m10,fffffffff", b"m-1,4", b"M10,4:00", b"M10,1:0",
    b"X10,3:ab", b"Z0,10,1;X2,27", b"Z0,10,1;X1,ff", b"Z0,10,1;Y", b"Z0,10,1;X0,",
    b"Z0,10,1;cmds:0", b"Z0,10,1;X3,21ff00",
    b"P=", b"P1=0", b"Z9,10,1", b"Z0,10", b"z", b"vCont;x", b"b", b"bx", b"pzz",
    b"G0", b"q\xff",
]  # fmt: skip


@pytest.mark.parametrize(("payload", "found"), GOOD)
def test_a_packet_is_understood(payload: bytes, found: p.Packet) -> None:
    assert p.parse(payload) == found


@pytest.mark.parametrize("payload", BAD)
def test_a_malformed_packet_is_nothing(payload: bytes) -> None:
    assert p.parse(payload) is None


@given(st.sampled_from([g for g, _ in GOOD]), st.binary(max_size=30), st.integers(0, 20))
def test_damaged_packets_raise_nothing(payload: bytes, damage: bytes, at: int) -> None:
    p.parse(payload[:at] + damage)
