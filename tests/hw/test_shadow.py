"""PAM, SMRAM, the ROM below 4 GiB and A20: what processor and bus masters reach."""

from __future__ import annotations

import pytest

from workbench.core.config import FirmwareConfig, MachineConfig
from workbench.core.engine import Cpu
from workbench.core.machine import Machine
from workbench.core.spans import spans_of
from workbench.hw.board import Board
from workbench.hw.i440fx import I440fx
from workbench.hw.shadow import ShadowRam

ROM = bytes(range(256)) * 512  # 128 KiB
PAM0, PAM1, SMRAM = 0x59, 0x5A, 0x72
READ, WRITE = 1, 2


def code(machine: Machine, text: str, at: int = 0x1000) -> str:
    """Run 16-bit code at `at` until it halts."""
    machine.memory.write(at, bytes.fromhex(text) + b"\xf4")
    machine.cpu.set_segment("cs", 0, 0, 0xFFFF, 0x9B)
    machine.cpu.set("rip", at)
    machine.restore_pending((False, False))
    return machine.run(machine.clock.icount + 100).kind


@pytest.fixture
def board() -> Board:
    made = Board(Machine(MachineConfig(ram_bytes=16 << 20, firmware=FirmwareConfig())))
    assert made.shadow is not None
    made.machine.memory.map_rom(ROM)
    made.shadow.plug(ROM)
    return made


def pam(board: Board, register: int, value: int) -> None:
    board.i440fx.write(register, 1, value)


# mov ax, 0xf000; mov ds, ax; mov byte [0x10], VALUE; mov al, [0x10]
STORE = "b800f0 8ed8 c6061000{:02x} a01000"


def test_the_rom_is_at_both_ends_and_cannot_be_written(board: Board) -> None:
    memory = board.machine.memory
    assert memory.read(0xFFFE_0000, 0x2_0000) == ROM
    assert memory.read(0xE_0000, 0x2_0000) == ROM
    assert memory.read(0xC_0000, 4) == b"\xff" * 4
    code(board.machine, STORE.format(0x77))
    assert board.machine.cpu.get("rax") & 0xFF == 0x10
    memory.write(0xF_0010, b"\x77")
    memory.write(0xFFFF_0010, b"\x77")
    memory.scatter(spans_of([(0xF_0010, 1)]), b"\x77")
    assert memory.read(0xF_0010, 1) == memory.read(0xFFFF_0010, 1) == b"\x10"


def test_writes_go_below_the_rom_where_pam_says_so(board: Board) -> None:
    """The way of copying a BIOS over itself: reads from ROM, writes to DRAM, then DRAM alone."""
    machine = board.machine
    pam(board, PAM0, WRITE << 4)
    code(machine, STORE.format(0x77))
    assert machine.cpu.get("rax") & 0xFF == 0x10  # still the ROM
    machine.memory.write(0xF_0011, b"\x78")  # a bus master
    pam(board, PAM0, READ << 4)
    assert machine.memory.read(0xF_000F, 4) == b"\0\x77\x78\0"
    code(machine, STORE.format(0x79))
    assert machine.cpu.get("rax") & 0xFF == 0x77  # write-protected
    pam(board, PAM0, (READ | WRITE) << 4)
    code(machine, STORE.format(0x79))
    assert machine.cpu.get("rax") & 0xFF == 0x79
    pam(board, PAM0, 0)
    assert machine.memory.read(0xE_0000, 0x2_0000) == ROM


def test_each_segment_has_its_own_nibble(board: Board) -> None:
    for register, nibble, base in (
        (PAM1, 0, 0xC_0000),
        (PAM1, 4, 0xC_4000),
        (PAM1 + 4, 4, 0xE_4000),
        (PAM1 + 5, 0, 0xE_8000),
        (PAM1 + 5, 4, 0xE_C000),
    ):
        pam(board, register, (READ | WRITE) << nibble)
        board.machine.memory.write(base, b"here")
        assert board.machine.memory.read(base, 4) == b"here"
        board.machine.memory.write(base + 0x4000, b"not!")
        assert board.machine.memory.read(base + 0x4000, 4) != b"not!"
        pam(board, register, 0)


