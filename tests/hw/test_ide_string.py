"""REP INS and REP OUTS at the data port: in blocks or one by one, the guest sees the same."""

from __future__ import annotations

import pytest

from tests.hw.ide_rig import MemoryDisk
from workbench.core.config import MachineConfig
from workbench.core.machine import Observer
from workbench.hw.ata.ata import AtaDisk
from workbench.hw.board import build_board
from workbench.hw.piix_ide import PiixIde

CODE, BUFFER = 0x1000, 0x3F80  # the buffer crosses a page
LBA = 9


class Accesses(Observer):
    def __init__(self):
        self.seen = []

    def on_access(self, kind, device, offset, size, is_write, value, addr, icount, pc, count=1):
        if device == "ide0" and offset == 0:
            self.seen.append((size, is_write, value, count))


class Guest:
    """A machine in flat protected mode, about to run `code`, and a PIO command has begun."""

    def __init__(self, code, command):
        self.disk = MemoryDisk(64, 3)
        board = build_board(MachineConfig(ram_bytes=2 << 20))
        self.machine = machine = board.machine
        drives = ((AtaDisk("d", self.disk), None), (None, None))
        self.ide = PiixIde(drives, machine.clock, (board.irq("ide0", 14), board.irq("ide1", 15)))
        board.add_pci(self.ide, 1, 1)
        board.post()
        self.ide.post()
        machine.memory.write(CODE, bytes.fromhex(code))
        machine.cpu.set("cr0", 0x11)
        machine.cpu.set_segment("cs", 8, 0, 0xFFFF_FFFF, 0xC09B)
        for name in ("ds", "es", "ss"):
            machine.cpu.set_segment(name, 16, 0, 0xFFFF_FFFF, 0xC093)
        machine.cpu.set("rip", CODE)
        for offset, value in ((2, 1), (3, LBA), (4, 0), (5, 0), (6, 0xE0), (7, command)):
            machine.pio.write(0x1F0 + offset, 1, value)
        while machine.pio.read(0x3F6, 1) & 0x80:
            machine.clock.skip_to(machine.clock.next_ps)
            machine.clock.run_due()
        self.window = machine.pio.find(0x1F0)
        self.ear = Accesses()
        machine.observers.append(self.ear)

    def run(self, count):
        self.machine.run(self.machine.clock.icount + count)

    def buffer(self):
        return self.machine.memory.read(BUFFER, 512)


# cld; mov edx, 0x1f0; mov ecx, count; mov edi, buffer; rep insw; hlt
INSW = "fc ba f0010000 b9 00010000 bf 803f0000 66f36d f4"
INSD = "fc ba f0010000 b9 80000000 bf 803f0000 f36d f4"
INSD_DOWN = "fd ba f0010000 b9 80000000 bf 7c410000 f36d f4"
OUTSW = "fc ba f0010000 b9 00010000 be 803f0000 66f36f f4"


@pytest.mark.parametrize("blocks", [True, False])
@pytest.mark.parametrize(
    ("code", "size"), [(INSW, 2), (INSD, 4), (INSD_DOWN, 4)], ids=["insw", "insd", "insd-down"]
)
def test_rep_ins(code, size, blocks):
    guest = Guest(code, 0x20)
    if not blocks:
        guest.window.read_block = None
    guest.run(12)
    want = bytes(guest.disk.data[LBA * 512 : LBA * 512 + 512])
    words = [want[at : at + size] for at in range(0, 512, size)]
    got = b"".join(reversed(words)) if code == INSD_DOWN else want
    assert guest.buffer() == got
    assert sum(count for *_, count in guest.ear.seen) == 512 // size
    last = int.from_bytes(words[-1], "little")
    assert guest.ear.seen[-1][:3] == (size, False, last)
    assert guest.window.reads >= 512 // size
    assert guest.machine.pio.read(0x1F7, 1) == 0x50


@pytest.mark.parametrize("blocks", [True, False])
def test_rep_outs(blocks):
    guest = Guest(OUTSW, 0x30)
    data = bytes(range(256)) * 2
    guest.machine.memory.write(BUFFER, data)
    if not blocks:
        guest.window.write_block = None
    guest.run(12)
    guest.machine.clock.skip_to(guest.machine.clock.now_ps + 10**9)
    guest.machine.clock.run_due()
    assert guest.disk.data[LBA * 512 : LBA * 512 + 512] == data
    assert [(w, n) for _, w, _, n in guest.ear.seen] == [(True, 64), (True, 192)]


def test_blocks_and_single_accesses_leave_equal_machines():
    digests = set()
    for blocks in (True, False):
        guest = Guest(INSD, 0x20)
        if not blocks:
            guest.window.read_block = None
        guest.run(12)
        digests.add((guest.machine.digest(), tuple(guest.ear.seen)))
    assert len(digests) == 1
