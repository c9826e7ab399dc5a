"""Random loops, run with regions and without: the same state at every stop.

`python -m tests.core.regions.random_loops 0 200` tries more seeds than the test does.
"""

from __future__ import annotations

import hashlib
import os
import random
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests.core.system_guest import CODE, Guest
from workbench.core import engine
from workbench.core.build import import_semantics
from workbench.core.engine import STATE_FIELDS
from workbench.core.layout import CPU
from workbench.core.regions import hot
from workbench.core.regions.compiled import Compiled
from workbench.core.regions.shape import Block
from workbench.core.regions.worker import compile_region

DATA = 0x20000
EDGE = 0xFFFF0  # the last bytes of RAM: behind them are accesses to devices
FREE = (0, 1, 2, 7, 8, 9, 10, 11, 13, 14)
BASES = (3, 5, 6)  # rbx, rbp, rsi
COUNTER = 15
ALU = tuple(8 * i + n for i in range(8) for n in (0, 1, 2, 3))


class Here:
    """Compiles at once, in this process."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.answers: dict[int, tuple[str, Compiled | None]] = {}
        self.count = 0

    def ask(self, name: str, blocks: list[Block]) -> int:
        self.count += 1
        self.answers[self.count] = name, compile_region(blocks)
        return self.count

    def poll(self) -> None:
        pass


@contextmanager
def eager(every: int = 997) -> Iterator[Here]:
    """Every sample is enough for a region, and there are many samples."""
    import_semantics()
    here = Here()
    old = hot.compiler, hot._Shared.compiler, hot.PATIENCE, engine.SLICE
    hot.compiler = lambda: here  # type: ignore[assignment, return-value]
    hot._Shared.compiler = here  # type: ignore[assignment]
    hot.PATIENCE, engine.SLICE = 1, every
    try:
        yield here
    finally:
        hot.compiler, hot._Shared.compiler, hot.PATIENCE, engine.SLICE = old


def operand(rng: random.Random, reg: int, opcode: bytes, size: int, imm: bytes = b"") -> bytes:
    """An instruction with ModRM: a register or memory, `reg` in the other field."""
    prefix = b"\x66" if size == 2 else b""
    rex = 0x48 if size == 8 else 0x40
    rex |= (reg & 8) >> 1
    if rng.random() < 0.6:
        rm = rng.choice(FREE)
        rex |= rm >> 3
        return prefix + bytes([rex]) + opcode + bytes([0xC0 | (reg & 7) << 3 | rm & 7]) + imm
    base = rng.choice(BASES)
    at = rng.choice((0, 8, 3, 0x7F, -0x80, 0xFF8, 0xFFD, 0x1000, 0x2345))
    if rng.random() < 0.3:  # an index, of which only a byte counts
        modrm = bytes([0x84 | (reg & 7) << 3, 0x20 | base & 7])  # rsp: none
    else:
        modrm = bytes([0x80 | (reg & 7) << 3 | base])
    return prefix + bytes([rex]) + opcode + modrm + struct.pack("<i", at) + imm


def instruction(rng: random.Random) -> bytes:
    """One that a region may have."""
    size = rng.choice((4, 4, 8, 8, 2))
    wide = min(size, 4)
    reg = rng.choice(FREE)
    byte = bytes([rng.choice((0, 1, 5, 31, 0x80, 0xFF))])
    kind = rng.randrange(17)
    if kind < 4:
        return operand(rng, reg, bytes([rng.choice(ALU)]), size)
    if kind == 4:
        return operand(rng, rng.randrange(8), b"\x83", size, byte)
    if kind == 5:
        return operand(rng, rng.randrange(8), b"\x81", size, rng.randbytes(wide))
    if kind == 6:
        return operand(rng, reg, rng.choice((b"\x88", b"\x89", b"\x8a", b"\x8b", b"\x85")), size)
    if kind == 7:
        which = rng.choice((0, 1, 4, 5, 7))
        return operand(rng, which, rng.choice((b"\xd1", b"\xd3", b"\xd0")), size)
    if kind == 8:
        return operand(rng, rng.choice((0, 1, 4, 5, 7)), b"\xc1", size, byte)
    if kind == 9:
        return operand(rng, rng.choice((0, 1)), b"\xff", size)  # INC, DEC
    if kind == 10:
        return operand(rng, rng.choice((2, 3, 4, 5)), b"\xf7", size)  # NOT, NEG, MUL, IMUL
    if kind == 11:
        return operand(rng, reg, bytes([0x0F, rng.choice((0xB6, 0xB7, 0xBE, 0xBF, 0xAF))]), size)
    if kind == 12:
        return operand(rng, reg, bytes([0x0F, 0x40 + rng.randrange(16)]), size)  # CMOVcc
    if kind == 13:
        return operand(rng, 0, bytes([0x0F, 0x90 + rng.randrange(16)]), 1)  # SETcc
    if kind == 14:
        return operand(rng, rng.randrange(4, 8), b"\x0f\xba", size, byte)  # BT and family
    if kind == 15:
        more = rng.choice((0xA4, 0xAC, 0xBC, 0xBD, 0xC1, 0xB1))
        imm = byte if more in (0xA4, 0xAC) else b""
        return operand(rng, reg, bytes([0x0F, more]), size, imm)
    push = rng.randrange(8)
    odd = (b"\xf5", b"\xf8", b"\xf9", b"\x50\x58", b"\x98", b"\x48\x99")
    return rng.choice((*odd, bytes([0x50 | push & 3, 0x59])))


def loop(rng: random.Random) -> bytes:
    """A loop with branches in it that ends in HLT."""
    body = b""
    for _ in range(rng.randrange(1, 5)):
        part = b"".join(instruction(rng) for _ in range(rng.randrange(1, 8)))
        if rng.random() < 0.5:
            skipped = b"".join(instruction(rng) for _ in range(rng.randrange(1, 4)))
            jump = 0xEB if rng.random() < 0.1 else 0x70 + rng.randrange(16)
            part += bytes([jump, len(skipped)]) + skipped
        body += part
    body += b"\x49\xff\xcf"  # dec r15
    return body + b"\x0f\x85" + struct.pack("<i", -len(body) - 6) + b"\xf4"


def state(guest: Guest) -> list[object]:
    """What must be equal."""
    cpu = guest.cpu
    fields: list[object] = [cpu.icount, cpu.get("rflags")]
    for name in STATE_FIELDS:
        if not name.startswith(("cc_", "acc_")):
            fields += [cpu.get(name, n) for n in range(CPU.fields[name][2])]
    return fields


def run(seed: int, with_regions: bool) -> tuple[list[object], int]:
    """States at the stops, and how many regions there were."""
    rng = random.Random(seed)
    guest = Guest(64)
    cpu = guest.cpu
    cpu.hot.failed = not with_regions
    code = loop(rng)
    start = rng.choice((CODE, CODE + 0x30, CODE + 0x1000 - len(code) // 2))
    cpu.write_phys(start, code)
    cpu.write_phys(DATA - 0x1000, rng.randbytes(0x5000))
    for name in ("rax", "rcx", "rdx", "rdi", *(f"r{n}" for n in range(8, 15))):
        cpu.set(name, rng.choice((0, 1, rng.getrandbits(64), rng.getrandbits(32), (1 << 64) - 1)))
    cpu.set("rbx", DATA)
    cpu.set("rbp", DATA + 0x800)
    cpu.set("rsi", start + 0x3F0 if rng.random() < 0.2 else DATA + 0x1003)
    if rng.random() < 0.1:
        cpu.set("rsi", EDGE)
    cpu.set("r15", rng.choice((300, 900)))
    cpu.set("rip", start)
    seen: list[object] = []
    for _ in range(60):
        reason = cpu.run(cpu.icount + rng.choice((1, 7, 200, 1001, 2000)))
        seen += [reason, *state(guest)]
        if reason != "budget":
            break
    seen.append(hashlib.sha256(cpu.ram.view[: cpu.ram_bytes]).hexdigest())
    return seen, cpu.hot.installed


def main() -> int:
    """Try seeds from the first argument to the second."""
    first, last = int(sys.argv[1]), int(sys.argv[2])
    installed = 0
    with eager():
        for seed in range(first, last):
            ours, count = run(seed, True)
            theirs, _ = run(seed, False)
            installed += count
            if ours != theirs:
                at = next(n for n, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b)
                print(f"seed {seed}: differs at {at}: {ours[at]} != {theirs[at]}, {count} regions")
                return 1
    print(f"{last - first} loops, {installed} regions: equal")
    return 0


if __name__ == "__main__":
    sys.exit(main())
