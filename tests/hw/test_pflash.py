"""Flash: commands of the data sheet, on a real processor's pages, and what a guest may do wrong."""

from __future__ import annotations

import random

import pytest

from workbench.core.config import FirmwareConfig, FlashConfig, MachineConfig
from workbench.core.machine import Machine
from workbench.core.state import StateError
from workbench.hw import pflash
from workbench.hw.pflash import Flash

SIZE, CODE_BYTES = 64 << 10, 64 << 10
BASE = (1 << 32) - CODE_BYTES - SIZE
GUEST = 0x1000


class Rig:
    """A machine with two devices; `write` and `read` are accesses of its processor."""

    def __init__(self, read_only: bool = False, image: bytes = b"\xff" * SIZE) -> None:
        config = MachineConfig(
            ram_bytes=1 << 20,
            firmware=FirmwareConfig(),
            flash=(FlashConfig("pflash0", CODE_BYTES, True),
                   FlashConfig("pflash1", SIZE, read_only)),
        )  # fmt: skip
        self.machine = Machine(config)
        self.stored: list[tuple[int, bytes]] = []
        self.devices = pflash.attach(self.machine)
        self.machine.memory.map_rom(image + b"\x90" * CODE_BYTES)
        for device, data in zip(self.devices, (b"\x90" * CODE_BYTES, image), strict=True):
            device.plug(data)
        self.flash.store = lambda offset, data: self.stored.append((offset, data))
        cpu = self.machine.cpu
        cpu.set_segment("cs", 0, 0, 0xFFFFFFFF, 0xC09B)  # 32 bits, flat
        for name in ("ds", "ss"):
            cpu.set_segment(name, 0, 0, 0xFFFFFFFF, 0xC093)
        cpu.set("cr0", 0x60000011)
        cpu.update_mode()

    @property
    def flash(self) -> Flash:
        return self.devices[1]

    def _run(self, code: str, at: int, value: int = 0) -> int:
        cpu = self.machine.cpu
        self.machine.memory.write(GUEST, bytes.fromhex(code) + b"\x90")
        for name, number in (("rip", GUEST), ("rbx", at), ("rax", value)):
            cpu.set(name, number)
        self.machine.run(self.machine.clock.icount + 1)
        return cpu.get("rax")

    def write(self, offset: int, value: int) -> None:
        self._run("8803", BASE + offset, value)  # mov [ebx], al

    def read(self, offset: int) -> int:
        return self._run("8a03", BASE + offset) & 0xFF  # mov al, [ebx]

    def command(self, *cycles: tuple[int, int]) -> int:
        """Bus cycles, and then the status, which is cleared; the array is read again."""
        for offset, value in cycles:
            self.write(offset, value)
        self.write(0, 0x70)
        status = self.read(0)
        self.write(0, 0x50)
        self.write(0, 0xFF)
        return status


def test_programming_clears_bits_and_erasing_sets_them() -> None:
    rig = Rig()
    assert rig.command((0x1234, 0x40), (0x1234, 0xF0)) & 0xB2 == 0x80
    assert rig.command((0x1234, 0x10), (0x1234, 0x3C)) & 0xB2 == 0x80
    assert (rig.read(0x1234), rig.read(0x1235)) == (0x30, 0xFF)
    assert rig.machine.memory.read(BASE + 0x1234, 1) == b"\x30"
    assert rig.command((0x1000, 0x20), (0x1000, 0xD0)) & 0xB2 == 0x80
    assert rig.read(0x1234) == 0xFF
    assert rig.stored == [(0x1234, b"\xf0"), (0x1234, b"\x30"), (0x1000, b"\xff" * 4096)]


def test_edk2_tells_flash_from_rom_and_ram_by_the_cleared_status() -> None:
    rig = Rig(image=b"\x12" * SIZE)
    rig.write(0, 0x50)
    assert rig.read(0) != 0x50
    rig.write(0, 0x70)
    assert rig.read(0) == 0
    rig.write(0, 0xFF)
    assert rig.read(0) == 0x12


def test_identification_and_query() -> None:
    rig = Rig()
    rig.write(0, 0x90)
    assert [rig.read(n) for n in range(3)] == [0x89, 0x18, 0]
    rig.write(0x55, 0x98)
    assert bytes(rig.read(0x10 + n) for n in range(5)) == b"QRY\x01\x00"
    assert rig.read(0x27) == SIZE.bit_length() - 1
    blocks = rig.read(0x2D) + (rig.read(0x2E) << 8) + 1
    assert blocks * ((rig.read(0x2F) + (rig.read(0x30) << 8)) << 8) == SIZE
    assert bytes(rig.read(0x31 + n) for n in range(3)) == b"PRI"


