"""Interrupts, gates, tasks and mode changes in 16- and 32-bit modes."""

from __future__ import annotations

import struct

import pytest

from tests.core.system_guest import (
    CODE,
    DATA,
    GDT,
    IDT,
    IST_STACK,
    K16,
    K32,
    KDATA,
    KDATA16,
    KERNEL_STACK,
    LDT_SEL,
    TSS,
    TSS_SEL,
    U32,
    UDATA,
    USER_STACK,
    Guest,
    descriptor,
    gate,
)

HANDLER = CODE + 0x800
CODE16, HANDLER16 = 0xA000, 0xB000


@pytest.fixture
def guest() -> Guest:
    return Guest(32)


@pytest.fixture
def real() -> Guest:
    return Guest(16)


# ------------------------------------------------------------------------------ real-address mode


def test_real_interrupt_and_iret(real: Guest) -> None:
    real.vector(0x21, "mov bp, sp; mov bx, [bp]; mov cx, [bp+4]; iret", HANDLER16)
    assert real.run("sti; stc; int 0x21; hlt", at=CODE16) == "hlt"
    assert real["rbx"] & 0xFFFF == CODE16 + 4
    assert real["rcx"] & 0xFFFF == 0x203
    assert real["rsp"] == KERNEL_STACK
    assert real["rflags"] & 0x201 == 0x201


def test_real_divide_error_returns_to_the_instruction(real: Guest) -> None:
    real.vector(0, "pop bx; hlt", HANDLER16)
    real.run("xor cx, cx; div cx", at=CODE16)
    assert real["rbx"] & 0xFFFF == CODE16 + 2


def test_real_far_call_and_return(real: Guest) -> None:
    real.cpu.write_phys(HANDLER16, bytes.fromhex("89e3 cb"))  # mov bx, sp; retf
    # call far 0A00h:1000h; hlt
    real.run(bytes.fromhex("9a 0010 000a f4"), at=CODE16)
    assert real["rip"] == CODE16 + 6
    assert real["rbx"] & 0xFFFF == KERNEL_STACK - 4
    assert real.read16(KERNEL_STACK - 4, 2) == (CODE16 + 5, 0)


def test_real_segment_load_changes_the_base(real: Guest) -> None:
    real.cpu.write_phys(0x12345, b"\x5a")
    real.run("mov ax, 0x1234; mov ds, ax; mov bl, [5]; hlt", at=CODE16)
    assert real["rbx"] & 0xFF == 0x5A


@pytest.mark.parametrize("last", ["90", "40", "04"])  # nop, inc ax; add al with its operand outside
def test_real_code_ends_with_its_segment(real: Guest, last: str) -> None:
    real.vector(13, "hlt", HANDLER16)
    real.cpu.set_segment("cs", 0x2345, 0x23450, 0xFFFF, 0x9B)
    real.cpu.write_phys(0x23450 + 0xFFFD, bytes.fromhex("9090" + last) + b"\x90" * 64)
    real.cpu.set("rip", 0xFFFD)
    assert real.go() == "hlt"
    assert real.read16(KERNEL_STACK - 6, 2) == (0xFFFF if last == "04" else 0, 0x2345)


def test_real_les_and_push_pop(real: Guest) -> None:
    real.cpu.write_phys(DATA, struct.pack("<HH", 0x1122, 0x3344))
    real.run(f"les di, [{DATA:#x}]; push es; pop ds; mov ax, ds; hlt", at=CODE16)
    assert (real["rdi"] & 0xFFFF, real["rax"] & 0xFFFF) == (0x1122, 0x3344)


def test_protected_instructions_are_undefined(real: Guest) -> None:
    real.vector(6, "hlt", HANDLER16)
    real.run(bytes.fromhex("0f00d8"), at=CODE16)  # ltr ax
    assert real["rip"] == HANDLER16 + 1


