"""Random programs about privilege: selectors of every kind, loaded, called, returned to, examined.

A program is a memory image that QEMU starts as a multiboot kernel and our processor runs bare.
Each of its snippets ends in INT 81h or in a fault; the one handler of all vectors writes down what
happened (vector, error code, saved CS:EIP and flags, data segments, stack) and goes on with the
next snippet.  RF is left out: QEMU does not set it.
"""

from __future__ import annotations

import random
import struct
import subprocess
from pathlib import Path

from tests.core.system_code import assemble
from tests.core.system_guest import descriptor, gate
from workbench.core.engine import Cpu
from workbench.core.layout import UD
from workbench.core.system import System

LOAD, GDT, IDT, TSS, VARS = 0x100000, 0x200000, 0x202000, 0x204000, 0x206000
KERNEL_STACK, USER_STACK, TABLES, LOG, END = 0x208000, 0x20A000, 0x210000, 0x300000, 0x320000
ENTRY, TARGET, STUBS, BODY, USER = (LOAD + n for n in (0x40, 0x800, 0x1000, 0x4000, 0x80000))
RESUME, LOG_AT, SAVED_SP, GDTR, IDTR = (VARS + n for n in (0, 8, 16, 0x40, 0x48))
K32, KDATA, K64, U32, UDATA, U64, TSS_SEL = 0x08, 0x10, 0x18, 0x23, 0x2B, 0x33, 0x40
FIRST, COUNT = 16, 96  # the random descriptors
RECORD = 64
ERROR_CODES = (8, 10, 11, 12, 13, 14, 17)
DONE = b"\xcd\x81"

LOG_32 = f"""push ebp; push edi; push eax; .byte 0x1e; .byte 6; .byte 0x0f, 0xa0; .byte 0x0f, 0xa8
mov ax, 0x10; mov ds, ax; mov es, ax; mov edi, {LOG_AT}; mov edi, [edi]
mov eax, [esp+28]; mov [edi], eax; mov eax, [esp+32]; mov [edi+4], eax
mov eax, [esp+36]; mov [edi+8], eax; mov eax, [esp+40]; mov [edi+12], eax
mov eax, [esp+44]; and eax, 0xfffeffff; mov [edi+16], eax
mov eax, [esp+12]; mov [edi+24], ax; mov eax, [esp+8]; mov [edi+26], ax
mov eax, [esp+4]; mov [edi+28], ax; mov eax, [esp]; mov [edi+30], ax
mov ax, ss; mov [edi+32], ax; mov [edi+36], esp; mov [edi+40], ebx
test dword ptr [esp+40], 3; jz same
mov eax, [esp+48]; mov [edi+44], eax; mov eax, [esp+52]; mov [edi+48], eax
same: add edi, {RECORD}; mov eax, {LOG_AT}; mov [eax], edi
mov ax, 0x10; mov ss, ax; mov fs, ax; mov gs, ax; mov edi, {RESUME}; mov esp, [edi+16]
push 2; popfd; jmp dword ptr [edi]"""
LOG_64 = f"""push rbp; push rdi; push rax; .byte 0x0f, 0xa0; .byte 0x0f, 0xa8
mov ax, ds; push rax; mov ax, es; push rax
mov edi, {LOG_AT}; mov edi, [rdi]
mov rax, [rsp+56]; mov [rdi], eax; mov rax, [rsp+64]; mov [rdi+4], eax
mov rax, [rsp+72]; mov [rdi+8], eax; mov rax, [rsp+80]; mov [rdi+12], eax
mov rax, [rsp+88]; and eax, 0xfffeffff; mov [rdi+16], eax
mov rax, [rsp+24]; mov [rdi+24], ax; mov rax, [rsp+16]; mov [rdi+26], ax
mov rax, [rsp+8]; mov [rdi+28], ax; mov rax, [rsp]; mov [rdi+30], ax
mov ax, ss; mov [rdi+32], ax; mov [rdi+36], esp; mov [rdi+40], ebx
mov rax, [rsp+96]; mov [rdi+44], eax; mov rax, [rsp+104]; mov [rdi+48], eax
add edi, {RECORD}; mov eax, {LOG_AT}; mov [rax], edi
mov ax, 0x10; mov ds, ax; mov es, ax; mov ss, ax; mov fs, ax; mov gs, ax
mov edi, {RESUME}; mov rsp, [rdi+16]; push 2; popfq; jmp qword ptr [rdi]"""
SETUP = f"""mov ebx, {GDTR}; lgdt [ebx]; mov esp, {KERNEL_STACK}
mov eax, 0x10; mov ds, ax; mov es, ax; mov ss, ax; mov fs, ax; mov gs, ax; xor eax, eax; lldt ax"""
PAGING = f"""mov eax, cr4; or eax, 0x20; mov cr4, eax; mov eax, {TABLES}; mov cr3, eax
mov ecx, 0xc0000080; rdmsr; or eax, 0x100; wrmsr; mov eax, cr0; or eax, 0x80000000; mov cr0, eax"""
START = f"mov ebx, {IDTR}; .byte 0x0f, 0x01, 0x1b; mov eax, {TSS_SEL}; ltr ax; xor ebx, ebx; push 2"
DUMP = f"""mov esi, {LOG}; mov ebx, {LOG_AT}; .byte 0x8b, 0x0b; sub ecx, esi; mov dx, 0xe9; cld
.byte 0xf3, 0x6e; mov dx, 0xf4; out dx, al; stop: jmp stop"""


