"""x87 instructions, executed by the x87 of the host (SDM volume 1, chapter 8; volume 2 for each).

The guest's registers, control word and stack top are loaded into the host's FPU with FRSTOR, the
very instruction runs there, and FNSAVE takes the result back and leaves the host's FPU as the C ABI
wants it.  So values, rounding and precision control, stack faults, condition codes, tags, pops and
the responses to masked and unmasked exceptions are the hardware's; nothing defines them twice.

* The exception flags are kept out of the host and merged afterwards, so nothing can be pending
  there when a waiting instruction runs; FNSAVE does not wait, so an unmasked exception of the guest
  never becomes a signal of this process.
* Arithmetic, FSQRT, FPREM, FSCALE, FBLD and FBSTP give the same on every x86-64 host.  F2XM1 FYL2X
  FYL2XP1 FPTAN FPATAN FSIN FCOS FSINCOS may differ in the last bits between makers of processors
  (SDM volume 1, 8.3.10): a trace in which the guest uses these eight replays exactly on hosts of
  the maker that recorded it.
* Condition codes that the SDM calls undefined are those of the host.
* Last instruction pointers: FIP is the offset of the last non-control instruction, FDP the linear
  address of its operand; both selectors are zero (announced by CPUID.7.EBX[13]), and so is FOP
  unless the guest has loaded another value since.
* With CR0.NE = 0 an unmasked exception is not reported: FERR# and IRQ 13 are not modelled, waiting
  instructions go on as if IGNNE# were asserted.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding as llvm

from workbench.core import mmu
from workbench.core.flags import eflags_of, set_eflags_arith
from workbench.core.lang import (
    Emitter,
    Val,
    address_of,
    fn,
    inline,
    load,
    offset,
    select,
    store,
    u32,
    u64,
    unlikely,
)
from workbench.core.layout import (
    AF,
    CF,
    CPU,
    CR0_EM,
    CR0_MP,
    CR0_NE,
    CR0_TS,
    MF,
    NM,
    OF,
    PF,
    SF,
    ZF,
)

# Status word (SDM volume 1, 8.1.3).
SW_IE, SW_DE, SW_ZE, SW_OE, SW_UE, SW_PE, SW_SF, SW_ES, SW_B = (
    1,
    2,
    4,
    8,
    0x10,
    0x20,
    0x40,
    0x80,
    0x8000,
)
SW_CONDITIONS = 0x4700  # C3 C2 C1 C0
SW_EXCEPTIONS = 0x3F
SW_STICKY = 0x7F  # the exception flags and SF
SW_NO_RESULT = SW_IE | SW_DE | SW_ZE | SW_OE | SW_UE  # unmasked, these keep a store from happening
CW_BITS, CW_ONE = 0x1F7F, 0x40  # bits that FLDCW keeps; bit 6 reads as one

# What FNINIT does to the fields of `CPU`, and what reset does (SDM volume 3, table 9-1).
INIT_STATE: dict[str, int] = {
    "fpu_cw": 0x37F,
    "fpu_sw": 0,
    "fpu_top": 0,
    "fpu_tag": 0xFF,
    "fpu_ip": 0,
    "fpu_dp": 0,
    "fpu_op": 0,
}
RESET_STATE: dict[str, int] = {
    **INIT_STATE,
    "fpu_cw": 0x40,
    "fpu_tag": 0,
    "mxcsr": 0x1F80,
    "xcr0": 1,
}

# The 108 bytes of FNSAVE in 32-bit protected-mode format (SDM volume 1, figure 8-9 and 8.1.10).
IMAGE_BYTES = 108
IMAGE_CW, IMAGE_SW, IMAGE_TAG, IMAGE_REGS, IMAGE_REG = 0, 4, 8, 28, 10
MEM_FORMS = 512  # number of the first snippet with a memory operand

llvm.initialize_native_asmparser()  # for the inline assembly below, whoever compiles it


def scratch(size: int) -> Val:
    """Host address of `size` bytes on the stack of the function being compiled."""
    e = Emitter.current
    name = e.fresh()
    e.allocas.append(f"  {name} = alloca [{size} x i8], align 16")
    return address_of(Val(name, "ptr"))


def _snippets() -> str:
    """Every x87 instruction in four bytes: the instruction, with its operand at [RDX], and JMP RCX.

    Number opcode * 64 + (ModRM & 63) is a register form, MEM_FORMS + opcode * 8 + reg a memory
    form, where opcode is the low three bits of the first byte.
    """
    forms = [(0xD8 + op, 0xC0 + low) for op in range(8) for low in range(64)]
    forms += [(0xD8 + op, reg << 3 | 2) for op in range(8) for reg in range(8)]
    return "\\0A".join(f".byte {a}, {b}, 0xFF, 0xE1" for a, b in forms)


def host_x87(image: Val, snippet: Val, operand: Val, flags: Val) -> Val:
    """Run one snippet on the host with the FPU of `image`; flags in and out as LAHF has them."""
    lines = (
        "frstor (%rdi)",
        "leaq 2f(%rip), %r8",
        "leaq (%r8,%rsi,4), %r8",
        "leaq 1f(%rip), %rcx",
        ".byte 0x9E",  # sahf
        "jmpq *%r8",
        "2:",
        _snippets(),
        "1:",
        ".byte 0x9F",  # lahf
        "fnsave (%rdi)",
    )
    text = "\\0A".join(lines)
    places = "={rax},{rdi},{rsi},{rdx},{rax},~{rcx},~{r8},~{memory},~{dirflag},~{fpsr},~{flags}"
    return Emitter.current.val(
        "i64",
        f'call i64 asm sideeffect "{text}", "{places}"'
        f"({image!r}, {snippet!r}, {operand!r}, {flags!r})",
    )


@fn("i64", "i64", "i64", "i64", ret="i64")
def x87_run(image: Any, snippet: Any, operand: Any, flags: Any) -> Any:
    """`host_x87` as a function, so that the snippets exist once."""
    return host_x87(image, snippet, operand, flags)


x87_run.attributes = "nounwind noinline"


@inline
def tags_wide(tag: Any) -> Any:
    """The tag word (i32) with 11 for each empty register and 00 for the others."""
    t = (tag | (tag << 4)) & 0x0F0F
    t = (t | (t << 2)) & 0x3333
    t = (t | (t << 1)) & 0x5555
    return t | (t << 1)


@inline
def tags_narrow(wide: Any) -> Any:
    """One bit for each register from a tag word (i32): 1 where it is 11, empty."""
    t = wide & (wide >> 1) & 0x5555
    t = (t | (t >> 1)) & 0x3333
    t = (t | (t >> 2)) & 0x0F0F
    return (t | (t >> 4)) & 0xFF


@inline
def with_summary(sw: Any, cw: Any) -> Any:
    """A status word (i32, without TOP) with ES and B as the unmasked exceptions in it demand."""
    pending = sw & (cw ^ SW_EXCEPTIONS) & SW_EXCEPTIONS
    return (sw & (SW_CONDITIONS | SW_STICKY)) | select(pending != 0, u32(SW_ES | SW_B), u32(0))


@inline
def status_word(cpu: Any) -> Any:
    """The status word with TOP (i32)."""
    return cpu.fpu_sw | (cpu.fpu_top << 11)


@inline
def set_status_word(cpu: Any, sw: Any, cw: Any) -> None:
    """Take TOP and the flags from a status word (i32); ES and B follow from the control word."""
    cpu.fpu_top = (sw >> 11) & 7
    cpu.fpu_sw = with_summary(sw, cw)


@inline
def register_at(cpu: Any, i: Any) -> Any:
    """Address of ST(i)."""
    return cpu.fpr.at((cpu.fpu_top + i) & 7)


@inline
def image_fill(cpu: Any, image: Any) -> None:
    """The guest's FPU as FRSTOR wants it, without exception flags."""
    store(image + IMAGE_CW, cpu.fpu_cw)
    store(image + IMAGE_SW, (cpu.fpu_sw & SW_CONDITIONS) | (cpu.fpu_top << 11))
    store(image + IMAGE_TAG, tags_wide(cpu.fpu_tag))
    for i in range(12, IMAGE_REGS, 8):
        store(image + i, u64(0))
    for i in range(8):
        reg = register_at(cpu, i)
        at = image + (IMAGE_REGS + i * IMAGE_REG)
        store(at, load(reg, "i64"))
        store(at + 8, load(offset(reg, 8), "i16"))