def test_into_protected_mode_and_back(real: Guest) -> None:
    real.cpu.write_phys(DATA, struct.pack("<HI", 0xFF, GDT))
    real.cpu.write_phys(
        HANDLER,
        bytes.fromhex("66b81000 8ed8 bb78563412 0f20c0 24fe ea")
        + struct.pack("<IH", HANDLER16, K16),
    )
    real.cpu.write_phys(HANDLER16, bytes.fromhex("0f20c0 24fe 0f22c0 ea 00b1 0000"))
    real.cpu.write_phys(HANDLER16 + 0x100, b"\xf4")
    real.run(
        bytes.fromhex("0f0116")
        + struct.pack("<H", DATA)
        + bytes.fromhex("0f20c0 0c01 0f22c0 66ea")
        + struct.pack("<IH", HANDLER, K32),
        at=CODE16,
    )
    assert real["rip"] == HANDLER16 + 0x101
    assert real["rbx"] == 0x12345678
    assert real.cpu.get_segment("ds") == (KDATA, 0, 0xFFFFFFFF, 0xC093)
    assert real.cpu.get_segment("cs")[:2] == (0, 0)
    assert not real["cr0"] & 1


# ------------------------------------------------------------------------------ protected mode


def test_interrupt_gate_same_privilege(guest: Guest) -> None:
    guest.vector(0x30, "mov ebx, esp; pushfd; pop ecx; iretd", HANDLER)
    guest.run("sti; int 0x30; hlt")
    assert guest["rbx"] == KERNEL_STACK - 12
    assert not guest["rcx"] & 0x200
    assert guest["rflags"] & 0x200
    assert guest["rsp"] == KERNEL_STACK


def test_gate_of_16_bits(guest: Guest) -> None:
    guest.vector(0x31, "mov ebx, esp; iret", HANDLER16, kind=6, selector=K16, bits=16)
    guest.cpu.write_phys(HANDLER16, bytes.fromhex("6689e3 cf"))  # mov ebx, esp; iret
    guest.run("int 0x31; hlt", at=0x9000)
    assert guest["rbx"] == KERNEL_STACK - 6
    assert guest["rip"] == 0x9003


def test_user_to_kernel(guest: Guest) -> None:
    guest.vector(0x80, "mov ebx, esp; mov cx, ss; iretd", HANDLER, dpl=3)
    guest.vector(13, "hlt", HANDLER + 64)
    guest.user(U32)
    guest.run("int 0x80; mov dx, ss; hlt")
    assert guest["rbx"] == KERNEL_STACK - 20
    assert guest["rcx"] == KDATA
    assert guest["rdx"] == UDATA
    assert guest["rip"] == HANDLER + 65
    # the frame of the #GP that HLT made lies over that of the INT
    assert guest.read32(KERNEL_STACK - 24, 6) == (0, CODE + 5, U32, 0x10002, USER_STACK, UDATA)


def test_inner_stack_of_a_16_bit_tss(guest: Guest) -> None:
    guest.cpu.set_segment("tr", TSS_SEL, TSS, 0x2B, 0x83)
    guest.cpu.write_phys(TSS + 2, struct.pack("<HH", 0x6800, KDATA))
    guest.vector(0x80, "mov ebx, esp; hlt", HANDLER, dpl=3)
    guest.user(U32)
    guest.run("int 0x80")
    assert guest["rbx"] == 0x6800 - 20


def test_bad_inner_stack_is_invalid_tss(guest: Guest) -> None:
    guest.put32(TSS + 8, [0x33])
    guest.vector(0x80, "hlt", HANDLER, dpl=3)
    guest.vector(10, "hlt", HANDLER + 64)
    guest.vector(8, "hlt", HANDLER + 128)
    guest.user(U32)
    assert guest.run("int 0x80") == "triple-fault"  # #TS and #DF need the same stack


def test_return_to_outer_privilege_drops_kernel_segments(guest: Guest) -> None:
    guest.vector(13, "hlt", HANDLER)
    guest.run(
        f"push {UDATA}; push {USER_STACK}; push 2; push {U32}; push {CODE + 0x100}; iretd", limit=6
    )
    assert guest["cpl"] == 3
    assert guest["rsp"] == USER_STACK
    assert [guest.cpu.get_segment(n)[0] for n in ("ds", "es", "fs", "gs", "ss")] == [
        0,
        0,
        0,
        0,
        UDATA,
    ]


