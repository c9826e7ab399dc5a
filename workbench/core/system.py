"""Python handlers of rare instructions: the engine leaves for them by name (see stencil.S.system).

A handler changes the processor through `SystemCpu`, raises `GuestFault` by `raise_exception`, and
returns; the engine then counts one instruction and goes on behind it, unless `skip_advance` was
set because the handler has set RIP.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from workbench.core.cpuid import Cpuid, CpuModel
from workbench.core.layout import CPU, CR4_DE, DB, GP, GPRS, SEGMENTS, UD
from workbench.core.msr import MsrFile

DR6_FIXED, DR6_WRITABLE = 0xFFFF0FF0, 0xE00F
DR7_FIXED, DR7_WRITABLE = 0x400, 0xFFFF2BFF  # bit 13 is GD
DR7_GD, DR6_BD = 1 << 13, 1 << 13
MSR_TSC, MSR_TSC_ADJUST = 0x10, 0x3B
U64 = (1 << 64) - 1


class SystemCpu(Protocol):
    """What handlers need of engine.Cpu."""

    skip_advance: bool

    def get(self, name: str, index: int = 0) -> int: ...
    def set(self, name: str, value: int, index: int = 0) -> None: ...
    def get_segment(self, name: str) -> tuple[int, int, int, int]: ...
    def set_segment(
        self, name: str, selector: int, base: int, limit: int, attr: int, update: bool = True
    ) -> None: ...
    def read_linear(self, addr: int, n: int, mmu: int | None = None) -> bytes: ...
    def write_linear(self, addr: int, data: bytes, mmu: int | None = None) -> None: ...
    def raise_exception(self, vector: int, error: int | None = None) -> None: ...
    def update_mode(self) -> None: ...
    def load_debug_registers(self) -> None: ...
    @property
    def icount(self) -> int: ...


Handler = Callable[[Any, list[int]], None]
MsrHandlers = dict[int, tuple[Callable[[], int], Callable[[int], None]]]


class System:
    """The handlers with what they need of the machine: the processor model, MSRs, and CR8.

    `handlers()` is what Cpu.handlers wants.  `msrs` is state: it must be saved and reset with the
    processor.
    """

    name = "msr"

    def __init__(
        self,
        model: CpuModel | None = None,
        msr_handlers: MsrHandlers | None = None,
        read_cr8: Callable[[], int] | None = None,
        write_cr8: Callable[[int], None] | None = None,
    ) -> None:
        self.cpuid = Cpuid(model or CpuModel())
        self.msr_handlers: MsrHandlers = {} if msr_handlers is None else msr_handlers
        self.read_cr8, self.write_cr8 = read_cr8, write_cr8
        self.msrs = MsrFile()
        self._cache: dict[tuple[int, int, int, int], tuple[int, int, int, int]] = {}

    # -- a device to the machine: the state is that of the MSR file

    def reset(self) -> None:
        """MSRs after RESET."""
        self.msrs.reset()

    def save(self) -> dict[str, int]:
        """State for a snapshot."""
        return self.msrs.save()

    def restore(self, state: dict[str, int]) -> None:
        """The reverse of `save`."""
        self.msrs.restore(state)

    def handlers(self) -> dict[str, Handler]:
        """Handlers by the names that the stencils use."""
        return {
            "cpuid": self.sys_cpuid,
            "rdmsr": self.sys_rdmsr,
            "wrmsr": self.sys_wrmsr,
            "mov_to_cr8": self.sys_mov_to_cr8,
            "mov_from_cr8": self.sys_mov_from_cr8,
            "mov_to_dr": self.sys_mov_to_dr,
            "mov_from_dr": self.sys_mov_from_dr,
        }

    # -- CPUID and MSRs

    def sys_cpuid(self, cpu: SystemCpu, info: list[int]) -> None:
        """CPUID."""
        key = (
            cpu.get("rax") & 0xFFFFFFFF,
            cpu.get("rcx") & 0xFFFFFFFF,
            cpu.get("cr4"),
            cpu.get("xcr0"),
        )
        regs = self._cache.get(key)
        if regs is None:
            regs = self._cache[key] = self.cpuid.read(*key)
        for name, value in zip(("rax", "rbx", "rcx", "rdx"), regs, strict=True):
            cpu.set(name, value)

    def sys_rdmsr(self, cpu: SystemCpu, info: list[int]) -> None:
        """RDMSR of what the compiled part does not know."""
        number = cpu.get("rcx") & 0xFFFFFFFF
        value: int | None
        if number in self.msr_handlers:
            value = self.msr_handlers[number][0]()
        else:
            value = self.msrs.read(number)
        if value is None:
            cpu.raise_exception(GP, 0)
            return
        cpu.set("rax", value & 0xFFFFFFFF)
        cpu.set("rdx", value >> 32 & 0xFFFFFFFF)

    def sys_wrmsr(self, cpu: SystemCpu, info: list[int]) -> None:
        """WRMSR of what the compiled part does not know."""
        number = cpu.get("rcx") & 0xFFFFFFFF
        value = (cpu.get("rdx") & 0xFFFFFFFF) << 32 | (cpu.get("rax") & 0xFFFFFFFF)
        if number == MSR_TSC:
            cpu.set("tsc_offset", value - (self.tsc(cpu) - cpu.get("tsc_offset")) & U64)
        elif number in self.msr_handlers:
            self.msr_handlers[number][1](value)
        elif not self.msrs.write(number, value):
            cpu.raise_exception(GP, 0)

    @staticmethod
    def tsc(cpu: SystemCpu) -> int:
        """The time-stamp counter now."""
        now_ps = cpu.icount * cpu.get("ps_per_insn") + cpu.get("bias_ps")
        return now_ps // cpu.get("tsc_period_ps") + cpu.get("tsc_offset") & U64

    # -- CR8 and debug registers

    def sys_mov_to_cr8(self, cpu: SystemCpu, info: list[int]) -> None:
        """MOV to CR8: the class of the local APIC's TPR."""
        if info[0] > 15:
            cpu.raise_exception(GP, 0)
            return
        cpu.set("cr8", info[0])
        if self.write_cr8:
            self.write_cr8(info[0])

    def sys_mov_from_cr8(self, cpu: SystemCpu, info: list[int]) -> None:
        """MOV from CR8; info: offset of the destination register."""
        self._put(cpu, info[0], self.read_cr8() if self.read_cr8 else cpu.get("cr8"))

    def _put(self, cpu: SystemCpu, offset: int, value: int) -> None:
        """Write a general register given by its offset in the CPU structure."""
        cpu.set(GPRS[(offset - CPU.offset("gpr")) // 8], value)

    def _check_dr(self, cpu: SystemCpu, number: int) -> int:
        """The register meant (DR4, DR5: DR6, DR7 unless CR4.DE), after the #UD and #DB checks."""
        if number > 7 or (number in (4, 5) and cpu.get("cr4") & CR4_DE):
            cpu.raise_exception(UD)
        if cpu.get("dr", 7) & DR7_GD:
            cpu.set("dr", cpu.get("dr", 6) | DR6_BD, 6)
            cpu.set("dr", cpu.get("dr", 7) & ~DR7_GD, 7)
            cpu.raise_exception(DB)
        return number + 2 if number in (4, 5) else number

    def sys_mov_to_dr(self, cpu: SystemCpu, info: list[int]) -> None:
        """MOV to DRn; info: number, value."""
        n, value = self._check_dr(cpu, info[0]), info[1]
        if (cpu.get("mode") & 3) != 2:
            value &= 0xFFFFFFFF
        if n >= 6:
            if value >> 32:
                cpu.raise_exception(GP, 0)
                return
            value = value & DR6_WRITABLE | DR6_FIXED if n == 6 else value & DR7_WRITABLE | DR7_FIXED
        cpu.set("dr", value, n)
        if n == 7 or (n < 4 and cpu.get("dr", 7) & 0xFF):
            cpu.load_debug_registers()

    def sys_mov_from_dr(self, cpu: SystemCpu, info: list[int]) -> None:
        """MOV from DRn; info: number, offset of the destination register."""
        self._put(cpu, info[1], cpu.get("dr", self._check_dr(cpu, info[0])))


def install(cpu: Any, machine: Any, model: CpuModel | None = None) -> System:
    """Give a Cpu its handlers: MSRs from `machine.msr_handlers`, CR8 from its local APIC."""
    irq = machine.irq
    system = System(
        model, machine.msr_handlers, getattr(irq, "read_cr8", None), getattr(irq, "write_cr8", None)
    )
    cpu.handlers.update(system.handlers())
    return system


__all__ = [
    "DR6_FIXED",
    "DR7_FIXED",
    "SEGMENTS",
    "Cpuid",
    "Handler",
    "System",
    "SystemCpu",
    "install",
]