def imm(*values: int) -> bytes:
    """PUSH imm32 of each value."""
    return b"".join(b"\x68" + struct.pack("<I", v & 0xFFFFFFFF) for v in values)


class Program:
    """One image, from a seed, for 32- or 64-bit mode."""

    def __init__(self, seed: int, mode: int, snippets: int = 700) -> None:
        self.random = random.Random(seed)
        self.mode = mode
        self.wide = b"\x48" if mode == 64 else b""
        self.code, self.user_code = (K64, U64) if mode == 64 else (K32, U32)
        self.memory = bytearray(END - LOAD)
        self.body, self.users = bytearray(), bytearray()
        self.names: list[tuple[bool, str]] = []
        self._tables()
        for _ in range(snippets):
            self._snippet(self.random.random() < 0.45)
        self.body += assemble(DUMP, mode)
        self._finish()

    def put(self, at: int, data: bytes) -> None:
        self.memory[at - LOAD : at - LOAD + len(data)] = data

    def _tables(self) -> None:
        rnd, mode = self.random, self.mode
        flat = (0x9B, 0xC), (0x93, 0xC), (0x9B, 0xA), (0xFB, 0xC), (0xF3, 0xC), (0xFB, 0xA)
        gdt = [0, *(descriptor(0, 0xFFFFF, access, flags) for access, flags in flat)]
        gdt += [0, descriptor(TSS, 0x67, 0x89, 0)] + [0] * (FIRST - 9)
        for _ in range(COUNT):
            kind = rnd.random()
            access = rnd.choice((0x92, 0x93, 0x90, 0x91, 0x98, 0x9A, 0x9B, 0x9C, 0x9E, 0x9F))
            access |= rnd.choice((0, 0x20, 0x40, 0x60, 0x60))
            if rnd.random() < 0.1:
                access &= 0x7F
            if kind < 0.7:
                gdt.append(descriptor(0, 0xFFFFF, access, rnd.choice((0xC, 0xC, 0x8, 0xA, 0xA))))
            elif kind < 0.9:
                gdt.append(
                    gate(
                        rnd.choice((self.code, K32, K64, 0)),
                        TARGET,
                        12,
                        rnd.randrange(4),
                        rnd.random() < 0.9,
                    )
                    | rnd.choice((0, 0, 1, 2)) << 32
                )
            else:  # system descriptors whose limit is too small for a TSS
                types = (2, 9, 11) if mode == 64 else (1, 2, 3, 9, 11)
                gdt.append(
                    descriptor(0x203000, 0x10, rnd.choice(types) | rnd.choice((0x80, 0xE0)), 0)
                )
        self.put(GDT, struct.pack(f"<{len(gdt)}Q", *gdt))
        idt: list[int] = []
        common = STUBS + 256 * 16
        for v in range(256):
            at = STUBS + v * 16
            stub = (b"" if v in ERROR_CODES else b"\x6a\x00") + imm(v)
            self.put(at, stub + b"\xe9" + struct.pack("<i", common - at - len(stub) - 5))
            idt.append(gate(self.code, at, 14, 3 if v in (3, 0x81) else 0))
            idt += [0] if mode == 64 else []
        self.put(IDT, struct.pack(f"<{len(idt)}Q", *idt))
        self.put(common, assemble(LOG_64 if mode == 64 else LOG_32, mode))
        self.put(GDTR, struct.pack("<HI", 0xFFF, GDT))
        self.put(IDTR, struct.pack("<HQ", len(idt) * 8 - 1, IDT))
        self.put(LOG_AT, struct.pack("<I", LOG))
        self.put(TARGET, DONE * 8)
        for ring in range(3):
            sp = KERNEL_STACK - 0x400 * (ring + 1)
            if mode == 64:
                self.put(TSS + 4 + 8 * ring, struct.pack("<Q", sp))
            else:
                self.put(TSS + 4 + 8 * ring, struct.pack("<II", sp, 0 if ring else KDATA))
        self.put(TABLES, struct.pack("<Q", TABLES + 0x1000 | 7))
        self.put(TABLES + 0x1000, struct.pack("<Q", TABLES + 0x2000 | 7))
        self.put(TABLES + 0x2000, struct.pack("<512Q", *(n << 21 | 0x87 for n in range(512))))

    def selector(self) -> int:
        """A random selector, mostly of a random descriptor."""
        rnd, kind = self.random, self.random.random()
        if kind < 0.8:
            index = rnd.randrange(FIRST, FIRST + COUNT)
        elif kind < 0.95:
            index = rnd.randrange(9)
        else:
            index = rnd.randrange(0x2000)
        return index << 3 | rnd.choice((0, 0, 3, 3, 1, 2))

    def _operation(self, user: bool) -> tuple[str, bytes]:
        """Name and code of one snippet."""
        rnd, wide, s = self.random, self.wide, self.selector()
        eax = b"\xb8" + struct.pack("<I", s)
        zf = bytes.fromhex("9c 59 83e140")  # pushf; pop rcx; and ecx, 40h
        match rnd.randrange(15):
            case 0 | 1 | 2 | 3:
                seg = rnd.choice((0, 2, 3, 4, 5))
                load = bytes((0x8E, 0xC0 | seg << 3, 0x90, 0x8C, 0xC3 | seg << 3))
                return f"mov {'ecsdfg'[seg]}s, {s:#x}", eax + load
            case 4:  # the accessed bit is left out of what LAR tells
                mask = bytes.fromhex("81e3fffeffff 31cb")
                return f"lar {s:#x}", eax + bytes.fromhex("bb55555555 0f02d8") + zf + mask
            case 5:
                return f"lsl {s:#x}", eax + bytes.fromhex("bb55555555 0f03d8") + zf + b"\x31\xcb"
            case 6:
                return f"verr {s:#x}", eax + bytes.fromhex("0f00e0") + zf + b"\x89\xcb"
            case 7:
                return f"verw {s:#x}", eax + bytes.fromhex("0f00e8") + zf + b"\x89\xcb"
            case 8 | 9:
                call = rnd.random() < 0.5
                if not wide:
                    code = struct.pack("<BIH", 0x9A if call else 0xEA, TARGET, s)
                else:  # push s; mov dword [rsp-4], TARGET; jmp or call far [rsp-4]
                    store = bytes.fromhex("c74424fc") + struct.pack("<I", TARGET)
                    code = imm(s) + store + (b"\xff\x5c\x24\xfc" if call else b"\xff\x6c\x24\xfc")
                return f"far {'call' if call else 'jmp'} {s:#x}", code
            case 10 | 11:
                ss = rnd.choice((UDATA, KDATA, self.selector()))
                return f"retf {s:#x} {ss:#x}", imm(ss, USER_STACK, s, TARGET) + wide + b"\xcb"
            case 12 | 13:
                flags = rnd.choice((2, 0x3002, 0x46, 0x200402, 0x40002))
                ss = rnd.choice((UDATA, KDATA, self.selector() | 8))
                code = imm(ss, USER_STACK, flags, s, TARGET) + wide + b"\xcf"
                return f"iret {s:#x} {ss:#x} {flags:#x}", code
            case _:
                plain = ["9c5b", "cc", "0f0b", "31c9f7f1", "660f00cb", "660f00c3", "660f01e3"]
                priv = [
                    "f4",
                    "0f22c0",
                    "0f20db",
                    "0f00d0",
                    "0f00d8",
                    "0f06",
                    "0f01f0",
                    "0f32",
                    "fa",
                ]
                text = rnd.choice(plain + (priv if user else []))
                return text, bytes.fromhex(text)

    def _snippet(self, user: bool) -> None:
        name, code = self._operation(user)
        self.names.append((user, name))
        start = BODY + len(self.body)
        if user:
            at = USER + len(self.users)
            self.users += code + DONE
            iret = self.wide + b"\xcf"
            code = (
                imm(UDATA, USER_STACK, 0x3002 if "f" in name and at & 1 else 2, self.user_code, at)
                + iret
            )
        else:
            code += DONE
        if self.wide:
            save = bytes.fromhex("48892425") + struct.pack("<I", SAVED_SP)
            resume = bytes.fromhex("48c70425")
        else:
            save = bytes.fromhex("8925") + struct.pack("<I", SAVED_SP)
            resume = bytes.fromhex("c705")
        end = start + len(resume) + 8 + len(save) + len(code)
        self.body += resume + struct.pack("<II", RESUME, end) + save + code

    def _finish(self) -> None:
        assert BODY + len(self.body) < USER
        self.put(BODY, bytes(self.body))
        self.put(USER, bytes(self.users))
        entry = bytes.fromhex("b0ff e621 e6a1") + assemble(SETUP, 32)  # all of the 8259A masked
        if self.wide:
            entry += assemble(PAGING, 32)
        entry += b"\xea" + struct.pack("<IH", ENTRY + len(entry) + 7, self.code)
        entry += assemble(START, self.mode) + b"\x9d"
        entry += b"\xe9" + struct.pack("<i", BODY - ENTRY - len(entry) - 5)
        self.put(ENTRY, entry)
        magic, flags = 0x1BADB002, 0x10000
        header = (magic, flags, -(magic + flags) & 0xFFFFFFFF, LOAD, LOAD, END, END, ENTRY)
        self.put(LOAD, struct.pack("<8I", *header))