def test_retf_to_outer_privilege(guest: Guest) -> None:
    code = bytes.fromhex("6a33 6800600000 6a00 6a2b 6800010100 ca0400")
    guest.run(code, limit=6)  # push ss; push esp; push param; push cs; push eip; retf 4
    assert (guest["cpl"], guest["rip"], guest["rsp"]) == (3, CODE + 0x100, USER_STACK + 4)


def test_call_gate_with_parameters(guest: Guest) -> None:
    guest.put64(GDT + 0x78, [gate(K32, HANDLER, 12, 3) | 2 << 32])
    guest.cpu.write_phys(HANDLER, bytes.fromhex("89e3 8b4c2408 8b54240c ca0800"))
    guest.vector(13, "hlt", HANDLER + 64)
    guest.user(U32)
    # push 11h; push 22h; call 7Bh:0; hlt
    guest.run(bytes.fromhex("6a11 6a22 9a 00000000 7b00 f4"))
    assert guest["rbx"] == KERNEL_STACK - 24
    assert (guest["rcx"], guest["rdx"]) == (0x22, 0x11)
    assert guest.read32(KERNEL_STACK - 20, 1)[0] == CODE + 11  # saved by the #GP of HLT
    assert guest.read32(KERNEL_STACK - 8, 1)[0] == USER_STACK


def test_null_and_bad_selectors(guest: Guest) -> None:
    guest.vector(13, "pop ebx; hlt", HANDLER)
    guest.run("xor eax, eax; mov ss, ax")
    assert guest["rbx"] == 0
    guest.run("mov eax, 0x1f8; mov ds, ax")
    assert guest["rbx"] == 0x1F8


def test_use_of_a_null_segment(guest: Guest) -> None:
    guest.vector(13, "pop ebx; hlt", HANDLER)
    guest.cpu.set("rbx", 9)
    guest.run("xor eax, eax; mov ds, ax; mov cl, [eax]")
    assert guest["rbx"] == 0
    assert guest["rip"] == HANDLER + 2


def test_selectors_and_far_pointers_in_a_code_segment(guest: Guest) -> None:
    guest.put32(DATA, [HANDLER, K32, KDATA])
    guest.vector(13, "pop ebx; hlt", HANDLER + 64)
    guest.cpu.write_phys(HANDLER, b"\xf4")
    where = struct.pack("<I", DATA)
    # mov fs, cs:[DATA+8]; lgs edx, cs:[DATA]; jmp far cs:[DATA]
    code = b"\x2e\x8e\x25" + struct.pack("<I", DATA + 8) + b"\x2e\x0f\xb5\x15" + where
    guest.run(code + b"\x2e\xff\x2d" + where)
    assert guest["rip"] == HANDLER + 1
    assert guest["rdx"] == HANDLER
    assert guest.cpu.get_segment("fs")[0] == KDATA
    assert guest.cpu.get_segment("gs")[0] == K32


@pytest.mark.parametrize("room", [3, 5, 6])
def test_a_far_pointer_lies_within_its_segment(guest: Guest, room: int) -> None:
    guest.put32(DATA, [HANDLER, KDATA])
    guest.put64(GDT + 0x70, [descriptor(0, DATA + room - 1, 0x91, 4)])
    guest.vector(13, "pop ebx; hlt", HANDLER)
    guest.run(b"\xb8\x70\0\0\0\x8e\xc0\x26\x0f\xb4\x15" + struct.pack("<I", DATA) + b"\xf4")
    assert (guest["rip"] == HANDLER + 2) == (room < 6)
    assert guest.cpu.get_segment("fs")[1:] == (0, 0xFFFFFFFF, 0xC093)
    assert (guest["rdx"] == HANDLER) == (room >= 6)


