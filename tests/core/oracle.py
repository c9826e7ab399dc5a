"""Single instructions on our engine and on Unicorn, from the same state.

    pair = Pair(64)
    ours, theirs = pair.run(bytes.fromhex("4801d8"), {"rax": 1, "rbx": 2}, flags=0)

Memory is the same in both: code at CODE, data and stack from DATA on; 64-bit mode has
identity-mapped pages, 32-bit mode is flat without paging, 16-bit mode is real mode with all segment
bases zero.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import unicorn
from unicorn import x86_const as x86

from workbench.core.engine import Cpu
from workbench.core.layout import ARITH, GPRS

CODE = 0x8000
DATA = 0xA000
DATA_BYTES = 0x5000
TABLES = 0x40000
RAM = 1 << 20
UC_MODES = {16: unicorn.UC_MODE_16, 32: unicorn.UC_MODE_32, 64: unicorn.UC_MODE_64}
UC_NAMES = {
    16: [f"e{n[1:]}" for n in GPRS[:8]],
    32: [f"e{n[1:]}" for n in GPRS[:8]],
    64: list(GPRS),
}


@dataclass
class State:
    """What an instruction left."""

    regs: dict[str, int]
    rip: int
    flags: int
    memory: bytes
    fault: bool

    def differences(self, other: State, flag_mask: int) -> list[str]:
        """What differs, in words; after a fault only that there was one counts."""
        if self.fault or other.fault:
            return [] if self.fault == other.fault else [f"fault {self.fault} {other.fault}"]
        out = [f"{n} {v:x} {other.regs[n]:x}" for n, v in self.regs.items() if v != other.regs[n]]
        if self.rip != other.rip:
            out.append(f"rip {self.rip:x} {other.rip:x}")
        if (self.flags ^ other.flags) & flag_mask:
            out.append(
                f"flags {self.flags & flag_mask:x} {other.flags & flag_mask:x} mask {flag_mask:x}"
            )
        if self.memory != other.memory:
            pairs = enumerate(zip(self.memory, other.memory, strict=True))
            i, (a, b) = next((i, p) for i, p in pairs if p[0] != p[1])
            out.append(f"memory {DATA + i:x}: {a:02x} {b:02x}")
        return out


class Pair:
    """Our engine and Unicorn in one mode (16, 32 or 64)."""

    def __init__(self, mode: int, seed: int = 1, selectors: dict[str, int] | None = None) -> None:
        """In 16-bit mode `selectors` gives segment registers other values than zero."""
        self.mode = mode
        self.selectors = selectors or {}
        self.names = list(GPRS[: 16 if mode == 64 else 8])
        self.cpu = Cpu(RAM)
        self.uc = self._unicorn()
        rng = random.Random(seed)
        # the second half has few different bytes, so that comparisons find something
        half = DATA_BYTES // 2
        self.memory = rng.randbytes(half) + bytes(rng.choices((0, 0, 0, 0, 1), k=half))
        self._set_mode()

    def _unicorn(self) -> unicorn.Uc:
        uc = unicorn.Uc(unicorn.UC_ARCH_X86, UC_MODES[self.mode])
        uc.ctl_set_cpu_model(x86.UC_CPU_X86_HASWELL)
        uc.mem_map(0, RAM)
        for name, selector in self.selectors.items():
            uc.reg_write(getattr(x86, f"UC_X86_REG_{name.upper()}"), selector)
        return uc

    def _set_mode(self) -> None:
        cpu = self.cpu
        attr = {16: 0x93, 32: 0xC093, 64: 0xC093}[self.mode]
        limit = 0xFFFF if self.mode == 16 else 0xFFFFFFFF
        if self.mode != 16:
            cpu.set("cr0", 0x11)
        if self.mode == 64:
            entry = b"".join((n << 21 | 0x83).to_bytes(8, "little") for n in range(512))
            cpu.write_phys(TABLES, (TABLES + 0x1000 | 3).to_bytes(8, "little"))
            cpu.write_phys(TABLES + 0x1000, (TABLES + 0x2000 | 3).to_bytes(8, "little"))
            cpu.write_phys(TABLES + 0x2000, entry)
            cpu.set("cr3", TABLES)
            cpu.set("cr4", 0x20)
            cpu.set("efer", 0x500)
            cpu.set("cr0", 0x80000011)
        for name in ("es", "ss", "ds", "fs", "gs"):
            selector = self.selectors.get(name, 0)
            cpu.set_segment(name, selector, selector << 4, limit, attr)
        cpu.set_segment("cs", 0, 0, limit, {16: 0x9B, 32: 0xC09B, 64: 0xA09B}[self.mode])
        cpu.set("idtr_limit", 0)

    def run(
        self, code: bytes, regs: dict[str, int], flags: int, count: int = 1, whole: bool = False
    ) -> tuple[State, State]:
        """The states after `count` instructions, or with `whole` at the end of `code`."""
        code_page = code + b"\x90" * 16
        return (
            self._ours(code_page, len(code), regs, flags, count, whole),
            self._theirs(code_page, len(code), regs, flags, count, whole),
        )

    def difference(
        self,
        code: bytes,
        regs: dict[str, int],
        flags: int,
        flag_mask: int,
        count: int = 1,
        whole: bool = False,
    ) -> list[str]:
        """What differs after `run`, on a fresh Unicorn too."""
        bad: list[str] = []
        for _ in range(2):
            ours, theirs = self.run(code, regs, flags, count, whole)
            bad = ours.differences(theirs, flag_mask)
            if not bad:
                break
            self.uc = self._unicorn()
        return bad

    def _ours(
        self, code: bytes, length: int, regs: dict[str, int], flags: int, count: int, whole: bool
    ) -> State:
        cpu = self.cpu
        cpu.write_phys(CODE, code)
        cpu.write_phys(DATA, self.memory)
        for name in self.names:
            cpu.set(name, regs[name])
        cpu.set("rip", CODE)
        cpu.set("eflags", flags & ~ARITH | 2)
        cpu.set("cc_op", 0)
        cpu.set("cc_src", flags & ARITH)
        reason = cpu.run(cpu.icount + count)
        rounds = 0
        while whole and reason == "budget" and cpu.get("rip") != CODE + length and rounds < 100:
            reason = cpu.run(cpu.icount + 1)
            rounds += 1
        mask = (1 << 64) - 1 if self.mode == 64 else 0xFFFFFFFF
        state = State(
            {n: cpu.get(n) & mask for n in self.names},
            cpu.get("rip"),
            cpu.get("rflags"),
            cpu.read_phys(DATA, DATA_BYTES),
            reason == "triple-fault",
        )
        if state.fault:
            self.cpu.reset()
            self._set_mode()
        elif reason != "budget":
            raise AssertionError(f"{code[:length].hex()} left with {reason}")
        return state

    def _theirs(
        self, code: bytes, length: int, regs: dict[str, int], flags: int, count: int, whole: bool
    ) -> State:
        uc = self.uc
        uc.mem_write(CODE, code)
        uc.mem_write(DATA, self.memory)
        for name, alias in zip(self.names, UC_NAMES[self.mode], strict=True):
            uc.reg_write(getattr(x86, f"UC_X86_REG_{alias.upper()}"), regs[name])
        uc.reg_write(x86.UC_X86_REG_EFLAGS, flags | 2)
        uc.ctl_remove_cache(CODE, CODE + len(code))
        fault = False
        try:
            if whole:
                uc.emu_start(CODE, CODE + length, 0, 400)
            else:
                uc.emu_start(CODE, RAM, 0, count)
        except unicorn.UcError:
            fault = True
        values = {
            n: uc.reg_read(getattr(x86, f"UC_X86_REG_{a.upper()}"))
            for n, a in zip(self.names, UC_NAMES[self.mode], strict=True)
        }
        rip = uc.reg_read(x86.UC_X86_REG_RIP if self.mode == 64 else x86.UC_X86_REG_EIP)
        state = State(
            values,
            rip,
            uc.reg_read(x86.UC_X86_REG_EFLAGS),
            bytes(uc.mem_read(DATA, DATA_BYTES)),
            fault,
        )
        if fault:
            self.uc = self._unicorn()
        return state