def test_buffered_program() -> None:
    rig = Rig()
    cells = [(0x80 + n, n) for n in range(5)]
    assert rig.command((0x80, 0xE8), (0x80, 4), *cells, (0x80, 0xD0)) & 0xB2 == 0x80
    assert [rig.read(0x80 + n) for n in range(6)] == [0, 1, 2, 3, 4, 0xFF]
    assert rig.command((0x80, 0xE8), (0x80, 32)) & 0x30 == 0x30
    assert rig.command((0, 0xE8), (0, 1), (0, 1), (0x7000, 2), (0, 0xD0)) & 0x30 == 0x30
    assert rig.command((0, 0xE8), (0, 0), (0, 1), (0, 0x55)) & 0x30 == 0x30
    assert rig.read(0) == 0xFF


def test_a_sequence_that_is_broken_off_and_a_read_only_device() -> None:
    rig = Rig()
    assert rig.command((0, 0x20), (0, 0x55)) & 0x30 == 0x30
    rig = Rig(read_only=True, image=bytes(SIZE))
    assert rig.command((0, 0x40), (0, 0)) & 0x92 == 0x92
    assert rig.command((0, 0x20), (0, 0xD0)) & 0xA2 == 0xA2
    assert (rig.read(0), rig.stored) == (0, [])


def test_reset_reads_the_array_and_keeps_it() -> None:
    rig = Rig()
    rig.command((7, 0x40), (7, 1))
    rig.write(0, 0x40)
    rig.flash.reset()
    assert rig.read(7) == 1


def test_a_state_comes_back_and_a_damaged_one_is_refused() -> None:
    rig = Rig()
    rig.command((0x5000, 0x40), (0x5000, 1))
    then, digest = rig.machine.save(), rig.machine.digest()
    rig.command((0x5000, 0x20), (0x5000, 0xD0))
    rig.command((0x6000, 0x40), (0x6000, 1))
    rig.write(0, 0x90)
    rig.machine.restore(then)
    assert rig.machine.digest() == digest
    assert (rig.read(0x5000), rig.read(0x6000)) == (1, 0xFF)
    for damage in ({"blocks": {"16": "ff" * 4096}}, {"blocks": {"0": "ff"}}, {"mode": 9},
                   {"command": 1}, {"expected": 99}, {"blocks": {"-1": "ff" * 4096}},
                   {"buffer": [[SIZE, 0]]}, {"buffer": [[0, 256]]}):  # fmt: skip
        state = rig.flash.save()
        state["fields"] |= damage
        with pytest.raises(StateError):
            rig.flash.restore(state)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_guest_that_writes_anything_anywhere(seed: int) -> None:
    """No crash, nothing outside the device, and what is stored is what is there."""
    rng, rig = random.Random(seed), Rig()
    commands = (0xFF, 0x90, 0x98, 0x70, 0x50, 0x10, 0x40, 0xE8, 0x20, 0x60, 0xD0, 0xB0, 0x01)
    window = rig.machine.mmio.find(BASE)
    file = bytearray(b"\xff" * SIZE)
    rig.flash.store = lambda offset, data: file.__setitem__(slice(offset, offset + len(data)), data)
    for n in range(30_000):
        size = rng.choice((1, 1, 1, 2, 4, 8))
        offset = rng.choice((rng.randrange(SIZE - 7), rng.randrange(64), SIZE - size))
        value = rng.choice((rng.choice(commands), rng.getrandbits(64)))
        if rng.random() < 0.1:
            window.read(offset, size)
        else:
            window.write(offset, size, value & (1 << 8 * size) - 1)
        if not n % 5_000:
            saved = rig.flash.save()
            rig.flash.restore(saved)
            assert rig.flash.save() == saved
    assert rig.machine.memory.read(BASE, SIZE) == bytes(file)
    assert rig.machine.memory.read(BASE + SIZE, CODE_BYTES) == b"\x90" * CODE_BYTES
    assert len(rig.flash.state.buffer) <= 32
    rig.flash.reset()
    assert rig.read(0) == file[0]


def test_code_in_flash_that_takes_its_own_pages_away() -> None:
    """The same end, however the run is cut: nothing of the old translation goes on."""
    ends = []
    for step in (1, 7, 1000):
        image = bytearray(b"\xff" * SIZE)
        # l: inc ecx; cmp ecx, 50; jne l; mov byte [ebx], 0x70; m: inc edx; jmp m
        code = bytes.fromhex("4183f93275fac6037042ebfd")
        image[: len(code)] = code
        rig = Rig(image=bytes(image))
        cpu = rig.machine.cpu
        cpu.set("rip", BASE)
        cpu.set("rbx", BASE + 0x100)
        cpu.set("rcx", 0)
        cpu.set("rsp", 0x8000)
        for until in range(step, 1001, step):
            stop = rig.machine.run(until)
            if stop.kind != "icount":
                break
        ends.append((stop.kind, rig.machine.clock.icount, cpu.get("rip"), cpu.get("rdx")))
    assert ends[0] == ends[1] == ends[2]