def test_segment_not_present(guest: Guest) -> None:
    guest.put64(GDT + 0x70, [descriptor(0, 0xFFFFF, 0x13, 0xC)])
    guest.vector(11, "pop ebx; hlt", HANDLER)
    guest.vector(12, "pop ecx; hlt", HANDLER + 64)
    guest.run("mov eax, 0x70; mov es, ax")
    assert guest["rbx"] == 0x70
    guest.run("mov eax, 0x70; mov ss, ax")
    assert guest["rcx"] == 0x70


def test_stack_limit(guest: Guest) -> None:
    guest.put64(GDT + 0x70, [descriptor(0, 0xFFF, 0x93, 4)])
    guest.vector(12, "hlt", HANDLER)
    guest.vector(8, "hlt", HANDLER + 64)
    guest.cpu.set("rsp", 0x2000)
    assert guest.run("mov eax, 0x70; mov ss, ax; push eax") == "triple-fault"


def test_lar_verr_arpl(guest: Guest) -> None:
    # mov ecx, 33h; verr cx; setz al; verw cx; setz ah; mov cx, 18h; verw cx; setz bl;
    # mov dx, 10h; mov di, 3; arpl dx, di; setz bh; hlt
    guest.run(
        bytes.fromhex(
            "b933000000 0f00e1 0f94c0 0f00e9 0f94c4 66b91800 0f00e9 0f94c3"
            "66ba1000 66bf0300 63fa 0f94c7 f4"
        )
    )
    assert guest["rax"] & 0xFFFF == 0x101
    assert guest["rbx"] & 0xFFFF == 0x100
    assert guest["rdx"] & 0xFFFF == 0x13


def test_lar_of_a_descriptor_of_ones(guest: Guest) -> None:
    guest.put64(GDT + 0x70, [(1 << 64) - 1])
    guest.run(bytes.fromhex("b870000000 0f02c8 f4"))  # mov eax, 70h; lar ecx, eax; hlt
    assert guest["rcx"] == 0x00F0FF00
    assert guest["rflags"] & 0x40


def test_lldt_and_a_local_descriptor(guest: Guest) -> None:
    guest.put64(0x900, [0, descriptor(0x1234, 0xFF, 0x93, 4)])
    guest.run(f"mov eax, {LDT_SEL}; lldt ax; mov eax, 0xc; mov fs, ax; sldt bx; hlt")
    assert guest.cpu.get_segment("fs") == (0xC, 0x1234, 0xFF, 0x4093)
    assert guest["rbx"] & 0xFFFF == LDT_SEL


def test_sysenter_and_sysexit(guest: Guest) -> None:
    guest.cpu.set("sysenter_cs", K32)
    guest.put64(GDT + 0x18 + 8, [descriptor(0, 0xFFFFF, 0x93, 0xC)])
    guest.cpu.set("sysenter_eip", HANDLER)
    guest.cpu.set("sysenter_esp", KERNEL_STACK)
    guest.cpu.write_phys(
        HANDLER,
        bytes.fromhex("ba") + struct.pack("<I", CODE + 0x100) + bytes.fromhex("b900600000 0f35"),
    )
    guest.user(U32)
    guest.run("sysenter", limit=4)
    assert (guest["cpl"], guest["rip"], guest["rsp"]) == (3, CODE + 0x100, USER_STACK)
    assert guest.cpu.get_segment("cs")[0] == K32 + 16 | 3


# ------------------------------------------------------------------------------ virtual-8086 mode


def enter_v86(guest: Guest, iopl: int = 3) -> None:
    guest.put32(TSS + 4, [KERNEL_STACK, KDATA])
    words = [CODE16 & 0xFFFF, 0, 0x20002 | iopl << 12, 0x6000, 0, 0x111, 0x222, 0x333, 0x444]
    guest.put32(IST_STACK, words)
    guest.cpu.write_phys(CODE, bytes.fromhex("bc") + struct.pack("<I", IST_STACK) + b"\xcf")
    guest.cpu.set("rip", CODE)


