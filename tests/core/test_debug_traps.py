"""Single steps and breakpoints where instructions have something to say about them, and NMIs."""

from __future__ import annotations

import pytest

from tests.core.system_guest import CODE, Guest
from tests.core.test_machine import CODE as REAL_CODE
from tests.core.test_machine import ISR, PORT, real_mode
from workbench.core.bus import Window

LOG, HANDLER, BS = 0x9000, CODE + 0x800, 1 << 14
ON = "pushfq; pop rax; or eax, 0x100; push rax; popfq; "
OFF = "; pushfq; pop rax; and eax, ~0x100; push rax; popfq; hlt"


@pytest.fixture
def guest() -> Guest:
    guest = Guest(64)
    text = "push rax; mov rax, [rsp + 8]; mov [r14], rax; mov rax, dr6; mov [r14 + 8], rax;"
    text += "add r14, 16; xor eax, eax; mov dr6, rax; pop rax; iretq"
    guest.vector(1, text, HANDLER)
    guest.cpu.set("r14", LOG)
    return guest


def traps(guest: Guest, most: int = 9) -> list[tuple[int, int]]:
    """Offset from the code, and what DR6 says, of each #DB."""
    count = min((guest["r14"] - LOG) // 16, most)
    words = guest.read64(LOG, 2 * count) if count else ()
    return [(rip - CODE, dr6 & 0xE00F) for rip, dr6 in zip(words[::2], words[1::2], strict=True)]


START = 9  # behind ON


@pytest.mark.parametrize(
    ("text", "offsets"),
    [
        ("nop; nop", [START + 1, START + 2]),
        ("cpuid; nop", [START + 2, START + 3]),  # leaves for Python
        ("mov rbx, cr8; nop", [START + 4, START + 5]),
        ("mov bx, ss; mov ss, bx; nop; nop", [START + 3, START + 7, START + 8]),
        ("sti; nop", [START + 1, START + 2]),
        ("cli; hlt; nop", [START + 1, START + 2, START + 3]),  # the trap wakes it
    ],
)
def test_single_steps(guest: Guest, text: str, offsets: list[int]) -> None:
    assert guest.run(ON + text + OFF) == "hlt"
    assert traps(guest)[: len(offsets)] == [(at, BS) for at in offsets]


def test_an_interrupt_by_an_instruction_loses_its_trap(guest: Guest) -> None:
    guest.vector(0x40, "nop; iretq", HANDLER + 0x100)
    guest.run(ON + "int 0x40; nop" + OFF)
    assert traps(guest)[0] == (START + 3, BS)


def test_icebp_says_nothing_in_dr6(guest: Guest) -> None:
    guest.run(ON + "int1; nop" + OFF)
    assert traps(guest)[:2] == [(START + 1, 0), (START + 2, BS)]


def test_syscall_that_clears_tf_and_sysret_that_sets_it(guest: Guest) -> None:
    cpu = guest.cpu
    cpu.set("star", (0x28 << 48) | (0x08 << 32))
    cpu.set("lstar", HANDLER + 0x100)
    cpu.set("sfmask", 0x100)
    cpu.write_phys(HANDLER + 0x100, bytes.fromhex("90480f07"))  # nop; sysretq
    guest.vector(13, "hlt", HANDLER + 0x200)
    guest.user()
    guest.run(ON + "syscall; nop" + OFF)
    assert traps(guest)[:2] == [(START + 2, BS), (START + 3, BS)]


def test_breakpoints_behind_mov_ss_come_late_and_dr6_forgets(guest: Guest) -> None:
    guest.cpu.set("rbx", LOG + 0x100)
    guest.cpu.write_phys(LOG + 0x100, b"\x10\x00")
    text = "mov dr0, rbx; mov eax, 0xf0003; mov dr7, rax; mov ss, [rbx]; nop; nop; hlt"
    guest.cpu.set("dr", 0xFFFF0FF4, 6)  # an old match of DR2
    guest.run(text)
    assert traps(guest) == [(14, 1)]  # MOV SS is at 11, the trap behind the NOP at 13


def test_clac_and_stac_without_smap(guest: Guest) -> None:
    guest.vector(6, "hlt", HANDLER + 0x100)
    guest.run("stac; pushfq; pop rbx; clac; pushfq; pop rcx; hlt")
    assert (guest["rbx"] >> 18 & 1, guest["rcx"] >> 18 & 1) == (1, 0)


def test_an_nmi_by_a_device_access_comes_behind_its_instruction_and_once() -> None:
    # out 0x10, al; inc bx; hlt
    machine = real_mode("e61043f4")
    machine.memory.write(2 * 4, ISR.to_bytes(4, "little"))
    machine.memory.write(ISR, bytes.fromhex("41cf"))  # inc cx; iret
    write = lambda offset, size, value: machine.set_nmi()  # noqa: E731
    machine.pio.map(Window("line", "line", PORT, 1, lambda offset, size: 0, write))
    assert machine.run().kind == "halted"
    assert (machine.cpu.get("rbx"), machine.cpu.get("rcx")) == (1, 1)
    assert machine.clock.icount == 5
    frame = machine.memory.read(0x8000 - 6, 2)
    assert int.from_bytes(frame, "little") == REAL_CODE + 2


def test_an_nmi_in_the_handler_of_another_waits_for_iret() -> None:
    machine = real_mode("e61043f4")
    machine.memory.write(2 * 4, ISR.to_bytes(4, "little"))
    # inc cx; cmp cx, 2; jae 1f; out 0x10, al; inc dx; 1: iret
    machine.memory.write(ISR, bytes.fromhex("4183f9027303e61042cf"))
    order = []

    def write(offset: int, size: int, value: int) -> None:
        order.append(machine.cpu.get("rip"))
        machine.set_nmi()

    machine.pio.map(Window("line", "line", PORT, 1, lambda offset, size: 0, write))
    machine.cpu.set("rdx", 0)
    assert machine.run().kind == "halted"
    assert (machine.cpu.get("rcx"), machine.cpu.get("rdx")) == (2, 1)
    assert order == [REAL_CODE, ISR + 6]
