"""FXSAVE, XSAVE and their opposites against the host; their faults; XCR0."""

from __future__ import annotations

import random

import pytest

from tests.core.x87_host import CR0, Guest, Host, State, random_state
from workbench.core.layout import (
    CR0_EM,
    CR0_TS,
    CR4_OSFXSR,
    CR4_OSXSAVE,
    CR4_PAE,
    GP,
    NM,
    UD,
)

ROUNDS = 60
CR4 = CR4_PAE | CR4_OSFXSR | CR4_OSXSAVE
AREA = Guest.OPERAND
FXSAVE, FXRSTOR = b"\x0f\xae\x02", b"\x0f\xae\x0a"
XSAVE, XRSTOR, XSAVEOPT = b"\x0f\xae\x22", b"\x0f\xae\x2a", b"\x0f\xae\x32"
XGETBV, XSETBV = b"\x0f\x01\xd0", b"\x0f\x01\xd1"
REX_W = b"\x48"
ALL = (FXSAVE, FXRSTOR, XSAVE, XRSTOR, XSAVEOPT)


@pytest.fixture(scope="module")
def ours() -> Guest:
    return Guest()


@pytest.fixture(scope="module")
def host() -> Host:
    return Host()


def random_area(rng: random.Random) -> bytes:
    """A legacy region that FXRSTOR accepts, without a pending x87 exception."""
    s = random_state(rng)
    area = bytearray(rng.randbytes(512))
    area[0:8] = (
        s.cw.to_bytes(2, "little") + s.sw.to_bytes(2, "little") + bytes((s.tag ^ 0xFF, 0, 0, 0))
    )
    area[8:24] = bytes(16)
    area[24:28] = (
        rng.getrandbits(6) | 0x1F80 | rng.getrandbits(2) << 13 | rng.getrandbits(1) << 6
    ).to_bytes(4, "little")
    area[28:32] = (0xFFFF).to_bytes(4, "little")
    for i, r in enumerate(s.regs):
        area[32 + 16 * i : 48 + 16 * i] = r.to_bytes(16, "little")
    area[416:] = bytes(96)
    return bytes(area)


def restore(ours: Guest, area: bytes) -> None:
    """Give our processor the state of a legacy region."""
    ours.write(area)
    assert ours.go(REX_W + FXRSTOR) is None


def seen(area: bytes) -> bytes:
    """A legacy region without the mask of MXCSR, which belongs to the model of a processor."""
    return area[:28] + area[32:]


def test_legacy_region_there_and_back(ours: Guest, host: Host) -> None:
    rng = random.Random(1)
    for _ in range(ROUNDS):
        area = random_area(rng)
        restore(ours, area)
        ours.write(b"\xaa" * 512)
        assert ours.go(REX_W + FXSAVE) is None
        got = ours.read(512)
        _, expected, _, _ = host.raw(REX_W + FXSAVE, area, b"\xaa" * 512, 2)
        assert seen(got[:416]) == seen(expected[:416])
        assert got[464:] == expected[464:]


def test_registers_land_where_they_belong(ours: Guest) -> None:
    area = random_area(random.Random(2))
    restore(ours, area)
    cpu = ours.cpu
    for i in range(16):
        assert cpu.get("xmm", i) == int.from_bytes(area[160 + 16 * i : 176 + 16 * i], "little")
    top = cpu.get("fpu_top")
    for i in range(8):
        assert cpu.get("fpr", (top + i) & 7) == int.from_bytes(
            area[32 + 16 * i : 42 + 16 * i], "little"
        )
    assert cpu.get("mxcsr") == int.from_bytes(area[24:28], "little")


@pytest.mark.parametrize("mask", [0, 1, 2, 3])
@pytest.mark.parametrize("insn", [XSAVE, XSAVEOPT], ids=["xsave", "xsaveopt"])
def test_xsave_writes_what_was_asked_for(ours: Guest, host: Host, insn: bytes, mask: int) -> None:
    rng = random.Random(mask)
    for _ in range(ROUNDS):
        area = random_area(rng)
        before = b"\x55" * 512 + bytes(64)
        restore(ours, area)
        ours.write(before)
        ours.cpu.set("rax", mask)
        assert ours.go(REX_W + insn) is None
        got = ours.read(576)
        # mov eax, mask; push rdx; xor edx, edx cannot be used: RDX is the address; so RCX takes it
        code = (
            b"\x48\x89\xd1\x31\xd2\xb8"
            + mask.to_bytes(4, "little")
            + REX_W
            + XSAVE[:2]
            + b"\x21\x48\x89\xca"
        )
        _, expected, _, _ = host.raw(code, area, before, 2)
        assert seen(got[:416]) == seen(expected[:416])
        if mask & 2:
            assert got[28:32] == b"\xff\xff\0\0"
        else:
            assert got[28:32] == expected[28:32]
        assert got[464:512] == expected[464:512]
        assert int.from_bytes(got[512:520], "little") == mask
        assert got[520:] == expected[520:]


def test_xrstor_takes_what_is_there(ours: Guest) -> None:
    rng = random.Random(7)
    for mask in range(4):
        for present in range(4):
            old, new = random_area(rng), random_area(rng)
            restore(ours, old)
            ours.write(new + present.to_bytes(8, "little") + bytes(56))
            ours.cpu.set("rax", mask)
            assert ours.go(REX_W + XRSTOR) is None
            ours.write(bytes(512))
            assert ours.go(REX_W + FXSAVE) is None
            got = ours.read(416)
            x87 = old if not mask & 1 else new if present & 1 else b"\x7f\x03" + bytes(158)
            sse = old if not mask & 2 else new if present & 2 else bytes(416)
            mxcsr = new if mask & 2 else old
            assert got[:24] + got[32:160] == x87[:24] + b"".join(
                x87[32 + 16 * i : 42 + 16 * i].ljust(16, b"\0") for i in range(8)
            )
            assert got[24:28] == mxcsr[24:28]
            assert got[160:416] == sse[160:416]