def run_here(program: Program) -> bytes:
    """The log of our processor."""
    cpu = Cpu(4 << 20)
    cpu.handlers = System().handlers()
    cpu.write_phys(LOAD, bytes(program.memory))
    cpu.set("cr0", 0x11)
    cpu.set_segment("cs", K32, 0, 0xFFFFFFFF, 0xC09B)
    for name in ("ds", "es", "fs", "gs", "ss"):
        cpu.set_segment(name, KDATA, 0, 0xFFFFFFFF, 0xC093)
    cpu.set("rip", ENTRY)
    while (reason := cpu.run(cpu.icount + 10_000_000)) in ("system", "pio", "undefined"):
        if reason == "system":
            cpu.system()
        elif reason == "undefined":
            cpu.deliver(UD, None, 1)
        elif cpu.read_phys(cpu.get("rip"), 1) == b"\xe6":
            cpu.set("rip", cpu.get("rip") + 2)  # OUT imm8, AL: there is no 8259A
        else:
            break
    (end,) = struct.unpack("<I", cpu.read_phys(LOG_AT, 4))
    assert reason == "pio", reason
    return cpu.read_phys(LOG, end - LOG)


def run_qemu(program: Program, directory: Path) -> bytes:
    """The log of QEMU."""
    kernel, log = directory / "kernel", directory / "log"
    kernel.write_bytes(program.memory)
    command = [
        "qemu-system-x86_64",
        "-M",
        "pc",
        "-accel",
        "tcg",
        "-cpu",
        "EPYC",
        "-m",
        "16",
        "-kernel",
        str(kernel),
        "-debugcon",
        f"file:{log}",
        "-display",
        "none",
        "-no-reboot",
        "-device",
        "isa-debug-exit,iobase=0xf4,iosize=4",
    ]
    subprocess.run(command, timeout=60, stderr=subprocess.DEVNULL, check=False)
    return log.read_bytes()


FIELDS = (
    "vector",
    "error",
    "eip",
    "cs",
    "flags",
    "_",
    "ds",
    "es",
    "fs",
    "gs",
    "ss",
    "sp",
    "ebx",
    "outer_sp",
    "outer_ss",
)


def explain(record: bytes) -> dict[str, str]:
    """A record of the log by field."""
    return dict(zip(FIELDS, map(hex, struct.unpack_from("<6I4HHxx4I", record)), strict=True))
