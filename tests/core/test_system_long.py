"""Interrupts, faults, privilege and system instructions in 64-bit mode."""

from __future__ import annotations

import pytest

from tests.core.system_guest import (
    CODE,
    DATA,
    IST_STACK,
    K64,
    KDATA,
    KERNEL_STACK,
    U64,
    UDATA,
    USER_STACK,
    Guest,
)

HANDLER = CODE + 0x800


@pytest.fixture
def guest() -> Guest:
    return Guest(64)


def frame(guest: Guest, top: int, words: int) -> list[int]:
    return list(guest.read64(top - 8 * words, words))


def test_software_interrupt_and_iretq(guest: Guest) -> None:
    guest.vector(0x80, "mov rbx, rsp; mov rcx, [rsp]; iretq", HANDLER)
    assert guest.run("stc; int 0x80; hlt") == "hlt"
    assert guest["rbx"] == KERNEL_STACK - 40
    assert guest["rcx"] == CODE + 3
    assert guest["rsp"] == KERNEL_STACK
    assert guest["rflags"] & 1
    assert guest.cpu.icount == 6
    assert frame(guest, KERNEL_STACK, 5) == [CODE + 3, K64, 3, KERNEL_STACK, KDATA]


def test_stack_is_aligned_to_16(guest: Guest) -> None:
    guest.cpu.set("rsp", KERNEL_STACK - 4)
    guest.vector(3, "mov rbx, rsp; iretq", HANDLER)
    assert guest.run("int3; hlt") == "hlt"
    assert guest["rbx"] == KERNEL_STACK - 16 - 40
    assert guest["rsp"] == KERNEL_STACK - 4


def test_fault_pushes_error_code_and_rf(guest: Guest) -> None:
    guest.vector(13, "pop rbx; mov rcx, [rsp]; mov rdx, [rsp+16]; hlt", HANDLER)
    guest.run("mov ax, 0x7b; mov ds, ax")
    assert guest["rbx"] == 0x78
    assert guest["rcx"] == CODE + 4
    assert guest["rdx"] & 0x10000


def test_interrupt_gate_clears_if_and_trap_gate_does_not(guest: Guest) -> None:
    guest.vector(0x40, "pushfq; pop rbx; iretq", HANDLER, kind=14)
    guest.vector(0x41, "pushfq; pop rcx; iretq", HANDLER + 16, kind=15)
    guest.run("sti; int 0x40; int 0x41; hlt")
    assert not guest["rbx"] & 0x200
    assert guest["rcx"] & 0x200
    assert guest["rflags"] & 0x200


def test_ist(guest: Guest) -> None:
    guest.vector(0x42, "mov rbx, rsp; iretq", HANDLER, ist=1)
    guest.run("int 0x42; hlt")
    assert guest["rbx"] == IST_STACK - 40
    assert guest["rsp"] == KERNEL_STACK


def test_from_user_to_kernel_and_back(guest: Guest) -> None:
    guest.vector(0x80, "mov rbx, rsp; mov ax, ss; mov ecx, eax; iretq", HANDLER, dpl=3)
    guest.vector(13, "hlt", HANDLER + 64)
    guest.user()
    guest.run("xor eax, eax; int 0x80; mov ax, ss; mov edx, eax; hlt")
    assert guest["rip"] == HANDLER + 65
    assert guest["rbx"] == KERNEL_STACK - 40
    assert guest["rcx"] == 0
    assert guest["rdx"] == UDATA
    assert frame(guest, KERNEL_STACK, 6)[:4] == [0, CODE + 9, U64, 0x10002 | 0x44]
    assert guest["cpl"] == 0


def test_software_interrupt_needs_the_gates_dpl(guest: Guest) -> None:
    guest.vector(0x80, "hlt", HANDLER)
    guest.vector(13, "pop rbx; pop rcx; hlt", HANDLER + 64)
    guest.user()
    guest.run("int 0x80")
    assert guest["rbx"] == 0x80 * 8 + 2
    assert guest["rcx"] == CODE


def test_gate_not_present(guest: Guest) -> None:
    guest.vector(0x80, "hlt", HANDLER, present=False)
    guest.vector(11, "pop rbx; hlt", HANDLER + 64)
    guest.run("int 0x80")
    assert guest["rbx"] == 0x80 * 8 + 2


def test_page_fault_sets_cr2(guest: Guest) -> None:
    guest.vector(14, "pop rbx; mov rcx, cr2; hlt", HANDLER)
    guest.run("mov eax, 0x7fffffff; mov byte ptr [rax], 1")
    assert guest["rbx"] == 2
    assert guest["rcx"] == 0x7FFFFFFF


def test_page_fault_of_user(guest: Guest) -> None:
    guest.vector(14, "pop rbx; hlt", HANDLER)
    guest.user()
    guest.run("mov eax, 0x7fffffff; mov al, [rax]")
    assert guest["rbx"] == 4