@inline
def image_commit(cpu: Any, image: Any) -> None:
    """Make what FNSAVE has written the guest's FPU; exception flags are added to the old ones."""
    sw = load(image + IMAGE_SW, "i32") & 0xFFFF
    set_status_word(cpu, sw | (cpu.fpu_sw & SW_STICKY), cpu.fpu_cw)
    cpu.fpu_tag = tags_narrow(load(image + IMAGE_TAG, "i32"))
    for i in range(8):
        reg = register_at(cpu, i)
        at = image + (IMAGE_REGS + i * IMAGE_REG)
        store(reg, load(at, "i64"))
        store(offset(reg, 8), load(at + 8, "i16"))


@inline
def note_instruction(cpu: Any, pc: Any) -> None:
    """Last instruction pointer and opcode."""
    cpu.fpu_ip = pc
    cpu.fpu_op = 0


@inline
def unmasked(cpu: Any, image: Any, which: int) -> Any:
    """Did the instruction raise an unmasked exception of `which`?  (i1)"""
    return (load(image + IMAGE_SW, "i32") & (cpu.fpu_cw ^ SW_EXCEPTIONS) & which) != 0


@fn("ptr", ret="i32")
def x87_available(base: Any) -> Any:
    """1, or 0 with #NM noted: for the control instructions that do not wait."""
    cpu = CPU.view(base)
    if unlikely((cpu.cr0 & (CR0_EM | CR0_TS)) != 0):
        mmu.raise_plain(base, NM)
        return u32(0)
    return u32(1)


