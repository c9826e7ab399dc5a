"""Regions: the same guest with and without them, and when they go."""

from __future__ import annotations

import struct

import pytest

from tests.core.regions import random_loops
from tests.core.regions.random_loops import DATA, eager, run
from tests.core.system_guest import CODE, Guest
from workbench import cache
from workbench.core.regions.shape import Block, Insn, blocks_of, circle

# mov rax, [rbx]; add rcx, rax; add rdx, 1; add rsi, rdx; dec rdi; jnz; hlt
LOOP = bytes.fromhex("488b03 4801c1 4883c201 4801d6 48ffcf 75ee f4")
LENGTH = 6


def looping(count: int) -> Guest:
    guest = Guest(64)
    guest.cpu.hot.failed = False
    guest.cpu.write_phys(CODE, LOOP)
    guest.cpu.write_phys(DATA, struct.pack("<Q", 7))
    for name in ("rax", "rcx", "rdx", "rsi"):
        guest.cpu.set(name, 0)
    guest.cpu.set("rbx", DATA)
    guest.cpu.set("rdi", count)
    guest.cpu.set("rip", CODE)
    return guest


@pytest.mark.parametrize("seed", [2, 3, 5, 7, 11, 13, 17, 19])
def test_a_random_loop_is_the_same_with_a_region(seed: int) -> None:
    with eager():
        ours, _ = run(seed, True)
    theirs, none = run(seed, False)
    assert ours == theirs
    assert none == 0


def test_a_region_stops_at_every_count() -> None:
    with eager():
        guest = looping(10_000)
        guest.cpu.run(9_000)
        guest.cpu.run(12_000)
        assert guest.cpu.hot.installed == 1
        for n in range(12_000, 12_040):
            assert guest.cpu.run(n) == "budget"
            assert guest.cpu.icount == n
            assert guest["rip"] == CODE + (0, 3, 6, 10, 13, 16)[n % LENGTH]
            assert guest["rcx"] == 7 * ((n + LENGTH - 2) // LENGTH)
        assert guest.cpu.run(1_000_000) == "hlt"
        assert (guest["rcx"], guest["rdi"], guest["rdx"]) == (70_000, 0, 10_000)


def test_a_region_goes_when_its_code_is_written() -> None:
    with eager():
        guest = looping(100_000)
        guest.cpu.run(50_000 * LENGTH)
        assert guest.cpu.hot.installed == 1
        guest.cpu.write_phys(CODE + 9, b"\x02")  # add rdx, 2 from now on
        assert guest.cpu.run(1_000_000) == "hlt"
    assert guest["rdx"] == 150_000


def test_a_breakpoint_in_a_region_is_hit() -> None:
    with eager():
        guest = looping(10_000)
        guest.cpu.run(6_000)
        guest.cpu.run(12_000)
        assert guest.cpu.hot.installed == 1
        guest.cpu.set_breakpoints([CODE + 13])
        assert guest.cpu.run(20_000) == "breakpoint"
        assert (guest.cpu.icount, guest["rip"]) == (12_004, CODE + 13)


def test_what_cannot_be_compiled_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "fetch", lambda name: None)
    with eager():
        monkeypatch.setattr(random_loops, "compile_region", lambda blocks: None)
        guest = looping(10_000)
        assert guest.cpu.run(1_000_000) == "hlt"
        assert (guest["rcx"], guest.cpu.hot.installed) == (70_000, 0)


def insn(pc: int, op: str = "nop", target: int = 0) -> Insn:
    return Insn(pc, pc + 1, op, "", 4, 0, 0, 0, False, target, {})


def test_blocks_are_cut_where_jumps_lead() -> None:
    region = {n: insn(n) for n in range(10)} | {9: insn(9, "jcc", 2), 4: insn(4, "jcc", 7)}
    blocks = blocks_of(2, region)
    assert [(b.pc, len(b.insns), b.ways()) for b in blocks] == [
        (2, 3, [7, 5]),
        (5, 2, [7]),
        (7, 3, [2, 10]),
    ]


def test_only_the_circle_is_compiled() -> None:
    blocks = [Block([insn(0, "jcc", 8)]), Block([insn(1, "jmp", 0)]), Block([insn(8, "jmp", 20)])]
    assert [b.pc for b in circle(blocks)] == [0, 1]