def test_non_canonical_address(guest: Guest) -> None:
    guest.vector(13, "pop rbx; hlt", HANDLER)
    guest.run("mov eax, 1; shl rax, 63; mov al, [rax]")
    assert guest["rbx"] == 0


def test_double_fault(guest: Guest) -> None:
    guest.vector(8, "pop rbx; pop rcx; hlt", HANDLER, ist=1)
    guest.vector(14, "hlt", HANDLER + 64, present=False)
    guest.cpu.set("rbx", 1)
    guest.run("mov eax, 0x7fffffff; mov al, [rax]")
    assert guest["rbx"] == 0
    assert guest["rcx"] == CODE + 5


def test_triple_fault(guest: Guest) -> None:
    guest.cpu.set("idtr_limit", 0)
    assert guest.run("ud2") == "triple-fault"


def test_syscall_and_sysretq(guest: Guest) -> None:
    cpu = guest.cpu
    cpu.set("star", (0x28 << 48) | (0x08 << 32))
    cpu.set("lstar", HANDLER)
    cpu.set("sfmask", 0x601)
    guest.vector(13, "hlt", HANDLER + 64)
    guest.user()
    guest.cpu.write_phys(HANDLER, bytes.fromhex("668cd389df9c41584c89de480f07"))
    # mov bx, ss; mov edi, ebx; pushfq; pop r8; mov rsi, r11; sysretq
    guest.run("stc; syscall; mov ax, cs; hlt")
    assert guest["rdi"] & 0xFFFF == KDATA
    assert guest["rcx"] == CODE + 3
    assert guest["r8"] & 1 == 0
    assert guest["rsi"] & 1 == 1
    assert guest["rax"] & 0xFFFF == U64
    assert guest.read64(KERNEL_STACK - 24)[0] & 1


def test_syscall_without_sce_is_undefined(guest: Guest) -> None:
    guest.cpu.set("efer", guest["efer"] & ~1)
    guest.vector(6, "hlt", HANDLER)
    guest.run("syscall")
    assert guest["rip"] == HANDLER + 1


def test_swapgs(guest: Guest) -> None:
    guest.cpu.set("kernel_gs_base", 0x1111)
    guest.cpu.set("seg_base", 0x2222, 5)
    guest.run("swapgs; hlt")
    assert guest["kernel_gs_base"] == 0x2222
    assert guest.cpu.get("seg_base", 5) == 0x1111


@pytest.mark.parametrize(
    "text",
    [
        "hlt",
        "swapgs",
        "clts",
        "mov rax, cr0",
        "mov cr3, rax",
        "wbinvd",
        "invlpg [rax]",
        "rdmsr",
        "wrmsr",
        "lgdt [rax]",
        "lidt [rax]",
        "ltr ax",
        "lldt ax",
        "lmsw ax",
        "mov rax, dr7",
    ],
)
def test_privileged_in_user_mode(guest: Guest, text: str) -> None:
    guest.vector(13, "pop rbx; pop rcx; hlt", HANDLER)
    guest.user()
    guest.cpu.set("rbx", 1)
    guest.run(text)
    assert (guest["rbx"], guest["rcx"], guest["rip"]) == (0, CODE, HANDLER + 3)


def test_retfq_to_kernel_code(guest: Guest) -> None:
    guest.run("push 8; lea rax, [rip+6]; push rax; retfq; nop; nop; nop; hlt")
    assert guest["rip"] >= CODE + 5
    assert guest["rsp"] == KERNEL_STACK


def test_to_compatibility_mode_and_back(guest: Guest) -> None:
    guest.cpu.write_phys(
        HANDLER,
        bytes.fromhex("b8ffffffff40ea") + (HANDLER + 0x40).to_bytes(4, "little") + b"\x08\x00",
    )  # mov eax, -1; inc eax; jmp 8:HANDLER+40h
    guest.cpu.write_phys(HANDLER + 0x40, bytes.fromhex("48ffc0f4"))  # inc rax; hlt
    guest.run(f"push 0x18; push {HANDLER}; retfq")
    assert guest["rax"] == 1
    assert guest["rip"] == HANDLER + 0x44


def test_msrs(guest: Guest) -> None:
    guest.run(
        "mov ecx, 0xc0000101; mov eax, 0x1234; mov edx, 0x7fff; wrmsr; xor eax, eax; rdmsr; hlt"
    )
    assert (guest["rax"], guest["rdx"]) == (0x1234, 0x7FFF)
    assert guest.cpu.get("seg_base", 5) == 0x7FFF_0000_1234


def test_msr_that_is_not_there(guest: Guest) -> None:
    guest.vector(13, "pop rbx; hlt", HANDLER)
    guest.run("mov ecx, 0x12345; rdmsr")
    assert guest["rip"] == HANDLER + 2


