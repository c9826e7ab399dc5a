"""Guests of a few instructions, as multiboot files; their sources are in the comments."""

from __future__ import annotations

import struct

from workbench.trace.guest import Guest

_BASE = 0x100000


def multiboot(code: str) -> Guest:
    """Make a guest of 32-bit code that is entered at its first byte, at 0x100020."""
    body = bytes.fromhex(code)
    magic, flags = 0x1BADB002, 1 << 16
    checksum = -(magic + flags) & 0xFFFF_FFFF
    end = _BASE + 32 + len(body)
    fields = (magic, flags, checksum, _BASE, _BASE, end, 0, _BASE + 32)
    return Guest(struct.pack("<8I", *fields) + body, kernel_path="guest.elf")


CHIPS = multiboot(
    "b9 2c 01 00 00"  # mov ecx, 300
    "66 ba fd 03 ec"  # again: mov dx, 0x3fd; in al, dx
    "66 ba f8 03 b0 41 ee"  # mov dx, 0x3f8; mov al, 'A'; out dx, al
    "b8 00 00 00 80 ba f8 0c 00 00 ef"  # mov eax, 0x80000000; mov edx, 0xcf8; out dx, eax
    "ba fc 0c 00 00 ed"  # mov edx, 0xcfc; in eax, dx
    "e2 e1"  # loop again
    "b0 03 e6 f4 f4"  # mov al, 3; out 0xf4, al; hlt
)
ECHO = multiboot(
    "66 ba fd 03 ec a8 01 74 f7"  # again: mov dx, 0x3fd; in al, dx; test al, 1; jz again
    "66 ba f8 03 ec ee"  # mov dx, 0x3f8; in al, dx; out dx, al
    "3c 71 75 ed e6 f4 f4"  # cmp al, 'q'; jne again; out 0xf4, al; hlt
)
REBOOT = multiboot(
    "fe 05 00 00 30 00 a0 00 00 30 00 04 40"  # inc byte [0x300000]; mov al, [0x300000]; add al, '@'
    "66 ba f8 03 ee"  # mov dx, 0x3f8; out dx, al
    "3c 44 75 03 e6 f4 f4"  # cmp al, 'D'; jne 1f; out 0xf4, al; hlt
    "3c 41 75 0a b0 06 ba f9 0c 00 00 ee eb fe"  # 1: 'A': mov al, 6; mov edx, 0xcf9; out dx, al
    "3c 42 75 06 b0 01 e6 92 eb fe"  # 'B': mov al, 1; out 0x92, al
    "b0 fe e6 64 eb fe"  # 'C': mov al, 0xfe; out 0x64, al
)
SPIN = multiboot("40 eb fd")  # again: inc eax; jmp again
HALT = multiboot("fa f4")  # cli; hlt
DEAD = multiboot(
    "fa b0 34 e6 43"  # cli; mov al, 0x34; out 0x43, al
    "b0 00 e6 40 b0 10 e6 40"  # xor al, al; out 0x40, al; mov al, 0x10; out 0x40, al
    "f4 eb fd"  # again: hlt; jmp again (a timer that nobody hears)
)
SLOW = multiboot(
    "fa b0 34 e6 43"  # cli; mov al, 0x34; out 0x43, al
    "b0 00 e6 40 e6 40"  # xor al, al; out 0x40, al; out 0x40, al
    "f4 eb fd"  # again: hlt; jmp again (a timer every 55 ms)
)
FAULT = multiboot("0f 0b")  # ud2, without an interrupt table
