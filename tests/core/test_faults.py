"""An instruction that faults has changed nothing: every row with its operand on an absent page."""

from __future__ import annotations

import random

import pytest

pytest.importorskip("unicorn")

from tests.core.oracle import CODE, DATA, DATA_BYTES
from tests.core.test_sem_int import MY_ROWS, STRINGS, encode, tail_at, value
from tests.core.test_string_io import FAR, FAR_RAM, machine
from workbench.core.engine import Cpu
from workbench.core.layout import ARITH, GPRS
from workbench.core.stencil import OPS

STACK = FAR + 0x1000


def snapshot(cpu: Cpu) -> tuple[object, ...]:
    """What must not change."""
    return (
        [cpu.get(n) for n in GPRS],
        cpu.get("rip"),
        cpu.get("rflags"),
        cpu.read_phys(DATA, DATA_BYTES),
        cpu.read_phys(FAR_RAM, 0x1000),
        cpu.icount,
    )


def fresh(rng: random.Random) -> Cpu:
    cpu = machine()
    cpu.write_phys(DATA, rng.randbytes(DATA_BYTES))
    cpu.write_phys(FAR_RAM, rng.randbytes(0x1000))
    return cpu


def fault(cpu: Cpu, code: bytes, regs: dict[str, int], flags: int) -> bool:
    """Did the instruction fault?  Then nothing may have changed."""
    cpu.write_phys(CODE, code + b"\x90" * 16)
    for name, v in regs.items():
        cpu.set(name, v)
    cpu.set("rip", CODE)
    cpu.set("rflags", flags)
    before = snapshot(cpu)
    if cpu.run(cpu.icount + 1) != "triple-fault":
        return False
    assert snapshot(cpu) == before, code.hex()
    return True


def test_operands_on_an_absent_page() -> None:
    """Loads, stores and both, right on the page and crossing into it."""
    rng = random.Random(3)
    cpu = fresh(rng)
    seen: dict[str, int] = {}
    for r in MY_ROWS:
        for osz in (2, 4, 8):
            case = encode(rng, r, 64, osz, True)
            if case is None or case.base is None:
                continue
            for at in (FAR + 0x1000, FAR + 0xFFF):
                regs = {n: value(rng, 64) for n in GPRS}
                if r.op in ("bt", "bts", "btr", "btc"):
                    regs = {n: rng.randrange(8) for n in GPRS}
                disp = case.code[tail_at(case.code, r, case.osz)]
                regs[GPRS[case.base]] = at - (disp - 256 if disp > 127 else disp)
                regs["rsp"] = DATA + 0x1000
                seen[r.op] = seen.get(r.op, 0) + fault(
                    cpu, case.code, regs, rng.getrandbits(12) & ARITH
                )
    never = {op for op, n in seen.items() if not n}
    assert never == {"lea", "nop"}


def test_stack_on_an_absent_page() -> None:
    """PUSH, POP, CALL, RET and the like leave RSP as it was."""
    rng = random.Random(4)
    cpu = fresh(rng)
    seen: dict[str, int] = {}
    for r in MY_ROWS:
        if not OPS[r.op].stack or r.op == "jmp_ind":
            continue
        for osz in (2, 4, 8):
            case = encode(rng, r, 64, osz, False)
            if case is None:
                continue
            for depth in (-1, 0, 1, 9):
                regs = {n: value(rng, 64) for n in GPRS} | {"rsp": STACK + depth}
                regs["rbp"] = STACK + depth
                flags = rng.getrandbits(12) & ARITH
                seen[r.op] = seen.get(r.op, 0) + fault(cpu, case.code, regs, flags)
    assert {op for op, n in seen.items() if not n} == set()
    assert len(seen) > 8


def test_strings_on_an_absent_page() -> None:
    """Source, destination and both."""
    rng = random.Random(5)
    cpu = fresh(rng)
    for r in MY_ROWS:
        if r.op not in STRINGS:
            continue
        for osz in (2, 4, 8):
            case = encode(rng, r, 64, osz, False)
            if case is None or b"\x67" in case.code:
                continue
            for source, target in ((DATA, STACK), (STACK, DATA), (STACK + 5, STACK + 1)):
                regs = {n: value(rng, 64) for n in GPRS}
                regs |= {"rsi": source, "rdi": target, "rcx": 3}
                if r.op == "movs":
                    assert fault(cpu, case.code, regs, 0)
                else:
                    fault(cpu, case.code, regs, 0)
