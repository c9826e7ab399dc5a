"""Code that no compiler makes: random instructions on odd registers, in three modes.

Nothing is expected of the results but that there are some: the processor comes back, the process
lives, and the same seed ends in the same state. `python -m tests.core.hostile_code 0 1000` runs
more seeds than the test does; a case that hangs is reported after a minute, with its number.
"""

from __future__ import annotations

import faulthandler
import hashlib
import random
import struct
import sys
from collections import Counter

from tests.core.system_guest import CODE, KERNEL_STACK, TABLES, U32, Guest
from workbench.core.engine import Cpu
from workbench.core.lang import bits_of
from workbench.core.layout import CPU

MODES = (16, 32, 64)
CASES = 150
HANDLERS = 0x3000
GPRS = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{n}" for n in range(8, 16)))
CONTROL = ("cr0", "cr3", "cr4", "efer", "gdtr_base", "gdtr_limit", "idtr_base", "idtr_limit")
PREFIXES = (0x66, 0x67, 0xF2, 0xF3, 0x2E, 0x36, 0x3E, 0x26, 0x64, 0x65, 0xF0)
STRINGS = (0xA4, 0xA5, 0xAA, 0xAB, 0xAC, 0xAD, 0xAE, 0xAF, 0xA6, 0xA7, 0x6C, 0x6D, 0x6E, 0x6F)
SYSTEM = (0x00, 0x01, 0x20, 0x22, 0x21, 0x23, 0x30, 0x32, 0xAE, 0xC7, 0x05, 0x07, 0x34, 0x35)
FLAGS = (0, 0x400, 0x200, 0x100, 0x40000, 0x3000, 0x10000, 0x8D5)
DISPLACEMENTS = (0, 0xFFFFFFFF, 0x80000000, 0x7FFFFFFF, 0x100)
ODD = (
    0, 1, 2, 7, 8, 0xFF, 0xFFF, 0x1000, 0xFFFF, 0x10000, 0xFFFFF, 0x100000, 0x7FFFFFFF, 0x80000000,
    0xFFFFFFFF, 0x100000000, 0x7FFFFFFFFFFF, 0x800000000000, 0xFFFF800000000000, (1 << 64) - 1,
    (1 << 64) - 8, 1 << 63, 0x3FFFFFFF, 0x40000000, 0xFEE00000, 0xFFFFFFF0,
)  # fmt: skip


def value(rng: random.Random, ram_bytes: int) -> int:
    """A register."""
    kind = rng.random()
    if kind < 0.55:
        return rng.choice(ODD)
    return rng.randrange(ram_bytes) if kind < 0.8 else rng.getrandbits(64)


def instruction(rng: random.Random, mode: int) -> bytes:
    """Bytes that may be one."""
    out = bytearray()
    while rng.random() < 0.4:
        out.append(rng.choice(PREFIXES))
    if mode == 64 and rng.random() < 0.4:
        out.append(0x40 | rng.randrange(16))
    kind = rng.random()
    if kind < 0.15:
        out.append(rng.choice(STRINGS))
    elif kind < 0.5:
        out.append(rng.randrange(256))
    elif kind < 0.85:
        out += bytes([0x0F, rng.randrange(256)])
    elif kind < 0.92:
        out += bytes([0x0F, rng.choice((0x38, 0x3A)), rng.randrange(256)])
    elif kind < 0.96:
        out += bytes([0x0F, rng.choice(SYSTEM)])
    else:
        out.append(0xD8 + rng.randrange(8))
    out += rng.randbytes(1 + rng.randrange(3))
    out += struct.pack("<I", rng.choice((*DISPLACEMENTS, rng.getrandbits(32))))
    return bytes(out[:15])


def guest_of(rng: random.Random, mode: int) -> Guest:
    """A machine whose exceptions end at a HLT, with the last page of 64 bits mapped, too."""
    guest = Guest(mode)
    if mode != 16:
        for n in range(256):
            guest.vector(n, b"\xf4", HANDLERS, dpl=rng.choice((0, 3)))
    if mode == 64:
        for at, entry in ((0xFF8, 0x1000), (0x1FF8, 0x2000)):
            guest.put64(TABLES + at, [TABLES + entry | 7])
        guest.put64(TABLES + 0x2FF8, [0x87])
    return guest


def run(
    seed: int,
    mode: int,
    cases: int = CASES,
    block_insns: int | None = None,
    note: list[int] | None = None,
) -> Counter[str]:
    """Run a guest through its cases: how each of them ended, and `digest ...` of the state.

    Blocks of translated code have at most `block_insns` instructions. `note` gets the number of the
    case that runs.
    """
    rng = random.Random(seed * 3 + MODES.index(mode))
    guest = guest_of(rng, mode)
    cpu = guest.cpu
    if block_insns is not None:
        cpu.set("max_insns", block_insns)
    control = {name: cpu.get(name) for name in CONTROL}
    ends: Counter[str] = Counter()
    for number in range(cases):
        if note is not None:
            note[:] = [seed, mode, number]
        if rng.random() < 0.7:
            guest.flat(mode)
            for name, was in control.items():
                cpu.set(name, was)
        code = b"".join(instruction(rng, mode) for _ in range(rng.randrange(1, 8)))
        at = rng.choice((CODE, CODE + 0xFF0, CODE + 0xFFA, 0xA000))
        cpu.write_phys(at, code + b"\xf4" * 16)
        for name in GPRS:
            cpu.set(name, value(rng, cpu.ram_bytes))
        user = mode != 16 and rng.random() < 0.25
        if user:
            guest.user(*(() if mode == 64 else (U32,)))
        elif rng.random() < 0.7:
            cpu.set("rsp", KERNEL_STACK)
        cpu.set("rflags", 2 | rng.choice(FLAGS))
        cpu.set("rip", at)
        end = guest.go(rng.choice((5, 50, 500)))
        if end in ("mmio", "pio"):
            cpu.access_result(rng.getrandbits(32))
        ends[end] += 1
    ends[f"digest {state(cpu)}"] = 1
    return ends


def state(cpu: Cpu) -> str:
    """A digest over registers and memory."""
    found = hashlib.blake2b(digest_size=16)
    for name in ("gpr", "rip", "seg_base", "seg_sel", *CONTROL, "cr2", "dr"):
        _at, ty, count = CPU.fields[name]
        assert bits_of(ty)
        found.update(repr([cpu.get(name, n) for n in range(count)]).encode())
    found.update(cpu.read_phys(0, cpu.ram_bytes))
    return f"{cpu.icount} {found.hexdigest()}"


def main() -> None:
    """Run seeds from the first argument to the second."""
    faulthandler.enable()
    note: list[int] = []
    total: Counter[str] = Counter()
    for seed in range(int(sys.argv[1]), int(sys.argv[2])):
        for mode in MODES:
            faulthandler.dump_traceback_later(60, exit=True)
            print(f"\rseed {seed}, {mode} bits", end="", flush=True)
            ends = run(seed, mode, note=note)
            total.update({end: n for end, n in ends.items() if not end.startswith("digest")})
            faulthandler.cancel_dump_traceback_later()
    print("\n", dict(total))


if __name__ == "__main__":
    main()
