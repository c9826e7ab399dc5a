"""Structures in memory: decoded, shown, followed; who wrote them."""

import struct

import pytest

from workbench.core.pagewalk import Paging
from workbench.tui import commands
from workbench.tui.lines import plain
from workbench.tui.panes.memory import MemoryPane
from workbench.tui.structures import STRUCTURES
from workbench.tui.view import View


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("virtq_desc", struct.pack("<QIHH", 0x1234000, 4096, 3, 7),
         "addr 0x1234000 len 4,096 flags 0x3 NEXT|WRITE next 7"),
        ("pvirtq_desc", struct.pack("<QIHH", 0x1000, 16, 2, 0x8080),
         "addr 0x1000 len 16 id 2 flags 0x8080 AVAIL|USED"),
        ("virtq_used", struct.pack("<II", 5, 513), "id 5 len 513"),
        ("prd", struct.pack("<IHH", 0x7F0000, 0, 0x8000), "base 0x7f0000 count 65,536  EOT"),
        ("e1000_rx", struct.pack("<QHHBBH", 0x9000, 60, 0, 3, 0x80, 0),
         "addr 0x9000 len 60 status 0x3 DD|EOP errors 0x80 RXE special 0x0"),
        ("e1000_tx", struct.pack("<QHBBBBH", 0x9000, 42, 0, 0xB, 1, 0, 0),
         "addr 0x9000 len 42 cmd 0xb EOP|IFCS|RS status 0x1 DD special 0x0"),
        # Linux's __KERNEL_CS and __USER_DS.
        ("gdt", (0x00AF9B000000FFFF).to_bytes(8, "little"),
         "type code readable|accessed base 0x0 limit 0xffffffff dpl 0 bits 64"),
        ("gdt", (0x00CFF3000000FFFF).to_bytes(8, "little"),
         "type data writable|accessed base 0x0 limit 0xffffffff dpl 3 bits 32"),
        ("gdt", bytes(8), " null"),
        ("idt", struct.pack("<HHHHII", 0x990, 0x10, 0x8E03, 0x8EA0, 0xFFFFFFFF, 0),
         "handler 0xffffffff8ea00990 cs 0x10 type interrupt gate dpl 0 ist 3"),
        ("pte", (0x8000000002D3E067).to_bytes(8, "little"), "frame 0x2d3e000  P|RW|US|A|D|XD"),
        ("pte", (2).to_bytes(8, "little"), " not present"),
    ],
)  # fmt: skip
def test_what_the_bytes_mean(name: str, data: bytes, expected: str) -> None:
    kind = STRUCTURES[name]
    assert len(data) == kind.size
    assert " ".join(f"{n} {v}" for n, v in kind.decode(data)) == expected


@pytest.mark.parametrize("name", STRUCTURES)
def test_any_bytes_can_be_shown(view: View, name: str) -> None:
    kind = STRUCTURES[name]
    for fill in (0, 1, 0x80, 0xFF):
        assert kind.decode(bytes([fill]) * kind.size)
    view.session.go_to_row(30)
    commands.run(view, f"as {name} 0x100000")
    pane = view.panes["memory"]
    assert isinstance(pane, MemoryPane)
    assert not view.session.error, view.session.message
    assert len(pane.draw(70, 9, True)) == 9, name
    start = pane.cursor
    pane.move(1)
    assert pane.cursor - start == (8 if kind.lines else kind.size)
    place = pane.under_cursor()
    assert place is not None
    assert place.length == (8 if kind.lines else kind.size)
    pane.enter()
    commands.run(view, "as bytes")
    assert plain(pane.draw(90, 3, False)[0]).startswith(f"{pane.cursor & ~15:016x}")


def test_who_wrote_a_physical_address(view: View) -> None:
    session = view.session
    session.go_to_row(30)
    assert session.moment is not None
    stack = session.moment.registers["rsp"]
    session.travel.find_writer(stack, 4)
    linear, at = session.message, session.icount
    session.go_to_row(30)
    gpa = session.moment.physical(stack)
    commands.run(view, f"writer {gpa:#x} 4 physical")
    assert session.icount == at
    assert session.message.partition(" ")[2] == linear.partition(" ")[2]


def test_a_linear_address_of_a_physical_one() -> None:
    """A large page in the kernel's half, a small one in the user's."""
    ram = bytearray(0x8000)

    def entry(table: int, index: int, value: int) -> None:
        ram[table + 8 * index : table + 8 * index + 8] = value.to_bytes(8, "little")

    entry(0x1000, 273, 0x2003)
    entry(0x2000, 0, 0x3003)
    entry(0x3000, 1, 0x20_0083)  # 2 MiB
    entry(0x1000, 0, 0x4007)
    entry(0x4000, 0, 0x5007)
    entry(0x5000, 0, 0x6007)
    entry(0x6000, 5, 0x7007)
    paging = Paging(0x8000_0001, 0x1000, 0x20, 0x500)

    def read(gpa: int, count: int) -> bytes:
        return bytes(ram[gpa : gpa + count])

    for gpa, linear in ((0x20_1234, 0xFFFF_8880_0020_1234), (0x7010, 0x5010), (0x9000, None)):
        assert paging.linear_of(read, gpa) == linear
        if linear is not None:
            assert paging.translate(read, linear) == gpa