def test_v86_iretd_and_interrupt(guest: Guest) -> None:
    enter_v86(guest)
    guest.vector(0x20, "mov ebx, esp; mov cx, ds; hlt", HANDLER, dpl=3)
    guest.cpu.write_phys(CODE16, bytes.fromhex("8cd8 cd20"))  # mov ax, ds; int 20h
    guest.go()
    assert guest["rax"] & 0xFFFF == 0x222
    assert guest["rbx"] == KERNEL_STACK - 36
    assert guest["rcx"] & 0xFFFF == 0
    assert guest.read32(KERNEL_STACK - 36, 9) == (
        CODE16 + 4,
        0,
        0x23002,
        0x6000,
        0,
        0x111,
        0x222,
        0x333,
        0x444,
    )


def test_v86_needs_iopl_3_for_int(guest: Guest) -> None:
    enter_v86(guest, iopl=0)
    guest.vector(13, "pop ebx; pop ecx; hlt", HANDLER)
    guest.cpu.write_phys(CODE16, bytes.fromhex("cd20"))
    guest.go()
    assert (guest["rbx"], guest["rcx"]) == (0, CODE16)


# ------------------------------------------------------------------------------ tasks


TASK2, TASK2_SEL = 0x3400, 0x68


def second_task(guest: Guest, text: str) -> None:
    from tests.core.system_code import assemble

    guest.put64(GDT + TASK2_SEL, [descriptor(TASK2, 0x67, 0x89, 0)])
    guest.cpu.write_phys(HANDLER, assemble(text, 32, HANDLER))
    tss = [0] * 26
    tss[8] = HANDLER
    tss[9] = 2
    tss[10:18] = [1, 2, 3, 4, IST_STACK, 6, 7, 8]
    tss[18:24] = [KDATA, K32, KDATA, KDATA, KDATA, KDATA]
    guest.put32(TASK2, tss)
    guest.put64(GDT + TSS_SEL, [descriptor(TSS, 0x67, 0x8B, 0)])


def test_task_call_and_return(guest: Guest) -> None:
    second_task(
        guest, "mov [0x8000], eax; str ax; mov [0x8004], ax; pushfd; pop dword ptr [0x8008]; iretd"
    )
    guest.cpu.set("rax", 0x77)
    # call 68h:0; hlt
    guest.run(bytes.fromhex("9a 00000000 6800 f4"))
    assert guest["rip"] == CODE + 8
    assert guest["rax"] == 0x77
    assert guest["rsp"] == KERNEL_STACK
    saved, tr, flags = guest.read32(DATA, 3)
    assert (saved, tr & 0xFFFF, flags & 0x4000) == (1, TASK2_SEL, 0x4000)
    assert guest["cr0"] & 8
    assert guest.read32(TASK2, 1)[0] == TSS_SEL
    assert guest.cpu.get_segment("tr")[0] == TSS_SEL


def test_task_jump(guest: Guest) -> None:
    second_task(guest, "hlt")
    guest.run(bytes.fromhex("ea 00000000 6800"))
    assert guest["rip"] == HANDLER + 1
    assert guest["rsp"] == IST_STACK
    assert guest.read64(GDT + TSS_SEL)[0] >> 40 & 0xFF == 0x89
    assert guest.read32(TSS + 0x20, 1)[0] == CODE + 7


def test_double_fault_by_task_gate(guest: Guest) -> None:
    second_task(guest, "pop ebx; hlt")
    guest.put64(IDT + 64, [gate(TASK2_SEL, 0, 5)])
    guest.cpu.set("rbx", 5)
    guest.run("ud2")
    assert guest["rip"] == HANDLER + 2
    assert guest["rbx"] == 0
    assert guest.read32(TSS + 0x20, 1)[0] == CODE


def test_selectors_of_the_kernel_data16(guest: Guest) -> None:
    guest.run(f"mov eax, {KDATA16}; mov ds, ax; mov es, ax; hlt")
    assert guest.cpu.get_segment("ds") == (KDATA16, 0, 0xFFFF, 0x93)
