"""Conditions of breakpoints: the compiled evaluator against the one in Python, and in a run."""

import ctypes
import random
import struct

import pytest

from workbench.core import layout as lay
from workbench.core.engine import Cpu
from workbench.gdbstub.agent import AgentError, Context, run, verify
from workbench.gdbstub.registers import LAYOUTS, X86_64, plain_names
from workbench.trace.timeline import Timeline

NAMES = plain_names(LAYOUTS[X86_64])
DATA = 0x8000
BINARY = (2, 3, 4, 9, 0xA, 0xB, 0xF, 0x10, 0x11, 0x13, 0x14, 0x15)
CONSTS = ((0x22, 1), (0x23, 2), (0x24, 4), (0x25, 8))


@pytest.fixture(scope="module")
def cpu() -> Cpu:
    """64-bit mode with the first 2 MiB mapped to themselves, and noise in registers and memory."""
    made = Cpu(1 << 20)
    rng = random.Random(3)
    made.write_phys(0x1000, struct.pack("<Q", 0x2003))
    made.write_phys(0x2000, struct.pack("<Q", 0x3003))
    made.write_phys(0x3000, struct.pack("<Q", 0x83))
    made.write_phys(DATA, rng.randbytes(0x1000))
    made.set("cr3", 0x1000)
    made.set("cr0", lay.CR0_PE | lay.CR0_PG)
    made.set("cr4", lay.CR4_PAE)
    made.set("efer", lay.EFER_LMA | lay.EFER_LME)
    for name in lay.GPRS:
        made.set(name, rng.getrandbits(64))
    made.set_conditions({}, NAMES)
    return made


def holds(cpu: Cpu, code: bytes) -> int:
    prototype = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64)
    function = prototype(cpu._arena.address + cpu.image.functions["holds"])
    buffer = ctypes.create_string_buffer(code, len(code) + 16)
    return function(cpu.base, ctypes.addressof(buffer), len(code))


def context(cpu: Cpu) -> Context:
    def memory(address: int, size: int) -> bytes | None:
        return cpu.read_phys(address, size) if address + size <= 1 << 20 else None

    return Context(lambda number: cpu.get(NAMES[number]) if NAMES[number] else 0, memory)


def const(value: int) -> bytes:
    return bytes((0x25,)) + value.to_bytes(8, "big")


def expression(rng: random.Random) -> bytes:
    code = bytearray(b"".join(const(rng.getrandbits(64)) for _ in range(5)))
    for _ in range(rng.randrange(1, 14)):
        match rng.randrange(9):
            case 0:
                code += bytes((0x26, 0, rng.randrange(16)))
            case 1:
                op, size = rng.choice(CONSTS)
                code += bytes((op,)) + rng.randbytes(size)
            case 2 | 3:
                code.append(rng.choice(BINARY))
            case 4:
                code += bytes((rng.choice((0x16, 0x2A)), rng.randrange(66)))
            case 5:
                code.append(rng.choice((0x0E, 0x12, 0x28, 0x29, 0x2B)))
            case 6:
                code += const(DATA + rng.randrange(0xFF0)) + bytes((rng.randrange(0x17, 0x1B),))
            case 7:
                code += const(rng.randrange(70)) + bytes((rng.choice((9, 0xA, 0xB)),))
            case 8:
                code += bytes((rng.choice((0x20, 0x21)),)) + struct.pack(">H", len(code) + 3)
    return bytes((*code, 0x22, 3, 0x0F, 0x27))  # two bits of it: often zero


def test_random_expressions_agree_with_python(cpu: Cpu) -> None:
    rng = random.Random(11)
    seen = {0: 0, 1: 0}
    before = cpu.read_phys(0x1000, 0x3000)
    for _ in range(3000):
        code = expression(rng)
        verify(code)
        try:
            expected = int(bool(run(code, context(cpu))))
        except AgentError:
            expected = 1
        assert holds(cpu, code) == expected, code.hex()
        seen[expected] += 1
    assert min(seen.values()) > 300
    assert cpu.read_phys(0x1000, 0x3000) == before, "an Accessed bit was set"


def test_noise_ends(cpu: Cpu) -> None:
    rng = random.Random(12)
    for _ in range(3000):
        assert holds(cpu, rng.randbytes(rng.randrange(1, 60))) in (0, 1)
    assert holds(cpu, bytes((0x21, 0, 0))) == 1, "an endless loop is left to the debugger"
    assert holds(cpu, bytes((0x22, 1)) * 100 + b"\x27") == 1, "so is a deep stack"
    assert holds(cpu, const(1 << 40) + b"\x17\x27") == 1, "and memory that is not mapped"


def test_a_condition_selects_hits_both_ways(timeline: Timeline) -> None:
    timeline.seek(timeline.end_icount // 2)
    cpu = timeline.machine.cpu
    assert cpu.get("efer") & lay.EFER_LMA, "the guest is in 64-bit mode here"
    pcs: dict[int, list[tuple[int, int]]] = {}
    start = timeline.icount
    for _ in range(3000):
        pcs.setdefault(cpu.get("rip"), []).append((timeline.icount, cpu.get("rcx")))
        timeline.step()
    pc, hits = max(pcs.items(), key=lambda item: len({rcx & 1 for _, rcx in item[1]}))
    code = bytes((0x26, 0, NAMES.index("rcx"), 0x22, 1, 0x0F, 0x27))  # rcx & 1
    wanted = [icount for icount, rcx in hits if rcx & 1]
    assert 0 < len(wanted) < len(hits)
    timeline.breakpoints, timeline.conditions = {pc}, {pc: (code,)}
    timeline.condition_registers = NAMES
    end = timeline.icount
    timeline.seek(start - 1)
    forward = []
    while timeline.go(until=end).kind == "breakpoint":
        forward.append(timeline.icount)
    assert forward == [icount for icount in wanted if icount < end]
    backward = []
    while timeline.go_back().kind == "breakpoint" and timeline.icount >= start:
        backward.append(timeline.icount)
    assert backward[::-1] == forward