@pytest.mark.parametrize("prefix", [b"", REX_W], ids=["32-bit pointers", "64-bit pointers"])
def test_area_across_two_pages(ours: Guest, prefix: bytes) -> None:
    area = random_area(random.Random(8))
    for address, save, load in ((0x12F90, FXSAVE, FXRSTOR), (0x12F40, XSAVE, XRSTOR)):
        restore(ours, area)
        ours.cpu.set("rax", 3)
        ours.write(bytes(576), address)
        ours.write(b"\x77" * 8, address + 576)
        assert ours.go_at(prefix + save, address) is None
        assert seen(ours.read(416, address)) == seen(area[:416])
        assert ours.read(8, address + 576) == b"\x77" * 8
        restore(ours, random_area(random.Random(9)))
        assert ours.go_at(prefix + load, address) is None
        assert ours.go(prefix + FXSAVE) is None
        assert seen(ours.read(416)) == seen(area[:416])


def test_pointers(ours: Guest) -> None:
    area = random_area(random.Random(10))
    ip, dp = 0x1122334455667788, 0x99AABBCCDDEEFF00
    area = area[:6] + b"\x21\x04" + ip.to_bytes(8, "little") + dp.to_bytes(8, "little") + area[24:]
    restore(ours, area)
    assert ours.go(REX_W + FXSAVE) is None
    assert ours.read(24) == area[:24]
    assert ours.go(FXSAVE) is None
    assert ours.read(18, AREA + 6).hex() == "2104887766550000000000ffeedd00000000"


def test_alignment_and_availability(ours: Guest) -> None:
    cpu = ours.cpu
    restore(ours, random_area(random.Random(11)))
    ours.write(bytes(1024))
    for insn in ALL:
        assert ours.go_at(insn, AREA + 8) == GP
        cpu.set("cr0", CR0 | CR0_TS)
        assert ours.go(insn) == NM
        cpu.set("cr0", CR0 | CR0_EM)
        assert ours.go(insn) == (NM if insn in (FXSAVE, FXRSTOR) else None)
        cpu.set("cr0", CR0)
        assert ours.go_at(insn, 0x1FFFC0) == 14
    for insn in (XSAVE, XRSTOR, XSAVEOPT):
        assert ours.go_at(insn, AREA + 16) == GP
        cpu.set("cr4", CR4 & ~CR4_OSXSAVE)
        assert ours.go_at(insn, AREA + 16) == UD
        cpu.set("cr4", CR4)


def test_reserved_bits_are_refused(ours: Guest) -> None:
    area = random_area(random.Random(12))
    restore(ours, area)
    bad_mxcsr = area[:26] + b"\1" + area[27:]
    ours.write(bad_mxcsr)
    assert ours.go(FXRSTOR) == GP
    ours.cpu.set("rax", 3)
    for at, value in ((512, 4), (519, 0x80), (520, 1), (527, 0x80), (528, 1), (535, 1)):
        image = bytearray(area + bytes(64))
        image[512] = 3
        image[at] = value
        ours.write(bytes(image))
        assert ours.go(XRSTOR) == GP
    ours.write(bad_mxcsr + bytes(64))
    assert ours.go(XRSTOR) == GP
    ours.cpu.set("rax", 1)
    assert ours.go(XRSTOR) is None


def test_legacy_save_without_osfxsr_leaves_sse_alone(ours: Guest) -> None:
    restore(ours, random_area(random.Random(13)))
    ours.write(b"\xaa" * 512)
    ours.cpu.set("cr4", CR4 & ~CR4_OSFXSR)
    assert ours.go(FXSAVE) is None
    ours.cpu.set("cr4", CR4)
    assert ours.read(8, AREA + 24) == b"\xaa" * 8
    assert ours.read(256, AREA + 160) == b"\xaa" * 256


def test_xcr0(ours: Guest) -> None:
    cpu = ours.cpu
    ours.put(State([0] * 8))

    def xsetbv(index: int, value: int) -> int | None:
        cpu.set("rcx", index)
        cpu.set("rax", value & 0xFFFFFFFF)
        # mov rdx, imm: the operand register is RDX in `go`
        return ours.go_at(XSETBV, value >> 32)

    assert xsetbv(0, 1) is None
    assert cpu.get("xcr0") == 1
    for index, value in ((0, 0), (0, 2), (0, 7), (0, 1 << 32 | 1), (1, 1)):
        assert xsetbv(index, value) == GP
        assert cpu.get("xcr0") == 1
    assert xsetbv(0, 3) is None
    cpu.set("rcx", 0)
    cpu.set("rax", 1 << 63)
    assert ours.go(XGETBV) is None
    assert (cpu.get("rax"), cpu.get("rdx")) == (3, 0)
    cpu.set("rcx", 1)
    assert ours.go(XGETBV) == GP
    cpu.set("cr4", CR4 & ~CR4_OSXSAVE)
    assert ours.go(XGETBV) == UD
    assert xsetbv(0, 3) == UD
    cpu.set("cr4", CR4)
