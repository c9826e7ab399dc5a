"""MMX and SSE: every row against the host; alignment, availability, #XM, approximations."""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Iterator
from fractions import Fraction

import pytest

from tests.core.sse_host import MEMORY, STACK, Host, Ours, Vectors, random_vectors, replace
from workbench.core.build import import_semantics
from workbench.core.layout import CR0_EM, CR0_TS, CR4_OSFXSR, CR4_OSXMMEXCPT, GP, MF, NM, UD, XM
from workbench.core.opcodes import ROWS, Row
from workbench.core.optable import parse_encoding
from workbench.core.sse_helpers import NEEDS_MMX, NEEDS_SSE

import_semantics()

ROUNDS = int(os.environ.get("SSE_ROUNDS", "60"))
PREFIX_BYTES = {None: b"", 0: b"", 1: b"\x66", 2: b"\xf3", 3: b"\xf2"}
MAP_BYTES = {1: b"\x0f", 2: b"\x0f\x38", 3: b"\x0f\x3a"}
FOUR = 1 | 1 << 32 | 1 << 64 | 1 << 96  # times a number: the number in every lane
OURS_ALONE = {"rcpps", "rcpss", "rsqrtps", "rsqrtss", "ldmxcsr", "emms"}
ROWS_HERE = [r for r in ROWS if r.op in NEEDS_SSE | NEEDS_MMX | {"movnti"}]


def encodings(row: Row) -> Iterator[bytes]:
    """The row with register 1 (reg) and 2, or 1 again, or memory at [RDI] (rm); no immediate."""
    enc = parse_encoding(row.encoding)
    operands = [o for o in row.operands.split(",") if o]
    wide = [b"", b"\x48"] if any(o.endswith("y") for o in operands) else [b""]
    modrms = []
    reg = 1 if enc.reg is None else enc.reg
    if enc.mod != "mem" and not any(o[0] == "M" for o in operands):
        modrms += [0xC0 | reg << 3 | 2, 0xC0 | reg << 3 | 1]
    if enc.mod != "mod3" and any(o[0] in "EMWQ" for o in operands):
        modrms.append(reg << 3 | 7)
    for rex in wide:
        for modrm in modrms:
            opcode = bytes((enc.opcode, modrm))
            yield PREFIX_BYTES[enc.prefix] + rex + MAP_BYTES[enc.map] + opcode


CASES = [
    (r.op, e, "Ib" in r.operands) for r in ROWS_HERE if r.op not in OURS_ALONE for e in encodings(r)
]
IMMEDIATES = (*range(18), 0x1B, 0x38, 0x45, 0x71, 0xE4, 0xFF)


@pytest.fixture(scope="module")
def ours() -> Ours:
    return Ours()


@pytest.fixture(scope="module")
def host() -> Host:
    return Host()