def test_msr_of_the_table(guest: Guest) -> None:
    guest.run("mov ecx, 0x277; rdmsr; hlt")
    assert (guest["rax"], guest["rdx"]) == (0x00070406, 0x00070406)
    assert guest.cpu.icount == 3


def test_cpuid(guest: Guest) -> None:
    guest.run("xor eax, eax; cpuid; hlt")
    name = b"".join(guest[r].to_bytes(4, "little") for r in ("rbx", "rdx", "rcx"))
    assert name == b"AuthenticAMD"


def test_rdtsc_counts_instructions(guest: Guest) -> None:
    guest.run("nop; nop; rdtsc; mov ebx, eax; rdtsc; sub eax, ebx; hlt")
    assert guest["rbx"] == 2
    assert guest["rax"] == 2


def test_stack_segment_load_holds_interrupts(guest: Guest) -> None:
    guest.run("mov ax, 0x10; mov ss, ax; hlt", limit=2)
    assert guest["shadow_icount"] == 2


def test_null_stack_segment(guest: Guest) -> None:
    guest.run("xor eax, eax; mov ss, ax; push rax; hlt")
    assert guest["rsp"] == KERNEL_STACK - 8


def test_fs_base_follows_the_descriptor(guest: Guest) -> None:
    guest.cpu.set("seg_base", 0x5555, 4)
    guest.run("mov ax, 0x10; mov fs, ax; hlt")
    assert guest.cpu.get("seg_base", 4) == 0


def test_lgdt_sgdt(guest: Guest) -> None:
    guest.cpu.write_phys(DATA, (0xFF).to_bytes(2, "little") + (0x1000).to_bytes(8, "little"))
    guest.run(f"lgdt [{DATA}]; sgdt [{DATA + 16}]; hlt")
    assert guest.cpu.read_phys(DATA + 16, 10) == guest.cpu.read_phys(DATA, 10)


def test_ltr_makes_the_tss_busy(guest: Guest) -> None:
    guest.run("mov ax, 0x40; ltr ax; str bx; hlt")
    assert guest["rbx"] & 0xFFFF == 0x40
    assert guest.read64(0x1040)[0] >> 40 & 0xFF == 0x8B


def test_lar_lsl(guest: Guest) -> None:
    # mov ecx, 10h; lar eax, ecx; setz bl; lsl edx, ecx; hlt
    guest.run(bytes.fromhex("b910000000 0f02c1 0f94c3 0f03d1 f4"))
    assert guest["rax"] == 0xCF9300 & 0xF0FF00
    assert guest["rbx"] & 1
    assert guest["rdx"] == 0xFFFFFFFF


def test_smap(guest: Guest) -> None:
    guest.cpu.set("cr4", guest["cr4"] | 1 << 21)
    guest.put64(0x82000, [0x83])  # the first 2 MiB belong to the kernel; the next do not
    guest.vector(14, "pop rbx; hlt", HANDLER)
    guest.cpu.set("rbx", 0x77)
    guest.put64(0x82008, [0x87])
    guest.run("mov eax, 0x200000; stac; mov cl, [rax]; clac; mov cl, [rax]")
    assert guest["rip"] == HANDLER + 2
    assert guest["rbx"] == 1


def test_user_stack_after_iretq(guest: Guest) -> None:
    text = f"push {UDATA}; push {USER_STACK}; push 0x202; push {U64}; push {CODE + 0x100}; iretq"
    guest.run(text, limit=6)
    assert (guest["rsp"], guest["rip"], guest["cpl"]) == (USER_STACK, CODE + 0x100, 3)
    assert guest["eflags"] == 0x202


def test_paging_bit_cannot_be_cleared_in_64_bit_mode(guest: Guest) -> None:
    guest.vector(13, "pop rbx; hlt", HANDLER)
    guest.run("mov rax, cr0; btr rax, 31; mov cr0, rax")
    assert guest["rip"] == HANDLER + 2


def test_reserved_cr4_bits(guest: Guest) -> None:
    guest.vector(13, "pop rbx; hlt", HANDLER)
    guest.run("mov rax, cr4; bts rax, 17; mov cr4, rax")
    assert guest["rip"] == HANDLER + 2


def test_fsgsbase(guest: Guest) -> None:
    guest.cpu.set("cr4", guest["cr4"] | 1 << 16)
    guest.run("mov rax, -0x1234567; wrfsbase rax; rdfsbase rbx; hlt")
    assert guest["rbx"] == 2**64 - 0x1234567


def test_iretq_drops_the_resume_flag(guest: Guest) -> None:
    text = (
        f"push {KDATA}; push {KERNEL_STACK}; push 0x10002; push {K64}; push {CODE + 0x100}; iretq"
    )
    guest.run(text, limit=6)
    assert guest["eflags"] == 2