def test_code_in_the_rom_is_dropped_when_ram_replaces_it(board: Board) -> None:
    """The same address executed from ROM, then from RAM: no translation survives."""
    machine = board.machine
    rom = bytearray(ROM)
    rom[-16:-12] = bytes.fromhex("b011f490")
    assert board.shadow is not None
    board.shadow.plug(bytes(rom))
    for value in (0x11, 0x22, 0x11):
        if value == 0x22:
            pam(board, PAM0, (READ | WRITE) << 4)
            machine.memory.write(0xF_FFF0, bytes.fromhex("b022f490"))
        else:
            pam(board, PAM0, 0)
        machine.cpu.set_segment("cs", 0xF000, 0xF_0000, 0xFFFF, 0x9B)
        machine.cpu.set("rip", 0xFFF0)
        machine.restore_pending((False, False))
        machine.run(machine.clock.icount + 2)
        assert machine.cpu.get("rax") & 0xFF == value


def test_snapshots_hold_what_is_hidden(board: Board) -> None:
    machine = board.machine
    pam(board, PAM0, WRITE << 4)
    machine.memory.write(0xF_0010, b"below")
    before, digest = machine.save(), machine.digest()
    pam(board, PAM0, (READ | WRITE) << 4)
    machine.memory.write(0xF_0010, b"other")
    machine.restore(before)
    assert machine.digest() == digest
    assert machine.memory.read(0xF_0010, 1) == b"\x10"
    code(machine, STORE.format(0x55))  # the page is read-only again
    assert machine.cpu.get("rax") & 0xFF == 0x10
    pam(board, PAM0, READ << 4)
    assert machine.memory.read(0xF_0010, 5) == b"\x55elow"


def test_reset_shows_the_rom_and_keeps_the_ram(board: Board) -> None:
    pam(board, PAM0, (READ | WRITE) << 4)
    board.machine.memory.write(0xF_0010, b"kept")
    board.i440fx.reset()
    assert board.shadow is not None
    board.shadow.reset()
    assert board.machine.memory.read(0xF_0010, 1) == b"\x10"
    pam(board, PAM0, READ << 4)
    assert board.machine.memory.read(0xF_0010, 4) == b"kept"


def test_smm_space_opens_and_locks(board: Board) -> None:
    bridge, read = board.i440fx, "b800a0 8ed8 c606000042 a00000"
    code(board.machine, read)
    assert board.machine.cpu.get("rax") & 0xFF == 0xFF  # nobody answers
    bridge.write(SMRAM, 1, 0x4A)
    code(board.machine, read)
    assert board.machine.cpu.get("rax") & 0xFF == 0x42
    bridge.write(SMRAM, 1, 0x1A)  # D_LCK
    bridge.write(SMRAM, 1, 0x4A)
    assert bridge.read(SMRAM, 1) == 0x1A
    code(board.machine, read)
    assert board.machine.cpu.get("rax") & 0xFF == 0xFF


def test_without_a_bios_the_registers_are_only_stored() -> None:
    bridge = I440fx()
    bridge.write(PAM0, 1, 0x30)
    bridge.write(SMRAM, 1, 0x4A)
    assert (bridge.read(PAM0, 1), bridge.read(0x2C, 4)) == (0x30, 0)


@pytest.mark.parametrize("gate", ["port92", "i8042"])
def test_both_gates_close_a20(board: Board, gate: str) -> None:
    """Address 0x100010 by FFFF:0020, with the gates open and closed."""
    machine = board.machine
    machine.memory.write(0x10, b"\x11")
    machine.memory.write(0x10_0010, b"\x22")
    read = "b8ffff 8ed8 a02000"

    def low() -> int:
        code(machine, read)
        return machine.cpu.get("rax") & 0xFF

    def kbc(value: int) -> None:
        machine.pio.write(0x64, 1, 0xD1)
        machine.pio.write(0x60, 1, value)

    assert low() == 0x22
    machine.pio.write(0x92, 1, 0)
    assert low() == 0x22  # the keyboard controller holds it open
    kbc(0x01)
    assert low() == 0x11
    closed = machine.save()
    if gate == "port92":
        machine.pio.write(0x92, 1, 2)
    else:
        kbc(0x03)
    assert low() == 0x22
    machine.restore(closed)
    assert low() == 0x11
    kbc(0x03)
    assert low() == 0x22


def test_a_rom_has_whole_pages() -> None:
    cpu = Cpu(ram_bytes=1 << 20)
    with pytest.raises(ValueError, match="whole pages"):
        cpu.map_rom(b"x" * 100)


def test_a_wrong_state_is_refused(board: Board) -> None:
    shadow = board.shadow
    assert isinstance(shadow, ShadowRam)
    state = shadow.save()
    del state["fields"]["hidden"]["0"]
    with pytest.raises(ValueError, match="hidden DRAM"):
        shadow.restore(state)