@pytest.mark.parametrize(
    ("name", "insn", "imm"), CASES, ids=[f"{n} {e.hex()}" for n, e, _ in CASES]
)
def test_row_equals_host(
    ours: Ours,
    host: Host,
    name: str,
    insn: bytes,
    imm: bool,
) -> None:
    rng = random.Random(insn.hex())
    if not imm:
        tails = [b""]
    elif name.startswith("cmp"):
        tails = [bytes((i,)) for i in range(8)]
    else:
        tails = [bytes((i,)) for i in (*IMMEDIATES, *rng.sample(range(256), 10))]
    for tail in tails:
        for _ in range(max(4, ROUNDS // len(tails))):
            state = random_vectors(rng)
            expected, got = host.run(insn + tail, state), ours.run(insn + tail, state)
            where = f"{name} {(insn + tail).hex()} from {state.seen()}"
            assert got.seen() == expected.seen(), where


@pytest.mark.parametrize(
    "text",
    [
        "0f2eca",
        "660f2f0f",
        "660f3817ca",
        "660f3a63ca0c",
        "660f3a62ca40",
        "660f3a61ca18",
        "66480f3a600f02",
    ],
)
def test_flags_that_nobody_reads(ours: Ours, host: Host, text: str) -> None:
    """ADD overwrites the flags: what else the instruction does must stay."""
    rng = random.Random(text)
    insn = bytes.fromhex(text) + b"\x01\xd3"
    for _ in range(200):
        state = random_vectors(rng)
        state.gpr[3] &= 0xFFFFFFFF
        assert ours.run(insn, state, 0, 2).seen() == host.run(insn, state).seen(), state.seen()


def test_every_row_is_tried() -> None:
    assert {c[0] for c in CASES} | OURS_ALONE == {r.op for r in ROWS_HERE}


# Of each kind one, with memory at [RDI].
ALIGNED = [
    "0f280f",
    "0f290f",
    "660f6f0f",
    "660fe70f",
    "660f382a0f",
    "0f580f",
    "660fef0f",
    "660f700f00",
]
UNALIGNED = [
    "0f100f",
    "f30f6f0f",
    "f20ff00f",
    "f30f580f",
    "f20f120f",
    "660f3a630f00",
    "660f38200f",
    "0ffc0f",
]


@pytest.mark.parametrize("text", ALIGNED)
def test_alignment_matters(ours: Ours, text: str) -> None:
    state = random_vectors(random.Random(text))
    out = ours.run(bytes.fromhex(text), state, 8)
    assert out.fault == (GP, 0)
    assert replace(out, fault=None) == state


@pytest.mark.parametrize("text", UNALIGNED)
def test_alignment_does_not_matter(ours: Ours, text: str) -> None:
    assert ours.run(bytes.fromhex(text), random_vectors(random.Random(text)), 8).fault is None


# bits to set in CR0, to clear in CR4, instruction, exception
AVAILABILITY = [
    (CR0_EM, 0, "0f58ca", UD),
    (CR0_TS, 0, "0f58ca", NM),
    (CR0_EM | CR0_TS, 0, "0f58ca", UD),
    (0, CR4_OSFXSR, "0f58ca", UD),
    (CR0_TS, CR4_OSFXSR, "660fefca", UD),
    (CR0_EM, 0, "0ffcca", UD),
    (CR0_TS, 0, "0ffcca", NM),
    (CR0_TS, 0, "0f77", NM),
    (0, CR4_OSFXSR, "0ffcca", None),
    (CR0_TS, 0, "0fc30f", None),
    (CR0_TS, 0, "0fae1f", NM),
]


@pytest.mark.parametrize(("cr0", "cr4", "text", "vector"), AVAILABILITY)
def test_availability(ours: Ours, cr0: int, cr4: int, text: str, vector: int | None) -> None:
    old = ours.cpu.get("cr0"), ours.cpu.get("cr4")
    ours.cpu.set("cr0", old[0] | cr0)
    ours.cpu.set("cr4", old[1] & ~cr4)
    try:
        out = ours.run(bytes.fromhex(text), random_vectors(random.Random(1)))
    finally:
        ours.cpu.set("cr0", old[0])
        ours.cpu.set("cr4", old[1])
    assert (out.fault and out.fault[0]) == vector


def test_mmx_and_the_x87(ours: Ours) -> None:
    ours.run(bytes.fromhex("0ffcca"), Vectors())
    assert (ours.cpu.get("fpu_tag"), ours.cpu.get("fpu_top")) == (0, 0)
    assert ours.cpu.get("fpr", 1) >> 64 == 0xFFFF
    assert ours.cpu.get("fpr", 2) >> 64 == 0x1234
    ours.run(bytes.fromhex("0f77"), Vectors())
    assert (ours.cpu.get("fpu_tag"), ours.cpu.get("fpu_top")) == (0xFF, 0)
    ours.run(bytes.fromhex("660f2a0f"), Vectors())  # CVTPI2PD from memory leaves the x87 alone
    assert (ours.cpu.get("fpu_tag"), ours.cpu.get("fpu_top")) == (0x55, 3)
    ours.cpu.set("fpu_sw", 0x80)
    try:
        out = ours.run(bytes.fromhex("0ffcca"), Vectors())
    finally:
        ours.cpu.set("fpu_sw", 0)
    assert out.fault == (MF, 0)


def test_ldmxcsr(ours: Ours) -> None:
    out = ours.run(bytes.fromhex("0fae17"), Vectors(memory=struct.pack("<I28x", 0xFFBF)))
    assert (out.mxcsr, out.fault) == (0xFFBF, None)
    out = ours.run(bytes.fromhex("0fae17"), Vectors(memory=struct.pack("<I28x", 0x11F80)))
    assert (out.mxcsr, out.fault) == (0x1F80, (GP, 0))


def test_upper_registers(ours: Ours) -> None:
    """REX.R and REX.B reach XMM8 to XMM15; a general register by number, not AH to BH."""
    state = Vectors(xmm=[0x1111, 0x2222, 0x3333, 0x4444], gpr=[0xAABBCCDD, 0, 0, 0])
    for text in ("440f28f1", "66450f6ffe", "f3410f7fd7", "66410f6fc6"):  # 14 <- 1, 15 <- 14, ...
        state = ours.run(bytes.fromhex(text), state)
    assert state.xmm == [0x2222, 0x2222, 0x3333, 0x4444]
    assert (ours.cpu.get("xmm", 14), ours.cpu.get("xmm", 15)) == (0x2222, 0x3333)
    out = ours.run(bytes.fromhex("660f3a20cc00"), Vectors())  # PINSRB XMM1, ESP
    assert out.xmm[1] == STACK & 0xFF != 0


def one(x: float, double: bool = False) -> int:
    """The bits of a number in the low lane."""
    return int.from_bytes(struct.pack("<d" if double else "<f", x), "little")


# instruction, destination, source, MXCSR before, flags afterwards if #XM
UNMASKED = [
    ("f30f5eca", one(1.0), one(0.0), 0x1D80, 0x04),  # 1 / 0, ZM clear
    ("f30f5eca", one(1.0), one(0.0), 0x1F80, None),
    ("f30f5eca", one(1.0), one(3.0), 0x0F80, 0x20),  # inexact, PM clear
    ("f30f5eca", one(1.0), one(2.0), 0x0F80, None),
    ("f30f5eca", one(1.0), one(2.0), 0x0FA0, None),  # PE was there before
    ("f30f5eca", one(0.0), one(0.0), 0x1F00, 0x01),  # 0 / 0, IM clear
    ("f30f59ca", 0x7F000000, 0x7F000000, 0x1B80, 0x28),  # overflow
    ("f30f59ca", 0x00800000, one(0.5), 0x1780, 0x10),  # an exact denormal
    ("f30f59ca", 0x00800000, one(0.5), 0x9780, 0x10),  # FTZ does not matter then
    ("f30f58ca", 1, one(1.0), 0x1E80, 0x02),  # denormal operand
    ("f30f58ca", 1, one(1.0), 0x1EC0, None),  # DAZ
    ("0f5eca", one(1.0) | one(1.0) << 32, one(3.0) << 32, 0x0D80, 0x04),  # ZE comes before PE
    ("0f2eca", 0x7F800001, one(1.0), 0x1F00, 0x01),  # UCOMISS of a signalling NaN
    ("0f2eca", 0x7FC00001, one(1.0), 0x1F00, None),
    ("0f2fca", 0x7FC00001, one(1.0), 0x1F00, 0x01),  # COMISS of any NaN
    ("f2480f2cca", 0, one(1e300, True), 0x1F00, 0x01),  # CVTTSD2SI out of range
    ("f20f5aca", 0, one(1e-300, True), 0x1780, 0x30),  # CVTSD2SS underflows
    ("660f3a09ca00", 0, one(1.5, True), 0x0F80, 0x20),  # ROUNDPD is inexact,
    ("660f3a09ca08", 0, one(1.5, True), 0x0F80, None),  # unless told not to say so
]


@pytest.mark.parametrize(("text", "dest", "src", "mxcsr", "raised"), UNMASKED)
def test_unmasked_exceptions(
    ours: Ours,
    text: str,
    dest: int,
    src: int,
    mxcsr: int,
    raised: int | None,
) -> None:
    upper = (one(1.0) * FOUR) >> 64 << 64
    before = Vectors(xmm=[0, dest | upper, src | upper, 0], gpr=[7, 8, 9, 10], mxcsr=mxcsr)
    out = ours.run(bytes.fromhex(text), before)
    if raised is None:
        assert out.fault is None
        return
    assert out.fault == (XM, 0)
    assert (out.xmm, out.gpr, out.flags) == (before.xmm, before.gpr, before.flags)
    assert out.mxcsr == mxcsr | raised
    cr4 = ours.cpu.get("cr4")
    ours.cpu.set("cr4", cr4 & ~CR4_OSXMMEXCPT)
    try:
        assert ours.run(bytes.fromhex(text), before).fault == (UD, 0)
    finally:
        ours.cpu.set("cr4", cr4)


def test_unmasked_but_quiet_equals_host(ours: Ours, host: Host) -> None:
    """With exceptions unmasked, what raises none gives the host's result; #XM changes nothing."""
    rng = random.Random(3)
    for text in ("0f58ca", "f20f59ca", "660f5eca", "0fc2ca01", "0f5bca"):
        insn = bytes.fromhex(text)
        for _ in range(300):
            state = random_vectors(rng)
            state.mxcsr = 0x1F80 & rng.getrandbits(13) | rng.getrandbits(2) << 13
            expected = host.run(insn, replace(state, mxcsr=state.mxcsr | 0x1F80))
            got = ours.run(insn, state)
            if got.fault:
                assert got.fault == (XM, 0)
                assert got.xmm == state.xmm
                assert got.mxcsr & 0x3F & ~(state.mxcsr >> 7)
            else:
                assert got.xmm == expected.xmm
                assert got.mxcsr & 0x3F == expected.mxcsr & 0x3F


def value(bits: int) -> Fraction:
    """A finite single-precision number."""
    return Fraction(struct.unpack("<f", struct.pack("<I", bits))[0])


def test_reciprocal(ours: Ours) -> None:
    rng = random.Random(5)
    numbers = [0x00800000, 0x3F800000, 0x3F800001, 0x40000000, 0x40400000, 0x7E000000, 0x7E7FFFFF]
    numbers += [rng.randrange(0x00800000, 0x7E800000) for _ in range(300)]
    for n in numbers:
        for sign in (0, 1 << 31):
            out = ours.run(b"\xf3\x0f\x53\xca", Vectors(xmm=[0, 5 << 32, n | sign, 0]))
            assert out.mxcsr == 0x1F80
            assert out.xmm[1] >> 32 == 5
            error = value(out.xmm[1] & 0xFFFFFFFF) * value(n | sign) - 1
            assert abs(error) < Fraction(3, 1 << 13)
            assert out.xmm[1] & 0x7FF == 0


def test_reciprocal_root(ours: Ours) -> None:
    rng = random.Random(6)
    numbers = [0x00800000, 0x3F800000, 0x40800000, 0x7F7FFFFF]
    for n in numbers + [rng.randrange(0x00800000, 0x7F800000) for _ in range(300)]:
        out = ours.run(b"\x0f\x52\xca", Vectors(xmm=[0, 0, n * FOUR, 0]))
        approx = out.xmm[1] & 0xFFFFFFFF
        assert out.xmm[1] == approx * FOUR
        assert abs(value(approx) ** 2 * value(n) - 1) < Fraction(6, 1 << 13)


# (source, RCP, RSQRT)
SPECIAL = [
    (0, 0x7F800000, 0x7F800000),
    (1 << 31, 0xFF800000, 0xFF800000),
    (1, 0x7F800000, 0x7F800000),
    (0x807FFFFF, 0xFF800000, 0xFF800000),
    (0x7F800000, 0, 0),
    (0xFF800000, 1 << 31, 0xFFC00000),
    (0x7F800001, 0x7FC00001, 0x7FC00001),
    (0xFFC12345, 0xFFC12345, 0xFFC12345),
    (0xBF800000, 0xBF800000, 0xFFC00000),
    (0x3F800000, 0x3F800000, 0x3F800000),
    (0x40800000, 0x3E800000, 0x3F000000),
    (0xFE800000, 0x80800000, 0xFFC00000),
    (0xFF000000, 1 << 31, 0xFFC00000),
]


@pytest.mark.parametrize(("source", "rcp", "rsqrt"), SPECIAL)
def test_special_approximations(ours: Ours, source: int, rcp: int, rsqrt: int) -> None:
    state = Vectors(xmm=[0, 0, source, 0])
    assert ours.run(b"\xf3\x0f\x53\xca", state).xmm[1] == rcp
    out = ours.run(b"\xf3\x0f\x52\xca", state)
    assert out.xmm[1] == rsqrt
    assert out.mxcsr == 0x1F80


def test_page_crossing(ours: Ours, host: Host) -> None:
    """An unaligned operand across a page takes the slow stencil."""
    rng = random.Random(9)
    for text in ("0f100f", "0f110f", "f30f6f0f", "0ffc0f", "f30f580f", "660f38200f"):
        insn = bytes.fromhex(text)
        for shift in (0xFF1, 0xFFD, 0xFFF):
            state = random_vectors(rng)
            ours.cpu.write_phys(MEMORY + shift, state.memory)
            expected = host.run(insn, state)
            got = ours.run(insn, state, shift)
            got.memory = ours.cpu.read_phys(MEMORY + shift, 32)
            assert got.seen() == expected.seen(), text