@inline
def nothing_pending(base: Any, cpu: Any) -> Any:
    """1, or 0 with #MF noted for an unmasked exception that waits to be reported (i32)."""
    if unlikely((cpu.fpu_sw & SW_ES) != 0 and (cpu.cr0 & CR0_NE) != 0):
        mmu.raise_plain(base, MF)
        return u32(0)
    return u32(1)


@fn("ptr", ret="i32")
def x87_ready(base: Any) -> Any:
    """1, or 0 with #NM or #MF noted: for every instruction that waits."""
    cpu = CPU.view(base)
    if unlikely((cpu.cr0 & (CR0_EM | CR0_TS)) != 0):
        mmu.raise_plain(base, NM)
        return u32(0)
    return nothing_pending(base, cpu)


@fn("ptr", ret="i32")
def x87_wait(base: Any) -> Any:
    """WAIT: #NM where MP and TS are both set, #MF where an exception is pending."""
    cpu = CPU.view(base)
    if unlikely((cpu.cr0 & (CR0_MP | CR0_TS)) == (CR0_MP | CR0_TS)):
        mmu.raise_plain(base, NM)
        return u32(0)
    return nothing_pending(base, cpu)


@fn("ptr", "i64", "i64", "i64", ret="i32")
def x87_register(base: Any, code: Any, rm: Any, pc: Any) -> Any:
    """A register form that has nothing to do with EFLAGS; `code` is opcode * 64 + reg * 8."""
    if x87_ready(base) == 0:
        return u32(0)
    cpu = CPU.view(base)
    image = scratch(IMAGE_BYTES)
    image_fill(cpu, image)
    x87_run(image, code | rm, u64(0), u64(0))
    image_commit(cpu, image)
    note_instruction(cpu, pc)
    return u32(1)


@fn("ptr", "i64", "i64", "i64", ret="i32")
def x87_move_if(base: Any, code: Any, rm: Any, pc: Any) -> Any:
    """FCMOVcc: a register form that reads CF, ZF and PF."""
    if x87_ready(base) == 0:
        return u32(0)
    cpu = CPU.view(base)
    image = scratch(IMAGE_BYTES)
    image_fill(cpu, image)
    x87_run(image, code | rm, u64(0), (eflags_of(base) & (CF | PF | AF | ZF | SF)) << 8)
    image_commit(cpu, image)
    note_instruction(cpu, pc)
    return u32(1)


@fn("ptr", "i64", "i64", "i64", ret="i32")
def x87_compare(base: Any, code: Any, rm: Any, pc: Any) -> Any:
    """FCOMI and its kin: ZF PF CF tell the order, OF SF AF are cleared.

    An unmasked #I leaves all six, as the SDM has it; AMD processors set ZF PF CF then.
    """
    if x87_ready(base) == 0:
        return u32(0)
    cpu = CPU.view(base)
    image = scratch(IMAGE_BYTES)
    image_fill(cpu, image)
    flags = x87_run(image, code | rm, u64(0), u64(0)) >> 8
    if not unmasked(cpu, image, SW_IE):
        set_eflags_arith(cpu, flags & (CF | PF | AF | ZF | SF | OF) & (CF | PF | ZF))
    image_commit(cpu, image)
    note_instruction(cpu, pc)
    return u32(1)


@fn("ptr", "i32", "i64", "i64", "i64", "i64", ret="i32")
def x87_from_memory(base: Any, at: Any, addr: Any, code: Any, icount: Any, pc: Any) -> Any:
    """A memory form that reads.  `code`: (opcode * 8 + reg) * 16 + bytes; `at`: which MMU."""
    if x87_ready(base) == 0:
        return u32(0)
    cpu = CPU.view(base)
    operand = mmu.slow_load(base, at, addr, code & 15, icount)
    if operand == 0:
        return u32(0)
    image = scratch(IMAGE_BYTES)
    image_fill(cpu, image)
    x87_run(image, (code >> 4) + MEM_FORMS, operand, u64(0))
    image_commit(cpu, image)
    note_instruction(cpu, pc)
    cpu.fpu_dp = addr
    return u32(1)


@fn("ptr", "i32", "i64", "i64", "i64", "i64", ret="i32")
def x87_to_memory(base: Any, at: Any, addr: Any, code: Any, icount: Any, pc: Any) -> Any:
    """A memory form that writes its operand; arguments as in `x87_from_memory`."""
    if x87_ready(base) == 0:
        return u32(0)
    cpu = CPU.view(base)
    image = scratch(IMAGE_BYTES)
    result = scratch(16)
    image_fill(cpu, image)
    x87_run(image, (code >> 4) + MEM_FORMS, result, u64(0))
    stored = not unmasked(cpu, image, SW_NO_RESULT)
    if stored and mmu.slow_store(base, at, addr, result, code & 15, icount) == 0:
        return u32(0)
    image_commit(cpu, image)
    note_instruction(cpu, pc)
    cpu.fpu_dp = addr
    return u32(1)
